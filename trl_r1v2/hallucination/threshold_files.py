# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Files that carry a reward threshold from `calibrate` or from a training run to `pairs`, in one JSON layout, written so
that a reader never sees half of one. How a threshold is found is `threshold.py`. Imports neither torch nor TRL.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


SCHEMA_VERSION = 1
KINDS = ("chosen_threshold", "margin_threshold")


def write_atomically(path: Path, content: str | Callable[[Path], Any]) -> None:
    """Write a file, a text or by a function of its path, by way of a temporary name; its folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    if isinstance(content, str):
        temporary.write_text(content, encoding="utf-8")
    else:
        content(temporary)
    os.replace(temporary, path)


def write_threshold_file(
    path: Path, threshold: float | None, *, source: str, score: Mapping[str, float] | None = None, **details: Any
) -> None:
    """
    Write a threshold, in units of the score (`None` if none could be suggested), what found it (`"calibrate"` or
    `"controller"`), the weight of each reward function in that score where it is known, and JSON-able `details`.
    """
    content = {"schema_version": SCHEMA_VERSION, "source": source, "chosen_threshold": threshold}
    content |= {"score": None if score is None else dict(score), **details}
    write_atomically(Path(path), json.dumps(content, indent=2) + "\n")


def read_threshold_file(path: str | Path, score: Mapping[str, float] | None = None) -> dict[str, Any]:
    """
    Read what [`write_threshold_file`] wrote: exactly one of `KINDS` is in it and finite. A `ValueError` if there is no
    such file, it is of another kind or version, or it holds no threshold, or one for another `score` than that to be
    cut.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"threshold file {path} does not exist: write it with `trl-r1v2 calibrate`, or train with a "
            "`controller_target`."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"threshold file {path} is no JSON ({error}).") from error
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"{path} is no threshold file of version {SCHEMA_VERSION}: write it anew.")
    kinds = [kind for kind in KINDS if kind in content]
    if len(kinds) != 1:
        raise ValueError(f"{path} must hold one of {', '.join(KINDS)}, but holds {kinds or 'none of them'}.")
    value = content[kinds[0]]
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(
            f"{path} holds no threshold ({kinds[0]} is {value}): {content.get('reason', 'write it anew')}."
        )
    if score is not None and len(score) > 1 and content.get("gated"):
        raise ValueError(
            f"{path} holds a threshold for the raw score of one component of a HybridReward, which its run gated, but "
            f"the score here is a sum of {len(score)}: {dict(score)}. Score with that component alone, or train with "
            "`controller_component` unset."
        )
    stored = content.get("score")
    if score is not None and stored is not None and dict(score) != stored:
        raise ValueError(
            f"{path} holds a threshold for the score {stored}, but the score here is {dict(score)}: use the same "
            "`reward_funcs` and `reward_weights`, or calibrate again."
        )
    return content
