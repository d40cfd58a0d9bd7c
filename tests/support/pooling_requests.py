# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Requests to a served reward model, as clients write them."""

import base64
import io
import zlib

from PIL import Image


def request(*parts, **fields) -> dict:
    content = list(parts) or "question"
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "answer"}]
    return {"model": "tiny", "messages": messages, **fields}


def image_part(data: bytes, kind="png") -> dict:
    url = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def encoded(image: Image.Image, kind="PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    return (
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\r"
        + chunk
        + zlib.crc32(chunk).to_bytes(4, "big")
        + b"\x00\x00\x00\x40IDAT"
        + b"\x00" * 68
    )
