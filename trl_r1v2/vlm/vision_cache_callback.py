# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The vision cache in a TRL trainer: the fields that switch it, and the callback that installs and reports it."""

from dataclasses import dataclass

import torch
from transformers import Trainer, TrainerCallback
from transformers.hf_argparser import HfArg
from transformers.utils.hub import convert_file_size_to_int

from .vision_cache import VisionCache


@dataclass
class VisionCacheArguments:
    """Fields for a script or config that lets its user switch the cache; their meanings are in their help."""

    vision_cache: bool = HfArg(default=False, help="Encode each distinct tile once while the vision tower is frozen.")
    vision_cache_size: str = HfArg(default="2GB", help="Most bytes of tile features to keep.")
    vision_cache_device: str | None = HfArg(
        default=None, help="Device that keeps the features, for example 'cpu'. Default: the tower's."
    )

    def __post_init__(self):
        try:
            convert_file_size_to_int(self.vision_cache_size)
        except ValueError:
            size = self.vision_cache_size
            raise ValueError(f"`vision_cache_size` is {size!r}; give a size such as '2GB'.") from None


def add_vision_cache(trainer: Trainer, arguments: VisionCacheArguments, reference: torch.nn.Module | None = None):
    """Add the cache that `arguments` describe to a TRL trainer, if they switch it on."""
    if not arguments.vision_cache:
        return
    cache = VisionCache(convert_file_size_to_int(arguments.vision_cache_size), arguments.vision_cache_device)
    trainer.add_callback(VisionCacheCallback(cache, trainer, reference))


class VisionCacheCallback(TrainerCallback):
    """
    Installs a cache while a TRL trainer trains and adds its metrics to the trainer's, step by step. The trainer's
    reference model, if one is given, is frozen here; it shares features when its tower has equal weights.
    """

    def __init__(self, cache: VisionCache, trainer: Trainer, reference: torch.nn.Module | None = None):
        self.cache = cache
        self.trainer = trainer
        self.reference = reference
        self._seen = cache.metrics()

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.cache.uninstall()  # a run that ended in an error left it installed
        self.cache.install(model)
        if self.reference is not None:
            self.reference.requires_grad_(False)
            self.cache.install(self.reference)

    def on_step_begin(self, args, state, control, **kwargs):
        self._seen = self.cache.metrics()  # without what an evaluation or a monitor has looked at in between

    def on_step_end(self, args, state, control, **kwargs):
        now = self.cache.metrics()
        step = {name: now[name] - self._seen[name] for name in now if name != "vision_cache/bytes"}
        tiles = step["vision_cache/tiles"]
        step["vision_cache/hit_rate"] = 1 - step["vision_cache/encoded"] / tiles if tiles else 0.0
        step["vision_cache/bytes"] = now["vision_cache/bytes"]
        for name, value in step.items():
            self.trainer._metrics["train"][name].append(value)

    def on_train_end(self, args, state, control, **kwargs):
        self.cache.uninstall()
