# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What a model's own files say about rows: tokens that stand for images and videos, and how long a prompt may be.

Reads configuration, tokenizer and processor, never weights. The image tokens of a prompt are counted for InternVL,
whose number of tiles follows from an image's size; for other models text alone is counted. Does not cover
`max_length`, which the trainers apply themselves.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoProcessor, InternVLProcessor, PreTrainedTokenizerBase, ProcessorMixin

from ..images.counts import count_prompt_tokens, count_tiles
from ..images.processing import RowError
from .rows import DatasetError


# Columns whose text a model reads.
TEXT_COLUMNS = ("prompt", "chosen", "rejected", "completion")
# Tokens of a chat template beside the text, allowed for before a prompt is rendered and counted (ours).
_TEMPLATE_TOKENS = 1024


@dataclass(frozen=True)
class PromptLimits:
    """
    What text must not hold and how long it may be.

    Args:
        processing_class ([`~transformers.ProcessorMixin`] or [`~transformers.PreTrainedTokenizerBase`]): The model's.
        visual_tokens (`tuple[str, ...]`, *optional*, defaults to `()`): Tokens that stand for an image or a video.
        max_tokens (`int`, *optional*): Most tokens of a prompt with its images.
        reason (`str`, *optional*, defaults to `""`): Where `max_tokens` comes from, for the message.
    """

    processing_class: ProcessorMixin | PreTrainedTokenizerBase
    visual_tokens: tuple[str, ...] = ()
    max_tokens: int | None = None
    reason: str = ""

    @classmethod
    def from_pretrained(
        cls,
        path: str,
        *,
        completion_length: int = 0,
        check_length: bool = True,
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> "PromptLimits":
        """
        Limits of a model.

        Args:
            path (`str`): Folder or Hub name of a model, or folder of PEFT adapters, whose base model is read.
            completion_length (`int`, *optional*, defaults to 0): Tokens that have to fit behind the prompt.
            check_length (`bool`, *optional*, defaults to `True`): Whether prompts that exceed the model's positions
                are refused.
            revision (`str`, *optional*): Revision of the Hub repository.
            trust_remote_code (`bool`, *optional*, defaults to `False`): As for `from_pretrained`.
        """
        adapter = Path(path) / "adapter_config.json"
        if adapter.is_file():
            path = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
        options = {"revision": revision, "trust_remote_code": trust_remote_code}
        config = AutoConfig.from_pretrained(path, **options)
        processing_class = AutoProcessor.from_pretrained(path, **options)
        is_vlm = isinstance(processing_class, ProcessorMixin)
        tokenizer = processing_class.tokenizer if is_vlm else processing_class
        fields = config.to_dict()
        ids = {fields.get(name) for name in ("image_token_id", "video_token_id")} if is_vlm else set()
        tokens = {tokenizer.convert_ids_to_tokens(token_id) for token_id in ids if token_id is not None}
        if isinstance(processing_class, InternVLProcessor):
            tokens |= {processing_class.image_token, processing_class.video_token}
        positions = config.get_text_config().to_dict().get("max_position_embeddings")
        if positions is None or not check_length:
            return cls(processing_class, tuple(sorted(tokens)))
        reason = f"the model has {positions:,} positions"
        if completion_length:
            reason += f", and `max_completion_length` takes {completion_length:,} of them"
        return cls(processing_class, tuple(sorted(tokens)), positions - completion_length, reason)

    def check(self, row: dict[str, Any], sizes: list[tuple[int, int]], place: str) -> None:
        """
        Check the text of a row.

        Args:
            row (`dict[str, Any]`): Row with `prompt` and possibly `chosen`, `rejected` and `completion`.
            sizes (`list[tuple[int, int]]`): Width and height of each image.
            place (`str`): How messages call the row.

        Raises:
            DatasetError: A text holds a token that stands for an image, or the prompt is too long.
        """
        for column in TEXT_COLUMNS:
            for text in _texts(row.get(column)):
                found = next((token for token in self.visual_tokens if token in text), None)
                if found is not None:
                    raise DatasetError(
                        f"{place}, column {column!r}: the text contains {found!r}, which stands for an image or a "
                        "video that is not there. Give images as a column and as "
                        '{"type": "image"} parts, and remove the token from the text.'
                    )
        if self.max_tokens is not None:
            self._check_length(row["prompt"], sizes, place)

    def _check_length(self, prompt: str | list[dict], sizes: list[tuple[int, int]], place: str) -> None:
        texts = _texts(prompt)
        is_tiled = isinstance(self.processing_class, InternVLProcessor)
        of_images = 0
        if is_tiled:
            tiles = sum(count_tiles(size, self.processing_class) for size in sizes)
            of_images = self.processing_class.image_seq_length * tiles
        # A token is at least a byte: most prompts need not be counted.
        if sum(len(text.encode()) for text in texts) + of_images + _TEMPLATE_TOKENS <= self.max_tokens:
            return
        if is_tiled:
            try:
                total, of_images = count_prompt_tokens(prompt, sizes, self.processing_class)
            except RowError as error:
                raise DatasetError(f"{place}: {error}") from error
        else:
            is_vlm = isinstance(self.processing_class, ProcessorMixin)
            tokenizer = self.processing_class.tokenizer if is_vlm else self.processing_class
            total = sum(len(tokenizer(text)["input_ids"]) for text in texts)
        if total > self.max_tokens:
            raise DatasetError(
                f"{place}: the prompt has {total:,} tokens, {of_images:,} of them for {len(sizes)} image(s), but at "
                f"most {self.max_tokens:,} fit: {self.reason}. Shorten the prompt, leave the row out, or allow fewer "
                "tiles per image (`max_patches` of the image processor)."
            )


def _texts(value: str | list[dict] | None) -> list[str]:
    """All text of a prompt or response."""
    if value is None or isinstance(value, str):
        return [value] if value else []
    contents = [message.get("content") for message in value]
    texts = [content for content in contents if isinstance(content, str)]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return texts + [part["text"] for part in parts if part.get("text")]
