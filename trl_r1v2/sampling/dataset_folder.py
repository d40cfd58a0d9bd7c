# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.

"""
Plain `datasets` folders: reading prompts, and writing parquet where `load_dataset(folder)` finds it.

Not covered: what the rows mean, and uploads.
"""

import math
import shutil
from pathlib import Path

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from datasets.table import embed_table_storage


MAX_SHARD_BYTES = 500_000_000


def load_prompts(name: str, config: str | None = None, split: str = "train", max_rows: int | None = None) -> Dataset:
    """
    The first `max_rows` rows of a split: of a folder of data files, a `save_to_disk` folder, a data file, or a name on
    the Hub.

    Raises:
        `ValueError`: There is no such split, no column `prompt`, or the file is of an unknown kind.
    """
    path = Path(name)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        dataset = load_from_disk(name)
        if isinstance(dataset, DatasetDict):
            if split not in dataset:
                raise ValueError(f"{name} has no split {split!r}, only {sorted(dataset)}")
            dataset = dataset[split]
    elif path.is_file():
        loader = {".parquet": "parquet", ".json": "json", ".jsonl": "json"}.get(path.suffix)
        if loader is None:
            raise ValueError(f"{name}: data files end in .parquet, .json or .jsonl")
        dataset = load_dataset(loader, data_files={split: name}, split=split)
    else:
        dataset = load_dataset(name, config, split=split)
    if "prompt" not in dataset.column_names:
        raise ValueError(f"{name} has no column `prompt`, only {dataset.column_names}: rename the prompts' column")
    return dataset if max_rows is None else dataset.select(range(min(max_rows, len(dataset))))


def write_dataset_folder(dataset: Dataset, folder: str | Path, title: str, text: str) -> None:
    """
    Writes `data/train-*.parquet`, images included, and the page `README.md`.

    The parquet files replace those of an earlier run in one step, so a reader never sees half of them.

    Args:
        dataset ([`~datasets.Dataset`]):
            Rows to write.
        folder (`str` or `Path`):
            Folder; other files in it stay.
        title (`str`):
            Heading of the page.
        text (`str`):
            Markdown of the page.
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
