# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Which groups can teach anything (the vanishing-advantage test of R1V2, section 3.2), and how many could."""

import torch


def live_groups(rewards: torch.Tensor, num_generations: int, tolerance: float) -> torch.Tensor:
    """
    Tell live groups from dead ones: a mask of shape `(N / num_generations,)`.

    A group is dead when none of the K columns of its rewards (`(N, K)`, a group's rows together) spreads by more than
    `tolerance`, as when all answers are right or all are wrong: every advantage of eq. 6 is then zero. Unscored
    completions (NaN) do not count; a group with fewer than two scored ones is dead.
    """
    grouped = rewards.view(-1, num_generations, rewards.size(1))
    largest = grouped.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).amax(dim=1)
    smallest = grouped.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf).amin(dim=1)
    return (largest - smallest > tolerance).any(dim=1)


def reduce_counts(names: list[str], gathered: torch.Tensor) -> dict[str, float]:
    """Counts of all processes (shape `(num_processes, len(names))`) in one: maxima of `*_max`, sums of the others."""
    is_maximum = torch.tensor([name.endswith("_max") for name in names])
    return dict(zip(names, torch.where(is_maximum, gathered.amax(dim=0), gathered.sum(dim=0)).tolist(), strict=True))


def replay_metrics(total: dict[str, float]) -> dict[str, float]:
    """Figures of one generation from its counts of rows, and sum and maximum of the ages of what is held."""
    num_fresh, num_replayed = total["fresh_rows"], max(total["replayed_rows"], 1)
    return {
        "dead_groups": total.pop("dead_rows") / num_fresh,
        "effective_before": total.pop("effective_before") / num_fresh,
        "effective_after": total.pop("effective_after") / total.pop("rows"),
        "replayed_negative": total.pop("replayed_negative") / num_replayed,
        "replayed_advantage": total.pop("replayed_advantage") / num_replayed,
        "age_mean": total.pop("age_sum") / max(total["size"], 1),
        **total,
    }


def ratio_counts(log_ratio, advantages, mask, bounds: tuple[float, float, float]) -> dict[str, torch.Tensor]:
    """
    Counts of the importance ratios of eq. 8 at the places of `mask`, from their logarithms (both of shape `(B, C)`, or
    `(B, 1)` for sequences). Of `bounds`, the second is the upper one where the advantage (`(B,)`) is positive, the
    first and the third are the lower and upper ones where it is negative.
    """
    ratio, advantages = torch.where(mask, log_ratio.exp(), 0.0), advantages.unsqueeze(1)
    low, high, delta = bounds
    clipped = torch.where(advantages > 0, ratio > high, (ratio < low) | (ratio > delta))
    return {"num": mask.sum(), "sum": ratio.sum(), "clipped": (clipped & mask).sum(), "ratio_max": ratio.max()}


def ratio_metrics(total: dict[str, float]) -> dict[str, float]:
    """Figures of the importance ratios of replayed tokens (or sequences); none where nothing was replayed."""
    if total["num"] == 0:
        return {}
    mean, clipped = total["sum"] / total["num"], total["clipped"] / total["num"]
    return {"ratio_mean": mean, "ratio_max": total["ratio_max"], "ratio_clipped": clipped}
