# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Which dataset columns reward functions need: a missing one is found before training. Values are not checked."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable


# What `GRPOTrainer` itself passes to a reward function; every other parameter is a column.
_TRAINER_ARGUMENTS = {
    "prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments",
}  # fmt: skip


@runtime_checkable
class NeedsColumns(Protocol):
    """A reward function that names the dataset columns it takes from its keyword arguments."""

    @property
    def required_columns(self) -> Sequence[str]: ...


def reward_columns(reward_funcs: Sequence[Callable | Any]) -> list[str]:
    """
    The columns that reward functions, as `GRPOTrainer` takes them, ask for: their `required_columns`, and parameters
    without a default that the trainer does not provide itself, in order of appearance. Model names ask for none.
    """
    columns = []
    for func in reward_funcs:
        if not callable(func):
            continue
        if isinstance(func, NeedsColumns):
            columns += func.required_columns
        for name, parameter in inspect.signature(func).parameters.items():
            is_named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            if is_named and parameter.default is parameter.empty and name not in _TRAINER_ARGUMENTS:
                columns.append(name)
    return list(dict.fromkeys(columns))
