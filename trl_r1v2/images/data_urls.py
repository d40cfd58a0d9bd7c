# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Messages with pictures inside, as OpenAI's API takes them: pictures as data URLs, so that no server reads a file."""

import base64
import io
from typing import Any

from PIL import Image

from .processing import load_image


def encode_image(image: Image.Image) -> str:
    """An image as the data URL of a PNG, which keeps every pixel of what [`load_image`] makes of it."""
    buffer = io.BytesIO()
    load_image(image).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def encode_messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """
    Messages as the API takes them, from messages whose content is text, or parts of type `text` and `image` with PIL
    images inside (`ValueError` for others); a content of text alone becomes a plain string.
    """
    encoded = []
    for message in messages:
        content = message["content"]
        if not isinstance(content, str):
            if all(part["type"] == "text" for part in content):
                content = "".join(part["text"] for part in content)
            else:
                content = [_encode_part(part) for part in content]
        encoded.append({"role": message["role"], "content": content})
    return encoded


def _encode_part(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "text":
        return {"type": "text", "text": part["text"]}
    if part["type"] == "image" and isinstance(part.get("image"), Image.Image):
        return {"type": "image_url", "image_url": {"url": encode_image(part["image"])}}
    raise ValueError(f"a message part of type {part['type']!r} cannot be sent; text and PIL images can")
