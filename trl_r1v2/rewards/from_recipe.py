# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
A hybrid reward with options, such as the folder of a reward model, for recipes that name rewards by dotted paths.

`reward_funcs: [trl_r1v2.rewards.recipe_reward]` is the [`HybridReward`] of the YAML file that the environment variable
`TRL_R1V2_REWARD` names; a recipe sets it under `env`. The file is read, and models are loaded, when the name is first
looked up, once a process. Does not cover: what the file may hold (`hybrid_config.py`).
"""

import functools
import os
from pathlib import Path

import yaml

from .hybrid import HybridReward


VARIABLE = "TRL_R1V2_REWARD"


@functools.cache
def load_recipe_reward(path: str) -> HybridReward:
    """
    The reward of a YAML file; the same object when asked again.

    Args:
        path (`str`):
            File with the mapping that [`HybridReward.from_config`] takes.

    Raises:
        `ValueError`: If there is no such file, or it does not describe a reward, with the place in it.
    """
    if not Path(path).is_file():
        raise ValueError(f"{VARIABLE}={path!r}: no such file. Paths count from the working directory.")
    config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ValueError(f"{path}: a {type(config).__name__} where a mapping with `components` is expected.")
    try:
        return HybridReward.from_config(config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def __getattr__(name: str):
    if name != "recipe_reward":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if VARIABLE not in os.environ:
        raise ValueError(
            f"`trl_r1v2.rewards.recipe_reward` is the reward of the file that {VARIABLE} names, which is not set. In a "
            f"recipe write `env: {{{VARIABLE}: path/to/reward.yaml}}`."
        )
    return load_recipe_reward(os.environ[VARIABLE])
