# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Kinds of batches through `trainer.train()`, each step's gradient against `row_losses.py`."""

import pytest
import torch
from probes import fated, probed
from runs import losses, text_dataset


LOSS_TYPES = {
    "grpo": {},
    "bnpo": {},
    "dr_grpo": {},
    "dapo": {},
    "cispo": {"epsilon_high": 5.0},
    "sapo": {},
    "luspo": {"importance_sampling_level": "sequence"},
    "vespo": {},
}
# Two groups a generation: the second dies in the second generation, both in the third.
FATES = {3: 0.0, 4: 1.0, 5: 1.0}


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_gradient_of_every_loss_type(loss_type, text_model_path, tmp_path, monkeypatch):
    trainer, probe = probed(
        monkeypatch,
        text_model_path,
        tmp_path,
        text_dataset(),
        fated(FATES),
        loss_type=loss_type,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        **LOSS_TYPES[loss_type],
    )
    trainer.train()
    probe.assert_gradients(3)
    assert probe.num_replayed == [0, 4, 8]
    assert all(torch.isfinite(torch.tensor(losses(trainer))))
