# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Reading rollouts that exist already: the store of an earlier command, or a table from elsewhere.
"""

import json
from collections import Counter
from pathlib import Path

from datasets import Dataset, load_dataset

from .fingerprints import dataset_fingerprint
from .rollouts import Rollout, RolloutStore


COLUMNS = {"row", "text", "sample", "completion_ids", "num_tokens", "finished"}


def read_rollouts(path: str | Path, dataset: Dataset) -> list[Rollout]:
    """
    Rollouts, ordered by row and sample, from the output folder of `filter-prompts` or `pairs`, its `rollouts` folder,
    or a `.jsonl` or `.parquet` table with columns `row` (index into `dataset`) and `text`, and optionally `sample`
    (numbered if absent), `finished` (`True` if absent), `completion_ids` and `num_tokens`.

    Raises:
        `ValueError`: There is nothing at `path`, the rollouts belong to other prompts, a column is missing or unknown,
            or a value is unusable.
    """
    path = Path(path)
    if (path / "rollouts" / "rollouts.json").is_file():
        path = path / "rollouts"
    if (path / "rollouts.json").is_file():
        return _read_store(path, dataset)
    if path.is_file() and path.suffix in (".jsonl", ".parquet"):
        return _read_table(path, dataset)
    raise ValueError(f"{path} holds no rollouts: name the output folder of `pairs`, a .jsonl or a .parquet file")


def _read_store(folder: Path, dataset: Dataset) -> list[Rollout]:
    settings = json.loads((folder / "rollouts.json").read_text(encoding="utf-8"))
    found = dataset_fingerprint(dataset)
    if settings["dataset"] != found:
        raise ValueError(
            f"the rollouts in {folder} were sampled from other prompts (fingerprint {settings['dataset']}, "
            f"{settings['num_rows']} rows) than those given (fingerprint {found}, {len(dataset)} rows): name the same "
            "dataset, split and `max_prompts`"
        )
    return RolloutStore.merge(folder, range(settings["num_rows"]), settings["num_samples"])


def _read_table(path: Path, dataset: Dataset) -> list[Rollout]:
    loader = "parquet" if path.suffix == ".parquet" else "json"
    table = load_dataset(loader, data_files=str(path), split="train")
    columns = set(table.column_names)
    if not {"row", "text"} <= columns <= COLUMNS:
        raise ValueError(
            f"{path} has the columns {sorted(columns)}, but must have `row` and `text`, and no others than "
            f"{sorted(COLUMNS)}"
        )
    rollouts, numbered = [], Counter()
    for line, record in enumerate(table, start=1):
        row, text = record["row"], record["text"]
        if not isinstance(row, int) or not 0 <= row < len(dataset):
            raise ValueError(f"{path}, record {line}: row is {row!r}, but the dataset has rows 0..{len(dataset) - 1}")
        if not isinstance(text, str):
            raise ValueError(f"{path}, record {line}: text is {text!r}, but must be a string")
        ids, sample, finished = record.get("completion_ids") or [], record.get("sample"), record.get("finished")
        sample, finished = numbered[row] if sample is None else sample, True if finished is None else finished
        rollouts.append(Rollout(row, sample, text, ids, record.get("num_tokens") or len(ids), finished))
        numbered[row] += 1
    if not rollouts:
        raise ValueError(f"{path} has no records")
    repeated = [key for key, count in Counter((r.row, r.sample) for r in rollouts).items() if count > 1]
    if repeated:
        raise ValueError(f"{path}: row {repeated[0][0]} has sample {repeated[0][1]} twice; number or drop `sample`")
    return sorted(rollouts, key=lambda rollout: (rollout.row, rollout.sample))
