# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The `ssb/…` figures of a run. Pure: local counts, reduced over processes by the trainer, become what is logged."""

import torch


def reduce_counts(names: list[str], gathered: torch.Tensor) -> dict[str, float]:
    """Counts of all processes (shape `(num_processes, len(names))`) in one: maxima of `*_max`, sums of the others."""
    is_maximum = torch.tensor([name.endswith("_max") for name in names])
    return dict(zip(names, torch.where(is_maximum, gathered.amax(dim=0), gathered.sum(dim=0)).tolist(), strict=True))


def replay_metrics(total: dict[str, float]) -> dict[str, float]:
    """Figures of one generation from its counts of rows, and sums and maxima of the ages and uses of what is held."""
    num_held, num_fresh = max(total["size"], 1), total["fresh_rows"]
    return {
        "dead_groups": total.pop("dead_rows") / num_fresh,
        "effective_before": total.pop("effective_before") / num_fresh,
        "effective_after": total.pop("effective_after") / total.pop("rows"),
        "age_mean": total.pop("age_sum") / num_held,
        "uses_mean": total.pop("uses_sum") / num_held,
        **total,
    }


def ratio_counts(
    log_ratio: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor, bounds: tuple[float, float]
) -> dict[str, torch.Tensor]:
    """
    Local counts for [`ratio_metrics`].

    Args:
        log_ratio (`torch.Tensor` of shape `(B, C)`, or `(B, 1)` for ratios of sequences):
            Log of the importance ratio of eq. 8.
        advantages (`torch.Tensor` of shape `(B,)`):
            Dimensionless.
        mask (`torch.Tensor` of the shape of `log_ratio`):
            Tokens, or sequences, of replayed rows that are trained on.
        bounds (`tuple[float, float]`):
            Ratios below the first (with a negative advantage) and above the second (with a positive one) are clipped.
    """
    ratio, advantages = torch.where(mask, log_ratio.exp(), 0.0), advantages.unsqueeze(1)
    is_clipped = ((ratio < bounds[0]) & (advantages < 0)) | ((ratio > bounds[1]) & (advantages > 0))
    return {"num": mask.sum(), "sum": ratio.sum(), "clipped": (is_clipped & mask).sum(), "ratio_max": ratio.max()}


def ratio_metrics(total: dict[str, float]) -> dict[str, float]:
    """Importance ratios of what was replayed; empty when nothing was."""
    if total["num"] == 0:
        return {}
    mean, clipped = total["sum"] / total["num"], total["clipped"] / total["num"]
    return {"ratio_mean": mean, "ratio_max": total["ratio_max"], "ratio_clipped": clipped}
