# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The `compose` and `convert` commands from recipe to checkpoint."""

import shutil

import pytest
import yaml
from transformers import AutoModelForImageTextToText

from tests.support import published_reference as published
from tests.support import tiny_parts
from trl_r1v2.scripts import compose, convert
from trl_r1v2.scripts.main import main
from trl_r1v2.scripts.parser import parser_of
from trl_r1v2.vlm.compose import compose_vlm


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("scripts")
    tiny_parts.save_vision(root / "vision")
    tiny_parts.save_llm(root / "llm")
    tokens = ("<|video_pad|>", "<img>", "</img>", "<IMG_CONTEXT>")
    published.save_published(root / "published", tiny_parts.make_tokenizer(tokens))
    return root


def run(script, recipe: dict, tmp_path, *overrides: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    script.main(*parser_of(script.main).parse_args_and_config(["--config", str(path), *overrides]))


def test_compose_from_a_recipe(root, tmp_path, capsys):
    recipe = {"vision": str(root / "vision"), "llm": str(root / "llm"), "output_dir": str(tmp_path / "out"), "seed": 3}
    run(compose, recipe, tmp_path, "--dtype", "bfloat16", "--max_shard_size", "40KB")
    output = capsys.readouterr().out
    assert f"native InternVL checkpoint in {tmp_path / 'out'}" in output and "bfloat16" in output
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", dtype="auto")
    expected = tmp_path / "direct"
    settings = dict(seed=3, dtype="bfloat16", max_shard_size="40KB", progress=False)
    compose_vlm(str(root / "vision"), str(root / "llm"), str(expected), **settings)
    for file in expected.glob("*.safetensors"):
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()
    for part, count in (("vision", model.model.vision_tower), ("adapter", model.model.multi_modal_projector)):
        assert f"{part:<8}{sum(p.numel() for p in count.parameters()):>16,}" in output


def test_convert_there_and_back(root, tmp_path, capsys):
    run(convert, {"checkpoint": str(root / "published"), "output_dir": str(tmp_path / "native")}, tmp_path)
    back = {"checkpoint": str(tmp_path / "native"), "output_dir": str(tmp_path / "back"), "to": "published"}
    run(convert, back, tmp_path, "--reference", str(root / "published"))
    output = capsys.readouterr().out
    assert "native InternVL checkpoint" in output
    assert f"published-layout checkpoint in {tmp_path / 'back'}\n  1 shards, " in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "gguf"], "must be 'native' or 'published'"),
        (["--reference", "x"], "reference is only read with"),
        (["--to", "published", "--chat_template", "x"], "chat_template is only read with"),
        (["--shard_size", "1GB"], "shard_size"),
    ],
)
def test_wrong_arguments_end_the_command(arguments, message, capsys):
    with pytest.raises(SystemExit) as error:
        parser_of(convert.main).parse_args_and_config(["--checkpoint", "a", "--output_dir", "b", *arguments])
    assert error.value.code == 2 and message in capsys.readouterr().err


def refused(capsys, *command: str) -> str:
    """The one line with which a command ends that cannot be carried out."""
    assert main([*command]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_mistakes_are_one_line_without_a_traceback(root, tmp_path, capsys):
    vision, llm, out = str(root / "vision"), str(root / "llm"), str(tmp_path / "out")
    line = refused(capsys, "compose", "--vision", vision, "--llm", str(tmp_path / "no"), "--output_dir", out)
    assert (
        line == f"trl-r1v2 compose: error: llm: {tmp_path / 'no'} has no config.json. Give a local checkpoint folder."
    )
    line = refused(capsys, "compose", "--vision", llm, "--llm", llm, "--output_dir", out)
    assert "is a 'qwen2' checkpoint; a tower is read from" in line
    line = refused(capsys, "compose", "--vision", vision, "--llm", llm, "--output_dir", out, "--max_shard_size", "big")
    assert "max_shard_size: Unit 'IG' not supported" in line
    template = ("--chat_template", str(tmp_path / "none.jinja"))
    line = refused(capsys, "compose", "--vision", vision, "--llm", llm, "--output_dir", out, *template)
    assert f"there is no file {tmp_path / 'none.jinja'}" in line
    compose_vlm(vision, llm, str(tmp_path / "whole"), progress=False)
    whole = str(tmp_path / "whole")
    line = refused(capsys, "compose", "--vision", vision, "--llm", whole, "--output_dir", out)
    assert "is a 'internvl' checkpoint; give a Qwen2, Qwen3 or Llama causal LM" in line
    shutil.copytree(llm, tmp_path / "toothless", ignore=shutil.ignore_patterns("tokenizer*"))
    line = refused(capsys, "compose", "--vision", vision, "--llm", str(tmp_path / "toothless"), "--output_dir", out)
    assert f"{tmp_path / 'toothless'} has no tokenizer" in line
    line = refused(capsys, "convert", "--checkpoint", llm, "--output_dir", out)
    assert "is a 'qwen2' checkpoint; published InternVL checkpoints are" in line
    line = refused(capsys, "convert", "--checkpoint", llm, "--output_dir", out, "--to", "published")
    assert "is a 'qwen2' checkpoint, not a native `internvl` one" in line
    for text, message in (("{", "config.json is no JSON"), ('{"model_type": "abacus"}', "is a 'abacus' checkpoint")):
        (tmp_path / "config.json").write_text(text)
        line = refused(capsys, "compose", "--vision", vision, "--llm", str(tmp_path), "--output_dir", out)
        assert message in line
    assert not (tmp_path / "out").exists()


def test_a_bug_of_ours_keeps_its_traceback(root, tmp_path, monkeypatch):
    def broken(**arguments):
        raise ValueError("not the user's fault")

    monkeypatch.setattr(compose, "compose_vlm", broken)
    arguments = ["--vision", str(root / "vision"), "--llm", str(root / "llm"), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(ValueError, match="not the user's fault"):
        main(["compose", *arguments])
