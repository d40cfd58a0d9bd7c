# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
HybridReward alone: sums, weights, gates, calibrations, logging, state and configuration against values computed by
hand.
"""

import json
import math
import statistics
from dataclasses import dataclass, field

import pytest

from trl_r1v2.rewards import (
    AccuracyReward,
    Component,
    FormatReward,
    HybridReward,
    Raw,
    RunningZScore,
    Sigmoid,
    accuracy_reward,
    format_reward,
    r1v2_reward,
)


class Scripted:
    """A reward that returns the dataset column of its own name, and records the rows it was asked about."""

    def __init__(self, column):
        self.column = column
        self.asked = []

    def __call__(self, completions, **kwargs):
        self.asked.append(list(completions))
        return kwargs[self.column]


@dataclass
class State:
    """What HybridReward uses of transformers' `TrainerState`."""

    stateful_callbacks: dict = field(default_factory=dict)


class Log:
    def __init__(self):
        self.columns, self.metrics = {}, {}

    def kwargs(self):
        return {"log_extra": self.columns.__setitem__, "log_metric": self.metrics.__setitem__}


ROWS = ["right", "wrong", "unknown", "right again"]
RULE = [1.0, 0.0, None, 1.0]
THETA = [2.0, 5.0, -3.0, -1.0]
FORM = [1.0, 1.0, 0.0, None]


def build(**theta_options):
    theta = Scripted("theta")
    components = {"accuracy": Scripted("rule"), "theta": Component(theta, **theta_options), "format": Scripted("form")}
    return HybridReward(components), theta


def call(reward, log=None, **kwargs):
    log = log or Log()
    return reward(completions=ROWS, prompts=["Q"] * 4, rule=RULE, theta=THETA, form=FORM, **log.kwargs(), **kwargs)


def test_the_default_is_the_unweighted_sum_of_equation_7():
    reward, _ = build()
    assert call(reward) == [1 + 2 + 1, 0 + 5 + 1, -3 + 0, 1 - 1]


def test_weights_and_rows_where_nothing_applies():
    reward = HybridReward(
        {"accuracy": Component(Scripted("rule"), weight=2.0), "theta": Component(Scripted("theta"), weight=-0.5)}
    )
    columns = {"rule": [1.0, None, None], "theta": [4.0, math.nan, 2.0]}
    assert reward(completions=["a", "b", "c"], **columns) == [0.0, None, -1.0]


@pytest.mark.parametrize(
    ("options", "asked", "expected"),
    [
        ({"when": "unverified"}, ["unknown"], [2.0, 1.0, -3.0, 1.0]),
        ({"when": "right"}, ["right", "right again"], [4.0, 1.0, 0.0, 0.0]),
        ({"min_score": 0.0}, ROWS, [4.0, 6.0, 0.0, 1.0]),
        ({"min_score": -2.0}, ROWS, [4.0, 6.0, -2.0, 0.0]),
        ({"when": "right", "min_score": 0.0}, ["right", "right again"], [4.0, 1.0, 0.0, 1.0]),
        ({"when": "right", "min_score": 2.0, "weight": 10.0}, ["right", "right again"], [22.0, 1.0, 0.0, 21.0]),
    ],
)
def test_gates(options, asked, expected):
    """A gated component is asked about its own rows only, with the columns of those rows."""
    theta = Scripted("theta")

    def subset(completions, prompts, **kwargs):
        assert len(kwargs["theta"]) == len(completions) == len(prompts)
        return theta(completions, **kwargs)

    reward = HybridReward(
        {"theta": Component(subset, **options), "accuracy": Scripted("rule"), "format": Scripted("form")}
    )
    assert call(reward) == expected
    assert theta.asked == [asked]


def test_neither_a_low_score_nor_none_is_better_off_than_a_score_that_passes():
    """Scores of a reward model may all be negative: 0 for what is below the threshold, or not scored, would win."""
    theta, prompts = [-1.0, -3.0, -9.0, None, None, 2.0], ["P"] * 4 + ["Q"] * 2
    reward = HybridReward(
        {"theta": Component(Scripted("theta"), min_score=-4.0), "form": Scripted("form")}, rule="theta"
    )
    assert reward(completions=["a"] * 6, prompts=prompts, theta=theta, form=[0.5] * 6) == [
        -0.5,
        -2.5,
        -3.5,
        -3.5,
        0.5,
        2.5,
    ]
    messages = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}] for text in prompts]
    assert reward(completions=["a"] * 6, prompts=messages, theta=theta, form=[0.5] * 6)[3:5] == [-3.5, 0.5]


def test_a_gate_that_selects_no_row_does_not_call_the_component():
    reward, theta = build(when="unverified")
    assert reward(completions=["a"], rule=[0.0], theta=[7.0], form=[1.0]) == [1.0]
    assert theta.asked == []


def test_sigmoid_calibration():
    reward, _ = build(calibration=Sigmoid(shift=1.0, scale=2.0))
    expected = [1 / (1 + math.exp(-(score - 1.0) / 2.0)) for score in THETA]
    assert call(reward) == pytest.approx([2 + expected[0], 1 + expected[1], expected[2], 1 + expected[3]])
    assert Sigmoid().calibrate([-800.0, 800.0], []) == [0.0, 1.0]


def test_zscore_calibration_uses_every_score_seen_so_far():
    zscore = RunningZScore(clip=1.2)
    batches = [[2.0, 5.0, -3.0, -1.0], [10.0, 0.0], [4.0]]
    seen = []
    for batch in batches:
        seen += batch
        mean, std = statistics.fmean(seen), statistics.pstdev(seen)
        expected = [max(-1.2, min(1.2, (score - mean) / std)) for score in batch]
        assert zscore.calibrate(batch, batch) == pytest.approx(expected)
    assert 1.2 in zscore.calibrate([100.0], [])
    assert RunningZScore().calibrate([3.0], [3.0]) == [0.0]
    assert RunningZScore().calibrate([3.0, 3.0], [3.0, 3.0]) == [0.0, 0.0]


def test_update_calibration_off_leaves_the_state():
    reward, _ = build(calibration=RunningZScore())
    call(reward)
    before = reward.state_dict()
    reward.update_calibration = False
    reward(completions=["a"], rule=[1.0], theta=[99.0], form=[1.0])
    assert reward.state_dict() == before


def test_every_component_is_logged_by_row_and_by_batch():
    log = Log()
    reward, _ = build(when="right", min_score=0.0, calibration=Sigmoid())
    call(reward, log)
    half = 1 / (1 + math.exp(-2.0))
    assert log.columns == {
        "hybrid/accuracy": RULE,
        "hybrid/theta": [pytest.approx(half), None, None, 0.5],
        "hybrid/theta_score": [2.0, None, None, -1.0],
        "hybrid/format": FORM,
    }
    assert log.metrics == {
        "hybrid/accuracy/applied": 0.75,
        "hybrid/accuracy/mean": pytest.approx(2 / 3),
        "hybrid/theta/applied": 0.5,
        "hybrid/theta/mean": pytest.approx((half + 0.5) / 2),
        "hybrid/format/applied": 0.75,
        "hybrid/format/mean": pytest.approx(2 / 3),
    }


def test_columns_that_a_gated_component_logs_keep_one_value_a_row():
    def talkative(completions, log_extra, **kwargs):
        log_extra("note", [text.upper() for text in completions])
        return [0.5] * len(completions)

    log = Log()
    reward = HybridReward({"accuracy": Scripted("rule"), "model": Component(talkative, when="right")})
    assert call(reward, log) == [1.5, 0.0, None, 1.5]
    assert log.columns["hybrid/model/note"] == ["RIGHT", None, None, "RIGHT AGAIN"]


def test_state_survives_json_and_gives_the_same_values():
    def fresh():
        theta = Component(Scripted("theta"), calibration=RunningZScore())
        other = Component(Scripted("form"), calibration=RunningZScore(min_count=3))
        return HybridReward({"accuracy": Scripted("rule"), "theta": theta, "format": other})

    first, second = fresh(), fresh()
    call(first)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert call(second) == call(first)
    assert second.state_dict() == first.state_dict()


def test_state_of_another_configuration_is_refused_by_name():
    zscore, _ = build(calibration=RunningZScore())
    sigmoid, _ = build(calibration=Sigmoid())
    with pytest.raises(
        ValueError, match="Component 'theta': The saved calibration is 'zscore', the configured one 'sigmoid'"
    ):
        sigmoid.load_state_dict(zscore.state_dict())
    with pytest.raises(
        ValueError, match=r"components \['accuracy', 'format', 'theta'\], this HybridReward \['accuracy'\]"
    ):
        HybridReward({"accuracy": Raw}).load_state_dict(zscore.state_dict())
    with pytest.raises(ValueError, match="version 99"):
        zscore.load_state_dict({**zscore.state_dict(), "version": 99})


def test_moving_state_rides_in_the_trainer_state():
    """A checkpoint holds `TrainerState`; a new state object that carries ours is a resumed run."""
    running, resumed = build(calibration=RunningZScore())[0], build(calibration=RunningZScore())[0]
    state = State()
    call(running, trainer_state=state)
    saved = json.loads(json.dumps(state.stateful_callbacks))
    expected = call(running, trainer_state=state)
    assert call(resumed, trainer_state=State(saved)) == expected
    assert resumed.state_dict() == running.state_dict()
    still, _ = build()
    untouched = State()
    call(still, trainer_state=untouched)
    assert untouched.stateful_callbacks == {}


@pytest.mark.parametrize(
    ("build_it", "message"),
    [
        (lambda: HybridReward({}), "at least one component"),
        (lambda: Component(accuracy_reward, weight=math.nan), "weight is nan"),
        (lambda: Component(accuracy_reward, weight="1"), "weight is '1'"),
        (lambda: Component(accuracy_reward, min_score="5"), "min_score is '5'"),
        (lambda: Component(accuracy_reward, when="never"), "when is 'never'"),
        (lambda: Component("accuracy"), "is a str"),
        (lambda: HybridReward({"theta": Component(accuracy_reward, when="right")}), "gated by the rule 'accuracy'"),
        (lambda: HybridReward({"accuracy": Component(accuracy_reward, when="right")}), "have no gate itself"),
        (lambda: HybridReward({"a/b": accuracy_reward}), "contain '/'"),
        (lambda: Sigmoid(scale=0.0), "scale is 0.0"),
        (lambda: RunningZScore(clip=-1.0), "clip is -1.0"),
        (lambda: RunningZScore(min_count=1), "min_count is 1"),
    ],
)
def test_impossible_settings_are_refused(build_it, message):
    with pytest.raises(ValueError, match=message):
        build_it()


def test_models_and_coroutines_are_refused():
    import torch

    async def later(completions, **kwargs):
        return [0.0] * len(completions)

    with pytest.raises(ValueError, match="is asynchronous"):
        Component(later)
    with pytest.raises(ValueError, match="is a Linear.*RewardModelReward"):
        Component(torch.nn.Linear(1, 1))


def test_a_component_that_returns_too_few_rewards_is_named():
    with pytest.raises(ValueError, match="Component 'short' returned 1 rewards for 2 rows"):
        HybridReward({"short": lambda completions, **kwargs: [1.0]})(completions=["a", "b"])


def test_from_config():
    config = {
        "name": "my_reward",
        "prefix": "mine",
        "rule": "maths",
        "components": {
            "maths": {"type": "accuracy", "solution_column": "gold", "think_open": True},
            "format": {"think_open": True, "weight": 0.5},
            "step_completeness": None,
            "repetition": {"ngram_size": 2},
            "soft_overlong": {"max_completion_len": 4, "soft_punish_cache": 2, "weight": 2.0},
            "stock": {"type": "trl.rewards.think_format_reward", "when": "right"},
            "steps": {"type": "trl_r1v2.rewards.StepCompletenessReward", "target_steps": 1},
            "lang": {
                "type": "language_consistency",
                "calibration": {"type": "sigmoid", "scale": 2.0},
                "min_score": 0.5,
            },
            "plain": {"type": "trl_r1v2.rewards.format_reward", "calibration": "zscore"},
        },
    }
    reward = HybridReward.from_config(config)
    assert reward.__name__ == "my_reward"
    maths = reward.components["maths"].reward
    assert isinstance(maths, AccuracyReward)
    assert (maths.solution_column, maths.think_open) == ("gold", True)
    assert isinstance(reward.components["format"].reward, FormatReward)
    assert reward.components["plain"].reward is format_reward
    assert reward.components["steps"].reward.target_steps == 1
    log = Log()
    completions = [[{"role": "assistant", "content": "Step 1: a</think>5"}]]
    total = reward(completions=completions, gold=["5"], completion_ids=[[1, 1, 1]], **log.kwargs())
    values = {key.removeprefix("mine/"): column[0] for key, column in log.columns.items() if key.startswith("mine/")}
    sigmoid = 1 / (1 + math.exp(-0.5))
    assert values == {
        "maths": 1.0,
        "maths/answer": "5",
        "format": 1.0,
        "step_completeness": pytest.approx(1 / 3),
        "repetition": -0.5,  # two bigrams, one distinct
        "soft_overlong": -0.5,  # 3 tokens of 4, punished from 2 on
        "stock": 0.0,
        "steps": 1.0,
        "lang": pytest.approx(sigmoid),
        "lang_score": 1.0,
        "plain": 0.0,
        "plain_score": 0.0,
    }
    assert total == pytest.approx([1.0 + 0.5 + 1 / 3 - 0.5 + 2 * -0.5 + 0.0 + 1.0 + sigmoid])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"component": {}}, "reward: unknown 'component'. Did you mean 'components'"),
        ({"components": {}}, "reward.components is .*must be a mapping"),
        (
            {"components": {"acuracy": {}}},
            r"reward.components.acuracy.type: unknown 'acuracy'. Did you mean 'accuracy'",
        ),
        (
            {"components": {"format": {"think_opened": True}}},
            "reward.components.format: unknown 'think_opened'. Did you mean 'think_open'",
        ),
        ({"components": {"format": {"when": "never"}}}, "reward.components.format: when is 'never'"),
        (
            {"components": {"format": {"calibration": "zscores"}}},
            "calibration.type: unknown 'zscores'. Did you mean 'zscore'",
        ),
        (
            {"components": {"format": {"calibration": {"type": "zscore", "clip": -1}}}},
            "format.calibration: clip is -1",
        ),
        ({"components": {"soft_overlong": {}}}, "soft_overlong: max_completion_len, soft_punish_cache must be given"),
        ({"components": {"accuracy": 1.0}}, r"reward.components.accuracy is 1.0; it must be a mapping .*weight: 1.0"),
        ({"components": {"accuracy": []}}, r"reward.components.accuracy is \[\]; it must be a mapping"),
        (
            {"components": {"format": {"weight": "1e-x"}}},
            "format.weight is '1e-x'; it should be a valid number",
        ),
        (
            {"components": {"format": {"weight": True}}},
            "format.weight is True; it should be a valid number",
        ),
        ({"components": {"format": {"min_score": "high"}}}, "format.min_score is 'high'; it should be a valid number"),
        ({"components": {"format": {"min_score": math.inf}}}, "components.format: min_score is inf"),
        (
            {"components": {"format": {"think_open": "yes"}}},
            "format.think_open is 'yes'; it should be a valid boolean",
        ),
        ({"components": {"repetition": {"ngram_size": 2.5}}}, "ngram_size is 2.5; it should be a valid integer"),
        ({"components": {"format": {"type": 5}}}, "components.format.type is 5; it should be a valid string"),
        ({"components": {"format": {"calibration": 5}}}, "format.calibration is 5; it must be a mapping"),
        (
            {"components": {"format": {"calibration": {"type": "zscore", "clip": "wide"}}}},
            "format.calibration.clip is 'wide'; it should be a valid number",
        ),
        ({"components": {1: {}}}, "reward.components has the key 1; keys are text"),
        ({"components": {"accuracy": {}}, "prefix": 5}, "reward.prefix is 5; it should be a valid string"),
        ([], r"reward is \[\]; it must be a mapping"),
        (
            {"components": {"theta": {"type": "reward_model", "path": "runs/no/such"}}},
            "reward.components.theta: runs/no/such: no such folder",
        ),
        (
            {"components": {"theta": {"type": "reward_model", "path": "runs/misspelt"}}},
            "components.theta: runs/misspelt: no such folder below",
        ),
        ({"components": {"x": {"type": "no.such.reward"}}}, "cannot import 'no.such.reward'"),
        (
            {"components": {"soft_overlong": {"max_completion_len": 5, "soft_punish_cache": 6}}},
            "soft_punish_cache is 6",
        ),
    ],
)
def test_wrong_configurations_are_refused_with_their_place(config, message):
    with pytest.raises(ValueError, match=message):
        HybridReward.from_config(config)


def test_the_preset_is_accuracy_plus_format():
    completions = [r"<think>a</think>\boxed{2}", r"\boxed{2}", "<think>a</think>3", "3"]
    assert r1v2_reward(completions=completions, solution=["2"] * 4) == [2.0, 1.0, 1.0, 0.0]
    assert r1v2_reward.__name__ == "r1v2_reward"
