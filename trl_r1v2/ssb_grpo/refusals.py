# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""What the buffer cannot be combined with, refused when the trainer is built. Values are the config's business."""

import difflib

from datasets import Dataset, IterableDataset

from .ssb_grpo_config import SSBGRPOConfig


# Processors that pad images to one block a sample, a layout that `rows.py` does not take apart.
UNSUPPORTED_MODEL_TYPES = ("idefics2", "idefics3", "mllama", "smolvlm")


def refuse_misspelt_judge(judge: str, reward_func_names: list[str]) -> None:
    """
    Raise for an `ssb_judge` that is nearly the name of a reward function.

    A column that a reward function logs is only known once it has logged it, so other names are left to the first
    generation.

    Args:
        judge (`str`): `ssb_judge`.
        reward_func_names (`list[str]`): Of the run.

    Raises:
        ValueError: With the name that was probably meant.
    """
    known = ["reward", *reward_func_names]
    close = difflib.get_close_matches(judge, known, n=1, cutoff=0.8)
    if judge not in known and "/" not in judge and close:
        raise ValueError(f"`ssb_judge` is {judge!r}: did you mean {close[0]!r}?")


def refuse_unsupported(
    args: SSBGRPOConfig,
    model_type: str,
    train_dataset: Dataset | IterableDataset,
    has_environment: bool,
) -> None:
    """
    Raise for what cannot be combined with the buffer.

    Args:
        args ([`SSBGRPOConfig`]): Of the run.
        model_type (`str`): Of the model's config.
        train_dataset ([`~datasets.Dataset`] or [`~datasets.IterableDataset`]): What is trained on.
        has_environment (`bool`): Whether an environment makes the prompts.

    Raises:
        ValueError: With the reason and what to set instead.
    """
    if args.sync_ref_model:
        raise ValueError(
            "`sync_ref_model=True` moves the reference model, so the reference log-probabilities stored with "
            "buffered samples would be stale. Set `sync_ref_model=False` or `ssb_enabled=False`."
        )
    if model_type in UNSUPPORTED_MODEL_TYPES:
        raise ValueError(
            f"Models of type {model_type!r} pad images to one block a sample, a layout the "
            "buffer cannot take apart. Set `ssb_enabled=False`."
        )
    map_style = isinstance(train_dataset, Dataset)
    if args.ssb_resample_rounds > 0 and (not map_style or has_environment):
        raise ValueError(
            "`ssb_resample_rounds` needs prompts it can look up: a map-style training dataset and no "
            "`environment_factory`. Set `ssb_resample_rounds=0`."
        )
    if args.ssb_skip_probability > 0 and not map_style:
        raise ValueError(
            "`ssb_skip_probability` needs a map-style training dataset: a stream's prompts cannot be chosen. Set "
            "`ssb_skip_probability=0`."
        )
    local_batch = args.per_device_train_batch_size * args.steps_per_generation
    if args.ssb_replay == "share" and local_batch % args.num_generations != 0:
        raise ValueError(
            f"`ssb_replay='share'` leaves out whole groups, so each process must hold whole groups: "
            f"`per_device_train_batch_size * steps_per_generation` ({local_batch}) must be divisible by "
            f"`num_generations` ({args.num_generations})."
        )
    if args.ssb_replay == "share" and args.ssb_replay_share * local_batch < args.num_generations:
        raise ValueError(
            f"`ssb_replay_share` ({args.ssb_replay_share}) of a process's {local_batch} rows is less than one "
            f"group of {args.num_generations}, so nothing could be left out. Raise the share or the batch size."
        )
