# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Which groups of completions can teach anything: the vanishing-advantage test of R1V2, section 3.2."""

import torch


def live_groups(rewards: torch.Tensor, num_generations: int, tolerance: float) -> torch.Tensor:
    """
    Tell live groups from dead ones.

    A group is dead when no column of its rewards spreads by more than `tolerance`, as when all answers are right or
    all are wrong: every advantage of eq. 6 is then zero. Unscored completions (NaN) do not count; a group with fewer
    than two scored completions is dead.

    Args:
        rewards (`torch.Tensor` of shape `(N, K)`):
            Rewards of N completions, `num_generations` in a row from the same prompt, in K columns that are judged
            separately.
        num_generations (`int`):
            Completions a group.
        tolerance (`float`):
            In units of reward.

    Returns:
        `torch.Tensor` of shape `(N / num_generations,)`: `True` for live groups.
    """
    grouped = rewards.view(-1, num_generations, rewards.size(1))
    largest = grouped.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).amax(dim=1)
    smallest = grouped.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf).amin(dim=1)
    return (largest - smallest > tolerance).any(dim=1)
