# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Which rows of a generation batch go into which micro-batch, and micro-batches without needless padding.

By length, rows move within an optimizer step only, so that what a step trains on stays as it was drawn; by group,
whole groups are dealt to the steps that one generation feeds. Works on what
`GRPOTrainer._generate_and_score_completions` returns, after `trl.trainer.utils.split_pixel_values_by_grid`: tensors of
shape `(B, ...)`, and a list with an entry a row for each field of images.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .layout import group_rows, packed_length, split_groups


SEQUENCE_FIELDS = ("token_type_ids", "mm_token_type_ids")  # (B, P + C)


def merge(batches: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Micro-batches as one batch, the opposite of [`take`]."""
    merged = {}
    for name, value in batches[0].items():
        values = [batch[name] for batch in batches]
        if isinstance(value, list):
            merged[name] = [entry for entries in values for entry in entries]
        else:
            merged[name] = value if value is None or value.ndim == 0 else torch.cat(values)
    return merged


def take(batch: dict[str, Any], rows: Sequence[int], multiple: int | None = None) -> dict[str, Any]:
    """
    Rows of a batch, padded to the longest of their prompts and completions.

    Args:
        batch (`dict[str, Any]`): All rows.
        rows (`Sequence[int]`): Which to take, in this order.
        multiple (`int`, *optional*): Multiple that the padded lengths are rounded up to.
    """
    taken = {}
    for name, value in batch.items():
        if isinstance(value, list):
            taken[name] = [value[row] for row in rows]
        else:
            taken[name] = value if value is None or value.ndim == 0 else value[list(rows)]
    widths = taken["prompt_ids"].size(1), taken["completion_ids"].size(1)
    longest = (max(1, *of_rows) for of_rows in lengths(taken))
    if multiple is not None:
        longest = (-(-length // multiple) * multiple for length in longest)
    prompt, completion = map(min, longest, widths)
    for name, value in taken.items():
        if not isinstance(value, torch.Tensor) or value.ndim < 2:
            continue
        if name in ("prompt_ids", "prompt_mask"):
            taken[name] = value[:, widths[0] - prompt :]
        elif name in SEQUENCE_FIELDS:
            taken[name] = value[:, widths[0] - prompt : widths[0] + completion]
        elif value.size(1) == widths[1]:
            taken[name] = value[:, :completion]
    return taken


def lengths(batch: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Tokens of the prompts and of the completions; one that is masked out has none."""
    return batch["prompt_mask"].sum(dim=1).tolist(), batch["completion_mask"].sum(dim=1).tolist()


def groups_of(batch: dict[str, Any]) -> list[list[int]]:
    """Rows with the same prompt and the same images."""
    ids = batch["prompt_ids"].cpu()
    groups = group_rows(ids, [(ids.size(1) - length, ids.size(1), ids.size(1)) for length in lengths(batch)[0]])
    images = [value for value in batch.values() if isinstance(value, list) and isinstance(value[0], torch.Tensor)]
    return split_groups(groups, lambda first, second: all(torch.equal(rows[first], rows[second]) for rows in images))


def by_length(row_lengths: Sequence[int], num_batches: int, window: int) -> list[list[int]]:
    """
    Micro-batches of rows of like length, the longest first, so that little is padded.

    Args:
        row_lengths (`Sequence[int]`): Tokens of each row, in the order in which they were shuffled.
        num_batches (`int`): Number of micro-batches.
        window (`int`): Micro-batches in a row among which rows may move.
    """
    size = len(row_lengths) // num_batches
    batches = []
    for start in range(0, num_batches * size, window * size):
        rows = list(range(start, start + window * size))
        if window > 1:
            rows.sort(key=lambda row: -row_lengths[row])
        batches += [rows[first : first + size] for first in range(0, len(rows), size)]
    return batches


def by_group(
    groups: Sequence[Sequence[int]], num_batches: int, window: int, prompts: Sequence[int], answers: Sequence[int]
) -> list[list[int]]:
    """
    Micro-batches that keep the rows of a group together, and whose packed sequences are of like length.

    Args:
        groups (`Sequence[Sequence[int]]`): In the order in which steps take them. One that fits nowhere is divided.
        num_batches (`int`): Number of micro-batches; all hold as many rows.
        window (`int`): Micro-batches in a row among which lengths are balanced.
        prompts (`Sequence[int]`), answers (`Sequence[int]`): Tokens of each row's.
    """

    def length(parts: Sequence[Sequence[int]]) -> int:
        return packed_length(parts, prompts, answers)

    size = sum(map(len, groups)) // num_batches
    batches = []
    for parts in _fill(groups, num_batches // window, window * size, lambda step: 0):
        pieces = [part[start : start + size] for part in parts for start in range(0, len(part), size)]
        pieces.sort(key=lambda piece: (-len(piece), -length([piece])))
        batches += [[row for piece in found for row in piece] for found in _fill(pieces, window, size, length)]
    return batches


def _fill(groups, num_places: int, size: int, load: Callable) -> list[list[list[int]]]:
    """Groups in places of `size` rows: each where there is room for it and the load is least, or divided."""
    places: list[list[list[int]]] = [[] for _ in range(num_places)]
    room = [size] * num_places
    for group in groups:
        rest = list(group)
        while rest:
            fitting = [place for place in range(num_places) if room[place] >= len(rest)]
            if fitting:
                place = min(fitting, key=lambda place: load(places[place]))
            else:
                place = max(range(num_places), key=lambda place: room[place])
            part, rest = rest[: room[place]], rest[room[place] :]
            places[place].append(part)
            room[place] -= len(part)
    return places
