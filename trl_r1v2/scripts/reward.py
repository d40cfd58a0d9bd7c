# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Train a scalar reward model that sees the image, from preference pairs.

    trl-r1v2 reward --config recipes/digits/reward.yaml

Takes every key of `trl reward`, those of `VisionRewardConfig`, and the check of the images. The dataset has `prompt`,
`chosen` and `rejected`, and `images` where there are any, as `trl-r1v2 pairs` writes it; text-only rows may be mixed in.
Writes model, head, processor and `trainer_state.json` (the log) to `output_dir`, a folder that the hybrid reward and
`trl-r1v2 serve-reward` load. Not covered: text-only reward models (`trl reward`).
"""

from dataclasses import dataclass

from trl import ScriptArguments

from .training import ImageCheckArguments, load_datasets, model_init_kwargs, train_and_save


@dataclass
class RewardScriptArguments(ImageCheckArguments, ScriptArguments):
    """
    Arguments of [`~trl.ScriptArguments`], and the check of the images.
    """


def main(script_args, training_args, model_args, dataset_args):
    from trl import get_peft_config, get_quantization_config

    from ..rewards.reward_trainer import VisionRewardTrainer
    from .loading import check_model_path, resolve_checkpoint

    checkpoint = resolve_checkpoint(training_args.resume_from_checkpoint, training_args.output_dir)
    train_dataset, eval_dataset = load_datasets(script_args, training_args, dataset_args, reward_funcs=[])
    check_model_path(model_args.model_name_or_path)
    training_args.model_init_kwargs = model_init_kwargs(model_args, training_args)
    trainer = VisionRewardTrainer(
        model=model_args.model_name_or_path,
        args=training_args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        quantization_config=get_quantization_config(model_args),
        peft_config=get_peft_config(model_args),
    )
    trainer.accelerator.print(trainer.activation_report)
    train_and_save(trainer, checkpoint, script_args.dataset_name, result="Reward model")


def make_parser(prog: str | None = None):
    from trl import DatasetMixtureConfig, ModelConfig

    from ..rewards.reward_trainer_config import VisionRewardConfig
    from .parser import RecipeParser

    return RecipeParser((RewardScriptArguments, VisionRewardConfig, ModelConfig, DatasetMixtureConfig), prog=prog)


if __name__ == "__main__":
    raise SystemExit(make_parser().run(main))
