# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""TRL's `RewardTrainer` with its open defects mended; where none of them shows, it trains bit for bit the same."""

import trl

from .native_checkpoint import NativeCheckpointMixin
from .tower_in_step import keep_tower_in_step


class RewardTrainer(NativeCheckpointMixin, trl.RewardTrainer):
    """[`~trl.RewardTrainer`] of a vision-language model, with the mends of this folder."""

    def __init__(self, model, args, *other_args, **kwargs):
        # As TRL's other trainers do: without it, DDP waits for the tower's gradients of a process that has text alone.
        if args.ddp_find_unused_parameters is None and not (args.gradient_checkpointing_kwargs or {}).get(
            "use_reentrant"
        ):
            args.ddp_find_unused_parameters = True
        super().__init__(model, args, *other_args, **kwargs)
        keep_tower_in_step(self, self.model)
