# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Transfer between text and images: the shares, the comparisons, and the kept summary."""

import json

import pytest

from benchmarks.transfer import run, summary


def test_shares():
    read, lucky, wrong = (
        r"<think>I see 3 and 5. 3 + 5 = 8.</think>\boxed{8}",
        r"<think>Looks like 2 and 6. Maybe 8.</think>\boxed{8}",
        r"<think>I see 3 and 4. 3 + 4 = 7.</think>\boxed{7}",
    )
    assert run.shares([read, lucky, wrong, wrong], ["8"] * 4, [[3, 5]] * 4) == {
        "accuracy": 0.5,
        "hallucination_rate": 0.75,
        "share_of_readings": 0.75,
        "accuracy_of_readings": pytest.approx(1 / 3),
        "num_answers": 4,
    }


def test_a_coin_knows_nothing_of_what_it_pays():
    first, second = run.CoinReward(0), run.CoinReward(0)
    values = [first([text] * 400) for text in ("right", "wrong")]
    assert values == [second([""] * 400) for _ in range(2)]
    assert values[0] != values[1]
    assert 0.4 < sum(values[0]) / 400 < 0.6


def test_differences_are_paired_by_seed(tmp_path):
    accuracy = {"base": 0.3, "noise": 0.31, "text": 0.6, "images": 0.8}
    for setting, value in accuracy.items():
        for seed in range(3):
            value_of_seed = value + 0.1 * seed + 0.01 * (setting == "text" and seed == 1)
            figures = dict.fromkeys(summary.FIGURES, value_of_seed)
            parts = {f"{mode}/{kind}": figures for mode in summary.MODES for kind in run.KINDS}
            content = {"setting": setting, "seed": seed, "cpu_seconds": 1.0, "figures": parts}
            (tmp_path / f"{setting}-{seed}.json").write_text(json.dumps(content))
    (tmp_path / "base-3.json").write_text(json.dumps({**content, "setting": "base", "seed": 3}))
    runs = summary.load(tmp_path)
    assert [run["seed"] for run in runs["base"]] == [0, 1, 2]
    found = summary.summarise(runs)["comparisons"]["`text` less `base`, images: accuracy, sampled, points"]
    assert found["difference"]["values"] == pytest.approx([30.0, 31.0, 30.0])
    assert found["verdict"] == "agrees"
    worse = summary.summarise(runs)["comparisons"]["`text` less `base`, images: hallucination rate, sampled, points"]
    assert worse["verdict"] == "opposite"
    summary.draw(tmp_path / "plot.png", runs)
    assert "| `text` | 70.3 ± " in summary.tables(runs)


def test_the_kept_summary_is_that_of_the_kept_runs():
    kept = json.loads((summary.RESULTS / "summary.json").read_text())
    runs = summary.load(summary.RESULTS)
    assert json.loads(json.dumps(summary.summarise(runs))) == kept
    assert (summary.RESULTS / "tables.md").read_text() == summary.tables(runs)
