# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""TRL's `RewardTrainer` with its open defects mended; where none of them shows, it trains bit for bit the same."""

import trl

from .native_checkpoint import NativeCheckpointMixin


class RewardTrainer(NativeCheckpointMixin, trl.RewardTrainer):
    """[`~trl.RewardTrainer`] with the mends of this folder, on top of which features are built."""
