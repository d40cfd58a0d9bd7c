# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The recipes of the digit job's MPO rounds on tiny models: sample, pair, train, measure, and on to GRPO."""

import importlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from datasets import Dataset, Features, Image, List, Value, load_dataset
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from tests.support.mpo_tiny import make_image
from trl_r1v2.sampling import model_fingerprint
from trl_r1v2.scripts.main import script_of
from trl_r1v2.scripts.parser import parser_of
from trl_r1v2.scripts.pipeline import Stage
from trl_r1v2.scripts.recipe import read_recipe
from trl_r1v2.scripts.run import main as run_main


RECIPES = Path(__file__).parents[2] / "recipes" / "digits"
# A few seconds on an untrained model; everything that says how the stages hang together stays as it is.
SHORT = {
    "pairs": {"num_samples": 4, "max_new_tokens": 6, "use_cpu": True, "plots": False, "format_func": None}
    | {"max_format_pairs": 0, "chosen_threshold": 1.0, "reward_funcs": [f"{__name__}.parity_reward"]},
    "mpo": {"max_steps": 2, "warmup_steps": 0, "save_steps": 1, "per_device_train_batch_size": 2, "logging_steps": 1}
    | {"save_total_limit": 2, "learning_rate": 1.0e-2, "use_cpu": True, "disable_tqdm": True},
    "evaluate": {"num_samples": 1, "max_new_tokens": 6},
}


def parity_reward(completions, **kwargs):
    """Right about half the time, whatever the model."""
    return [float(sum(map(ord, completion[0]["content"])) % 2 == 0) for completion in completions]


def run_stage(stage: Stage, **changes) -> None:
    script = importlib.import_module(script_of(stage.command))
    recipe = {**stage.args, **SHORT.get(stage.command, {}), **changes}
    script.main(*parser_of(script.main).parse_recipe(recipe, stage.place))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def rounds(tmp_path_factory, internvl_path):
    """Two rounds of `iterated_mpo.yaml`, and the resolved stages."""
    folder = tmp_path_factory.mktemp("iterated")
    data = {
        split: [
            {
                "prompt": [{"role": "user", "content": f"{split} {number}"}],
                "images": [make_image(number, width=28, height=28)] * (number % 3),
                "solution": "1",
                "digits": [1],
                "task": "yes_no",
            }
            for number in range(8)
        ]
        for split in ("train", "test")
    }
    message = List({"role": Value("string"), "content": Value("string")})
    features = Features(
        {"prompt": message, "images": List(Image()), "solution": Value("string"), "digits": List(Value("int64"))}
        | {"task": Value("string")}
    )
    for split, rows in data.items():
        Dataset.from_list(rows, features=features).to_parquet(folder / "data" / f"{split}.parquet")

    pipeline = RECIPES / "iterated_mpo.yaml"
    (run_args,) = parser_of(run_main).parse_args_and_config(["--config", str(pipeline), "--output_dir", str(folder)])
    stages = {stage.name: stage for stage in run_args.resolve()}
    common = {"dataset_name": str(folder / "data")}
    for number, split in ((1, "train[:4]"), (2, "train[4:]")):
        start = {"model_name_or_path": internvl_path} if number == 1 else {}
        run_stage(stages[f"pairs-{number}"], **common, dataset_split=split, **start)
        run_stage(stages[f"mpo-{number}"], **start)
    run_stage(stages["evaluate-2"], **common)
    return folder, stages


def test_every_round_starts_from_the_one_before(rounds, internvl_path):
    """Policy, sampler and reference of the second round are the first round's model."""
    folder, _ = rounds
    first = AutoModelForImageTextToText.from_pretrained(folder / "mpo-1", dtype=torch.float32)
    sampled = json.loads(next((folder / "pairs-2" / "rollouts").glob("*.json")).read_text())
    assert model_fingerprint(first) in json.dumps(sampled)

    for number in (1, 2):
        log = json.loads((folder / f"mpo-{number}" / "trainer_state.json").read_text())["log_history"]
        steps = [entry for entry in log if "mpo/chosen_reward" in entry]
        # Policy and reference are the same before the first step, and a step moves the policy away from it.
        assert steps[0]["mpo/chosen_reward"] == steps[0]["mpo/rejected_reward"] == 0
        assert steps[1]["mpo/chosen_reward"] != 0
    before, after = weights(Path(internvl_path)), weights(folder / "mpo-2")
    changed = {name for name, value in weights(folder / "mpo-1").items() if not torch.equal(value, after[name])}
    assert any("language_model" in name for name in changed)
    assert all(torch.equal(value, before[name]) for name, value in after.items() if "vision" in name)


def test_rounds_are_wired_to_each_other(rounds):
    folder, stages = rounds
    prompts = [
        {row["prompt"][0]["content"] for row in load_dataset(str(folder / f"pairs-{number}"), split="train")}
        for number in (1, 2)
    ]
    assert prompts[0] <= {f"train {number}" for number in range(4)}
    assert prompts[1] <= {f"train {number}" for number in range(4, 8)}
    for number in (1, 2, 3):
        if number > 1:
            for stage in (f"pairs-{number}", f"mpo-{number}"):
                assert stages[stage].args["model_name_or_path"] == str(folder / f"mpo-{number - 1}")
        assert stages[f"mpo-{number}"].args["dataset_name"] == str(folder / f"pairs-{number}")
        assert stages[f"pairs-{number}"].args["chosen_threshold"] == 2.0
        assert stages[f"mpo-{number}"].args["resume_from_checkpoint"] == "auto"
        assert stages[f"evaluate-{number}"].args["model_name_or_path"] == str(folder / f"mpo-{number}")


def test_interrupted_round_goes_on(rounds, capsys):
    """`auto` finds the checkpoint that the recipe has the stage write, and the rest of the way is the same."""
    folder, stages = rounds
    whole = weights(folder / "mpo-2")
    shutil.rmtree(folder / "mpo-2" / "checkpoint-2")
    run_stage(stages["mpo-2"])
    assert f"Resuming from {folder / 'mpo-2' / 'checkpoint-1'}." in capsys.readouterr().out
    assert all(torch.equal(value, whole[name]) for name, value in weights(folder / "mpo-2").items())


def test_grpo_starts_from_the_mpo_model(rounds, tmp_path):
    folder, _ = rounds
    recipe = read_recipe(RECIPES / "grpo.yaml") | {
        "model_name_or_path": str(folder / "mpo-2"),
        "dataset_name": str(folder / "data"),
        "monitor_dataset": None,
        "reward_funcs": [f"{__name__}.parity_reward"],
        "ssb_judge": "parity_reward",
        "output_dir": str(tmp_path),
        "num_generations": 4,
        "per_device_train_batch_size": 8,
        "max_completion_length": 6,
        "max_steps": 2,
        "use_cpu": True,
        "disable_tqdm": True,
    }
    run_stage(Stage("grpo", "grpo", args=recipe), learning_rate=0.0)
    start = weights(folder / "mpo-2")
    assert all(torch.equal(value, start[name]) for name, value in weights(tmp_path).items())
    log = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in log if "ssb/effective_after" in entry] == [1, 2]
    run_stage(Stage("grpo", "grpo", args=recipe))
    assert any(not torch.equal(value, start[name]) for name, value in weights(tmp_path).items())
