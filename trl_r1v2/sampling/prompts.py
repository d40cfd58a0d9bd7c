# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Prompts as `GRPOTrainer` hands them to a model: messages with their images, chat template, left padding.

Does not cover tools or environments, and generates nothing (`generation` does).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from PIL import Image
from transformers import PreTrainedTokenizerBase, ProcessorMixin
from trl.data_utils import is_conversational, prepare_multimodal_messages
from trl.trainer.utils import pad

from ..images.rows import images_of, with_rgb_images


def tokenizer_of(processing_class: PreTrainedTokenizerBase | ProcessorMixin) -> PreTrainedTokenizerBase:
    """The tokenizer itself, or that of a processor."""
    return processing_class.tokenizer if isinstance(processing_class, ProcessorMixin) else processing_class


def count_images(dataset: Dataset, row: int) -> int:
    """Number of images of a row's prompt, those of its `images` or `image` column without decoding them."""
    prompt = dataset.select_columns("prompt")[row]["prompt"]
    if not isinstance(prompt, str):
        contents = [message.get("content") for message in prompt]
        structured = [part for content in contents if isinstance(content, list) for part in content]
        num_parts = sum(part["type"] == "image" for part in structured)
        if num_parts:
            return num_parts
    for column in ("images", "image"):
        if column in dataset.column_names:
            value = dataset.with_format("arrow")[row][column][0]
            is_list = isinstance(value, pa.ListScalar | pa.LargeListScalar | pa.FixedSizeListScalar)
            num_images = (len(value) if is_list else 1) if value.is_valid else 0
            if num_images:
                return num_images
    return 0


def read_example(dataset: Dataset, row: int) -> dict[str, Any]:
    """A row of a dataset, its images decoded; a `ValueError` that names the row if one cannot be read."""
    try:
        return dataset[row]
    except (OSError, SyntaxError) as error:  # what PIL raises for files it cannot open or parse
        raise ValueError(f"row {row}: the image cannot be read ({error}). Repair or remove the row") from error


def fill_images(example: dict[str, Any], row: int) -> list[dict[str, Any]]:
    """
    The messages of a conversational row, their contents lists of typed parts, with its images inside, as `GRPOTrainer`
    hands them on; a `ValueError` if images and placeholders do not match, or an image is `None`.
    """
    try:
        example = with_rgb_images(example)
        messages = prepare_multimodal_messages(example["prompt"], images=images_of(example))
    except ValueError as error:
        raise ValueError(f"row {row}: {error}") from error
    for message in messages:
        for part in message.get("content") or []:
            if part["type"] == "image" and part["image"] is None:
                raise ValueError(f"row {row}: an image of the prompt is missing (None). Repair or remove the row")
    return messages


def read_prompt(
    dataset: Dataset, row: int, processing_class: PreTrainedTokenizerBase | ProcessorMixin
) -> str | list[dict[str, Any]]:
    """
    The prompt of a row as `GRPOTrainer` hands it to the chat template: plain text, or messages; for a processor with
    the images of column `images` or `image` inside. A `ValueError` that names the row if it cannot be read or does not
    fit.
    """
    example = read_example(dataset, row)
    if not isinstance(processing_class, ProcessorMixin):
        if images_of(example):
            raise ValueError(
                f"row {row} has images, but the processing class is a tokenizer: pass the model's processor"
            )
        return example["prompt"]
    if not is_conversational(example):
        kind = type(example["prompt"]).__name__
        raise ValueError(f"row {row}: a processor needs a conversational prompt (a list of messages), not {kind}")
    return fill_images(example, row)


def encode_prompts(
    processing_class: PreTrainedTokenizerBase | ProcessorMixin,
    prompts: Sequence[str | list[dict[str, Any]]],
    prefix_ids: Sequence[Sequence[int]] | None = None,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> dict[str, torch.Tensor]:
    """
    Left-padded model inputs for a batch of prompts of [`read_prompt`], with and without images.

    Args:
        processing_class ([`~transformers.PreTrainedTokenizerBase`] or [`~transformers.ProcessorMixin`]): Tokenizer or
            processor, with a pad token.
        prompts (`Sequence[str | list[dict[str, Any]]]` of length `B`): Prompts.
        prefix_ids (`Sequence[Sequence[int]]` of length `B`, *optional*): Token ids to append to each prompt, the
            beginning of its response.
        chat_template_kwargs (`dict[str, Any]`, *optional*): Passed to the chat template.

    Returns:
        `dict[str, torch.Tensor]`: `input_ids` and `attention_mask` of shape `(B, P)`, and the processor's image
            fields; `pixel_values` of tiling models has one row a tile.
    """
    tokenizer = tokenizer_of(processing_class)
    if is_conversational({"prompt": prompts[0]}):
        encoded = processing_class.apply_chat_template(
            conversation=list(prompts),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            **(chat_template_kwargs or {}),
        )
    else:
        encoded = {"input_ids": processing_class(text=list(prompts))["input_ids"]}
    prefixes = prefix_ids or [[]] * len(prompts)
    lengths = [len(ids) for ids in encoded["input_ids"]]
    ids = [torch.tensor([*ids, *prefix]) for ids, prefix in zip(encoded["input_ids"], prefixes, strict=True)]
    inputs = {
        "input_ids": pad(ids, padding_value=tokenizer.pad_token_id, padding_side="left"),
        "attention_mask": pad([torch.ones_like(row) for row in ids], padding_value=0, padding_side="left"),
    }
    for name, value in encoded.items():
        if name in inputs:
            continue
        if isinstance(value, torch.Tensor):
            inputs[name] = value
        elif isinstance(value[0], list) and [len(row) for row in value] == lengths:  # a field a token
            tokens = [torch.tensor([*row, *[0] * len(prefix)]) for row, prefix in zip(value, prefixes, strict=True)]
            inputs[name] = pad(tokens, padding_value=0, padding_side="left")
        else:
            inputs[name] = torch.from_numpy(np.array(value))
    return inputs


def placeholder_prompt(
    processing_class: PreTrainedTokenizerBase | ProcessorMixin, prompt: str | list[dict[str, Any]]
) -> tuple[list[int], list[Image.Image]]:
    """
    A prompt of [`read_prompt`] as inference engines take it, which expand images themselves: token ids with the chat
    template's one placeholder for each image, and the images.
    """
    tokenizer = tokenizer_of(processing_class)
    if isinstance(prompt, str):
        return tokenizer(prompt)["input_ids"], []
    text = processing_class.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    begins = tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
    parts = [part for message in prompt if isinstance(message["content"], list) for part in message["content"]]
    images = [part["image"] for part in parts if part["type"] == "image"]
    return tokenizer(text, add_special_tokens=not begins)["input_ids"], images
