# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Recipes and command lines that are refused, and what the refusal says."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import pytest
from transformers import TrainingArguments

from trl_r1v2.scripts.parser import RecipeParser
from trl_r1v2.scripts.recipe import RecipeError, read_recipe, value_problem


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Arguments:
    output_dir: str = field(metadata={"help": "Folder."})
    learning_rate: float = field(default=1e-6, metadata={"help": "Rate."})
    max_steps: int = field(default=-1, metadata={"help": "Steps."})
    weights: list[float] | None = field(default=None, metadata={"help": "Weights."})
    names: list[str] | None = field(default=None, metadata={"help": "Names."})
    save_strategy: Colour | str = field(default="red", metadata={"help": "When."})
    mode: str = field(default="paper", metadata={"help": "Mode.", "choices": ["paper", "fresh"]})
    shout: bool = field(default=False, metadata={"help": "Loud."})
    extra: dict | None = field(default=None, metadata={"help": "More."})

    def __post_init__(self):
        if self.max_steps == 0:
            raise ValueError("`max_steps` is 0; give at least 1.")


def parse(tmp_path, recipe: str, *args: str, **options):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe, encoding="utf-8")
    return RecipeParser((Arguments,), prog="prog").parse_args_and_config(["--config", str(path), *args], **options)


def refusal(capsys, tmp_path, recipe: str, *args: str, **options) -> str:
    """The message of a recipe that must end the program with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        parse(tmp_path, recipe, *args, **options)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_command_line_overrides_recipe_which_overrides_default(tmp_path):
    (arguments,) = parse(tmp_path, "output_dir: x\nlearning_rate: 1e-4\nmax_steps: 3\n", "--max_steps", "5")
    assert (arguments.output_dir, arguments.learning_rate, arguments.max_steps) == ("x", 1e-4, 5)


def test_config_with_equals_sign(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("output_dir: x\n")
    (arguments,) = RecipeParser((Arguments,)).parse_args_and_config([f"--config={path}"])
    assert arguments.output_dir == "x"


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("output_dir: x\nlearning_rat: 1e-4\n", "unknown key 'learning_rat' (did you mean 'learning_rate'?)"),
        ("output_dir: x\nlearning-rate: 1e-4\n", "did you mean 'learning_rate'?"),
        ("output_dir: x\nnum_procesess: 2\n", "did you mean 'num_processes'?"),
        (
            "output_dir: x\nmax_steps: 1\nmax_steps: 2\n",
            "line 3, column 1: the key 'max_steps' stands here a second time",
        ),
        ("output_dir: [x\nmax_steps: 1\n", "recipe.yaml, line 2, column 10"),
        ("\toutput_dir: x\n", "recipe.yaml, line 1, column 1"),
        ("- a\n- b\n", "a recipe is a YAML mapping"),
        ("", "a recipe is a YAML mapping"),
        ("output_dir: x\nenv: [A]\n", "`env` takes a mapping"),
        ("output_dir: x\n3: y\n", "its keys are text"),
        ("output_dir: x\nmax_steps: 1.5\n", "`max_steps: 1.5` does not fit: should be a valid integer"),
        ("output_dir: x\nmax_steps: 10.0\n", "`max_steps: 10.0` does not fit: should be a valid integer"),
        ("output_dir: x\nmax_steps: ten\n", "`max_steps: \"ten\"` does not fit: should be a valid integer"),
        ("output_dir: x\nsave_strategy: true\n", "should be 'red' or 'blue' or should be a valid string"),
        ("output_dir: x\nnames: accuracy\n", "`names: \"accuracy\"` does not fit: should be a valid array"),
        ("output_dir: x\nweights: [heavy]\n", "should be a valid number (at 0)"),
        ("output_dir: 12\n", "`output_dir: 12` does not fit: should be a valid string"),
        ("output_dir: x\nmode: papre\n", "should be 'paper' or 'fresh'"),
        ("output_dir: x\nmax_steps: 0\n", "`max_steps` is 0; give at least 1."),
        ("max_steps: 1\n", "required: --output_dir"),
    ],
)  # fmt: skip
def test_refused_recipes(capsys, tmp_path, recipe, expected):
    assert expected in refusal(capsys, tmp_path, recipe)


def test_every_unknown_key_is_named_with_the_file(capsys, tmp_path):
    error = refusal(capsys, tmp_path, "output_dir: x\nfirst: 1\nsecond: 2\n")
    assert f"{tmp_path / 'recipe.yaml'}: unknown key 'first'" in error
    assert f"{tmp_path / 'recipe.yaml'}: unknown key 'second'" in error


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--learning_rat", "1"], "unknown argument 'learning_rat' (did you mean 'learning_rate'?)"),
        # argparse would take this for an abbreviation of --learning_rate
        (["--learn", "1"], "unknown argument 'learn'"),
        (["other.yaml"], "unknown argument 'other.yaml'"),
        (["--config", "other.yaml"], "other.yaml: no such file"),
        (["--num_processes", "2"], "--num_processes: this command's process cannot start others"),
        (["--max_steps", "ten"], "invalid int value: 'ten'"),
    ],
)
def test_refused_command_lines(capsys, tmp_path, args, expected):
    assert expected in refusal(capsys, tmp_path, "output_dir: x\n", *args)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("recpe.yaml", "no such file; in its folder there is recipe.yaml"),
        ("absent/recipe.yaml", "in its folder there is no recipe"),
        ("", "cannot be read"),
    ],
)
def test_missing_recipe(tmp_path, name, expected):
    (tmp_path / "recipe.yaml").write_text("a: 1\n")
    with pytest.raises(RecipeError) as refused:
        read_recipe(tmp_path / name)
    assert expected in str(refused.value)


def test_launch_keys_of_a_recipe_are_ignored_by_the_script_and_returned_to_the_launcher(tmp_path):
    recipe = "output_dir: x\nnum_processes: 2\nmulti_gpu: true\ncpu: false\nmain_process_port: null\n"
    (arguments,) = parse(tmp_path, recipe)
    assert arguments.output_dir == "x"
    path = tmp_path / "recipe.yaml"
    parser = RecipeParser((Arguments,), prog="prog")
    (arguments,), of_recipe, of_command, own = parser._read(
        ["--config", str(path), "--mixed_precision=bf16", "--num-machines", "1", "--shout"], may_launch=True
    )
    assert of_recipe == {"num_processes": "2", "multi_gpu": True}
    assert of_command == {"mixed_precision": "bf16", "num_machines": "1"}
    assert own == ["--config", str(path), "--shout"]
    assert arguments.shout is True


def test_environment_of_a_recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("TRL_R1V2_TEST", "before")
    parse(tmp_path, "output_dir: x\nenv:\n  TRL_R1V2_TEST: 7\n")
    import os

    assert os.environ["TRL_R1V2_TEST"] == "7"


@pytest.mark.parametrize(
    ("value", "hint", "fits"),
    [
        (1, float, True), (True, float, False), (True, int, False), ("1e-4", float, False), (1.0, int, False),
        (None, int | None, True), (None, int, False), ("red", Colour, True), (False, Colour | str, False),
        ("a", Literal["a", "b"], True), ("c", Literal["a", "b"], False), ([1, 2.5], list[float], True),
        (["1"], list[float], False), ({"a": 1}, dict | str | None, True), ([1], dict | None, False),
        (["x"], None | str | list[str], True), ([{"output_dir": "x"}], list[Arguments], True),
        (["x"], list[Arguments], False),
    ],
)  # fmt: skip
def test_kinds_of_values(value, hint, fits):
    assert (value_problem("key", value, hint) is None) == fits


@pytest.mark.parametrize("value", [True, False, "checkpoint-3", None])
def test_resume_from_checkpoint_takes_booleans_as_the_trainer_does(value):
    recipe = {"output_dir": "x", "resume_from_checkpoint": value}
    (arguments,) = RecipeParser((TrainingArguments,)).parse_recipe(recipe, "here")
    assert arguments.resume_from_checkpoint == value


def test_values_are_read_as_yaml_1_2_has_them(tmp_path):
    """TRL's parser reads `1e-7` as text where no argument's type converts it, and `no` as false."""
    recipe = "output_dir: x\nsave_strategy: no\nshout: True\nweights: [1e-4, -2E+3]\nextra: {min_lr: 1e-7, on: off}\n"
    (arguments,) = parse(tmp_path, recipe)
    assert (arguments.save_strategy, arguments.shout, arguments.weights) == ("no", True, [1e-4, -2000.0])
    assert arguments.extra == {"min_lr": 1e-7, "on": "off"}


def test_parse_recipe_raises_instead_of_ending_the_program():
    parser = RecipeParser((Arguments,))
    assert parser.parse_recipe({"output_dir": "x", "max_steps": 2, "env": {"A": 1}}, "here")[0].max_steps == 2
    with pytest.raises(RecipeError, match="here: unknown key 'max_step'"):
        RecipeParser((Arguments,)).parse_recipe({"output_dir": "x", "max_step": 2}, "here")
    with pytest.raises(RecipeError, match="here: `max_steps` is 0"):
        RecipeParser((Arguments,)).parse_recipe({"output_dir": "x", "max_steps": 0}, "here")


def test_a_choice_may_be_left_at_its_default_of_none(tmp_path):
    @dataclass
    class Optional:
        backend: str | None = field(default=None, metadata={"help": "Backend.", "choices": ["gloo", "nccl"]})

    path = tmp_path / "recipe.yaml"
    path.write_text("backend: null\n")
    (arguments,) = RecipeParser((Optional,)).parse_args_and_config(["--config", str(path)])
    assert arguments.backend is None
