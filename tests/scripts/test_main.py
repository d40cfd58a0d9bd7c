# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The table of commands, the help page, and who starts a script."""

import functools
import importlib
import inspect
import subprocess
import sys

import pytest

from trl_r1v2.scripts import grpo
from trl_r1v2.scripts import parser as launcher
from trl_r1v2.scripts.main import COMMANDS, main, script_of
from trl_r1v2.scripts.parser import RecipeParser


def test_help_imports_neither_torch_nor_trl_and_names_every_command():
    code = (
        "import sys; from trl_r1v2.scripts.main import main\ntry:\n  main(['--help'])\nfinally:\n  print([name for "
        "name in ('torch', 'trl', 'transformers', 'accelerate', 'yaml', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *page, imported = done.stdout.splitlines()
    assert imported == "[]"
    for name, text in COMMANDS.items():
        assert any(line.split()[:1] == [name] for line in page)
        assert text.split()[0] in done.stdout
        assert "main" in vars(importlib.import_module(script_of(name)))


def test_unknown_command(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["evalute"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "invalid choice: 'evalute'" in error and "'evaluate'" in error


def test_broken_recipe_is_refused_before_the_script_is_imported(tmp_path):
    recipe = tmp_path / "grpo.yaml"
    recipe.write_text("a: [1\n")
    code = (
        "import sys; from trl_r1v2.scripts.main import main; "
        f"\ntry:\n  sys.exit(main(['grpo', '--config', {str(recipe)!r}]))\nfinally:\n  print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (2, "False")
    assert "Traceback" not in done.stderr and f"{recipe}, line 2" in done.stderr


def test_help_of_a_command_shows_its_arguments(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["grpo", "--help"])
    assert ended.value.code == 0
    page = capsys.readouterr().out
    for argument in ("--ssb_capacity", "--learning_rate", "--check_images", "--reward_funcs"):
        assert argument in page
    assert page.startswith("usage: trl-r1v2 grpo --config recipe.yaml")


def test_launch_options_are_refused_for_a_command_of_one_process(capsys, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model_name_or_path: m\ndataset_name: d\noutput_dir: o\n")
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "--config", str(recipe), "--num_processes", "2"])
    assert ended.value.code == 2
    assert "--num_processes: this command's process cannot start others" in capsys.readouterr().err


def run_grpo(monkeypatch, tmp_path, recipe: str, *args: str, **options):
    """How `trl-r1v2 grpo` would start the script: the launcher's command line, or the arguments in this process."""
    started = {}

    monkeypatch.setattr(launcher, "launch_command", lambda parsed: started.update(launched=parsed))
    fake = functools.wraps(grpo.main)(lambda *parsed: started.update(here=parsed))
    monkeypatch.setattr("trl_r1v2.scripts.grpo.main", fake)
    path = tmp_path / "grpo.yaml"
    path.write_text(f"output_dir: {tmp_path}\nuse_cpu: true\nbf16: false\n{recipe}")
    started["code"] = main(["grpo", "--config", str(path), *args], **options)
    return started


def test_one_process_without_launch_options_stays_in_this_process(monkeypatch, tmp_path):
    monkeypatch.setattr(launcher, "default_config_file", str(tmp_path / "absent"))
    monkeypatch.setattr(launcher.torch.accelerator, "device_count", lambda: 1)
    started = run_grpo(monkeypatch, tmp_path, "ssb_capacity: 7\n", "--max_steps", "3")
    assert started["code"] == 0 and "launched" not in started
    assert started["here"][1].ssb_capacity == 7 and started["here"][1].max_steps == 3


@pytest.mark.parametrize("reason", ["default config", "two devices"])
def test_launcher_is_used_where_accelerate_would_start_several(monkeypatch, tmp_path, reason):
    default = tmp_path / "default_config.yaml"
    if reason == "default config":
        default.write_text("{}\n")
    monkeypatch.setattr(launcher, "default_config_file", str(default))
    monkeypatch.setattr(launcher.torch.accelerator, "is_available", lambda: reason == "two devices")
    monkeypatch.setattr(launcher.torch.accelerator, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert "launched" in run_grpo(monkeypatch, tmp_path, "")
    # a process that was itself started by a launcher never starts others
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert not launcher.needs_launcher({"num_processes": "2"})
    monkeypatch.delenv("LOCAL_RANK")
    # what accelerate sets for a single process
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert not launcher.needs_launcher({"num_processes": "1"})


def test_launch_options_reach_accelerate_and_the_command_line_wins(monkeypatch, tmp_path):
    recipe = "num_processes: 2\naccelerate_config: zero3\nmulti_gpu: false\n"
    args = ["--seed", "2", "--num_processes", "4", "--accelerate_config=zero2", "--max_steps", "2"]
    parsed = run_grpo(monkeypatch, tmp_path, recipe, *args)["launched"]
    assert parsed.num_processes == 4 and not parsed.multi_gpu
    assert parsed.config_file.endswith("trl/accelerate_configs/zero2.yaml")
    assert (parsed.module, parsed.training_script) == (True, "trl_r1v2.scripts.main")
    assert parsed.training_script_args == [
        "grpo",
        "--config",
        str(tmp_path / "grpo.yaml"),
        "--seed",
        "2",
        "--max_steps",
        "2",
    ]


def test_what_accelerate_has_launched_launches_nothing(monkeypatch, tmp_path):
    """A single process has no `LOCAL_RANK`: what is launched stays as it is, whatever the recipe says."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    recipe = "num_processes: 2\naccelerate_config: zero3\n"
    module = run_grpo(monkeypatch, tmp_path, recipe)["launched"].training_script
    source = inspect.getsource(importlib.import_module(module))
    assert source.endswith('if __name__ == "__main__":\n    sys.exit(main(may_launch=False))\n')
    started = run_grpo(monkeypatch, tmp_path, recipe, may_launch=False)
    assert started["code"] == 0 and "here" in started and "launched" not in started


def test_unknown_accelerate_config(monkeypatch, tmp_path, capsys):
    assert run_grpo(monkeypatch, tmp_path, "accelerate_config: zero9\n")["code"] == 2
    assert "Accelerate config zero9 is neither a file nor a valid config" in capsys.readouterr().err


def test_launch_options_of_a_recipe():
    recipe = {"multi_gpu": True, "cpu": False, "num_processes": None, "fsdp_offload_params": False, "gpu_ids": "0,1"}
    _, of_recipe, *_ = RecipeParser()._parse(recipe, "here", [])
    assert of_recipe == {"multi_gpu": True, "fsdp_offload_params": "False", "gpu_ids": "0,1"}
