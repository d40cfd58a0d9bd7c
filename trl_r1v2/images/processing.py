# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Images and rows before training: images of any kind become RGB, and a row whose images, placeholders or length would
stop a run is refused with its remedy.

The processor's own work (tiling, normalising, expanding placeholders) is not repeated here; its public counts are
used. Building a processor is `processor_setup.py`.
"""

import contextlib
import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import TemplateError
from PIL import Image, ImageOps
from transformers import InternVLProcessor


# Pillow's own limit, above which it warns; twice that much it refuses.
MAX_PIXELS = 89_478_485

ImageSource = Image.Image | str | Path | bytes | dict


class RowError(ValueError):
    """A row that cannot be used: says what is wrong and what to do."""


def load_image(source: ImageSource, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """
    Decode an image to RGB, the right way up.

    The orientation in EXIF is applied; transparency is laid over white; 16-bit grey is scaled to 8 bits; of an
    animation the first frame is taken. The size is checked before any pixel is decoded.

    Args:
        source (`PIL.Image.Image`, `str`, `Path`, `bytes` or `dict`): An image, its file, its encoded bytes, or the
            `{"bytes": …, "path": …}` of an undecoded `datasets` image.
        max_pixels (`int`, *optional*, defaults to Pillow's limit): Most pixels of an image.

    Returns:
        `PIL.Image.Image` in mode RGB.

    Raises:
        [`RowError`]: when the image is missing, of another type, broken, empty, too large, or in a mode without a
            colour meaning.
    """
    where, image = _open(source)
    try:
        return _decode(image, where, max_pixels)
    finally:
        if image is not source:
            image.close()


@contextlib.contextmanager
def _decoding(where: str, message: str) -> Iterator[None]:
    """
    Turn an error over an image's bytes into a `RowError`: `where` and `message`, with the error in place of `{}`.

    This is the one place where untrusted bytes are decoded, by dozens of decoders whose errors are of any type: all are
    caught. Too little memory is no fault of the bytes, whose size was checked.
    """
    try:
        yield
    except (RowError, MemoryError):
        raise
    except Exception as error:
        raise RowError(f"{where} {message.format(error)}") from error


def _decode(image: Image.Image, where: str, max_pixels: int) -> Image.Image:
    width, height = image.size
    if width == 0 or height == 0:
        raise RowError(f"{where} is empty ({width}x{height}). Remove it or the row.")
    if width * height > max_pixels:
        raise RowError(
            f"{where} has {width}x{height} = {width * height:,} pixels; at most {max_pixels:,} are decoded. Scale it "
            "down, or raise max_pixels if the file can be trusted."
        )
    with _decoding(where, "cannot be decoded ({}). Fetch it again or remove the row."):
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image), where)


def _open(source: ImageSource) -> tuple[str, Image.Image]:
    """What to call the image in errors, and the image with its header read."""
    if isinstance(source, Image.Image):
        return "the image", source
    if isinstance(source, dict):
        source = source.get("path") if source.get("bytes") is None else source["bytes"]
        if source is None:
            raise RowError("the image is a dict with neither `bytes` nor `path`. Fetch it or remove the row.")
    if not isinstance(source, (str, Path, bytes)):
        raise RowError(
            f"the image is {'None' if source is None else f'of type {type(source).__name__!r}'}. Give a PIL image, a "
            "file's path, encoded bytes, or a dict of `bytes` and `path`."
        )
    where = f"the image of {len(source):,} bytes" if isinstance(source, bytes) else f"image {str(source)!r}"
    with _decoding(where, "is no image that Pillow reads, or too large ({})."), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is max_pixels
        try:
            return where, Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        except FileNotFoundError as error:
            raise RowError(f"{where} does not exist. Fetch it or remove the row.") from error


def _to_rgb(image: Image.Image, where: str) -> Image.Image:
    if image.mode in ("I", "F"):
        raise RowError(
            f"{where} has mode {image.mode!r}, whose range is unknown. Save it with 8 or 16 bits a channel."
        )
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layers = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layers).convert("RGB")
    return image.convert("RGB")


def count_tiles(size: tuple[int, int], processor: InternVLProcessor) -> int:
    """
    Tiles an image is cut into, the thumbnail included.

    Args:
        size (`tuple[int, int]`): Width and height in pixels, as `PIL.Image.Image.size` gives them.
        processor ([`~transformers.InternVLProcessor`]): The processor.
    """
    width, height = size
    # InternVLProcessor asks for tiles whatever the image processor's own setting says.
    return processor.image_processor.get_number_of_image_patches(height, width, {"crop_to_patches": True})


def count_prompt_tokens(
    prompt: str | list[dict], sizes: Sequence[tuple[int, int]], processor: InternVLProcessor
) -> tuple[int, int]:
    """
    Tokens of a prompt with its images, without processing them.

    Args:
        prompt (`str` or `list[dict]`): Text with one placeholder an image, or messages as TRL takes them.
        sizes (`Sequence[tuple[int, int]]`): Width and height of each image.
        processor ([`~transformers.InternVLProcessor`]): The processor.

    Returns:
        `tuple[int, int]`: All tokens, and those of images among them.
    """
    text = prompt if isinstance(prompt, str) else _render(prompt, len(sizes), processor)
    # Each image: its opening and closing token, and the placeholder once for every image token of every tile.
    per_image = [2 + processor.image_seq_length * count_tiles(size, processor) for size in sizes]
    # A chat template that writes the beginning of the sequence is not begun by the tokenizer once more.
    begun = text is not prompt and processor.tokenizer.bos_token and text.startswith(processor.tokenizer.bos_token)
    ids = processor.tokenizer(text, add_special_tokens=not begun)["input_ids"]
    return len(ids) - len(sizes) + sum(per_image), sum(per_image)


def check_row(
    prompt: str | list[dict],
    images: Iterable[ImageSource] | None,
    processor: InternVLProcessor,
    *,
    max_length: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """
    Refuse a row that would stop or distort training.

    Args:
        prompt (`str` or `list[dict]`): Text, or messages with string or list contents as TRL takes them.
        images (`Iterable`, *optional*): The row's images; `None` or empty for a text row.
        processor ([`~transformers.InternVLProcessor`]): The model's processor.
        max_length (`int`, *optional*): Most tokens of a prompt: the model's positions less the completion's length.
            Defaults to the tokenizer's `model_max_length`.
        max_pixels (`int`, *optional*): Most pixels of an image.

    Raises:
        [`RowError`]: naming what is wrong and what to do.
    """
    _check_messages(prompt)
    # A string or an array can be iterated too, and would be taken for as many images as it has items.
    if images is not None and (isinstance(images, (str, bytes, dict)) or not isinstance(images, Iterable)):
        raise RowError(f"the images are of type {type(images).__name__!r}. Give a list, of one image too.")
    images = [] if images is None else list(images)
    sizes = []
    for position, source in enumerate(images, start=1):
        try:
            sizes.append(load_image(source, max_pixels).size)
        except RowError as error:
            raise RowError(f"image {position} of {len(images)}: {error}") from error
    _check_placeholders(prompt, len(images), processor)
    limit = processor.tokenizer.model_max_length if max_length is None else max_length
    total, of_images = count_prompt_tokens(prompt, sizes, processor)
    if total > limit:
        raise RowError(
            f"the prompt has {total:,} tokens, {of_images:,} of them for {len(images)} images in "
            f"{sum(count_tiles(size, processor) for size in sizes)} tiles; at most {limit:,} fit. Shorten the text, lower "
            "the processor's max_patches, or give fewer images."
        )


def find_bad_rows(
    rows: Iterable[dict[str, Any]],
    processor: InternVLProcessor,
    *,
    prompt_column: str = "prompt",
    images_column: str = "images",
    **limits,
) -> dict[int, str]:
    """
    Check all rows and collect what is wrong, by row number.

    Args:
        rows (`Iterable[dict]`): Rows of a dataset; a row without the images column is a text row.
        processor ([`~transformers.InternVLProcessor`]): The model's processor.
        prompt_column (`str`, *optional*, defaults to `"prompt"`): Column of the prompt.
        images_column (`str`, *optional*, defaults to `"images"`): Column of the images.
        **limits: `max_length` and `max_pixels` of [`check_row`].

    Returns:
        `dict[int, str]`: Number of each unusable row and its reason; empty when all are fine.
    """
    problems = {}
    for number, row in enumerate(rows):
        try:
            if prompt_column not in row:
                raise RowError(f"there is no {prompt_column!r} among the row's columns {sorted(row)}. Add it.")
            check_row(row[prompt_column], row.get(images_column), processor, **limits)
        except RowError as error:
            problems[number] = str(error)
    return problems


def _check_messages(prompt: str | list[dict]) -> None:
    """Refuse a prompt that is neither text nor messages of the form that chat templates read."""
    if isinstance(prompt, str):
        return
    if not isinstance(prompt, (list, tuple)):
        raise RowError(f"the prompt is of type {type(prompt).__name__!r}. Give text or a list of messages.")
    if not prompt:
        raise RowError("the prompt is an empty list. Give at least one message.")
    for number, message in enumerate(prompt, start=1):
        place = f"message {number} of {len(prompt)}"
        if not isinstance(message, dict):
            raise RowError(f"{place} is of type {type(message).__name__!r}. Give a dict of `role` and `content`.")
        if not isinstance(message.get("role"), str):
            raise RowError(f"{place} has no `role`. Give 'system', 'user' or 'assistant'.")
        content = message.get("content")
        if not (content is None or isinstance(content, (str, list, tuple))):
            raise RowError(
                f"{place}: its content is of type {type(content).__name__!r}. Give text or a list of parts."
            )
        for position, part in enumerate(_parts(message), start=1):
            where = f"{place}, part {position}"
            if not isinstance(part, dict) or not isinstance(part.get("type"), str):
                raise RowError(
                    f'{where} is no dict with a `type`. Give for example {{"type": "text", "text": "..."}}.'
                )
            if part["type"] == "text" and not isinstance(part.get("text"), str):
                raise RowError(f"{where} has the type 'text' and no `text`. Give it, or remove the part.")


def _check_placeholders(prompt: str | list[dict], num_images: int, processor: InternVLProcessor) -> None:
    token, video = processor.image_token, processor.video_token
    if isinstance(prompt, str):
        texts, found = [prompt], prompt.count(token)
    else:
        parts = [part for message in prompt for part in _parts(message)]
        texts = [part["text"] for part in parts if part["type"] == "text"]
        found = sum(part["type"] == "image" for part in parts)
        if any(token in text for text in texts):
            raise RowError(
                f"a message's text contains {token!r}, which stands for an image. Give images as "
                '{"type": "image"} parts, and remove the token from the text.'
            )
        if not found and all(isinstance(message.get("content"), str) for message in prompt):
            # TRL puts the images before the first user message then.
            found = num_images if any(message["role"] == "user" for message in prompt) else 0
    if any(video in text for text in texts):
        raise RowError(f"the text contains {video!r}, which stands for a video. Remove it.")
    if found != num_images:
        placeholder = token if isinstance(prompt, str) else '{"type": "image"}'
        raise RowError(
            f"the prompt has {found} image placeholders and the row {num_images} images. Put one {placeholder} where "
            "each image belongs."
        )


def _parts(message: dict) -> list[dict]:
    content = message.get("content")
    if content is None:
        return []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _render(messages: list[dict], num_images: int, processor: InternVLProcessor) -> str:
    """The text of messages, with the images where TRL puts them."""
    if all(isinstance(message.get("content"), str) for message in messages):
        first = next((k for k, message in enumerate(messages) if message["role"] == "user"), None)
        messages = [
            {**message, "content": [{"type": "image"}] * num_images + _parts(message)} if k == first else message
            for k, message in enumerate(messages)
        ]
    try:
        return processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except (TemplateError, TypeError) as error:  # templates add strings; Python refuses to add None to one
        raise RowError(
            f"the chat template cannot render the messages ({error}). Give them the roles and contents that it expects."
        ) from error
