# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Which micro-batches without images are refused, by the kind of parallelism and by what trains.

The trainers' own refusals in two processes are in `tests/mpo/test_mpo_distributed.py` and `tests/distributed`.
"""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from trl_r1v2.patches.lockstep import check_step_without_images, trains_image_side


def model(trained: str, parts=("vision_tower", "multi_modal_projector", "language_model", "value_head")) -> nn.Module:
    made = nn.ModuleDict({part: nn.Linear(1, 1) for part in parts})
    for part, module in made.items():
        module.requires_grad_(part in trained.split())
    return made


@pytest.mark.parametrize(
    ("trained", "expected"),
    [
        ("language_model", False),
        ("language_model value_head", False),
        ("language_model multi_modal_projector", True),
        ("vision_tower", True),
        ("", False),
    ],
)
def test_parameters_that_only_images_reach(trained, expected):
    assert trains_image_side(model(trained)) is expected


def test_a_model_of_unknown_parts_may_have_them():
    assert trains_image_side(model("encoder", parts=("encoder", "decoder")))
    assert not trains_image_side(model("", parts=("encoder", "decoder")))


def trainer(trained: str, fsdp: bool = False, deepspeed: bool = False):
    return SimpleNamespace(is_fsdp_enabled=fsdp, is_deepspeed_enabled=deepspeed, model=model(trained))


def test_refusals():
    check_step_without_images(trainer("vision_tower"))  # one process or DDP
    with pytest.raises(ValueError, match="skips the vision tower, whose sharded parameters"):
        check_step_without_images(trainer("language_model", fsdp=True))
    with pytest.raises(ValueError, match="skips the gradients of adapter and vision tower"):
        check_step_without_images(trainer("multi_modal_projector", deepspeed=True))
    check_step_without_images(trainer("language_model", deepspeed=True))
    with torch.no_grad():  # nothing is reduced
        check_step_without_images(trainer("multi_modal_projector", deepspeed=True))
