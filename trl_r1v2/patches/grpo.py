# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""TRL's `GRPOTrainer` with its open defects mended; where none of them shows, it trains bit for bit the same."""

import trl

from .native_checkpoint import NativeCheckpointMixin
from .partial_checkpoints import PartialCheckpointsMixin
from .prompt_order_after_resume import PromptOrderAfterResumeMixin
from .text_among_images import TextAmongImagesMixin
from .vllm_encoder_cache import VLLMEncoderCacheMixin
from .vllm_image_tokens import VLLMImageTokensMixin


class GRPOTrainer(
    NativeCheckpointMixin,
    PartialCheckpointsMixin,
    PromptOrderAfterResumeMixin,
    TextAmongImagesMixin,
    VLLMImageTokensMixin,
    VLLMEncoderCacheMixin,
    trl.GRPOTrainer,
):
    """[`~trl.GRPOTrainer`] with the mends of this folder, on top of which features are built."""
