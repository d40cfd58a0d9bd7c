# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What collators of vision-language data share: a row's images as one list of RGB images.

For preference pairs (`mpo`) and pairs to score (`rewards`). Does not cover tokenization, nor images given as paths or
bytes: those are left to the processor.
"""

from typing import Any

from PIL import Image


def rgb_image(image: Any, place: str) -> Any:
    """
    An image in RGB, read from its file if need be; what is no PIL image is left as it is.

    Raises:
        `ValueError`: If it cannot be read, with `place`.
    """
    if not isinstance(image, Image.Image):
        return image
    try:
        return image.convert("RGB")
    except OSError as error:
        raise ValueError(f"{place} cannot be read ({error}). Repair or drop the row before training.") from error


def with_image_list(example: dict[str, Any]) -> dict[str, Any]:
    """
    A row with its images as a list of RGB images under `images`; `None` counts as no image.

    Args:
        example (`dict[str, Any]`):
            Row with `prompt` and, where there are images, `image` or `images`.

    Raises:
        `ValueError`: If an image cannot be read, with the beginning of the row's prompt.
    """
    example = dict(example)
    single = example.pop("image", None)
    images = example.pop("images", None)
    if images is None:
        images = [] if single is None else [single]
    start = str(example["prompt"])[:80]
    example["images"] = [
        rgb_image(image, f"image {i} of the row with prompt {start!r}") for i, image in enumerate(images)
    ]
    return example
