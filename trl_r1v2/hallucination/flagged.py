# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The tables of flagged responses, and the images they name: one table a probe, of the same columns whatever it holds, so
that a run's tables read as one; images named by what they show, so that no table names another's.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, List, Value

from ..images.processing import ImageSource, load_image
from .threshold_files import write_atomically


_TEXT, _TEXTS, _NUMBER, _VERDICT = Value("string"), List(Value("string")), Value("float64"), Value("bool")
FEATURES = Features(
    step=Value("int64"), row=Value("int64"), flags=_TEXTS, question=_TEXT, response=_TEXT, blind_phrases=_TEXTS,
    unsupported=_TEXTS, grounding_gap=_NUMBER, answer=_VERDICT, truth=_VERDICT, right=_VERDICT, reward=_NUMBER,
    images=_TEXTS,
)  # fmt: skip


def write_table(folder: Path, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `flagged-<step>.parquet` into the monitor's folder, of the columns of `FEATURES` in `rows`."""
    table = pa.Table.from_pylist(list(rows), schema=FEATURES.arrow_schema)
    write_atomically(_table(folder, step), lambda path: pq.write_table(table, path))


def write_image(folder: Path, source: ImageSource) -> str:
    """
    Write an image as the model gets it into the monitor's folder, unless it is there, named by a digest of its pixels;
    return its path in the folder.
    """
    image = load_image(source)
    digest = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()[:16]
    path = folder / "images" / f"{digest}.png"
    if not path.is_file():
        write_atomically(path, lambda temporary: image.save(temporary, format="PNG"))
    return str(path.relative_to(folder))


def remove_others(folder: Path, steps: Collection[int]) -> None:
    """Remove what another run left, but for the tables of this run's `steps`; without any, the images go, too."""
    own = {_table(folder, step) for step in steps}
    images = () if steps else folder.glob("images/*.png")
    for path in {*folder.glob("flagged-*.parquet"), *images} - own:
        path.unlink()


def _table(folder: Path, step: int) -> Path:
    return folder / f"flagged-{step:08d}.parquet"
