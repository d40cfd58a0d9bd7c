# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The three losses of Mixed Preference Optimization as pure functions (Skywork R1V2, eqs. 2-5).

Needs torch alone. Does not cover where the log-probabilities come from, how the reward shift moves (`reward_shift.py`)
or what is reduced across processes (`mpo_trainer.py`).

Shapes: `B` pairs, `T` predicted positions. Rows come as TRL's collators lay them out, `[chosen; rejected]`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F


GenerationLossType = Literal["sequence", "token"]


@dataclass(frozen=True)
class PairLogps:
    """
    What the policy and the reference say about a batch of pairs.

    Args:
        per_token_logps (`torch.Tensor` of shape `(2 * B, T)`): Log-probability under the policy of each next token, in
            nats; chosen rows first.
        completion_mask (`torch.Tensor` of shape `(2 * B, T)`): 1 where the predicted token belongs to the response, 0
            on prompt and padding.
        ref_chosen_logps (`torch.Tensor` of shape `(B,)`): Summed log-probability of the chosen responses under the
            reference, in nats.
        ref_rejected_logps (`torch.Tensor` of shape `(B,)`): The same of the rejected responses.
    """

    per_token_logps: torch.Tensor
    completion_mask: torch.Tensor
    ref_chosen_logps: torch.Tensor
    ref_rejected_logps: torch.Tensor

    def __post_init__(self):
        rows, pairs = self.per_token_logps.size(0), self.ref_chosen_logps.size(0)
        if rows != 2 * pairs or self.ref_rejected_logps.shape != self.ref_chosen_logps.shape:
            raise ValueError(
                f"per_token_logps has {rows} rows for {pairs} chosen and {self.ref_rejected_logps.size(0)} rejected "
                "reference values: stack the chosen rows over the rejected ones, one reference value each."
            )
        if self.completion_mask.shape != self.per_token_logps.shape:
            raise ValueError(
                f"completion_mask has shape {tuple(self.completion_mask.shape)} but per_token_logps has "
                f"{tuple(self.per_token_logps.shape)}: drop the mask's first position, which nothing predicts."
            )

    @property
    def num_pairs(self) -> int:
        return self.ref_chosen_logps.size(0)

    def logratios(self) -> tuple[torch.Tensor, torch.Tensor]:
        """log π(y|x) − log π0(y|x) of the chosen and of the rejected responses, each of shape `(B,)`."""
        chosen_logps, rejected_logps = (self.per_token_logps * self.completion_mask).sum(dim=1).chunk(2)
        return chosen_logps - self.ref_chosen_logps, rejected_logps - self.ref_rejected_logps

    def rewards(self, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
        """r(y) = β·log(π(y|x)/π0(y|x)) of both responses, each of shape `(B,)`."""
        chosen_logratios, rejected_logratios = self.logratios()
        return beta * chosen_logratios, beta * rejected_logratios


@dataclass(frozen=True)
class MPOWeights:
    """Weights of the three losses (eq. 2). A loss of weight 0 takes no part in the gradient."""

    preference: float
    quality: float
    generation: float


@dataclass(frozen=True)
class MPOLosses:
    """
    Args:
        loss (`torch.Tensor` of shape `()`): The weighted sum of eq. 2, averaged over the pairs.
        metrics (`dict[str, torch.Tensor]`): Means over the batch's pairs, each of shape `()` and without gradient.
    """

    loss: torch.Tensor
    metrics: dict[str, torch.Tensor]


def preference_loss(margins: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """
    Preference loss −log σ(r(y_c) − r(y_r)) (eq. 3).

    Args:
        margins (`torch.Tensor` of shape `(B,)`): r(y_c) − r(y_r).
        label_smoothing (`float`, *optional*, defaults to `0.0`): Probability that a pair is labelled the wrong way
            round, as in conservative DPO. Not in eq. 3; InternVL's training code offers it for this loss alone.

    Returns:
        `torch.Tensor` of shape `(B,)`
    """
    return -F.logsigmoid(margins) * (1 - label_smoothing) - F.logsigmoid(-margins) * label_smoothing


def quality_loss(
    chosen_rewards: torch.Tensor, rejected_rewards: torch.Tensor, reward_shift: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Quality loss −log σ(r(y_c) − δ) − log σ(−(r(y_r) − δ)) (eq. 4), a binary classifier of single responses (BCO), from
    rewards of shape `(B,)` and δ in their unit, a number, so that no gradient passes through it.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: The two terms, each of shape `(B,)`; their sum is the loss.
    """
    return -F.logsigmoid(chosen_rewards - reward_shift), -F.logsigmoid(-(rejected_rewards - reward_shift))


def generation_loss(
    chosen_token_logps: torch.Tensor, chosen_mask: torch.Tensor, loss_type: GenerationLossType = "sequence"
) -> torch.Tensor:
    """
    Generation loss −log π(y_c|x) / |y_c| (eq. 5).

    Args:
        chosen_token_logps (`torch.Tensor` of shape `(B, T)`): Log-probability of each token of the chosen responses.
        chosen_mask (`torch.Tensor` of shape `(B, T)`): 1 on the response's tokens. A response without any contributes
            0.
        loss_type (`str`, *optional*, defaults to `"sequence"`): `"sequence"` is eq. 5: each response divided by its
            own length, then the mean over responses. `"token"` is the mean over all tokens of the batch, as in TRL's
            `loss_type="sft"` and InternVL's training code; it weighs a response by its length.

    Returns:
        `torch.Tensor` of shape `()`
    """
    nll = -(chosen_token_logps * chosen_mask)
    if loss_type == "token":
        return nll.sum() / chosen_mask.sum().clamp(min=1)
    if loss_type == "sequence":
        return (nll.sum(dim=1) / chosen_mask.sum(dim=1).clamp(min=1)).mean()
    raise ValueError(f"generation loss type is {loss_type!r} but must be 'sequence' or 'token'.")


def mpo_losses(
    pairs: PairLogps,
    weights: MPOWeights,
    beta: float,
    reward_shift: float,
    label_smoothing: float = 0.0,
    generation_loss_type: GenerationLossType = "sequence",
) -> MPOLosses:
    """
    Mixed Preference Optimization, L = w_p·L_pref + w_q·L_qual + w_g·L_gen (eq. 2).

    Args:
        pairs ([`PairLogps`]): The batch.
        weights ([`MPOWeights`]): w_p, w_q and w_g.
        beta (`float`): β of the rewards.
        reward_shift (`float`): δ of eq. 4.
        label_smoothing (`float`, *optional*, defaults to `0.0`): See [`preference_loss`].
        generation_loss_type (`str`, *optional*, defaults to `"sequence"`): See [`generation_loss`].

    Returns:
        [`MPOLosses`]
    """
    chosen_logratios, rejected_logratios = pairs.logratios()
    chosen_rewards, rejected_rewards = beta * chosen_logratios, beta * rejected_logratios
    # β times the difference, not the difference of the rewards: TRL's rounding, so that the loss is TRL's to the bit.
    preference = preference_loss(beta * (chosen_logratios - rejected_logratios), label_smoothing).mean()
    quality_chosen, quality_rejected = quality_loss(chosen_rewards, rejected_rewards, reward_shift)
    quality = (quality_chosen + quality_rejected).mean()
    chosen_token_logps, _ = pairs.per_token_logps.chunk(2)
    chosen_mask, _ = pairs.completion_mask.chunk(2)
    generation = generation_loss(chosen_token_logps, chosen_mask, generation_loss_type)

    terms = ((weights.preference, preference), (weights.quality, quality), (weights.generation, generation))
    # A term of weight 0 is left out rather than multiplied: its gradient would be 0·∞ where it overflows.
    loss = sum(weight * term for weight, term in terms if weight != 0)
    metrics = {
        "preference_loss": preference,
        "quality_loss": quality,
        "quality_loss_chosen": quality_chosen.mean(),
        "quality_loss_rejected": quality_rejected.mean(),
        "generation_loss": generation,
        "chosen_reward": chosen_rewards.mean(),
        "rejected_reward": rejected_rewards.mean(),
        "empty_responses": (pairs.completion_mask.sum(dim=1) == 0).to(preference.dtype).mean(),
    }
    return MPOLosses(loss=loss, metrics={name: value.detach() for name, value in metrics.items()})
