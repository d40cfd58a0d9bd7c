# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Forwards without images in a vision-language model that trains on images.

Such a forward skips vision tower and adapter. Where parameters or gradients are sharded, all processes have to gather
the same parameters and reduce the same gradients in the same order: one that skips the tower lets the others wait, or
is sent gradients of other parameters. It runs the tower on a blank image here, and none of the features goes anywhere:
every other number is as before, and the tower's gradient is 0.

No issue is open: TRL and transformers leave it to the data. Does not cover models that take their features from
elsewhere than `get_image_features`, nor decoding after the first token, in which no process runs the tower.
"""

import functools
from typing import Any

import torch
from accelerate.utils import is_peft_model
from PIL import Image
from transformers import Trainer

from ..images.prompt_images import VISUAL_FIELDS


# Neither a feature of an image nor read by the language model.
TOWER_OUTPUTS = ("last_hidden_state", "hidden_states", "attentions")


def keep_tower_in_step(trainer: Trainer, *models: torch.nn.Module | None) -> None:
    """
    Settle the forwards of a trainer's models that have no images.

    Args:
        trainer ([`~transformers.Trainer`]): The trainer, with the model's processor as `processing_class` by the time
            it trains.
        models (`torch.nn.Module`): Models before they are wrapped, with or without PEFT; `None` and models of text are
            passed over.
    """
    for model in models:
        if model is not None and "image" in model.input_modalities:
            _BlankImage(trainer).watch(model)


class _BlankImage:
    """What one model makes of no image: nothing, or under FSDP and DeepSpeed a blank one's features, of no use."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.inputs: dict[str, torch.Tensor] = {}
        self.is_passing = False

    def watch(self, model: torch.nn.Module) -> None:
        base = model.get_base_model() if is_peft_model(model) else model
        # PEFT's forward calls that of the base model past its hooks; `generate` calls the base model.
        for module in {model, base}:
            module.register_forward_pre_hook(self.before_forward, with_kwargs=True)
        backbone = base.base_model
        encode, generate = backbone.get_image_features, base.generate

        @functools.wraps(encode)
        def get_image_features(*args, **kwargs):
            is_blank, self.is_passing = self.is_passing, False
            features = encode(*args, **kwargs)
            return _without_rows(features) if is_blank else features

        @functools.wraps(generate)
        def generate_in_step(*args, **kwargs):  # which encodes images before its first forward
            return generate(*args, **self.with_blank(base, kwargs))

        backbone.get_image_features, base.generate = get_image_features, generate_in_step

    def before_forward(self, module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]):
        cache = kwargs.get("cache", kwargs.get("past_key_values"))  # `cache` from transformers 5.24 on
        is_decoding = cache is not None and cache.get_seq_length() > 0
        if is_decoding or kwargs.get("mm_encoder_outputs") is not None:
            return None
        return args, self.with_blank(module, kwargs)

    def with_blank(self, module: torch.nn.Module, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The inputs of a model, without those of zero images, and under sharding with a blank one instead."""
        pixels = kwargs.get("pixel_values")
        if pixels is not None and pixels is self.inputs.get("pixel_values"):
            return kwargs  # put there by the hook of the PEFT model around this one
        if pixels is not None and len(pixels) > 0:
            return kwargs
        kwargs = {name: value for name, value in kwargs.items() if name not in VISUAL_FIELDS}
        if self.trainer.is_fsdp_enabled or self.trainer.is_deepspeed_enabled:
            self.is_passing = True
            kwargs |= self.blank_inputs(module)
        return kwargs

    def blank_inputs(self, module: torch.nn.Module) -> dict[str, torch.Tensor]:
        """The visual inputs of two small images: where the halves of a batch share images, half of them is one."""
        if not self.inputs:
            processor = self.trainer.processing_class.image_processor
            made = processor(images=[Image.new("RGB", (28, 28))] * 2, return_tensors="pt")
            parameter = next(module.parameters())
            for name in made.keys() & set(VISUAL_FIELDS):
                dtype = parameter.dtype if made[name].is_floating_point() else None
                self.inputs[name] = made[name].to(parameter.device, dtype)
        return self.inputs


def _without_rows(value: Any) -> Any:
    """Features of no image that hang on those of the blank one, so that the backward pass goes through the tower."""
    if isinstance(value, torch.Tensor):
        return value[:0]
    if isinstance(value, dict):  # a `ModelOutput`
        kept = {name: item if name in TOWER_OUTPUTS else _without_rows(item) for name, item in value.items()}
        return type(value)(**kept)
    return type(value)(_without_rows(item) for item in value)
