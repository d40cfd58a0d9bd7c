# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The images of a row and their places in its prompt, as every trainer and sampler reads them.

Pictures are those of [`load_image`] in `processing.py`: transparency over white, EXIF's orientation applied, 16-bit
grey scaled, whatever the processor would do. Grey and RGB pictures keep every pixel. Does not cover tokenization;
remote addresses, arrays and tensors are left to the processor.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from .processing import RowError, is_remote, load_image


# What public datasets write into the text where an image belongs, and the line's end behind it.
MARKER = re.compile(r"<image>\n?")
_NUMBERED_COLUMN = re.compile(r"(?:image|img)_?\d+")


def rgb_image(image: Any, place: str) -> Any:
    """
    An image that [`load_image`] takes in RGB, read from its file if need be; anything else, and remote addresses, as
    they are. A `ValueError` with `place`, its name in messages, if it cannot be read.
    """
    if is_remote(image) or not isinstance(image, Image.Image | str | Path | bytes | dict):
        return image
    try:
        return load_image(image)
    except RowError as error:
        raise ValueError(f"{place} cannot be read ({error}) Repair or drop the row before training.") from error


def images_of(example: dict[str, Any]) -> list:
    """
    The images of a row: those of `images` or of `image`, each a list or one image; `None` and an empty list mean none.
    A `ValueError` if it has both, or only columns such as `image_1`, which no trainer reads.
    """
    images, single = _as_list(example.get("images")), _as_list(example.get("image"))
    if images and single:
        raise ValueError(f"{_name(example)} has images in both columns, 'image' and 'images'. Move them into one.")
    if not images and not single:
        unread = unread_image_columns(name for name, value in example.items() if value is not None)
        if unread:
            raise ValueError(
                f"{_name(example)} has images in {', '.join(map(repr, unread))}, which no trainer reads. Move them "
                "into a list in the column 'images'."
            )
    return images or single


def unread_image_columns(names: Iterable[str]) -> list[str]:
    """Columns among `names` that look like numbered images (`image_1`, `image_2`), which no trainer reads."""
    return [name for name in names if _NUMBERED_COLUMN.fullmatch(name)]


def place_images(prompt: Any, num_images: int) -> Any:
    """
    A prompt without `<image>` in its text: such a marker becomes an image part at its place, or goes if the parts hold
    all images already. Plain text, and text of a row without images, is left as it is. A `ValueError` if there are
    markers and no parts, and not one marker for each image.
    """
    if num_images == 0 or isinstance(prompt, str):
        return prompt
    messages = [{**message, "content": _parts(message)} for message in prompt]
    parts = [part for message in messages for part in message["content"]]
    num_markers = sum(len(MARKER.findall(_text(part))) for part in parts)
    num_parts = sum(part["type"] == "image" for part in parts)
    if num_markers == 0 or (num_parts and num_markers != num_images):
        return prompt
    if num_markers != num_images:
        raise ValueError(
            f"the prompt holds '<image>' {num_markers} times for {num_images} images. Write it once where each image "
            'belongs, or write the message as parts, with {"type": "image"} for each image.'
        )
    kept = [] if num_parts else [{"type": "image"}]
    for message in messages:
        message["content"] = [new for part in message["content"] for new in _split(part, kept)]
    return messages


def with_rgb_images(example: dict[str, Any]) -> dict[str, Any]:
    """
    A row whose images, in `image`, `images` or the parts of its prompt, are in RGB, with `<image>` in its text
    replaced ([`place_images`]). `images` holds a list, `image` one image or a list as before. A `ValueError`, with the
    beginning of its prompt, if an image cannot be read or has no place, or the row has both columns.
    """
    example = dict(example)
    place = _name(example)
    num_images = len(images_of(example))

    def rgb(image: Any, index: int) -> Any:
        return rgb_image(image, f"image {index} of {place}")

    for column in ("images", "image"):
        if example.get(column) is not None:
            found = [rgb(image, index) for index, image in enumerate(_as_list(example[column]))]
            one = column == "image" and not isinstance(example[column], list | tuple)
            example[column] = found[0] if one else found
    if isinstance(example["prompt"], list):
        try:
            prompt = place_images(example["prompt"], num_images)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
        example["prompt"] = [_with_rgb_parts(message, rgb) for message in prompt]
    return example


def with_image_list(example: dict[str, Any]) -> dict[str, Any]:
    """A row of [`with_rgb_images`] with its images as a list under `images`, and no `image`."""
    example = with_rgb_images(example)
    images = images_of(example)
    example.pop("image", None)
    return {**example, "images": images}


def with_image_column(example: dict[str, Any]) -> dict[str, Any]:
    """
    A row of [`with_rgb_images`] with its images under `images` too if it has a column for them: TRL's `GRPOTrainer`
    reads only the column that it finds first, and takes `None` for an image. `image` stays for reward functions that
    ask for it.
    """
    example = with_rgb_images(example)
    if "image" in example or "images" in example:
        example["images"] = images_of(example)
    return example


@dataclass
class RGBImageCollator:
    """The collator `collate` of rows with images, which are brought to RGB first."""

    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        return self.collate([with_image_list(example) for example in examples])


def _name(example: dict[str, Any]) -> str:
    return f"the row with prompt {str(example.get('prompt'))[:80]!r}"


def _as_list(images: Any) -> list:
    if isinstance(images, list | tuple):
        return list(images)
    return [] if images is None else [images]


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content") or []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _text(part: dict[str, Any]) -> str:
    return part["text"] if part["type"] == "text" else ""


def _split(part: dict[str, Any], image: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A part without markers: the texts around them, with `image` (a copy of it) for each."""
    first, *rest = MARKER.split(_text(part))
    if not rest:
        return [part]
    texts = [[{**part, "text": text}] if text else [] for text in (first, *rest)]
    return texts[0] + [new for text in texts[1:] for new in (*map(dict, image), *text)]


def _with_rgb_parts(message: dict[str, Any], rgb: Callable[[Any, int], Any]) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    parts = [
        part if part.get("image") is None else {**part, "image": rgb(part["image"], index)}
        for index, part in enumerate(content)
    ]
    return {**message, "content": parts}
