# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The offline phase of the Selective Sample Buffer: which prompts have mixed outcomes (R1V2, section on SSB). Pure:
verdicts on responses in, kept rows and counts out.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


FATES = ("kept", "all_right", "all_wrong", "too_hard", "too_easy", "unscorable")


@dataclass(frozen=True)
class PromptOutcome:
    """How the responses to one prompt turned out: its row, how many were sampled, could be judged, and were right."""

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


@dataclass
class PoolRules:
    """Which prompts to keep: those with right and wrong responses (R1V2), within bounds on the pass rate (ours)."""

    min_pass_rate: float = field(
        default=0.0,
        metadata={"help": "Smallest pass rate kept, inclusive (ours). Prompts without a right response never stay."},
    )
    max_pass_rate: float = field(
        default=1.0,
        metadata={"help": "Largest pass rate kept, inclusive (ours). Prompts without a wrong response never stay."},
    )

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
    """How many prompts met each of `FATES`."""
    counts = Counter(rules.fate(outcome) for outcome in outcomes)
    return {fate: counts[fate] for fate in FATES}


def pass_rate_histogram(outcomes: Sequence[PromptOutcome], num_bins: int) -> list[int]:
    """
    Number of prompts in each of `num_bins` equal bins of the pass rate, from 0 to 1, the last one closed; prompts
    without a rate do not count. With one bin more than responses a prompt, every possible rate of a fully scored
    prompt has a bin of its own.
    """
    bins = [0] * num_bins
    for outcome in outcomes:
        if outcome.num_scored:
            # Integers throughout: a rate such as 7/25 must not fall into the bin below by rounding.
            bins[min(outcome.num_right * num_bins // outcome.num_scored, num_bins - 1)] += 1
    return bins
