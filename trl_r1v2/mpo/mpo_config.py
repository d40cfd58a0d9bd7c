# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Configuration of `MPOTrainer`.

Covers what MPO adds to `DPOConfig` and refuses what it cannot be combined with. Does not cover what can only be judged
with model and data at hand (`mpo_trainer.py`).
"""

import math
from dataclasses import dataclass, field

from trl import DPOConfig


@dataclass
class MPOConfig(DPOConfig):
    r"""
    Configuration class for the [`MPOTrainer`].

    Takes every parameter of [`~trl.DPOConfig`]. The defaults of the weights and of `beta` (0.1) are those of the [MPO
    paper](https://huggingface.co/papers/2411.10442); Skywork R1V2 does not state its own. The learning rate stays
    TRL's 1e-6, between the paper's 5e-6 (8B) and InternVL's 2e-7 (38B).

    Parameters:
        preference_weight (`float`, *optional*, defaults to `0.8`): w of the preference loss.
        quality_weight (`float`, *optional*, defaults to `0.2`): w of the quality loss.
        generation_weight (`float`, *optional*, defaults to `1.0`): w of the generation loss.
        reward_shift (`str`, *optional*, defaults to `"running_mean"`): How δ of the quality loss follows the rewards:
            `"running_mean"`, `"ema"` or `"zero"`.
        reward_shift_decay (`float`, *optional*, defaults to `0.99`): Weight of the past with `reward_shift="ema"`.
        generation_loss_type (`str`, *optional*, defaults to `"sequence"`): `"sequence"` (eq. 5) or `"token"`.
        share_prompts (`bool`, *optional*, defaults to `False`): Whether a prompt and its images pass policy and
            reference once for both responses.
        label_smoothing (`float`, *optional*, defaults to `0.0`): Label smoothing of the preference loss.

    Raises:
        ValueError: If a value is out of bounds, or a setting of DPO has no meaning in MPO.
    """

    preference_weight: float = field(
        default=0.8,
        metadata={"help": "Weight of the preference loss (eq. 2). 0.8 is the MPO paper's; R1V2 does not state it."},
    )
    quality_weight: float = field(
        default=0.2,
        metadata={"help": "Weight of the quality loss (eq. 2). 0.2 is the MPO paper's; R1V2 does not state it."},
    )
    generation_weight: float = field(
        default=1.0,
        metadata={"help": "Weight of the generation loss (eq. 2). 1.0 is the MPO paper's; R1V2 does not state it."},
    )
    reward_shift: str = field(
        default="running_mean",
        metadata={
            "help": "How the reward shift of the quality loss (eq. 4) follows the rewards. 'running_mean': mean of "
            "all rewards seen, as in InternVL's training code. 'ema': exponential moving average (our reading of the "
            "paper's 'moving average'). 'zero': no shift, as in TRL's bco_pair.",
            "choices": ["running_mean", "ema", "zero"],
        },
    )
    reward_shift_decay: float = field(
        default=0.99,
        metadata={"help": "Weight of the past in `reward_shift='ema'`, in (0, 1), per micro-batch. 0.99 is ours."},
    )
    generation_loss_type: str = field(
        default="sequence",
        metadata={
            "help": "'sequence': every response is divided by its own length (eq. 5). 'token': mean over all tokens "
            "of the micro-batch, as in TRL's sft loss and InternVL's training code.",
            "choices": ["sequence", "token"],
        },
    )
    share_prompts: bool = field(
        default=False,
        metadata={
            "help": "Whether a prompt and its images pass policy and reference once for its chosen and rejected "
            "response (ours). Losses are the same to rounding."
        },
    )
    label_smoothing: float = field(
        default=0.0,
        metadata={
            "help": "Probability that a pair is labelled the wrong way round, in [0, 0.5), taken into account by the "
            "preference loss. Not part of R1V2's equations; InternVL's training code offers it."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        self._check_bounds()
        self._refuse_dpo_settings()

    def _check_bounds(self) -> None:
        weights = {name: getattr(self, name) for name in ("preference_weight", "quality_weight", "generation_weight")}
        for name, weight in weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"{name}={weight} must be finite and >= 0. Use 0 to leave the loss out.")
        if not any(weights.values()):
            raise ValueError("all three loss weights are 0: nothing would be trained. Set at least one above 0.")
        if self.reward_shift not in ("running_mean", "ema", "zero"):
            raise ValueError(f"reward_shift={self.reward_shift!r} must be 'running_mean', 'ema' or 'zero'.")
        if not 0 < self.reward_shift_decay < 1:
            raise ValueError(
                f"reward_shift_decay={self.reward_shift_decay} must lie in (0, 1). For no shift at all use "
                "`reward_shift='zero'`."
            )
        if self.generation_loss_type not in ("sequence", "token"):
            raise ValueError(f"generation_loss_type={self.generation_loss_type!r} must be 'sequence' or 'token'.")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(
                f"label_smoothing={self.label_smoothing} must lie in [0, 0.5): from 0.5 on the labels say nothing."
            )

    def _refuse_dpo_settings(self) -> None:
        if self.loss_type != ["sigmoid"] or self.loss_weights is not None:
            raise ValueError(
                f"loss_type={self.loss_type} and loss_weights={self.loss_weights} are DPO's: MPO's losses are set by "
                "`preference_weight`, `quality_weight` and `generation_weight`. For other losses use `trl.DPOTrainer`."
            )
        if self.sync_ref_model:
            raise ValueError(
                "sync_ref_model=True moves the reference, and with it the zero of the rewards that the reward shift "
                "averages over. The MPO paper trains against a frozen reference and reports that updating it lowers "
                "accuracy. Set sync_ref_model=False; for iterated MPO start each round from the last one's weights."
            )
        settings = {"ld_alpha": None, "f_divergence_type": "reverse_kl", "use_weighting": False}
        for name, value in settings.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} changes the rewards or the loss in a way that MPO's equations do "
                    f"not have. Leave it at {value!r}, or use `trl.DPOTrainer`."
                )
