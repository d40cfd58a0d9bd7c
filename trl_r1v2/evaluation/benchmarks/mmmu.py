# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
MMMU and MMMU-Pro: college questions with up to seven images, of which the text says where they belong.

MMMU: data set `MMMU/MMMU`, one configuration a subject (30), split `validation` (900 rows; the answers of `test` are not
public), columns `id`, `question`, `options` (the text of a Python list), `answer`, `question_type`
(`multiple-choice`, `open`), `image_1` … `image_7`. MMMU-Pro: data set `MMMU/MMMU_Pro`, split `test`, configurations
`standard (10 options)` (columns as above with `subject`, all multiple choice) and `vision` (`image` holds question and
options). Read from lmms-eval (`lmms_eval/tasks/mmmu/utils.py`, `mmmu_pro/utils.py`) and lighteval
(`tasks/mmmu_pro.py`). MMMU-Pro's score is the mean over both configurations, which have the same number of rows.

Options follow the question as lines `A. …`, images stand where `<image n>` names them; the closing sentence is ours.
MMMU rounds numbers of open answers to two decimals, which is kept; it takes a text answer as right if it is contained
in the response, which is not: such answers are left to a judge.
"""

import ast
import re
from typing import Any

from .adapter import (
    BOXED,
    BOXED_LETTER,
    Adapter,
    Item,
    letter_of,
    listed,
    numbered_images,
    one_of,
    options_of,
    place_images,
    schema_error,
    text_of,
)


IMAGES = tuple(f"image_{number}" for number in range(1, 8))
SUBJECTS = (
    "Accounting", "Agriculture", "Architecture_and_Engineering", "Art", "Art_Theory", "Basic_Medical_Science",
    "Biology", "Chemistry", "Clinical_Medicine", "Computer_Science", "Design",
    "Diagnostics_and_Laboratory_Medicine", "Economics", "Electronics", "Energy_and_Power", "Finance", "Geography",
    "History", "Literature", "Manage", "Marketing", "Materials", "Math", "Mechanical_Engineering", "Music", "Pharmacy",
    "Physics", "Psychology", "Public_Health", "Sociology",
)  # fmt: skip
_PLACEHOLDER = r"<image\s+(\d+)>"
_ID_RE = re.compile(r"(?:dev|validation|test)_(.+)_\d+")


def read_mmmu(row: dict[str, Any], place: str) -> Item:
    """Read one question of MMMU."""
    item_id = text_of(row, "id", place)
    named = _ID_RE.fullmatch(item_id)
    if named is None:
        raise schema_error(place, "id", f"is {item_id!r}, not of the form validation_<subject>_<number>")
    if row["answer"] == "?":
        raise schema_error(place, "answer", "is '?': this split has no public answers, `validation` has")
    if one_of(row, "question_type", ("multiple-choice", "open"), place) == "multiple-choice":
        return _multiple_choice(row, item_id, named.group(1), place)
    question = text_of(row, "question", place)
    content, images, plain = place_images(f"{question}\n\n{BOXED}", _PLACEHOLDER, numbered_images(row, IMAGES), place)
    return Item(
        item_id=item_id,
        task=named.group(1),
        question=plain.removesuffix(f"\n\n{BOXED}"),
        content=content,
        images=images,
        kind="open",
        accepted=_accepted(text_of(row, "answer", place)),
        decimals=2,
    )


def read_mmmu_pro(row: dict[str, Any], place: str) -> Item:
    """Read one question of either configuration of MMMU-Pro."""
    subject = text_of(row, "subject", place)
    item_id = text_of(row, "id", place)
    if "question" in row:
        return _multiple_choice(row, item_id, f"standard, {subject}", place)
    if row.get("image") is None:
        raise schema_error(place, "image", "is empty or missing, and there is no column 'question' either")
    choices = options_of(row, "options", place)
    text = f"The image shows a multiple-choice question with its options. Answer it. {BOXED_LETTER}"
    return Item(
        item_id=item_id,
        task=f"vision, {subject}",
        question=f"(The question is shown in an image.)\n{listed(choices)}",
        content=[{"type": "image", "text": None}, {"type": "text", "text": text}],
        images=[row["image"]],
        kind="choice",
        accepted=[letter_of(row, "answer", choices, place)],
        choices=choices,
    )


def _multiple_choice(row: dict[str, Any], item_id: str, task: str, place: str) -> Item:
    choices = options_of(row, "options", place)
    text = f"{text_of(row, 'question', place)}\n{listed(choices)}\n\n{BOXED_LETTER}"
    content, images, plain = place_images(text, _PLACEHOLDER, numbered_images(row, IMAGES), place)
    return Item(
        item_id=item_id,
        task=task,
        question=plain.removesuffix(f"\n\n{BOXED_LETTER}"),
        content=content,
        images=images,
        kind="choice",
        accepted=[letter_of(row, "answer", choices, place)],
        choices=choices,
    )


def _accepted(answer: str) -> list[str]:
    """Answers to an open question: one, or the text of a Python list of them."""
    if answer.startswith("["):
        try:
            value = ast.literal_eval(answer)
        except (ValueError, SyntaxError):
            return [answer]  # an interval or a matrix, not a list of answers
        if isinstance(value, list) and value:
            return [str(entry) for entry in value]
    return [answer]


MMMU = Adapter(
    name="mmmu",
    title="MMMU (validation)",
    dataset="MMMU/MMMU",
    configs=SUBJECTS,
    split="validation",
    columns=("id", "question", "options", "answer", "question_type", *IMAGES),
    image_columns=IMAGES,
    read=read_mmmu,
)
MMMU_PRO = Adapter(
    name="mmmu_pro",
    title="MMMU-Pro",
    dataset="MMMU/MMMU_Pro",
    configs=("standard (10 options)", "vision"),
    split="test",
    columns=("id", "options", "answer", "subject"),
    image_columns=("image", *IMAGES),
    read=read_mmmu_pro,
)
