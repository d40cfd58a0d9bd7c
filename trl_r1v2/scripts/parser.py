# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
`RecipeParser`: TRL's `TrlParser`, which refuses what TRL's scripts let pass, and starts the command, in several
processes by `accelerate launch` as `trl` does, with accelerate's options and TRL's `accelerate_config`.
"""

import argparse
import dataclasses
import functools
import inspect
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

from ..checks.rows import DatasetError
from ..vlm.errors import CheckpointError
from .recipe import RecipeError, config_of, refusals_of, unknown, value_problem


# What a recipe cannot ask of `accelerate launch`, because the command itself decides it.
_RESERVED = {"help", "module", "no_python", "training_script", "training_script_args", "env"}


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind every argument, the description as written."""


def parser_of(main: Callable, prog: str | None = None) -> "RecipeParser":
    """The parser of a command: the parameters of its `main` are annotated with the dataclasses it takes."""
    return RecipeParser([p.annotation for p in inspect.signature(main).parameters.values()], prog=prog)


class RecipeParser(TrlParser):
    """
    [`trl.TrlParser`] of a command's recipe and command line, which refuses more: an unknown key, a key given twice, a
    value of the wrong kind or that a dataclass refuses, a missing file and broken YAML end the program with exit code
    2 and a message that names file, key and close matches. Keys of `accelerate launch` are accepted in every recipe.
    Arguments cannot be abbreviated.
    """

    def __init__(self, dataclass_types=None, **kwargs):
        usage = "%(prog)s --config recipe.yaml [--key value ...]"
        super().__init__(dataclass_types, allow_abbrev=False, usage=usage, formatter_class=_HelpFormatter, **kwargs)
        self.recipe_path: str | None = None

    def parse_args_and_config(self, args=None) -> tuple[Any, ...]:
        """Parse both; options of `accelerate launch` are ignored in a recipe and refused on the command line."""
        return self._read(args)[0]

    def parse_recipe(self, recipe: dict[str, Any], place: str) -> tuple[Any, ...]:
        """Parse a recipe at hand, which messages call `place`, without its `env`; a [`RecipeError`] if it fails."""
        return self._parse(recipe, place, [])[0]

    def run(self, main: Callable, args: list[str] | None = None, command: str | None = None) -> int:
        """
        Parse, and call `main` with the dataclasses, or have `accelerate launch` start `command` in several processes.
        Return the exit code: 2 where recipe, data or checkpoint are refused, without a traceback.
        """
        outputs, of_recipe, of_command, own_args = self._read(args, may_launch=command is not None)
        try:
            if command is not None and needs_launcher(of_recipe | of_command):
                launch(of_recipe, of_command, [command, *own_args])
            else:
                main(*outputs)
        except (RecipeError, DatasetError, CheckpointError) as error:
            place = "" if str(self.recipe_path) in f"{error} None" else f"{self.recipe_path}: "
            print(f"{self.prog}: error: {place}{error}", file=sys.stderr)
            return 2
        except CalledProcessError as error:  # the script's own process has said what went wrong
            return error.returncode
        return 0

    def error(self, message: str):
        """Raise what argparse complains about as a `RecipeError`; `_read` ends the program with it."""
        raise RecipeError(message)

    def _read(self, args: list[str] | None, may_launch: bool = False) -> tuple[tuple, dict, dict, list[str]]:
        """[`_parse`] of the recipe and the command line; what it refuses ends the program."""
        try:
            recipe, self.recipe_path, args = config_of(list(sys.argv[1:] if args is None else args))
            *parsed, own_args = self._parse(recipe, self.recipe_path or "command line", args)
            if parsed[-1] and not may_launch:
                raise RecipeError(f"--{' --'.join(parsed[-1])}: this command's process cannot start others")
            return *parsed, own_args if self.recipe_path is None else ["--config", self.recipe_path, *own_args]
        except RecipeError as error:
            super().error(str(error))

    def _parse(self, recipe: dict[str, Any], place: str, args: list[str]) -> tuple[tuple, dict, dict, list[str]]:
        """The dataclasses, the launcher's options in the recipe and in `args`, and the other `args`."""
        known, of_recipe, problems = self._types(), {}, []
        for key, value in recipe.items():
            if key in known:
                problems.append(value_problem(key, value, known[key]))
            elif key not in launch_options():
                problems += [unknown("key", key, {*known, *launch_options(), "env"})] * (key != "env")
            elif value is not None and not (launch_options()[key] and value is False):
                of_recipe[key] = True if launch_options()[key] else str(value)
        if any(problems):
            raise RecipeError("\n  ".join(f"{place}: {problem}" for problem in problems if problem))
        given = recipe if self.recipe_path is None else recipe | {"recipe_path": self.recipe_path}
        self.set_defaults_with_config(**{key: value for key, value in given.items() if key in known})
        launcher = argparse.ArgumentParser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
        launcher.error = self.error
        for name, is_flag in launch_options().items():
            if name not in known:
                forms = {f"--{name}", f"--{name.replace('_', '-')}"}
                launcher.add_argument(*forms, dest=name, action="store_true" if is_flag else "store")
        of_command, args = launcher.parse_known_args(args)
        try:
            *outputs, stray = self.parse_args_into_dataclasses(args, return_remaining_strings=True)
        except (ValueError, TypeError) as error:  # from a dataclass' `__post_init__`: the user's values, not our code
            raise RecipeError(f"{place}: {error}") from error
        if stray:
            name = stray[0].removeprefix("--").split("=")[0]
            raise RecipeError(unknown("argument", name, {*known, *launch_options(), "config"}))
        return tuple(outputs), of_recipe, vars(of_command), args

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


def needs_launcher(options: dict[str, str | bool]) -> bool:
    """
    Whether `accelerate launch` has to start the script: a launch option is given, `accelerate config` has left a
    default, or there are several accelerators. A process that a launcher has started never launches again.
    """
    several = torch.accelerator.is_available() and torch.accelerator.device_count() > 1
    # Accelerate's launcher gives a single process no rank.
    launched = "LOCAL_RANK" in os.environ or {"ACCELERATE_USE_CPU", "ACCELERATE_MIXED_PRECISION"} <= os.environ.keys()
    return not launched and (bool(options) or Path(default_config_file).is_file() or several)


def launch(of_recipe: dict[str, str | bool], of_command: dict[str, str | bool], script_args: list[str]) -> None:
    """Start a command with its arguments by `accelerate launch`; the launcher's options of the command line win."""
    if {"accelerate_config", "config_file"} & of_command.keys():
        of_recipe = {key: value for key, value in of_recipe.items() if key not in ("accelerate_config", "config_file")}
    strings = [
        part for key, value in (of_recipe | of_command).items() for part in (f"--{key}", value) if part is not True
    ]
    with refusals_of("accelerate launch"):
        strings = [*resolve_accelerate_config_argument(strings), "--module", "trl_r1v2.scripts.main", *script_args]
        launch_command(launch_command_parser().parse_args(strings))
