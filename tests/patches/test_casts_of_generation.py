# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Under mixed precision, generation casts a trained weight once for a batch, not once for a token."""

import pytest
import torch
import trl
from datasets import Dataset
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.tiny_models import build_qwen2
from trl_r1v2.patches.grpo import GRPOTrainer


NUM_TOKENS = 6


class CountCasts(TorchDispatchMode):
    """Counts copies of one tensor to another format."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.weight, self.count = weight, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._to_copy.default and args[0].data_ptr() == self.weight.data_ptr():
            self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("cls", "expected"), [(trl.GRPOTrainer, NUM_TOKENS), (GRPOTrainer, 1)])
def test_casts_of_a_batch(tmp_path, monkeypatch, cls, expected):
    path = build_qwen2(tmp_path / "model")
    counts = []
    generate = trl.GRPOTrainer._generate_single_turn

    def counting(self, *args, **kwargs):
        with CountCasts(self.model.model.layers[0].mlp.up_proj.weight) as casts:
            out = generate(self, *args, **kwargs)
        counts.append(casts.count)
        return out

    monkeypatch.setattr(trl.GRPOTrainer, "_generate_single_turn", counting)
    trainer = cls(
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
        lambda completions, **kwargs: [float(len(text)) for text in completions],
        trl.GRPOConfig(
            output_dir=str(tmp_path / "out"), use_cpu=True, bf16=True, report_to="none", max_steps=1,
            num_generations=2, per_device_train_batch_size=2, max_completion_length=NUM_TOKENS, save_strategy="no",
            generation_kwargs={"min_new_tokens": NUM_TOKENS}, gradient_checkpointing=False,
        ),  # fmt: skip
        train_dataset=Dataset.from_dict({"prompt": ["12+5="] * 2}),
        processing_class=AutoTokenizer.from_pretrained(path, padding_side="left"),
    )  # fmt: skip
    trainer.train()
    assert counts == [expected]
