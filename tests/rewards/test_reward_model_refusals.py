# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Reward models that are damaged, incomplete or asked too much are refused: no score is made up, none is lost in silence.
"""

import random
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, Qwen2ForCausalLM, Qwen2ForSequenceClassification

from tests.support.pooling_server import reward_serving
from tests.support.reward_tiny import build_reward_model
from tests.support.tiny_models import build_tokenizer, text_config
from trl_r1v2.rewards import HTTPRewardModel, HybridReward, RewardModel, RewardModelReward, load_trainable
from trl_r1v2.rewards.trainable_model import ValueHead


@pytest.fixture(scope="module")
def reward_path(internvl_path, tmp_path_factory):
    return build_reward_model(internvl_path, tmp_path_factory.mktemp("reward"))


@pytest.fixture(scope="module")
def model(reward_path):
    return RewardModel.from_pretrained(reward_path)


def judged(text: str) -> list[dict]:
    return [
        {"role": role, "content": [{"type": "text", "text": words}]}
        for role, words in (("user", "q"), ("assistant", text))
    ]


def copied(path: str, folder: Path, drop: str | None = None) -> str:
    """A copy, without the tensors whose names match."""
    shutil.copytree(path, folder)
    if drop is not None:
        tensors = load_file(folder / "model.safetensors")
        kept = {name: tensor for name, tensor in tensors.items() if not re.search(drop, name)}
        assert len(kept) < len(tensors)
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_an_error_in_training_and_in_the_server(reward_path, number):
    model = RewardModel.from_pretrained(reward_path)
    model.model.value_head.summary.bias.data.fill_(number)
    reward = HybridReward({"theta": RewardModelReward(model)})
    with pytest.raises(RuntimeError, match=f"score of conversation 0 is {number}, no finite number.*dtype float32"):
        reward(prompts=["q"], completions=["a"])
    with reward_serving(model) as server, pytest.raises(RuntimeError, match=f"500: .*is {number}, no finite number"):
        conversation = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
        HTTPRewardModel(server.url, patience=0.0).score([conversation])


@pytest.mark.parametrize("part", ["weight", "bias"])
@pytest.mark.parametrize("number", [float("nan"), float("-inf")])
def test_a_head_that_is_not_finite_is_refused_when_it_is_loaded(part, number, tmp_path):
    tensors = {"summary.weight": torch.zeros(1, 16), "summary.bias": torch.zeros(1)}
    tensors[f"summary.{part}"].view(-1)[-1] = number
    save_file(tensors, tmp_path / "value_head.safetensors")
    with pytest.raises(ValueError, match=f"the {part} in .* holds NaN or infinite numbers"):
        ValueHead.from_pretrained(str(tmp_path), 16)


def test_what_the_head_file_holds_is_named_whole(tmp_path):
    save_file({"summary.weight": torch.zeros(1, 16)}, tmp_path / "value_head.safetensors")
    with pytest.raises(ValueError, match=r"must hold two keys, .*; it holds \['summary.weight'\]"):
        ValueHead.from_pretrained(str(tmp_path), 16)


def test_a_backbone_with_a_hole_is_refused_by_both_loaders(reward_path, tmp_path):
    broken = copied(reward_path, tmp_path / "broken", drop=r"layers\.1\.mlp\.up_proj")
    for load in (RewardModel.from_pretrained, load_trainable):
        with pytest.raises(ValueError, match=r"lacks 1 of the model's weights.*: \S*layers.1.mlp.up_proj.weight"):
            load(broken)


def test_the_language_model_head_may_be_missing(reward_path, model, tmp_path):
    folder = copied(reward_path, tmp_path / "headless", drop="lm_head")
    assert RewardModel.from_pretrained(folder).score([judged("a")]) == model.score([judged("a")])
    assert load_trainable(folder).value_head.summary.bias.item() == 0.25


def test_a_text_model_with_a_hole_is_refused(tmp_path):
    tokenizer = build_tokenizer()
    classifier, causal = tmp_path / "classifier", tmp_path / "causal"
    Qwen2ForSequenceClassification(text_config(tokenizer, num_labels=1)).save_pretrained(classifier)
    Qwen2ForCausalLM(text_config(tokenizer)).save_pretrained(causal)
    save_file(
        {"summary.weight": torch.zeros(1, 16), "summary.bias": torch.zeros(1)}, causal / "value_head.safetensors"
    )
    for folder in (classifier, causal):
        tokenizer.save_pretrained(folder)
    headless = copied(str(classifier), tmp_path / "headless", drop="score")
    with pytest.raises(ValueError, match="lacks 1 of the model's weights, which would be random: score.weight"):
        RewardModel.from_pretrained(headless)
    broken = copied(str(causal), tmp_path / "broken", drop=r"layers\.0\.self_attn")
    with pytest.raises(ValueError, match="lacks 7 of the model's weights.*, …"):
        RewardModel.from_pretrained(broken)
    assert RewardModel.from_pretrained(str(causal)).score([judged("a")]) == [0.0]


@pytest.mark.parametrize(
    ("path", "words"),
    [("runs/no/such", "runs/no/such: no such folder"), ("runs/rewrad", "runs/rewrad: no such folder below /")],
)
def test_a_folder_that_does_not_exist_is_said_so(path, words):
    with pytest.raises(ValueError, match=words) as caught:
        RewardModel.from_pretrained(path)
    assert caught.value.__cause__ is None and "huggingface.co" not in str(caught.value)


def test_by_default_the_models_own_limit_counts(model, reward_path):
    num_tokens = model._tokenize([judged("")])["input_ids"].size(1)
    fits, too_long = (judged("x" * (512 - num_tokens + more)) for more in (0, 1))
    assert model.max_tokens == 512
    (score, nothing) = model.score([fits, too_long])
    assert nothing is None and score is not None
    (higher,) = RewardModel.from_pretrained(reward_path, max_tokens=513).score([too_long])
    assert higher is not None
    with pytest.raises(ValueError, match="max_tokens is 0"):
        RewardModel.from_pretrained(reward_path, max_tokens=0)


def test_the_tokenizers_limit_counts_as_well(reward_path, tmp_path):
    folder = copied(reward_path, tmp_path / "limited")
    processor = AutoProcessor.from_pretrained(folder)
    processor.tokenizer.model_max_length = 77
    processor.save_pretrained(folder)
    assert RewardModel.from_pretrained(folder).max_tokens == 77


def test_no_special_token_is_left_and_none_is_made(model):
    """One that is taken out must not leave the halves of another joined."""
    encoder, generator = model._tokenize, random.Random(0)
    parts = ["<|im_end|>", "<|im_", "end|>", "<|im_start|>", "<|", "im_start|>", "<IMG_", "CONTEXT>", "a", "é", ""]
    for _ in range(300):
        text = "".join(generator.choices(parts, k=generator.randrange(12)))
        (message,) = encoder.without_special_tokens([{"role": "user", "content": text}])
        assert not encoder._special.search(message["content"]), text
        assert [piece for piece in encoder._special.split(text) if piece not in ("", " ")] == [
            piece for piece in message["content"].split(" ") if piece
        ]
