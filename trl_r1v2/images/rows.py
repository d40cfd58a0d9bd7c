# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The one picture that every trainer and sampler makes of a row's image: that of [`load_image`] in `processing.py`.

Transparency lies over white, EXIF's orientation is applied and 16-bit grey is scaled, whatever the processor would do.
Grey and RGB pictures keep every pixel. Does not cover tokenization; remote addresses, arrays and tensors are left to the
processor.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from .processing import RowError, load_image


def rgb_image(image: Any, place: str) -> Any:
    """
    An image in RGB, read from its file if need be.

    Args:
        image (`Any`):
            PIL image, path, encoded bytes, or an undecoded `{"bytes", "path"}`. Anything else, and text that names no
            file, is returned as it is.
        place (`str`):
            How the message calls it.

    Raises:
        `ValueError`: If it cannot be read, with `place`.
    """
    if isinstance(image, str) and not os.path.isfile(image):
        return image
    if not isinstance(image, Image.Image | str | Path | bytes | dict):
        return image
    try:
        return load_image(image)
    except RowError as error:
        raise ValueError(f"{place} cannot be read ({error}) Repair or drop the row before training.") from error


def with_rgb_images(example: dict[str, Any]) -> dict[str, Any]:
    """
    A row whose images, in `image`, `images` or the parts of its prompt, are in RGB. The columns stay as they are.

    Raises:
        `ValueError`: If an image cannot be read, with the beginning of the row's prompt.
    """
    example = dict(example)
    prompt = example["prompt"]

    def rgb(image: Any, index: int) -> Any:
        return rgb_image(image, f"image {index} of the row with prompt {str(prompt)[:80]!r}")

    if example.get("image") is not None:
        example["image"] = rgb(example["image"], 0)
    if example.get("images") is not None:
        example["images"] = [rgb(image, index) for index, image in enumerate(example["images"])]
    if isinstance(prompt, list):
        example["prompt"] = [_with_rgb_parts(message, rgb) for message in prompt]
    return example


def _with_rgb_parts(message: dict[str, Any], rgb: Callable[[Any, int], Any]) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    parts = [
        part if part.get("image") is None else {**part, "image": rgb(part["image"], index)}
        for index, part in enumerate(content)
    ]
    return {**message, "content": parts}


def images_of(example: dict[str, Any]) -> list:
    """
    The images of a row: its `images`, or its one `image`; `None` and an empty list both mean none.

    Raises:
        `ValueError`: If it has both, with the beginning of its prompt.
    """
    images, single = list(example.get("images") or []), example.get("image")
    if images and single is not None:
        raise ValueError(
            f"the row with prompt {str(example.get('prompt'))[:80]!r} has images in both columns, 'image' and 'images'. "
            "Move them into one."
        )
    return images if single is None else [single]


def with_image_list(example: dict[str, Any]) -> dict[str, Any]:
    """
    A row with its images as a list of RGB images under `images`, and no `image`.

    Args:
        example (`dict[str, Any]`):
            Row with `prompt` and, where there are images, `image` or `images`.

    Raises:
        `ValueError`: If an image cannot be read, or the row has both columns, with the beginning of its prompt.
    """
    example = with_rgb_images(example)
    images = images_of(example)
    example.pop("image", None)
    return {**example, "images": images}


def with_image_column(example: dict[str, Any]) -> dict[str, Any]:
    """
    A row whose images are in RGB, and under `images` too if it has a column for them.

    TRL's `GRPOTrainer` reads only the column that it finds first, and takes `None` for an image. `image` stays for reward
    functions that ask for it.

    Raises:
        `ValueError`: If an image cannot be read, or the row has both columns, with the beginning of its prompt.
    """
    example = with_rgb_images(example)
    if "image" in example or "images" in example:
        example["images"] = images_of(example)
    return example


@dataclass
class RGBImageCollator:
    """
    A collator of rows with images, which are brought to RGB first.

    Args:
        collate (`Callable`): The collator that makes the batch.
    """

    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        return self.collate([with_image_list(example) for example in examples])
