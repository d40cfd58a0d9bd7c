# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
AIME 2024: 30 problems whose answer is an integer from 0 to 999.

Data set `HuggingFaceH4/aime_2024`, split `train`, columns `id` (integer), `problem`, `solution`, `answer`, `url`, `year`
(text): its card, and the task `aime24` of lighteval (`src/lighteval/tasks/tasks/aime.py`). The prompt is ours.
"""

from typing import Any

from .adapter import BOXED, Adapter, Item, schema_error, text_of


def read(row: dict[str, Any], place: str) -> Item:
    """Read one problem."""
    answer = text_of(row, "answer", place).strip()
    if not answer.isdecimal() or int(answer) > 999:
        raise schema_error(place, "answer", f"is {answer!r}, not an integer from 0 to 999")
    problem = text_of(row, "problem", place)
    return Item(
        item_id=str(row["id"]),
        task="AIME 2024",
        question=problem,
        content=[{"type": "text", "text": f"{problem}\n\n{BOXED}"}],
        images=[],
        kind="integer",
        accepted=[str(int(answer))],
    )


AIME_2024 = Adapter(
    name="aime_2024",
    title="AIME 2024",
    dataset="HuggingFaceH4/aime_2024",
    configs=("default",),
    split="train",
    columns=("id", "problem", "answer"),
    image_columns=(),
    read=read,
)
