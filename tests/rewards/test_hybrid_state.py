# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Several HybridRewards in one trainer: each keeps its own calibration; columns of a gated component over batches."""

import json
import math
from types import SimpleNamespace

import pytest
from transformers import TrainerState

from trl_r1v2.rewards import Component, HybridReward, RunningZScore


LOW, HIGH = [-1.0, 1.0], [999.0, 1001.0]


def scorer(prefix, name="hybrid_reward", component="theta"):
    theta = Component(lambda completions, scores, **kwargs: scores, calibration=RunningZScore())
    return HybridReward({component: theta}, rule=component, prefix=prefix, name=name)


def call(reward, scores, state):
    return reward(completions=["x", "y"], scores=scores, trainer_state=state)


def resumed(state, path):
    """As a checkpoint gives it back."""
    state.save_to_json(path)
    return TrainerState.load_from_json(path)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"prefix": "a"}, {"prefix": "b"}),
        ({"prefix": "a", "component": "helpful"}, {"prefix": "b", "component": "honest"}),
        ({"prefix": "same", "name": "one"}, {"prefix": "same", "name": "two"}),
    ],
)
def test_two_rewards_of_one_trainer_keep_their_own_calibration(first, second, tmp_path):
    state = TrainerState()
    low, high = scorer(**first), scorer(**second)
    for _ in range(2):
        assert call(low, LOW, state) == [-1.0, 1.0]
        assert call(high, HIGH, state) == [-1.0, 1.0]
    state = resumed(state, tmp_path / "trainer_state.json")
    low, high = scorer(**first), scorer(**second)
    assert call(low, [0.0, 0.0], state) == [0.0, 0.0]
    assert call(high, [1000.0, 1000.0], state) == [0.0, 0.0]
    (low,), (high,) = ([c.calibration for c in reward.components.values()] for reward in (low, high))
    assert (low.count, low.mean) == (6, 0.0)
    assert (high.count, high.mean) == (6, 1000.0)
    assert low.std == high.std == pytest.approx(math.sqrt(4 / 6))


def test_two_rewards_of_one_name_and_prefix_are_refused(tmp_path):
    state = TrainerState()
    low, high = scorer("same"), scorer("same")
    call(low, LOW, state)
    call(high, HIGH, state)
    # In the second batch of the run, before anything is scored by the other's calibration once more.
    with pytest.raises(ValueError, match="name 'hybrid_reward' and the prefix 'same'.*another `prefix`"):
        call(low, LOW, state)
    state = resumed(state, tmp_path / "trainer_state.json")
    low, high = scorer("same"), scorer("same")
    call(low, LOW, state)
    call(high, HIGH, state)
    with pytest.raises(ValueError, match="Two HybridRewards"):
        call(low, LOW, state)


def test_one_reward_may_serve_one_trainer_after_another_and_rewards_without_state_any():
    """Stages of a pipeline share an instance; what does not move has nothing to mix up."""
    low = scorer("a")
    for count in (2, 4):
        state = TrainerState()
        call(low, LOW, state)
        assert state.stateful_callbacks["hybrid_reward/a"]["components"]["theta"]["count"] == count
    state = TrainerState()
    for value in (1.0, 2.0):
        still = HybridReward({"raw": lambda completions, value=value, **kwargs: [value] * 2})
        assert still(completions=["x", "y"], trainer_state=state) == [value] * 2
    assert state.stateful_callbacks == {}


def test_columns_of_a_component_are_empty_where_it_logs_none():
    """TRL's table keeps the last values of every column, so a column that is left out would show an earlier batch."""

    def judge(completions, log_extra, **kwargs):
        log_extra("words", [len(text.split()) for text in completions])
        if "long" in completions:
            log_extra("note", ["long"] * len(completions))
        return [0.5] * len(completions)

    rule = SimpleNamespace(verdicts=None)
    reward = HybridReward(
        {
            "accuracy": lambda completions, **kwargs: rule.verdicts,
            "judge": Component(judge, when="unverified"),
        }
    )

    def columns(verdicts, completions):
        rule.verdicts, logged = verdicts, {}

        def log_extra(column, values):
            assert column not in logged
            logged[column] = json.loads(json.dumps(values))

        reward(completions=completions, log_extra=log_extra)
        return {key.removeprefix("hybrid/judge/"): values for key, values in logged.items() if "judge/" in key}

    assert columns([1.0, 0.0], ["a", "b"]) == {}
    assert columns([None, 1.0], ["long", "b"]) == {"words": [1, None], "note": ["long", None]}
    assert columns([1.0, 1.0], ["a", "b"]) == {"words": [None, None], "note": [None, None]}
    assert columns([1.0, None], ["a", "b c"]) == {"words": [None, 2], "note": [None, None]}
