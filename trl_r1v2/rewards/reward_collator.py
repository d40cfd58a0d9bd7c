# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Preference pairs for a reward model that sees images: which rows can be used, and how they become a batch.

Covers rows as `trl-r1v2 pairs` writes them. Does not cover which pairs are worth training on (`sampling/pairs.py`),
nor pairs whose two responses have images of their own.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset, Image, IterableDataset, List
from transformers import ProcessorMixin
from transformers.data.data_collator import DataCollatorMixin
from trl import prepare_multimodal_messages

from ..checks.rows import DatasetError, check_columns, check_responses, check_row
from ..images.rows import with_image_list
from .answers import completion_text
from .conversations import ConversationEncoder, judged_conversation


PAIR_COLUMNS = ("prompt", "chosen", "rejected")
# Key of a batch: which chosen responses come a second time, with other images.
SWAPPED_ROWS = "swapped_rows"


@dataclass
class VisionRewardDataCollator(DataCollatorMixin):
    """
    Data collator for preference pairs with images.

    Rows have `prompt`, `chosen` and `rejected` in TRL's plain or conversational form, and optionally `images` or
    `image`, and `margin`. Rows with and without images share a batch. The batch holds the conversations `[chosen;
    rejected]` as [`ConversationEncoder`] encodes them for scoring: `input_ids` and `attention_mask` of shape `(2 * B,
    length)`, what the processor makes of the images, first those of the chosen and then the same ones for the rejected
    conversations, and `margin` of shape `(B,)` where rows have it.

    With `swap_images`, K more conversations follow: chosen responses with the images of another row of the batch, and
    `swapped_rows` of shape `(K,)` says whose. The other row is the nearest that has as many images, and other ones; of
    the same sizes if there is any. A row without such a neighbour has none.

    Args:
        processor ([`~transformers.ProcessorMixin`]): Processor of the model.
        max_length (`int`, *optional*): Longest conversation in tokens, image tokens included. A longer one is an
            error: nothing is truncated.
        pad_to_multiple_of (`int`, *optional*): Multiple that the padded length is rounded up to.
        swap_images (`bool`, *optional*, defaults to `False`): Whether to add chosen responses with other images.

    Raises:
        ValueError: If a conversation exceeds `max_length`, or an image cannot be read.
    """

    processor: ProcessorMixin
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    swap_images: bool = False
    return_tensors: str = "pt"

    def __post_init__(self):
        self.encode = ConversationEncoder(self.processor, self.pad_to_multiple_of)

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        examples = [with_image_list(example) for example in examples]
        conversations = [_conversation(example, side) for side in ("chosen", "rejected") for example in examples]
        swaps = _swapped_rows(examples) if self.swap_images else {}
        conversations += [
            _conversation({**examples[row], "images": examples[other]["images"]}, "chosen")
            for row, other in swaps.items()
        ]
        batch = dict(self.encode(conversations))
        if self.swap_images:
            batch[SWAPPED_ROWS] = torch.tensor(list(swaps), dtype=torch.long)
        if self.max_length is not None:
            lengths = batch["attention_mask"][: 2 * len(examples)].sum(dim=1).tolist()
            for index, length in enumerate(lengths):
                if length > self.max_length:
                    place = f"the row with prompt {str(examples[index % len(examples)]['prompt'])[:80]!r}"
                    raise ValueError(too_long_message(place, length, self.max_length))
        if "margin" in examples[0]:
            batch["margin"] = torch.tensor([example["margin"] for example in examples], dtype=torch.float)
        return batch


def _conversation(example: dict[str, Any], side: str) -> list[dict]:
    messages = judged_conversation(example["prompt"], completion_text(example[side]))
    return prepare_multimodal_messages(messages, example["images"])


def _swapped_rows(examples: list[dict[str, Any]]) -> dict[int, int]:
    """For each row with images the row whose images it is shown instead."""
    pixels = [[(image.size, image.tobytes()) for image in example["images"]] for example in examples]
    found = {}
    for row, own in enumerate(pixels):
        others = [(row + step) % len(pixels) for step in range(1, len(pixels))]
        others = [other for other in others if len(pixels[other]) == len(own) and pixels[other] != own]
        if own and others:
            sizes = [size for size, _ in own]
            same_size = (other for other in others if [size for size, _ in pixels[other]] == sizes)
            found[row] = next(same_size, others[0])
    return found


def too_long_message(place: str, length: int, max_length: int) -> str:
    return (
        f"{place} takes {length} tokens with its images, more than `max_length={max_length}`. A reward model reads "
        "the score off the last token, so nothing is truncated. Raise `max_length`, allow fewer tiles per image "
        "(`max_patches` of the image processor), or set `too_long='drop'`."
    )


def check_pairs(dataset: Dataset | IterableDataset, name: str, shard: tuple[int, int] = (0, 1)):
    """
    Check pairs without decoding their images: of a dataset called `name`, the rows of one process (its index and the
    number of processes in `shard`); of a streamed one only the columns. Raises `DatasetError` at the first row that
    cannot be used: responses that are missing, equal or of another form than the prompt, images that do not match the
    placeholders, a margin that is no finite number.
    """
    check_columns(dataset, name=name, columns=PAIR_COLUMNS)
    if isinstance(dataset, IterableDataset):
        return
    for column, undecoded in (("image", Image(decode=False)), ("images", List(Image(decode=False)))):
        if column in dataset.features and dataset.features[column] in (Image(), List(Image())):
            dataset = dataset.cast_column(column, undecoded)
    rank, world_size = shard
    for index in range(rank, len(dataset), world_size):
        _check_pair(dataset[index], f"{name}, row {index}")


def _check_pair(row: dict[str, Any], place: str):
    check_row(row, place=place)
    check_responses(row, place=place)
    texts = [completion_text(row[side]) for side in ("chosen", "rejected")]
    for side, text in zip(("chosen", "rejected"), texts, strict=True):
        if not text:
            raise DatasetError(f"{place}, column {side!r}: no response. Fill it in or leave the row out.")
    if texts[0] == texts[1]:
        raise DatasetError(
            f"{place}: `chosen` and `rejected` are the same text, from which nothing can be learnt. Leave the row out."
        )
    margin = row.get("margin", 0.0)
    if not isinstance(margin, int | float) or not math.isfinite(margin):
        raise DatasetError(f"{place}, column 'margin': {margin!r} is no finite number. Fill it in or drop the column.")


def conversation_lengths(dataset: Dataset, processor: ProcessorMixin, num_proc: int | None, name: str) -> list[int]:
    """
    Tokens of the longer conversation of each pair, as the model will see them: every image is processed, by `num_proc`
    processes under a progress bar that calls the dataset `name`.
    """
    encode = ConversationEncoder(processor)

    def measure(example):
        example = with_image_list(example)
        masks = [encode([_conversation(example, side)])["attention_mask"] for side in ("chosen", "rejected")]
        return {"num_tokens": max(int(mask.sum()) for mask in masks)}

    lengths = dataset.map(
        measure, remove_columns=dataset.column_names, num_proc=num_proc, desc=f"Measuring {name} dataset"
    )
    return lengths["num_tokens"][:]
