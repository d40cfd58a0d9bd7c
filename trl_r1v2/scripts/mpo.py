# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Mixed Preference Optimization.

    trl-r1v2 mpo --config recipe.yaml

Takes every key of `trl dpo`, MPO's own keys, the choice of the trained components, the `vision_cache*` keys, the
`monitor_*` and `controller_*` keys of the hallucination monitor, and the check of the images. The dataset has
`prompt`, `chosen` and `rejected`, and `images` where there are any, as `trl-r1v2 pairs` writes it; text-only rows may
be mixed in. Writes model, processor and `trainer_state.json` (the log) to `output_dir`.
"""

from trl import DatasetMixtureConfig, ModelConfig

from ..hallucination.monitor_config import ControllerConfig, MonitorConfig
from ..mpo.mpo_config import MPOConfig
from ..vlm.activation import TrainableArguments
from ..vlm.vision_cache_callback import VisionCacheArguments, add_vision_cache
from .monitor import add_monitor, load_monitor_parts
from .training import TrainingScriptArguments, choose_components, prepare, train_and_save


def main(
    script_args: TrainingScriptArguments,
    training_args: MPOConfig,
    model_args: ModelConfig,
    dataset_args: DatasetMixtureConfig,
    trainable_args: TrainableArguments,
    cache_args: VisionCacheArguments,
    monitor_args: MonitorConfig,
    controller_args: ControllerConfig,
):
    from ..mpo.mpo_trainer import MPOTrainer

    prepared = prepare(script_args, training_args, model_args, dataset_args, ["prompt", "chosen", "rejected"])
    monitor_parts = load_monitor_parts(monitor_args, controller_args)
    trainer = MPOTrainer(**prepared)
    choose_components(trainer, trainable_args.trainable)
    add_vision_cache(trainer, cache_args, reference=trainer.ref_model)
    add_monitor(trainer, monitor_parts)
    train_and_save(trainer, script_args.dataset_name)
