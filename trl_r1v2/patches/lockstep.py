# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Micro-batches without images where processes have to do the same things in the same order.

Such a micro-batch skips adapter and vision tower. FSDP and ZeRO-3 gather parameters inside the forward, and DeepSpeed's
other stages reduce gradients in buckets that fill in the order of the backward: a process that leaves some out lets the
others wait, or is sent gradients of other parameters. DDP waits for no parameter and is not affected.
"""

import torch
from transformers import Trainer
from transformers.integrations import is_deepspeed_zero3_enabled

from ..vlm.activation import component_of


def check_step_without_images(trainer: Trainer) -> None:
    """
    Refuse a micro-batch without images, which the caller has met, where the processes would not stay together.

    Args:
        trainer ([`~transformers.Trainer`]):
            The trainer, of a model that takes images.

    Raises:
        `ValueError`: Under FSDP and ZeRO-3; under the other stages of DeepSpeed while adapter or tower trains.
    """
    if trainer.is_fsdp_enabled or is_deepspeed_zero3_enabled():
        what = "the vision tower, whose sharded parameters the other processes wait for"
    elif trainer.is_deepspeed_enabled and torch.is_grad_enabled() and trains_image_side(trainer.model):
        what = "the gradients of adapter and vision tower, which DeepSpeed would mix up with others"
    else:
        return
    raise ValueError(
        f"a micro-batch of rows without images skips {what}. Raise `per_device_train_batch_size` so that every micro-batch "
        "has an image, leave such rows out, or train with DDP."
    )


def trains_image_side(model: torch.nn.Module) -> bool:
    """Whether a parameter trains that only images reach. Of a model whose parts are not known, any may be one."""
    trained = {}
    for name, parameter in model.named_parameters():
        try:
            component = component_of(name)
        except ValueError:
            component = None  # a value head, or a model of another kind
        trained[component] = trained.get(component, False) or parameter.requires_grad
    if {"adapter", "vision"} & trained.keys():
        return trained.get("adapter", False) or trained.get("vision", False)
    return any(trained.values())
