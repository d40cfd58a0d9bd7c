# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Align a composed model on demonstrations, with TRL's `SFTTrainer`.

    trl-r1v2 align --config recipes/digits/align.yaml

R1V2 has no such stage: it is for models whose adapter is fresh, and for baselines. Takes every key of `trl sft`, the
choice of the trained components, the `vision_cache*` keys, and the check of the images. The dataset has `prompt` and
`completion`, and `images` where there are any; text-only rows may be mixed in. Writes model, processor and
`trainer_state.json` (the log) to `output_dir`.
"""

from trl import DatasetMixtureConfig, ModelConfig, SFTConfig

from ..images.rows import RGBImageCollator
from ..patches.native_checkpoint import NativeCheckpointMixin
from ..patches.whole_responses import with_whole_responses
from ..vlm.activation import TrainableArguments
from ..vlm.vision_cache_callback import VisionCacheArguments, add_vision_cache
from .training import TrainingScriptArguments, choose_components, prepare, train_and_save


def main(
    script_args: TrainingScriptArguments,
    training_args: SFTConfig,
    model_args: ModelConfig,
    dataset_args: DatasetMixtureConfig,
    trainable_args: TrainableArguments,
    cache_args: VisionCacheArguments,
):
    from trl import SFTTrainer

    class AlignTrainer(NativeCheckpointMixin, SFTTrainer):
        """
        [`~trl.SFTTrainer`] whose checkpoints of vision-language models can be resumed, that sees images as the other
        trainers of this package do, and that trains on reasoning whatever the chat template makes of it. The rest is
        inherited.
        """

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            if self._is_vision_dataset:
                self.data_collator.processor = with_whole_responses(self.processing_class, self.train_dataset)
                self.data_collator = RGBImageCollator(self.data_collator)

        def _prepare_dataset(self, dataset, processing_class, *args, **kwargs):
            processing_class = with_whole_responses(processing_class, dataset)
            return super()._prepare_dataset(dataset, processing_class, *args, **kwargs)

    prepared = prepare(script_args, training_args, model_args, dataset_args, ["prompt", "completion"])
    trainer = AlignTrainer(**prepared)
    choose_components(trainer, trainable_args.trainable)
    add_vision_cache(trainer, cache_args)
    train_and_save(trainer, script_args.dataset_name)
