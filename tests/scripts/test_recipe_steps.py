# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Recipes for large models, tried on tiny ones: a step of training with the recipe's own settings, and the command line
that would start it on many GPUs.
"""

import json
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command
from datasets import Dataset, DatasetDict
from PIL import Image
from transformers import Trainer

from tests.support.pooling_server import reward_serving
from tests.support.tiny_qwen_vl import build_qwen_vl
from trl_r1v2.scripts import align, grpo, mpo
from trl_r1v2.scripts import parser as launcher
from trl_r1v2.scripts.loading import import_by_name
from trl_r1v2.scripts.main import main
from trl_r1v2.scripts.parser import parser_of
from trl_r1v2.scripts.recipe import read_recipe
from trl_r1v2.vlm.activation import component_of


ROOT = Path(__file__).parents[2]
SCRIPTS = {"grpo": grpo, "mpo": mpo, "align": align}
TRAINING = {
    "recipes/r1v2_38b/mpo.yaml": "mpo",
    "recipes/r1v2_38b/grpo.yaml": "grpo",
    "recipes/internvl3_1b/mpo.yaml": "mpo",
    "recipes/internvl3_1b/grpo.yaml": "grpo",
    "recipes/qwen2_5_vl_7b/mpo.yaml": "mpo",
    "recipes/qwen2_5_vl_7b/grpo.yaml": "grpo",
    "recipes/adapter_transfer/align.yaml": "align",
}
ACCELERATE_CONFIGS = sorted((ROOT / "recipes" / "accelerate_configs").glob("*.yaml"))

# What a tiny model on a CPU needs, and nothing that the recipe is about.
HERE = {
    "use_cpu": True,
    "bf16": False,
    "dtype": "float32",
    "report_to": "none",
    "disable_tqdm": True,
    "save_strategy": "no",
    "max_steps": 1,
    "logging_steps": 1,
}


class CountingModel:
    """Stands in for the reward model behind the server: one point for each character of the answer."""

    sees_images = True

    def score(self, conversations):
        return [float(len(conversation[-1]["content"][0]["text"])) for conversation in conversations]


@pytest.fixture(scope="module")
def reward_server():
    with reward_serving(CountingModel()) as server:
        yield server


@pytest.fixture(scope="module")
def qwen_path(tmp_path_factory):
    return build_qwen_vl(tmp_path_factory.mktemp("qwen"))


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, size=(28, 28, 3), dtype=np.uint8))


def make_rows(command: str, count: int) -> Dataset:
    generator = random.Random(0)
    rows = []
    for seed in range(count):
        row = {"prompt": [{"role": "user", "content": f"Add {seed}."}], "images": [picture(seed)]}
        answers = [[{"role": "assistant", "content": f"It is {generator.randrange(99)}."}] for _ in range(2)]
        columns = {
            "mpo": dict(zip(("chosen", "rejected"), answers, strict=True)),
            "align": {"completion": answers[0]},
            "grpo": {"solution": str(seed)},
        }
        rows.append(row | columns[command])
    return Dataset.from_list(rows)


@pytest.fixture
def trainers(monkeypatch):
    """The trainers whose `train` was called."""
    started, train = [], Trainer.train

    def watched(self, *args, **kwargs):
        started.append(self)
        return train(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "train", watched)
    return started


@pytest.mark.parametrize("path", TRAINING)
def test_a_recipe_trains_a_tiny_model_by_its_own_settings(
    path, internvl_path, qwen_path, reward_server, trainers, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    command, recipe = TRAINING[path], read_recipe(path)
    if "env" in recipe:
        monkeypatch.setenv("R1V2_REWARD_URL", reward_server.url)
    rows_of_a_step = recipe["per_device_train_batch_size"] * recipe["gradient_accumulation_steps"]
    DatasetDict({"train": make_rows(command, rows_of_a_step)}).save_to_disk(str(tmp_path / "data"))
    changes = HERE | {
        "model_name_or_path": qwen_path if "qwen" in path else internvl_path,
        "dataset_name": str(tmp_path / "data"),
        "output_dir": str(tmp_path / "out"),
    }
    if command == "grpo":
        changes |= {"use_vllm": False, "max_completion_length": 6, "log_completions": False}
    script = SCRIPTS[command]
    script.main(*parser_of(script.main).parse_recipe(recipe | changes, path))

    (trainer,) = trainers
    assert trainer.state.global_step == 1
    trained = {component_of(name) for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert trained == set(recipe["trainable"].split("+"))
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    # Only a reward model tells the tiny model's random answers apart: by the rules all of them are wrong.
    learns = command != "grpo" or "env" in recipe
    assert math.isfinite(log["loss"]) and (log["grad_norm"] > 0) == learns
    (group, *_) = trainer.optimizer.param_groups
    assert group["initial_lr"] == recipe["learning_rate"]
    assert group["betas"][1] == recipe.get("adam_beta2", 0.999)
    expected = {
        "grpo": {"ssb/dead_groups", "ssb/effective_after"},
        "mpo": {"mpo/preference_loss", "mpo/quality_loss", "mpo/generation_loss"},
        "align": {"mean_token_accuracy"},
    }
    assert expected[command] <= log.keys()
    if recipe.get("vision_cache"):
        # two prompts a step, each with one image, in 16 rows
        assert log["vision_cache/encoded"] == 2 < log["vision_cache/tiles"]
    if "env" in recipe:
        assert log["hybrid/reward_model/applied"] == 1 and log["hybrid/reward_model/mean"] > 0


@pytest.mark.parametrize("path", TRAINING)
def test_a_recipe_becomes_a_command_line_of_accelerate(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    launched = []
    monkeypatch.setattr(launcher, "launch_command", launched.append)
    monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: True)
    command, recipe = TRAINING[path], read_recipe(path)
    if "env" in recipe:
        monkeypatch.setenv("R1V2_REWARD_URL", "")  # set by the recipe, taken back by the fixture
    machine = ["--machine_rank", "1", "--main_process_ip", "10.0.0.1"] if "num_machines" in recipe else []
    assert main([command, "--config", path, *machine]) == 0
    (parsed,) = launched
    assert (parsed.module, parsed.training_script) == (True, "trl_r1v2.scripts.main")
    assert parsed.training_script_args == [command, "--config", path]
    arguments, defaults, _ = _validate_launch_command(parsed)
    assert (arguments.num_processes, arguments.num_machines) == (
        recipe["num_processes"],
        recipe.get("num_machines", 1),
    )
    kind = Path(recipe["accelerate_config"]).stem.removesuffix("_float32_gradients")
    assert (arguments.multi_gpu, arguments.use_deepspeed, arguments.use_fsdp) == (
        kind == "ddp",
        kind in ("zero2", "zero3"),
        kind == "fsdp2",
    )
    if arguments.use_deepspeed:
        assert arguments.deepspeed_config_file or arguments.zero_stage == int(kind[-1])


@pytest.mark.parametrize("path", TRAINING)
def test_the_batch_is_what_the_comment_says_and_holds_whole_groups(path):
    recipe, text = read_recipe(ROOT / path), (ROOT / path).read_text(encoding="utf-8")
    total, *factors = map(int, re.search(r"(\d+) [^\n]*?(\d+) processes × (\d+) × (\d+)", text).groups())
    assert factors == [
        recipe["num_processes"],
        recipe["per_device_train_batch_size"],
        recipe["gradient_accumulation_steps"],
    ]
    assert math.prod(factors) == total and total % recipe.get("num_generations", 1) == 0


@pytest.mark.parametrize("path", TRAINING)
def test_something_keeps_the_weights_in_float32(path):
    """Learning rates of these recipes are below what bfloat16 can add to a weight."""
    recipe = read_recipe(ROOT / path)
    kind = Path(recipe["accelerate_config"]).stem.removesuffix("_float32_gradients")
    assert recipe["dtype"] == "float32" or kind in ("zero2", "zero3", "fsdp2")
    assert recipe["bf16"]


@pytest.mark.parametrize("stage", ["pairs", "filter_prompts"])
def test_sampling_at_38b_fits_the_gpu_that_its_comment_names(stage):
    path = ROOT / "recipes" / "r1v2_38b" / f"{stage}.yaml"
    figures = json.loads((ROOT / "benchmarks" / "sizes" / "memory.json").read_text())
    gigabytes, gpu = map(
        float,
        re.search(r"([\d.]+) GB with the keys and values of a batch[:,] GPUs of (\d+) GB", path.read_text()).groups(),
    )
    sampling = figures["sampling"][stage]
    assert sampling["batch_size"] == read_recipe(path)["batch_size"]
    assert sampling["weights_and_key_values"] == figures["weights"] + figures["key_values_of_a_token"] * sampling[
        "batch_size"
    ] * (1024 + figures["image_tokens"] + read_recipe(path)["max_new_tokens"])
    assert round(sampling["weights_and_key_values"] / 1e9, 1) == gigabytes < 0.8 * gpu


def test_mpo_at_38b_reads_the_whole_responses_that_its_pairs_have():
    folder = ROOT / "recipes" / "r1v2_38b"
    mpo_recipe, pairs_recipe = read_recipe(folder / "mpo.yaml"), read_recipe(folder / "pairs.yaml")
    figures = json.loads((ROOT / "benchmarks" / "sizes" / "memory.json").read_text())
    assert mpo_recipe["max_length"] >= 1024 + figures["image_tokens"] + pairs_recipe["max_new_tokens"]
    assert figures["stages"]["mpo"]["tokens_of_a_micro_batch"] == 2 * mpo_recipe["max_length"]


@pytest.mark.parametrize("stage", ["mpo", "grpo"])
def test_disk_for_checkpoints_at_38b_is_bounded(stage):
    figures = json.loads((ROOT / "benchmarks" / "sizes" / "memory.json").read_text())
    recipe = read_recipe(ROOT / "recipes" / "r1v2_38b" / f"{stage}.yaml")
    counts = figures["parameters"]
    trained = counts["adapter"] + counts["llm"]  # `llm+adapter`
    assert figures["checkpoint"][stage] == 2 * sum(counts.values()) + 12 * trained
    assert figures["checkpoints_on_disk"][stage] == (recipe["save_total_limit"] + 1) * figures["checkpoint"][stage]


@pytest.mark.parametrize("path", ACCELERATE_CONFIGS, ids=lambda path: path.stem)
def test_accelerate_configs_are_read_by_accelerate(path):
    config = load_config_from_file(str(path))
    kind, stage = re.fullmatch(r"(ddp|zero|fsdp)([23]?)(?:_float32_gradients)?", path.stem).groups()
    assert config.distributed_type == {"ddp": "MULTI_GPU", "zero": "DEEPSPEED", "fsdp": "FSDP"}[kind]
    settings = config.deepspeed_config.get("deepspeed_config_file")
    if settings is not None:  # beside which accelerate takes no key of its own, `mixed_precision` among them
        settings = json.loads((ROOT / settings).read_text())
        assert settings["bf16"]["enabled"] and settings["zero_optimization"]["stage"] == int(stage)
        assert config.mixed_precision is None
    else:
        assert config.mixed_precision == "bf16"
        assert config.deepspeed_config.get("zero_stage") == (int(stage) if kind == "zero" else None)
    if kind == "fsdp":
        assert config.fsdp_config["fsdp_version"] == int(stage)
        assert config.fsdp_config["fsdp_state_dict_type"] == "SHARDED_STATE_DICT"


def test_deepspeed_adds_up_gradients_in_float32():
    config = pytest.importorskip("deepspeed.runtime.config")
    settings = json.loads((ACCELERATE_CONFIGS[0].parent / "zero3_float32_gradients.json").read_text())
    settings = {name: 1 if value == "auto" else value for name, value in settings.items()}
    found = config.DeepSpeedConfig(settings)
    assert found.grad_accum_dtype == "fp32" and found.bfloat16_config.enabled


def test_every_function_that_a_recipe_names_exists(reward_server, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("R1V2_REWARD_URL", reward_server.url)
    found = 0
    for path in sorted(ROOT.glob("recipes/*/*.yaml")):
        recipe = read_recipe(path)
        named = [*(recipe.get("reward_funcs") or []), recipe.get("judge_func"), recipe.get("format_func")]
        for name in filter(None, named):
            assert callable(import_by_name(name, entry=f"{path}: {name}"))
            found += 1
    assert found >= 12
