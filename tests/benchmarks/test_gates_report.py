# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Gates that stand still against the controller: what is chosen, what is compared, and the kept summary."""

import json

import pytest

from benchmarks.hallucination import gates, gates_report


def write_run(folder, reward, setting, seed, chosen_by, share, rate, moves=()):
    figures = {"accuracy": share, "hallucination_rate": rate, "mean_score": 1.0}
    run = {
        "reward": reward,
        "setting": setting,
        "seed": seed,
        "cpu_seconds": 1.0,
        "validation": {**figures, "right_and_grounded": chosen_by},
        "test": {**figures, "right_and_grounded": share},
        "probes": [{"step": step, "rate": rate, "threshold": place} for step, place in ((0, -10.0), (10, 12.0))],
        "training": {"accuracy": [share] * 30},
        "moves": [{"before": before, "after": after} for before, after in moves],
    }
    path = folder / reward / f"{setting}-{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(run))


def test_the_best_gates_are_chosen_on_the_selection_seed_and_compared_on_the_others(tmp_path):
    selection = {"none": 0.3, "static_q0.75": 0.8, "shut": 0.7, "quick": 0.5, "disagreement": 0.6}
    for setting, chosen_by in selection.items():
        write_run(tmp_path, "trained", setting, gates.SELECTION_SEED, chosen_by, share=0.99, rate=0.01)
    shares = {"none": 0.3, "static_q0.75": 0.7, "shut": 0.8, "quick": 0.9, "disagreement": 0.6}
    for setting, share in shares.items():
        for seed, change in enumerate((0.0, 0.01, 0.02)):
            noise = 0.01 * (seed == 1) if setting == "disagreement" else 0.0
            moves = [(-10.0, 12.0), (12.0, -10.0), (-10.0, 12.0)]
            write_run(tmp_path, "trained", setting, seed, 0.0, share + change + noise, 1 - share, moves)
    summary = gates_report.summarise(tmp_path)
    trained = summary["rewards"]["trained"]
    assert (trained["best_static"], trained["best_controller"]) == ("static_q0.75", "disagreement")
    assert trained["compared_seeds"] == {"none": [0, 1, 2], "shut": [0, 1, 2], "static_q0.75": [0, 1, 2]}
    found = summary["comparisons"]["trained/static_q0.75/right_and_grounded"]
    assert found["difference"]["values"] == pytest.approx([-10.0, -9.0, -10.0])
    assert found["verdict"] == "the controller is worse"
    assert summary["comparisons"]["trained/none/right_and_grounded"]["verdict"] == "the controller is better"
    assert trained["settings"]["shut"]["right_and_grounded"]["mean"] == pytest.approx(81.0)  # no selection seed
    assert trained["traces"]["quick"]["0"] == {"rises": 2, "falls": [22.0], "share_of_probes_open": 0.5}
    assert "| `static_q0.75` | 3 | 80.0 | 71.0 ± 2.5 |" in gates_report.tables(summary)
    gates_report.draw(tmp_path / "trained.png", "trained", gates_report.load(tmp_path)["trained"])
    assert (tmp_path / "trained.png").read_bytes().startswith(b"\x89PNG")


def test_a_gate_begins_where_its_setting_says():
    places = {"none": None, "static_-0.9": -0.9, "static_q0.85": 5.8, "shut": 12.0, "quick": -10.0, "undamped": -10.0}
    assert {name: gates.first_gate("trained", name, {0.85: 5.8}.get) for name in places} == places
    assert gates.make_controller("trained", "shut") is None
    damped, undamped = (gates.make_controller("planted", name) for name in ("quick", "undamped"))
    for controller in (damped, undamped):
        for step, rate in enumerate((0.5, 0.0, 0.0, 0.5, 0.0, 0.0)):
            controller.observe(rate, step)
    assert damped.threshold == pytest.approx(2.0)  # the second fall is half as large as the first
    assert undamped.threshold == 0.0


def test_the_kept_summary_is_that_of_the_kept_runs():
    kept = json.loads((gates_report.RESULTS / "summary.json").read_text())
    assert json.loads(json.dumps(gates_report.summarise(gates_report.RESULTS))) == kept
