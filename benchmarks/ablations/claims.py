# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What the paper claims, what was measured, and whether the two have the same direction.

Pure: figures in, sentences out. Where the figures come from is `sections.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy import stats

from benchmarks.ssb.skills_report import holm
from benchmarks.ssb.summary import interval


AGREES, OPPOSITE, UNDECIDED, BY_CONSTRUCTION = "agrees", "opposite", "not told apart", "true by construction"
LEVEL = 0.05  # chance that any verdict of the page is wrong, if nothing differs


@dataclass(frozen=True)
class Estimate:
    """
    Mean over seeds with its 95 % Student-t interval.

    Args:
        values (`tuple` of `float`): One a seed.
        digits (`int`, *optional*, defaults to `1`): Decimals that are shown.
        scale (`float`, *optional*, defaults to `1.0`): From `values` to what is shown: 100 shows shares in percent.
    """

    values: tuple[float, ...]
    digits: int = 1
    scale: float = 1.0

    @property
    def mean(self) -> float:
        """Mean in the unit that is shown."""
        return self.scale * interval(self.values)[0]

    @property
    def half_width(self) -> float | None:
        """Half the width of the interval, in the unit that is shown; `None` for a single seed."""
        return self.scale * interval(self.values)[1] if len(self.values) > 1 else None

    def text(self, signed: bool = False) -> str:
        mean = f"{self.mean:{'+' if signed else ''}.{self.digits}f}"
        return mean if self.half_width is None else f"{mean} ± {self.half_width:.{self.digits}f}"

    def as_dict(self) -> dict:
        values = [self.scale * value for value in self.values]
        return {"mean": self.mean, "half_width_95": self.half_width, "values": values}


def percent(values: Sequence[float]) -> Estimate:
    """The estimate of shares, in percent."""
    return Estimate(tuple(values), scale=100.0)


def paired(first: Estimate, second: Estimate, digits: int | None = None) -> Estimate:
    """`first` less `second`, seed by seed."""
    values = tuple(a - b for a, b in zip(first.values, second.values, strict=True))
    return Estimate(values, first.digits if digits is None else digits, first.scale)


@dataclass(frozen=True)
class Claim:
    """
    One comparison of an ablation.

    Args:
        name (`str`): What is compared, for the sentence.
        what (`str`): What is subtracted from what, and the unit.
        paper (`str`): What the paper says about it.
        sign (`int`): Direction of the difference in the paper: 1 up, -1 down, 0 if it says nothing.
        difference (`Estimate`): Ours, by seed.
        refuted (`str`, *optional*): What would have refuted it.
        by_construction (`bool`, *optional*, defaults to `False`): Whether the setting is made such that no other
            result was to be expected; then there is nothing to agree with.
        p_corrected (`float`, *optional*): `p_value` as [`corrected`] for the other comparisons; without it the
            verdict is that of the 95 % interval alone.
    """

    name: str
    what: str
    paper: str
    sign: int
    difference: Estimate
    refuted: str = "–"
    by_construction: bool = False
    p_corrected: float | None = None

    @property
    def p_value(self) -> float:
        """Of a two-sided t-test of the differences by seed against 0; 1 for a single seed."""
        values = self.difference.values
        if len(values) < 2:
            return 1.0
        if min(values) == max(values):
            return float(values[0] == 0)
        return float(stats.ttest_1samp(values, 0.0).pvalue)

    @property
    def is_decided(self) -> bool:
        """Whether a verdict is taken from the figures."""
        return self.sign != 0 and not self.by_construction

    @property
    def verdict(self) -> str | None:
        """`AGREES` or `OPPOSITE` if 0 is told apart from the difference; `None` if the paper claims nothing."""
        if not self.is_decided:
            return BY_CONSTRUCTION if self.by_construction else None
        if (self.p_value if self.p_corrected is None else self.p_corrected) > LEVEL:
            return UNDECIDED
        return AGREES if self.sign * self.difference.mean > 0 else OPPOSITE

    def as_dict(self) -> dict:
        return {
            "what": self.what,
            "paper": self.paper,
            "sign": self.sign,
            "difference": self.difference.as_dict(),
            "refuted": self.refuted,
            "p_value": self.p_value,
            "p_corrected": self.p_corrected,
            "verdict": self.verdict,
        }


def corrected(claims: Sequence[Claim]) -> list[Claim]:
    """The claims with Holm's (1979) correction of their p-values, over all that are decided by figures."""
    adjusted = iter(holm([claim.p_value for claim in claims if claim.is_decided]))
    return [replace(claim, p_corrected=next(adjusted)) if claim.is_decided else claim for claim in claims]


def sentence(claims: Sequence[Claim]) -> str:
    """The verdicts on an ablation, in one sentence."""
    phrases = {
        AGREES: "agrees with the paper in direction on",
        OPPOSITE: "is opposite to the paper in direction on",
        UNDECIDED: "does not tell the settings apart on",
        BY_CONSTRUCTION: "could not have disagreed on",
    }
    parts = []
    for verdict, phrase in phrases.items():
        names = [claim.name for claim in claims if claim.verdict == verdict]
        if names:
            listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
            parts.append(f"{phrase} {listed}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."
