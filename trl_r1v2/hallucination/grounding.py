# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Forward passes over given responses: log-probabilities and entropies, with the images or with others in their place.
One process, a model that holds all of its weights; its mode and the random state are the caller's business.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import is_peft_model
from datasets import Dataset
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from ..images.processing import load_image
from ..sampling.prompts import count_images, encode_prompts, fill_images, images_of, read_example


@torch.no_grad()
def response_statistics(
    model: torch.nn.Module,
    processing_class: PreTrainedTokenizerBase | ProcessorMixin,
    prompts: Sequence[str | list[dict[str, Any]]],
    completion_ids: Sequence[Sequence[int]],
    chat_template_kwargs: dict[str, Any] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Log-probability of every response token, and entropy of the distribution it was drawn from, at temperature 1.

    Args:
        model, processing_class: The model, on its device, and its tokenizer or processor.
        prompts (`Sequence` of length `B`): Prompts of [`~trl_r1v2.sampling.prompts.read_prompt`].
        completion_ids (`Sequence[Sequence[int]]` of length `B`): Token ids of the responses, at least one each.
        chat_template_kwargs (`dict[str, Any]`, *optional*): Passed to the chat template.

    Returns:
        `tuple[torch.Tensor, torch.Tensor, torch.Tensor]`: log-probabilities and entropies in nats, and mask, each of
            shape `(B, C)`, left-padded with zeros, in float32 on the CPU.
    """
    inputs = BatchFeature(encode_prompts(processing_class, prompts, completion_ids, chat_template_kwargs))
    lengths = torch.tensor([len(ids) for ids in completion_ids])
    longest = int(lengths.max())
    inputs = inputs.to(model.device)
    options = {"logits_to_keep": longest + 1} if _keeps_logits(model) else {}
    logits = model(**inputs, use_cache=False, **options).logits[:, -longest - 1 : -1]  # (B, C, vocabulary)
    targets = inputs["input_ids"][:, -longest:]
    logps, entropies = [], []
    for row_logits, row_targets in zip(logits, targets, strict=True):  # row by row: the vocabulary is large
        distribution = row_logits.float().log_softmax(dim=-1)
        logps.append(distribution.gather(1, row_targets[:, None])[:, 0])
        entropies.append(-(distribution.exp() * distribution).sum(dim=-1))
    mask = torch.arange(longest)[None] >= longest - lengths[:, None]
    return *(torch.stack(rows).cpu().where(mask, 0.0) for rows in (logps, entropies)), mask


def _keeps_logits(model: torch.nn.Module) -> bool:
    """Whether the model can compute the last logits only, which saves the memory of the prompt's."""
    base = model.get_base_model() if is_peft_model(model) else model
    return "logits_to_keep" in inspect.signature(base.forward).parameters


def image_partners(dataset: Dataset) -> dict[int, int]:
    """
    For each row with images, the next row (after the last the first) that has as many; rows without such a partner are
    absent. Images are not decoded.
    """
    if not {"images", "image"} & set(dataset.column_names):
        return {}
    rows_of: dict[int, list[int]] = {}
    for row in range(len(dataset)):
        rows_of.setdefault(count_images(dataset, row), []).append(row)
    rows_of.pop(0, None)
    shared = [rows for rows in rows_of.values() if len(rows) > 1]
    return {row: rows[(place + 1) % len(rows)] for rows in shared for place, row in enumerate(rows)}


def prompt_with_other_images(dataset: Dataset, row: int, partner: int) -> list[dict[str, Any]]:
    """
    A row's messages with images in the place of its own: those of the row `partner`, which has as many, stretched to
    the sizes of the row's own.
    """
    example = read_example(dataset, row)
    own = [load_image(image) for image in images_of(example)]
    others = [load_image(image) for image in images_of(read_example(dataset, partner))]
    # Of another size they would take another number of tokens, and even a blind model would see the difference.
    others = [
        other if other.size == image.size else other.resize(image.size)
        for other, image in zip(others, own, strict=True)
    ]
    return fill_images({**example, "image": None, "images": others}, row)
