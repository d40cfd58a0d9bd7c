# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""A run that resumes in a later epoch sees the prompts it would have seen; stock TRL's does not."""

import pytest

from tests.support.ssb_runs import GRPOTrainer, assert_identical, make_trainer, spread_reward, text_dataset
from trl_r1v2.patches.grpo import GRPOTrainer as MendedGRPOTrainer


NUM_STEPS, FIRST = 9, 5  # three steps an epoch: the second one is resumed in its middle


class Seen:
    """Rows of every generation."""

    __name__ = "seen"

    def __init__(self):
        self.rows = []

    def __call__(self, completion_ids, row, **kwargs):
        self.rows.append(row[::4])
        return spread_reward(completion_ids)


def run(cls, path, folder, resume_from=None, **settings):
    seen = Seen()
    trainer = make_trainer(
        cls, path, folder, text_dataset(6), seen, max_steps=NUM_STEPS, save_strategy="steps", save_steps=1, **settings
    )
    trainer.train(resume_from_checkpoint=resume_from)
    return trainer, seen.rows


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_mended(workers, text_model_path, tmp_path):
    settings = {"dataloader_num_workers": workers}
    stock, stock_rows = run(GRPOTrainer, text_model_path, tmp_path / "stock", **settings)
    whole, rows = run(MendedGRPOTrainer, text_model_path, tmp_path / "whole", **settings)
    assert rows == stock_rows and len({str(rows[first : first + 3]) for first in (0, 3, 6)}) == 3
    assert_identical(stock, whole)
    for first in (FIRST, 6):
        checkpoint = str(tmp_path / "whole" / f"checkpoint-{first}")
        resumed, resumed_rows = run(MendedGRPOTrainer, text_model_path, tmp_path / "on", checkpoint, **settings)
        assert resumed_rows == rows[first:]
        assert_identical(whole, resumed)


def test_the_defect_is_there(text_model_path, tmp_path):
    """When this fails, TRL has mended it and the patch can go."""
    _, rows = run(GRPOTrainer, text_model_path, tmp_path)
    _, resumed_rows = run(GRPOTrainer, text_model_path, tmp_path / "on", str(tmp_path / f"checkpoint-{FIRST}"))
    assert resumed_rows != rows[FIRST:] and resumed_rows[0] == rows[FIRST - 3]
