# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
MathVista: mathematics in pictures, multiple choice and free answers with a declared type and precision.

Data set `AI4Math/MathVista`, split `testmini` (1,000 rows; the answers of `test` are not public), columns `pid`,
`question`, `image` (a path), `decoded_image`, `choices`, `unit`, `precision`, `answer`, `question_type` (`multi_choice`,
`free_form`), `answer_type` (`text`, `integer`, `float`, `list`), `metadata`, `query`: its card, and lmms-eval
(`lmms_eval/tasks/mathvista/utils.py`, `mathvista_evals.py`).

The prompt is the data set's own `query` (hint, question, unit, choices) and our sentence about the box. As in the
original, decimals are compared after rounding to `precision`, lists as a whole, and a choice by its text. Unlike it, an
integer has to be one (the original truncates 3.7 to 3), a choice is never guessed by edit distance, and a unit in the
answer has to agree.
"""

import math
from typing import Any

from .adapter import BOXED, LETTERS, Adapter, Item, one_of, options_of, schema_error, text_of


def read(row: dict[str, Any], place: str) -> Item:
    """Read one problem."""
    question_type = one_of(row, "question_type", ("multi_choice", "free_form"), place)
    answer_type = one_of(row, "answer_type", ("text", "integer", "float", "list"), place)
    if row["answer"] is None or row["answer"] == "":
        raise schema_error(place, "answer", "is empty: this split has no public answers, `testmini` has")
    answer = text_of(row, "answer", place)
    if row["decoded_image"] is None:
        raise schema_error(place, "decoded_image", "is empty")
    query = text_of(row, "query", place)
    choices: list[str] = []
    decimals = None
    if question_type == "multi_choice":
        choices = options_of(row, "choices", place)
        if choices.count(answer) != 1:
            raise schema_error(place, "answer", f"is {answer!r}, which is not one of the choices {choices}")
        kind, answer = "choice", LETTERS[choices.index(answer)]
    elif answer_type == "float":
        kind, decimals = "decimal", _decimals(row["precision"], place)
    else:
        kind = {"integer": "integer", "list": "list", "text": "open"}[answer_type]
    return Item(
        item_id=str(row["pid"]),
        task=question_type,
        question=query,
        content=[{"type": "image", "text": None}, {"type": "text", "text": f"{query}\n\n{BOXED}"}],
        images=[row["decoded_image"]],
        kind=kind,
        accepted=[answer],
        choices=choices,
        decimals=decimals,
        unit=row["unit"] or "",
    )


def _decimals(precision: float | str | None, place: str) -> int:
    """Number of decimals, which the data set writes as `1.0`."""
    if precision is None:
        raise schema_error(place, "precision", "is empty, but the answer is a decimal number")
    try:
        decimals = float(precision)
    except ValueError:
        decimals = math.nan
    if not (decimals.is_integer() and 0 <= decimals <= 20):
        raise schema_error(place, "precision", f"is {precision!r}, but has to be the decimals of the answer, a number")
    return int(decimals)


MATHVISTA = Adapter(
    name="mathvista",
    title="MathVista (testmini)",
    dataset="AI4Math/MathVista",
    configs=("default",),
    split="testmini",
    columns=(
        "pid", "decoded_image", "choices", "unit", "precision", "answer", "question_type", "answer_type", "query",
    ),
    image_columns=("decoded_image",),
    read=read,
)  # fmt: skip
