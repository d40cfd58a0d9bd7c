# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""`trl-r1v2 grpo` on a tiny vision-language model, from recipe to saved model; and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from datasets import Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as PILImage

from trl_r1v2.checks.rows import DatasetError
from trl_r1v2.scripts.loading import (
    import_by_name,
    load_reward_funcs,
    load_splits,
    resolve_checkpoint,
    take_split,
)
from trl_r1v2.scripts.main import main
from trl_r1v2.scripts.recipe import RecipeError


FEATURES = Features(
    {
        "prompt": [{"role": Value("string"), "content": Value("string")}],
        "images": List(Image()),
        "solution": Value("string"),
    }
)
REWARD = """
def count_letters(completions, solution, log_metric=None, **kwargs):
    return [float(len(set(completion[0]["content"])) % 3) for completion in completions]

not_callable = 3
"""


def rows(num_rows: int) -> Dataset:
    image = PILImage.new("RGB", (28, 28), (200, 10, 10))
    prompt = [{"role": "user", "content": "What is it?"}]
    return Dataset.from_list([{"prompt": prompt, "images": [image], "solution": "1"}] * num_rows, features=FEATURES)


@pytest.fixture
def recipe(tmp_path, internvl_path, monkeypatch):
    """A function that writes a recipe, whose reward lies in the working directory, and returns its path."""
    (tmp_path / "data").mkdir()
    rows(4).to_parquet(tmp_path / "data" / "train.parquet")
    (tmp_path / "letter_rewards.py").write_text(REWARD)
    monkeypatch.chdir(tmp_path)

    def write(**changes) -> Path:
        keys = {
            "model_name_or_path": internvl_path,
            "dataset_name": str(tmp_path / "data"),
            "reward_funcs": ["letter_rewards.count_letters"],
            "output_dir": str(tmp_path / "out"),
            "per_device_train_batch_size": 4,
            "num_generations": 4,
            "max_completion_length": 6,
            "max_steps": 2,
            "logging_steps": 1,
            "save_strategy": "steps",
            "save_steps": 1,
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
            "disable_tqdm": True,
            "dtype": "float32",
            **changes,
        }
        path = tmp_path / "grpo.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in keys.items() if value is not None}))
        return path

    return write


def test_vision_cache_from_a_recipe(recipe, tmp_path):
    path = recipe(vision_cache=True, trainable="llm+adapter", max_steps=1, save_strategy="no")
    assert main(["grpo", "--config", str(path)]) == 0
    log = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"][0]
    assert 0 < log["vision_cache/encoded"] < log["vision_cache/tiles"]


def test_from_recipe_to_saved_model_and_resumption(recipe, tmp_path, capsys):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    path = recipe(resume_from_checkpoint="auto")
    assert main(["grpo", "--config", str(path)]) == 0
    out = tmp_path / "out"
    log = json.loads((out / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in log if "reward" in entry] == [1, 2]
    assert all("ssb/size" in entry for entry in log if "reward" in entry)
    assert AutoProcessor.from_pretrained(out).image_token == "<IMG_CONTEXT>"
    assert AutoModelForImageTextToText.from_pretrained(out).config.model_type == "internvl"

    # `auto` goes on at the last complete checkpoint
    (out / "checkpoint-9").mkdir()
    capsys.readouterr()
    assert main(["grpo", "--config", str(path), "--max_steps", "3"]) == 0
    assert f"Resuming from {out / 'checkpoint-2'}." in capsys.readouterr().out
    log = json.loads((out / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in log if "reward" in entry] == [1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"reward_funcs": ["letter_rewards.count_letter"]},
            "`reward_funcs[0]: letter_rewards.count_letter`: the module",
        ),
        ({"reward_funcs": ["accuracy"]}, "nor a YAML file, nor one of accuracy_reward"),
        ({"reward_funcs": None}, "there is no reward"),
        ({"dataset_name": None}, "set either `dataset_name` or `datasets`"),
        ({"dataset_train_split": "training"}, "has no split 'training', only 'train'. Correct `dataset_train_split`"),
        ({"resume_from_checkpoint": True}, "holds no complete checkpoint"),
        ({"check_images": "some"}, "`check_images` is 'some'"),
        ({"dataset_streaming": True, "max_steps": -1}, "grpo.yaml: `dataset_streaming: true` needs `max_steps`"),
        (
            {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4},
            "grpo.yaml: `dataset_name` has 4 prompts, but a generation batch takes 8 different ones",
        ),
        ({"trainable": "adaptor"}, "trainable is 'adaptor'; give each of vision, adapter, llm at most once"),
    ],
)
def test_refused_before_training(recipe, capsys, changes, expected):
    path = recipe(**changes)
    try:
        code = main(["grpo", "--config", str(path)])
    except SystemExit as ended:
        code = ended.code
    error = capsys.readouterr().err
    assert code == 2 and expected in error and "Traceback" not in error


@pytest.mark.parametrize(
    "line",
    ["scale_rewards: false", "report_to: ~", "max_completion_length: null", "dataset_streaming: true",
     "lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 1e-7}"],
)  # fmt: skip
def test_settings_that_are_documented_work(recipe, line, tmp_path):
    keys = {name: None for name in ("report_to", "max_completion_length") if line.startswith(name)}
    path = recipe(max_steps=1, save_strategy="no", **keys)
    path.write_text(f"{path.read_text()}{line}\n")
    assert main(["grpo", "--config", str(path)]) == 0
    assert json.loads((tmp_path / "out" / "trainer_state.json").read_text())["global_step"] == 1


def test_only_the_chosen_components_train(recipe, tmp_path, internvl_path):
    from safetensors.torch import load_file

    assert main(["grpo", "--config", str(recipe(trainable="adapter", learning_rate=0.01, save_strategy="no"))]) == 0
    before = load_file(Path(internvl_path) / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed and all("multi_modal_projector" in name for name in changed)


def test_lora_on_the_llm_alone_needs_consent(recipe, capsys):
    lora = {"use_peft": True, "lora_target_modules": ["q_proj", "v_proj"], "max_steps": 1}
    assert main(["grpo", "--config", str(recipe(**lora))]) == 2
    error = capsys.readouterr().err
    assert "none of the" in error and "allow_frozen_adapter: true" in error and "Traceback" not in error
    assert main(["grpo", "--config", str(recipe(**lora, allow_frozen_adapter=True, save_strategy="no"))]) == 0


def test_weights_in_16_bits_without_a_copy_are_said_once(recipe, capsys):
    path = recipe(max_steps=1, save_strategy="no", dtype="bfloat16")
    assert main(["grpo", "--config", str(path)]) == 0
    assert capsys.readouterr().out.count("weight tensors train in bfloat16 without a float32 copy") == 1
    assert main(["grpo", "--config", str(path), "--dtype", "float32"]) == 0
    assert "float32 copy" not in capsys.readouterr().out


def test_broken_image_is_refused_before_the_model_is_loaded(recipe, tmp_path, capsys, internvl_path):
    image = {"bytes": b"no image", "path": "scan-7.png"}
    broken = rows(2).cast_column("images", List(Image(decode=False)))
    broken = broken.map(lambda row: {"images": [image]}, features=broken.features)
    broken.cast_column("images", List(Image())).to_parquet(tmp_path / "data" / "train.parquet")
    model = tmp_path / "model"
    shutil.copytree(internvl_path, model, ignore=shutil.ignore_patterns("*.safetensors"))
    assert main(["grpo", "--config", str(recipe(model_name_or_path=str(model)))]) == 2
    error = capsys.readouterr().err
    assert "[train], row 0, column 'images', image 0 (scan-7.png) cannot be decoded" in error


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("letter_rewards.count_leters", "did you mean count_letters?"),
        ("no_such_module.x", "cannot be imported: No module named 'no_such_module'"),
        ("x", "is no dotted path"),
    ],
)
def test_names_that_cannot_be_imported(recipe, name, expected):
    with pytest.raises(RecipeError) as refused:
        import_by_name(name, entry="reward_funcs[1]")
    assert expected in str(refused.value) and f"`reward_funcs[1]: {name}`" in str(refused.value)


def test_reward_functions_of_trl_and_of_modules(recipe):
    from trl.rewards import accuracy_reward

    reward_funcs = load_reward_funcs(["accuracy_reward", "letter_rewards.count_letters"], "some/model")
    assert reward_funcs[:2] == ["some/model", accuracy_reward] and reward_funcs[2].__name__ == "count_letters"
    for wrong in ("letter_rewards.not_callable", "trl_r1v2.rewards.AccuracyReward"):
        with pytest.raises(RecipeError, match="no reward function"):
            load_reward_funcs([wrong])


def test_datasets_on_disk(tmp_path):
    DatasetDict({"train": rows(2), "test": rows(1)}).save_to_disk(tmp_path / "saved")
    splits = load_splits(str(tmp_path / "saved"))
    assert len(take_split(splits, "test", entry="dataset_split", source="saved")) == 1
    with pytest.raises(DatasetError, match="no such folder. Build it first"):
        load_splits(str(tmp_path / "absent"))


def test_data_sets_that_are_none_are_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DatasetError, match=r"dataset nosuch cannot be loaded: .*no folder nosuch in .*, if that was meant"
    ):
        load_splits("nosuch")
    Path("empty").mkdir()
    with pytest.raises(DatasetError, match=r"dataset empty cannot be loaded: [^\n]*\w\.$"):
        load_splits("empty")


def test_components_that_a_model_does_not_have_are_refused_in_one_line(recipe, text_model_path, capsys):
    path = recipe(model_name_or_path=text_model_path)
    assert main(["grpo", "--config", str(path), "--trainable", "llm+adapter"]) == 2
    assert "grpo.yaml: `trainable: llm+adapter`: " in capsys.readouterr().err


def test_checkpoints(tmp_path):
    assert [resolve_checkpoint(value, str(tmp_path)) for value in (None, False, "false", "auto")] == [None] * 4
    with pytest.raises(RecipeError, match="write `auto`"):
        resolve_checkpoint("true", str(tmp_path))
    with pytest.raises(RecipeError, match="no such folder"):
        resolve_checkpoint("checkpoint-1", str(tmp_path))
    # a save that was cut off leaves half a state, or none
    for step, state in ((9, "{}"), (10, "{}"), (11, "{"), (12, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    for value in (True, "true", "auto"):
        assert resolve_checkpoint(value, str(tmp_path)) == str(tmp_path / "checkpoint-10")
    assert resolve_checkpoint(str(tmp_path), "x") == str(tmp_path)


@pytest.mark.slow
def test_through_accelerate_launch(recipe, tmp_path):
    path = recipe(num_processes=1, mixed_precision="no")
    assert main(["grpo", "--config", str(path), "--max_steps", "1"]) == 0
    assert json.loads((tmp_path / "out" / "trainer_state.json").read_text())["global_step"] == 1


def test_model_folder_that_is_not_there_is_refused(tmp_path):
    """In one line, where transformers' own message speaks of repository names."""

    from trl_r1v2.scripts.loading import check_model_path
    from trl_r1v2.scripts.recipe import RecipeError

    with pytest.raises(RecipeError, match="no such folder. Build it first, or correct `model_name_or_path`"):
        check_model_path(str(tmp_path / "nowhere"))
    with pytest.raises(RecipeError, match="`model_name_or_path` is not set"):
        check_model_path(None)
    check_model_path(str(tmp_path))
    check_model_path("Qwen/QwQ-32B")
