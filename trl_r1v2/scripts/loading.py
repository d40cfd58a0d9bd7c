# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What several scripts do with the values of a recipe: datasets, dotted names, reward functions, checkpoints. Imports
`datasets` and trl only when called.
"""

import difflib
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..checks.rows import DatasetError
from .recipe import RecipeError, read_recipe, refusals_of


def is_missing_folder(path: str) -> bool:
    """Whether a path can be no name on the Hub, and there is nothing."""
    return not Path(path).exists() and (path.count("/") > 1 or path.startswith((".", "~", os.sep)))


def load_splits(path: str, name: str | None = None, *, streaming: bool = False):
    """
    All splits of a dataset: a folder of data files or of `save_to_disk`, a data file, or a name of the Hub. What has
    no splits of its own is `train`.
    """
    from datasets import DatasetDict, load_dataset, load_from_disk

    folder, options = Path(path), {"path": path, "name": name}
    if is_missing_folder(path):
        raise DatasetError(f"dataset {path}: no such folder. Build it first, or correct `dataset_name`.")
    if (folder / "state.json").is_file():
        return DatasetDict(train=load_from_disk(path))
    if (folder / "dataset_dict.json").is_file():
        return load_from_disk(path)
    if folder.is_file():
        kinds = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}
        if folder.suffix not in kinds:
            raise DatasetError(f"dataset {path}: data files end in {', '.join(kinds)}.")
        options = {"path": kinds[folder.suffix], "data_files": {"train": path}}
    try:
        return load_dataset(**options, streaming=streaming)
    except (FileNotFoundError, ConnectionError, ValueError) as error:
        hint = "" if folder.exists() else f" There is no folder {path} in {os.getcwd()} either, if that was meant."
        raise DatasetError(f"dataset {path} cannot be loaded: {str(error).rstrip('.')}.{hint}") from error


def take_split(splits, split: str, *, entry: str, source: str):
    """Take one split of a dataset."""
    if split not in splits:
        raise DatasetError(
            f"dataset {source} has no split {split!r}, only {', '.join(map(repr, splits))}. Correct `{entry}`."
        )
    return splits[split]


def load_split(path: str, name: str | None, split: str, max_rows: int | None = None, *, entry: str = "dataset_split"):
    """The first `max_rows` rows of a split or a part of one (`train[:50%]`), which the recipe's `entry` names."""
    from datasets import ReadInstruction

    whole, bracket, _ = split.partition("[")
    dataset = take_split(load_splits(path, name), whole, entry=entry, source=path)
    if bracket:
        (part,) = ReadInstruction.from_spec(split).to_absolute({whole: len(dataset)})
        dataset = dataset.select(range(part.from_, part.to))
    return dataset if max_rows is None else dataset.select(range(min(max_rows, len(dataset))))


def check_model_path(path: str | None) -> None:
    """Refuse a model that can only be a folder and is none, before anything is loaded."""
    if not path:
        raise RecipeError("`model_name_or_path` is not set: name a folder or a model of the Hub.")
    if is_missing_folder(path):
        raise RecipeError(f"model {path}: no such folder. Build it first, or correct `model_name_or_path`.")


def search_path() -> list[str]:
    """Where modules that a recipe names are looked for: the working directory, and the clone that runs."""
    return [os.getcwd(), str(Path(__file__).parents[2])]


def extend_search_path() -> None:
    """Put [`search_path`] before the installed packages."""
    sys.path[:0] = [folder for folder in search_path() if folder not in sys.path]


def import_by_name(name: str, *, entry: str) -> Any:
    """Import what a recipe names by a dotted path. The working directory and the clone are searched as well."""
    module_name, _, attribute = name.rpartition(".")
    if not module_name:
        raise RecipeError(f"`{entry}: {name}` is no dotted path. Write it as `module.name`.")
    extend_search_path()
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise RecipeError(
            f"`{entry}: {name}` cannot be imported: {error}. Correct the path, or install the package; modules in the "
            f"working directory ({os.getcwd()}) are found."
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        close = difflib.get_close_matches(attribute, dir(module), n=3)
        hint = f" (did you mean {' or '.join(close)}?)" if close else ""
        raise RecipeError(f"`{entry}: {name}`: the module {module_name} has no {attribute!r}{hint}.") from error


def load_reward_func(name: str, *, entry: str) -> Callable:
    """
    Find a reward function that the recipe's `entry` names: by its name in TRL's registry, by the dotted path of a
    module-level function or instance, by the folder of a reward model with a scalar head, as `trl-r1v2 reward` writes
    it, or by a YAML file with the mapping that [`~trl_r1v2.rewards.HybridReward.from_config`] takes.
    """
    from trl import rewards

    from ..rewards.trainable_model import is_reward_model

    if is_reward_model(name):
        from ..rewards.reward_model import RewardModelReward

        return RewardModelReward.from_pretrained(name, name=Path(name).name)
    if name.endswith((".yaml", ".yml")):
        from ..rewards.hybrid import HybridReward

        config = read_recipe(name)
        with refusals_of(f"{entry}: {name}"):
            return HybridReward.from_config(config)
    registry = {
        "accuracy_reward": rewards.accuracy_reward,
        "reasoning_accuracy_reward": rewards.reasoning_accuracy_reward,
        "think_format_reward": rewards.think_format_reward,
        # the values of TRL's own script
        "get_soft_overlong_punishment": rewards.get_soft_overlong_punishment(1280, 256),
    }
    if name in registry:
        return registry[name]
    if "." not in name:
        raise RecipeError(
            f"`{entry}: {name}` is neither a dotted path, nor the folder of a reward model, nor a YAML file, "
            f"nor one of {', '.join(registry)}. Rewards of this package are named `trl_r1v2.rewards.<name>`."
        )
    reward_func = import_by_name(name, entry=entry)
    if not callable(reward_func) or isinstance(reward_func, type):
        kind = type(reward_func).__name__
        raise RecipeError(f"`{entry}: {name}` is a {kind}, no reward function. Name a function or an instance.")
    return reward_func


def load_reward_funcs(names: list[str] | None, reward_model: str | None = None) -> list:
    """Resolve the reward functions of a recipe."""
    from ..rewards.trainable_model import is_reward_model

    reward_funcs = [load_reward_func(name, entry=f"reward_funcs[{i}]") for i, name in enumerate(names or [])]
    if reward_model:  # a folder without our head is TRL's to load
        of_model = load_reward_func(reward_model, entry="") if is_reward_model(reward_model) else reward_model
        reward_funcs.insert(0, of_model)
    if not reward_funcs:
        raise RecipeError("there is no reward: set `reward_funcs` or `reward_model_name_or_path`.")
    return reward_funcs


def resolve_checkpoint(value: str | bool | None, output_dir: str) -> str | None:
    """
    The folder to resume from: a checkpoint by its path; `true`: the last one in `output_dir`; `auto`: the same, or
    `None` for a fresh start when there is none; false or unset: `None`. A [`RecipeError`] if there is no such
    checkpoint.
    """
    word = str(value).lower()
    if value is None or word in ("false", "none"):
        return None
    if word not in ("auto", "true"):
        if not Path(value).is_dir():
            raise RecipeError(f"`resume_from_checkpoint: {value}`: no such folder.")
        return str(value)
    from ..patches.partial_checkpoints import whole_checkpoints

    steps = whole_checkpoints(output_dir)
    if steps:
        return str(Path(output_dir) / f"checkpoint-{max(steps)}")
    if word == "auto":
        return None
    raise RecipeError(
        f"`resume_from_checkpoint: true`, but {output_dir} holds no complete checkpoint. Remove the key to start "
        "anew, or write `auto`: resume if there is one."
    )
