# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Reading a recipe: one YAML mapping, checked for what YAML itself lets through.

Covers the file (missing, syntax, not a mapping, a key given twice), the names of keys and the kind of their values. Does
not cover what a value means: that is judged by the dataclass that receives it. Imports neither torch nor trl.
"""

import contextlib
import difflib
import os
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml


class RecipeError(ValueError):
    """A recipe, or a file that it names, cannot be used. The message names the place and the remedy."""


@contextlib.contextmanager
def refusals_of(key: str | None = None) -> Iterator[None]:
    """Raise what a part of the package refuses (`ValueError`) as a [`RecipeError`] that names the recipe's `key`."""
    try:
        yield
    except ValueError as error:
        raise RecipeError(f"`{key}`: {error}" if key else str(error)) from error


def search_path() -> list[str]:
    """Where modules that a recipe names are looked for: the working directory, and the clone this package runs from."""
    return [os.getcwd(), str(Path(__file__).parents[2])]


def extend_search_path() -> None:
    """Put [`search_path`] before the installed packages."""
    for folder in reversed(search_path()):
        if folder not in sys.path:
            sys.path.insert(0, folder)


# Keys of earlier TRL and transformers releases that recipes still carry, and what took their place.
FORMER_KEYS = {
    "warmup_ratio": "use `warmup_steps`: a value below 1 is a share of all steps",
    "max_prompt_length": "TRL no longer truncates prompts: leave long prompts out of the dataset",
    "overwrite_output_dir": "remove it: the output folder is always written to",
    "torch_dtype": "use `dtype`",
}

# Declared `str | None` by transformers, while `Trainer.train` documents a boolean as well.
_TEXT_OR_BOOLEAN = {"resume_from_checkpoint"}


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, which refuses a key given twice instead of keeping the last."""

    def construct_mapping(self, node, deep=False):
        seen = {}
        for key_node, _ in node.value:
            # `<<` merges another mapping; YAML allows several
            if key_node.tag != "tag:yaml.org,2002:merge":
                key = self.construct_object(key_node, deep=True)
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key!r} stands here a second time (first in line {seen[key]})",
                        key_node.start_mark,
                    )  # fmt: skip
                seen[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep=deep)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """
    Read a recipe.

    Args:
        path (`str` or `Path`):
            YAML file with one mapping.

    Returns:
        `dict[str, Any]`: The mapping as written, `env` included.

    Raises:
        RecipeError: The file is missing or unreadable, is no YAML, gives a key twice, or is no mapping of names.
    """
    path = Path(path)
    if path.is_dir():
        raise RecipeError(f"{path} is a folder: `--config` takes a YAML file.")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe file{_near_files(path)}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}.") from None
    try:
        recipe = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise RecipeError(f"{path}{place}: {error.problem or error.context}.") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: is no YAML: {error}.") from None
    if not isinstance(recipe, dict):
        found = "is empty" if recipe is None else f"holds a {type(recipe).__name__}"
        raise RecipeError(f"{path}: {found}; a recipe is a YAML mapping, one `key: value` a line.")
    for key in recipe:
        if not isinstance(key, str):
            raise RecipeError(f"{path}: the key {key!r} is no text; put it in quotes or correct it.")
    if not isinstance(recipe.get("env", {}), dict):
        raise RecipeError(f"{path}: `env` takes a mapping of environment variables, got {recipe['env']!r}.")
    return recipe


def join_config_option(args: list[str]) -> list[str]:
    """Rewrite `--config=FILE` as two tokens, the only form TRL's parser reads."""
    joined = []
    for token in args:
        joined += token.split("=", 1) if token.startswith("--config=") else [token]
    return joined


def config_path(args: list[str]) -> Path | None:
    """
    Return the recipe that a command line names behind `--config`, if any.

    Raises:
        RecipeError: There is no file behind `--config`, or it is given twice.
    """
    if "--config" not in args:
        return None
    if args.count("--config") > 1:
        raise RecipeError("`--config` is given twice; one command reads one recipe.")
    index = args.index("--config") + 1
    if index == len(args) or args[index].startswith("--"):
        raise RecipeError("`--config` needs the path of a recipe behind it.")
    return Path(args[index])


def suggest(name: str, known: Iterable[str]) -> str:
    """Return `" (did you mean …?)"` for the known names closest to `name`, or an empty string."""
    matches = difflib.get_close_matches(name.replace("-", "_"), sorted(known), n=3, cutoff=0.7)
    if not matches:
        return ""
    return f" (did you mean {' or '.join(repr(match) for match in matches)}?)"


def unknown_key_message(key: str, known: Iterable[str]) -> str:
    """Return the sentence that refuses `key`: what replaced it, or the known keys that look like it."""
    if key in FORMER_KEYS:
        return f"the key {key!r} is gone: {FORMER_KEYS[key]}"
    return f"unknown key {key!r}{suggest(key, known)}"


def value_problem(key: str, value: Any, hint: Any) -> str | None:
    """
    Say why `value` cannot be the value of a dataclass field, judged by its kind alone.

    Text is accepted for numbers and booleans, because the parser converts it; inside lists it is not converted.

    Args:
        key (`str`):
            Name of the recipe key.
        value (`Any`):
            Value as YAML read it.
        hint (`Any`):
            Resolved type hint of the field.

    Returns:
        `str` or `None`: A sentence with the remedy, or `None` when the value fits.
    """
    if _fits(value, hint) or (key in _TEXT_OR_BOOLEAN and isinstance(value, bool)):
        return None
    advice = ""
    takes_text = _fits("", hint, convertible=False)
    if isinstance(value, bool) and takes_text:
        advice = "; YAML reads a bare yes/no/on/off as a boolean: put the word in quotes if text is meant"
    elif isinstance(value, int | float) and takes_text:
        advice = "; put it in quotes"
    elif isinstance(value, float) and value.is_integer() and _fits(int(value), hint):
        advice = f"; write {int(value)}"
    elif isinstance(value, list) and any(isinstance(item, str) for item in value) and not _fits(["x"], hint):
        advice = "; YAML reads 1e-4 as text: write 1.0e-4"
    elif isinstance(value, str) and _fits([value], hint):
        advice = f"; write it as a list: [{value}]"
    return f"`{key}: {_shorten(value)}` does not fit, the key takes {describe_hint(hint)}{advice}"


def describe_hint(hint: Any) -> str:
    """Return a type hint in words a recipe's author uses, for example `"int or none"`."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(describe_hint(option) for option in get_args(hint)))
    if origin is Literal:
        return " or ".join(str(option) for option in get_args(hint))
    if origin is list:
        return f"a list of {describe_hint(get_args(hint)[0])}"
    if hint is type(None):
        return "none"
    if hint is dict or origin is dict or is_dataclass(hint):
        return "a mapping"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "one of " + ", ".join(str(option.value) for option in hint)
    return {str: "text", bool: "true or false", int: "an integer", float: "a number"}.get(hint, str(hint))


def _fits(value: Any, hint: Any, convertible: bool = True) -> bool:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option, convertible) for option in get_args(hint))
    if origin is Literal:
        return value in get_args(hint) or (convertible and str(value) in map(str, get_args(hint)))
    if origin is list or hint is list:
        element = get_args(hint)[0] if get_args(hint) else Any
        return isinstance(value, list) and all(_fits(item, element, convertible=False) for item in value)
    if origin is dict or hint is dict or is_dataclass(hint):
        return isinstance(value, Mapping)
    if hint is type(None):
        return value is None
    if hint in (bool, int, float):
        kinds = {bool: bool, int: int, float: int | float}[hint]
        is_kind = isinstance(value, kinds) and (hint is bool or not isinstance(value, bool))
        return is_kind or (convertible and isinstance(value, str) and _reads_as(value, hint))
    if hint is str or (isinstance(hint, type) and issubclass(hint, Enum)):
        return isinstance(value, str)
    return True


def _reads_as(text: str, kind: type) -> bool:
    """Whether the argument parser will make a number or a truth value of `text`, as in `1e-4`."""
    if kind is bool:
        return text.lower() in ("yes", "true", "t", "y", "1", "no", "false", "f", "n", "0")
    try:
        kind(text)
    except ValueError:
        return False
    return True


def _shorten(value: Any, length: int = 60) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
    return text if len(text) <= length else text[:length] + "…"


def _near_files(path: Path) -> str:
    """Name the recipes that lie where `path` was looked for, the likeliest typing error first."""
    if not path.parent.is_dir():
        return f" (there is no folder {path.parent})"
    names = sorted(file.name for file in path.parent.glob("*.y*ml"))
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5) or names[:5]
    return f" (the folder holds {', '.join(close)})" if close else ""
