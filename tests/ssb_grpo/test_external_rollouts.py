# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Rollouts that TRL did not sample itself: tool results inside completions, truncated rows, an inference engine."""

import random

import pytest
import torch

from tests.support.ssb_probes import fated, logged, probed
from tests.support.ssb_runs import CorrectedLossGRPOTrainer, GRPOTrainer, SSBGRPOTrainer, text_dataset


FATES = {3: 0.0, 4: 1.0, 5: 1.0}
LETTERS = range(20, 80)


class Rollouts:
    """
    A rollout function with completions of its own making: half of them end, and with `env_mask` some tokens, in
    every fifth row all of them, come from outside.
    """

    def __init__(self, with_mask, end_token):
        self.with_mask, self.end_token = with_mask, end_token
        self.rng, self.made = random.Random(0), {}

    def __call__(self, prompts, trainer):
        output = {"prompt_ids": [], "completion_ids": [], "logprobs": []}
        masks = []
        for index, prompt in enumerate(prompts):
            ids = trainer.processing_class.apply_chat_template(
                prompt, add_generation_prompt=True, tokenize=True, return_dict=False
            )
            completion = [self.rng.choice(LETTERS) for _ in range(self.rng.randint(2, 6))]
            if self.rng.random() < 0.5:
                completion.append(self.end_token)
            logps = [-self.rng.random() for _ in completion]
            mask = [0 if index % 5 == 2 else self.rng.randint(0, 1) for _ in completion]
            masks.append(mask if any(mask) or index % 5 == 2 else [1] * len(mask))
            for name, values in zip(output, (ids, completion, logps), strict=True):
                output[name].append(values)
            self.made[tuple(completion)] = (logps, masks[-1])
        return output | ({"env_mask": masks} if self.with_mask else {})


def with_rollouts(rollouts):
    class WithRollouts(SSBGRPOTrainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, rollout_func=rollouts, **kwargs)

    return WithRollouts


@pytest.fixture
def end_token(text_model_path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(text_model_path).eos_token_id


@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
def test_tool_masks(loss_type, end_token, text_model_path, tmp_path, monkeypatch):
    """Tokens from outside stay out of the loss when a row is replayed, and what is all outside is never stored."""
    rollouts = Rollouts(True, end_token)
    trainer, probe = probed(
        monkeypatch,
        text_model_path,
        tmp_path,
        text_dataset(),
        fated(FATES),
        cls=with_rollouts(rollouts),
        loss_type=loss_type,
    )
    trainer.train()
    probe.assert_gradients(3)
    probe.assert_buffer()
    # Of rows 0-7 the third and the last but one came wholly from outside; of the second batch's live half one did.
    assert probe.num_replayed == [0, 4, 8]
    assert logged(trainer, "ssb/skipped/masked") == [2, 1, 0]
    assert logged(trainer, "ssb/effective_before") == [6 / 8, 3 / 8, 0.0]
    for used in probe.used:
        for index in range(8):
            completion = used["completion_ids"][index][used["completion_mask"][index].bool()].tolist()
            logps, mask = rollouts.made[tuple(completion)]
            assert used["tool_mask"][index, : len(mask)].tolist() == mask
            assert used["sampling_per_token_logps"][index, : len(mask)].tolist() == torch.tensor(logps).tolist()


@pytest.mark.parametrize("extra_rounds", [0, 3])
def test_truncated_completions(extra_rounds, end_token, text_model_path, tmp_path, monkeypatch):
    """Rows that `mask_truncated_completions` masks out are neither stored nor filled in, nor called effective."""
    rollouts = Rollouts(False, end_token)
    trainer, probe = probed(
        monkeypatch,
        text_model_path,
        tmp_path,
        text_dataset(),
        fated({0: 1.0, 1: 0.0} if extra_rounds else FATES),
        cls=with_rollouts(rollouts),
        mask_truncated_completions=True,
        ssb_resample_rounds=extra_rounds,
        max_steps=3,
    )
    trainer.train()
    probe.assert_gradients(3)
    assert probe.book and all(row.completion_ids[-1] == end_token for row in probe.book.values())
    for step, (used, fresh) in enumerate(zip(probe.used, probe.fresh, strict=True)):
        is_cut = torch.tensor([row.completion_ids[-1] != end_token for row in probe.rows[step]])
        assert is_cut.tolist() == (used["completion_mask"].sum(1) == 0).tolist()
        changed = torch.tensor([probe_changed(fresh[0], used, index) for index in range(8)])
        assert not (changed & is_cut).any()
        assert logged(trainer, "ssb/effective_after")[step] == (~is_cut & (used["advantages"] != 0)).sum() / 8
    if extra_rounds:
        assert logged(trainer, "ssb/resampled_rows")[0] == 8
    else:
        complete = int((probe.used[0]["completion_mask"].sum(1) > 0).sum())
        assert 0 < complete < 8 and probe.num_replayed[1] == min(4, complete)
        assert logged(trainer, "ssb/skipped/masked")[0] == 8 - complete


def probe_changed(fresh, used, index):
    ours, theirs = (batch["completion_ids"][index] for batch in (used, fresh))
    width = min(len(ours), len(theirs))
    return ours[:width].tolist() != theirs[:width].tolist()


# ---- What an inference engine adds ----


class EngineLikeGRPOTrainer(CorrectedLossGRPOTrainer):
    """
    Adds what TRL's vLLM path does: log-probabilities of the engine that sampled, and the ratio that corrects them.
    """

    sequence_level = False

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        old = output["old_per_token_logps"]
        generator = torch.Generator().manual_seed(self.state.global_step)
        noise = 0.5 * torch.randn(old.shape, generator=generator)
        output["sampling_per_token_logps"] = old + noise
        difference = -noise * output["completion_mask"]
        if self.sequence_level:
            difference = difference.sum(-1, keepdim=True)
        output["importance_sampling_ratio"] = difference.exp().clamp(max=2.0)
        return output


class TokenLevel(SSBGRPOTrainer, EngineLikeGRPOTrainer):
    pass


class SequenceLevel(SSBGRPOTrainer, EngineLikeGRPOTrainer):
    sequence_level = True


@pytest.mark.parametrize(
    ("cls", "loss_type"),
    [(TokenLevel, "grpo"), (TokenLevel, "vespo"), (SequenceLevel, "grpo"), (SequenceLevel, "dapo")],
    ids=["token", "token-vespo", "sequence", "sequence-dapo"],
)
def test_engine_ratio(cls, loss_type, text_model_path, tmp_path, monkeypatch):
    """A replayed row keeps the ratio between trainer and engine of the day it was sampled."""
    trainer, probe = probed(
        monkeypatch,
        text_model_path,
        tmp_path,
        text_dataset(),
        fated(FATES),
        cls=cls,
        stock=EngineLikeGRPOTrainer,
        loss_type=loss_type,
        per_device_train_batch_size=4,
        steps_per_generation=2,
        max_steps=6,
    )
    trainer.train()
    assert probe.num_replayed == [0, 4, 8]
    probe.assert_gradients(6)
    probe.assert_buffer()
    for rows in probe.rows:
        assert all(len(row.engine_ratio) == (1 if cls.sequence_level else len(row.completion_ids)) for row in rows)
        assert not all(torch.all(row.engine_ratio == 1) for row in rows)


class NoImagesLeftGRPOTrainer(GRPOTrainer):
    """
    Sets a key to `None`, as TRL does with `num_images` when it drops images that were cut off in a tool's answer.
    """

    def _generate_and_score_completions(self, inputs):
        return super()._generate_and_score_completions(inputs) | {"num_images": None}


class NoImagesLeft(SSBGRPOTrainer, NoImagesLeftGRPOTrainer):
    pass


def test_keys_without_a_value(text_model_path, tmp_path, monkeypatch):
    trainer, probe = probed(monkeypatch, text_model_path, tmp_path, text_dataset(), fated(FATES), cls=NoImagesLeft)
    trainer.train()
    assert probe.num_replayed == [0, 4, 8]
    probe.assert_gradients(3)
