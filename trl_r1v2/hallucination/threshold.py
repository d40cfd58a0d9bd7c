# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
Reward thresholds: one chosen from scored samples, and one that moves with the hallucination rate.

R1V2 (section 4.4) selects MPO data by a threshold of 15 on its reward model's score and reports that 10 and 7 invite
reward hacking; how 15 was found, and any dynamic, is left open. Both parts here are ours. Pure: no files, no torch.
Files are `threshold_files.py`, the command `trl_r1v2/scripts/calibrate.py`, the trainer's side `monitor.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np

from ..evaluation.metrics import wilson_interval
from ..sampling.pairs import quantile


STATE_VERSION = 2
DEFAULT_QUANTILES = tuple(index / 20 for index in range(20))


@dataclass(frozen=True)
class SweepPoint:
    """
    What one threshold would keep.

    Args:
        threshold (`float`): Smallest score that is kept, in units of the score.
        quantile (`float`): Share of right responses that score less, in [0, 1].
        precision (`float` or `None`): Share of right ones among the judged responses kept; `None` if none is kept.
        low (`float` or `None`): Lower end of the precision's 95 % interval.
        high (`float` or `None`): Upper end.
        recall (`float`): Share of the right responses that is kept.
        num_responses (`int`): Responses kept.
        num_prompts (`int`): Prompts with a pair.
        num_pairs (`int`): Pairs of a right response kept and a wrong one, at most `max_pairs` a prompt.
    """

    threshold: float
    quantile: float
    precision: float | None
    low: float | None
    high: float | None
    recall: float
    num_responses: int
    num_prompts: int
    num_pairs: int


@dataclass(frozen=True)
class Calibration:
    """A sweep over thresholds in order, and the one it suggests (`None` if none keeps enough pairs), with the why."""

    points: list[SweepPoint]
    suggested: float | None
    reason: str


def calibrate_threshold(
    scores: Sequence[float | None],
    right: Sequence[bool | None],
    prompts: Sequence[int] | None = None,
    *,
    thresholds: Sequence[float] | None = None,
    quantiles: Sequence[float] | None = None,
    min_precision: float = 0.9,
    min_pairs: int = 1,
    max_pairs: int = 15,
) -> Calibration:
    r"""
    Sweep reward thresholds over scored samples.

    The expected precision at threshold \\( t \\) is \\( P(\text{right} | s \ge t) \\): how far the score alone can be
    trusted to choose. Responses to one prompt are not independent, so the interval is Wilson's for the effective
    number \\( p(1-p) / \widehat{\text{Var}} \\), with the variance of a ratio over prompts. Suggested is the lowest
    threshold (which keeps most data) whose interval lies above `min_precision`; if there is none, the one with the
    highest lower end. Ours.

    Args:
        scores (`Sequence[float | None]` of length `n`): Scores; responses without one are left out.
        right (`Sequence[bool | None]` of length `n`): Verdicts; responses without one are left out.
        prompts (`Sequence[int]` of length `n`, *optional*): Prompt of each response; by default every response is a
            prompt of its own, and no pairs are counted.
        thresholds (`Sequence[float]`, *optional*): Thresholds to try, in units of the score.
        quantiles (`Sequence[float]`, *optional*): Thresholds to try as quantiles, in [0, 1], of the scores of right
            responses, as `chosen_quantile` of [`~trl_r1v2.sampling.pairs.PairRules`]; 0, 0.05, …, 0.95 if neither is
            given.
        min_precision (`float`, *optional*, defaults to `0.9`): Wanted precision.
        min_pairs (`int`, *optional*, defaults to `1`): Pairs that a suggested threshold has to leave; not asked for
            without `prompts`.
        max_pairs (`int`, *optional*, defaults to `15`): Pairs a prompt (MMPR: up to 15).

    Returns:
        [`Calibration`]: One point a threshold.

    Raises:
        ValueError: There is no judged and scored response, none is right, or a setting is out of bounds.
    """
    if not 0 <= min_precision <= 1:
        raise ValueError(f"`min_precision` is {min_precision}; it must lie in [0, 1].")
    outside = [q for q in quantiles or () if not 0 <= q <= 1]
    if outside:
        raise ValueError(f"`quantiles` holds {outside[0]}; quantiles lie in [0, 1].")
    groups = np.arange(len(scores)) if prompts is None else np.unique(prompts, return_inverse=True)[1]
    known = [
        (float(s), bool(r), g)
        for s, r, g in zip(scores, right, groups, strict=True)
        if s is not None and r is not None and math.isfinite(s)
    ]
    good = [score for score, verdict, _ in known if verdict]
    if not good:
        raise ValueError(
            f"{len(known)} of {len(scores)} responses are scored and judged, and none of them is right: there is "
            "nothing to choose. Sample more responses, or correct the judge."
        )
    if thresholds is None and quantiles is None:
        quantiles = DEFAULT_QUANTILES
    values = {*(thresholds or ()), *(quantile(good, q) for q in quantiles or ())}
    columns = [np.array(column) for column in zip(*known, strict=True)]
    points = [_sweep_point(*columns, float(value), max_pairs) for value in sorted(values)]
    return Calibration(points, *_suggest(points, min_precision, 0 if prompts is None else min_pairs))


def _sweep_point(
    scores: np.ndarray, right: np.ndarray, groups: np.ndarray, threshold: float, max_pairs: int
) -> SweepPoint:
    """Scores, verdicts and prompts of shape `(n,)`, a response each."""

    def per_prompt(chosen: np.ndarray) -> np.ndarray:
        return np.bincount(groups[chosen], minlength=groups.max() + 1)

    kept = scores >= threshold
    num_kept, num_right = per_prompt(kept), per_prompt(kept & right)
    pairs = np.minimum(max_pairs, num_right * per_prompt(~right))
    precision, low, high = _ratio_interval(num_right[num_kept > 0], num_kept[num_kept > 0])
    below = float((scores[right] < threshold).mean())
    return SweepPoint(
        threshold=threshold,
        quantile=below,
        precision=precision,
        low=low,
        high=high,
        recall=1 - below,
        num_responses=int(num_kept.sum()),
        num_prompts=int((pairs > 0).sum()),
        num_pairs=int(pairs.sum()),
    )


def _ratio_interval(parts: np.ndarray, wholes: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """Σ parts / Σ wholes over independent clusters, and its 95 % interval."""
    if not len(parts):
        return None, None, None
    total, num = float(wholes.sum()), len(parts)
    ratio = float(parts.sum() / total)
    variance = float(((parts - ratio * wholes) ** 2).sum() / total**2)
    # Where all agree, or there is one prompt only, its responses count once.
    effective = num if variance == 0 or num == 1 else min(ratio * (1 - ratio) / variance, total)
    return ratio, *map(float, wilson_interval(ratio, effective))


def _suggest(points: list[SweepPoint], min_precision: float, min_pairs: int) -> tuple[float | None, str]:
    usable = [point for point in points if point.precision is not None and point.num_pairs >= min_pairs]
    if not usable:
        return None, f"no threshold leaves {min_pairs} pairs"
    for point in usable:
        if point.low >= min_precision:
            reason = f"lowest threshold whose precision is at least {min_precision:g} with 95 % confidence"
            return point.threshold, reason
    best = max(usable, key=lambda point: point.low)
    reason = f"no threshold reaches a precision of {min_precision:g} with 95 % confidence; this one comes closest"
    return best.threshold, f"{reason} ({best.low:.3f})"


@dataclass(frozen=True)
class Move:
    """One change of a threshold, at an optimizer step, by a hallucination rate, with its cause in words."""

    step: int
    rate: float
    before: float
    after: float
    cause: str


class RewardThresholdController:
    r"""
    Holds a hallucination rate at or below a target by moving a reward threshold. Ours.

    With the measured rate \\( h_k \\), target \\( h^* \\), dead band \\( d \\), gain \\( g \\) and largest step
    \\( s \\), and \\( e_k = h_k - h^* \\):

    \\( t_{k+1} = \text{clip}(t_k + \text{sign}(e_k) \min(g |e_k|, s), t_\text{min}, t_\text{max}) \\)

    if \\( e_k > d \\), or if \\( e_j < -d \\) in each of the last `patience` observations; else \\( t_{k+1} = t_k \\).
    The dead band is the hysteresis: between \\( h^* - d \\) and \\( h^* + d \\) nothing moves. Raising is prompt and
    lowering patient, since hacking costs more than a strict threshold. Each time that a rise had to undo a fall, \\( s
    \\) is halved for the falls to come, so that the threshold does not open and shut for ever.

    Args:
        target (`float`): Rate to hold, in [0, 1].
        initial (`float`): First threshold, in units of the score.
        minimum (`float`): Lowest threshold.
        maximum (`float`): Highest threshold. Above every score, it switches the reward off.
        gain (`float`, *optional*, defaults to `10.0`): Units of the score per unit of the rate.
        max_step (`float`, *optional*): Largest move; by default a quarter of `maximum - minimum`.
        dead_band (`float`, *optional*, defaults to `0.05`): Half width of the band around the target.
        patience (`int`, *optional*, defaults to `2`): Observations in a row below the band before a threshold falls.

    Raises:
        ValueError: A setting is out of bounds.
    """

    def __init__(
        self,
        target: float,
        initial: float,
        minimum: float,
        maximum: float,
        gain: float = 10.0,
        max_step: float | None = None,
        dead_band: float = 0.05,
        patience: int = 2,
    ):
        for name, value in (("target", target), ("dead_band", dead_band)):
            if not 0 <= value <= 1 or (name, value) == ("dead_band", 1):
                raise ValueError(f"{name} is {value}; a rate lies in [0, 1].")
        if not (math.isfinite(minimum) and math.isfinite(maximum) and minimum < maximum):
            raise ValueError(f"minimum is {minimum} and maximum {maximum}; give finite bounds, the lower one first.")
        if not minimum <= initial <= maximum:
            raise ValueError(f"initial is {initial}; it must lie in [minimum, maximum] = [{minimum}, {maximum}].")
        for name, value in (("gain", gain), ("max_step", max_step)):
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}; it must be positive.")
        if patience < 1:
            raise ValueError(f"patience is {patience}; give at least 1.")
        self.target, self.minimum, self.maximum = target, minimum, maximum
        self.gain, self.dead_band, self.patience = gain, dead_band, patience
        self.max_step = (maximum - minimum) / 4 if max_step is None else max_step
        self.threshold = float(initial)
        self.moves: list[Move] = []
        self.num_observations = 0
        self._num_low = 0  # observations below the band, in a row

    def observe(self, rate: float, step: int) -> Move | None:
        """Take a rate in [0, 1] that was measured at optimizer step `step` into account; return what changed."""
        if not 0 <= rate <= 1:
            raise ValueError(f"the rate is {rate}; it must lie in [0, 1].")
        self.num_observations += 1
        error = rate - self.target
        self._num_low = self._num_low + 1 if error < -self.dead_band else 0
        too_high, too_low = error > self.dead_band, self._num_low >= self.patience
        if not (too_high or too_low):
            return None
        max_step = self.max_step if too_high else self.max_step / 2 ** self._num_undone()
        size = min(self.gain * abs(error), max_step)
        after = min(max(self.threshold + math.copysign(size, error), self.minimum), self.maximum)
        if math.isclose(after, self.threshold, rel_tol=0, abs_tol=1e-9 * (self.maximum - self.minimum)):
            return None  # at the bound, up to the rounding of earlier moves
        limits = [f"a step of at most {max_step:g}"] if self.gain * abs(error) > max_step else []
        limits += [f"the bound {after:g}"] if after in (self.minimum, self.maximum) else []
        side = "above" if too_high else f"{self._num_low} times in a row below"
        cause = f"rate {rate:.3f} is {side} {self.target:g} ± {self.dead_band:g}"
        cause += f"; limited by {' and '.join(limits)}" if limits else ""
        move = Move(step=step, rate=rate, before=self.threshold, after=after, cause=cause)
        self.threshold = after
        self.moves.append(move)
        self._num_low = 0
        return move

    def _num_undone(self) -> int:
        """How often a rise came right after a fall."""
        rises = [move.after > move.before for move in self.moves]
        return sum(rise and not before for before, rise in pairwise(rises))

    def state_dict(self) -> dict:
        """JSON-able state; the settings are not part of it."""
        return {
            "schema_version": STATE_VERSION,
            "threshold": self.threshold,
            "num_observations": self.num_observations,
            "num_low": self._num_low,
            "moves": [asdict(move) for move in self.moves],
        }

    def load_state_dict(self, state: dict) -> None:
        """
        Restore what [`~RewardThresholdController.state_dict`] gave; refuses one of another version, with other fields,
        or with a threshold outside the bounds.
        """
        differing = sorted(state.keys() ^ self.state_dict().keys())
        if differing or state["schema_version"] != STATE_VERSION:
            raise ValueError(
                f"the controller's state has schema version {state.get('schema_version')}; this code reads "
                f"{STATE_VERSION} (lacking or unknown fields: {', '.join(differing) or 'none'}). Set "
                "`controller_initial` to its threshold instead."
            )
        if not self.minimum <= state["threshold"] <= self.maximum:
            raise ValueError(
                f"the saved threshold {state['threshold']} lies outside [{self.minimum}, {self.maximum}]; restore the "
                "bounds, or start from no state."
            )
        self.threshold = state["threshold"]
        self.num_observations, self._num_low = state["num_observations"], state["num_low"]
        self.moves = [Move(**move) for move in state["moves"]]
