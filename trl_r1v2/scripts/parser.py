# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
`RecipeParser`: TRL's `TrlParser`, which refuses what TRL's scripts let pass, and starts the command, in several
processes through `accelerate launch` as `trl` does. The launcher's options are accelerate's own; `accelerate_config`
is TRL's.
"""

import argparse
import dataclasses
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any, Literal, get_type_hints

import torch
from accelerate.commands.config.config_args import default_config_file
from accelerate.commands.launch import launch_command, launch_command_parser
from trl import TrlParser
from trl.cli.accelerate_config import resolve_accelerate_config_argument
from trl.cli.commands.training import _subtract_subsequence

from .recipe import RecipeError, config_of, refusals_of, unknown, value_problem


# What a recipe cannot ask of `accelerate launch`, because the command itself decides it.
_RESERVED = {"help", "module", "no_python", "training_script", "training_script_args", "env"}


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind every argument, the description as written."""


class RecipeParser(TrlParser):
    """
    Parser of a command's recipe and command line into dataclasses.

    As for [`trl.TrlParser`], a recipe's keys are the defaults, the command line overrides them, and `env` sets
    environment variables. What differs: an unknown key, a key given twice, a value of the wrong kind, a missing file
    and broken YAML end the program with exit code 2 and a message that names file, key and close matches, as does a
    dataclass that refuses its values. Keys of `accelerate launch` are accepted in every recipe: the launcher takes
    them. Arguments cannot be abbreviated.
    """

    def __init__(self, dataclass_types=None, **kwargs):
        usage = "%(prog)s --config recipe.yaml [--key value ...]"
        super().__init__(dataclass_types, allow_abbrev=False, usage=usage, formatter_class=_HelpFormatter, **kwargs)
        self.recipe_path: str | None = None

    def parse_args_and_config(self, args=None, return_remaining_strings=False, **kwargs) -> tuple[Any, ...]:
        """
        Parse recipe and command line. With `return_remaining_strings` the options of `accelerate launch` come last,
        those of the recipe and those of the command line; otherwise the former are ignored and the latter refused.
        """
        try:
            recipe, self.recipe_path, args = config_of(list(sys.argv[1:] if args is None else args))
            *outputs, of_recipe, of_command = self._parse(recipe, self.recipe_path or "command line", args)
            if of_command and not return_remaining_strings:
                raise RecipeError(f"{' '.join(of_command)}: this command's process cannot start others")
        except RecipeError as error:
            super().error(str(error))
        return (*outputs, of_recipe, of_command) if return_remaining_strings else tuple(outputs)

    def parse_recipe(self, recipe: dict[str, Any], place: str) -> tuple[Any, ...]:
        """Parse a recipe at hand, which messages call `place`, without its `env`; a [`RecipeError`] if it fails."""
        return tuple(self._parse(recipe, place, [])[:-2])

    def run(self, main: Callable, args: list[str] | None = None, module: str | None = None) -> int:
        """
        Parse, and call `main` with the dataclasses, or have `accelerate launch` start `module` in several processes.
        Return the exit code: 2 where recipe, data or checkpoint are refused, without a traceback.
        """
        from ..checks.rows import DatasetError
        from ..vlm.errors import CheckpointError

        outputs = self.parse_args_and_config(args, return_remaining_strings=module is not None)
        try:
            if module is not None:
                *outputs, of_recipe, of_command = outputs
                if needs_launcher(of_recipe + of_command):
                    launch(module, of_recipe, of_command, _subtract_subsequence(args, of_command))
                    return 0
            main(*outputs)
        except (RecipeError, DatasetError, CheckpointError) as error:
            place = "" if str(self.recipe_path) in f"{error} None" else f"{self.recipe_path}: "
            print(f"{self.prog}: error: {place}{error}", file=sys.stderr)
            return 2
        except CalledProcessError as error:  # the script's own process has said what went wrong
            return error.returncode
        return 0

    def error(self, message: str):
        """Raise what argparse complains about as a `RecipeError`; `parse_args_and_config` ends the program with it."""
        raise RecipeError(message)

    def _parse(self, recipe: dict[str, Any], place: str, args: list[str]) -> tuple[Any, ...]:
        """The dataclasses, and the launch options of recipe and command line; a [`RecipeError`] for all it refuses."""
        known, of_recipe, problems = self._types(), [], []
        for key, value in recipe.items():
            if key in known:
                problems.append(value_problem(key, value, known[key]))
            elif key not in launch_options():
                problems += [unknown("key", key, {*known, *launch_options(), "env"})] * (key != "env")
            elif value is not None and not (launch_options()[key] and value is False):
                of_recipe += [f"--{key}"] if launch_options()[key] else [f"--{key}", str(value)]
        if any(problems):
            raise RecipeError("\n  ".join(f"{place}: {problem}" for problem in problems if problem))
        self.set_defaults_with_config(**{key: value for key, value in recipe.items() if key in known})
        try:
            *outputs, of_command = self.parse_args_into_dataclasses(args, return_remaining_strings=True)
        except (ValueError, TypeError) as error:  # from a dataclass' `__post_init__`: the user's values, not our code
            raise RecipeError(f"{place}: {error}") from error
        for token in launch_entries(of_command)[1]:
            name = token.removeprefix("--").split("=")[0]
            raise RecipeError(unknown("argument", name, {*known, *launch_options(), "config"}))
        return (*outputs, of_recipe, of_command)

    def _types(self) -> dict[str, Any]:
        """The type of every field; a field with choices has them as its type."""
        types = {}
        for dataclass_type in self.dataclass_types:
            hints = get_type_hints(dataclass_type)
            for field in dataclasses.fields(dataclass_type):
                choices = field.metadata.get("choices")
                hint = Literal[tuple(choices)] if choices else hints[field.name]
                types[field.name] = hint | None if field.default is None else hint
        for name in {"resume_from_checkpoint", "scale_rewards"} & types.keys():
            types[name] |= bool  # text by their declaration, by their documentation a boolean as well
        return types


@functools.cache
def launch_options() -> dict[str, bool]:
    """The options of `accelerate launch`, with underscores, and `accelerate_config`; whether each is a flag."""
    actions = [action for action in launch_command_parser()._actions if action.dest not in _RESERVED]
    options = {option: action.nargs == 0 for action in actions for option in action.option_strings}
    named = {option[2:].replace("-", "_"): is_flag for option, is_flag in options.items() if option.startswith("--")}
    return {**named, "accelerate_config": False}


def launch_entries(strings: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Launch options by name, each with its value if it takes one, and the strings that are neither."""
    entries, stray, open_key = {}, [], None
    for string in strings:
        name, equals, value = string.partition("=")
        key = name[2:].replace("-", "_") if name.startswith("--") else ""
        if key in launch_options():
            entries[key] = [f"--{key}", value] if equals else [f"--{key}"]
            open_key = None if equals or launch_options()[key] else key
        elif open_key is not None:
            entries[open_key].append(string)
            open_key = None
        else:
            stray.append(string)
    return entries, stray


def needs_launcher(launch_strings: list[str]) -> bool:
    """
    Whether `accelerate launch` has to start the script: when a launch option is given, `accelerate config` has left a
    default, or there are several accelerators. A process that a launcher has started never launches again.
    """
    several = torch.accelerator.is_available() and torch.accelerator.device_count() > 1
    return "LOCAL_RANK" not in os.environ and (bool(launch_strings) or Path(default_config_file).is_file() or several)


def launch(module: str, of_recipe: list[str], of_command: list[str], script_args: list[str]) -> None:
    """Start `python -m module` with its arguments by `accelerate launch`; options of the command line win."""
    entries, winning = launch_entries(of_recipe)[0], launch_entries(of_command)[0]
    if {"accelerate_config", "config_file"} & winning.keys():
        entries = {key: entry for key, entry in entries.items() if key not in ("accelerate_config", "config_file")}
    strings = [string for entry in {**entries, **winning}.values() for string in entry]
    with refusals_of("accelerate launch"):
        strings = resolve_accelerate_config_argument(strings)
        launch_command(launch_command_parser().parse_args([*strings, "--module", module, *script_args]))
