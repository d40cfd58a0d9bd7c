# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""`trl-r1v2 benchmark`: what it prints follows R1V2's protocol; what it carries out is seen to its results."""

import subprocess
import sys
from pathlib import Path

import pytest

from trl_r1v2.scripts import benchmark
from trl_r1v2.scripts.benchmark import BENCHMARKS, HARNESSES, Harness
from trl_r1v2.scripts.main import main


COMMAND = ["benchmark", "--model_name_or_path", "runs/grpo", "--server_url", "http://h:1/v1", "--output_dir", "runs/b"]


def test_every_benchmark_is_printed_with_the_protocol(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*COMMAND, "--extra_args", "--limit 10"]) == 0
    environments, *runs = capsys.readouterr().out.split("\n# ")[len(HARNESSES) :]
    assert len(BENCHMARKS) == 10 and len(runs) == 50 and "pip install" in environments
    assert not list(tmp_path.iterdir())
    for name in BENCHMARKS:
        of_name = [run for run in runs if run.startswith(f"{name}, run")]
        assert [run.split(", run ")[1].splitlines()[0] for run in of_name] == ["0", "1", "2", "3", "4"]
        assert len({run.split("\n", 2)[2] for run in of_name}) == 5  # each has its seed, or its folder
        assert all("http://h:1/v1" in run and "runs/grpo" in run and "0.6" in run for run in of_name)
        assert all("--limit 10" in run for run in of_name)
        if name != "bfcl":  # its answers are as long as the server lets them be
            assert all("65536" in run for run in of_name)
    assert all("MODEL_VERSION=o4-mini" in run for run in runs if BENCHMARKS[run.split(",")[0]] == "lmms-eval")


@pytest.fixture
def harness(tmp_path, monkeypatch):
    """Stands in for a harness: a Python program whose result is what it is told to write."""

    def put(program: str):
        command = f"{sys.executable} -c '{program}' {{model}} {{output}} {{seed}} {{extra}}"
        monkeypatch.setitem(
            HARNESSES, "stub", Harness((), {"stub": "task"}, (command,), "*.json", {"JUDGE": "{judge_model}"})
        )
        monkeypatch.setitem(BENCHMARKS, "stub", "stub")
        options = ["--run", "true", "--benchmarks", "stub", "--num_runs", "2", "--environments", str(tmp_path / "env")]
        (tmp_path / "env" / "stub" / "bin").mkdir(parents=True)
        (tmp_path / "env" / "stub" / "bin" / "pip").touch()
        return main([*COMMAND[:-1], str(tmp_path / "out"), *options, "--extra_args", "--limit 10"])

    return put


def test_runs_leave_logs_and_results(harness, tmp_path):
    program = (
        'import os, sys; print(*sys.argv[1:], os.environ["JUDGE"]); open(sys.argv[2] + "/r.json", "w").write("1")'
    )
    assert harness(program) == 0
    for seed in (0, 1):
        folder = tmp_path / "out" / "stub" / str(seed)
        assert (folder / "log-0.txt").read_text() == f"runs/grpo {folder} {seed} --limit 10 o4-mini\n"
        assert (folder / "r.json").read_text() == "1"


@pytest.mark.parametrize(
    ("program", "words"), [("import sys; sys.exit(3)", "exit code 3"), ("pass", "there is no *.json in")]
)
def test_a_run_that_fails_or_leaves_nothing_ends_it(program, words, harness, capsys, tmp_path):
    assert harness(program) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out" / "stub" / "1").exists()


def test_the_environment_is_made_once(tmp_path, monkeypatch, capsys):
    made = []

    def make(command, check=None, env=None, **options):
        made.append(command)
        Path(tmp_path / "env" / "lm-eval" / "bin").mkdir(parents=True, exist_ok=True)
        (tmp_path / "env" / "lm-eval" / "bin" / "pip").touch()
        results = tmp_path / "out" / "ifeval" / "0" / "m"
        if env is not None:
            results.mkdir(parents=True, exist_ok=True)
            (results / "results_1.json").touch()
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(benchmark.subprocess, "run", make)
    options = ["--run", "true", "--benchmarks", "ifeval", "--num_runs", "1", "--environments", str(tmp_path / "env")]
    for _ in range(2):
        assert main([*COMMAND[:-1], str(tmp_path / "out"), *options]) == 0
    assert [Path(command[0]).name for command in made] == [Path(sys.executable).name, "pip", "lm-eval", "lm-eval"]
    assert made[1][1:] == ["install", "--quiet", "lm-eval[api,ifeval]==0.4.13"]


def test_of_an_environment_that_cannot_be_made_nothing_is_left(tmp_path, monkeypatch):
    def fail(command, check):
        (tmp_path / "env" / "lm-eval" / "bin").mkdir(parents=True, exist_ok=True)
        (tmp_path / "env" / "lm-eval" / "bin" / "pip").touch()
        if "install" in command:
            raise subprocess.CalledProcessError(7, command)

    monkeypatch.setattr(benchmark.subprocess, "run", fail)
    options = ["--run", "true", "--benchmarks", "ifeval", "--environments", str(tmp_path / "env")]
    assert main([*COMMAND[:-1], str(tmp_path / "out"), *options]) == 7
    assert not (tmp_path / "env" / "lm-eval").exists()


def test_an_unknown_benchmark_is_refused(capsys):
    with pytest.raises(SystemExit):
        main([*COMMAND, "--benchmarks", "mmlu"])
    assert "there is no benchmark 'mmlu'; known: mmmu, mmmu_pro" in capsys.readouterr().err
