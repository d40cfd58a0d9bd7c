# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
The hybrid reward of R1V2: `r = r_rule + r_θ + r_format` (eq. 7), as one TRL reward function.

Scope: named components with weights, gates and calibrations; logging of every component by row and by batch; state.
The unweighted sum is the paper's, gates and calibrations are ours. Does not cover: the components (`rules.py`,
`rules_text.py`, `reward_model.py`, `code/reward.py`), reading them from a recipe (`hybrid_config.py`).
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from .answers import message_text
from .calibration import Raw
from .columns import reward_columns
from .rules import accuracy_reward, format_reward


STATE_VERSION = 1
GATES = ("always", "unverified", "right")


@dataclass
class Component:
    r"""
    One addend of a [`HybridReward`].

    Args:
        reward (`Callable`): TRL reward function; returns a float or `None` for each row it is given.
        weight (`float`, *optional*, defaults to `1.0`): Factor of the (calibrated) value. Eq. 7 is unweighted.
        when (`str`, *optional*, defaults to `"always"`): Rows it is asked about: `"always"` (eq. 7), `"unverified"`
            (the rule returned `None`), or `"right"` (the rule returned more than 0). Ours.
        min_score (`float`, *optional*): Scores below it, before calibration, are paid as the threshold itself, so that
            none of them is better off than one that passes. Ours; R1V2 uses a threshold for MPO data (§4.4), not here.
        calibration (`Raw`, `Sigmoid` or `RunningZScore`, *optional*): Maps scores to the scale of the rules; the score
            itself by default.
    """

    reward: Callable
    weight: float = 1.0
    when: str = "always"
    min_score: float | None = None
    calibration: object = field(default_factory=Raw)

    def __post_init__(self):
        if not _is_finite(self.weight):
            raise ValueError(f"weight is {self.weight!r}; it must be a finite number.")
        if self.min_score is not None and not _is_finite(self.min_score):
            raise ValueError(f"min_score is {self.min_score!r}; it must be a finite number, or None.")
        if self.when not in GATES:
            raise ValueError(f"when is {self.when!r}; it must be one of {GATES}.")
        if not callable(self.reward) or any(
            cls.__module__.startswith("torch.nn") for cls in type(self.reward).__mro__
        ):
            raise ValueError(
                f"The reward is a {type(self.reward).__name__}; it must be a reward function. Wrap a model in "
                "`RewardModelReward`."
            )
        call = self.reward if inspect.isroutine(self.reward) else type(self.reward).__call__
        if inspect.iscoroutinefunction(call):
            raise ValueError(
                f"{self.reward} is asynchronous; pass it to the trainer's `reward_funcs` beside the HybridReward."
            )


class HybridReward:
    r"""
    Weighted sum of named reward components; a reward function for any TRL trainer.

    For row i, `r_i = Σ_c w_c · calibrate_c(max(score_c,i, min_score_c))` over the components that apply to the row:
    those that were asked (gate) and returned a score. `None` if none does. One that was asked and returned none adds
    0, or the least that it adds to a row of the same prompt if that is less: what cannot be scored must not be better
    off than what was. Defaults give eq. 7.

    Each call logs, one value for each local row, the columns `{prefix}/{component}` (the value before its weight,
    `None` where it does not apply) and, where a calibration or a threshold changes it, `{prefix}/{component}_score`
    (the raw score), through TRL's `log_extra`; and the metrics `{prefix}/{component}/mean` and `/applied` (share of
    rows) through `log_metric`.

    With several processes every rank must call it the same number of times (TRL does): moving calibrations see the
    scores of all ranks, so their state is the same everywhere. That state is kept in the trainer's
    `TrainerState.stateful_callbacks` under `{name}/{prefix}`, hence in every checkpoint, and is taken from there on
    resume. Scores of an evaluation move it too, unless `update_calibration` is set to `False` meanwhile.

    Args:
        components (`dict[str, Component | Callable]`): Components by name; a bare callable gets weight 1, no gate and
            no calibration.
        rule (`str`, *optional*, defaults to `"accuracy"`): Component that the gates `"unverified"` and `"right"` look
            at.
        prefix (`str`, *optional*, defaults to `"hybrid"`): Start of column and metric names. Two instances in one
            trainer need different ones.
        name (`str`, *optional*, defaults to `"hybrid_reward"`): Name under which TRL logs the sum.

    Raises:
        `ValueError`: For no components, a name with `/`, a gate without its rule, or a rule that is itself gated. In
            the second batch beside another instance of the same name and prefix, if calibrations move.

    Example:
    ```python
    >>> from trl_r1v2.rewards import Component, HybridReward, accuracy_reward, format_reward

    >>> reward = HybridReward({"accuracy": accuracy_reward, "format": Component(format_reward, weight=0.5)})
    >>> reward(completions=[r"<think>1+1</think> \boxed{2}", "2"], solution=["2", "2"])
    [1.5, 1.0]
    ```
    """

    def __init__(self, components: dict, rule: str = "accuracy", prefix: str = "hybrid", name: str = "hybrid_reward"):
        if not components:
            raise ValueError("HybridReward needs at least one component.")
        self.components = {
            key: value if isinstance(value, Component) else Component(value) for key, value in components.items()
        }
        self.rule = rule
        self.prefix = prefix
        self.__name__ = name
        self.update_calibration = True
        self._trainer_state = None
        self._published = None
        self._columns: dict[str, set[str]] = {key: set() for key in self.components}
        self._check_gates()

    @classmethod
    def from_config(cls, config: dict) -> "HybridReward":
        """Build one from a recipe's mapping; see [`~trl_r1v2.rewards.hybrid_config.build_hybrid_reward`]."""
        from .hybrid_config import build_hybrid_reward

        return build_hybrid_reward(config)

    @property
    def required_columns(self) -> tuple[str, ...]:
        """Dataset columns that the components need."""
        return tuple(reward_columns([component.reward for component in self.components.values()]))

    @property
    def reward_version(self) -> str:
        """Weights, gates and thresholds: an advantage from other ones does not compare with those from these."""
        return repr([(key, part.weight, part.when, part.min_score) for key, part in self.components.items()])

    def set_min_score(self, component: str, min_score: float | None) -> None:
        """
        Change from which score on a component is paid as it is (see [`Component`]), from the next call on. Raises
        `ValueError` if there is no such component, or the score is not finite.
        """
        if component not in self.components:
            raise ValueError(f"There is no component {component!r}, only {', '.join(self.components)}.")
        self.components[component] = replace(self.components[component], min_score=min_score)

    def _check_gates(self):
        gated = [key for key, component in self.components.items() if component.when != "always"]
        if gated and (self.rule not in self.components or self.rule in gated):
            raise ValueError(
                f"{gated} are gated by the rule {self.rule!r}, which must be one of the components "
                f"{list(self.components)} and have no gate itself: set `rule`, or its `when` to 'always'."
            )
        bad = [key for key in self.components if "/" in key]
        if bad:
            raise ValueError(
                f"Component names {bad} contain '/', which separates the prefix in logged names; rename them."
            )

    def __call__(
        self, completions, prompts=None, trainer_state=None, log_extra=None, log_metric=None, **columns
    ) -> list[float | None]:
        self._follow(trainer_state)
        num_rows = len(completions)
        columns = {**columns, "completions": completions}
        extras = {"trainer_state": trainer_state, "log_extra": log_extra, "log_metric": log_metric}
        extras = {name: value for name, value in extras.items() if value is not None}
        if prompts is not None:
            columns["prompts"] = prompts
        scores: dict[str, list[float | None]] = {}
        values: dict[str, list[float | None]] = {}
        asked: dict[str, list[int]] = {}
        for key in sorted(self.components, key=lambda key: self.components[key].when != "always"):
            component = self.components[key]
            asked[key] = _asked_rows(component.when, scores.get(self.rule, []), num_rows)
            scores[key] = self._score(key, component, asked[key], num_rows, columns, extras)
            values[key] = self._value(component, scores[key])
        self._log(scores, values, log_extra, log_metric)
        self._publish(trainer_state)
        return self._sums(values, asked, [_text_of(prompt) for prompt in prompts or [""] * num_rows])

    def _score(self, key: str, component: Component, rows: list[int], num_rows: int, columns: dict, extras: dict):
        """
        Raw scores for all rows, `None` where the component was not asked; it sees only the rows it is asked about.
        """
        log_extra, logged = extras.get("log_extra"), set()

        def log(column: str, column_values: list):
            """
            `log_extra` of a component, under its own name: the same reward may also run outside of this one, and TRL
            appends to equal columns. TRL wants a value for each local row.
            """
            label = f"{self.prefix}/{key}/{column.rpartition('/')[2]}"
            logged.add(label)
            log_extra(label, _spread(column_values, rows, num_rows))

        returned = []
        if rows:
            selected = {
                name: [value[row] for row in rows] if isinstance(value, list) and len(value) == num_rows else value
                for name, value in columns.items()
            }
            returned = component.reward(**selected, **extras | ({"log_extra": log} if log_extra else {}))
        if len(returned) != len(rows):
            raise ValueError(
                f"Component {key!r} returned {len(returned)} rewards for {len(rows)} rows; it must return one a row."
            )
        scores = [None if score is None or math.isnan(score) else float(score) for score in returned]
        for row, score in zip(rows, scores, strict=True):
            if score is not None and math.isinf(score):
                raise ValueError(
                    f"Component {key!r} returned {score} for row {row}: return a finite number, or None for what "
                    "cannot be scored."
                )
        if log_extra is not None:
            for label in sorted(self._columns[key] - logged):
                log_extra(label, [None] * num_rows)  # TRL's table would keep the values of an earlier batch
            self._columns[key] |= logged
        return _spread(scores, rows, num_rows)

    def _value(self, component: Component, scores: list[float | None]) -> list[float | None]:
        present = [score for score in scores if score is not None]
        observed = []
        if component.calibration.moving and self.update_calibration:
            from accelerate.utils import gather_object

            observed = gather_object(present)  # every rank joins, also with no scores
        if component.min_score is not None:
            present = [max(score, component.min_score) for score in present]
        calibrated = iter(component.calibration.calibrate(present, observed))
        return [None if score is None else next(calibrated) for score in scores]

    def _sums(self, values: dict, asked: dict, groups: list[str]) -> list[float | None]:
        sums = [0.0] * len(groups)
        for key, column in values.items():
            added = {row: self.components[key].weight * column[row] for row in asked[key] if column[row] is not None}
            least: dict[str, float] = {}
            for row, value in added.items():
                least[groups[row]] = min(least.get(groups[row], 0.0), value)
            for row in asked[key]:
                sums[row] += added.get(row, least.get(groups[row], 0.0))
        applies = [any(column[row] is not None for column in values.values()) for row in range(len(groups))]
        return [total if applied else None for total, applied in zip(sums, applies, strict=True)]

    def _log(self, scores: dict, values: dict, log_extra, log_metric):
        for key, component in self.components.items():
            label = f"{self.prefix}/{key}"
            if log_extra is not None:
                log_extra(label, values[key])
                if component.calibration.kind != "raw" or component.min_score is not None:
                    log_extra(f"{label}_score", scores[key])
            if log_metric is not None:
                present = [value for value in values[key] if value is not None]
                log_metric(f"{label}/applied", len(present) / len(values[key]))
                if present:
                    log_metric(f"{label}/mean", sum(present) / len(present))
                for name, value in component.calibration.metrics().items():
                    log_metric(f"{label}/{name}", value)

    def _moving(self) -> bool:
        return any(component.calibration.moving for component in self.components.values())

    @property
    def _state_key(self) -> str:
        return f"{self.__name__}/{self.prefix}"

    def _follow(self, trainer_state):
        """A `TrainerState` not seen before that carries our state is a resumed run: take the state over."""
        if trainer_state is None or not self._moving():
            return
        saved = trainer_state.stateful_callbacks.get(self._state_key)
        if trainer_state is self._trainer_state and saved is not self._published:
            raise ValueError(
                f"Two HybridRewards of this trainer have the name {self.__name__!r} and the prefix {self.prefix!r}, "
                "so each would take over the calibration of the other; give one of them another `prefix`."
            )
        if trainer_state is not self._trainer_state and saved is not None:
            self.load_state_dict(saved)
        self._trainer_state = trainer_state

    def _publish(self, trainer_state):
        if trainer_state is not None and self._moving():
            self._published = trainer_state.stateful_callbacks[self._state_key] = self.state_dict()

    def state_dict(self) -> dict:
        """JSON-able state of every calibration."""
        return {
            "version": STATE_VERSION,
            "components": {key: component.calibration.state_dict() for key, component in self.components.items()},
        }

    def load_state_dict(self, state: dict):
        """Restore [`~HybridReward.state_dict`]'s state. Raises `ValueError` naming what differs."""
        if state["version"] != STATE_VERSION:
            raise ValueError(
                f"The saved state has version {state['version']}; this code reads version {STATE_VERSION}."
            )
        if set(state["components"]) != set(self.components):
            raise ValueError(
                f"The saved state has the components {sorted(state['components'])}, this HybridReward "
                f"{sorted(self.components)}; configure the saved ones, or start from no state."
            )
        for key, component in self.components.items():
            try:
                component.calibration.load_state_dict(state["components"][key])
            except ValueError as error:
                raise ValueError(f"Component {key!r}: {error}") from error


def _is_finite(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text_of(prompt) -> str:
    """The text of a prompt, by which rows of one group are known."""
    return prompt if isinstance(prompt, str) else " ".join(message_text(message.get("content")) for message in prompt)


def _asked_rows(when: str, rule: list[float | None], num_rows: int) -> list[int]:
    """The rows that a gate lets through, by the scores of the rule."""
    if when == "unverified":
        return [row for row, score in enumerate(rule) if score is None]
    if when == "right":
        return [row for row, score in enumerate(rule) if score is not None and score > 0]
    return list(range(num_rows))


def _spread(values: list, rows: list[int], num_rows: int) -> list:
    """The values of some rows as a column of all rows, `None` for the others."""
    found = dict(zip(rows, values, strict=True))
    return [found.get(row) for row in range(num_rows)]


# Eq. 7 without r_θ, unweighted, for dotted paths: stock `trl grpo --reward_funcs trl_r1v2.rewards.r1v2_reward`.
r1v2_reward = HybridReward({"accuracy": accuracy_reward, "format": format_reward}, name="r1v2_reward")
