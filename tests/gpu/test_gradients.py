# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Gradients on the device, in float32 and under bfloat16 autocast, against computations row by row in float32."""

import copy

import pytest
import torch

from tests.mpo.test_mpo_trainer import GradientKeeper, Recording
from tests.support.device import DEVICE, ON_DEVICE
from tests.support.mpo_reference import PlainMPO
from tests.support.mpo_tiny import make_text_model, make_tokenizer, moved_copy, text_pairs, training_args
from tests.support.ssb_probes import fated, probed
from tests.support.ssb_runs import image_dataset, text_dataset
from trl_r1v2 import MPOConfig


pytestmark = pytest.mark.gpu

# Relative error of a step's gradient; bfloat16 was seen to leave 0.009 to 0.019 on a CPU.
TOLERANCE = {"float32": 2e-4, "bfloat16": 0.05}


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("kind", ["text", "images"])
def test_gradients_row_by_row(kind, precision, text_model_path, internvl_path, tmp_path, monkeypatch):
    """Fresh and replayed rows; what the buffer keeps of them is captured in the training pass, and is float32."""
    path, data = (text_model_path, text_dataset) if kind == "text" else (internvl_path, image_dataset)
    settings = ON_DEVICE | {"bf16": precision == "bfloat16"}
    trainer, probe = probed(monkeypatch, path, tmp_path, data(), fated({3: 0.0, 4: 1.0, 5: 1.0}), **settings)
    trainer.train()
    assert trainer.model.device.type == DEVICE
    assert probe.num_replayed == [0, 4, 8]
    probe.assert_gradients(3, TOLERANCE[precision])
    assert precision == "float32" or max(probe.errors) > 2e-4  # that it was bfloat16
    for uid, sample in trainer.buffer.samples.items():
        stored = sample.tokens["old_per_token_logps"]
        assert stored.dtype == torch.float32
        torch.testing.assert_close(stored, probe.book[uid].behaviour.cpu(), atol=TOLERANCE[precision], rtol=0)


@pytest.mark.parametrize("precision", TOLERANCE)
def test_mpo(precision, tmp_path):
    """Three losses, the reward shift and the gradient of two micro-batches a step."""
    policy = make_text_model(make_tokenizer()).float()
    reference, keeper = moved_copy(policy), GradientKeeper()
    settings = ON_DEVICE | {"bf16": precision == "bfloat16", "gradient_accumulation_steps": 2}
    args = MPOConfig(**training_args(tmp_path, **settings), beta=0.5)
    trainer = Recording(
        copy.deepcopy(policy),
        copy.deepcopy(reference),
        args,
        train_dataset=text_pairs(16),
        processing_class=make_tokenizer(),
        callbacks=[keeper],
    )
    trainer.train()
    assert trainer.model.device.type == DEVICE
    weights = (args.preference_weight, args.quality_weight, args.generation_weight)
    plain = PlainMPO(policy, reference, 0.5, weights, "running_mean", 0.0, 0.0, "sequence", args.learning_rate)
    assert len(keeper.steps) == 3
    for step, gradients in enumerate(keeper.steps):
        for batch in trainer.micro_batches[2 * step : 2 * step + 2]:
            plain.micro_batch({name: value.cpu() for name, value in batch.items()}, accumulation=2)
        expected = plain.optimizer_step()
        assert gradients.keys() == expected.keys()
        actual, wanted = (
            torch.cat([named[name].cpu().double().flatten() for name in expected]) for named in (gradients, expected)
        )
        assert ((actual - wanted).norm() / wanted.norm()).item() < TOLERANCE[precision]
    assert trainer.reward_shift.value == pytest.approx(plain.delta, abs=TOLERANCE[precision])
