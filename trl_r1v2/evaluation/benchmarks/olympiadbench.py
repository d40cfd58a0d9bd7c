# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
OlympiadBench: competition problems in mathematics and physics, English and Chinese, with several answers, tolerances
and units.

Data set `Hothan/OlympiadBench`, split `train` of each configuration, columns `id`, `question` (with `<image_1>`),
`context`, `final_answer` (a list; the first entry holds all answers, joined by commas), `is_multiple_answer`, `unit`,
`answer_type`, `error` (tolerance as text, one or one for each answer), `subfield`, `subject` (`Math`, `Physics`),
`language` (`English`, `Chinese`), `image_1` … `image_9`: the page of OpenBMB/OlympiadBench, lighteval
(`tasks/olympiade_bench/main.py`), lmms-eval (`tasks/olympiadbench/`). R1V2 does not say which configurations it used;
the five multimodal ones with open answers are ours. Proofs (`TP_…`) have no `final_answer` and are refused: no rule can judge them.

As in the original judge, several answers have to match one to one in any order, `\pm` stands for two answers, and a
number may differ by its tolerance. Unlike it, an answer that is a hundred times the right one is wrong unless one of them
is written with a percent sign.
"""

import re
from typing import Any

from .adapter import BOXED, Adapter, Item, numbered_images, one_of, place_images, schema_error, text_of


IMAGES = tuple(f"image_{number}" for number in range(1, 10))
ANSWER_TYPES = ("Numerical", "Expression", "Equation", "Interval", "Tuple", "Need_human_evaluate")
_PLACEHOLDER = r"<image_(\d+)>"
_CLOSING = {
    ("English", False): BOXED,
    ("English", True): "Please reason step by step, and put all answers, joined by commas, within one \\boxed{}.",
    ("Chinese", False): "请逐步推理，并把最终答案放在 \\boxed{} 中。",
    ("Chinese", True): "请逐步推理，并把所有答案用英文逗号连接，放在同一个 \\boxed{} 中。",
}
_UNIT = {"English": " Give it in {unit}.", "Chinese": " 答案的单位是 {unit}。"}


def read(row: dict[str, Any], place: str) -> Item:
    """Read one problem."""
    language = one_of(row, "language", ("English", "Chinese"), place)
    subject = one_of(row, "subject", ("Math", "Physics"), place)
    answer_type = _answer_type(row, place)
    final = row["final_answer"]
    if not isinstance(final, list) or not final or not all(isinstance(answer, str) for answer in final):
        raise schema_error(
            place, "final_answer", f"is {final!r}; a row with a proof instead of an answer is not scored"
        )
    several = row["is_multiple_answer"]
    if not isinstance(several, bool):
        raise schema_error(place, "is_multiple_answer", f"is {several!r}, not true or false")
    unit = row["unit"] or ""
    closing = _CLOSING[language, several] + (_UNIT[language].format(unit=unit) if unit else "")
    problem = text_of(row, "question", place)
    if row["context"]:
        problem = f"{row['context']}\n\n{problem}"
    content, images, plain = place_images(f"{problem}\n\n{closing}", _PLACEHOLDER, numbered_images(row, IMAGES), place)
    if answer_type == "Need_human_evaluate":
        kind = "prose"
    else:
        kind = "several" if several else "math"
    return Item(
        item_id=str(row["id"]),
        task=f"{subject}, {language}",
        question=plain.removesuffix(f"\n\n{closing}"),
        content=content,
        images=images,
        kind=kind,
        accepted=final if several else final[:1],
        tolerances=_tolerances(row, place),
        unit=unit.replace("$", ""),
    )


def _answer_type(row: dict[str, Any], place: str) -> str:
    """Check the declared type of each answer, for example `Numerical` or `Numerical,Interval`; return the declaration."""
    declared = text_of(row, "answer_type", place)
    for part in re.split(r"[,-]", declared):
        if part.strip() not in ANSWER_TYPES:
            raise schema_error(
                place, "answer_type", f"is {declared!r}, but this adapter knows {', '.join(map(repr, ANSWER_TYPES))}"
            )
    return declared


def _tolerances(row: dict[str, Any], place: str) -> list[float]:
    if row["error"] in (None, ""):
        return []
    try:
        return [float(part) if part.strip() else 0.0 for part in str(row["error"]).split(",")]
    except ValueError as error:
        raise schema_error(place, "error", f"is {row['error']!r}, not a tolerance or a list of them") from error


OLYMPIADBENCH = Adapter(
    name="olympiadbench",
    title="OlympiadBench (open answers, multimodal)",
    dataset="Hothan/OlympiadBench",
    configs=(
        "OE_MM_maths_en_COMP", "OE_MM_maths_zh_CEE", "OE_MM_maths_zh_COMP", "OE_MM_physics_en_COMP",
        "OE_MM_physics_zh_CEE",
    ),
    split="train",
    columns=(
        "id", "question", "context", "final_answer", "is_multiple_answer", "unit", "answer_type", "error", "subject",
        "language",
    ),
    image_columns=IMAGES,
    read=read,
)  # fmt: skip
