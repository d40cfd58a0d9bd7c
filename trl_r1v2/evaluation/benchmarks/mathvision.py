# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
MathVision (MATH-V): competition problems with one picture, multiple choice or free answers.

Data set `MathLLMs/MathVision`, splits `test` (3,040) and `testmini` (304), columns `id`, `question` (with `<image1>`),
`options` (a list, empty for free answers), `image` (a path), `decoded_image`, `answer`, `solution`, `level`, `subject`:
its card, and lmms-eval (`lmms_eval/tasks/mathvision/utils.py`). The Skywork-R1V2 model card names the split `mini`.

As in the original, an option is right by its letter or by its text. Free answers are compared by this package's
rules and math-verify, in place of the original's `latex2sympy`.
"""

import re
from typing import Any

from .adapter import (
    BOXED,
    BOXED_LETTER,
    LETTERS,
    Adapter,
    Item,
    letter_of,
    listed,
    options_of,
    place_images,
    schema_error,
    text_of,
)


_PLACEHOLDER = r"<image\s*(\d+)>"
_LATER_RE = re.compile(r"<image\s*(?!1>)(\d+)>")


def read(row: dict[str, Any], place: str) -> Item:
    """Read one problem."""
    if row["decoded_image"] is None:
        raise schema_error(place, "decoded_image", "is empty")
    choices = options_of(row, "options", place)
    closing = BOXED_LETTER if choices else BOXED
    question = text_of(row, "question", place)
    # options that only repeat their letters are drawn in the picture
    if choices and choices != list(LETTERS[: len(choices)]):
        question = f"{question}\n{listed(choices)}"
    # the row has one picture: `<image2>` and later ones are places in it
    text = _LATER_RE.sub(r"[image \1]", f"{question}\n\n{closing}")
    content, images, plain = place_images(text, _PLACEHOLDER, {1: row["decoded_image"]}, place)
    return Item(
        item_id=str(row["id"]),
        task=text_of(row, "subject", place),
        question=plain.removesuffix(f"\n\n{closing}"),
        content=content,
        images=images,
        kind="choice" if choices else "math",
        accepted=[letter_of(row, "answer", choices, place) if choices else text_of(row, "answer", place)],
        choices=choices,
    )


MATHVISION = Adapter(
    name="mathvision",
    title="MathVision (testmini)",
    dataset="MathLLMs/MathVision",
    configs=("default",),
    split="testmini",
    columns=("id", "question", "options", "decoded_image", "answer", "subject"),
    image_columns=("decoded_image",),
    read=read,
)
