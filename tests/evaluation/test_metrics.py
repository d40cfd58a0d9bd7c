# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Rates and intervals against scipy and against simulation."""

import itertools

import numpy as np
import pytest
from scipy import stats

from trl_r1v2.evaluation.metrics import estimate_rate, majority_score, paired_difference, pass_at_k


@pytest.mark.parametrize(("right", "num_rows"), [(0, 7), (1, 30), (17, 40), (200, 200)])
def test_one_sample_a_row_is_wilsons_interval(right, num_rows):
    values = np.zeros((num_rows, 1))
    values[:right] = 1
    estimate = estimate_rate(values)
    reference = stats.binomtest(right, num_rows).proportion_ci(0.95, method="wilson")
    assert (estimate.value, estimate.num_rows) == (right / num_rows, num_rows)
    assert (estimate.low, estimate.high) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_identical_samples_of_a_row_count_once():
    single = np.random.default_rng(0).integers(0, 2, (50, 1)).astype(float)
    assert estimate_rate(np.repeat(single, 5, axis=1)) == estimate_rate(single)


def test_independent_samples_count_each():
    # no row differs from another, so the 4 samples of a row say as much as 4 rows
    values = np.tile([1.0, 0.0, 1.0, 0.0], (25, 1))
    estimate, flat = estimate_rate(values), estimate_rate(values.reshape(-1, 1))
    assert (estimate.low, estimate.high) == (flat.low, flat.high)
    assert estimate.standard_error == 0


def test_standard_error_has_rows_as_units():
    values = np.random.default_rng(1).random((30, 5)) ** 2
    estimate = estimate_rate(values)
    assert estimate.value == pytest.approx(values.mean(), abs=1e-12)
    assert estimate.standard_error == pytest.approx(stats.sem(values.mean(axis=1)), abs=1e-12)


@pytest.mark.parametrize("concentration", [0.3, 3.0])
def test_interval_covers_the_truth_when_rows_differ_in_difficulty(concentration):
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(600):
        difficulty = rng.beta(concentration, concentration * 2, 60)
        estimate = estimate_rate(rng.binomial(1, difficulty[:, None], (60, 5)))
        covered += estimate.low <= 1 / 3 <= estimate.high
    # a nominal 95 %; treating the 300 samples as independent covers under 80 % at concentration 0.3
    assert 0.92 <= covered / 600 <= 0.985


def test_single_row_has_no_standard_error():
    estimate = estimate_rate([[1.0, 0.0]])
    assert estimate.standard_error is None and 0 < estimate.low < 0.5 < estimate.high < 1


@pytest.mark.parametrize("values", [[], [[]], [1.0, 0.0], [[1.5]], [[-0.1]], [[float("nan")]]])
def test_refused_values(values):
    with pytest.raises(ValueError, match="must be"):
        estimate_rate(values)


def test_paired_difference_is_students_interval_of_the_changes():
    rng = np.random.default_rng(3)
    before, after = rng.random(40), rng.random(40)
    difference = paired_difference(before, after)
    reference = stats.ttest_rel(after, before).confidence_interval(0.95)
    assert difference.value == pytest.approx((after - before).mean(), abs=1e-12)
    assert (difference.low, difference.high) == pytest.approx((reference.low, reference.high), abs=1e-12)
    assert paired_difference([0.0], [1.0]).low is None
    # four rows that did not change leave the spread unknown rather than zero
    assert paired_difference([0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0]).high is None
    with pytest.raises(ValueError, match="must be equal"):
        paired_difference([0.0], [0.0, 1.0])


def test_pass_at_k_is_the_mean_over_all_choices_of_samples():
    values = np.random.default_rng(3).integers(0, 2, size=(12, 6)).astype(float)
    values[0], values[1] = 0.0, 1.0
    values[2, 0] = 0.5  # partly right is not right
    for k in range(1, 7):
        drawn = [[any(row[list(choice)] == 1) for choice in itertools.combinations(range(6), k)] for row in values]
        assert pass_at_k(values, k) == pytest.approx(np.mean(drawn, axis=1), abs=1e-12)
    for k in (0, 7):
        with pytest.raises(ValueError, match=f"k is {k}, but there are 6 samples"):
            pass_at_k(values, k)


def test_pass_at_1_has_the_interval_of_the_mean_over_runs():
    values = np.random.default_rng(4).binomial(1, np.random.default_rng(5).beta(2, 1, 80)[:, None], (80, 5))
    assert estimate_rate(pass_at_k(values, 1)[:, None], draws=5) == estimate_rate(values)
    # one value a row that stands for one draw is a plain proportion
    single = estimate_rate(pass_at_k(values, 5)[:, None], draws=1)
    reference = stats.binomtest(int(values.any(axis=1).sum()), 80).proportion_ci(0.95, method="wilson")
    assert (single.low, single.high) == pytest.approx((reference.low, reference.high), abs=1e-12)
    with pytest.raises(ValueError, match=r"draws is 0\.5 but must be at least 1"):
        estimate_rate(values, draws=0.5)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_interval_of_pass_at_k_covers_the_truth_and_no_more(k):
    rng = np.random.default_rng(6)
    # E[1 - (1 - p)^k] under Beta(1, 2), with 1 - p under Beta(2, 1)
    truth = 1 - 2 / (2 + k)
    covered = 0
    for _ in range(600):
        values = rng.binomial(1, rng.beta(1, 2, 60)[:, None], (60, 5))
        estimate = estimate_rate(pass_at_k(values, k)[:, None], draws=5 / k)
        covered += estimate.low <= truth <= estimate.high
    assert 0.92 <= covered / 600 <= 0.985


def test_the_majority_is_one_answer():
    assert majority_score(["a", "b", "b"], [1.0, 0.0, 0.0]) == 0.0
    assert majority_score(["b", "a", "a", "b"], [1.0, 0.0, 0.0, 1.0]) == 1.0  # as many votes: the first
    assert majority_score([None, None, "a"], [0.0, 0.0, 1.0]) == 1.0  # without an answer there is no vote
    assert majority_score(["a", "a", "b"], [1.0, 0.0, 0.0]) == 0.5  # a judge that contradicts itself
    assert majority_score([None, None], [0.0, 0.0]) == 0.0
