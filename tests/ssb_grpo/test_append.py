# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Replayed rows behind the whole fresh batch, each step's gradient against `row_losses.py`; rewards that move."""

import functools

import pytest
import torch

from tests.support.ssb_probes import fated, logged, probed, real_tokens
from tests.support.ssb_reference import grpo_loss
from tests.support.ssb_runs import (
    SSBGRPOTrainer,
    image_dataset,
    make_trainer,
    mixed_dataset,
    spread_reward,
    text_dataset,
)
from trl_r1v2.rewards import Component, HybridReward


# With two groups a generation: the second dies in the second generation, both in the third.
FATES = {3: 0.0, 4: 1.0, 5: 1.0}
APPEND = {"ssb_replay": "append", "ssb_replay_share": 0.5, "ssb_max_uses": None}
DATASETS = {"text": text_dataset, "images": image_dataset, "mixed": mixed_dataset}
SETTINGS = {
    # name: settings, optimizer steps of three generations
    "whole": ({}, 3),
    "dapo": ({"loss_type": "dapo"}, 3),
    "accumulation": ({"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}, 3),
    "steps_per_generation": ({"per_device_train_batch_size": 4, "steps_per_generation": 2}, 6),
    "num_iterations": ({"num_iterations": 2, "loss_type": "dapo"}, 6),
    "share_prompts": ({"share_prompts": True}, 3),
    "balanced": ({"ssb_balance": True}, 3),
}
CASES = [*(("text", name) for name in SETTINGS), ("images", "accumulation"), ("mixed", "accumulation")]


@pytest.mark.parametrize(("modality", "name"), CASES)
def test_the_whole_fresh_batch_and_rows_on_top(modality, name, text_model_path, internvl_path, tmp_path, monkeypatch):
    settings, num_steps = SETTINGS[name]
    path = text_model_path if modality == "text" else internvl_path
    trainer, probe = probed(
        monkeypatch, path, tmp_path, DATASETS[modality](), fated(FATES), max_steps=num_steps, **settings, **APPEND
    )
    trainer.train()
    assert [len(used["advantages"]) for used in probe.used] == [8, 12, 12]
    for [fresh], used in zip(probe.fresh, probe.used, strict=True):
        assert used["ssb_is_replayed"].tolist() == [index >= 8 for index in range(len(used["advantages"]))]
        for index in range(8):  # dead ones among them
            assert torch.cat(real_tokens(fresh, index)).tolist() == torch.cat(real_tokens(used, index)).tolist()
    probe.assert_gradients(num_steps)
    probe.assert_buffer()
    # Every micro-batch has as many rows as every other of its generation.
    sizes = [[len(rows) for rows, _ in step] for step in probe.steps]
    part = 8 // trainer.args.steps_per_generation
    assert {size for step in sizes for size in step} == {part, part * 3 // 2}
    assert logged(trainer, "ssb/effective_after") == [1.0, 8 / 12, 4 / 12]
    assert logged(trainer, "ssb/replayed_rows") == [0, 4, 4]


def test_rows_on_top_come_in_as_many_as_there_are(text_model_path, tmp_path, monkeypatch):
    """Three samples make one row more for each of two micro-batches; none is older than `ssb_max_age` steps."""
    fates = {0: 1.0, **dict.fromkeys(range(2, 12), 0.0)}
    trainer, probe = probed(
        monkeypatch, text_model_path, tmp_path, text_dataset(), fated(fates), max_steps=8, ssb_capacity=3,
        per_device_train_batch_size=4, steps_per_generation=2, gradient_accumulation_steps=1, ssb_max_age=4, **APPEND,
    )  # fmt: skip
    trainer.train()
    assert probe.num_replayed == [0, 2, 2, 0]
    assert logged(trainer, "ssb/evicted/age") == [0, 0, 0, 3]
    probe.assert_gradients(8)


def test_dead_rows_are_generated_anew_beside_rows_on_top(text_model_path, tmp_path, monkeypatch):
    trainer, probe = probed(
        monkeypatch, text_model_path, tmp_path, text_dataset(), fated({2: 0.0, 3: 1.0}), max_steps=2,
        ssb_resample_rounds=5, **APPEND,
    )  # fmt: skip
    trainer.train()
    assert probe.num_replayed == [0, 4] and logged(trainer, "ssb/resampled_rows") == [0, 8]
    assert logged(trainer, "ssb/effective_after") == [1.0, 1.0]
    probe.assert_gradients(2)


# ---- An upper bound where A < 0 ----


def test_delta_bounds_replayed_rows(text_model_path, tmp_path, monkeypatch):
    """The gradient is that of the loss with both bounds, and at some step not that of eq. 8 alone."""
    differences = []

    def against_eq_8(step):
        [(rows, _)] = probe.steps[-1]
        names = ("prompt_ids", "completion_ids", "advantage", "behaviour")
        rows = [{name: getattr(row, name) for name in names} for row in rows]
        weights = [weight for weight in trainer.model.parameters() if weight.grad is not None]
        actual = torch.cat([weight.grad.flatten() for weight in weights])
        for delta in (1.3, float("inf")):
            loss = grpo_loss(trainer.model, rows, delta=delta)
            gradients = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
            expected = torch.cat([gradient.flatten() for gradient in gradients])
            differences.append(((actual - expected).norm() / expected.norm()).item())

    trainer, probe = probed(
        monkeypatch, text_model_path, tmp_path, text_dataset(), fated(FATES), delta=1.3, learning_rate=5e-2
    )
    check_step = probe.callback.check
    probe.callback.check = lambda step: (check_step(step), against_eq_8(step))
    trainer.train()
    assert probe.num_replayed == [0, 4, 8]
    assert max(differences[::2]) < 2e-4 and max(differences[1::2]) > 1e-2, differences


# ---- Rewards that move ----


def hybrid() -> HybridReward:
    return HybridReward({"score": Component(fated(FATES), min_score=-1.0)}, rule="score")


def test_samples_of_an_earlier_threshold_are_dropped(text_model_path, tmp_path, monkeypatch):
    moved = []
    trainer, probe = probed(monkeypatch, text_model_path, tmp_path, text_dataset(), hybrid(), max_steps=3)
    check_step = probe.callback.check

    def moving(step):
        check_step(step)
        if step == moved_at:
            trainer.reward_funcs[0].set_min_score("score", 0.5)
            moved.append(step)

    probe.callback.check, moved_at = moving, 1
    trainer.train()
    # Eight samples of the first generation, four of the second less the four drawn for it; then all have gone.
    assert moved == [1] and probe.num_replayed == [0, 4, 0]
    assert logged(trainer, "ssb/evicted/rewards") == [0, 0, 12]
    assert len({sample.reward_version for sample in trainer.buffer.samples.values()}) <= 1


def test_samples_of_unknown_rewards_stay(text_model_path, tmp_path, monkeypatch):
    """As those are that were scored before training (`ssb_prefill`) or stand in files from before."""
    trainer, probe = probed(monkeypatch, text_model_path, tmp_path, text_dataset(), hybrid(), max_steps=2)
    check_step = probe.callback.check

    def forgetting(step):
        check_step(step)
        for sample in trainer.buffer.samples.values():
            sample.reward_version = None
        trainer.reward_funcs[0].set_min_score("score", 0.5)

    probe.callback.check = forgetting
    trainer.train()
    assert probe.num_replayed == [0, 4] and sum(logged(trainer, "ssb/evicted/rewards")) == 0


def test_the_version_is_in_checkpoints(text_model_path, tmp_path):
    settings = {"shuffle_dataset": False, "save_strategy": "steps", "save_steps": 1}
    make = functools.partial(make_trainer, SSBGRPOTrainer, text_model_path, dataset=text_dataset(), **settings)
    make(tmp_path / "first", reward_funcs=hybrid(), max_steps=1).train()
    for min_score, replayed in ((-1.0, 4), (0.5, 0)):
        reward = hybrid()
        reward.set_min_score("score", min_score)
        trainer = make(tmp_path / "second", reward_funcs=reward, max_steps=2)
        trainer.train(resume_from_checkpoint=str(tmp_path / "first" / "checkpoint-1"))
        assert logged(trainer, "ssb/replayed_rows") == [0, replayed]


def test_rewards_without_a_version_never_drop_anything(text_model_path, tmp_path, monkeypatch):
    trainer, probe = probed(monkeypatch, text_model_path, tmp_path, text_dataset(), [fated(FATES), spread_reward],
                            ssb_judge="fated")  # fmt: skip
    trainer.train()
    assert probe.num_replayed == [0, 4, 8] and sum(logged(trainer, "ssb/evicted/rewards")) == 0
