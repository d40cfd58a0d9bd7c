# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Image features that vLLM keeps across weight updates in TRL 1.16's `GRPOTrainer`.

vLLM keeps what the vision tower made of an image, and hands it to later requests with the same image. TRL drops the
keys and values of the old weights when it brings new ones, not these features: with adapter or tower training, the
engine goes on answering from features of an earlier policy (TRL #7198). Can go with the release that holds TRL #7200.
"""


class VLLMEncoderCacheMixin:
    """For classes on [`~trl.GRPOTrainer`]: vLLM drops its image features whenever it is brought new weights."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.use_vllm and self._is_vlm:
            self._sync_weights_alone = self.vllm_generation.sync_weights
            self.vllm_generation.sync_weights = self._sync_weights_and_features

    def _sync_weights_and_features(self) -> None:
        self._sync_weights_alone()
        if self.vllm_mode == "colocate":
            self.vllm_generation.llm.llm_engine.reset_encoder_cache()
        elif self.accelerator.is_main_process:
            client = self.vllm_generation.vllm_client
            client.session.post(f"{client.base_url}/reset_encoder_cache").raise_for_status()
