# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What a served reward model accepts: the body of `POST /pooling`, read strictly.

A field that would change the score and is not followed is refused, never passed over. Images come as data URLs; no address
is fetched and no file is opened. Does not cover: sockets and batches (`reward_server.py`).
"""

import base64
import binascii
import io
import json
from typing import Any

from PIL import Image, UnidentifiedImageError

from ..vlm.processing import MAX_PIXELS, RowError, load_image


# Fields of vLLM's request that this server follows at these values alone.
_FOLLOWED = {
    "task": (None, "classify"),
    "use_activation": (None, False),
    "add_generation_prompt": (None, False),
    "continue_final_message": (None, False),
    "add_special_tokens": (None, False),
    "encoding_format": (None, "float"),
    "dimensions": (None,),
    "truncate_prompt_tokens": (None,),
    "chat_template": (None,),
    "chat_template_kwargs": (None, {}),
    "mm_processor_kwargs": (None, {}),
}
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
            Most pixels of an image; checked before any is decoded.

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
    read = [
        _read_message(message, f"messages[{number}]", sees_images, max_pixels)
        for number, message in enumerate(messages)
    ]
    if read[-1]["role"] != "assistant":
        raise RequestError(f"the last message is the {read[-1]['role']}'s; it must be the assistant's: the response.")
    return read


def _read_message(message: Any, place: str, sees_images: bool, max_pixels: int) -> dict[str, Any]:
    if not isinstance(message, dict) or message.get("role") not in ("system", "user", "assistant", "tool"):
        raise RequestError(f"{place} has no role; it must be one of system, user, assistant, tool.")
    unknown = [key for key, value in message.items() if key not in _MESSAGE_KEYS and value is not None]
    if unknown:
        raise RequestError(f"{place} holds {', '.join(unknown)}, of which the score would know nothing.")
    content = message.get("content")
    if isinstance(content, list):
        content = [
            _read_part(part, f"{place}.content[{number}]", sees_images, max_pixels)
            for number, part in enumerate(content)
        ]
    elif not isinstance(content, str):
        raise RequestError(f"{place}.content is neither text nor a list of parts.")
    elif sees_images:  # as TRL writes the conversations of vision-language models
        content = [{"type": "text", "text": content}]
    return {"role": message["role"], "content": content}


def _read_part(part: Any, place: str, sees_images: bool, max_pixels: int) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
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
    return {"type": "image", "image": _read_image(url, place, max_pixels)}


def _read_image(url: str, place: str, max_pixels: int) -> Image.Image:
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        raise RequestError(
            f"{place} is at {url[:60]!r}; only data URLs (data:image/png;base64,…) are taken, none fetched."
        )
    try:
        return load_image(Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=_FORMATS), max_pixels)
    except UnidentifiedImageError as error:
        raise RequestError(f"{place} is no image of the kinds {', '.join(_FORMATS)}.") from error
    except (binascii.Error, OSError, RowError, Image.DecompressionBombError) as error:
        raise RequestError(f"{place}: {error}") from error
