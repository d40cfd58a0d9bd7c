# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
A pipeline recipe: its stages and what each of them runs.

Covers reading, resolving and checking stages. Does not cover which of them are finished (`pipeline_state.py`) nor
starting their processes (`stage_process.py`). Imports neither torch nor trl, unless a stage is checked.
"""

import difflib
import hashlib
import importlib
import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .main import COMMANDS
from .recipe import RecipeError, extend_search_path, read_recipe


@dataclass
class Stage:
    """
    One stage of a pipeline recipe.

    Args:
        name (`str`):
            Name of the stage; its log, recipe and marker carry it.
        command (`str` or `list[str]`):
            A command of `trl-r1v2`, or a program with its arguments; `python` is the running interpreter.
        config (`str`, *optional*):
            Recipe of the command, relative to the pipeline recipe.
        args (`dict[str, Any]`, *optional*):
            Keys that override the recipe's. A program with `config` or `args` is called with `--config FILE` behind its
            arguments. `${output_dir}` stands for the pipeline's output folder, here and in `command`.
    """

    name: str
    command: str | list[str]
    config: str | None = None
    args: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_mapping(cls, index: int, mapping: dict[str, Any]) -> "Stage":
        """
        Read one entry of `stages`.

        Raises:
            RecipeError: A key is unknown or missing, or a value has the wrong kind.
        """
        place = f"stages[{index}]" + (f" ({mapping['name']})" if "name" in mapping else "")
        fields = cls.__dataclass_fields__
        for key in mapping:
            if key not in fields:
                close = difflib.get_close_matches(str(key), fields, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise RecipeError(f"{place}: unknown key {key!r}; {hint}A stage has {', '.join(fields)}.")
        if not mapping.get("name") or not mapping.get("command"):
            raise RecipeError(f"{place}: a stage needs `name` and `command`.")
        stage = cls(**mapping)
        if not isinstance(stage.name, str) or not stage.name.replace("-", "").replace("_", "").isalnum():
            raise RecipeError(f"{place}: the name takes letters, digits, - and _, because files are called by it.")
        if not isinstance(stage.args, dict) or not isinstance(stage.config, str | None):
            raise RecipeError(f"{place}: `args` takes a mapping of recipe keys and `config` the path of a recipe.")
        if isinstance(stage.command, list):
            if not all(isinstance(part, str) for part in stage.command):
                raise RecipeError(f"{place}: `command` as a list takes text; put numbers in quotes.")
        elif stage.command not in COMMANDS:
            close = difflib.get_close_matches(str(stage.command), COMMANDS, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(close)}" if close else f"there are {', '.join(COMMANDS)}"
            raise RecipeError(f"{place}: unknown command {stage.command!r}; {hint}? A program is given as a list.")
        return stage


@dataclass
class ResolvedStage:
    """
    What a stage runs, with its recipe and the placeholders filled in.

    Args:
        name (`str`):
            Name of the stage.
        command (`str` or `list[str]`):
            Command of `trl-r1v2`, or program.
        recipe (`dict[str, Any]`):
            All keys: those of the recipe, overridden by the stage's own and by the command line.
        place (`str`):
            How messages call the recipe.
    """

    name: str
    command: str | list[str]
    recipe: dict[str, Any]
    place: str

    @property
    def fingerprint(self) -> str:
        """Hash of command and recipe."""
        content = json.dumps([self.command, self.recipe], sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def output_dir(self) -> Path | None:
        """Folder that the stage writes, if its recipe names one."""
        value = self.recipe.get("output_dir")
        return Path(value) if isinstance(value, str) else None

    def argv(self, recipe_path: Path) -> list[str]:
        """Return the command line of the stage's process, whose recipe is written at `recipe_path`."""
        if isinstance(self.command, str):
            return [sys.executable, "-m", "trl_r1v2.scripts.main", self.command, "--config", str(recipe_path)]
        program = sys.executable if self.command[0] == "python" else self.command[0]
        return [program, *self.command[1:], *(["--config", str(recipe_path)] if self.recipe else [])]

    def check(self) -> None:
        """
        Parse the recipe with the command's own parser, or look up the program.

        Raises:
            RecipeError: The stage could not start.
        """
        if isinstance(self.command, str):
            module = importlib.import_module(f"trl_r1v2.scripts.{COMMANDS[self.command].module}")
            module.make_parser(prog=f"trl-r1v2 {self.command}").parse_recipe(self.recipe, self.place)
        elif self.command[:2] == ["python", "-m"] and len(self.command) > 2:
            check_module(self)
        elif self.command[0] != "python" and shutil.which(self.command[0]) is None:
            raise RecipeError(f"{self.place}: there is no program {self.command[0]!r}.")


def check_module(stage: ResolvedStage) -> None:
    """Refuse a stage `python -m module` without such a module, or with a recipe that the module's parser refuses."""
    extend_search_path()
    try:
        module = importlib.import_module(stage.command[2])
    except ModuleNotFoundError as error:
        raise RecipeError(f"{stage.place}: there is no module {stage.command[2]!r} ({error}).") from error
    if "make_parser" in vars(module):
        module.make_parser(prog=stage.command[2]).parse_recipe(stage.recipe, stage.place)


def resolve_stages(
    stages: list[Stage], output_dir: str, folder: Path, overrides: list[str] | None = None
) -> list[ResolvedStage]:
    """
    Read the stages' recipes and fill in what overrides them.

    Args:
        stages (`list[Stage]`):
            Stages of the pipeline recipe.
        output_dir (`str`):
            Output folder of the pipeline, which replaces `${output_dir}`.
        folder (`Path`):
            Folder of the pipeline recipe, to which `config` is relative.
        overrides (`list[str]`, *optional*):
            Entries `stage.key=value`; the value is read as YAML.

    Returns:
        `list[ResolvedStage]`: In the same order.

    Raises:
        RecipeError: A recipe cannot be read, a name is used twice, or an override names no stage.
    """
    names = [stage.name for stage in stages]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise RecipeError(f"two stages are called {twice[0]!r}; give each its own name.")
    overriding = _parse_overrides(overrides or [], names)
    resolved = []
    for stage in stages:
        recipe, place = {}, f"stage {stage.name!r}"
        if stage.config is not None:
            path = folder / stage.config
            recipe, place = read_recipe(path), f"{place} ({os.path.relpath(path)})"
        recipe = _fill({**recipe, **stage.args, **overriding[stage.name]}, output_dir)
        resolved.append(ResolvedStage(stage.name, _fill(stage.command, output_dir), recipe, place))
    return resolved


def _parse_overrides(overrides: list[str], names: list[str]) -> dict[str, dict[str, Any]]:
    overriding = {name: {} for name in names}
    for entry in overrides:
        key, equals, value = entry.partition("=")
        stage, _, key = key.partition(".")
        if not equals or not key:
            raise RecipeError(f"`overrides: {entry}` is not of the form stage.key=value.")
        if stage not in overriding:
            raise RecipeError(f"`overrides: {entry}`: there is no stage {stage!r}, only {', '.join(names)}.")
        overriding[stage][key] = yaml.safe_load(value)
    return overriding


def _fill(value: Any, output_dir: str) -> Any:
    if isinstance(value, str):
        return value.replace("${output_dir}", output_dir)
    if isinstance(value, list):
        return [_fill(item, output_dir) for item in value]
    if isinstance(value, dict):
        return {key: _fill(item, output_dir) for key, item in value.items()}
    return value
