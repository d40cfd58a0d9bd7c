# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What an adapter is: a public data set's schema and the function that reads one of its rows.

Covers the checks by which a changed schema is refused by name, and the place of images in a prompt. Does not cover
loading (`loading.py`) nor judging (`grading.py`). Pure: images are passed on as they come, undecoded.
"""

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...checks.rows import DatasetError


LETTERS = "ABCDEFGHIJ"
BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
BOXED_LETTER = "Please reason step by step, and put the letter of your choice within \\boxed{}."


class BenchmarkError(DatasetError):
    """A benchmark that cannot be measured as asked, or a row of another schema. The message names place and remedy."""


@dataclass(frozen=True)
class Item:
    """
    One problem of a benchmark.

    Args:
        item_id (`str`):
            The data set's own name of the problem.
        task (`str`):
            Group that gets figures of its own, for example the subject.
        question (`str`):
            The problem with its options as text, for a judge and for the report.
        content (`list[dict]`):
            Parts of the user message, `{"type": "text", "text": …}` and `{"type": "image", "text": None}`.
        images (`list`):
            One image for each image part, in order.
        kind (`str`):
            How the answer is compared; one of `trl_r1v2.evaluation.benchmarks.grading.KINDS`.
        accepted (`list[str]`):
            Right answers: any of them for most kinds, all of them for `"several"`.
        choices (`list[str]`):
            Text of options A, B, …; empty for free answers.
        decimals (`int`, *optional*):
            Decimal places to which numbers are rounded before they are compared.
        tolerances (`list[float]`):
            Largest absolute difference of a number, one value for all accepted answers or one each; empty: exact.
        unit (`str`):
            Unit of the right answer, in which a bare number is taken; may be empty.
    """

    item_id: str
    task: str
    question: str
    content: list[dict[str, Any]]
    images: list[Any]
    kind: str
    accepted: list[str]
    choices: list[str] = field(default_factory=list)
    decimals: int | None = None
    tolerances: list[float] = field(default_factory=list)
    unit: str = ""


@dataclass(frozen=True)
class Adapter:
    """
    A benchmark that is measured here.

    Args:
        name (`str`):
            Name in a recipe.
        title (`str`):
            Name in print.
        dataset (`str`):
            Name on the Hub.
        configs (`tuple[str, ...]`):
            Configurations that together are the benchmark.
        split (`str`):
            Split with public answers.
        columns (`tuple[str, ...]`):
            Columns without which rows cannot be read.
        image_columns (`tuple[str, ...]`):
            Columns that hold images where they exist.
        read (`Callable[[dict, str], Item]`):
            Reads a row; the second argument is how messages call it.
    """

    name: str
    title: str
    dataset: str
    configs: tuple[str, ...]
    split: str
    columns: tuple[str, ...]
    image_columns: tuple[str, ...]
    read: Callable[[dict[str, Any], str], Item]


def text_of(row: dict[str, Any], column: str, place: str) -> str:
    """Text of a column that may not be empty."""
    value = row[column]
    if not isinstance(value, str) or not value.strip():
        raise schema_error(place, column, f"is {value!r}, not a text")
    return value


def one_of(row: dict[str, Any], column: str, known: Sequence[str], place: str) -> str:
    """Text of a column that takes one of some values."""
    value = row[column]
    if value not in known:
        raise schema_error(place, column, f"is {value!r}, but this adapter knows {', '.join(map(repr, known))}")
    return value


def schema_error(place: str, column: str, problem: str) -> BenchmarkError:
    """Refusal of a row, with the remedy."""
    return BenchmarkError(
        f"{place}: column {column!r} {problem}. The data set has another schema than the adapter was written for: set "
        "`dataset_name` to a copy of the known one, or read the new one with an adapter of your own "
        "(`trl_r1v2.evaluation.benchmarks.Adapter`)."
    )


def options_of(row: dict[str, Any], column: str, place: str) -> list[str]:
    """Options as a list of texts: a list column, or MMMU's text of a Python list."""
    value = row[column]
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError) as error:
            raise schema_error(place, column, f"is {value!r}, which is no list of options") from error
    if not isinstance(value, list | tuple):
        raise schema_error(place, column, f"is a {type(value).__name__}, not a list of options")
    if len(value) > len(LETTERS):
        raise schema_error(place, column, f"has {len(value)} options, more than the {len(LETTERS)} letters A to J")
    return [str(option) for option in value]


def letter_of(row: dict[str, Any], column: str, choices: Sequence[str], place: str) -> str:
    """Right letter, one of those that the options have."""
    letters = LETTERS[: len(choices)]
    value = row[column]
    if not isinstance(value, str) or len(value) != 1 or value not in letters:
        raise schema_error(place, column, f"is {value!r}, but the options have the letters {letters!r}")
    return value


def listed(choices: Sequence[str]) -> str:
    """Options as lines `A. …`."""
    return "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def place_images(
    text: str, placeholder: str, images: dict[int, Any], place: str
) -> tuple[list[dict[str, Any]], list[Any], str]:
    """
    Put images where a text names them; images that no placeholder names go to the front if none is named at all.

    A placeholder that occurs again becomes `[image n]`, because an image is shown once.

    Args:
        text (`str`):
            Text with placeholders.
        placeholder (`str`):
            Regular expression whose first group is the number of an image.
        images (`dict[int, Any]`):
            Images by number, in order.
        place (`str`):
            How messages call the row.

    Returns:
        `tuple`: Parts of the message, images in the order of their parts, and the text with `[image n]` throughout.

    Raises:
        BenchmarkError: A placeholder names an image that the row does not hold.
    """
    plain = re.sub(placeholder, r"[image \1]", text)
    numbers = [int(number) for number in re.findall(placeholder, text)]
    missing = sorted(set(numbers) - set(images))
    if missing:
        raise BenchmarkError(
            f"{place}: the text names image {missing[0]}, but the row holds the images {sorted(images)}. The row is "
            "damaged or the image columns have other names: load the data set again, or leave the row out."
        )
    if not numbers:
        return [*({"type": "image", "text": None} for _ in images), _text_part(plain)], list(images.values()), plain
    parts: list[dict[str, Any]] = []
    shown: list[int] = []
    end = 0
    buffer = ""
    for match in re.finditer(placeholder, text):
        number = int(match.group(1))
        buffer += text[end : match.start()]
        end = match.end()
        if number in shown:
            buffer += f"[image {number}]"
            continue
        if buffer:
            parts.append(_text_part(buffer))
            buffer = ""
        parts.append({"type": "image", "text": None})
        shown.append(number)
    buffer += text[end:]
    if buffer:
        parts.append(_text_part(buffer))
    return parts, [images[number] for number in shown], plain


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def numbered_images(row: dict[str, Any], columns: Sequence[str]) -> dict[int, Any]:
    """Images of columns `image_1`, `image_2`, … that are filled in, by number."""
    return {number: row[column] for number, column in enumerate(columns, start=1) if row.get(column) is not None}
