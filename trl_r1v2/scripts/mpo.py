# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Mixed Preference Optimization.

    trl-r1v2 mpo --config recipe.yaml

Takes every key of `trl dpo`, MPO's own keys, the choice of the trained components, the `monitor_*` and `controller_*`
keys of the hallucination monitor, and the check of the images. The dataset has `prompt`, `chosen` and `rejected`, and
`images` where there are any, as `trl-r1v2 pairs` writes it; text-only rows may be mixed in. Writes model, processor and
`trainer_state.json` (the log) to `output_dir`.
"""

from dataclasses import dataclass, field

from trl import ScriptArguments


@dataclass
class MPOScriptArguments(ScriptArguments):
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


def main(script_args, training_args, model_args, dataset_args, trainable_args, monitor_args, controller_args):
    from trl import get_peft_config, get_quantization_config

    from ..cli.loading import resolve_checkpoint
    from ..datasets.checks import check_columns
    from ..hallucination.recipe import add_monitor, load_monitor_parts
    from ..mpo.mpo_trainer import MPOTrainer
    from ..vlm.activation import set_trainable
    from .grpo import load_datasets

    checkpoint = resolve_checkpoint(training_args.resume_from_checkpoint, training_args.output_dir)
    train_dataset, eval_dataset = load_datasets(script_args, training_args, dataset_args, reward_funcs=[])
    for dataset in (train_dataset, eval_dataset):
        if dataset is not None:
            check_columns(dataset, name=str(script_args.dataset_name), columns=["prompt", "chosen", "rejected"])
    monitor_parts = load_monitor_parts(monitor_args, controller_args)
    training_args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "trust_remote_code": training_args.trust_remote_code,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **(training_args.model_init_kwargs or {}),
    }
    trainer = MPOTrainer(
        model=model_args.model_name_or_path,
        args=training_args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        quantization_config=get_quantization_config(model_args),
        peft_config=get_peft_config(model_args),
    )
    if trainable_args.trainable is not None:
        trainer.accelerator.print(set_trainable(trainer.model, trainable_args.trainable))
    add_monitor(trainer, monitor_parts)
    if checkpoint:
        trainer.accelerator.print(f"Resuming from {checkpoint}.")
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_state()
    trainer.save_model(training_args.output_dir)
    trainer.accelerator.print(f"Model, processor and trainer_state.json are in {training_args.output_dir}.")
    if training_args.push_to_hub:
        trainer.push_to_hub(dataset_name=script_args.dataset_name)
    trainer.end()


def make_parser(prog: str | None = None):
    from trl import DatasetMixtureConfig, ModelConfig

    from ..cli.parser import RecipeParser
    from ..hallucination.monitor_config import ControllerConfig, MonitorConfig
    from ..mpo.mpo_config import MPOConfig
    from ..vlm.activation import TrainableArguments

    own = (TrainableArguments, MonitorConfig, ControllerConfig)
    return RecipeParser((MPOScriptArguments, MPOConfig, ModelConfig, DatasetMixtureConfig, *own), prog=prog)


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
