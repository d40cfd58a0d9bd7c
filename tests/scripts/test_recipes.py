# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Every recipe of the repository is parsed by the parser of its command."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
from trl.scripts import vllm_serve

from trl_r1v2.scripts.main import COMMANDS, script_of
from trl_r1v2.scripts.parser import parser_of
from trl_r1v2.scripts.recipe import read_recipe
from trl_r1v2.scripts.run import main


ROOT = Path(__file__).parents[2]
RECIPES = sorted(path for path in (ROOT / "recipes").rglob("*.yaml") if "accelerate_configs" not in path.parts)
PIPELINES = [path for path in RECIPES if "stages" in read_recipe(path)]


def stages_of(pipeline: Path, *args: str):
    """The resolved stages of a pipeline recipe."""
    (run_args,) = parser_of(main).parse_args_and_config(["--config", str(pipeline), *args])
    return run_args.resolve()


@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda path: str(path.relative_to(ROOT)))
def test_dry_run_of_every_pipeline(pipeline, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    args = ["--config", str(pipeline), "--output_dir", str(tmp_path / "out"), "--dry_run"]
    main(*parser_of(main).parse_args_and_config(args))
    assert f"The recipes of {len(stages_of(pipeline))} stages are in order" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_pipeline_in_another_folder_writes_nowhere_else(pipeline, tmp_path):
    """`--output_dir` moves the whole pipeline: no stage still names the folder of the recipe."""
    usual = read_recipe(pipeline)["output_dir"]
    for stage in stages_of(pipeline, "--output_dir", str(tmp_path / "out")):
        assert stage.output_dir is not None and tmp_path / "out" in Path(stage.output_dir).parents
        assert usual not in str(stage.args)


def single_recipes() -> list:
    """Recipes outside pipelines, with the command that their head names."""
    in_pipelines = {
        (pipeline.parent / stage.config).resolve()
        for pipeline in PIPELINES
        for stage in stages_of(pipeline)
        if stage.config is not None
    }
    found = []
    for path in RECIPES:
        if path in PIPELINES or path.resolve() in in_pipelines:
            continue
        named = re.search(r"trl-r1v2 (\S+) --config", path.read_text(encoding="utf-8"))
        found.append(pytest.param(path, named and named.group(1), id=str(path.relative_to(ROOT))))
    return found


@pytest.mark.parametrize(("path", "command"), single_recipes())
def test_every_other_recipe_names_its_command_and_fits_it(path, command, monkeypatch):
    assert command in COMMANDS, f"{path}: a comment has to say `trl-r1v2 <command> --config …`"
    monkeypatch.chdir(ROOT)
    # a recipe for GPUs is parsed as on one
    monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: True)
    parser_of(importlib.import_module(script_of(command)).main).parse_recipe(read_recipe(path), str(path))


def test_recipes_named_in_documents_exist_and_belong_to_their_command():
    found = 0
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        named = re.findall(r"trl-r1v2 +(\S+) +--config (recipes/\S+\.yaml)", page.read_text(encoding="utf-8"))
        for command, path in named:
            recipe = ROOT / path
            assert recipe.is_file(), f"{page.name} names {path}"
            assert re.search(rf"trl-r1v2 {command} --config", recipe.read_text(encoding="utf-8")), (
                f"{page.name}: {path}"
            )
            found += 1
    assert found >= 12


def test_the_server_at_38b_is_started_as_trl_starts_one(monkeypatch):
    """TRL's own command for it is deprecated, and runs the line that it builds."""
    monkeypatch.setattr(vllm_serve, "is_vllm_available", lambda min_version: True)
    imposed = vllm_serve.build_command(vllm_serve.ScriptArguments(model="model"))
    imposed = imposed[
        imposed.index("--enable-scale-out") : imposed.index("--max-logprobs")
    ]  # that is for distillation
    text = (ROOT / "recipes" / "r1v2_38b" / "grpo.yaml").read_text(encoding="utf-8").replace("\n#", "")
    words = shlex.split(re.search(r"VLLM_SERVER_DEV_MODE=1 vllm serve .*?--enable-scale-out", text).group())
    for option, value in zip(imposed, [*imposed[1:], ""], strict=True):
        if option.startswith("--"):
            given = words[words.index(option) :][:2]
            assert value.startswith("--") or given == [option, value]
