# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The statistics of the comparison of settings of replay."""

import json

import pytest

from benchmarks.ssb.skills_report import cost_to_reach, holm, report, spent_until


def run_of(accuracies, setting="stock", seed=0):
    points = [
        {"step": 10 * place, "accuracy": value, "generated_tokens": 100 * place, "train_cpu_seconds": 2.0 * place}
        for place, value in enumerate(accuracies)
    ]
    steps = dict.fromkeys(
        ("effective_before", "effective_after", "replayed_negative", "replayed_advantage", "ratio_max"), []
    )
    run = {"setting": setting, "learning_rate": 3e-5, "seed": seed, "num_steps": 50, "points": points, "steps": steps}
    return run | {"passes": {"pass@1": accuracies[-1], "pass@32": 0.9}}


def test_holm():
    """Worked out by hand: 4, 3, 2 and 1 times the sorted values, and never less than the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize(("accuracy", "tokens"), [(0.2, 300), (0.25, 350), (0.0, 200), (0.9, float("inf"))])
def test_cost_to_reach(accuracy, tokens):
    """Means of three evaluations are 0, 0.2, 0.3 ... at 200, 300, 400 tokens: linear in between."""
    run = run_of([0.0, 0.0, 0.0, 0.6, 0.3, 0.3])
    assert cost_to_reach(run, accuracy, "generated_tokens") == pytest.approx(tokens)
    assert spent_until(run, accuracy, "generated_tokens") == pytest.approx(min(tokens, 500))


def test_report(tmp_path):
    for folder, runs in {
        "validation": [run_of([0.1, 0.2, 0.3, 0.4])],
        "test": [
            run_of([0.1, 0.2, 0.3 + 0.01 * seed, 0.4 + gain], setting, seed)
            for setting, gain in (("stock", 0.0), ("half", 0.1), ("dead", 0.04))
            for seed in range(3)
        ],
    }.items():
        (tmp_path / folder).mkdir()
        for run in runs:
            (tmp_path / folder / f"{run['setting']}_{run['seed']}.json").write_text(json.dumps(run))
    (tmp_path / "base.json").write_text("{}")
    report(tmp_path)
    [searched] = json.loads((tmp_path / "search.json").read_text())
    assert searched["accuracy_after"] == pytest.approx(0.3) and searched["setting"] == "stock, 3e-05"
    half = json.loads((tmp_path / "summary.json").read_text())["settings"]["half"]
    assert half["minus_stock"]["values"] == pytest.approx([0.1 / 3] * 3)
    assert half["minus_dead"]["values"] == pytest.approx([0.06 / 3] * 3)
    assert half["generated_tokens_to_half"]["values"] == pytest.approx([1.0] * 3)
    assert half["generated_tokens_to_stock"]["num_reached"] == 3
    assert (tmp_path / "comparison.png").exists() and "| half |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "table.md").read_text().startswith("| setting | 3e-05 |\n|---|---|\n| stock | **30.0** |\n")
