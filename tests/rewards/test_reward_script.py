# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The `reward` script from recipe to folder, and that folder as r_θ: by YAML in `grpo` and `pairs`, seen by the policy.
"""

import json

import pytest
import torch
import yaml
from datasets import load_dataset
from safetensors.torch import load_file

from tests.support.reward_tiny import PlainReward, conversation, pair, pairs
from trl_r1v2.checks.rows import DatasetError
from trl_r1v2.rewards import RewardModelReward
from trl_r1v2.scripts import grpo as grpo_script
from trl_r1v2.scripts import pairs as pairs_script
from trl_r1v2.scripts.loading import load_reward_func, load_reward_funcs
from trl_r1v2.scripts.parser import parser_of
from trl_r1v2.scripts.recipe import RecipeError
from trl_r1v2.scripts.reward import main


COMMON = {
    "per_device_train_batch_size": 4,
    "logging_steps": 1,
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "dtype": "float32",
}


def by_answer(completions, **kwargs):
    """A judge that a random policy meets half of the time."""
    return [float(sum(map(ord, completion[0]["content"])) % 2) for completion in completions]


def write(path, keys):
    path.write_text(yaml.safe_dump(keys))
    return ["--config", str(path)]


@pytest.fixture(scope="module")
def trained(internvl_path, tmp_path_factory):
    """A reward model trained by the script for two steps, and the folder of its pairs."""
    folder = tmp_path_factory.mktemp("reward_script")
    pairs([1, 0, 2, 1, 1, 0]).to_parquet(folder / "data" / "train.parquet")
    keys = {
        **COMMON, "model_name_or_path": internvl_path, "dataset_name": str(folder / "data"),
        "output_dir": str(folder / "out"), "max_steps": 2, "learning_rate": 1.0e-2, "save_strategy": "steps",
        "save_steps": 1, "resume_from_checkpoint": "auto",
    }  # fmt: skip
    arguments = write(folder / "reward.yaml", keys)
    main(*parser_of(main).parse_args_and_config(arguments))
    return folder, arguments


def test_from_recipe_to_reward_model_and_resumption(trained, internvl_path, capsys):
    folder, arguments = trained
    log = json.loads((folder / "out" / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in log if "margin" in entry] == [1, 2]
    before, after = (load_file(f"{path}/model.safetensors") for path in (internvl_path, folder / "out"))
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert any("language_model" in name for name in changed)
    assert not any("vision_tower" in name for name in changed)

    reward = RewardModelReward.from_pretrained(str(folder / "out"))
    rows = [pair(1, 1), pair(3, 2)]
    found = reward(
        prompts=[row["prompt"] for row in rows],
        completions=[row["chosen"] for row in rows],
        images=[row["images"] for row in rows],
    )
    plain = PlainReward.from_reward_folder(str(folder / "out"))
    assert found == pytest.approx([plain.score(conversation(row, "chosen")).item() for row in rows], abs=1e-4)

    main(*parser_of(main).parse_args_and_config([*arguments, "--output_dir", str(folder / "out"), "--max_steps", "3"]))
    assert f"Resuming from {folder / 'out' / 'checkpoint-2'}." in capsys.readouterr().out


def test_recipes_name_the_folder_as_a_reward(trained):
    """`reward_funcs` of `grpo` and `pairs`, and `reward_model_name_or_path`, take the folder itself."""
    path = str(trained[0] / "out")
    row = pair(3, 2)
    expected = PlainReward.from_reward_folder(path).score(conversation(row, "chosen")).item()
    found = [*load_reward_funcs([path]), *load_reward_funcs(None, path), load_reward_func(path, entry="judge")]
    for reward in found:
        assert reward.__name__ == "out"
        scores = reward(prompts=[row["prompt"]], completions=[row["chosen"]], images=[row["images"]])
        assert scores == pytest.approx([expected], abs=1e-4)


@pytest.fixture
def theta_path(trained, tmp_path_factory):
    return str(trained[0] / "out")


def test_the_trained_folder_is_r_theta_in_grpo_and_sees_the_images(theta_path, internvl_path, tmp_path, monkeypatch):
    """Eq. 7 through `trl-r1v2 grpo`: the logged r_θ is the score of prompt, images and completion."""
    import pandas

    hybrid = {
        "rule": "judge",
        "components": {"judge": {"type": f"{__name__}.by_answer"}, "reward_model": {"path": theta_path}},
    }
    (tmp_path / "hybrid.yaml").write_text(yaml.safe_dump(hybrid))
    hybrid_reward = load_reward_func(str(tmp_path / "hybrid.yaml"), entry="reward_funcs[0]")
    monkeypatch.setattr("trl_r1v2.scripts.grpo.load_reward_funcs", lambda names, model: [hybrid_reward])
    rows = pairs([1, 0]).remove_columns(["chosen", "rejected"])
    rows.to_parquet(tmp_path / "data" / "train.parquet")
    keys = {
        **COMMON, "model_name_or_path": internvl_path, "dataset_name": str(tmp_path / "data"),
        "output_dir": str(tmp_path / "out"), "reward_funcs": [str(tmp_path / "hybrid.yaml")], "max_steps": 1,
        "num_generations": 2, "max_completion_length": 6, "save_strategy": "no", "log_completions": True,
        "ssb_judge": "hybrid/judge",
    }  # fmt: skip
    conversations = []
    reward_model = hybrid_reward.components["reward_model"].reward.model
    score = reward_model.score

    def spy(batch):
        conversations.extend(batch)
        return score(batch)

    monkeypatch.setattr(reward_model, "score", spy)
    grpo_script.main(*parser_of(grpo_script.main).parse_args_and_config(write(tmp_path / "grpo.yaml", keys)))

    table = pandas.read_parquet(tmp_path / "out" / "completions" / "completions_00001.parquet")
    assert len(table) == 4 == len(conversations)
    plain = PlainReward.from_reward_folder(theta_path)
    with_images = []
    for messages in conversations:
        images = [part["image"] for message in messages for part in message["content"] if part["type"] == "image"]
        with_images.append(len(images))
    assert sorted(with_images) == [0, 0, 1, 1]
    cleaned = [reward_model._tokenize.without_special_tokens(messages) for messages in conversations]
    expected = sorted(plain.score(messages).item() for messages in cleaned)
    assert sorted(table["hybrid/reward_model"]) == pytest.approx(expected, abs=1e-4)
    total = table["hybrid/reward_model"] + table["hybrid/judge"]
    assert list(total) == pytest.approx(list(table["hybrid_reward"]), abs=1e-4)


def test_pairs_are_scored_by_the_trained_folder(theta_path, internvl_path, tmp_path):
    (tmp_path / "theta.yaml").write_text(yaml.safe_dump({"components": {"reward_model": {"path": theta_path}}}))
    pairs([1, 0, 2]).remove_columns(["chosen", "rejected"]).to_parquet(tmp_path / "prompts.parquet")
    keys = {
        "model_name_or_path": internvl_path, "dataset_name": str(tmp_path / "prompts.parquet"),
        "output_dir": str(tmp_path / "out"), "num_samples": 6, "max_new_tokens": 6, "use_cpu": True, "plots": False,
        "reward_funcs": [str(tmp_path / "theta.yaml")], "judge_func": f"{__name__}.by_answer",
        "drop_contained": False,
    }  # fmt: skip
    (arguments,) = parser_of(pairs_script.main).parse_args_and_config(write(tmp_path / "pairs.yaml", keys))
    pairs_script.main(arguments)
    plain = PlainReward.from_reward_folder(theta_path)
    prompts = load_dataset("parquet", data_files=str(tmp_path / "prompts.parquet"))["train"]
    encoder = (
        load_reward_func(str(tmp_path / "theta.yaml"), entry="judge").components["reward_model"].reward.model._tokenize
    )
    built = load_dataset(str(tmp_path / "out"))["train"]
    assert len(built) > 0
    for row in list(built)[:6]:
        source = {**row, "images": prompts[row["source_row"]]["images"]}
        for side in ("chosen", "rejected"):
            messages = encoder.without_special_tokens(conversation(source, side))
            assert row[f"{side}_score"] == pytest.approx(plain.score(messages).item(), abs=1e-4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "hybrid.yaml: no such file"),
        ("components: {acuracy: {}}", "hybrid.yaml`: reward.components.acuracy.type: unknown 'acuracy'. Did you mean"),
        ("[1]", "hybrid.yaml: a recipe is a YAML mapping"),
    ],
)
def test_a_file_of_a_hybrid_reward_that_cannot_be_read_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "hybrid.yaml").write_text(content)
    with pytest.raises(RecipeError, match=message):
        load_reward_func(str(tmp_path / "hybrid.yaml"), entry="reward_funcs[0]")


def test_dataset_without_pairs_is_refused(trained, tmp_path):
    folder, arguments = trained
    pairs([1, 0]).remove_columns("rejected").to_parquet(tmp_path / "data" / "train.parquet")
    changed = [*arguments, "--dataset_name", str(tmp_path / "data"), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(DatasetError, match="there is no column 'rejected'"):
        main(*parser_of(main).parse_args_and_config(changed))


@pytest.mark.parametrize(
    ("change", "message"),
    [(["--trainable", "llm+head"], "trainable is 'llm"), (["--too_long", "cut"], "invalid choice: 'cut'")],
)
def test_bad_recipe_is_refused(change, message, trained, capsys):
    with pytest.raises(SystemExit):
        parser_of(main).parse_args_and_config([*trained[1], *change])
    assert message in capsys.readouterr().err
