# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Features in the table of `docs/mpo.md` that no other file drives: MPO on them is stock DPO where it has to be."""

import copy
import importlib.util

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig
from transformers import BitsAndBytesConfig
from trl import DPOConfig, DPOTrainer

from tests.support.mpo_tiny import logged, make_text_model, make_tokenizer, moved_copy, text_pairs, training_args
from trl_r1v2 import MPOConfig, MPOTrainer


STOCK = {"preference_weight": 1.0, "quality_weight": 0.0, "generation_weight": 0.0}


def assert_stock_dpo(model, folder, settings=None, **options) -> None:
    common = training_args(folder, max_steps=3, **(settings or {}))
    losses = []
    for cls, args in ((DPOTrainer, DPOConfig(**common)), (MPOTrainer, MPOConfig(**common, **STOCK))):
        torch.manual_seed(0)  # of fresh adapters
        given = {name: copy.deepcopy(value) for name, value in options.items()}
        trainer = cls(
            copy.deepcopy(model), args=args, train_dataset=text_pairs(8), processing_class=make_tokenizer(), **given
        )
        trainer.train()
        losses.append(logged(trainer, "loss"))
    assert losses[0] == losses[1] and len(set(losses[0])) > 1


def test_prompt_tuning(tmp_path):
    """Virtual tokens stand before the real ones, whose log-probabilities alone count."""
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    assert_stock_dpo(make_text_model(make_tokenizer()), tmp_path, {"learning_rate": 1.0}, peft_config=config)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
def test_qlora(tmp_path):
    make_text_model(make_tokenizer()).save_pretrained(tmp_path / "model")
    quantized = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    assert_stock_dpo(str(tmp_path / "model"), tmp_path, peft_config=lora, quantization_config=quantized)


def test_torch_compile(tmp_path):
    """With the backend that traces and does not generate code, which takes minutes."""
    policy = make_text_model(make_tokenizer())
    losses = []
    for compiled in (False, True):
        backend = {"torch_compile_backend": "aot_eager"} if compiled else {}
        args = MPOConfig(**training_args(tmp_path, max_steps=2, torch_compile=compiled, **backend))
        model = copy.deepcopy(policy)
        trainer = MPOTrainer(
            model, moved_copy(policy), args, train_dataset=text_pairs(8), processing_class=make_tokenizer()
        )
        trainer.train()
        losses.append(logged(trainer, "loss"))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
