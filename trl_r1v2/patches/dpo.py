# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""TRL's `DPOTrainer` with its open defects mended; where none of them shows, it trains bit for bit the same."""

import trl

from .native_checkpoint import NativeCheckpointMixin
from .sharded_head import gather_head_with_forward
from .tower_in_step import keep_tower_in_step
from .whole_responses import with_whole_responses


class DPOTrainer(NativeCheckpointMixin, trl.DPOTrainer):
    """[`~trl.DPOTrainer`] with the mends of this folder, on top of which features are built."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        gather_head_with_forward(self.model)
        if self._is_vision_dataset:
            keep_tower_in_step(self, self.model, self.ref_model)

    def _prepare_dataset(self, dataset, processing_class, args, dataset_name):
        return super()._prepare_dataset(dataset, with_whole_responses(processing_class, dataset), args, dataset_name)

    def _processor_of_responses(self, dataset):
        """What renders data with images, which TRL leaves to the collator."""
        return with_whole_responses(self.processing_class, dataset)
