# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Activation, monitor, reward training and vision cache in two processes, sharded or not, against one plain process.
"""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText

from tests.support import zero_worker
from tests.support.launch import every_backend, launch, needs_deepspeed
from tests.support.reward_tiny import build_reward_model, conversation, pair
from trl_r1v2.rewards import RewardModel


pytestmark = pytest.mark.slow

SCENARIOS = {
    "ddp": ["reward"],
    "fsdp2": ["activations", "reward"],
    "zero2": ["activations", "monitor", "reward"],
    "zero3": ["activations", "monitor", "reward", "reward_not_gathered", "vision_cache"],
}


@pytest.fixture(scope="module")
def models(internvl_path, tmp_path_factory):
    return [internvl_path, build_reward_model(internvl_path, tmp_path_factory.mktemp("reward-model"))]


@pytest.fixture(scope="module")
def run_two(tmp_path_factory, models):
    """What each of two processes found under a backend, scenario by scenario, and their folder."""
    found = {}

    def run(backend: str) -> dict:
        if backend not in found:
            folder = tmp_path_factory.mktemp(backend)
            found[backend] = launch(backend, zero_worker.__name__, folder, SCENARIOS[backend], *models)
            found[backend]["folder"] = folder
        return found[backend]

    return run


@pytest.fixture
def zero3(run_two):
    return run_two("zero3")


@pytest.fixture
def zero2(run_two):
    return run_two("zero2")


@pytest.fixture(params=[pytest.param(name, marks=needs_deepspeed) for name in ("zero2", "zero3")])
def zero(request, run_two):
    return run_two(request.param)


@pytest.fixture(params=every_backend[1:])
def two(request, run_two):
    return run_two(request.param)


@pytest.fixture(params=every_backend)
def rewarding(request, run_two):
    return run_two(request.param)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, models):
    """Runs a scenario in this process; its folder and what it found."""
    found = {}

    def run(scenario: str):
        if scenario not in found:
            folder = tmp_path_factory.mktemp(scenario)
            found[scenario] = folder, zero_worker.SCENARIOS[scenario](folder, *models)
        return found[scenario]

    return run


def assert_close(ours: dict, theirs: dict) -> None:
    """Equal names, and values that differ by the rounding of other sums in float32."""
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=5e-5, msg=lambda text, n=name: f"{n}: {text}")


def assert_equal(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    assert not [name for name in theirs if not torch.equal(ours[name], theirs[name])]


# ---- Activation ----


@pytest.mark.parametrize("name", list(zero_worker.ACTIVATIONS))
def test_exactly_the_chosen_parameters_train_as_in_one_process(name, two, alone):
    single = alone("activations")[1][name]
    for process in two["activations"]:
        found = process[name]
        assert found["report"] == single["report"], "the table counts whole parameters"
        assert found["trained_names"] == single["trained_names"]
        assert_equal(found["before"], single["before"])
        changed = {key for key, value in found["after"].items() if not torch.equal(value, found["before"][key])}
        assert changed == set(found["trained_names"])
        assert_close(found["after"], single["after"])
        assert found["losses"] == pytest.approx(single["losses"], rel=1e-4)
    assert_equal(two["activations"][0][name]["after"], two["activations"][1][name]["after"])


def test_one_process_trains_the_parameters_of_the_chosen_components(alone, models):
    """What the sharded runs are compared with, counted in the checkpoint."""
    roots = {"vision": "model.vision_tower.", "adapter": "model.multi_modal_projector.", "llm": ("model.lang", "lm_h")}
    sizes = {name: p.numel() for name, p in AutoModelForImageTextToText.from_pretrained(models[0]).named_parameters()}
    for name in ("adapter", "llm", "vision"):
        found, chosen = alone("activations")[1][name], zero_worker.ACTIVATIONS[name][0].split("+")
        expected = {key for key in sizes if any(key.startswith(roots[part]) for part in chosen)}
        assert {key for key, v in found["after"].items() if not torch.equal(v, found["before"][key])} == expected
        for part, root in roots.items():
            size = sum(value for key, value in sizes.items() if key.startswith(root))
            assert found["report"]["trained"][part] == size * (part in chosen)
            assert found["report"]["frozen"][part] == size * (part not in chosen)


@needs_deepspeed
def test_zero3_shards_while_loading(zero3, zero2):
    for process in zero3["activations"]:
        assert all(found["is_sharded_on_loading"] for found in process.values())
    assert not any(found["is_sharded_on_loading"] for found in zero2["activations"][0].values())


def test_saved_lora_and_adapter_come_back(two, models):
    after = two["activations"][0]["lora"]
    base = AutoModelForImageTextToText.from_pretrained(models[0], dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(two["folder"] / "activations" / "lora" / "saved"))
    loaded = dict(model.named_parameters())
    for name in after["trained_names"]:
        assert torch.equal(loaded[name], after["after"][name]), name


# ---- Monitor ----


@needs_deepspeed
def test_watching_changes_nothing(zero):
    for process in zero["monitor"]:
        for name in ("watched", "few_rows"):
            assert_equal(process[name]["parameters"], process["unwatched"]["parameters"])
            assert process[name]["losses"] == process["unwatched"]["losses"]


@needs_deepspeed
@pytest.mark.parametrize("name", ["watched", "few_rows"])
def test_monitor_logs_the_figures_of_one_process(name, zero, alone):
    """Of few rows, too, where one process has none and must not be waited for."""
    single = alone("monitor")[1][name]
    assert [entry["hallucination/num_responses"] for entry in single["figures"]] == [
        13 if name == "watched" else 2
    ] * 3
    for process in zero["monitor"]:
        assert process[name]["flagged"] == single["flagged"]
        for entry, expected in zip(process[name]["figures"], single["figures"], strict=True):
            assert entry == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert zero["monitor"][0][name]["figures"] == zero["monitor"][1][name]["figures"]


# ---- Reward model ----


def test_reward_model_trains_as_in_one_process(rewarding, alone):
    folder, single = alone("reward")
    for process in rewarding["reward"]:
        for key in ("report", "trained_names"):
            assert process[key] == single[key]
        assert_equal(process["before"], single["before"])
        assert_close(process["parameters"], single["parameters"])
        for key, values in single["log"].items():
            assert process["log"][key] == pytest.approx(values, abs=1e-4), key
        for key, value in single["evaluated"].items():
            assert process["evaluated"][key] == pytest.approx(value, abs=1e-4), key
        assert_equal(process["resumed"], process["parameters"])
        assert process["fresh_head"].std() == pytest.approx(single["fresh_head"].std(), rel=0.5)
    first, second = rewarding["reward"]
    assert torch.equal(first["fresh_head"], second["fresh_head"])
    for key in ("parameters", "swapping"):
        assert_equal(first[key], second[key])
    changed = {key for key, value in first["swapping"].items() if not torch.equal(value, first["before"][key])}
    # The bias of the head is in both scores of every difference, so its gradient is 0.
    assert changed == set(first["trained_names"]) - {"value_head.summary.bias"}


def test_saved_reward_model_scores_as_that_of_one_process(rewarding, alone):
    conversations = [conversation(pair(seed, 1), "chosen") for seed in (1, 2)]
    folders = alone("reward")[0], rewarding["folder"] / "reward"
    is_whole = (folders[1] / "checkpoint-2" / "config.json").exists()  # under FSDP2 checkpoints are shards
    for name in ("saved", "checkpoint-2") if is_whole else ("saved",):
        expected, scores = (RewardModel.from_pretrained(str(folder / name)).score(conversations) for folder in folders)
        assert scores == pytest.approx(expected, abs=1e-4)


@needs_deepspeed
def test_zero3_that_would_save_shards_is_refused(zero3):
    for process in zero3["reward_not_gathered"]:
        assert "zero3_save_16bit_model: true" in process["error"]


@needs_deepspeed
def test_image_preference_is_the_same_however_the_processes_share(run_two):
    """Here and there a process has no row with a partner. Which rows have one depends on the number of processes."""
    expected = run_two("ddp")["reward"][0]["swapping"]
    for backend in ("fsdp2", "zero2", "zero3"):
        assert_close(run_two(backend)["reward"][0]["swapping"], expected)


# ---- Vision cache ----


@needs_deepspeed
def test_vision_cache_under_zero3_trains_the_same(zero3):
    """In the third step the first process knows its images and the second does not: both run their towers."""
    first, second = zero3["vision_cache"]
    for process in (first, second):
        for key in ("losses", "gradient_norms"):
            assert process["with"][key] == pytest.approx(process["without"][key], rel=1e-4)
        assert_close(process["with"]["parameters"], process["without"]["parameters"])
        assert process["with"]["bypassed"] == [0] * 6
        assert sum(process["with"]["encoded"]) < sum(process["with"]["tiles"]) / 5
    assert first["with"]["encoded"][2] == 0 < second["with"]["encoded"][2]
