# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Settings of the hallucination monitor and of the threshold controller behind it: the fields, their bounds, and which
signals they switch on. All defaults are ours. Loading what the dotted paths name is the command's business.
"""

import math
from dataclasses import dataclass

from transformers.hf_argparser import HfArg

from .threshold import RewardThresholdController


# Signals, with the field that each waits for.
SIGNALS = {
    "blind_phrases": None,
    "grounding_gap": None,
    "object_probes": "monitor_object_column",
    "named_objects": "monitor_claims_func",
    "reward_disagreement": "monitor_reward_func",
    "critical_tokens": None,
}
# Rates in [0, 1] that are worse the higher they are, with the signal that gives them: what can stop a run and move a
# threshold.
WATCHABLE = {
    "rate": "named_objects",
    "chair_i": "named_objects",
    "blind_phrase_rate": "blind_phrases",
    "ungrounded_rate": "grounding_gap",
    "object_error": "object_probes",
    "wrong_above_threshold": "reward_disagreement",
    "wrong_above_median": "reward_disagreement",
}


@dataclass
class MonitorConfig:
    """
    What the monitor measures, how often, and what it may cost; the fields' meanings are in their help. A signal is
    measured where what it needs is set, unless `monitor_signals` names the ones to measure.
    """

    monitor_dataset: str | None = HfArg(
        default=None, help="Probe set: folder or Hub name with a column `prompt`, and images. Unset: no monitor."
    )
    monitor_dataset_config: str | None = HfArg(default=None, help="Configuration of the probe set.")
    monitor_split: str = HfArg(default="validation", help="Its split; neither the training nor the test split.")
    monitor_signals: list[str] | None = HfArg(
        default=None, help=f"Signals to measure: {', '.join(SIGNALS)}. Unset: all whose inputs are set."
    )
    monitor_every: int = HfArg(default=50, help="Optimizer steps between two probes.")
    monitor_at_start: bool = HfArg(default=True, help="Whether to probe before the first step, too.")
    monitor_max_rows: int = HfArg(default=64, help="Rows of the probe set that are used, from its start.")
    monitor_max_new_tokens: int = HfArg(default=512, help="Longest response, in tokens.")
    monitor_temperature: float = HfArg(default=1.0, help="Sampling temperature. 0: greedy decoding.")
    monitor_batch_size: int = HfArg(default=16, help="Rows that a process answers at once.")
    monitor_seed: int = HfArg(default=0, help="Seed of the sampling, the same at every probe.")
    monitor_max_cost_share: float | None = HfArg(
        default=0.1,
        help="Largest ratio of a probe's time to the training time that follows it before the next probe, "
        "which is put off as long as that takes. Unset (null): no bound.",
    )
    monitor_claims_func: str | None = HfArg(
        default=None,
        help="Function (response, column value) → what the response claims without support: a dotted path, as "
        "`hallucination_func` of `evaluate`. Needed for named_objects.",
    )
    monitor_claims_column: str | None = HfArg(default=None, help="What the images hold, for `monitor_claims_func`.")
    monitor_named_func: str | None = HfArg(default=None, help="(response) → all its claims: dotted path; for CHAIR_i.")
    monitor_object_column: str | None = HfArg(
        default=None, help="Column with `yes` or `no` where the prompt asks for an object. Needed for object_probes."
    )
    monitor_think_open: bool | None = HfArg(
        default=None,
        help="Whether the chat template opens `<think>`, as QwQ's and R1V2's do: then a response without "
        "`</think>` has not answered an object probe. Unset: looks at the prompts.",
    )
    monitor_min_gap: float = HfArg(default=0.01, help="Gap, nats a token, below which a response is ungrounded.")
    monitor_reward_func: str | None = HfArg(default=None, help="Reward model: dotted path; for reward_disagreement.")
    monitor_reward_threshold: float | None = HfArg(
        default=None, help="Score from which the reward model counts as pleased, for wrong_above_threshold."
    )
    monitor_rule_func: str = HfArg(
        default="trl_r1v2.rewards.accuracy_reward",
        help="Rule for reward_disagreement: a reward function by dotted path; right is at least 0.5.",
    )
    monitor_watch: str = HfArg(
        default="rate", help=f"Figure that stops the run and moves the threshold: one of {', '.join(WATCHABLE)}."
    )
    monitor_stop_above: float | None = HfArg(default=None, help="Stop training when the watched figure is above this.")
    monitor_stop_patience: int = HfArg(default=1, help="Probes in a row that have to be above `monitor_stop_above`.")

    def __post_init__(self):
        for name in ("every", "max_rows", "max_new_tokens", "batch_size", "stop_patience", "temperature"):
            value, least = vars(self)[f"monitor_{name}"], int(name != "temperature")
            if value < least:
                raise ValueError(f"`monitor_{name}` is {value}; give at least {least}.")
        if self.monitor_max_cost_share is not None and not self.monitor_max_cost_share > 0:
            raise ValueError(
                f"`monitor_max_cost_share` is {self.monitor_max_cost_share}; give more than 0, or null for no bound."
            )
        if self.monitor_stop_above is not None and not 0 <= self.monitor_stop_above <= 1:
            raise ValueError(f"`monitor_stop_above` is {self.monitor_stop_above}; a rate lies in [0, 1].")
        if self.monitor_watch not in WATCHABLE:
            raise ValueError(f"`monitor_watch` is {self.monitor_watch!r}; choose one of {', '.join(WATCHABLE)}.")
        if (self.monitor_claims_func is None) != (self.monitor_claims_column is None):
            raise ValueError("`monitor_claims_func` and `monitor_claims_column` belong together: set both or neither.")
        for signal in self.monitor_signals or ():
            if signal not in SIGNALS:
                raise ValueError(f"`monitor_signals` holds {signal!r}; choose among {', '.join(SIGNALS)}.")
            if self._lacks(signal):
                raise ValueError(f"the signal {signal} needs `{SIGNALS[signal]}`: set it, or leave the signal out.")
        if self.monitor_stop_above is not None:
            self.check_watched("`monitor_stop_above` has to")
        if self.monitor_watch == "wrong_above_threshold" and self.monitor_reward_threshold is None:
            raise ValueError("`monitor_watch` is wrong_above_threshold: set `monitor_reward_threshold`.")

    def _lacks(self, signal: str) -> bool:
        """Whether the field that a signal waits for is unset."""
        return SIGNALS[signal] is not None and vars(self)[SIGNALS[signal]] is None

    def check_watched(self, user: str) -> None:
        """Refuse to watch what is not measured; the message begins with `user`, who depends on the watched figure."""
        signal = WATCHABLE[self.monitor_watch]
        if signal not in self.signals:
            remedy = f"set `{SIGNALS[signal]}`" if self._lacks(signal) else f"add {signal} to `monitor_signals`"
            raise ValueError(
                f"{user} watch `{self.monitor_watch}`, which the signal {signal} gives, but that is off: {remedy}, or "
                "choose another `monitor_watch`."
            )

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals that are measured."""
        if self.monitor_signals is not None:
            return tuple(self.monitor_signals)
        return tuple(signal for signal in SIGNALS if not self._lacks(signal))


@dataclass
class ControllerConfig:
    """How the reward threshold follows the watched figure; the formula is [`RewardThresholdController`]'s."""

    controller_target: float | None = HfArg(default=None, help="Value of `monitor_watch` to hold by the threshold.")
    controller_component: str | None = HfArg(
        default=None,
        help="Component of the run's HybridReward whose `min_score` is the threshold. Unset: the threshold is "
        "only written to hallucination/threshold.json, for `pairs`.",
    )
    controller_initial: float | None = HfArg(default=None, help="First threshold. Unset: the lowest, or the file's.")
    controller_minimum: float | None = HfArg(default=None, help="Lowest threshold, in units of the score.")
    controller_maximum: float | None = HfArg(default=None, help="Highest threshold.")
    controller_gain: float = HfArg(default=10.0, help="Units of the score per unit of the rate.")
    controller_max_step: float | None = HfArg(default=None, help="Largest move. Unset: a quarter of the range.")
    controller_dead_band: float = HfArg(default=0.05, help="Distance from the target within which nothing moves.")
    controller_patience: int = HfArg(default=2, help="Probes in a row below the band before the threshold falls.")
    controller_file: str | None = HfArg(default=None, help="threshold.json whose controller this run continues.")

    def __post_init__(self):
        if self.controller_target is None:
            given = [name for name in ("component", "initial", "minimum", "maximum", "file")
                     if vars(self)[f"controller_{name}"] is not None]  # fmt: skip
            if given:
                raise ValueError(f"`controller_{given[0]}` is set, but there is no controller: give a target.")
            return
        for name in ("minimum", "maximum"):
            value = vars(self)[f"controller_{name}"]
            if value is None or not math.isfinite(value):
                raise ValueError(f"`controller_{name}` is {value}; give a finite bound, in units of the score.")
        if self.controller_initial is not None and self.controller_file is not None:
            raise ValueError("`controller_initial` and `controller_file` both give the first threshold: set one.")
        self.build()

    def build(self):
        """
        The [`RewardThresholdController`] at its first threshold, `controller_file` not read; `None` without a target.
        """
        if self.controller_target is None:
            return None
        names = ("target", "minimum", "maximum", "gain", "max_step", "dead_band", "patience")
        initial = self.controller_minimum if self.controller_initial is None else self.controller_initial
        return RewardThresholdController(initial=initial, **{name: vars(self)[f"controller_{name}"] for name in names})
