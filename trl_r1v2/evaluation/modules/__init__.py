# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Metrics as modules of Hugging Face `evaluate`: `evaluate.load(module_path("pass_at_1"))`.

One folder a metric, as `evaluate.load` wants it. Does not cover the figures of a whole evaluation (`records.py`).
"""

from pathlib import Path


def module_path(name: str) -> str:
    """
    Return what `evaluate.load` takes.

    Args:
        name (`str`):
            `"pass_at_1"`, `"pass_at_k"` or `"format_rate"`.

    Returns:
        `str`: Path of the metric's script.

    Raises:
        ValueError: There is no such metric.
    """
    path = Path(__file__).parent / name / f"{name}.py"
    if not path.is_file():
        names = sorted({script.parent.name for script in Path(__file__).parent.glob("*/__init__.py")})
        raise ValueError(f"there is no metric {name!r}, only {', '.join(names)}.")
    return str(path)
