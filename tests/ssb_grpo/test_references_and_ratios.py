# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""A reference model that moves, and rows that an inference engine's correction has taken out of the loss."""

import pytest
import torch

from tests.support.ssb_probes import fated, logged, probed
from tests.support.ssb_runs import CorrectedLossGRPOTrainer, SSBGRPOTrainer, text_dataset


# Nothing is alive after the second generation, so that later ones are replayed whole.
FATES = dict.fromkeys(range(4, 12), 1.0)


@pytest.mark.parametrize("every", [1, 2])
def test_replayed_rows_are_compared_with_the_reference_of_the_day(every, text_model_path, tmp_path, monkeypatch):
    trainer, probe = probed(
        monkeypatch, text_model_path, tmp_path, text_dataset(), fated(FATES), max_steps=5, beta=0.3,
        sync_ref_model=True, ref_model_sync_steps=every, ref_model_mixup_alpha=0.7, learning_rate=5e-2,
    )  # fmt: skip
    rows_of, moved = probe.expected_rows, []

    def with_present_reference():
        rows = rows_of()
        for row in rows:
            now = probe.reference_logps(row.prompt_ids, row.completion_ids, row.visual)
            moved.append((now - row.reference).abs().max().item())
            row.reference = now
        return rows

    probe.expected_rows = with_present_reference
    trainer.train()
    assert probe.num_replayed[2:] == [8, 8, 8] and max(moved) > 1e-3
    probe.assert_gradients(5)


class MaskingGRPOTrainer(CorrectedLossGRPOTrainer):
    """As TRL's default, `sequence_mask`: a ratio beyond its bound becomes 0, here each group's first."""

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        ratio = torch.ones(len(output["advantages"]), 1)
        ratio[::4] = 0.0
        return output | {"importance_sampling_ratio": ratio}


class MaskingSSBGRPOTrainer(SSBGRPOTrainer, MaskingGRPOTrainer):
    pass


def test_rows_whose_ratio_is_zero_are_not_kept(text_model_path, tmp_path, monkeypatch):
    trainer, probe = probed(
        monkeypatch, text_model_path, tmp_path, text_dataset(), fated({2: 0.0, 3: 1.0}), cls=MaskingSSBGRPOTrainer,
        stock=MaskingGRPOTrainer, per_device_train_batch_size=4, steps_per_generation=2, max_steps=4,
    )  # fmt: skip
    trainer.train()
    assert all(row.engine_ratio.item() > 0 for row in probe.book.values()) and len(probe.book) == 6
    assert [value for value in logged(trainer, "ssb/effective_before") if value is not None] == [6 / 8, 0.0]
    assert logged(trainer, "ssb/skipped/masked")[0] == 2
    assert probe.num_replayed == [0, 6]
    probe.assert_gradients(4)
