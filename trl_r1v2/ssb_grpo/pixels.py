# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Image tensors of buffered samples, once a prompt instead of once a completion, under a byte limit.

Keys are dataset row numbers (then the store is a cache: what falls out is processed again from the row) or content
hashes (then the store is the only copy, and a sample whose pixels fell out cannot be replayed).
"""

import hashlib
from collections import OrderedDict
from typing import Any

import torch
from datasets import Dataset
from trl.data_utils import apply_chat_template, prepare_multimodal_messages

from ..images.rows import with_image_column


def content_key(fields: dict[str, torch.Tensor]) -> str:
    """SHA-256 over names, shapes, dtypes and bytes of the visual fields of one prompt."""
    digest = hashlib.sha256()
    for name in sorted(fields):
        tensor = fields[name].detach().to("cpu").contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


class PixelStore:
    """
    Least-recently-used store of visual fields.

    Args:
        max_bytes (`int`): Largest number of bytes held. A single prompt larger than this is not held at all.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._entries: OrderedDict[int | str, dict[str, torch.Tensor]] = OrderedDict()

    def __contains__(self, key: int | str) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: int | str) -> dict[str, torch.Tensor] | None:
        fields = self._entries.get(key)
        if fields is not None:
            self._entries.move_to_end(key)
        return fields

    def put(self, key: int | str, fields: dict[str, torch.Tensor]) -> list[int | str]:
        """Hold `fields` (CPU tensors owned by the store) and return the keys that had to go for it."""
        size = _num_bytes(fields)
        if size > self.max_bytes:
            return [key]
        self.discard(key)
        dropped = []
        while self._entries and self.num_bytes + size > self.max_bytes:
            oldest = next(iter(self._entries))
            self.discard(oldest)
            dropped.append(oldest)
        self._entries[key] = fields
        self.num_bytes += size
        return dropped

    def discard(self, key: int | str) -> None:
        fields = self._entries.pop(key, None)
        if fields is not None:
            self.num_bytes -= _num_bytes(fields)

    def keep_only(self, keys: set[int | str]) -> None:
        """Drop everything that no sample refers to any more."""
        for key in [key for key in self._entries if key not in keys]:
            self.discard(key)

    def items(self) -> dict[int | str, dict[str, torch.Tensor]]:
        return dict(self._entries)


class PromptImages:
    """
    Where the images of buffered samples come from.

    Args:
        max_bytes (`int`): Largest number of bytes of image tensors in memory.
        dataset ([`~datasets.Dataset`], *optional*): Where rows can be looked up again. Without one the tensors in
            memory are the only copy.
        processing_class ([`~transformers.ProcessorMixin`]): The trainer's processor.
        chat_template_kwargs (`dict[str, Any]`): The trainer's.
    """

    def __init__(
        self, max_bytes: int, dataset: Dataset | None, processing_class, chat_template_kwargs: dict[str, Any]
    ):
        self.store = PixelStore(max_bytes)
        self.dataset = dataset
        self.processing_class = processing_class
        self.chat_template_kwargs = chat_template_kwargs

    def remember(self, visual: dict[str, torch.Tensor], row_number: int | None) -> int | str:
        """Hold a row's visual fields, once a prompt; returns the source by which to ask for them again."""
        source = content_key(visual) if self.dataset is None else row_number
        if source not in self.store:
            self.store.put(source, {name: tensor.to("cpu", copy=True) for name, tensor in visual.items()})
        return source

    def visual(self, source: int | str) -> dict[str, torch.Tensor]:
        """Visual fields by source, from memory or from the dataset row."""
        fields = self.store.get(source)
        if fields is None:
            fields = process_row(self.dataset[source], self.processing_class, self.chat_template_kwargs)
            self.store.put(source, fields)
        return fields

    def is_lost(self, source: int | str) -> bool:
        return self.dataset is None and source not in self.store


def process_row(example: dict[str, Any], processing_class: Any, chat_template_kwargs: dict[str, Any]):
    """
    Visual fields of one dataset row, processed as `GRPOTrainer` processes them for the forward pass.

    Args:
        example (`dict[str, Any]`): With `prompt` and `images`, `image`, or images inside the messages.
        processing_class ([`~transformers.ProcessorMixin`]): The trainer's processor.
        chat_template_kwargs (`dict[str, Any]`): The trainer's.

    Returns:
        `dict[str, torch.Tensor]`: What the processor adds to the token ids.
    """
    example = with_image_column(example)
    prompt = prepare_multimodal_messages(example["prompt"], images=example.get("images"))
    images = [part["image"] for message in prompt for part in message["content"] if part["type"] == "image"]
    text = apply_chat_template({"prompt": prompt}, processing_class, **chat_template_kwargs)["prompt"]
    fields = processing_class(images=[images], text=[text], padding=True, return_tensors="pt")
    token_fields = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
    return {name: tensor for name, tensor in fields.items() if name not in token_fields}


def _num_bytes(fields: dict[str, torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in fields.values())
