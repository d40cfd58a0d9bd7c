# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Train a scalar reward model that sees the image, from preference pairs.

    trl-r1v2 reward --config recipes/digits/reward.yaml

Takes every key of `trl reward`, those of `VisionRewardConfig`, and the check of the images. The dataset has `prompt`,
`chosen` and `rejected`, and `images` where there are any, as `trl-r1v2 pairs` writes it; text-only rows may be mixed
in. Writes model, head, processor and `trainer_state.json` (the log) to `output_dir`, a folder that the hybrid reward
and `trl-r1v2 serve-reward` load. Not covered: text-only reward models (`trl reward`).
"""

from trl import DatasetMixtureConfig, ModelConfig

from ..rewards.reward_trainer_config import VisionRewardConfig
from .training import TrainingScriptArguments, prepare, train_and_save


def main(
    script_args: TrainingScriptArguments,
    training_args: VisionRewardConfig,
    model_args: ModelConfig,
    dataset_args: DatasetMixtureConfig,
):
    from ..rewards.reward_trainer import VisionRewardTrainer

    columns = ["prompt", "chosen", "rejected"]
    # the trainer removes tokens of images from text itself, and measures every row
    prepared = prepare(script_args, training_args, model_args, dataset_args, columns, limits=False)
    trainer = VisionRewardTrainer(**prepared)
    trainer.accelerator.print(trainer.activation_report)
    train_and_save(trainer, script_args.dataset_name, result="Reward model")
