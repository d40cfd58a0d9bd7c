# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Collators for preference pairs that say what truncation took away and never let it take an image token.

Covers what TRL's collators leave open; batch layout and tokenization are theirs. Does not cover which rows are worth
training on (`pairs.py`).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from trl.trainer.dpo_trainer import DataCollatorForPreference, DataCollatorForVisionPreference

from ..images.rows import with_image_list


# Key of a batch: `(2 * B,)`, whether `max_length` cut the response short; chosen rows first.
TRUNCATED = "truncated"


class _PairProcessor:
    """
    Stands in for the processor inside TRL's collator for one batch.

    TRL hands in the prompts and their images twice, once for the chosen and once for the rejected rows. This processes
    them once and repeats the result, and keeps the lengths that truncation hides later.
    """

    def __init__(self, processor):
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.prompt_lengths = torch.empty(0, dtype=torch.long)
        self.response_lengths: list[torch.Tensor] = []

    def apply_chat_template(self, *args, **kwargs):
        return self.processor.apply_chat_template(*args, **kwargs)

    def __call__(self, text: list[str], **kwargs):
        if "images" not in kwargs:
            responses = self.processor(text=text, **kwargs)
            self.response_lengths.append(responses["attention_mask"].sum(dim=1))
            return responses
        images = kwargs.pop("images")
        once = len(text) // 2
        prompts = self.processor(text=text[:once], images=None if images is None else images[:once], **kwargs)
        self.prompt_lengths = prompts["attention_mask"].sum(dim=1)
        for name, value in prompts.items():
            prompts[name] = torch.cat([value, value])
        return prompts


@dataclass
class MPODataCollator(DataCollatorForPreference):
    """
    [`~trl.trainer.dpo_trainer.DataCollatorForPreference`] that adds `"truncated"` to the batch: a boolean tensor of
    shape `(2 * B,)`, whether `max_length` cut the sequence.
    """

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        output = super().torch_call(examples)
        rows = [(example, side) for side in ("chosen", "rejected") for example in examples]
        lengths = torch.tensor([len(example["prompt_ids"]) + len(example[f"{side}_ids"]) for example, side in rows])
        output[TRUNCATED] = lengths > (math.inf if self.max_length is None else self.max_length)
        return output


@dataclass
class MPOVisionDataCollator(DataCollatorForVisionPreference):
    """
    [`~trl.trainer.dpo_trainer.DataCollatorForVisionPreference`] with the rows' odd cases settled.

    - Images are converted to RGB as [`~trl_r1v2.images.processing.load_image`] does it. A row without images has an
      empty list or `None`, and may share a batch with rows that have some.
    - The prompts and their images are processed once per pair instead of twice.
    - Truncation shortens responses only. Which it shortened is in the batch under `"truncated"`, a boolean tensor of
      shape `(2 * B,)`. A prompt that leaves no room for a response is refused.
    - Columns `ref_chosen_logps` and `ref_rejected_logps` go into the batch.

    Takes the arguments of TRL's collator.

    Raises:
        ValueError: If a prompt with its image tokens fills `max_length`, or an image cannot be read.
    """

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        reference = {
            name: torch.tensor([example[name] for example in examples])
            for name in ("ref_chosen_logps", "ref_rejected_logps")
            if name in examples[0]
        }
        processor = _PairProcessor(self.processor)
        collate = DataCollatorForVisionPreference(
            processor,
            max_length=self.max_length,
            pad_to_multiple_of=self.pad_to_multiple_of,
            return_tensors=self.return_tensors,
        )
        output = collate([with_image_list(example) for example in examples])
        output[TRUNCATED] = self._truncated(processor, examples)
        for name, values in reference.items():
            output[name] = values
        return output

    def _truncated(self, processor: _PairProcessor, examples: list[dict[str, Any]]) -> torch.Tensor:
        lengths = torch.cat([processor.prompt_lengths + responses for responses in processor.response_lengths])
        if self.max_length is None:
            return torch.zeros_like(lengths, dtype=torch.bool)
        for example, length in zip(examples, processor.prompt_lengths.tolist(), strict=True):
            if length >= self.max_length:
                raise ValueError(
                    f"the prompt {str(example['prompt'])[:80]!r} takes {length} tokens with its images and leaves no "
                    f"room for a response within `max_length={self.max_length}`. Raise `max_length`, allow fewer "
                    "tiles per image (`max_patches` of the image processor), or drop such rows before training."
                )
        return lengths > self.max_length
