# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Configuration of `VisionRewardTrainer`.

Covers what it adds to `RewardConfig`, and refuses what has no meaning for scores over a chat template. Does not cover
what can only be judged with model and data at hand (`reward_trainer.py`).
"""

import math
from dataclasses import dataclass, field

from trl import RewardConfig

from ..vlm.activation import parse_trainable


@dataclass
class VisionRewardConfig(RewardConfig):
    r"""
    Configuration class for the [`VisionRewardTrainer`].

    Takes every parameter of [`~trl.RewardConfig`]; `max_length` has another default.

    Parameters:
        trainable (`str`, *optional*, defaults to `"llm+adapter"`): Components that train with the head.
        share_prompts (`bool`, *optional*, defaults to `False`): Whether what chosen and rejected conversation have in
            common at their start passes the model once.
        image_preference_weight (`float`, *optional*, defaults to `0.0`): Weight of the loss that prefers a response
            with its own images.
        max_length (`int`, *optional*): Longest conversation in tokens, image tokens included; no bound by default.
        too_long (`str`, *optional*, defaults to `"refuse"`): What becomes of pairs beyond `max_length`.

    Raises:
        ValueError: If a value is out of bounds, or a setting of TRL has no effect here.
    """

    max_length: int | None = field(
        default=None,
        metadata={
            "help": "Longest conversation in tokens, image tokens included; by default there is no bound (ours: one "
            "tile of InternVL alone takes 256 tokens). Nothing is truncated, because the score is read off the last "
            "token."
        },
    )
    trainable: str = field(
        default="llm+adapter",
        metadata={
            "help": "Components to train with the scalar head, joined with '+': vision, adapter, llm, or 'all'. By "
            "default the vision tower is frozen, as for Skywork-VL-Reward (arXiv 2505.07263)."
        },
    )
    share_prompts: bool = field(
        default=False,
        metadata={
            "help": "Whether what a chosen and a rejected conversation have in common at their start, images "
            "included, passes the model once (ours). Scores are the same to rounding."
        },
    )
    image_preference_weight: float = field(
        default=0.0,
        metadata={
            "help": "Weight of `-log sigma(s(images, chosen) - s(other images, chosen))`, which only the images can "
            "lower: the other ones are those of another pair of the batch. For pairs that a model could rank by their "
            "text alone. Ours, after the conditional preference of mDPO (arXiv 2406.11839); "
            "0, the default, is the paper's loss."
        },
    )
    too_long: str = field(
        default="refuse",
        metadata={
            "help": "Pairs with a conversation longer than `max_length`: 'refuse' stops before training and names the "
            "row; 'drop' leaves them out and logs how many (TRL's way).",
            "choices": ["refuse", "drop"],
        },
    )

    def __post_init__(self):
        super().__post_init__()
        parse_trainable(self.trainable)
        if not (math.isfinite(self.image_preference_weight) and self.image_preference_weight >= 0):
            raise ValueError(
                f"image_preference_weight={self.image_preference_weight} must be finite and >= 0; "
                "0 leaves that loss out."
            )
        if self.max_length is not None and self.max_length < 1:
            raise ValueError(f"max_length={self.max_length} must be at least 1; leave it out for no bound.")
        if self.too_long not in ("refuse", "drop"):
            raise ValueError(f"too_long={self.too_long!r} must be 'refuse' or 'drop'.")
        if self.chat_template_path is not None:
            raise ValueError(
                f"chat_template_path={self.chat_template_path!r} would change the tokenizer's template, but scores "
                "are taken over the processor's. Set `processor.chat_template` and pass it as `processing_class`."
            )
        if self.eos_token is not None:
            raise ValueError(
                f"eos_token={self.eos_token!r} has no effect: every pair goes through the chat template, which ends "
                "the turn. Leave it out."
            )
