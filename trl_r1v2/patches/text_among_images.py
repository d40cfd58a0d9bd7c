# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Rows without images among rows with some, in TRL 1.16's `GRPOTrainer`, which fails on them in three places.

Does not cover the forward of a micro-batch that has no image at all (`tower_in_step.py`).
"""

from typing import Any

from accelerate.utils import gather_object

from ..images.rows import images_of, with_image_column


def rows_with_images(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The collator: every row with its images in RGB, in the one column that TRL then finds for all of them."""
    return [with_image_column(example) for example in examples]


class TextAmongImagesMixin:
    """
    For classes on [`~trl.GRPOTrainer`]: a row's images are those of its `images` or `image`, in RGB, and `None` or an
    empty list mean none. A `ValueError` if an image cannot be read, or a row has images in both columns.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # Before anything reads them, so that rewards and a vLLM server see the same pictures as the model.
        self.data_collator = rows_with_images
        self._generated_images: list[list] | None = None

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        log_multimodal, self.log_multimodal = self.log_multimodal, False
        try:
            batch = super()._generate_and_score_completions(inputs)
        finally:
            self.log_multimodal = log_multimodal
        if log_multimodal and self._is_vlm:
            self._log_images(self._generated_images or [images_of(example) for example in inputs])
        return batch

    def _log_images(self, images: list[list]) -> None:
        """
        Add the rows' images to TRL's log of completions, beside their prompts. TRL asks for them on the processes
        alone that have some; the others would wait for it.
        """
        images, logged = gather_object(images), self._logs["images"]
        if logged or any(images):
            logged.extend([[]] * (len(self._logs["prompt"]) - len(logged) - len(images)))
            logged.extend(images)

    def _generate(self, prompts):
        *output, images, tool_images = super()._generate(prompts)
        # Upstream marks a text row among image rows by `None`, which transformers' image processors refuse.
        images = None if images is None else [row_images or [] for row_images in images]
        self._generated_images = images
        return *output, images, tool_images
