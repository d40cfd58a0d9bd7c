# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
GRPO with the Selective Sample Buffer.

    trl-r1v2 grpo --config recipes/digits/grpo.yaml

Takes every key of `trl grpo`, the buffer's `ssb_*` keys, the `vision_cache*` keys, the `monitor_*` and `controller_*`
keys of the hallucination monitor, and the keys below. The dataset is checked before the first step. Writes model,
processor and `trainer_state.json` (the log) to `output_dir`.
"""

from dataclasses import dataclass, field

from trl.scripts.grpo import GRPOScriptArguments


@dataclass
class SSBGRPOScriptArguments(GRPOScriptArguments):
    """
    Arguments of [`~trl.scripts.grpo.GRPOScriptArguments`], and the check of the images.
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


def main(
    script_args, training_args, model_args, dataset_args, trainable_args, cache_args, monitor_args, controller_args
):
    from trl import get_peft_config, get_quantization_config

    from ..cli.loading import check_model_path, load_reward_funcs, resolve_checkpoint
    from ..cli.recipe import RecipeError
    from ..hallucination.recipe import add_monitor, load_monitor_parts
    from ..ssb_grpo.ssb_grpo_trainer import SSBGRPOTrainer
    from ..ssb_grpo.state import BufferStateError
    from ..vlm.activation import set_trainable
    from ..vlm.vision_cache_callback import add_vision_cache

    reward_funcs = load_reward_funcs(script_args.reward_funcs, script_args.reward_model_name_or_path)
    checkpoint = resolve_checkpoint(training_args.resume_from_checkpoint, training_args.output_dir)
    train_dataset, eval_dataset = load_datasets(script_args, training_args, dataset_args, reward_funcs)
    monitor_parts = load_monitor_parts(monitor_args, controller_args, reward_funcs)
    check_model_path(model_args.model_name_or_path)
    training_args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "trust_remote_code": training_args.trust_remote_code,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **(training_args.model_init_kwargs or {}),
    }
    trainer = SSBGRPOTrainer(
        model=model_args.model_name_or_path,
        reward_funcs=reward_funcs,
        args=training_args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        quantization_config=get_quantization_config(model_args),
        peft_config=get_peft_config(model_args),
    )
    if trainable_args.trainable is not None:
        report = set_trainable(
            trainer.model,
            trainable_args.trainable,
            rl=True,
            allow_frozen_adapter=trainable_args.allow_frozen_adapter,
        )
        trainer.accelerator.print(report)
    add_vision_cache(trainer, cache_args, reference=trainer.ref_model)
    add_monitor(trainer, monitor_parts)
    if checkpoint:
        trainer.accelerator.print(f"Resuming from {checkpoint}.")
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except BufferStateError as error:
        raise RecipeError(f"cannot resume: {error}") from error
    trainer.save_state()
    trainer.save_model(training_args.output_dir)
    trainer.accelerator.print(f"Model, processor and trainer_state.json are in {training_args.output_dir}.")
    if training_args.push_to_hub:
        trainer.push_to_hub(dataset_name=script_args.dataset_name)
    trainer.end()


def load_datasets(script_args, training_args, dataset_args, reward_funcs):
    """
    Load and check the datasets that training needs.

    Args:
        script_args ([`SSBGRPOScriptArguments`]):
            Names of dataset and splits, and how much to check.
        training_args ([`SSBGRPOConfig`]):
            Whether there is an evaluation, and which process this is.
        dataset_args ([`~trl.DatasetMixtureConfig`]):
            A mixture, instead of `dataset_name`.
        reward_funcs (`list`):
            Reward functions, whose columns have to exist.

    Returns:
        `tuple[Dataset, Dataset | None]`: Training and evaluation data.

    Raises:
        RecipeError: There is no dataset, or there are two.
        DatasetError: A dataset cannot be used.
    """
    from trl import get_dataset

    from ..cli.loading import load_splits, take_split
    from ..cli.recipe import RecipeError
    from ..datasets.checks import check_dataset
    from ..rewards.columns import reward_columns

    if bool(dataset_args.datasets) == bool(script_args.dataset_name):
        raise RecipeError("set either `dataset_name` or `datasets`, not both and not neither.")
    if dataset_args.datasets:
        source, splits = "mixture", get_dataset(dataset_args)
    else:
        source = script_args.dataset_name
        splits = load_splits(source, script_args.dataset_config, streaming=script_args.dataset_streaming)
    wanted = {"dataset_train_split": script_args.dataset_train_split}
    if training_args.eval_strategy != "no":
        wanted["dataset_test_split"] = script_args.dataset_test_split
    taken = []
    for entry, split in wanted.items():
        taken.append(take_split(splits, split, entry=entry, source=source))
        check_dataset(
            taken[-1],
            name=f"{source} [{split}]",
            columns=["prompt", *reward_columns(reward_funcs)],
            check_images=script_args.check_images,
            shard=(training_args.process_index, training_args.world_size),
            progress=training_args.process_index == 0 and not training_args.disable_tqdm,
        )
    return taken[0], taken[1] if len(taken) > 1 else None


def make_parser(prog: str | None = None):
    from trl import DatasetMixtureConfig, ModelConfig

    from ..cli.parser import RecipeParser
    from ..hallucination.monitor_config import ControllerConfig, MonitorConfig
    from ..ssb_grpo.ssb_grpo_config import SSBGRPOConfig
    from ..vlm.activation import TrainableArguments
    from ..vlm.vision_cache_callback import VisionCacheArguments

    own = (TrainableArguments, VisionCacheArguments, MonitorConfig, ControllerConfig)
    return RecipeParser((SSBGRPOScriptArguments, SSBGRPOConfig, ModelConfig, DatasetMixtureConfig, *own), prog=prog)


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
