# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
`RecipeParser`: TRL's `TrlParser`, which refuses what TRL's scripts let pass.

Covers recipe and command line of one command, up to the dataclasses. Does not cover the choice of the command
(`cli/main.py`) nor starting processes (`cli/launch.py`).
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_type_hints

from trl import TrlParser

from .recipe import (
    RecipeError,
    config_path,
    join_config_option,
    read_recipe,
    suggest,
    unknown_key_message,
    value_problem,
)
from .terminal import print_page


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind every argument, the description as written."""


class RecipeParser(TrlParser):
    """
    Parser of a command's recipe and command line into dataclasses.

    Everything of [`trl.TrlParser`] holds: a recipe's keys are the defaults, the command line overrides them, `env` sets
    environment variables. What differs: an unknown key, a key given twice, a value of the wrong kind, a missing file
    and broken YAML end the program with exit code 2 and a message that names file, key and close matches, as does a
    dataclass that refuses its values. Keys of `accelerate launch` (`num_processes`, `accelerate_config`, …) are
    accepted in every recipe: the launcher takes them, the script's own process ignores them. Arguments cannot be
    abbreviated.

    Args:
        dataclass_types (`type` or `Iterable[type]`, *optional*):
            Dataclasses to fill, in the order in which they are returned.
        **kwargs:
            Further arguments of `argparse.ArgumentParser`, for example `prog`.

    Attributes:
        recipe_path (`Path` or `None`):
            The recipe read by the last `parse_args_and_config`.

    Example:

    ```python
    >>> parser = RecipeParser((GRPOScriptArguments, SSBGRPOConfig))
    >>> script_args, training_args = parser.parse_args_and_config(["--config", "grpo.yaml", "--max_steps", "10"])
    ```
    """

    def __init__(self, dataclass_types: type | Iterable[type] | None = None, **kwargs):
        kwargs = {
            "allow_abbrev": False,
            "usage": "%(prog)s --config recipe.yaml [--key value ...]",
            "formatter_class": _HelpFormatter,
            **kwargs,
        }
        super().__init__(dataclass_types, **kwargs)
        self.recipe_path: Path | None = None

    def parse_args_and_config(
        self,
        args: Iterable[str] | None = None,
        return_remaining_strings: bool = False,
        fail_with_unknown_args: bool = True,
        separate_remaining_strings: bool = False,
    ) -> tuple[Any, ...]:
        """
        Parse recipe and command line.

        Args:
            args (`Iterable[str]`, *optional*, defaults to `sys.argv[1:]`):
                Command line.
            return_remaining_strings (`bool`, *optional*, defaults to `False`):
                Return the options of `accelerate launch` as well, those of the recipe before those of the command line.
                Without it, such options are ignored in the recipe and refused on the command line.
            fail_with_unknown_args (`bool`, *optional*, defaults to `True`):
                Kept for TRL's signature; unknown keys are refused in either case.
            separate_remaining_strings (`bool`, *optional*, defaults to `False`):
                Return the launch options as two lists: recipe's, command line's.

        Returns:
            `tuple`: The dataclasses, and the launch options if asked for.
        """
        args = join_config_option(list(args) if args is not None else sys.argv[1:])
        launch_strings = []
        self.recipe_path = None
        try:
            self.recipe_path = config_path(args)
            if self.recipe_path is not None:
                launch_strings = self._check_recipe(read_recipe(self.recipe_path), str(self.recipe_path))
            *outputs, _, remaining = super().parse_args_and_config(
                args, return_remaining_strings=True, separate_remaining_strings=True
            )
            self._check_command_line(remaining, launch_allowed=return_remaining_strings)
        except RecipeError as error:
            super().error(str(error))
        except (ValueError, TypeError) as error:
            # from a dataclass' `__post_init__`: the user's values, not our code
            super().error(f"{self.recipe_path}: {error}" if self.recipe_path else str(error))
        if not return_remaining_strings:
            return tuple(outputs)
        if separate_remaining_strings:
            return (*outputs, launch_strings, remaining)
        return (*outputs, launch_strings + remaining)

    def parse_recipe(self, recipe: dict[str, Any], place: str) -> tuple[Any, ...]:
        """
        Parse a recipe that is at hand as a mapping. Its `env` is not applied.

        Args:
            recipe (`dict[str, Any]`):
                Recipe as [`~trl_r1v2.scripts.recipe.read_recipe`] returns it.
            place (`str`):
                How messages call it.

        Returns:
            `tuple`: The dataclasses.

        Raises:
            RecipeError: The recipe cannot be used.
        """
        self._check_recipe(recipe, place)
        self.set_defaults_with_config(**{key: value for key, value in recipe.items() if key != "env"})
        try:
            return self.parse_args_into_dataclasses(args=[], look_for_args_file=False)
        except (ValueError, TypeError) as error:
            raise RecipeError(f"{place}: {error}") from error

    def error(self, message: str):
        """Raise what argparse complains about as a `RecipeError`; `parse_args_and_config` ends the program with it."""
        raise RecipeError(message)

    def print_help(self, file: Any = None):
        """Print the help, to standard output as a page whose reader may leave early."""
        if file is None:
            print_page(self.format_help().removesuffix("\n"))
        else:
            super().print_help(file)

    def _known_keys(self) -> dict[str, Any]:
        """Names of all fields, with their resolved type hints; a field with choices has them as its hint."""
        known = {}
        for dataclass_type in self.dataclass_types:
            hints = get_type_hints(dataclass_type)
            for field in dataclasses.fields(dataclass_type):
                choices = field.metadata.get("choices")
                known[field.name] = Literal[tuple(choices)] if choices else hints[field.name]
                if field.default is None:
                    known[field.name] = known[field.name] | None
        return known

    def _check_recipe(self, recipe: dict[str, Any], place: str) -> list[str]:
        """Refuse unknown keys and values of the wrong kind; return the options of `accelerate launch` among them."""
        known = self._known_keys()
        launch_strings, problems = [], []
        for key, value in recipe.items():
            if key == "env":
                continue
            if key in known:
                problems.append(value_problem(key, value, known[key]))
                continue
            # imports torch: only when there is a key that is not the script's own
            from .launch import is_launch_option, launch_option_names, recipe_option

            if is_launch_option(key):
                launch_strings += recipe_option(key, value)
            else:
                problems.append(unknown_key_message(key, {*known, *launch_option_names(), "env"}))
        problems = [problem for problem in problems if problem]
        if problems:
            raise RecipeError("\n  ".join(f"{place}: {problem}" for problem in problems))
        return launch_strings

    def _check_command_line(self, remaining: list[str], launch_allowed: bool) -> None:
        """Refuse what is neither an argument of the script nor, where allowed, an option of `accelerate launch`."""
        if not remaining:
            return
        from .launch import launch_option_names, stray_tokens

        known = self._known_keys()
        stray = stray_tokens(remaining)
        for token in stray:
            if token.startswith("--"):
                name = token.removeprefix("--").split("=")[0]
                raise RecipeError(f"unknown argument {token}{suggest(name, {*known, *launch_option_names()})}")
            hint = " (a recipe is given as `--config FILE`)" if Path(token).suffix in (".yaml", ".yml") else ""
            raise RecipeError(f"unexpected argument {token!r}{hint}")
        if not launch_allowed:
            raise RecipeError(
                f"{' '.join(remaining)}: options of `accelerate launch` are no arguments of this process; start it "
                "with `accelerate launch` or `trl-r1v2`"
            )
