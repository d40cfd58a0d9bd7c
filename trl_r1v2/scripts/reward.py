# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Train a scalar reward model that sees the image, from preference pairs.

    trl-r1v2 reward --config recipes/digits/reward.yaml

Takes every key of `trl reward`, those of `VisionRewardConfig`, and the check of the images. The dataset has `prompt`,
`chosen` and `rejected`, and `images` where there are any, as `trl-r1v2 pairs` writes it; text-only rows may be mixed in.
Writes model, head, processor and `trainer_state.json` (the log) to `output_dir`, a folder that the hybrid reward and
`trl-r1v2 serve-reward` load. Not covered: text-only reward models (`trl reward`).
"""

from dataclasses import dataclass, field

from trl import ScriptArguments


@dataclass
class RewardScriptArguments(ScriptArguments):
    """
    Arguments of [`~trl.ScriptArguments`], and the check of the images.
    """

    check_images: str = field(
        default="all",
        metadata={
            "help": "Rows whose images are decoded before training: 'all', 'none' or a number of rows, spread evenly."
        },
    )

    def __post_init__(self):
        from ..datasets.checks import parse_check_images

        parse_check_images(self.check_images)


def main(script_args, training_args, model_args, dataset_args):
    from trl import get_peft_config, get_quantization_config

    from ..cli.loading import check_model_path, resolve_checkpoint
    from ..rewards.reward_trainer import VisionRewardTrainer
    from .grpo import load_datasets

    checkpoint = resolve_checkpoint(training_args.resume_from_checkpoint, training_args.output_dir)
    train_dataset, eval_dataset = load_datasets(script_args, training_args, dataset_args, reward_funcs=[])
    check_model_path(model_args.model_name_or_path)
    training_args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "trust_remote_code": training_args.trust_remote_code,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **(training_args.model_init_kwargs or {}),
    }
    trainer = VisionRewardTrainer(
        model=model_args.model_name_or_path,
        args=training_args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        quantization_config=get_quantization_config(model_args),
        peft_config=get_peft_config(model_args),
    )
    trainer.accelerator.print(trainer.activation_report)
    if checkpoint:
        trainer.accelerator.print(f"Resuming from {checkpoint}.")
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_state()
    trainer.save_model(training_args.output_dir)
    trainer.accelerator.print(f"Reward model and trainer_state.json are in {training_args.output_dir}.")
    if training_args.push_to_hub:
        trainer.push_to_hub(dataset_name=script_args.dataset_name)
    trainer.end()


def make_parser(prog: str | None = None):
    from trl import DatasetMixtureConfig, ModelConfig

    from ..cli.parser import RecipeParser
    from ..rewards.reward_trainer_config import VisionRewardConfig

    return RecipeParser((RewardScriptArguments, VisionRewardConfig, ModelConfig, DatasetMixtureConfig), prog=prog)


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
