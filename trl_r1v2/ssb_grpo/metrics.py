# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The `ssb/…` figures of a training run, reduced over processes.

Pure: the trainer gathers one row of local counts a process and logs what comes out. docs/ssb.md explains each figure.
"""

import math

import torch


SUMMED = (
    "fresh_rows",
    "replayed_rows",
    "resampled_rows",
    "skipped/masked",
    "size",
    "bytes",
    "pixel_bytes",
    "evicted/capacity",
    "evicted/bytes",
    "evicted/age",
    "evicted/uses",
    "evicted/pixels",
)


def replay_metrics(names: list[str], gathered: torch.Tensor) -> dict[str, float]:
    """
    Figures of one generation.

    Args:
        names (`list[str]`): What the columns count on a process: `rows`, `dead_rows`, `effective_before`,
            `effective_after` (rows), `age_mean`, `age_max` (optimizer steps), `uses_mean`, `uses_max`, and [`SUMMED`].
        gathered (`torch.Tensor` of shape `(num_processes, len(names))`): The counts of every process.
    """
    column = {name: gathered[:, index] for index, name in enumerate(names)}
    total = {name: values.sum().item() for name, values in column.items()}
    held = column["size"]
    num_held = max(held.sum().item(), 1.0)
    return {
        "dead_groups": total["dead_rows"] / total["fresh_rows"],
        "effective_before": total["effective_before"] / total["fresh_rows"],
        "effective_after": total["effective_after"] / total["rows"],
        "age_mean": (column["age_mean"] * held).sum().item() / num_held,
        "age_max": column["age_max"].max().item(),
        "uses_mean": (column["uses_mean"] * held).sum().item() / num_held,
        "uses_max": column["uses_max"].max().item(),
        **{name: total[name] for name in SUMMED},
    }


def clip_bounds(loss_type: str, epsilon_low: float, epsilon_high: float) -> tuple[float, float] | None:
    """
    Ratios below the first (with a negative advantage) and above the second (with a positive one) are clipped.

    Args:
        loss_type (`str`): Of [`~trl.GRPOConfig`]. `"cispo"` caps the ratio at `epsilon_high` itself.
        epsilon_low (`float`), epsilon_high (`float`): Its bounds.

    Returns:
        `tuple[float, float]` or `None`: `None` for losses without a clip (`"sapo"`, `"vespo"`).
    """
    if loss_type in ("sapo", "vespo"):
        return None
    return (0.0, epsilon_high) if loss_type == "cispo" else (1 - epsilon_low, 1 + epsilon_high)


def ratio_counts(
    log_ratio: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor, bounds: tuple[float, float] | None
) -> torch.Tensor:
    """
    Local counts for [`ratio_metrics`].

    Args:
        log_ratio (`torch.Tensor` of shape `(B, C)`, or `(B, 1)` for ratios of sequences): Log of the importance ratio of
            eq. 8.
        advantages (`torch.Tensor` of shape `(B,)`): Dimensionless.
        mask (`torch.Tensor` of the shape of `log_ratio`): Tokens, or sequences, of replayed rows that are trained on.
        bounds (`tuple[float, float]`, *optional*): From [`clip_bounds`].

    Returns:
        `torch.Tensor` of shape `(4,)`: Number of ratios, their sum, number of clipped ones (NaN without bounds), largest
            ratio.
    """
    ratio = torch.where(mask, log_ratio.exp(), 0.0)
    if bounds is None:
        num_clipped = torch.full_like(ratio.sum(), torch.nan)
    else:
        advantages = advantages.unsqueeze(1)
        is_clipped = ((ratio < bounds[0]) & (advantages < 0)) | ((ratio > bounds[1]) & (advantages > 0))
        num_clipped = (is_clipped & mask).sum()
    return torch.stack([mask.sum(), ratio.sum(), num_clipped, ratio.max()]).double()


def ratio_metrics(gathered: torch.Tensor) -> dict[str, float]:
    """Importance ratios of what was replayed, over all processes; empty when nothing was."""
    num_ratios, ratio_sum, num_clipped, _ = gathered.sum(dim=0).tolist()
    if num_ratios == 0:
        return {}
    metrics = {"ratio_mean": ratio_sum / num_ratios, "ratio_max": gathered[:, 3].max().item()}
    return metrics if math.isnan(num_clipped) else metrics | {"ratio_clipped": num_clipped / num_ratios}
