# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""TRL's `GRPOTrainer` with its open defects mended; where none of them shows, it trains bit for bit the same."""

from contextlib import nullcontext

import trl

from .adapter_reference import trained_parameters_kept
from .native_checkpoint import NativeCheckpointMixin
from .partial_checkpoints import PartialCheckpointsMixin
from .prompt_order_after_resume import PromptOrderAfterResumeMixin
from .sharded_head import gather_head_with_forward
from .text_among_images import TextAmongImagesMixin
from .tower_in_step import keep_tower_in_step
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

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        gather_head_with_forward(self.model)
        keep_tower_in_step(self, self.model, self.ref_model)

    def _generate_and_score_completions(self, inputs):
        with trained_parameters_kept(self.model):
            return super()._generate_and_score_completions(inputs)

    def _generate_single_turn(self, *args, **kwargs):
        # Each forward casts float32 weights anew, so in decoding for every token. A cast is kept until the outermost
        # autocast ends. On a CPU alone: on a GPU memory is dearer than these casts, and vLLM makes its own.
        keeps_casts = self.accelerator.device.type == "cpu" and not self.use_vllm
        with self.accelerator.autocast() if keeps_casts else nullcontext():
            return super()._generate_single_turn(*args, **kwargs)
