# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What the training commands (`align`, `reward`, `mpo`, `grpo`) share: checked datasets, how the model is loaded, a word
on weights that small steps cannot move, the run.

Does not cover: the trainers and what is special to one command (`trl_r1v2.scripts`). Imports trl only when called.
"""

from dataclasses import dataclass, field


@dataclass
class ImageCheckArguments:
    """
    The check of the images, for a script's arguments.
    """

    check_images: str = field(
        default="all",
        metadata={
            "help": "Rows whose images are decoded before training: 'all', 'none' or a number of rows, spread evenly."
        },
    )

    def __post_init__(self):
        from ..checks.rows import parse_check_images

        parse_check_images(self.check_images)


def prompt_limits(model_args, training_args, *, completion_length: int = 0, check_length: bool = True):
    """
    What the model that will be trained allows in a dataset's text, read from its files without loading it.

    Args:
        model_args ([`~trl.ModelConfig`]):
            Names the model.
        training_args ([`~transformers.TrainingArguments`]):
            Whether remote code may run.
        completion_length (`int`, *optional*, defaults to 0):
            Tokens that have to fit behind a prompt.
        check_length (`bool`, *optional*, defaults to `True`):
            Whether too long prompts are refused.

    Returns:
        [`~trl_r1v2.checks.prompt_limits.PromptLimits`]: For [`load_datasets`].

    Raises:
        RecipeError: There is no such model.
    """
    from ..checks.prompt_limits import PromptLimits
    from .loading import check_model_path

    check_model_path(model_args.model_name_or_path)
    return PromptLimits.from_pretrained(
        model_args.model_name_or_path,
        completion_length=completion_length,
        check_length=check_length,
        revision=model_args.model_revision,
        trust_remote_code=training_args.trust_remote_code,
    )


def load_datasets(script_args, training_args, dataset_args, reward_funcs, limits=None):
    """
    Load and check the datasets that training needs.

    Args:
        script_args ([`~trl.ScriptArguments`] with [`ImageCheckArguments`]):
            Names of dataset and splits, and how much to check.
        training_args ([`~transformers.TrainingArguments`]):
            Whether there is an evaluation, and which process this is.
        dataset_args ([`~trl.DatasetMixtureConfig`]):
            A mixture, instead of `dataset_name`.
        reward_funcs (`list`):
            Reward functions, whose columns have to exist.
        limits ([`~trl_r1v2.checks.prompt_limits.PromptLimits`], *optional*):
            What the model allows in the text.

    Returns:
        `tuple[Dataset, Dataset | None]`: Training and evaluation data.

    Raises:
        RecipeError: There is no dataset, or there are two.
        DatasetError: A dataset cannot be used.
    """
    from trl import get_dataset

    from ..checks.rows import check_dataset
    from ..rewards.columns import reward_columns
    from .loading import load_splits, take_split
    from .recipe import RecipeError

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
            limits=limits,
        )
    return taken[0], taken[1] if len(taken) > 1 else None


def model_init_kwargs(model_args, training_args) -> dict:
    """Arguments of `from_pretrained` from [`~trl.ModelConfig`]; those that the recipe gives itself come first."""
    return {
        "revision": model_args.model_revision,
        "trust_remote_code": training_args.trust_remote_code,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **(training_args.model_init_kwargs or {}),
    }


def choose_components(trainer, trainable: str | None, **options) -> None:
    """
    Make the chosen components of a trainer's model trainable and print the table; without a choice, nothing.

    Args:
        trainer ([`~transformers.Trainer`]):
            The trainer.
        trainable (`str`, *optional*), options:
            As for [`~trl_r1v2.vlm.activation.set_trainable`].

    Raises:
        RecipeError: The model has no such components, or they cannot be chosen so.
    """
    from ..vlm.activation import set_trainable
    from .recipe import RecipeError

    if trainable is None:
        return
    try:
        report = set_trainable(trainer.model, trainable, **options)
    except ValueError as error:
        raise RecipeError(f"`trainable: {trainable}`: {error}") from error
    trainer.accelerator.print(report)


def precision_warning(trainer) -> str | None:
    """
    What to say when weights train in 16 bits and nothing keeps a float32 copy of them.

    DeepSpeed keeps one (unless `bf16_master_weights_and_grads` is set), and so does FSDP under accelerate with mixed
    precision, which makes the trained weights float32 when it shards them. Autocast (`bf16: true`) alone does not.

    Args:
        trainer ([`~transformers.Trainer`]):
            The trainer, before it trains.

    Returns:
        `str` or `None`: The warning, if there is reason for one.
    """
    import torch
    from accelerate.utils import DistributedType

    accelerator = trainer.accelerator
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        settings = accelerator.state.deepspeed_plugin.deepspeed_config.get("bf16", {})
        if not settings.get("bf16_master_weights_and_grads", False):
            return None
    if accelerator.distributed_type == DistributedType.FSDP and accelerator.mixed_precision != "no":
        return None
    trained = [p for p in trainer.model.parameters() if p.requires_grad and p.dtype in (torch.bfloat16, torch.float16)]
    if not trained:
        return None
    dtype = trained[0].dtype
    return (
        f"{len(trained):,} weight tensors train in {str(dtype).removeprefix('torch.')} without a float32 copy: a step "
        f"below about {torch.finfo(dtype).eps / 4:.2%} of a weight is rounded away, which at small learning rates is "
        "nearly every step. Set `dtype: float32` (with `bf16: true` the forward stays in bfloat16), or train with "
        "DeepSpeed or FSDP, which keep a float32 copy."
    )


def train_and_save(
    trainer, checkpoint: str | None, dataset_name: str | None, result: str = "Model, processor"
) -> None:
    """
    Train, and save what was trained with the log.

    Args:
        trainer ([`~transformers.Trainer`]):
            The trainer.
        checkpoint (`str`, *optional*):
            Checkpoint to resume from.
        dataset_name (`str`, *optional*):
            For the model card, where the model is pushed to the Hub.
        result (`str`, *optional*, defaults to `"Model, processor"`):
            What the last message says is saved, beside the log.
    """
    warning = precision_warning(trainer)
    if warning is not None:
        trainer.accelerator.print(f"Warning: {warning}")
    if checkpoint:
        trainer.accelerator.print(f"Resuming from {checkpoint}.")
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_state()
    trainer.save_model(trainer.args.output_dir)
    trainer.accelerator.print(f"{result} and trainer_state.json are in {trainer.args.output_dir}.")
    if trainer.args.push_to_hub:
        trainer.push_to_hub(dataset_name=dataset_name)
    trainer.end()
