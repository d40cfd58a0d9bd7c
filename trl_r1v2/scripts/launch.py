# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Starting a command's script: in this process, or in several through `accelerate launch`.

The options are accelerate's own, read from its parser, and `--accelerate_config` is TRL's. Does not cover what the
script does. Imports torch (accelerate's launcher does).
"""

import argparse
import functools
import os
from pathlib import Path
from typing import Any

import torch
from accelerate.commands.config.config_args import default_config_file
from accelerate.commands.launch import launch_command, launch_command_parser
from trl.cli.accelerate_config import resolve_accelerate_config_argument

from .recipe import RecipeError


# What a recipe cannot ask of `accelerate launch`, because the command itself decides it.
_RESERVED = {"help", "module", "no_python", "training_script", "training_script_args", "env"}


@functools.cache
def _launch_actions() -> dict[str, argparse.Action]:
    parser = launch_command_parser()
    parser.add_argument("--accelerate_config")
    actions = {}
    for action in parser._actions:
        for option in action.option_strings:
            if option.startswith("--") and action.dest not in _RESERVED:
                actions[option.removeprefix("--").replace("-", "_")] = action
    return actions


def launch_option_names() -> set[str]:
    """Return the options of `accelerate launch` with underscores, and `accelerate_config`."""
    return set(_launch_actions())


def is_launch_option(key: str) -> bool:
    """Return whether a recipe key belongs to the launcher."""
    return key in _launch_actions()


def recipe_option(key: str, value: Any) -> list[str]:
    """
    Turn one recipe entry into the launcher's command line.

    Args:
        key (`str`):
            A launch option.
        value (`Any`):
            Value as YAML read it; `None` leaves the option out, a flag takes true or false.

    Returns:
        `list[str]`: Tokens.

    Raises:
        RecipeError: The value is a list or mapping, or not true/false for a flag.
    """
    if value is None:
        return []
    if _launch_actions()[key].nargs == 0:
        if not isinstance(value, bool):
            raise RecipeError(f"`{key}: {value!r}`: this launch option is a flag, write true or false.")
        return [f"--{key}"] if value else []
    if not isinstance(value, str | int | float):
        raise RecipeError(f"`{key}: {value!r}`: a launch option takes one word or number.")
    return [f"--{key}", str(value)]


def stray_tokens(tokens: list[str]) -> list[str]:
    """Return the tokens that are neither a launch option nor the value of one."""
    actions = _launch_actions()
    stray, index = [], 0
    while index < len(tokens):
        name, has_value, _ = tokens[index].partition("=")
        key = name.removeprefix("--").replace("-", "_")
        if name.startswith("--") and key in actions:
            index += 1 if has_value or actions[key].nargs == 0 else 2
        else:
            stray.append(tokens[index])
            index += 1
    return stray


def without(tokens: list[str], removed: list[str]) -> list[str]:
    """Return `tokens` less the ordered subsequence `removed`, each matched at its first place."""
    kept, pending = [], list(removed)
    for token in tokens:
        if pending and token == pending[0]:
            pending.pop(0)
        else:
            kept.append(token)
    return kept


def needs_launcher(launch_strings: list[str]) -> bool:
    """
    Return whether `accelerate launch` has to start the script.

    One process is enough when no launch option is given, `accelerate config` has left no default and there is at most
    one accelerator. A process that a launcher has started never launches again.
    """
    if "LOCAL_RANK" in os.environ:
        return False
    several_devices = torch.accelerator.is_available() and torch.accelerator.device_count() > 1
    return bool(launch_strings) or Path(default_config_file).is_file() or several_devices


def launch(module: str, recipe_strings: list[str], command_strings: list[str], script_args: list[str]) -> None:
    """
    Start `python -m module` through `accelerate launch`.

    Args:
        module (`str`):
            Dotted name of the script.
        recipe_strings (`list[str]`):
            Launch options of the recipe.
        command_strings (`list[str]`):
            Launch options of the command line; they win.
        script_args (`list[str]`):
            Arguments of the script.

    Raises:
        RecipeError: The accelerate config does not exist, or the options contradict each other.
    """
    command_strings = _split_equals(command_strings)
    if {"--accelerate_config", "--config_file"} & set(command_strings):
        recipe_strings = _drop_option(_drop_option(recipe_strings, "--accelerate_config"), "--config_file")
    try:
        launch_args = resolve_accelerate_config_argument(recipe_strings + command_strings)
        # accelerate's parser ends the program itself on a value it refuses
        parsed = launch_command_parser().parse_args([*launch_args, "--module", module, *script_args])
        launch_command(parsed)
    except (ValueError, FileNotFoundError) as error:
        raise RecipeError(f"accelerate launch: {error}") from error


def _split_equals(tokens: list[str]) -> list[str]:
    split = []
    for token in tokens:
        split += token.split("=", 1) if token.startswith("--") else [token]
    return split


def _drop_option(tokens: list[str], option: str) -> list[str]:
    if option not in tokens:
        return tokens
    index = tokens.index(option)
    return tokens[:index] + tokens[index + 2 :]
