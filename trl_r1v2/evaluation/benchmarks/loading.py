# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
A benchmark's public data set as evaluation rows: `prompt`, `images`, and what `grading.py` needs.

Covers the choice of configurations, the check of the schema, and the conversion; images stay the bytes that they are.
Does not cover prompts and answers themselves (the adapters).
"""

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .adapter import Adapter, BenchmarkError, Item


if TYPE_CHECKING:
    from datasets import Dataset, Features


def load_rows(
    adapter: Adapter,
    source: str | None = None,
    config: str | None = None,
    split: str | None = None,
    max_rows: int | None = None,
) -> "Dataset":
    """
    Load a benchmark as evaluation rows.

    Args:
        adapter ([`Adapter`]):
            Benchmark, from [`~trl_r1v2.evaluation.benchmarks.find_adapter`].
        source (`str`, *optional*):
            Copy of the public data set: a name on the Hub or a folder. The adapter's own by default.
        config (`str`, *optional*):
            One configuration only. All that make up the benchmark by default.
        split (`str`, *optional*):
            Split. The adapter's own by default.
        max_rows (`int`, *optional*):
            First rows only.

    Returns:
        `Dataset`: Columns `prompt` (messages, with `{"type": "image"}` parts where there are images), `images` (absent
        for text benchmarks), `solution` (text), `task`, `item_id`, `question`, `kind`, `accepted`, `choices`,
        `decimals`, `tolerances`, `unit`.

    Raises:
        BenchmarkError: A configuration, split or column is missing, or a row is of another schema.
    """
    from datasets import concatenate_datasets

    source, split = source or adapter.dataset, split or adapter.split
    parts, num_rows = [], 0
    for name, load in _configs(adapter, source, config):
        part = load(split)
        place = f"{source} [{', '.join(filter(None, (name, split)))}]"
        check_schema(adapter, part, place)
        if max_rows is not None:
            part = part.select(range(min(len(part), max_rows - num_rows)))
        num_rows += len(part)
        # `datasets` cannot convert what has no rows
        if len(part):
            parts.append(convert(adapter, part, place))
        if num_rows == max_rows:
            break
    if not parts:
        raise _without_rows(f"{source} [{split}]")
    return concatenate_datasets(parts)


def _without_rows(place: str) -> BenchmarkError:
    return BenchmarkError(f"{place} has no rows: choose another split, or load the data set again.")


def _configs(adapter: Adapter, source: str, config: str | None) -> list[tuple[str, Callable[[str], "Dataset"]]]:
    """Names of the configurations to read, each with the function that loads a split of it."""
    from datasets import get_dataset_config_names, load_dataset, load_from_disk

    if (Path(source) / "dataset_dict.json").is_file():
        saved = load_from_disk(source)
        return [("", lambda split: _take_split(saved, split, source))]
    present = get_dataset_config_names(source)
    if config is not None:
        wanted = [config]
    elif len(present) == 1 and len(adapter.configs) > 1 and present[0] not in adapter.configs:
        wanted = present  # a copy of the whole benchmark in one configuration
    else:
        wanted = list(adapter.configs)
    missing = [name for name in wanted if name not in present]
    if missing:
        raise BenchmarkError(
            f"{source} has no configuration {', '.join(map(repr, missing))}, only {', '.join(map(repr, present))}. Name "
            "one of them in `dataset_config`, or another copy of the data set in `dataset_name`."
        )

    def loader(name: str) -> Callable[[str], "Dataset"]:
        # asking for one split alone spares the download of the others
        def load(split: str) -> "Dataset":
            try:
                return load_dataset(source, name, split=split)
            except ValueError as error:
                if "corresponds to no data" in str(error):
                    raise _without_rows(f"{source} [{name}, {split}]") from error
                if "split" not in str(error).lower():
                    raise
                raise BenchmarkError(
                    f"{source} [{name}] has no split {split!r} ({error}). Correct `dataset_split`; the adapter's own is "
                    f"{adapter.split!r}."
                ) from error

        return load

    return [(name, loader(name)) for name in wanted]


def _take_split(splits, split: str, source: str) -> "Dataset":
    if split not in splits:
        raise BenchmarkError(
            f"{source} has no split {split!r}, only {', '.join(map(repr, splits))}. Correct `dataset_split`."
        )
    return splits[split]


def check_schema(adapter: Adapter, dataset: "Dataset", place: str) -> None:
    """
    Refuse a data set whose columns are not those that the adapter reads.

    Args:
        adapter ([`Adapter`]):
            Benchmark.
        dataset (`Dataset`):
            Rows as they were loaded.
        place (`str`):
            How the message calls them.

    Raises:
        BenchmarkError: A column is missing or holds no images; the message names it and the nearest one that is there.
    """
    from datasets import Image

    for column in adapter.columns:
        if column not in dataset.column_names:
            unknown = [name for name in dataset.column_names if name not in adapter.columns]
            close = difflib.get_close_matches(column, unknown, n=1, cutoff=0.7)
            hint = f" (is it {close[0]!r} now?)" if close else ""
            raise BenchmarkError(
                f"{place}: there is no column {column!r}{hint}, only {', '.join(dataset.column_names)}. The public data set "
                f"has changed since the adapter for {adapter.title} was written: rename the column in a copy and name "
                "the copy in `dataset_name`, or pin the revision that has it."
            )
    for column in adapter.image_columns:
        if column in dataset.column_names and not isinstance(dataset.features[column], Image):
            raise BenchmarkError(
                f"{place}: column {column!r} is of type {dataset.features[column]}, but should hold images. Cast it "
                f"(`dataset.cast_column({column!r}, datasets.Image())`) in a copy and name the copy in `dataset_name`."
            )


def convert(adapter: Adapter, dataset: "Dataset", place: str) -> "Dataset":
    """
    Turn rows of the public schema into evaluation rows.

    Args:
        adapter ([`Adapter`]):
            Benchmark.
        dataset (`Dataset`):
            Rows that passed [`check_schema`].
        place (`str`):
            How messages call them.

    Returns:
        `Dataset`: See [`load_rows`].

    Raises:
        BenchmarkError: A row is of another schema; the message names row and column.
    """
    from datasets import Image

    for column in adapter.image_columns:
        if column in dataset.column_names:
            dataset = dataset.cast_column(column, Image(decode=False))

    def read(row: dict[str, Any], index: int) -> dict[str, Any]:
        return as_row(adapter.read(row, f"{place}, row {index}"), with_images=bool(adapter.image_columns))

    return dataset.map(
        read,
        with_indices=True,
        remove_columns=dataset.column_names,
        features=features_of(adapter),
        # the cache does not see changes of the adapters
        load_from_cache_file=False,
        desc=f"reading {place}",
    )


def as_row(item: Item, with_images: bool) -> dict[str, Any]:
    """Evaluation row of an item, without `images` for a text benchmark."""
    content: str | Sequence[dict] = item.content if with_images else "".join(part["text"] for part in item.content)
    solution = " or ".join(item.accepted) if item.kind != "several" else ", ".join(item.accepted)
    return {
        "prompt": [{"role": "user", "content": content}],
        **({"images": item.images} if with_images else {}),
        "solution": f"{solution} {item.unit}".strip(),
        "task": item.task,
        "item_id": item.item_id,
        "question": item.question,
        "kind": item.kind,
        "accepted": item.accepted,
        "choices": item.choices,
        "decimals": item.decimals,
        "tolerances": item.tolerances,
        "unit": item.unit,
    }


def features_of(adapter: Adapter) -> "Features":
    """Types of the columns of [`load_rows`]."""
    from datasets import Features, Image, List, Value

    text = Value("string")
    with_images = bool(adapter.image_columns)
    content = List({"type": text, "text": text}) if with_images else text
    return Features(
        {
            "prompt": List({"role": text, "content": content}),
            **({"images": List(Image())} if with_images else {}),
            **dict.fromkeys(("solution", "task", "item_id", "question", "kind"), text),
            "accepted": List(text),
            "choices": List(text),
            "decimals": Value("int64"),
            "tolerances": List(Value("float64")),
            "unit": text,
        }
    )
