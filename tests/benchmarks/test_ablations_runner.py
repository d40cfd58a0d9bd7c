# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The one command of the ablations, with training stubbed: every run once, in order, resumed after an interruption."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest


ROOT = Path(__file__).parents[2]

from benchmarks.ablations import __main__ as command  # noqa: E402
from benchmarks.ablations import runner  # noqa: E402
from benchmarks.activation import compare as activation  # noqa: E402
from benchmarks.hallucination import reward_hacking  # noqa: E402
from benchmarks.mpo import compare as mpo  # noqa: E402
from benchmarks.mpo import train_grpo, train_iterated, train_one  # noqa: E402
from benchmarks.rewards import factual_consistency  # noqa: E402
from benchmarks.ssb import compare as ssb  # noqa: E402


SEEDS = 2
# Settings of the buffer; search, base and seven methods; thresholds; rates and presets; watched and controlled; with
# and without the rule.
NUM_RUNS = 5 * SEEDS + (9 + 1 + 7 * SEEDS) + 3 * SEEDS + (12 + 3 * SEEDS) + 2 * SEEDS + 2 * SEEDS


class Interrupted(Exception):
    """Stands for the machine going off in the middle of a run."""


class Stub:
    """Takes the place of every training; `stop_before` ends the command before that run."""

    def __init__(self):
        self.made = []
        self.stop_before = None

    def begin(self, run: str) -> None:
        if run == self.stop_before:
            raise Interrupted(run)
        print(f"trainer's noise in {run}")
        self.made.append(run)

    def ssb(self, line, env, stdout, stderr):
        options = dict(zip(line[3::2], line[4::2], strict=True))
        setting, seed = options["--setting"], int(options["--seed"])
        self.begin(f"ssb/{setting}-{seed}")
        points = [{"step": k, "accuracy": 0.5, "generated_tokens": 1, "train_cpu_seconds": 1} for k in range(2)]
        steps = [{"ssb/effective_before": 0.4, "ssb/effective_after": 1.0} for _ in range(4)]
        run = {"setting": setting, "seed": seed, "points": points, "steps": steps, "is_sampled": False}
        Path(options["--output"]).write_text(json.dumps(run))
        return subprocess.CompletedProcess(line, 0)

    def method(self, run):
        self.begin(f"{run.split}/{run.setting}-{run.learning_rate}-{run.seed}")
        mode = {"accuracy": 0.1 * run.seed, "hallucination_rate": 0.5, "format_rate": 1.0}
        best = {"accuracy": 0.9 if run.learning_rate == 3e-4 else 0.1, "hallucination_rate": 0.5, "format_rate": 1.0}
        return {
            "setting": run.setting,
            "seed": run.seed,
            "learning_rate": run.learning_rate,
            "figures": {"greedy": mode, "sampled": best if run.split == "validation" else mode},
            "train_cpu_seconds": 1.0,
            "steps": [],
        }

    def threshold(self, run):
        self.begin(f"threshold/{run.threshold}-{run.seed}")
        modes = {"greedy": {}, "sampled": {}}
        for mode in modes:
            modes[mode] = {"accuracy": 0.5, "hallucination_rate": 0.5, "format_rate": 1.0}
        points = [modes | {"pairs": {"chosen_right": 0.5, "num_pairs": 3}} for _ in range(4)]
        points[0] = modes
        return {"threshold": run.threshold, "seed": run.seed, "points": points, "cpu_seconds": 1.0}

    def activation(self, base, data, recipe, scratch, preset, learning_rate, seed, steps):
        self.begin(f"activation/{preset}-{learning_rate}-{seed}")
        result = {"preset": preset, "learning_rate": learning_rate, "seed": seed, "trained_parameters": 1}
        result |= {"train_cpu_seconds": 1.0, "train_accuracy": [0.5, 0.5], "num_steps": steps}

        class Trainer:
            model = processing_class = None

        return Trainer, result

    def consistency(self, arguments, setting, seed):
        self.begin(f"consistency/{setting}-{seed}")
        figures = {"accuracy/all": 0.5 + seed, "hallucination": 0.1 * len(setting)}
        return {"setting": setting, "seed": seed, "train_cpu_seconds": 1} | dict.fromkeys(
            ("greedy", "sampled"), figures
        )

    def hacking(self, arguments, setting, seed):
        self.begin(f"hacking/{setting}-{seed}")
        probes = [{"step": k, "rate": 0.1 * k, "threshold": 0.0} for k in range(4)]
        training = [{"step": k, "reward": 3.0, "hybrid/accuracy/mean": 0.5} for k in range(12)]
        return {
            "setting": setting,
            "seed": seed,
            "probes": probes,
            "training": training,
            "moves": [],
            "cpu_seconds": 1,
        }


@pytest.fixture
def stub(monkeypatch):
    stub = Stub()
    figures = {"accuracy/all": 0.5, "accuracy/images": 0.5, "hallucination": 0.1}
    monkeypatch.setattr(ssb, "subprocess", SimpleNamespace(run=stub.ssb, STDOUT=subprocess.STDOUT))
    monkeypatch.setattr(mpo, "pairs_of", lambda arguments, seed: f"pairs-{seed}")
    monkeypatch.setattr(train_one, "train_and_measure", stub.method)
    monkeypatch.setattr(train_grpo, "train_and_measure", stub.method)
    monkeypatch.setattr(train_iterated, "train_and_measure", stub.threshold)
    monkeypatch.setattr(activation, "train", stub.activation)
    monkeypatch.setattr(activation, "environment", dict)
    monkeypatch.setattr(activation, "measure", lambda *arguments: figures)
    monkeypatch.setattr(activation, "load_dataset", lambda *arguments, **named: None)
    base = {"greedy": figures, "sampled": figures}
    monkeypatch.setattr(
        activation, "measure_base", lambda arguments: activation.write_result(arguments.results / "base.json", base)
    )
    monkeypatch.setattr(reward_hacking, "run", stub.hacking)
    monkeypatch.setattr(factual_consistency, "run", stub.consistency)
    monkeypatch.setattr(reward_hacking, "learn", lambda arguments: None)
    return stub


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Calls the command as from a shell."""
    for name, file in (("base", "model.safetensors"), ("data", "README.md")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(name)

    def call(*options: str) -> Path:
        line = ["ablations", "--base", str(tmp_path / "base"), "--data", str(tmp_path / "data")]
        line += ["--output", str(tmp_path / "out"), "--seeds", str(SEEDS), *options]
        monkeypatch.setattr(sys, "argv", line)
        command.main()
        return tmp_path / "out"

    return call


def test_goes_on_after_an_interruption_and_makes_every_run_once(stub, call, capsys, monkeypatch):
    for stop in ("ssb/fresh-1", "test/grpo-None-1", "threshold/1.0-0", "hacking/watched-1"):
        stub.stop_before = stop
        with pytest.raises(Interrupted):
            call()
    stub.stop_before = None
    output = call()
    assert len(stub.made) == len(set(stub.made)) == NUM_RUNS
    # GRPO alone has no rate of MPO's; MPO before GRPO takes the rate that the search found.
    assert {f"test/grpo-None-{seed}" for seed in range(SEEDS)} <= set(stub.made)
    assert {f"test/mpo_grpo-0.0003-{seed}" for seed in range(SEEDS)} <= set(stub.made)

    said = capsys.readouterr().out
    assert f"0 of {NUM_RUNS} runs are done" in said
    assert f"[{NUM_RUNS} of {NUM_RUNS}] factual_consistency: with, seed 1: done\n" in said
    assert "noise" not in said
    assert "noise in test/mpo-0.0003-1" in (output / "methods.log").read_text()

    tables = (output / "tables.md").read_text()
    # These two have commands of their own.
    others = ("Which components train, a weak adapter (Table 4)", "Transfer between text and images")
    assert f"Not run. {'; '.join(others)}." in tables and tables.count("Not run.") == 1 + len(others)
    seeds = [section["seeds"] for section in json.loads((output / "summary.json").read_text()).values()]
    assert [found for found in seeds if found] == [list(range(SEEDS))] * (len(seeds) - len(others))
    assert len(list(output.glob("*.png"))) == 6

    monkeypatch.setattr(command, "write", lambda found, folder: None)
    call()
    assert len(stub.made) == NUM_RUNS


def test_a_failed_run_is_told_and_tried_again(stub, call, monkeypatch):
    monkeypatch.setattr(command, "write", lambda found, folder: None)

    def fails(line, env, stdout, stderr):
        return stub.ssb(line, env, stdout, stderr) if "fresh" not in line else subprocess.CompletedProcess(line, 1)

    monkeypatch.setattr(ssb.subprocess, "run", fails)
    with pytest.raises(SystemExit, match=f"ssb: {4 * SEEDS} of {5 * SEEDS} runs have a result"):
        call()
    monkeypatch.setattr(ssb.subprocess, "run", stub.ssb)
    call()
    assert len(stub.made) == len(set(stub.made)) == NUM_RUNS


def test_results_of_another_base_are_refused(stub, call, tmp_path, capsys):
    stub.stop_before = "ssb/stock-0"
    with pytest.raises(Interrupted):
        call()
    (tmp_path / "base" / "model.safetensors").write_text("another")
    with pytest.raises(SystemExit) as ended:
        call()
    assert ended.value.code == 2 and "of another base model" in capsys.readouterr().err


def test_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(runner.time, "monotonic", lambda: now[0])
    done = {"cheap": 0, "dear": 0}

    class Counted(runner.Stage):
        num_done = property(lambda self: done[self.name])

    said = []
    plan = [Counted("cheap", None, [], (), 4, 10.0), Counted("dear", None, [], (), 1, 200.0)]
    progress = runner.Progress(plan, said.append)
    assert said[-1] == "0 of 5 runs are done; about 4 min on an idle core for the others."
    # 20 of 240 seconds' worth took 60 seconds, so the other 220 take 660.
    done["cheap"], now[0] = 2, 160.0
    progress.report("second run")
    assert said[-1] == "[2 of 5] second run, about 11 min left"
    assert runner.duration(3 * 3600 + 61) == "3 h 01 min"
