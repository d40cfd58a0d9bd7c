# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Take rows out of the batch that `GRPOTrainer._generate_and_score_completions` returns, and put rows into it.

Pure tensor surgery on the batch after `trl.trainer.utils.split_pixel_values_by_grid`, where every visual field is a
list with one tensor a row. It does not decide which rows, and it does not recompute what depends on all ranks
(`num_items_in_batch`).

Shapes: B rows, P padded prompt length, C padded completion length.
"""

from dataclasses import dataclass
from typing import Any

import torch

from .sample_buffer import BEHAVIOUR_LOGPS


# Padding value of every per-token field. Completion fields are padded on the right, like in TRL.
COMPLETION_FIELDS = {
    "completion_mask": 0,
    "tool_mask": 1,
    BEHAVIOUR_LOGPS: 0,
    "ref_per_token_logps": 0,
    "sampling_per_token_logps": 0,
    "importance_sampling_ratio": 1,
}
# (B, P + C): the prompt part padded on the left, the completion part on the right.
SEQUENCE_FIELDS = ("token_type_ids", "mm_token_type_ids")
# Lists with one tensor a row.
VISUAL_FIELDS = (
    "pixel_values",
    "image_grid_thw",
    "image_position_ids",
    "pixel_attention_mask",
    "spatial_shapes",
    "image_sizes",
)
# Bookkeeping that keeps its shape whatever rows come and go.
OTHER_FIELDS = {"prompt_ids", "prompt_mask", "completion_ids", "advantages", "num_items_in_batch"}
OTHER_FIELDS |= {"num_images", "num_tiles"}


@dataclass
class Row:
    """
    One row of a batch without padding.

    Args:
        tokens (`dict[str, torch.Tensor]`):
            Per-token tensors: `prompt_ids` of shape `(P',)`, `completion_ids` and completion fields of shape `(C',)`,
            sequence fields of shape `(P' + C',)`. No `completion_mask`: every token of a row counts.
        advantage (`float`): Dimensionless.
        visual (`dict[str, torch.Tensor]`): Visual fields of this row; empty for text.
        num_images (`int`): Number of images of the prompt.
    """

    tokens: dict[str, torch.Tensor]
    advantage: float
    visual: dict[str, torch.Tensor]
    num_images: int = 0


def check_fields(batch: dict[str, Any]) -> None:
    """
    Refuse a batch with a field this module does not know how to carry from one batch into another.

    Raises:
        ValueError: Naming the fields.
    """
    known = OTHER_FIELDS | set(COMPLETION_FIELDS) | set(SEQUENCE_FIELDS) | set(VISUAL_FIELDS)
    unknown = sorted(set(batch) - known)
    if unknown:
        raise ValueError(
            f"The batch carries {unknown}, which the Selective Sample Buffer does not know how to replay. "
            "Set `ssb_enabled=False` for this trainer or model."
        )
    padded = [name for name in VISUAL_FIELDS if isinstance(batch.get(name), torch.Tensor)]
    if padded:
        raise ValueError(
            f"{padded} come padded to one block a row (as Idefics and SmolVLM processors do), a layout the Selective "
            "Sample Buffer does not support. Set `ssb_enabled=False` for this model."
        )


def row_lengths(batch: dict[str, Any], pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Unpadded lengths of prompts and completions, each of shape `(B,)`.

    A completion that `mask_truncated_completions` masked out counts its tokens up to the trailing padding.
    """
    ids, mask = batch["completion_ids"], batch["completion_mask"]
    used = (mask != 0) | (ids != pad_token_id)
    positions = torch.arange(1, ids.size(1) + 1, device=ids.device)
    masked_out = (used * positions).amax(dim=1)
    lengths = torch.where(mask.any(dim=1), mask.long().sum(dim=1), masked_out)
    return batch["prompt_mask"].sum(dim=1), lengths


def tokens_on_cpu(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with its token fields on the CPU (one transfer a field, not one a row); visual fields stay put."""
    return {
        name: value.detach().cpu() if isinstance(value, torch.Tensor) and name not in VISUAL_FIELDS else value
        for name, value in batch.items()
    }


def take_row(batch: dict[str, Any], index: int, prompt_length: int, completion_length: int) -> Row:
    """
    Copy row `index` without its padding.

    Args:
        batch (`dict[str, Any]`): From [`tokens_on_cpu`].
        index (`int`): Row to copy.
        prompt_length (`int`), completion_length (`int`): From [`row_lengths`].

    Returns:
        [`Row`]: Its tokens are copies, its visual fields still those of the batch.
    """
    prompt_width = batch["prompt_ids"].size(1)
    start = prompt_width - prompt_length
    tokens = {
        "prompt_ids": batch["prompt_ids"][index, start:].clone(),
        "completion_ids": batch["completion_ids"][index, :completion_length].clone(),
    }
    for name in COMPLETION_FIELDS:
        if name in batch and name != "completion_mask":
            tokens[name] = batch[name][index, :completion_length].clone()
    for name in SEQUENCE_FIELDS:
        if name in batch:
            tokens[name] = batch[name][index, start : prompt_width + completion_length].clone()
    num_images = batch["num_images"][index] if "num_images" in batch else 0
    visual = {name: batch[name][index] for name in VISUAL_FIELDS if name in batch} if num_images else {}
    return Row(tokens, float(batch["advantages"][index]), visual, num_images)


def select_rows(batch: dict[str, Any], indices: list[int]) -> dict[str, Any]:
    """The batch made of rows `indices` of `batch`; an index may be given more than once."""
    selected = {}
    for name, value in batch.items():
        if isinstance(value, list):
            selected[name] = [value[i] for i in indices]
        elif value.ndim == 0:
            selected[name] = value
        else:
            selected[name] = value[torch.tensor(indices, dtype=torch.long, device=value.device)]
    return selected


def put_rows(
    batch: dict[str, Any], rows: dict[int, Row], pad_token_id: int, pad_to_multiple_of: int | None = None
) -> dict[str, Any]:
    """
    Replace rows of a batch and pad everything to the new longest prompt and completion.

    Rows that stay keep every value, in padding positions too where these remain.

    Args:
        batch (`dict[str, Any]`): As described in the module's header; not modified.
        rows (`dict[int, Row]`): New content by row number.
        pad_token_id (`int`): Padding token.
        pad_to_multiple_of (`int`, *optional*): As `GRPOConfig.pad_to_multiple_of`.

    Returns:
        `dict[str, Any]`: A new batch with the keys of `batch`, and those the new rows bring along.

    Raises:
        ValueError: If a new row lacks a per-token field that the loss will read.
    """
    if not rows:
        return batch
    prompt_lengths, completion_lengths = (lengths.tolist() for lengths in row_lengths(batch, pad_token_id))
    for index, row in rows.items():
        prompt_lengths[index] = len(row.tokens["prompt_ids"])
        completion_lengths[index] = len(row.tokens["completion_ids"])
    prompt_width = _round_up(max(prompt_lengths), pad_to_multiple_of)
    completion_width = _round_up(max(completion_lengths), pad_to_multiple_of)
    old_prompt_width, old_completion_width = batch["prompt_ids"].size(1), batch["completion_ids"].size(1)

    def left(block: torch.Tensor, padding: float) -> torch.Tensor:
        return torch.nn.functional.pad(block, (prompt_width - old_prompt_width, 0), value=padding)

    def right(block: torch.Tensor, padding: float) -> torch.Tensor:
        return torch.nn.functional.pad(block, (0, completion_width - old_completion_width), value=padding)

    new = dict(batch)
    for name, padding in (("prompt_ids", pad_token_id), ("prompt_mask", 0)):
        new[name] = left(batch[name], padding)
    new["completion_ids"] = right(batch["completion_ids"], pad_token_id)
    for name, padding in COMPLETION_FIELDS.items():
        if name not in batch:
            continue
        new[name] = batch[name].clone() if _is_per_sequence(batch, name, rows) else right(batch[name], padding)
    for name in SEQUENCE_FIELDS:
        if name in batch:
            prompt_part, completion_part = batch[name].split([old_prompt_width, old_completion_width], dim=1)
            new[name] = torch.cat([left(prompt_part, 0), right(completion_part, 0)], dim=1)
        elif any(name in row.tokens for row in rows.values()):
            new[name] = new["prompt_ids"].new_zeros(len(prompt_lengths), prompt_width + completion_width)
    if "tool_mask" not in batch and any("tool_mask" in row.tokens for row in rows.values()):
        new["tool_mask"] = torch.ones_like(new["completion_mask"])
    new["advantages"] = batch["advantages"].clone()

    for index, row in rows.items():
        _write_tokens(new, index, row, prompt_width, pad_token_id)
        new["advantages"][index] = row.advantage
    _write_visual(new, rows)
    return new


def _is_per_sequence(batch: dict[str, Any], name: str, rows: dict[int, Row]) -> bool:
    """One ratio a sequence (the sequence-level modes of the vLLM correction) has no token dimension to pad."""
    if batch[name].size(1) != 1 or name != "importance_sampling_ratio":
        return False
    # Completions of one token look alike in both layouts; a longer new row then tells.
    return batch["completion_ids"].size(1) != 1 or all(len(row.tokens[name]) == 1 for row in rows.values())


def _round_up(length: int, multiple: int | None) -> int:
    return length if multiple is None else -(-length // multiple) * multiple


def _write_tokens(batch: dict[str, Any], index: int, row: Row, prompt_width: int, pad_token_id: int) -> None:
    prompt, completion = row.tokens["prompt_ids"], row.tokens["completion_ids"]
    batch["prompt_ids"][index] = pad_token_id
    batch["prompt_ids"][index, prompt_width - len(prompt) :] = prompt.to(batch["prompt_ids"])
    batch["prompt_mask"][index] = 0
    batch["prompt_mask"][index, prompt_width - len(prompt) :] = 1
    batch["completion_ids"][index] = pad_token_id
    batch["completion_ids"][index, : len(completion)] = completion.to(batch["completion_ids"])
    for name, padding in COMPLETION_FIELDS.items():
        if name not in batch:
            continue
        if name in row.tokens:
            values = row.tokens[name]
        elif name in ("completion_mask", "tool_mask"):
            values = torch.ones_like(completion)
        else:
            raise ValueError(
                f"A replayed sample has no `{name}`, which this run's loss reads: it was stored under another "
                "configuration. Start with an empty buffer (`ssb_resume='empty'`)."
            )
        batch[name][index] = padding
        batch[name][index, : len(values)] = values.to(batch[name])
    for name in SEQUENCE_FIELDS:
        if name in batch:
            batch[name][index] = 0
            if name in row.tokens:
                start = prompt_width - len(prompt)
                batch[name][index, start : start + len(row.tokens[name])] = row.tokens[name].to(batch[name])


def _write_visual(batch: dict[str, Any], rows: dict[int, Row]) -> None:
    names = [name for name in VISUAL_FIELDS if name in batch or any(name in row.visual for row in rows.values())]
    if not names:
        return
    num_rows = batch["advantages"].size(0)
    num_images = list(batch["num_images"]) if "num_images" in batch else [0] * num_rows
    for index, row in rows.items():
        num_images[index] = row.num_images
    device = batch["prompt_ids"].device
    for name in names:
        values = list(batch[name]) if name in batch else [None] * num_rows
        for index, row in rows.items():
            values[index] = row.visual[name].to(device) if name in row.visual else None
        example = next((value for value in values if value is not None), None)
        if example is not None:  # rows without images contribute nothing along the first dimension
            values = [example[:0] if value is None else value for value in values]
            batch[name] = _pad_to_common_shape(values) if "image_sizes" in names else values
        else:
            batch.pop(name, None)
    batch["num_images"] = num_images
    if "pixel_values" not in batch:
        for name in ("num_images", "num_tiles", *names):
            batch.pop(name, None)
    elif "image_grid_thw" not in batch and "image_position_ids" not in batch:
        # Tile-indexed pixels (InternVL, LFM2-VL) against one entry an image (LLaVA): TRL tells them apart by
        # `num_tiles`, which a batch of single-tile images lacks and a replayed many-tile row then needs.
        num_tiles = [len(pixels) for pixels in batch["pixel_values"]]
        if "num_tiles" in batch or "spatial_shapes" in batch or num_tiles != num_images:
            batch["num_tiles"] = num_tiles


def _pad_to_common_shape(values: list[torch.Tensor]) -> list[torch.Tensor]:
    """
    Processors that pad images to the largest one of their batch (Pixtral, LLaVA-NeXT) do so with zeros at the end, and
    their models tell padding by `image_sizes`; rows of other batches have to follow.
    """
    target = [max(sizes) for sizes in zip(*(value.shape[1:] for value in values), strict=True)]
    padded = []
    for value in values:
        missing = [size for now, then in zip(value.shape[1:], target, strict=True) for size in (then - now, 0)]
        padded.append(torch.nn.functional.pad(value, missing[::-1]) if any(missing) else value)
    return padded
