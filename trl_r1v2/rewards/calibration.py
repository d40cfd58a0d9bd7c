# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Calibrations that bring the unbounded score of a reward model to the scale of the rules.

Scope: pure objects with JSON-able state; a score that is not finite is an error, since one would stay in a moving
state for good. R1V2 adds r_θ as it is (eq. 7), which is [`Raw`]; the other two are ours. Does not cover: collecting
scores over processes, which [`~trl_r1v2.rewards.hybrid.HybridReward`] does.
"""

import math
from dataclasses import dataclass


class Raw:
    """The score itself (R1V2, eq. 7); the base of the others, which override what differs."""

    kind = "raw"
    moving = False  # whether the values depend on earlier scores, which are its state
    _state: tuple[str, ...] = ()

    def calibrate(self, scores: list[float], observed: list[float]) -> list[float]:
        """Values of `scores`, after the state has taken in `observed`: what all processes were given."""
        remedy = "give finite ones, and leave out what cannot be scored"
        _require_finite([*scores, *observed], "a score to calibrate is", remedy)
        self._observe(observed)
        return self._values(scores)

    def _observe(self, scores: list[float]) -> None:
        pass

    def _values(self, scores: list[float]) -> list[float]:
        return list(scores)

    def metrics(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict:
        return {"kind": self.kind, **{name: getattr(self, name) for name in self._state}}

    def load_state_dict(self, state: dict):
        if state["kind"] != self.kind:
            raise ValueError(
                f"The saved calibration is {state['kind']!r}, the configured one {self.kind!r}; configure the "
                "saved kind, or start from no state."
            )
        _require_finite([state[name] for name in self._state], "the saved calibration holds", "start from no state")
        for name in self._state:
            setattr(self, name, state[name])


@dataclass
class Sigmoid(Raw):
    r"""
    `1 / (1 + exp(−(s − shift) / scale))`, in (0, 1). Ours.

    Reward models are trained with `−log σ(s⁺ − s⁻)`, so with `scale = 1` the value is the model's probability that the
    response beats one of score `shift`.

    Args:
        shift (`float`, *optional*, defaults to `0.0`): Score that maps to 0.5.
        scale (`float`, *optional*, defaults to `1.0`): Width, in units of the score; positive.
    """

    shift: float = 0.0
    scale: float = 1.0
    kind = "sigmoid"

    def __post_init__(self):
        if not self.scale > 0:
            raise ValueError(f"scale is {self.scale}; it must be positive.")

    def _values(self, scores: list[float]) -> list[float]:
        return [0.5 * (1.0 + math.tanh(0.5 * (score - self.shift) / self.scale)) for score in scores]


@dataclass
class RunningZScore(Raw):
    r"""
    `clip((s − mean) / std, ±clip)` with the mean and (population) standard deviation of every score seen so far, the
    present ones included. Ours.

    Args:
        clip (`float`, *optional*, defaults to `3.0`): Bound of the value; positive.
        min_count (`int`, *optional*, defaults to `2`): Scores needed; before, and while the deviation is 0, the value
            is 0.
    """

    clip: float = 3.0
    min_count: int = 2
    kind = "zscore"
    moving = True
    _state = ("count", "mean", "sum_squares")

    def __post_init__(self):
        if not self.clip > 0:
            raise ValueError(f"clip is {self.clip}; it must be positive.")
        if self.min_count < 2:
            raise ValueError(f"min_count is {self.min_count}; a deviation needs at least 2 scores.")
        self.count = 0
        self.mean = 0.0
        self.sum_squares = 0.0  # of the deviations from the mean (Welford)

    @property
    def std(self) -> float:
        return math.sqrt(self.sum_squares / self.count) if self.count else 0.0

    def _observe(self, scores: list[float]) -> None:
        count, mean, sum_squares = self.count, self.mean, self.sum_squares
        for score in scores:
            count += 1
            delta = score - mean
            mean += delta / count
            sum_squares += delta * (score - mean)
        if not math.isfinite(sum_squares):
            raise ValueError(
                f"the squares of scores up to {max(map(abs, scores)):g} are too large for a deviation; "
                "scale them down."
            )
        self.count, self.mean, self.sum_squares = count, mean, sum_squares

    def _values(self, scores: list[float]) -> list[float]:
        if self.count < self.min_count or self.std == 0.0:
            return [0.0] * len(scores)
        return [max(-self.clip, min(self.clip, (score - self.mean) / self.std)) for score in scores]

    def metrics(self) -> dict[str, float]:
        return {"calibration_mean": self.mean, "calibration_std": self.std}


CALIBRATIONS = {cls.kind: cls for cls in (Raw, Sigmoid, RunningZScore)}


def _require_finite(values: list[float], what: str, remedy: str):
    for value in values:
        if not math.isfinite(value):
            raise ValueError(f"{what} {value}; {remedy}.")
