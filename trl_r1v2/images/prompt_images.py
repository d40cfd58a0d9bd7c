# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Image tensors of prompts that are trained on again: once a prompt instead of once a completion, in few bytes."""

import hashlib
from collections.abc import Callable
from typing import Any

import torch


# What a processor makes of images, under the names that models and TRL's batches give it.
VISUAL_FIELDS = (
    "pixel_values",
    "image_grid_thw",
    "image_position_ids",
    "pixel_attention_mask",
    "spatial_shapes",
    "image_sizes",
)
# Column that carries a row's number through the data loader.
ROW_NUMBER = "_row_number"


class RowNumberedDataset(torch.utils.data.Dataset):
    """A map-style dataset whose rows also say which row they are."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        rows = self.dataset.__getitems__(indices)
        return [{**row, ROW_NUMBER: index} for row, index in zip(rows, indices, strict=True)]


class PromptImages:
    """
    Least-recently-used store of the visual fields of prompts, by source. That is a row number where `read_row` makes
    what fell out again, otherwise a hash of the content, and what fell out is lost.
    """

    def __init__(self, max_bytes: int, read_row: Callable[[int], dict[str, torch.Tensor]] | None = None):
        self.max_bytes, self.read_row, self.num_bytes = max_bytes, read_row, 0
        self.entries: dict[int | str, dict[str, torch.Tensor]] = {}

    def remember(self, visual: dict[str, torch.Tensor], row_number: int | None) -> int | str:
        """Hold a row's visual fields; returns the source by which to ask for them again."""
        source = content_key(visual) if self.read_row is None else row_number
        if source not in self.entries:
            self.put(source, {name: tensor.to("cpu", copy=True) for name, tensor in visual.items()})
        return source

    def visual(self, source: int | str) -> dict[str, torch.Tensor]:
        """Visual fields by source, from memory or from their row."""
        visual = self.entries[source] if source in self.entries else self.read_row(source)
        self.put(source, visual)
        return visual

    def put(self, source: int | str, visual: dict[str, torch.Tensor]) -> None:
        """Hold `visual` (CPU tensors that are nobody else's) and drop what was used longest ago beyond the limit."""
        size = _num_bytes(visual)
        if size > self.max_bytes:
            return
        self._discard(source)
        while self.num_bytes + size > self.max_bytes:
            self._discard(next(iter(self.entries)))
        self.entries[source] = visual
        self.num_bytes += size

    def keep_only(self, sources: set[int | str | None]) -> None:
        """Drop everything else."""
        for source in set(self.entries) - sources:
            self._discard(source)

    def _discard(self, source: int | str) -> None:
        self.num_bytes -= _num_bytes(self.entries.pop(source, {}))


def content_key(visual: dict[str, torch.Tensor]) -> str:
    """SHA-256 over names, shapes, dtypes and bytes of the visual fields of one prompt."""
    digest = hashlib.sha256()
    for name in sorted(visual):
        tensor = visual[name].detach().to("cpu").contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def process_row(example: dict[str, Any], processing_class: Any, chat_template_kwargs: dict[str, Any]):
    """
    Visual fields of one dataset row, with `images`, `image`, or images inside the messages of its `prompt`, as a
    trainer with this processor and these arguments of the chat template makes them for its forward pass.
    """
    from trl.data_utils import apply_chat_template, prepare_multimodal_messages  # what is pure here goes without TRL

    images = example.get("images") or ([] if example.get("image") is None else [example["image"]])
    prompt = prepare_multimodal_messages(example["prompt"], images=images)
    images = [part["image"] for message in prompt for part in message["content"] if part["type"] == "image"]
    text = apply_chat_template({"prompt": prompt}, processing_class, **chat_template_kwargs)["prompt"]
    fields = processing_class(images=[images], text=[text], padding=True, return_tensors="pt")
    return {name: tensor for name, tensor in fields.items() if name in VISUAL_FIELDS}


def _num_bytes(visual: dict[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in visual.values())
