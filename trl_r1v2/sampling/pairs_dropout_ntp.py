# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
DropoutNTP (MMPR, arXiv 2411.10442): the first half of a good response, continued without the image. The half is taken
in tokens (the authors' own script halves at spaces).
"""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from .rollouts import Rollout


def first_half(rollout: Rollout, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """
    Token ids of the first half of a response, rounded down, its end-of-sequence token not counted; without
    `completion_ids` its text is tokenized. Empty for a response of one token.
    """
    if rollout.completion_ids:
        content = rollout.completion_ids[:-1] if rollout.finished else rollout.completion_ids
    else:
        content = tokenizer(rollout.text, add_special_tokens=False)["input_ids"]
    return content[: len(content) // 2]


def without_images(prompt: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages of a prompt without their image parts."""
    messages = []
    for message in prompt:
        content = message["content"]
        if not isinstance(content, str):
            content = [part for part in content if part["type"] != "image"]
        messages.append({**message, "content": content})
    return messages


def blind_prompts(dataset: Dataset, rows: Sequence[int]) -> Dataset:
    """The conversational prompts of `rows`, which may repeat, without their images: a dataset with column `prompt`."""
    prompts = dataset.select_columns("prompt").select(rows)
    return Dataset.from_list([{"prompt": without_images(example["prompt"])} for example in prompts])


def join_halves(
    sources: Sequence[Rollout],
    prefixes: Sequence[Sequence[int]],
    continuations: Sequence[Rollout],
    processing_class: PreTrainedTokenizerBase | ProcessorMixin,
) -> list[Rollout]:
    """
    Whole responses, with row and sample of their `sources`, from the first halves of these (`prefixes`) and what was
    generated after each.
    """
    joined = [[*prefix, *new.completion_ids] for prefix, new in zip(prefixes, continuations, strict=True)]
    texts = processing_class.batch_decode(joined, skip_special_tokens=True)
    return [
        Rollout(source.row, source.sample, text, ids, len(ids), new.finished)
        for source, text, ids, new in zip(sources, texts, joined, continuations, strict=True)
    ]
