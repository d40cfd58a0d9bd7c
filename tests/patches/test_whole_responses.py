# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Templates that cut a response up to `</think>`: its reasoning is trained on all the same, or the template is refused.
"""

import pytest
from datasets import Dataset
from trl import DPOConfig, DPOTrainer
from trl.chat_template_utils import deepseek_r1_distill_chat_template

from tests.support.mpo_tiny import image_pairs, make_processor, make_vlm, moved_copy, training_args
from tests.support.tiny_models import build_tokenizer, text_config
from trl_r1v2 import MPOConfig, MPOTrainer
from trl_r1v2.patches import whole_responses
from trl_r1v2.patches.whole_responses import with_whole_responses
from trl_r1v2.rewards.conversations import ConversationEncoder


# As QwQ's, for messages of text and of parts.
CUTTING = (
    "{% for m in messages %}{% set text = m.content if m.content is string else m.content[-1].text %}"
    "{{ '<' + m.role + '> ' }}{% if m.content is not string and m.content[0].type == 'image' %}{{ '<image> ' }}"
    "{% endif %}{{ text.split('</think>')[-1] if m.role == 'assistant' else text }}{{ ' <eos>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant> ' }}{% endif %}"
)
WHOLE = CUTTING.replace("text.split('</think>')[-1] if m.role == 'assistant' else text", "text")


def reasoning_pairs() -> Dataset:
    def answer(text):
        return [{"role": "assistant", "content": text}]

    row = {"prompt": [{"role": "user", "content": "1+1?"}], "chosen": answer("<think>a</think>2")}
    return Dataset.from_list([row | {"rejected": answer("<think>b</think>2")}] * 4)


@pytest.fixture(scope="module")
def r1_tokenizer():
    tokenizer = build_tokenizer()
    tokenizer.chat_template = deepseek_r1_distill_chat_template
    return tokenizer


def rendered(trainer, tokenizer) -> tuple[str, str]:
    row = trainer.train_dataset[0]
    return tokenizer.decode(row["chosen_ids"]), tokenizer.decode(row["rejected_ids"])


def test_two_reasonings_are_two_targets(r1_tokenizer, tmp_path):
    """Stock DPO gives both responses the same tokens, and no gradient tells them apart."""
    from transformers import Qwen2ForCausalLM

    model = Qwen2ForCausalLM(text_config(r1_tokenizer))
    settings = {"model": model, "ref_model": moved_copy(model), "processing_class": r1_tokenizer}
    settings["train_dataset"] = reasoning_pairs()
    stock = DPOTrainer(args=DPOConfig(**training_args(tmp_path)), **settings)
    chosen, rejected = rendered(stock, r1_tokenizer)
    assert chosen == rejected and "think" not in chosen
    ours = MPOTrainer(args=MPOConfig(**training_args(tmp_path, max_steps=1)), **settings)
    chosen, rejected = rendered(ours, r1_tokenizer)
    assert "a</think>2" in chosen and "b</think>2" in rejected
    ours.train()
    assert ours.processing_class.chat_template == deepseek_r1_distill_chat_template, "what is saved stays as it was"


def test_a_cutting_template_is_refused_by_name_where_responses_reason(r1_tokenizer):
    tokenizer = build_tokenizer()
    tokenizer.chat_template, tokenizer.name_or_path = CUTTING, "some/model"
    with pytest.raises(ValueError, match=r"chat template of 'some/model', '{% for m in.* drops what a response has"):
        with_whole_responses(tokenizer, reasoning_pairs())
    with pytest.raises(ValueError, match="some/model"):
        ConversationEncoder(tokenizer)
    plain = reasoning_pairs().map(
        lambda row: {side: [{"role": "assistant", "content": "2"}] for side in ("chosen", "rejected")}
    )
    assert with_whole_responses(tokenizer, plain) is tokenizer
    tokenizer.chat_template = WHOLE
    assert with_whole_responses(tokenizer, reasoning_pairs()) is tokenizer


def test_rewards_are_read_off_the_reasoning(r1_tokenizer):
    encode = ConversationEncoder(r1_tokenizer)
    both = [
        [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": f"<think>{text}</think>2"}]
        for text in "ab"
    ]
    ids = encode(both)["input_ids"]
    assert (ids[0] != ids[1]).any()


def test_data_with_images_is_rendered_whole_by_the_collator(monkeypatch, tmp_path):
    processor = make_processor()
    processor.chat_template = CUTTING
    rows = image_pairs([1, 1]).map(
        lambda row, index: {"chosen": [{"role": "assistant", "content": f"<think> w1 </think> w{2 + index}"}]},
        with_indices=True,
    )
    policy = make_vlm(processor)
    args = MPOConfig(**training_args(tmp_path))
    with pytest.raises(ValueError, match="drops what a response has"):
        MPOTrainer(policy, moved_copy(policy), args, train_dataset=rows, processing_class=processor)
    monkeypatch.setattr(whole_responses, "get_training_chat_template", lambda processing_class: WHOLE)
    trainer = MPOTrainer(policy, moved_copy(policy), args, train_dataset=rows, processing_class=processor)
    batch = trainer.data_collator(list(rows))
    assert "w1" in processor.tokenizer.decode(batch["input_ids"][0][batch["completion_mask"][0].bool()])
    assert trainer.processing_class.chat_template == CUTTING


def test_a_response_that_repeats_its_prompt_is_refused(tmp_path):
    rows = reasoning_pairs().map(lambda row: {"rejected": row["prompt"] + row["rejected"]})
    tokenizer = build_tokenizer()
    with pytest.raises(ValueError, match="row 0: 'rejected' begins with the messages of its 'prompt'"):
        with_whole_responses(tokenizer, rows)
