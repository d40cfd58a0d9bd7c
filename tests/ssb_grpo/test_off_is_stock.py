# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""`ssb_enabled=False` is stock `GRPOTrainer`, to the last bit, on every kind of batch."""

import pytest
from peft import LoraConfig

from tests.support.ssb_runs import (
    GRPOTrainer,
    SSBGRPOTrainer,
    TextAmongImagesGRPOTrainer,
    assert_identical,
    image_dataset,
    losses,
    make_trainer,
    mixed_dataset,
    parameters,
    spread_reward,
    text_dataset,
)


SETTINGS = {
    "aligned": {},
    "accumulation": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    "num_iterations": {"num_iterations": 2},
    "steps_per_generation": {"steps_per_generation": 2, "gradient_accumulation_steps": 1},
    "dapo_with_kl_free_beta": {"loss_type": "dapo", "scale_rewards": "batch"},
    "lora": {"peft_config": LoraConfig(target_modules=["q_proj", "v_proj"], r=2)},
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("modality", ["text", "images", "mixed"])
def test_disabled_equals_stock(name, modality, text_model_path, internvl_path, tmp_path):
    dataset = {"text": text_dataset, "images": image_dataset, "mixed": mixed_dataset}[modality]()
    path = text_model_path if modality == "text" else internvl_path
    stock = TextAmongImagesGRPOTrainer if modality == "mixed" else GRPOTrainer
    trainers = []
    for cls in (stock, SSBGRPOTrainer):
        trainer = make_trainer(cls, path, tmp_path / cls.__name__, dataset, ssb_enabled=False, **SETTINGS[name])
        before = parameters(trainer)
        trainer.train()
        assert any(not before[key].equal(value) for key, value in parameters(trainer).items()), "nothing was trained"
        trainers.append(trainer)
    assert len(losses(trainers[0])) == 4
    assert_identical(*trainers)


def test_enabled_without_dead_groups_equals_stock(text_model_path, tmp_path):
    """With nothing to replace the buffer only watches."""
    trainers = []
    for cls in (GRPOTrainer, SSBGRPOTrainer):
        trainer = make_trainer(cls, text_model_path, tmp_path / cls.__name__, text_dataset(), spread_reward)
        trainer.train()
        trainers.append(trainer)
    assert len(trainers[1].buffer) == 32  # four steps of eight rows, none at its group's mean
    assert_identical(*trainers)
