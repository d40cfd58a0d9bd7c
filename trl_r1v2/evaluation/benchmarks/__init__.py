# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The ten benchmarks of R1V2, by name: six have an adapter here, four are measured by the harness that is kept for them.

An adapter turns one row of a public data set into an [`Item`]; `grading.py` judges a response to it. Does not cover
sampling, judging by a model (`trl_r1v2.evaluation.judge`) nor the figures. Importing this needs neither torch nor trl.
"""

import difflib

from .adapter import Adapter, BenchmarkError, Item
from .aime import AIME_2024
from .harnesses import HARNESSES, Harness
from .mathvision import MATHVISION
from .mathvista import MATHVISTA
from .mmmu import MMMU, MMMU_PRO
from .olympiadbench import OLYMPIADBENCH
from .paper import PAPER_FIGURES, PaperFigure


ADAPTERS = {adapter.name: adapter for adapter in (AIME_2024, MMMU, MATHVISTA, OLYMPIADBENCH, MATHVISION, MMMU_PRO)}

__all__ = [
    "ADAPTERS",
    "HARNESSES",
    "PAPER_FIGURES",
    "Adapter",
    "BenchmarkError",
    "Harness",
    "Item",
    "PaperFigure",
    "find_adapter",
]


def find_adapter(name: str, model: str = "MODEL") -> Adapter:
    """
    Return the adapter of a benchmark.

    Args:
        name (`str`):
            Name as in a recipe's `benchmark`, for example `"mmmu"`.
        model (`str`, *optional*, defaults to `"MODEL"`):
            Model that the command of another harness names.

    Returns:
        [`Adapter`]: The adapter.

    Raises:
        BenchmarkError: There is no such benchmark, or another harness measures it; the message holds its command.
    """
    if name in ADAPTERS:
        return ADAPTERS[name]
    if name in HARNESSES:
        raise BenchmarkError(HARNESSES[name].instruction(model))
    known = [*ADAPTERS, *HARNESSES]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise BenchmarkError(f"there is no benchmark {name!r}{hint}. There are {', '.join(known)}.")
