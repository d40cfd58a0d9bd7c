# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Take the batch that `GRPOTrainer._generate_and_score_completions` returns apart into rows, and put rows together again.

Every visual field is a list with one tensor a row. P' and C' are the lengths of one prompt and completion.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad

from ..images.prompt_images import VISUAL_FIELDS
from .sample_buffer import BEHAVIOUR_LOGPS


# One value a completion token, padded on the right like in TRL: what stands in padding.
COMPLETION_FIELDS = {"tool_mask": 1, "importance_sampling_ratio": 1}
COMPLETION_FIELDS |= {BEHAVIOUR_LOGPS: 0, "ref_per_token_logps": 0, "sampling_per_token_logps": 0}
# One value a token of the whole sequence.
SEQUENCE_FIELDS = ("token_type_ids", "mm_token_type_ids")
# What `collate_rows` makes of other parts of a row, or leaves to the trainer.
OTHER_FIELDS = {"prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages", "num_items_in_batch"}
OTHER_FIELDS |= {"num_images", "num_tiles"}
# Fields that a row may lack though others of its batch have them.
_OPTIONAL = ("tool_mask", BEHAVIOUR_LOGPS, *SEQUENCE_FIELDS)
# What float32 makes of the advantage of a reward that is exactly its group's mean.
_ROUNDING = 1e-6


@dataclass
class Row:
    """One row of a batch without padding."""

    # `prompt_ids` of shape `(P',)`, `completion_ids` and completion fields of shape `(C',)` (an importance ratio of
    # the whole sequence: `(1,)`), sequence fields of shape `(P' + C',)`.
    tokens: dict[str, torch.Tensor]
    advantage: float
    visual: dict[str, torch.Tensor]  # visual fields; empty for text
    num_images: int = 0
    is_masked_out: bool = False  # kept out of the loss by `mask_truncated_completions`
    is_live: bool = False  # its group has spread
    source: int | None = None  # row of the training set

    @property
    def is_informative(self) -> bool:
        """In a live group and not at its mean."""
        return self.is_live and abs(self.advantage) > _ROUNDING

    @property
    def is_effective(self) -> bool:
        """
        Informative, and some token counts in the loss. None does in a row that is masked out, that came from tools as
        a whole, or whose importance ratio an inference engine's correction has set to 0.
        """
        one = torch.ones(1)
        counts = (self.tokens.get("tool_mask", one) != 0) & (self.tokens.get("importance_sampling_ratio", one) > 0)
        return self.is_informative and not self.is_masked_out and bool(counts.any())


def loss_mask(batch: dict[str, Any]) -> torch.Tensor:
    """Completion tokens that are trained on, shape `(B, C)`."""
    return batch["completion_mask"] * batch["tool_mask"] if "tool_mask" in batch else batch["completion_mask"]


def take_rows(batch: dict[str, Any], pad_token_id: int) -> list[Row]:
    """The rows of a batch. Tokens are views of copies on the CPU, visual fields stay where they are."""
    known = OTHER_FIELDS | set(COMPLETION_FIELDS) | set(SEQUENCE_FIELDS) | set(VISUAL_FIELDS)
    padded = [name for name in VISUAL_FIELDS if isinstance(batch.get(name), torch.Tensor)]
    if unknown := sorted(set(batch) - known) + padded:
        raise ValueError(
            f"The batch carries {unknown} in a form that the Selective Sample Buffer cannot replay (image processors "
            "of Idefics, SmolVLM and Mllama pad images to one block a row). Set `ssb_enabled=False` for this model."
        )
    batch = {name: value.detach().cpu() if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
    prompt_width = batch["prompt_ids"].size(1)
    # A masked-out completion still has its tokens, up to the trailing padding.
    is_used = (batch["completion_mask"] != 0) | (batch["completion_ids"] != pad_token_id)
    lengths = (is_used * torch.arange(1, is_used.size(1) + 1)).amax(dim=1).tolist()
    starts = (prompt_width - batch["prompt_mask"].sum(dim=1)).tolist()
    rows = []
    for index, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        spans = {"prompt_ids": slice(start, None), "completion_ids": slice(length)}
        spans |= dict.fromkeys(COMPLETION_FIELDS, slice(length))
        spans |= dict.fromkeys(SEQUENCE_FIELDS, slice(start, prompt_width + length))
        tokens = {name: batch[name][index, span] for name, span in spans.items() if name in batch}
        num_images = batch["num_images"][index] if "num_images" in batch else 0
        visual = {name: batch[name][index] for name in VISUAL_FIELDS if name in batch} if num_images else {}
        is_masked_out = not batch["completion_mask"][index].any()
        rows.append(Row(tokens, batch["advantages"][index].item(), visual, num_images, is_masked_out))
    return rows


def collate_rows(
    rows: list[Row], pad_token_id: int, pad_to_multiple_of: int | None = None, device: torch.device | None = None
) -> dict[str, Any]:
    """The batch of rows, padded to the longest prompt and completion, without `num_items_in_batch`."""
    multiple = pad_to_multiple_of or 1
    prompts, completions = ([row.tokens[name] for row in rows] for name in ("prompt_ids", "completion_ids"))
    prompt_lengths, completion_lengths = (torch.tensor([len(ids) for ids in part]) for part in (prompts, completions))
    left = (-(-prompt_lengths.max() // multiple) * multiple - prompt_lengths).tolist()
    right = (-(-completion_lengths.max() // multiple) * multiple - completion_lengths).tolist()

    def block(values: list[torch.Tensor], padding: float, on_left: bool, on_right: bool) -> torch.Tensor:
        sides = zip(values, left, right, strict=True)
        padded = [pad(value, (before * on_left, after * on_right), value=padding) for value, before, after in sides]
        return torch.stack(padded).to(device)

    masks = [torch.full_like(row.tokens["completion_ids"], not row.is_masked_out) for row in rows]
    batch = {
        "prompt_ids": block(prompts, pad_token_id, True, False),
        "prompt_mask": block([torch.ones_like(ids) for ids in prompts], 0, True, False),
        "completion_ids": block(completions, pad_token_id, False, True),
        "completion_mask": block(masks, 0, False, True),
        "advantages": torch.tensor([row.advantage for row in rows], device=device),
    }
    for name in (*COMPLETION_FIELDS, *SEQUENCE_FIELDS):
        example = next((row.tokens[name] for row in rows if name in row.tokens), None)
        if example is None:
            continue
        if name not in _OPTIONAL and not all(name in row.tokens for row in rows):
            raise ValueError(
                f"A replayed sample has no `{name}`, which this run's loss reads: it was stored under another one. "
                "Start with an empty buffer (`ssb_resume='empty'`)."
            )
        padding, is_sequence = COMPLETION_FIELDS.get(name, 0), name in SEQUENCE_FIELDS
        lengths = (prompt_lengths * is_sequence + completion_lengths).tolist()
        absent = [example.new_full((length,), padding) for length in lengths]
        values = [row.tokens.get(name, default) for row, default in zip(rows, absent, strict=True)]
        is_one_a_row = name == "importance_sampling_ratio" and all(len(value) == 1 for value in values)
        batch[name] = block(values, padding, is_sequence, not is_one_a_row)
    return batch | _collate_visual(rows, device)


def _collate_visual(rows: list[Row], device: torch.device | None) -> dict[str, Any]:
    names = [name for name in VISUAL_FIELDS if any(name in row.visual for row in rows)]
    if not names:
        return {}
    batch: dict[str, Any] = {"num_images": [row.num_images for row in rows]}
    for name in names:
        example = next(row.visual[name] for row in rows if name in row.visual)
        # Rows without images contribute nothing along the first dimension.
        values = [row.visual.get(name, example[:0]).to(device) for row in rows]
        if "image_sizes" in names:
            # Processors that pad images to the largest one of their batch (Pixtral, LLaVA-NeXT) do so with zeros at
            # the end, and their models tell padding by `image_sizes`: rows of other batches have to follow.
            shape = [max(sizes) for sizes in zip(*(value.shape[1:] for value in values), strict=True)]
            missing = [[n for to, now in zip(shape, v.shape[1:], strict=True) for n in (to - now, 0)] for v in values]
            values = [pad(value, sizes[::-1]) for value, sizes in zip(values, missing, strict=True)]
        batch[name] = values
    if "image_grid_thw" not in names and "image_position_ids" not in names:
        # Tile-indexed pixels (InternVL, LFM2-VL) against one entry an image (LLaVA): TRL tells them apart by
        # `num_tiles`, which a batch of single-tile images lacks and a replayed many-tile row then needs.
        num_tiles = [len(pixels) for pixels in batch["pixel_values"]]
        if "spatial_shapes" in names or num_tiles != batch["num_images"]:
            batch["num_tiles"] = num_tiles
    return batch
