# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
GRPO with the Selective Sample Buffer.

    trl-r1v2 grpo --config recipes/digits/grpo.yaml

Takes every key of `trl grpo`, the buffer's `ssb_*` keys, the `vision_cache*` keys, the `monitor_*` and `controller_*`
keys of the hallucination monitor, and the check of the images. The dataset is checked before the first step. Writes
model, processor and `trainer_state.json` (the log) to `output_dir`.
"""

from dataclasses import dataclass

from trl import DatasetMixtureConfig, ModelConfig
from trl.scripts.grpo import GRPOScriptArguments

from ..hallucination.monitor_config import ControllerConfig, MonitorConfig
from ..rewards.columns import reward_columns
from ..ssb_grpo.ssb_grpo_config import SSBGRPOConfig
from ..vlm.activation import TrainableArguments, refuse_frozen_adapter
from ..vlm.vision_cache_callback import VisionCacheArguments, add_vision_cache
from .loading import load_reward_funcs
from .monitor import add_monitor, load_monitor_parts
from .recipe import RecipeError, refusals_of
from .training import TrainingScriptArguments, choose_components, prepare, train_and_save


@dataclass
class SSBGRPOScriptArguments(TrainingScriptArguments, GRPOScriptArguments):
    """Arguments of [`~trl.scripts.grpo.GRPOScriptArguments`], and the check of the images."""


def main(
    script_args: SSBGRPOScriptArguments,
    training_args: SSBGRPOConfig,
    model_args: ModelConfig,
    dataset_args: DatasetMixtureConfig,
    trainable_args: TrainableArguments,
    cache_args: VisionCacheArguments,
    monitor_args: MonitorConfig,
    controller_args: ControllerConfig,
):
    from ..ssb_grpo.ssb_grpo_trainer import SSBGRPOTrainer

    reward_funcs = load_reward_funcs(script_args.reward_funcs, script_args.reward_model_name_or_path)
    columns, length = ["prompt", *reward_columns(reward_funcs)], training_args.max_completion_length
    prepared = prepare(script_args, training_args, model_args, dataset_args, columns, completion_length=length)
    check_batch(prepared["train_dataset"], training_args)
    monitor_parts = load_monitor_parts(monitor_args, controller_args, reward_funcs)
    trainer = SSBGRPOTrainer(reward_funcs=reward_funcs, **prepared)
    choose_components(trainer, trainable_args.trainable)
    if not trainable_args.allow_frozen_adapter:
        with refusals_of():
            refuse_frozen_adapter(trainer.model)
    add_vision_cache(trainer, cache_args, reference=trainer.ref_model)
    add_monitor(trainer, monitor_parts)
    train_and_save(trainer, script_args.dataset_name)


def check_batch(dataset, training_args) -> None:
    """Refuse a dataset with fewer prompts than one generation batch takes: TRL would train no step and say nothing."""
    from datasets import Dataset

    needed = training_args.generation_batch_size // training_args.num_generations
    if isinstance(dataset, Dataset) and len(dataset) < needed:
        raise RecipeError(
            f"`dataset_name` has {len(dataset)} prompts, but a generation batch takes {needed} different ones, so no "
            "step would be trained. Add prompts, or lower `generation_batch_size` (by default "
            "`per_device_train_batch_size` × processes × `steps_per_generation`) or raise `num_generations`."
        )
