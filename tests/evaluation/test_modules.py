# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The metrics as `evaluate` loads them."""

import pytest

from trl_r1v2.evaluation.metrics import estimate_rate
from trl_r1v2.evaluation.modules import module_path


evaluate = pytest.importorskip("evaluate")


def test_pass_at_1():
    metric = evaluate.load(module_path("pass_at_1"))
    predictions = [[r"<think>a</think>\boxed{2}", "It is 3."], [r"\boxed{4}", r"\boxed{4.0}"], [r"\boxed{1}", "none"]]
    found = metric.compute(predictions=predictions, references=["2", "4", "7"])
    assert found["pass_at_1"] == pytest.approx(3 / 6) and found["runs"] == pytest.approx([2 / 3, 1 / 3])
    estimate = estimate_rate([[1, 0], [1, 1], [0, 0]])
    assert (found["low"], found["high"], found["num_unjudged"]) == (estimate.low, estimate.high, 0)
    with pytest.raises(ValueError, match="same number of responses"):
        metric.compute(predictions=[["1"], ["1", "2"]], references=["1", "1"])


def test_pass_at_k_and_majority():
    metric = evaluate.load(module_path("pass_at_k"))
    predictions = [[r"\boxed{2}", r"\boxed{3}", r"\boxed{3.0}"], [r"\boxed{4}", r"\boxed{4.0}", "none at all"]]
    found = metric.compute(predictions=predictions, references=["2", "4"], k=[1, 2, 3])
    # one of three right, two of three right
    assert found["pass_at_1"] == pytest.approx((1 / 3 + 2 / 3) / 2) and found["pass_at_3"] == 1.0
    assert found["pass_at_2"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["majority"] == 0.5 and found["num_unjudged"] == 0
    with pytest.raises(ValueError, match="same number of responses"):
        metric.compute(predictions=[["1"], ["1", "2"]], references=["1", "1"])


def test_format_rate():
    metric = evaluate.load(module_path("format_rate"))
    found = metric.compute(predictions=["<think>a</think>b", "b", "<think>a</think>", "<think>a</think> c"])
    assert found["format_rate"] == 0.5


def test_unknown_metric():
    with pytest.raises(ValueError, match="there is no metric 'pass_at_2', only format_rate, pass_at_1, pass_at_k"):
        module_path("pass_at_2")
