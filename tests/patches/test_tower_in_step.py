# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""A forward without images under sharding runs the tower and is otherwise what it was."""

from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.support.tiny_qwen_vl import build_qwen_vl
from trl_r1v2.patches.tower_in_step import keep_tower_in_step


@pytest.fixture(scope="module")
def qwen_path(tmp_path_factory):
    return build_qwen_vl(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(params=["internvl", "qwen"])
def path(request, internvl_path, qwen_path):
    return {"internvl": internvl_path, "qwen": qwen_path}[request.param]


def build(path, is_sharded: bool, with_peft: bool = False):
    """A model and how often its tower ran."""
    model = AutoModelForImageTextToText.from_pretrained(path)
    tower = model.model.vision_tower if "internvl" in path else model.model.visual
    ran = []
    tower.register_forward_pre_hook(lambda module, args: ran.append(1))
    if with_peft:
        torch.manual_seed(0)
        model = get_peft_model(
            model, LoraConfig(r=2, target_modules=r".*language_model.*q_proj", init_lora_weights=False)
        )
    trainer = SimpleNamespace(
        is_fsdp_enabled=is_sharded, is_deepspeed_enabled=False, processing_class=AutoProcessor.from_pretrained(path)
    )
    keep_tower_in_step(trainer, model)
    return model, ran


def text_batch(**more) -> dict:
    ids = torch.randint(20, 90, (2, 7), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **more}


@pytest.mark.parametrize("with_peft", [False, True])
def test_gradients_are_unchanged_and_those_of_the_tower_are_zero(path, with_peft):
    found = {}
    for is_sharded in (False, True):
        model, ran = build(path, is_sharded, with_peft)
        model(**text_batch()).logits.square().sum().backward()
        assert len(ran) == is_sharded
        found[is_sharded] = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    for name, expected in found[False].items():
        ours = found[True][name]
        assert ours is not None, f"{name} would be waited for"
        assert torch.equal(ours, torch.zeros_like(ours) if expected is None else expected), name


def test_no_tiles_are_no_images(internvl_path):
    for is_sharded in (False, True):
        model, ran = build(internvl_path, is_sharded)
        empty = model(**text_batch(pixel_values=torch.zeros(0, 3, 28, 28))).logits
        assert torch.equal(empty, AutoModelForImageTextToText.from_pretrained(internvl_path)(**text_batch()).logits)
        assert len(ran) == is_sharded


def test_the_tower_runs_for_the_prompt_and_not_for_its_answer(path):
    """As it does for prompts with images, which the other processes may have."""
    answers = {}
    for is_sharded in (False, True):
        model, ran = build(path, is_sharded)
        answers[is_sharded] = model.generate(**text_batch(), max_new_tokens=4, do_sample=False)
        assert len(ran) == is_sharded
    assert torch.equal(answers[False], answers[True])


def test_an_image_too_many_is_still_an_error(internvl_path):
    model, _ = build(internvl_path, True)
    with pytest.raises(ValueError, match="do not match"):
        model(**text_batch(pixel_values=torch.zeros(1, 3, 28, 28)))
