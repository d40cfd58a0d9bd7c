# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Writing parquet where `load_dataset(folder)` finds it."""

import math
import shutil
from pathlib import Path

from datasets import Dataset
from datasets.table import embed_table_storage


MAX_SHARD_BYTES = 500_000_000


def write_dataset_folder(dataset: Dataset, folder: str | Path, title: str, text: str) -> None:
    """
    Writes `data/train-*.parquet`, images included, and the page `README.md` with a heading and Markdown. The parquet
    files replace those of an earlier run in one step, so a reader never sees half of them.
    """
    folder = Path(folder)
    unfinished, data = folder / "data-unfinished", folder / "data"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    # Images that are only referred to by path would not travel with the folder.
    dataset = dataset.with_format("arrow").map(embed_table_storage, batched=True, desc="embedding images")
    num_shards = max(1, math.ceil(dataset.data.nbytes / MAX_SHARD_BYTES))
    for index in range(num_shards):
        shard = dataset.with_format(None).shard(num_shards, index, contiguous=True)
        shard.to_parquet(unfinished / f"train-{index:05d}-of-{num_shards:05d}.parquet")
    shutil.rmtree(data, ignore_errors=True)
    unfinished.rename(data)
    # No `configs` header: with one, `datasets` finds its cache by the folder's name alone, so that a rewritten folder,
    # or another one of the same name, would load the old rows. The file names follow its default pattern instead.
    (folder / "README.md").write_text(f"# {title}\n\n{text.rstrip()}\n", encoding="utf-8")
