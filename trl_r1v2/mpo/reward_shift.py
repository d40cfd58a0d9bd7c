# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The reward shift δ of the quality loss: how it moves and how it is kept.

Needs the standard library alone. Does not cover where the rewards come from nor their reduction across processes: the
caller hands in a sum and a count over all of them.
"""

import json
import math
import os
from pathlib import Path
from typing import Any, Literal


SCHEMA_VERSION = 1
STATE_FILE = "mpo_state.json"

RewardShiftKind = Literal["running_mean", "ema", "zero"]


class MPOStateError(ValueError):
    """The state of the reward shift is missing from a checkpoint, damaged, or belongs to another run."""


class RewardShift:
    """
    The reward shift δ, "the moving average of past rewards" (Skywork R1V2, eq. 4).

    The rewards are those of chosen and rejected responses together. δ is 0 until the first batch and includes the
    batch it is used on.

    Args:
        kind (`str`):
            - `"running_mean"`: mean of all rewards seen so far, as in InternVL's training code.
            - `"ema"`: exponential moving average of the batches' means, the R1V2 paper's words taken literally. The
              paper gives no decay; starting at the first batch's mean is ours.
            - `"zero"`: no shift, as in TRL's `loss_type="bco_pair"`.
        decay (`float`): Weight of the past in `"ema"`, in (0, 1). Not used otherwise.
        beta (`float`): β of the rewards. δ is in their unit, so it cannot be carried over to a run with another β.
    """

    def __init__(self, kind: RewardShiftKind, decay: float, beta: float):
        if kind not in ("running_mean", "ema", "zero"):
            raise ValueError(f"reward shift is {kind!r} but must be 'running_mean', 'ema' or 'zero'.")
        self.kind = kind
        self.decay = decay
        self.beta = beta
        self.value = 0.0
        self.num_rewards = 0

    def update(self, reward_sum: float, num_rewards: int) -> float:
        """
        Take in the sum (which must be finite: δ would not recover) and number, over all processes, of a batch's
        rewards; return δ with it.
        """
        if self.kind == "zero" or num_rewards == 0:
            return self.value
        if not math.isfinite(reward_sum):
            raise FloatingPointError(
                f"the rewards of this batch sum to {reward_sum}: the policy or the reference gave a log-probability "
                "that is no number. Look at the loss and gradient norm of the steps before; a lower learning rate, "
                "`max_grad_norm` or bf16 instead of fp16 help."
            )
        mean = reward_sum / num_rewards
        if self.kind == "running_mean":
            self.value += (mean - self.value) * num_rewards / (self.num_rewards + num_rewards)
        else:
            self.value = mean if self.num_rewards == 0 else self.decay * self.value + (1 - self.decay) * mean
        self.num_rewards += num_rewards
        return self.value

    def _settings(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "reward_shift": self.kind,
            "reward_shift_decay": self.decay if self.kind == "ema" else None,
            "beta": self.beta,
        }

    def state_dict(self) -> dict[str, Any]:
        return {**self._settings(), "value": self.value, "num_rewards": self.num_rewards}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; an `MPOStateError` if a field is missing, or a setting differs from this run's."""
        settings = self._settings()
        missing = [name for name in (*settings, "value", "num_rewards") if name not in state]
        if missing:
            raise MPOStateError(f"fields missing: {', '.join(missing)}.")
        differing = [
            f"{name} {state[name]!r} (here {here!r})" for name, here in settings.items() if state[name] != here
        ]
        if differing:
            raise MPOStateError(
                f"it was written with {', '.join(differing)}: resume with the settings it was written with, or start "
                "a new run from the checkpoint's weights (`model_name_or_path`)."
            )
        if not math.isfinite(state["value"]) or state["num_rewards"] < 0:
            raise MPOStateError(f"value {state['value']!r} after {state['num_rewards']!r} rewards is no reward shift.")
        self.value = float(state["value"])
        self.num_rewards = int(state["num_rewards"])


def save_reward_shift(shift: RewardShift, checkpoint: Path) -> None:
    """Write δ into a checkpoint's folder, which is made if need be; a crash leaves either no file or a whole one."""
    checkpoint.mkdir(parents=True, exist_ok=True)
    temporary = checkpoint / f"{STATE_FILE}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(shift.state_dict(), file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, checkpoint / STATE_FILE)


def load_reward_shift(shift: RewardShift, checkpoint: Path) -> None:
    """
    Read δ from a checkpoint's folder; an `MPOStateError` that names file and remedy if it is not one of this run.
    """
    path = checkpoint / STATE_FILE
    if not path.is_file():
        raise MPOStateError(
            f"{path} is missing: the checkpoint was not written by `MPOTrainer`, or not completely. Resume from one "
            "that has the file, or start a new run from the checkpoint's weights (`model_name_or_path`)."
        )
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise MPOStateError(f"{path} is damaged ({error}): resume from an earlier checkpoint.") from error
    try:
        shift.load_state_dict(state)
    except MPOStateError as error:
        raise MPOStateError(f"{path}: {error}") from error
