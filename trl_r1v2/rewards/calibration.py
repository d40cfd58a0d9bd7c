# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Calibrations that bring the unbounded score of a reward model to the scale of the rules.

Scope: pure objects `calibrate(scores, observed) -> values` with JSON-able state; a score that is not finite is an
error, since one would stay in a moving state for good. R1V2 adds r_θ as it is (eq. 7), which
is [`Raw`]; the other three are ours. Does not cover: collecting scores over processes, which
[`~trl_r1v2.rewards.hybrid.HybridReward`] does.
"""

import bisect
import math
from collections import deque


class Raw:
    """The score itself (R1V2, eq. 7)."""

    kind = "raw"
    moving = False

    def calibrate(self, scores: list[float], observed: list[float]) -> list[float]:
        _require_finite(scores)
        return list(scores)

    def metrics(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict:
        return {"kind": self.kind}

    def load_state_dict(self, state: dict):
        _require_kind(self, state)


class Sigmoid:
    r"""
    `1 / (1 + exp(−(s − shift) / scale))`, in (0, 1). Ours.

    Reward models are trained with `−log σ(s⁺ − s⁻)`, so with `scale = 1` the value is the model's probability that the
    response beats one of score `shift`.

    Args:
        shift (`float`, *optional*, defaults to `0.0`):
            Score that maps to 0.5.
        scale (`float`, *optional*, defaults to `1.0`):
            Width, in units of the score; positive.
    """

    kind = "sigmoid"
    moving = False

    def __init__(self, shift: float = 0.0, scale: float = 1.0):
        if not scale > 0:
            raise ValueError(f"scale is {scale}; it must be positive.")
        self.shift = shift
        self.scale = scale

    def calibrate(self, scores: list[float], observed: list[float]) -> list[float]:
        _require_finite(scores)
        return [0.5 * (1.0 + math.tanh(0.5 * (score - self.shift) / self.scale)) for score in scores]

    def metrics(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict:
        return {"kind": self.kind}

    def load_state_dict(self, state: dict):
        _require_kind(self, state)


class RunningZScore:
    r"""
    `clip((s − mean) / std, ±clip)` with the mean and (population) standard deviation of every score seen so far, the
    present ones included. Ours.

    Args:
        clip (`float`, *optional*, defaults to `3.0`):
            Bound of the value; positive.
        min_count (`int`, *optional*, defaults to `2`):
            Scores needed; before, and while the deviation is 0, the value is 0.
    """

    kind = "zscore"
    moving = True

    def __init__(self, clip: float = 3.0, min_count: int = 2):
        if not clip > 0:
            raise ValueError(f"clip is {clip}; it must be positive.")
        if min_count < 2:
            raise ValueError(f"min_count is {min_count}; a deviation needs at least 2 scores.")
        self.clip = clip
        self.min_count = min_count
        self.count = 0
        self.mean = 0.0
        self.sum_squares = 0.0  # of the deviations from the mean (Welford)

    @property
    def std(self) -> float:
        return math.sqrt(self.sum_squares / self.count) if self.count else 0.0

    def calibrate(self, scores: list[float], observed: list[float]) -> list[float]:
        _require_finite(scores)
        _require_finite(observed)
        count, mean, sum_squares = self.count, self.mean, self.sum_squares
        for score in observed:
            count += 1
            delta = score - mean
            mean += delta / count
            sum_squares += delta * (score - mean)
        if not math.isfinite(sum_squares):
            raise ValueError(
                f"the squares of scores up to {max(map(abs, observed)):g} are too large for a deviation; "
                "scale them down."
            )
        self.count, self.mean, self.sum_squares = count, mean, sum_squares
        if self.count < self.min_count or self.std == 0.0:
            return [0.0] * len(scores)
        return [max(-self.clip, min(self.clip, (score - self.mean) / self.std)) for score in scores]

    def metrics(self) -> dict[str, float]:
        return {"calibration_mean": self.mean, "calibration_std": self.std}

    def state_dict(self) -> dict:
        return {"kind": self.kind, "count": self.count, "mean": self.mean, "sum_squares": self.sum_squares}

    def load_state_dict(self, state: dict):
        _require_kind(self, state)
        _require_finite([state["mean"], state["sum_squares"]], "the saved calibration holds", "start from no state")
        self.count, self.mean, self.sum_squares = state["count"], state["mean"], state["sum_squares"]


class RunningQuantile:
    r"""
    Share of the last `window` scores below the score, ties counted half: in [0, 1]. Ours.

    Args:
        window (`int`, *optional*, defaults to `4096`):
            Scores remembered, the present ones included.
    """

    kind = "quantile"
    moving = True

    def __init__(self, window: int = 4096):
        if window < 1:
            raise ValueError(f"window is {window}; it must be at least 1.")
        self.window = window
        self.scores: deque[float] = deque(maxlen=window)

    def calibrate(self, scores: list[float], observed: list[float]) -> list[float]:
        _require_finite(scores)
        _require_finite(observed)
        self.scores.extend(observed)
        ordered = sorted(self.scores)
        if not ordered:
            return [0.5] * len(scores)
        return [
            (bisect.bisect_left(ordered, score) + bisect.bisect_right(ordered, score)) / (2 * len(ordered))
            for score in scores
        ]

    def metrics(self) -> dict[str, float]:
        if not self.scores:
            return {}
        return {"calibration_median": sorted(self.scores)[len(self.scores) // 2]}

    def state_dict(self) -> dict:
        return {"kind": self.kind, "scores": list(self.scores)}

    def load_state_dict(self, state: dict):
        _require_kind(self, state)
        _require_finite(state["scores"], "the saved calibration holds", "start from no state")
        self.scores = deque(state["scores"], maxlen=self.window)


CALIBRATIONS = {cls.kind: cls for cls in (Raw, Sigmoid, RunningZScore, RunningQuantile)}


def _require_kind(calibration, state: dict):
    if state["kind"] != calibration.kind:
        raise ValueError(
            f"The saved calibration is {state['kind']!r}, the configured one {calibration.kind!r}; configure the "
            "saved kind, or start from no state."
        )


def _require_finite(
    values: list[float],
    what: str = "a score to calibrate is",
    remedy: str = "give finite ones, and leave out what cannot be scored",
):
    for value in values:
        if not math.isfinite(value):
            raise ValueError(f"{what} {value}; {remedy}.")
