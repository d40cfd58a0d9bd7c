# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Reading a recipe: one YAML mapping, and of what kind its values have to be; what they mean is judged by the dataclass
that receives them. Imports neither torch nor trl.
"""

import argparse
import contextlib
import difflib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml


class RecipeError(ValueError):
    """A recipe, or a file that it names, cannot be used. The message names the place and the remedy."""


@contextlib.contextmanager
def refusals_of(entry: str | None = None) -> Iterator[None]:
    """Raise what a part of the package refuses (`ValueError`) as a [`RecipeError`] that names the recipe's `entry`."""
    try:
        yield
    except ValueError as error:
        raise RecipeError(f"`{entry}`: {error}" if entry else str(error)) from error


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which refuses a key given twice; `1e-4` is a number and `no` text to it, as in YAML 1.2."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":bool")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node, deep=False):
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            key, mark = self.construct_object(key_node, deep=True), key_node.start_mark
            if key in lines and key != "<<":  # which merges another mapping, any number of times
                problem = f"the key {key!r} stands here a second time (first in line {lines[key]})"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=mark)
            lines[key] = mark.line + 1
        return super().construct_mapping(node, deep=deep)


_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("([tT]rue|TRUE|[fF]alse|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Read a YAML file with one mapping, in which `env` is an entry like others; any other is a [`RecipeError`]."""
    path = Path(path)
    try:
        recipe = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        names = sorted(file.name for file in path.parent.glob("*.y*ml"))
        names = difflib.get_close_matches(path.name, names, cutoff=0.5) or names[:5]
        raise RecipeError(f"{path}: no such file; in its folder there is {', '.join(names) or 'no recipe'}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}.") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}"
        raise RecipeError(f"{path}, {place}: {error.problem or error.context}.") from None
    if not isinstance(recipe, dict) or not all(isinstance(key, str) for key in recipe):
        raise RecipeError(f"{path}: a recipe is a YAML mapping, one `key: value` a line, and its keys are text.")
    if not isinstance(recipe.get("env", {}), dict):
        raise RecipeError(f"{path}: `env` takes a mapping of environment variables, got {recipe['env']!r}.")
    return recipe


def config_of(args: list[str]) -> tuple[dict[str, Any], str | None, list[str]]:
    """The recipe behind `--config` with its `env` in force, its path, and the rest of a command line."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    namespace, rest = parser.parse_known_args(args)
    recipe = read_recipe(namespace.config) if namespace.config else {}
    os.environ.update({key: str(value) for key, value in recipe.get("env", {}).items()})
    return recipe, namespace.config, rest


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence that refuses a name, with the known names that look like it."""
    matches = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.7)
    return f"unknown {kind} {name!r}" + (f" (did you mean {' or '.join(map(repr, matches))}?)" if matches else "")


def value_problem(key: str, value: Any, hint: Any) -> str | None:
    """What is wrong with the value of a key whose dataclass field has this type; `None` when it fits."""
    from pydantic import TypeAdapter, ValidationError

    try:
        # as JSON: there, text is no number either, but names the members of an enumeration
        TypeAdapter(hint).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        problems = {}
        for detail in error.errors():
            place = f" (at {'.'.join(map(str, detail['loc']))})" if isinstance((*detail["loc"], "")[0], int) else ""
            problems[detail["msg"].removeprefix("Value error, ").removeprefix("Input ") + place] = None
        return f"`{key}: {json.dumps(value, default=str)[:60]}` does not fit: {' or '.join(problems)}"
    return None
