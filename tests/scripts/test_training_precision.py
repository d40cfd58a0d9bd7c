# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Weights that small steps cannot move: when the commands say so, and that it is true."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType

from trl_r1v2.scripts.training import precision_warning


def trainer(dtype=torch.bfloat16, kind=DistributedType.MULTI_GPU, mixed_precision="bf16", deepspeed_bf16=None):
    plugin = SimpleNamespace(deepspeed_config={"bf16": deepspeed_bf16 or {"enabled": True}})
    accelerator = SimpleNamespace(
        distributed_type=kind, mixed_precision=mixed_precision, state=SimpleNamespace(deepspeed_plugin=plugin)
    )
    return SimpleNamespace(model=torch.nn.Linear(2, 2, dtype=dtype), accelerator=accelerator)


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({}, True),
        ({"dtype": torch.float16, "kind": DistributedType.NO}, True),
        ({"dtype": torch.float32}, False),
        ({"kind": DistributedType.DEEPSPEED}, False),
        ({"kind": DistributedType.DEEPSPEED, "deepspeed_bf16": {"bf16_master_weights_and_grads": True}}, True),
        ({"kind": DistributedType.FSDP}, False),
        ({"kind": DistributedType.FSDP, "mixed_precision": "no"}, True),
    ],
)
def test_who_keeps_a_float32_copy(settings, warned):
    message = precision_warning(trainer(**settings))
    assert (message is not None) == warned
    if warned:
        assert "Set `dtype: float32`" in message


def test_frozen_weights_may_have_16_bits():
    mixed = trainer()
    mixed.model.requires_grad_(False)
    mixed.model.bias = torch.nn.Parameter(mixed.model.bias.float())
    assert precision_warning(mixed) is None


def test_bfloat16_rounds_such_steps_away():
    torch.manual_seed(0)
    start = torch.randn(10_000) * 0.02
    moved = {}
    for dtype in (torch.bfloat16, torch.float32):
        weight = torch.nn.Parameter(start.to(dtype, copy=True))
        optimizer = torch.optim.AdamW([weight], lr=1e-6, weight_decay=0.0)
        for _ in range(5):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        moved[dtype] = (weight != start.to(dtype)).float().mean().item()
    assert moved[torch.bfloat16] < 0.05 and moved[torch.float32] > 0.99
