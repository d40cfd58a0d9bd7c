# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Sweeps counted by hand, intervals against scipy's, and the controller move by move."""

import json
import math

import numpy as np
import pytest
from scipy.stats import binomtest

from trl_r1v2.hallucination.threshold import RewardThresholdController, calibrate_threshold
from trl_r1v2.hallucination.threshold_files import read_threshold_file, write_threshold_file
from trl_r1v2.sampling.pairs import PairRules, Response, build_pairs, quantile


# prompt 0: right 5 and 3, wrong 1 and 4; prompt 1: right 2, wrong 2; prompt 2: right 9; two that cannot be used
SCORES = [5.0, 3.0, 1.0, 4.0, 2.0, 2.0, 9.0, 8.0, None]
RIGHT = [True, True, False, False, True, False, True, None, True]
PROMPTS = [0, 0, 0, 0, 1, 1, 2, 2, 2]


def test_a_sweep_counted_by_hand():
    points = calibrate_threshold(SCORES, RIGHT, PROMPTS, thresholds=[0, 2.5, 4.5, 10]).points
    counted = [(p.threshold, p.num_responses, p.num_prompts, p.num_pairs, p.precision, p.recall) for p in points]
    assert counted == [
        (0.0, 7, 2, 2 * 2 + 1, 4 / 7, 1.0),
        (2.5, 4, 1, 2 * 2, 3 / 4, 3 / 4),
        (4.5, 2, 1, 1 * 2, 1.0, 2 / 4),
        (10.0, 0, 0, 0, None, 0.0),
    ]
    assert [p.quantile for p in points] == [0.0, 0.25, 0.5, 1.0]


def test_pairs_are_those_that_pairs_builds():
    rng = np.random.default_rng(0)
    prompts = rng.integers(0, 12, 100).tolist()
    scores, right = rng.normal(size=100).tolist(), (rng.random(100) < 0.5).tolist()
    responses = [
        Response(row=prompt, sample=index, text=f"text {index}", score=score, right=verdict, answer=str(verdict))
        for index, (prompt, score, verdict) in enumerate(zip(prompts, scores, right, strict=True))
    ]
    for point in calibrate_threshold(scores, right, prompts, quantiles=[0, 0.3, 0.8], max_pairs=4).points:
        built = build_pairs(responses, PairRules(max_pairs=4, chosen_threshold=point.threshold))
        assert point.num_pairs == len(built.pairs)
        assert point.num_prompts == len({pair.chosen.row for pair in built.pairs})


def test_quantiles_are_those_of_pairs():
    good = [score for score, verdict in zip(SCORES, RIGHT, strict=True) if verdict and score is not None]
    points = calibrate_threshold(SCORES, RIGHT, PROMPTS, quantiles=[0.5, 0.9]).points
    assert [p.threshold for p in points] == [quantile(good, 0.5), quantile(good, 0.9)]


def test_interval_of_independent_responses_is_wilsons():
    right = [True] * 30 + [False] * 10
    (point,) = calibrate_threshold([1.0] * 40, right, thresholds=[0]).points
    wilson = binomtest(30, 40).proportion_ci(method="wilson")
    assert (point.low, point.high) == pytest.approx((wilson.low, wilson.high))


def test_responses_that_agree_count_once_a_prompt():
    """Ten equal responses to each of 12 prompts know as much as 12 responses, not 120."""
    right = [prompt < 9 for prompt in range(12) for _ in range(10)]
    prompts = [prompt for prompt in range(12) for _ in range(10)]
    (clustered,) = calibrate_threshold([1.0] * 120, right, prompts, thresholds=[0]).points
    (single,) = calibrate_threshold([1.0] * 12, right[::10], thresholds=[0]).points
    assert (clustered.precision, clustered.low, clustered.high) == pytest.approx(
        (single.precision, single.low, single.high)
    )


def test_the_lowest_sure_threshold_is_suggested():
    rng = np.random.default_rng(1)
    scores = rng.uniform(0, 10, 4000)
    right = rng.random(4000) < scores / 10  # precision above t is (10 + t) / 20: 0.8 at 6
    found = calibrate_threshold(scores, right, thresholds=[0, 2, 4, 6, 7, 8], min_precision=0.8)
    assert found.suggested == 7.0 and "at least 0.8" in found.reason
    unreachable = calibrate_threshold(scores, right, thresholds=[0, 4], min_precision=0.99)
    assert unreachable.suggested == 4.0 and "no threshold reaches" in unreachable.reason


def test_a_suggested_threshold_leaves_pairs():
    found = calibrate_threshold(SCORES, RIGHT, PROMPTS, thresholds=[0, 4.5, 10], min_precision=1.0, min_pairs=3)
    assert found.suggested == 0.0  # 4.5 has the better precision, but leaves two pairs
    none = calibrate_threshold(SCORES, RIGHT, PROMPTS, thresholds=[4.5], min_pairs=3)
    assert none.suggested is None and none.reason == "no threshold leaves 3 pairs"


def test_nothing_to_calibrate_is_refused():
    with pytest.raises(ValueError, match="2 of 3 responses are scored and judged, and none of them is right"):
        calibrate_threshold([1.0, 2.0, None], [False, False, True])
    with pytest.raises(ValueError, match=r"`quantiles` holds 1.5"):
        calibrate_threshold([1.0], [True], quantiles=[1.5])


# ---- Controller ----


def controller(**changes):
    settings = {"target": 0.2, "initial": 1.0, "minimum": 0.0, "maximum": 4.0, "gain": 5.0, "max_step": 1.0}
    return RewardThresholdController(**(settings | {"dead_band": 0.1, "patience": 2} | changes))


def test_moves_by_hand():
    held = controller()
    seen = []
    for step, rate in enumerate([0.25, 0.30, 0.32, 0.9, 0.05, 0.05, 0.05, 0.15, 0.05, 0.05]):
        held.observe(rate, step)
        seen.append(held.threshold)
    # .25, .30: inside the band. .32: up 5 * .12. .9: 5 * .7 is cut to 1. Then down 5 * .15 at the second low rate; the
    # third starts a new count, which .15 ends.
    expected = [1.0, 1.0, 1.6, 2.6, 2.6, 1.85, 1.85, 1.85, 1.85, 1.1]
    assert seen == pytest.approx(expected)
    assert [move.step for move in held.moves] == [2, 3, 5, 9]
    assert "limited by a step of at most 1" in held.moves[1].cause
    assert "rate 0.050 is 2 times in a row below 0.2 ± 0.1" in held.moves[2].cause
    for move, after in zip(held.moves, held.moves[1:], strict=False):
        assert move.after == after.before


def test_bounds_hold_and_are_named():
    held = controller(initial=3.8)
    assert held.observe(1.0, 1).after == 4.0
    assert "the bound 4" in held.moves[0].cause
    assert held.observe(1.0, 2) is None and len(held.moves) == 1


def test_a_fall_that_was_undone_makes_the_next_ones_smaller():
    """A plant that is hacked below 2 and quiet above: undamped, it would open and shut for ever, by 4 each time."""
    held = controller(initial=4.0, gain=40.0, max_step=4.0, patience=1)
    thresholds = []
    for step in range(40):
        held.observe(0.9 if held.threshold < 2.0 else 0.0, step)
        thresholds.append(held.threshold)
    falls = [move.before - move.after for move in held.moves if move.after < move.before]
    assert falls[:12] == [4.0] + [2.0] * 2 + [1.0] * 3 + [0.5] * 5 + [0.25]  # each kind until it was too far
    assert min(thresholds[:9]) == 0.0 and min(thresholds[20:]) == 1.75  # of 2: an opening is ever smaller
    assert all(move.after == 4.0 for move in held.moves if move.after > move.before)
    again = controller(initial=4.0, gain=40.0, max_step=4.0, patience=1)
    again.load_state_dict(json.loads(json.dumps(held.state_dict())))
    assert [again.observe(0.0, 41), again.threshold] == [held.observe(0.0, 41), held.threshold]  # after a resume, too


def test_rounding_at_a_bound_is_no_move():
    """Moves there and back again may leave 4e-16; to make that good is no move."""
    held = controller(maximum=3.0)
    held.load_state_dict(held.state_dict() | {"threshold": 2.9999999999999996})
    assert held.observe(0.9, 1) is None and held.moves == []
    held.load_state_dict(held.state_dict() | {"threshold": 2.99})
    assert held.observe(0.9, 2).after == 3.0


def test_a_reward_that_is_hacked_below_the_threshold_is_held():
    """A plant that hallucinates the more the lower the threshold: the controller settles inside the band."""
    held = controller(initial=0.0, gain=2.0, max_step=0.5, patience=1)
    rates = []
    for step in range(60):
        rates.append(max(0.0, 0.9 - 0.3 * held.threshold))  # 0.2 ± 0.1 between 2 and 2.67
        held.observe(rates[-1], step)
    assert rates[0] == 0.9
    assert all(0.1 <= rate <= 0.3 for rate in rates[10:])
    assert len({round(rate, 9) for rate in rates[-20:]}) == 1  # hysteresis: it rests


def test_state_restores_every_later_move():
    rates = (np.random.default_rng(0).random(40) * 0.5).tolist()
    whole, first = controller(), controller()
    for step, rate in enumerate(rates):
        whole.observe(rate, step)
    for step, rate in enumerate(rates[:17]):
        first.observe(rate, step)
    second = controller()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for step, rate in enumerate(rates[17:], start=17):
        second.observe(rate, step)
    assert second.state_dict() == whole.state_dict()
    assert len(whole.moves) > 5 and len(first.moves) > 1


def test_foreign_state_is_refused_by_name():
    state = controller().state_dict()
    with pytest.raises(ValueError, match="unknown fields: extra"):
        controller().load_state_dict(state | {"extra": 1})
    with pytest.raises(ValueError, match="schema version 99"):
        controller().load_state_dict(state | {"schema_version": 99})
    with pytest.raises(ValueError, match=r"saved threshold 1.0 lies outside \[2.0, 4.0\]"):
        controller(minimum=2.0, initial=2.0).load_state_dict(state)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"target": 1.2}, "target is 1.2"),
        ({"minimum": 5.0}, "minimum is 5.0 and maximum 4.0"),
        ({"initial": 9.0}, "initial is 9.0"),
        ({"gain": 0.0}, "gain is 0.0"),
        ({"dead_band": 1.0}, "dead_band is 1.0; a rate"),
        ({"patience": 0}, "patience is 0"),
    ],
)
def test_settings_out_of_bounds(changes, message):
    with pytest.raises(ValueError, match=message):
        controller(**changes)


@pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan])
def test_no_rate(rate):
    with pytest.raises(ValueError, match="must lie in"):
        controller().observe(rate, 0)


# ---- Files ----


def test_threshold_file_round_trip(tmp_path):
    path = tmp_path / "new" / "thresholds.json"
    write_threshold_file(path, 1.5, source="calibrate", score={"a": 1.0}, note="x")
    content = read_threshold_file(path, {"a": 1.0})
    assert (content["chosen_threshold"], content["note"]) == (1.5, "x")
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(ValueError, match=r"for the score \{'a': 1.0\}, but the score here is \{'b': 1.0\}"):
        read_threshold_file(path, {"b": 1.0})


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "is no JSON"),
        ('{"schema_version": 2, "chosen_threshold": 1}', "no threshold file of version 1"),
        ('{"schema_version": 1}', "must hold one of"),
        ('{"schema_version": 1, "chosen_threshold": 1, "margin_threshold": 2}', "must hold one of"),
        ('{"schema_version": 1, "chosen_threshold": null, "reason": "no pairs"}', "no pairs"),
    ],
)
def test_what_is_no_threshold_file(content, message, tmp_path):
    path = tmp_path / "thresholds.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_threshold_file(path)


def test_a_threshold_written_by_hand_is_taken(tmp_path):
    path = tmp_path / "thresholds.json"
    path.write_text('{"schema_version": 1, "margin_threshold": 2}')
    assert read_threshold_file(path, {"any": 1.0})["margin_threshold"] == 2


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"thresholds.json does not exist: write it with `trl-r1v2 calibrate`"):
        read_threshold_file(tmp_path / "thresholds.json")


def test_a_gate_is_no_threshold_for_a_sum(tmp_path):
    """The controller of a HybridReward's component moves in that component's units."""
    path = tmp_path / "threshold.json"
    write_threshold_file(path, 1.5, source="controller", gated=True)
    assert read_threshold_file(path, {"folder/of/reward_model": 1.0})["chosen_threshold"] == 1.5
    with pytest.raises(ValueError, match="raw score of one component.*a sum of 2"):
        read_threshold_file(path, {"rule": 1.0, "folder/of/reward_model": 0.1})
    write_threshold_file(path, 1.5, source="controller", gated=False)
    assert read_threshold_file(path, {"rule": 1.0, "format": 1.0})["chosen_threshold"] == 1.5
