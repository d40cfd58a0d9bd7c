# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Any picture as RGB, the right way up: from an open image, a file, encoded bytes, base64 text or a data URL.

Does not cover where a row keeps its pictures (`rows.py`) nor what a processor makes of them (`counts.py`). Nothing is
fetched from the network.
"""

import base64
import contextlib
import io
import os
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


# Pillow's own limit, above which it warns; twice that much it refuses.
MAX_PIXELS = 89_478_485
# Longest text that a message repeats: a path may be this long, base64 text would fill the terminal.
_SHOWN = 200
# The smallest pictures that formats allow take 35 bytes.
_SHORTEST_BASE64 = 48

ImageSource = Image.Image | str | Path | bytes | dict


class RowError(ValueError):
    """A row that cannot be used: says what is wrong and what to do."""


def load_image(source: ImageSource, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """
    Decode an image to RGB, the right way up. The orientation in EXIF is applied; transparency is laid over white;
    16-bit grey is scaled to 8 bits; of an animation the first frame is taken. The size is checked before any pixel is
    decoded.

    Args:
        source (`PIL.Image.Image`, `str`, `Path`, `bytes` or `dict`): An image; its file, as a path or a `file://`
            address; its encoded bytes, also as base64 text or a data URL; or the `{"bytes": …, "path": …}` of an
            undecoded `datasets` image.
        max_pixels (`int`, *optional*, defaults to Pillow's limit): Most pixels of an image.

    Raises:
        [`RowError`]: when the image is missing, remote, of another type, broken, empty, too large, or in a mode
            without a colour meaning.
    """
    where, image = _open(source)
    try:
        return _decode(image, where, max_pixels)
    finally:
        if image is not source:
            image.close()


def is_remote(source: object) -> bool:
    """Whether an image is given by an address that is no local file's; such images are not fetched here."""
    return isinstance(source, str) and "://" in source[:_SHOWN] and not source.startswith("file://")


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


@contextlib.contextmanager
def _decoding(where: str, message: str) -> Iterator[None]:
    """
    Turn an error over an image's bytes into a `RowError`: `where` and `message`, with the error in place of `{}`.

    This is the one place where untrusted bytes are decoded, by dozens of decoders whose errors are of any type: all
    are caught. Too little memory is no fault of the bytes, whose size was checked.
    """
    try:
        yield
    except (RowError, MemoryError):
        raise
    except Exception as error:
        raise RowError(f"{where} {message.format(_short(str(error)))}") from error


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
    where = f"the image of {len(source):,} bytes" if isinstance(source, bytes) else f"image {_short(str(source))!r}"
    if isinstance(source, str):
        if is_remote(source):
            raise RowError(f"{where} is an address, and nothing is fetched. Download it and give the file's path.")
        encoded = _encoded(source)
        if encoded is not None:
            where, source = f"the image of {len(encoded):,} bytes in text", encoded
        elif source.startswith("file://"):
            source = urllib.request.url2pathname(urllib.parse.urlsplit(source).path)
    with _decoding(where, "is no image that Pillow reads, or too large ({})."), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is max_pixels
        try:
            return where, Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        except FileNotFoundError as error:
            raise RowError(f"{where} does not exist. Fetch it or remove the row.") from error


def _encoded(text: str) -> bytes | None:
    """The bytes behind a data URL or base64 text; `None` for any other text, which is a path."""
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise RowError(f"the image is a data URL that begins {head[:40]!r} and is not in base64. Encode it so.")
        try:
            return base64.b64decode(text)
        except ValueError as error:
            raise RowError(f"the image is a data URL of {len(text):,} characters that are no base64.") from error
    # A path can be valid base64, too, but hardly a long one without an extension, of a file that is not there.
    if len(text) < _SHORTEST_BASE64 or os.path.isfile(text):
        return None
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        return None


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
