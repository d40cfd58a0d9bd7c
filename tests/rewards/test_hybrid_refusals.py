# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
HybridReward refuses scores that are not finite, and reads what users write in YAML or says what is wrong with it.
"""

import json
import math

import pytest

from trl_r1v2.rewards import Component, HybridReward, Raw, RunningZScore, Sigmoid
from trl_r1v2.scripts.loading import load_reward_func
from trl_r1v2.scripts.recipe import RecipeError


ROWS = ["one", "two", "three", "four"]
THETA = [2.0, 5.0, -3.0, -1.0]


def theta_column(completions, theta, **kwargs):
    return theta


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path):
    """A dot and a sign are missing for YAML 1.1: `1e-1` is text to it."""
    path = tmp_path / "reward.yaml"
    path.write_text(
        "components:\n"
        "  accuracy: {}\n"
        "  format: {weight: 1e-1, min_score: '-5', calibration: {type: sigmoid, scale: 2e1}}\n"
    )
    reward = load_reward_func(str(path), entry="reward_funcs[0]")
    form = reward.components["format"]
    assert (form.weight, form.min_score, form.calibration.scale) == (0.1, -5, 20.0)


def test_a_misspelt_reward_model_is_said_with_file_and_place(tmp_path):
    path = tmp_path / "hybrid.yaml"
    path.write_text("components: {theta: {type: reward_model, path: runs/rewrad}}\n")
    with pytest.raises(
        RecipeError, match=r"hybrid.yaml`: reward.components.theta: .*runs/rewrad: no such folder below"
    ):
        load_reward_func(str(path), entry="reward_funcs[0]")


def test_length_is_judged_as_accuracy_beside_it():
    """A completion whose reasoning is not closed has no right answer, so it must not be paid for being short."""
    options = {"think_open": True, "solution_column": "gold"}
    components = {"accuracy": options, "cosine_length": {"max_length": 100, "right": [0.5, 2], **options}}
    reward = HybridReward.from_config({"components": components})
    columns = {}
    reward(
        completions=[r"so \boxed{5}", r"so</think> \boxed{5}"],
        completion_ids=[[0] * 100] * 2,
        gold=["5", "5"],
        log_extra=columns.__setitem__,
    )
    assert columns["hybrid/accuracy"] == [0.0, 1.0]
    assert columns["hybrid/cosine_length"] == [-0.5, 0.5]
    assert reward.required_columns == ("gold",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "max_length must be given"),
        ({"max_length": 9.5}, "max_length is 9.5; it should be a valid integer"),
        ({"max_length": 9, "right": 1.0}, "right is 1.0; it must be two numbers"),
        ({"max_length": 9, "think_open": "yes"}, "think_open is 'yes'; it should be a valid boolean"),
        ({"max_lenght": 9}, "unknown 'max_lenght'. Did you mean 'max_length'"),
    ],
)
def test_options_of_cosine_length_are_checked_when_it_is_built(options, message):
    with pytest.raises(ValueError, match=f"reward.components.cosine_length.*{message}"):
        HybridReward.from_config({"components": {"cosine_length": options}})


@pytest.mark.parametrize("calibration", [Raw, RunningZScore, Sigmoid])
@pytest.mark.parametrize("score", [math.inf, -math.inf])
def test_an_infinite_score_is_an_error_that_leaves_the_calibration_as_it_was(calibration, score):
    reward = HybridReward({"theta": Component(theta_column, calibration=calibration())})
    reward(completions=ROWS, theta=THETA)
    before = reward.state_dict()
    with pytest.raises(ValueError, match=f"Component 'theta' returned {score} for row 2"):
        reward(completions=ROWS, theta=[1.0, 2.0, score, 3.0])
    assert reward.state_dict() == before
    assert reward(completions=["a"], theta=[math.nan]) == [None]  # TRL's other way to say None


@pytest.mark.parametrize("calibration", [Raw, RunningZScore, Sigmoid])
@pytest.mark.parametrize("score", [math.inf, -math.inf, math.nan])
def test_calibrations_take_finite_scores_alone(calibration, score):
    calibration = calibration()
    calibration.calibrate([1.0, 2.0], [1.0, 2.0] if calibration.moving else [])
    before = json.dumps(calibration.state_dict())
    with pytest.raises(ValueError, match=f"a score to calibrate is {score}"):
        calibration.calibrate([1.0, score], [])
    if calibration.moving:
        with pytest.raises(ValueError, match=f"a score to calibrate is {score}"):
            calibration.calibrate([1.0], [1.0, score])
    assert json.dumps(calibration.state_dict()) == before


def test_scores_whose_squares_overflow_and_states_that_are_not_finite_are_refused():
    zscore = RunningZScore()
    with pytest.raises(ValueError, match="squares of scores up to 1e.200 are too large"):
        zscore.calibrate([1.0], [1e200, -1e200])
    assert (zscore.count, zscore.mean, zscore.sum_squares) == (0, 0.0, 0.0)
    with pytest.raises(ValueError, match="saved calibration holds nan; start from no state"):
        zscore.load_state_dict({"kind": "zscore", "count": 3, "mean": math.nan, "sum_squares": 1.0})
