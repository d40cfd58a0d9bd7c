# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Mixed Preference Optimization.

    trl-r1v2 mpo --config recipe.yaml

Takes every key of `trl dpo`, MPO's own keys, the choice of the trained components, the `monitor_*` and `controller_*`
keys of the hallucination monitor, and the check of the images. The dataset has `prompt`, `chosen` and `rejected`, and
`images` where there are any, as `trl-r1v2 pairs` writes it; text-only rows may be mixed in. Writes model, processor and
`trainer_state.json` (the log) to `output_dir`.
"""

from dataclasses import dataclass

from trl import ScriptArguments

from .training import (
    ImageCheckArguments,
    choose_components,
    load_datasets,
    model_init_kwargs,
    prompt_limits,
    train_and_save,
)


@dataclass
class MPOScriptArguments(ImageCheckArguments, ScriptArguments):
    """
    Arguments of [`~trl.ScriptArguments`], and the check of the images.
    """


def main(script_args, training_args, model_args, dataset_args, trainable_args, monitor_args, controller_args):
    from trl import get_peft_config, get_quantization_config

    from ..checks.rows import check_columns
    from ..mpo.mpo_trainer import MPOTrainer
    from .loading import resolve_checkpoint
    from .monitor import add_monitor, load_monitor_parts

    checkpoint = resolve_checkpoint(training_args.resume_from_checkpoint, training_args.output_dir)
    limits = prompt_limits(model_args, training_args)
    train_dataset, eval_dataset = load_datasets(
        script_args, training_args, dataset_args, reward_funcs=[], limits=limits
    )
    for dataset in (train_dataset, eval_dataset):
        if dataset is not None:
            check_columns(dataset, name=str(script_args.dataset_name), columns=["prompt", "chosen", "rejected"])
    monitor_parts = load_monitor_parts(monitor_args, controller_args)
    training_args.model_init_kwargs = model_init_kwargs(model_args, training_args)
    trainer = MPOTrainer(
        model=model_args.model_name_or_path,
        args=training_args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        quantization_config=get_quantization_config(model_args),
        peft_config=get_peft_config(model_args),
    )
    choose_components(trainer, trainable_args.trainable)
    add_monitor(trainer, monitor_parts)
    train_and_save(trainer, checkpoint, script_args.dataset_name)


def make_parser(prog: str | None = None):
    from trl import DatasetMixtureConfig, ModelConfig

    from ..hallucination.monitor_config import ControllerConfig, MonitorConfig
    from ..mpo.mpo_config import MPOConfig
    from ..vlm.activation import TrainableArguments
    from .parser import RecipeParser

    own = (TrainableArguments, MonitorConfig, ControllerConfig)
    return RecipeParser((MPOScriptArguments, MPOConfig, ModelConfig, DatasetMixtureConfig, *own), prog=prog)


if __name__ == "__main__":
    raise SystemExit(make_parser().run(main))
