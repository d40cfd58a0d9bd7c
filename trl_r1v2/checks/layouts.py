# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Public data sets whose columns no trainer reads as they are, and the two lines that convert each.

Pure. Does not cover rows (`rows.py`): `<image>` in a text, paths, bytes and lists of images need no conversion.
"""

from collections.abc import Sequence


_USER = '{"prompt": [{"role": "user", "content": %s}], '
_ASSISTANT = '"%s": [{"role": "assistant", "content": %s}]'
_PAIR = ", ".join(_ASSISTANT % (name, f'row["{name}"]') for name in ("chosen", "rejected"))
_CONVERT = (
    "Convert it, where `dataset` are all its splits as `load_dataset` gives them:\nconvert = lambda row: %s\n"
    'dataset = dataset.map(convert, remove_columns=%s); dataset.save_to_disk("converted")'
)

# Columns by which a layout is known, and what a row becomes.
_LAYOUTS = {
    ("conversations",): (  # LLaVA
        _USER % 'row["conversations"][0]["value"]'
        + _ASSISTANT % ("completion", 'row["conversations"][1]["value"]')
        + "}"
    ),
    ("messages",): '{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}',
    ("question", "chosen", "rejected"): _USER % 'row["question"]' + _PAIR + "}",  # MMPR
    ("text",): (  # RLHF-V, a question and two responses as JSON text
        "(lambda row: " + _USER % 'row["question"]' + _PAIR + '})(__import__("json").loads(row["text"]))'
    ),
    ("question", "answer"): _USER % 'row["question"]' + '"solution": row["answer"]}',  # MMK12
    ("problem", "answer"): _USER % 'row["problem"]' + '"solution": row["answer"]}',  # Geometry3K
    ("problem", "solution"): _USER % 'row["problem"]' + '"solution": row["solution"]}',
}


def conversion(columns: Sequence[str]) -> str | None:
    """
    Two lines of Python that give a data set with these columns the column `prompt`; `None` if the layout is not known.
    """
    for known, row in _LAYOUTS.items():
        if set(known) <= set(columns):
            dropped = [name for name in known if name not in ("chosen", "rejected", "solution")]
            return _CONVERT % (row, dropped)
    return None


def image_list(columns: list[str]) -> str:
    """Two lines of Python that put image columns into one column of lists."""
    pictures = ", ".join(f"row[{name!r}]" for name in columns)
    return _CONVERT % (f'{{"images": [{pictures}]}}', columns)
