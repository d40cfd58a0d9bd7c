# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What a processor makes of images and prompts, told from their sizes alone: tiles, tokens, and sizes that it refuses.

The processor's own work is not repeated here; its public counts are used. Does not cover reading pictures
(`processing.py`) nor where a row keeps them (`rows.py`).
"""

from collections.abc import Sequence

from jinja2 import TemplateError
from PIL import Image
from transformers import InternVLProcessor, ProcessorMixin

from .processing import RowError


# Every processor takes sizes within these (ours).
_USUAL_SIDE = 32
_USUAL_RATIO = 20


def count_tiles(size: tuple[int, int], processor: InternVLProcessor) -> int:
    """Tiles, the thumbnail included, that an image of this size (width and height in pixels) is cut into."""
    width, height = size
    # InternVLProcessor asks for tiles whatever the image processor's own setting says.
    return processor.image_processor.get_number_of_image_patches(height, width, {"crop_to_patches": True})


def check_size(size: tuple[int, int], processor: ProcessorMixin) -> None:
    """
    Refuse (`RowError`, with the processor's reason) an image of a size, width and height in pixels, that the processor
    does not take: Qwen-VL's refuses those over 200 times as wide as high. Only unusual sizes are tried, on a blank
    image.
    """
    if min(size) >= _USUAL_SIDE and max(size) <= _USUAL_RATIO * min(size):
        return
    try:
        processor.image_processor(images=Image.new("RGB", size))
    except ValueError as error:
        width, height = size
        raise RowError(
            f"the {type(processor).__name__} does not take an image of {width}x{height} pixels ({error}). Crop or pad "
            "it, or leave the row out."
        ) from error


def count_prompt_tokens(
    prompt: str | list[dict], sizes: Sequence[tuple[int, int]], processor: InternVLProcessor
) -> tuple[int, int]:
    """
    Tokens of a prompt with images of these sizes, without processing them: all, and those of images among them. The
    prompt is text with one placeholder an image, or messages as TRL takes them.
    """
    text = prompt if isinstance(prompt, str) else _render(prompt, len(sizes), processor)
    # Each image: its opening and closing token, and the placeholder once for every image token of every tile.
    per_image = [2 + processor.image_seq_length * count_tiles(size, processor) for size in sizes]
    # A chat template that writes the beginning of the sequence is not begun by the tokenizer once more.
    begun = text is not prompt and processor.tokenizer.bos_token and text.startswith(processor.tokenizer.bos_token)
    ids = processor.tokenizer(text, add_special_tokens=not begun)["input_ids"]
    return len(ids) - len(sizes) + sum(per_image), sum(per_image)


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
            f"the chat template cannot render the messages ({error}). Give them the roles and contents it expects."
        ) from error
