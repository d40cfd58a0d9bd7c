# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The comparison of the real composite's evaluations with the aligned model."""

import json

import numpy as np
import pytest

from benchmarks.real.paired import compare, main
from trl_r1v2.evaluation.records import GREEDY, SAMPLED, Record, write_records


def write_evaluation(folder, accuracies, dataset="rows"):
    """An evaluation whose row `i` has the given accuracies: the first greedy, the others sampled."""
    folder.mkdir()
    judged = {"text": "", "format": 1.0, "num_tokens": 1, "finished": True}
    rows = [
        Record(
            row=row,
            mode=SAMPLED if sample else GREEDY,
            sample=max(sample - 1, 0),
            task="larger" if row % 2 else "add",
            accuracy=float(value),
            hallucinated=not value if row % 2 else None,
            **judged,
        )
        for row, values in enumerate(accuracies)
        for sample, value in enumerate(values)
    ]
    write_records(rows, folder / "records.parquet")
    (folder / "metrics.json").write_text(json.dumps({"fingerprint": {"dataset": dataset}}))


def test_changes_are_paired_by_row_and_averaged_over_samples_and_seeds(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    before = rng.integers(0, 2, (40, 3))
    after = [np.maximum(before, rng.random((40, 3)) < 0.3) for _ in range(2)]
    write_evaluation(tmp_path / "evaluate_aligned", before)
    for seed, values in enumerate(after):
        write_evaluation(tmp_path / f"evaluate_grpo_seed{seed}", values)
    more = [np.minimum(values, rng.random((40, 3)) < 0.8) for values in after]
    for seed, values in enumerate(more):
        write_evaluation(tmp_path / f"evaluate_grpo_reading_seed{seed}", values)
    write_evaluation(tmp_path / "evaluate_other", before, dataset="other rows")
    log = [{"reward": step, "ssb/effective_before": 0.5, "ssb/effective_after": 0.25 * step, "step_time": 30.0}
           for step in range(8)]  # fmt: skip
    (tmp_path / "grpo_seed0").mkdir()
    (tmp_path / "grpo_seed0/trainer_state.json").write_text(json.dumps({"log_history": [*log, {"train_loss": 1}]}))
    monkeypatch.setattr("sys.argv", ["paired", "--run", str(tmp_path), "--output", str(tmp_path / "paired.json")])
    main()

    written = json.loads((tmp_path / "paired.json").read_text())
    found = written["evaluations"]
    grpo = {f"evaluate_grpo{setting}{seed}" for setting in ("", "_reading") for seed in ("", "_seed0", "_seed1")}
    assert found.keys() == {"evaluate_aligned", *grpo}
    (against,) = written["against_grpo"].values()
    loss = np.mean([(less - values)[:, :1] for less, values in zip(more, after, strict=True)])
    assert against["tasks"]["all"][GREEDY]["accuracy"]["change"] == pytest.approx(loss, abs=1e-4)
    assert written["training"] == {
        "grpo_seed0": {
            "steps": 8,
            "first_five": 2.0,
            "last_five": 5.0,
            "effective_generated": 0.5,
            "effective_trained": 0.875,
            "minutes": 4.0,
        }
    }
    assert found["evaluate_aligned"]["tasks"]["all"][GREEDY]["accuracy"]["change_interval"] == [0.0, 0.0]
    both = found["evaluate_grpo"]
    assert both["num_seeds"] == 2
    expected = {GREEDY: np.s_[:, :1], SAMPLED: np.s_[:, 1:]}
    for mode, part in expected.items():
        gain = np.mean([(values - before)[part] for values in after])
        entry = both["tasks"]["all"][mode]["accuracy"]
        assert entry["change"] == pytest.approx(gain, abs=1e-4)
        low, high = entry["change_interval"]
        assert 0 < low < gain < high
    evens = np.mean([(values - before)[::2, 0] for values in after])
    assert both["tasks"]["add"][GREEDY]["accuracy"]["change"] == pytest.approx(evens, abs=1e-4)
    assert both["tasks"]["add"][GREEDY]["accuracy"]["num_rows"] == 20
    # Measured on odd rows alone, where it is the opposite of the accuracy.
    odd = both["tasks"]["larger"][SAMPLED]
    assert odd["hallucination"]["change"] == -odd["accuracy"]["change"]
    assert both["tasks"]["all"][SAMPLED]["hallucination"] == odd["hallucination"]
    assert "hallucination" not in both["tasks"]["add"][SAMPLED]
    assert "evaluate_grpo " in capsys.readouterr().out


def test_pairing_narrows_the_interval(tmp_path):
    before = np.array([[row % 2] for row in range(200)])
    after = before.copy()
    after[:20] = 1
    write_evaluation(tmp_path / "before", before)
    write_evaluation(tmp_path / "after", after)
    low, high = compare([tmp_path / "before"], [tmp_path / "after"])["all"][GREEDY]["accuracy"]["change_interval"]
    assert 0.01 < low < 0.05 < high < 0.09  # two independent samples would have ±0.1
