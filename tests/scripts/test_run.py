# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Pipelines: order, skipping, changed recipes, failures, interruption. Stages are small Python programs."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from trl_r1v2.scripts.parser import parser_of
from trl_r1v2.scripts.recipe import RecipeError
from trl_r1v2.scripts.run import main
from trl_r1v2.scripts.stage_process import folder_lock, log_lines


# Appends its name to `ran` and writes a file to its own folder.
STAGE = """
import pathlib, sys, yaml
recipe = yaml.safe_load(open(sys.argv[-1]))
folder = pathlib.Path(recipe["output_dir"])
folder.mkdir(parents=True, exist_ok=True)
(folder / "value").write_text(str(recipe.get("value")))
with open(folder.parent / "ran", "a") as file:
    file.write(folder.name + "\\n")
print("working on", folder.name)
if recipe.get("fail"):
    sys.exit("no more " + recipe["fail"])
"""


def write_pipeline(folder: Path, *names: str, **stage_args) -> Path:
    (folder / "stage.py").write_text(STAGE)
    stages = [
        {
            "name": name,
            "command": ["python", str(folder / "stage.py")],
            "args": {"output_dir": f"${{output_dir}}/{name}", **stage_args.get(name, {})},
        }
        for name in names
    ]
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump({"output_dir": str(folder / "out"), "stages": stages}, sort_keys=False))
    return path


def run(recipe: Path, *args: str) -> list[str]:
    """Run a pipeline; return the stages that ran, in order."""
    ran = recipe.parent / "out" / "ran"
    ran.unlink(missing_ok=True)
    main(*parser_of(main).parse_args_and_config(["--config", str(recipe), *args]))
    return ran.read_text().split() if ran.exists() else []


def marker(recipe: Path, name: str) -> dict:
    return json.loads((recipe.parent / "out" / "stages" / f"{name}.json").read_text())


def test_stages_run_in_order_and_are_skipped_afterwards(tmp_path, capsys):
    recipe = write_pipeline(tmp_path, "a", "b", "c")
    assert run(recipe) == ["a", "b", "c"]
    assert (tmp_path / "out" / "b" / "value").read_text() == "None"
    assert (tmp_path / "out" / "logs" / "b.log").read_text() == "working on b\n"
    assert marker(recipe, "b")["status"] == "finished" and marker(recipe, "b")["seconds"] > 0
    assert marker(recipe, "b")["follows"] == marker(recipe, "a")["run_id"]
    capsys.readouterr()
    assert run(recipe) == []
    assert capsys.readouterr().out.count("skipped (finished)") == 3


def test_changed_recipe_runs_that_stage_and_all_after_it(tmp_path, capsys):
    run(write_pipeline(tmp_path, "a", "b", "c"))
    recipe = write_pipeline(tmp_path, "a", "b", "c", b={"value": 2})
    capsys.readouterr()
    assert run(recipe) == ["b", "c"]
    out = capsys.readouterr().out
    assert "b: running (its recipe changed: value)" in out and "c: running (an earlier stage runs again)" in out
    # what the stage wrote before is kept apart from what it writes now
    assert (tmp_path / "out" / "b" / "value").read_text() == "2"
    assert (next((tmp_path / "out" / "replaced").glob("b-*")) / "value").read_text() == "None"
    assert f"b: earlier output moved to {tmp_path / 'out' / 'replaced' / 'b-'}" in out
    assert run(recipe) == []


def test_config_is_relative_to_the_pipeline_recipe_and_its_change_counts(tmp_path, monkeypatch):
    recipe = write_pipeline(tmp_path, "a")
    pipeline = yaml.safe_load(recipe.read_text())
    pipeline["stages"][0]["config"] = "a.yaml"
    recipe.write_text(yaml.safe_dump(pipeline))
    (tmp_path / "a.yaml").write_text("value: 1\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert run(recipe) == ["a"]
    assert (tmp_path / "out" / "a" / "value").read_text() == "1"
    (tmp_path / "a.yaml").write_text("value: 2\n")
    assert run(recipe) == ["a"]
    assert run(recipe, "--overrides", "a.value=3") == ["a"]
    assert (tmp_path / "out" / "a" / "value").read_text() == "3"
    assert yaml.safe_load((tmp_path / "out" / "recipes" / "a.yaml").read_text())["value"] == 3


def test_failing_stage_stops_the_run_and_the_next_run_goes_on_there(tmp_path, capsys):
    recipe = write_pipeline(tmp_path, "a", "b", "c", b={"fail": "tea"})
    with pytest.raises(SystemExit) as ended:
        run(recipe)
    error = ended.value.code
    assert error.startswith("Stage 'b' failed (exit code 1)") and str(tmp_path / "out" / "logs" / "b.log") in error
    assert error.endswith("  | working on b\n  | no more tea")
    assert marker(recipe, "b")["status"] == "failed"
    assert not (tmp_path / "out" / "stages" / "c.json").exists()
    with pytest.raises(SystemExit):
        run(recipe)
    assert "b: running (goes on: failed)" in capsys.readouterr().out
    # the stage is the same, so what it had written stays in place for it to resume
    assert not (tmp_path / "out" / "replaced").exists()
    assert run(write_pipeline(tmp_path, "a", "b", "c")) == ["b", "c"]


def test_lost_output_runs_again(tmp_path):
    recipe = write_pipeline(tmp_path, "a", "b")
    run(recipe)
    (tmp_path / "out" / "b").rename(tmp_path / "taken")
    assert run(recipe) == ["b"]


def test_only(tmp_path):
    recipe = write_pipeline(tmp_path, "a", "b", "c")
    assert run(recipe) == ["a", "b", "c"]
    assert run(recipe, "--only", "b") == ["b"]
    # c read what b had written before
    assert run(recipe) == ["c"]
    with pytest.raises(RecipeError, match="there is no stage 'd'; the pipeline has a, b, c"):
        run(recipe, "--only", "d")


def test_a_report_is_named_once_it_is_there(tmp_path, capsys):
    recipe = write_pipeline(tmp_path, "a")
    pipeline, folder = yaml.safe_load(recipe.read_text()), tmp_path / "report"
    stage = {"name": "report", "command": "report", "args": {"run_dir": str(tmp_path), "output_dir": str(folder)}}
    recipe.write_text(yaml.safe_dump({**pipeline, "stages": [*pipeline["stages"], stage]}, sort_keys=False))
    run(recipe, "--only", "a")
    assert str(folder) not in capsys.readouterr().out
    folder.mkdir()
    (folder / "report.html").touch()
    run(recipe, "--only", "a")
    assert capsys.readouterr().out.endswith(f"{tmp_path / 'out'}, {folder}/report.html.\n")


def test_folder_of_another_pipeline_is_refused(tmp_path):
    recipe = write_pipeline(tmp_path, "a")
    run(recipe)
    other = recipe.with_name("other.yaml")
    other.write_text(recipe.read_text())
    with pytest.raises(
        RecipeError, match="belongs to the pipeline .*Choose another `--output_dir`, delete the folder"
    ):
        run(other)
    run(other, "--output_dir", str(tmp_path / "out2"))
    assert (tmp_path / "out2" / "a" / "value").exists()
    assert run(other, "--name", f"{tmp_path.name}/pipeline") == []


def test_second_run_in_the_same_folder_is_refused(tmp_path):
    recipe = write_pipeline(tmp_path, "a")
    run(recipe)
    with folder_lock(tmp_path / "out"):
        with pytest.raises(RecipeError, match="another run, or a stage that it left"):
            run(recipe)
    assert run(recipe) == []


def test_dry_run_writes_nothing_and_says_what_would_run(tmp_path, capsys):
    recipe = write_pipeline(tmp_path, "a", "b")
    assert run(recipe, "--dry_run") == []
    assert not (tmp_path / "out").exists()
    assert "a: would run (not run yet)" in capsys.readouterr().out


def test_dry_run_checks_every_recipe_with_its_own_parser(tmp_path):
    recipe = tmp_path / "pipeline.yaml"
    (tmp_path / "evaluate.yaml").write_text("model_name_or_path: m\ndataset_name: d\nnum_sample: 3\n")
    stages = [
        {"name": "first", "command": "evaluate", "config": "evaluate.yaml", "args": {"output_dir": "x"}},
        {"name": "second", "command": "evaluate", "args": {"model_name_or_path": "m"}},
        {"name": "third", "command": ["no-such-program"]},
    ]
    recipe.write_text(yaml.safe_dump({"output_dir": str(tmp_path / "out"), "stages": stages}))
    for args in (["--dry_run"], []):
        with pytest.raises(RecipeError) as refused:
            run(recipe, *args)
        message = str(refused.value)
        assert "unknown key 'num_sample' (did you mean 'num_samples'" in message and "evaluate.yaml" in message
        assert "the following arguments are required" in message
        assert "stage 'third': there is no program 'no-such-program'" in message
    # a wrong recipe of any stage is found before the first one runs
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ({"name": "a", "comand": "grpo"}, "Unexpected keyword argument (at 0.comand)"),
        ({"name": "a"}, "Field required (at 0.command)"),
        ({"name": "a", "command": "grop"}, "unknown command 'grop' (did you mean 'grpo'?)"),
        ({"name": "../a", "command": "grpo"}, "letters, digits, - and _"),
        ({"name": "a", "command": "grpo", "args": ["x"]}, "should be an object"),
        ({"name": "a", "command": ["sleep", 1]}, "should be a valid string"),
    ],
)
def test_refused_stages(tmp_path, capsys, stage, expected):
    recipe = tmp_path / "pipeline.yaml"
    recipe.write_text(yaml.safe_dump({"output_dir": str(tmp_path / "out"), "stages": [stage]}))
    with pytest.raises(SystemExit) as ended:
        run(recipe)
    assert ended.value.code == 2 and expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "expected"), [("a.b", "stage.key=value"), ("z.b=1", "no stage 'z'"), ("a=1", "stage.key=value")]
)
def test_refused_overrides(tmp_path, override, expected):
    with pytest.raises(RecipeError, match=expected):
        run(write_pipeline(tmp_path, "a"), "--overrides", override)


def test_two_stages_of_one_name(tmp_path):
    with pytest.raises(RecipeError, match="two of them are called alike"):
        run(write_pipeline(tmp_path, "a", "b", "a"))


def test_terminal_shows_one_line_a_stage_with_the_latest_progress(tmp_path):
    import pty

    seen = tmp_path / "seen"
    progress = (
        "import pathlib, time\nfor share in (10, 60):\n  print(f'{share}% of it', end='\\r', flush=True)\n"
        f"for _ in range(1200):\n  time.sleep(0.05)\n  if pathlib.Path({str(seen)!r}).exists():\n    break"
    )
    stages = [
        {"name": "quick", "command": ["python", "-c", "pass"]},
        {"name": "slow", "command": ["python", "-c", progress]},
    ]
    recipe = tmp_path / "pipeline.yaml"
    recipe.write_text(yaml.safe_dump({"output_dir": str(tmp_path / "out"), "stages": stages}))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "trl_r1v2.scripts.main", "run", "--config", str(recipe)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "90", "LINES": "30", "NO_COLOR": "1"}
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        shown += chunk
        if b"60% of it" in shown:
            seen.touch()
    os.close(ours)
    assert process.wait(timeout=240) == 0
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()))
    assert any("slow: running (not run yet)" in line for line in lines)
    assert any(re.search(r"\[2/2\] slow 0:00:\d\d 60% of it", line) for line in lines)
    assert any(re.search(r"\[2/2\] slow: finished after 0:00:\d\d", line) for line in lines)


def is_alive(pid: int) -> bool:
    try:
        # a dead child of a dead parent may still be listed, as a zombie
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, seconds: float = 240.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_stage_and_its_children(tmp_path, signal_number):
    # the stage starts a child that ignores SIGINT, as a data worker may
    child = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    (tmp_path / "stage.py").write_text(
        "import pathlib, subprocess, sys, os\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        f"pathlib.Path({str(tmp_path)!r}, 'pids').write_text(f'{{os.getpid()}} {{child.pid}}')\n"
        "child.wait()\n"
    )
    recipe = tmp_path / "pipeline.yaml"
    stage = {"name": "a", "command": ["python", str(tmp_path / "stage.py")]}
    recipe.write_text(yaml.safe_dump({"output_dir": str(tmp_path / "out"), "stages": [stage]}))
    process = subprocess.Popen(
        [sys.executable, "-m", "trl_r1v2.scripts.main", "run", "--config", str(recipe)],
        stderr=subprocess.PIPE,
        text=True,
        # a job in the background ignores SIGINT, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    pids = tmp_path / "pids"
    wait_for(lambda: pids.is_file() and pids.read_text().count(" ") == 1)
    stage_pid, child_pid = map(int, pids.read_text().split())
    os.kill(process.pid, signal_number)
    _, error = process.communicate(timeout=240)
    assert process.returncode == 128 + signal_number
    assert "Traceback" not in error and "the same command goes on from there" in error
    wait_for(lambda: not is_alive(stage_pid) and not is_alive(child_pid))
    assert json.loads((tmp_path / "out" / "stages" / "a.json").read_text())["status"] == "interrupted"


def test_log_lines_keep_the_latest_state_of_a_progress_bar(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"start\n 10%\r 50%\r\x1b[32m100%\x1b[0m\nlast\n\n")
    assert log_lines(log, 2) == ["100%", "last"]
    log.write_text("x" * 1000)
    assert log_lines(log, 1) == ["x" * 240]
