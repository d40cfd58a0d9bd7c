# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The `mpo` script from recipe to saved model, and what it refuses."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.support.mpo_tiny import image_pairs, make_processor, make_vlm
from trl_r1v2.checks.rows import DatasetError
from trl_r1v2.scripts.mpo import main
from trl_r1v2.scripts.parser import parser_of


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    processor = make_processor()
    make_vlm(processor).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def recipe(tmp_path, model_path):
    """A function that writes a recipe and returns its path."""
    image_pairs([1, 0, 2, 1, 1, 0]).to_parquet(tmp_path / "data" / "train.parquet")

    def write(**changes):
        keys = {
            "model_name_or_path": str(model_path),
            "dataset_name": str(tmp_path / "data"),
            "output_dir": str(tmp_path / "out"),
            "per_device_train_batch_size": 2,
            "max_steps": 2,
            "logging_steps": 1,
            "save_strategy": "steps",
            "save_steps": 1,
            "learning_rate": 1.0e-3,
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
            "disable_tqdm": True,
            "dtype": "float32",
            **changes,
        }
        path = tmp_path / "mpo.yaml"
        path.write_text(yaml.safe_dump(keys))
        return ["--config", str(path)]

    return write


def test_from_recipe_to_saved_model_and_resumption(recipe, tmp_path, model_path, capsys):
    arguments = recipe(trainable="llm+adapter", reward_shift="ema", resume_from_checkpoint="auto")
    main(*parser_of(main).parse_args_and_config(arguments))
    out = tmp_path / "out"
    log = json.loads((out / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in log if "mpo/preference_loss" in entry] == [1, 2]
    before, after = load_file(model_path / "model.safetensors"), load_file(out / "model.safetensors")
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert any("language_model" in name for name in changed), "the language model trains"
    assert not any("vision_tower" in name for name in changed), "the tower does not"

    main(*parser_of(main).parse_args_and_config([*arguments, "--max_steps", "3"]))
    assert f"Resuming from {out / 'checkpoint-2'}." in capsys.readouterr().out
    log = json.loads((out / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in log if "mpo/preference_loss" in entry] == [1, 2, 3]


def test_with_the_vision_cache_a_frozen_tower_runs_once_a_tile_and_trains_the_same(recipe, tmp_path, model_path):
    models = []
    for cached in (False, True):
        arguments = recipe(trainable="llm+adapter", vision_cache=cached, output_dir=str(tmp_path / f"out-{cached}"))
        main(*parser_of(main).parse_args_and_config(arguments))
        models.append(load_file(tmp_path / f"out-{cached}" / "model.safetensors"))
    log = json.loads((tmp_path / "out-True" / "trainer_state.json").read_text())["log_history"]
    first = next(entry for entry in log if "vision_cache/tiles" in entry)
    assert 0 < first["vision_cache/encoded"] <= first["vision_cache/tiles"] / 2, (
        "the reference's tiles are the policy's"
    )
    for name, value in models[0].items():
        torch.testing.assert_close(models[1][name], value, rtol=0, atol=1e-6)


def test_dataset_without_pairs_is_refused(recipe, tmp_path):
    image_pairs([1, 0]).remove_columns("rejected").to_parquet(tmp_path / "data" / "train.parquet")
    with pytest.raises(DatasetError, match="there is no column 'rejected'"):
        main(*parser_of(main).parse_args_and_config(recipe()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"quality_wait": 0.2}, "quality_weight"), ({"preference_weight": -1.0}, "must be finite and >= 0")],
)
def test_bad_recipe_is_refused(changes, message, recipe, capsys):
    with pytest.raises(SystemExit):
        parser_of(main).parse_args_and_config(recipe(**changes))
    assert message in capsys.readouterr().err
