# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What a served reward model accepts: the body of `POST /pooling`, read strictly.

A field that might change the score and is not followed is refused, never passed over. Images come as data URLs; no address
is fetched and no file is opened, and number and size of a request's images are checked before any is decoded. Does not
cover: sockets and batches (`reward_server.py`).
"""

import base64
import binascii
import io
import json
from typing import Any

from PIL import Image, UnidentifiedImageError

from ..images.processing import MAX_PIXELS, RowError, load_image


# Fields of vLLM's request that this server follows at these values alone.
_FOLLOWED = {
    "task": (None, "classify"),
    "use_activation": (None, False),
    "activation": (None, False),  # earlier names
    "softmax": (None, False),
    "normalize": (None, False),
    "add_generation_prompt": (None, False),
    "continue_final_message": (None, False),
    "add_special_tokens": (None, False),
    "encoding_format": (None, "float"),
    "embed_dtype": (None, "float32"),
    "endianness": (None, "native"),
    "dimensions": (None,),
    "truncate_prompt_tokens": (None,),
    "chat_template": (None,),
    "chat_template_kwargs": (None, {}),
    "mm_processor_kwargs": (None, {}),
    "media_io_kwargs": (None, {}),
}
# Those that no score depends on, and those that are read elsewhere.
_FREE = ("model", "messages", "user", "request_id", "priority", "cache_salt")
MAX_IMAGES = 64
MAX_SIDE = 65_535  # JPEG's: a strip of one pixel by millions has few pixels and takes what is resized to gigabytes
_MESSAGE_KEYS = ("role", "content")
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # Pillow runs other programs for some others


class RequestError(Exception):
    """
    A request that is not served, in the form of OpenAI's errors.

    Args:
        message (`str`):
            What is wrong and what to do.
        status (`int`, *optional*, defaults to `400`):
            HTTP status.
        code (`str`, *optional*):
            Machine-readable cause; by default the status.
    """

    def __init__(self, message: str, status: int = 400, code: str | None = None):
        super().__init__(message)
        self.status = status
        self.code = status if code is None else code


def read_request(body: bytes, model: str, sees_images: bool, max_pixels: int = MAX_PIXELS) -> list[dict[str, Any]]:
    """
    Read the conversation of a request.

    Args:
        body (`bytes`):
            JSON.
        model (`str`):
            Name of the served model.
        sees_images (`bool`):
            Whether the model does.
        max_pixels (`int`, *optional*):
            Most pixels of all images together; checked before any is decoded.

    Returns:
        `list[dict]`: Messages as [`~trl_r1v2.rewards.reward_model.RewardModel.score`] takes them.

    Raises:
        RequestError: With the place and the remedy.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is no JSON: {error}") from error
    if not isinstance(request, dict):
        raise RequestError("the body is no JSON object; send model and messages.")
    if request.get("model") not in (None, model):
        raise RequestError(f"the model {request['model']!r} does not exist; {model!r} is served.", 404)
    for name, followed in _FOLLOWED.items():
        if request.get(name) not in followed:
            raise RequestError(f"{name} is {request[name]!r}; this server takes only {json.dumps(followed[-1])}.")
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError("messages is no list of messages; a conversation with the response at its end is scored.")
    unknown = [name for name in request if name not in (*_FOLLOWED, *_FREE) and request[name] is not None]
    if unknown:
        raise RequestError(f"{', '.join(map(repr, unknown))}: this server knows no such field; leave it out.")
    read = [_read_message(message, f"messages[{number}]", sees_images) for number, message in enumerate(messages)]
    if read[-1]["role"] != "assistant":
        raise RequestError(f"the last message is the {read[-1]['role']}'s; it must be the assistant's: the response.")
    _decode_images(read, max_pixels)
    return read


def _read_message(message: Any, place: str, sees_images: bool) -> dict[str, Any]:
    if not isinstance(message, dict) or message.get("role") not in ("system", "user", "assistant", "tool"):
        raise RequestError(f"{place} has no role; it must be one of system, user, assistant, tool.")
    unknown = [key for key, value in message.items() if key not in _MESSAGE_KEYS and value is not None]
    if unknown:
        raise RequestError(f"{place} holds {', '.join(unknown)}, of which the score would know nothing.")
    content = message.get("content")
    if isinstance(content, list):
        content = [_read_part(part, f"{place}.content[{number}]", sees_images) for number, part in enumerate(content)]
    elif not isinstance(content, str):
        raise RequestError(f"{place}.content is neither text nor a list of parts.")
    else:
        _check_text(content, f"{place}.content")
    if sees_images and isinstance(content, str):  # as TRL writes the conversations of vision-language models
        content = [{"type": "text", "text": content}]
    return {"role": message["role"], "content": content}


def _check_text(text: str, place: str):
    """Refuse half a surrogate pair: JSON can write one, but it is no character, and tokenizers fail at it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(f"{place} is no text: {error.reason} at character {error.start}.") from error


def _read_part(part: Any, place: str, sees_images: bool) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        _check_text(part["text"], f"{place}.text")
        return {"type": "text", "text": part["text"]}
    if kind != "image_url":
        raise RequestError(f"{place} is no part of type text or image_url.")
    if not sees_images:
        raise RequestError(
            f"{place} is an image, and the served model reads text only. Serve a vision-language reward model, or set "
            "`sees_images: false` and `drop_images: true` in the client to judge without images."
        )
    url = part["image_url"].get("url") if isinstance(part.get("image_url"), dict) else None
    if not isinstance(url, str):
        raise RequestError(
            f'{place} has no address; an image is {{"image_url": {{"url": "data:image/png;base64,…"}}}}.'
        )
    return {"type": "image", "image": _open_image(url, place)}


def _open_image(url: str, place: str) -> Image.Image:
    """The image, of which only the head has been read."""
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        raise RequestError(
            f"{place} is at {url[:60]!r}; only data URLs (data:image/png;base64,…) are taken, none fetched."
        )
    try:
        image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise RequestError(f"{place} is no image of the kinds {', '.join(_FORMATS)}.") from error
    except (binascii.Error, OSError, Image.DecompressionBombError) as error:
        raise RequestError(f"{place}: {error}") from error
    if max(image.size) > MAX_SIDE:
        raise RequestError(f"{place}: an image of {image.width}x{image.height}; at most {MAX_SIDE} a side are taken.")
    return image


def _decode_images(messages: list[dict[str, Any]], max_pixels: int):
    """Put the decoded images in the place of the opened ones."""
    parts = [
        (part, f"messages[{row}].content[{column}]")
        for row, message in enumerate(messages)
        if isinstance(message["content"], list)
        for column, part in enumerate(message["content"])
        if part["type"] == "image"
    ]
    if len(parts) > MAX_IMAGES:
        raise RequestError(f"the conversation has {len(parts)} images; at most {MAX_IMAGES} are taken.")
    num_pixels = sum(part["image"].width * part["image"].height for part, _ in parts)
    if num_pixels > max_pixels:
        raise RequestError(
            f"the images have {num_pixels:,} pixels together; at most {max_pixels:,} are decoded. Scale them down."
        )
    for part, place in parts:
        try:
            part["image"] = load_image(part["image"], max_pixels)
        except RowError as error:
            raise RequestError(f"{place}: {error}") from error
