# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Which groups can teach anything (the vanishing-advantage test of R1V2, section 3.2), and how many could."""

import torch


def live_groups(rewards: torch.Tensor, num_generations: int, tolerance: float) -> torch.Tensor:
    """
    Tell live groups from dead ones: a mask of shape `(N / num_generations,)`.

    A group is dead when no column of its rewards spreads by more than `tolerance`, as when all answers are right or
    all are wrong: every advantage of eq. 6 is then zero. Unscored completions (NaN) do not count; a group with fewer
    than two scored completions is dead.

    Args:
        rewards (`torch.Tensor` of shape `(N, K)`):
            Of N completions, `num_generations` in a row from the same prompt, in K columns that are judged separately.
        num_generations (`int`):
            Completions a group.
        tolerance (`float`):
            In units of reward.
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


def ratio_counts(log_ratio, advantages, mask, bounds: tuple[float, float]) -> dict[str, torch.Tensor]:
    """
    Counts of the importance ratios of eq. 8 at the places of `mask`, from their logarithms (both of shape `(B, C)`, or
    `(B, 1)` for sequences). Ratios beyond `bounds` are clipped where the advantage (`(B,)`) points that way.
    """
    ratio, advantages = torch.where(mask, log_ratio.exp(), 0.0), advantages.unsqueeze(1)
    clipped = ((ratio < bounds[0]) & (advantages < 0)) | ((ratio > bounds[1]) & (advantages > 0))
    return {"num": mask.sum(), "sum": ratio.sum(), "clipped": (clipped & mask).sum(), "ratio_max": ratio.max()}


def ratio_metrics(total: dict[str, float]) -> dict[str, float]:
    """Figures of the importance ratios of replayed tokens (or sequences); none where nothing was replayed."""
    if total["num"] == 0:
        return {}
    mean, clipped = total["sum"] / total["num"], total["clipped"] / total["num"]
    return {"ratio_mean": mean, "ratio_max": total["ratio_max"], "ratio_clipped": clipped}
