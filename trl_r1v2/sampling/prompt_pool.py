# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.

"""
The offline phase of the Selective Sample Buffer: which prompts have mixed outcomes (R1V2, section on SSB).

Pure: verdicts on responses in, kept rows and counts out. Sampling and scoring are in `trl_r1v2.sampling`, files in
`trl_r1v2.scripts.filter_prompts`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


FATES = ("kept", "all_right", "all_wrong", "too_hard", "too_easy", "unscorable")


@dataclass(frozen=True)
class PromptOutcome:
    """
    How the sampled responses to one prompt turned out.

    Args:
        row (`int`):
            Index of the prompt in the dataset.
        num_samples (`int`):
            Responses sampled.
        num_scored (`int`):
            Responses that could be judged.
        num_right (`int`):
            Responses judged right.
    """

    row: int
    num_samples: int
    num_scored: int
    num_right: int

    @classmethod
    def from_verdicts(cls, row: int, verdicts: Sequence[bool | None]) -> "PromptOutcome":
        """Outcome of a prompt from a verdict a response: right, wrong, or `None` where it could not be judged."""
        return cls(row, len(verdicts), sum(v is not None for v in verdicts), sum(v is True for v in verdicts))

    @property
    def pass_rate(self) -> float | None:
        """Share of right responses among those judged; `None` where none could be."""
        return self.num_right / self.num_scored if self.num_scored else None


@dataclass(frozen=True)
class PoolRules:
    """
    Which prompts to keep: those with right and wrong responses (R1V2), within bounds on the pass rate (ours).

    Args:
        min_pass_rate (`float`, *optional*, defaults to `0.0`):
            Smallest pass rate, inclusive. A rate of 0 is never kept.
        max_pass_rate (`float`, *optional*, defaults to `1.0`):
            Largest pass rate, inclusive. A rate of 1 is never kept.

    Raises:
        `ValueError`: The bounds are not within [0, 1] and in order.
    """

    min_pass_rate: float = 0.0
    max_pass_rate: float = 1.0

    def __post_init__(self):
        if not 0 <= self.min_pass_rate <= self.max_pass_rate <= 1:
            raise ValueError(
                f"min_pass_rate is {self.min_pass_rate} and max_pass_rate {self.max_pass_rate}: choose "
                "0 <= min_pass_rate <= max_pass_rate <= 1"
            )

    def fate(self, outcome: PromptOutcome) -> str:
        """One of `FATES`: `kept`, or why the prompt is left out."""
        if outcome.num_scored == 0:
            return "unscorable"
        if outcome.num_right == 0:
            return "all_wrong"
        if outcome.num_right == outcome.num_scored:
            return "all_right"
        if outcome.pass_rate < self.min_pass_rate:
            return "too_hard"
        if outcome.pass_rate > self.max_pass_rate:
            return "too_easy"
        return "kept"


def count_fates(outcomes: Sequence[PromptOutcome], rules: PoolRules) -> dict[str, int]:
    """
    How many prompts met which fate.

    Args:
        outcomes (`Sequence[PromptOutcome]`):
            Outcomes of all prompts.
        rules ([`PoolRules`]):
            What to keep.

    Returns:
        `dict[str, int]`: A count for each of `FATES`; they sum to the number of prompts.
    """
    counts = Counter(rules.fate(outcome) for outcome in outcomes)
    return {fate: counts[fate] for fate in FATES}


def pass_rate_histogram(outcomes: Sequence[PromptOutcome], num_bins: int) -> list[int]:
    """
    Number of prompts in each of `num_bins` equal bins of the pass rate, the last one closed at 1.

    With one bin more than responses a prompt, every possible rate of a fully scored prompt has a bin of its own.

    Args:
        outcomes (`Sequence[PromptOutcome]`):
            Outcomes; those without a pass rate do not count.
        num_bins (`int`):
            Number of bins.

    Returns:
        `list[int]`: Counts, from rate 0 to rate 1.
    """
    bins = [0] * num_bins
    for outcome in outcomes:
        if outcome.num_scored:
            # Integers throughout: a rate such as 7/25 must not fall into the bin below by rounding.
            bins[min(outcome.num_right * num_bins // outcome.num_scored, num_bins - 1)] += 1
    return bins
