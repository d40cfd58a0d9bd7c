# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.

"""The policy of `filter-prompts` and `pairs`: whole checkpoints, and folders that hold PEFT adapters alone."""

import json
import shutil

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

from trl_r1v2.sampling.generation import sample_responses
from trl_r1v2.sampling.prompts import encode_prompts
from trl_r1v2.scripts.generation import load_policy
from trl_r1v2.vlm.errors import CheckpointError


def adapter_folder(model_class, path, folder):
    """Adapters whose effect is visible, saved as trainers save them: with the processor, without the base model."""
    model = get_peft_model(model_class.from_pretrained(path), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(generator=generator)
    model.save_pretrained(folder)
    AutoProcessor.from_pretrained(path).save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize(
    ("fixture", "model_class"),
    [("text_model_path", AutoModelForCausalLM), ("internvl_path", AutoModelForImageTextToText)],
)
def test_adapters_are_merged_into_their_base(fixture, model_class, tmp_path, request):
    path = request.getfixturevalue(fixture)
    trained = adapter_folder(model_class, path, tmp_path)
    policy, processing_class = load_policy(str(tmp_path), torch.device("cpu"), dtype="float32")
    assert type(policy) is type(trained.get_base_model())
    ids = processing_class.apply_chat_template(
        [{"role": "user", "content": [{"type": "text", "text": "why?"}]}] if fixture == "internvl_path" else
        [{"role": "user", "content": "why?"}], tokenize=True, return_tensors="pt", return_dict=True
    )["input_ids"]  # fmt: skip
    with torch.no_grad():
        expected, found = trained(input_ids=ids).logits, policy(input_ids=ids).logits
        start = model_class.from_pretrained(path).eval()(input_ids=ids).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert (expected - start).abs().max() > 1e-2


def test_adapters_that_are_not_there_are_no_policy(text_model_path, tmp_path):
    adapter_folder(AutoModelForCausalLM, text_model_path, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    lost = next(name for name in tensors if "lora_B" in name)
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"does not fit its base model .*missing adapter keys.*lora_B"):
        load_policy(str(tmp_path), torch.device("cpu"), dtype="float32")


def test_a_policy_without_padding_pads_with_its_end(internvl_path, tmp_path):
    """As Llama-3-Instruct comes: prompts of several lengths, which hold that end themselves, become one batch."""
    shutil.copytree(internvl_path, tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(settings))
    assert AutoProcessor.from_pretrained(tmp_path / "model").tokenizer.pad_token is None
    policy, processor = load_policy(str(tmp_path / "model"), torch.device("cpu"), dtype="float32")
    texts = ("why?", "because it is so")
    chats = [[{"role": "user", "content": [{"type": "text", "text": text}]}] for text in texts]
    batch = encode_prompts(processor, chats)
    alone = [encode_prompts(processor, [chat])["input_ids"][0] for chat in chats]
    eos = processor.tokenizer.eos_token_id
    assert batch["input_ids"][0].tolist() == [eos] * (len(texts[1]) - len(texts[0])) + alone[0].tolist()
    assert eos in alone[0] and batch["attention_mask"].sum(dim=1).tolist() == [len(ids) for ids in alone]
    rows = sample_responses(policy, processor, Dataset.from_dict({"prompt": chats}), num_samples=2, max_new_tokens=4)
    assert [(rollout.row, rollout.sample) for rollout in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]
