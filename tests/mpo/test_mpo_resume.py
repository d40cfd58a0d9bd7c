# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The reward shift in checkpoints: an interrupted run goes on as if nothing had happened, a foreign state is refused.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import InternVLForConditionalGeneration
from trl import DPOConfig, DPOTrainer

from tests.support.mpo_reference import PlainMPO
from tests.support.mpo_tiny import (
    image_pairs,
    logged,
    make_moe_model,
    make_processor,
    make_text_model,
    make_tokenizer,
    make_vlm,
    moved_copy,
    text_pairs,
    training_args,
)
from trl_r1v2.mpo.mpo_config import MPOConfig
from trl_r1v2.mpo.mpo_trainer import MPOTrainer
from trl_r1v2.mpo.reward_shift import STATE_FILE, MPOStateError, RewardShift, save_reward_shift


class Recording(MPOTrainer):
    def __init__(self, *args, **kwargs):
        self.micro_batches = []
        super().__init__(*args, **kwargs)

    def _compute_loss(self, model, inputs, return_outputs):
        self.micro_batches.append({name: value.clone() for name, value in inputs.items()})
        return super()._compute_loss(model, inputs, return_outputs)


def make_models(double=True):
    policy = make_text_model(make_tokenizer())
    reference = moved_copy(policy)
    return (policy.double(), reference.double()) if double else (policy, reference)


def make_trainer(folder, cls=Recording, config=MPOConfig, double=True, **settings):
    policy, reference = make_models(double)
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "beta": 0.5, **settings}
    args = config(**training_args(folder, gradient_accumulation_steps=2, **settings))
    return cls(policy, reference, args, train_dataset=text_pairs(32), processing_class=make_tokenizer())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 6 steps with a checkpoint at 3."""
    trainer = make_trainer(tmp_path_factory.mktemp("run"))
    trainer.train()
    return trainer


@pytest.fixture
def checkpoint(finished, tmp_path):
    """A copy of the checkpoint at step 3, to be spoilt."""
    return shutil.copytree(f"{finished.args.output_dir}/checkpoint-3", tmp_path / "checkpoint-3")


def test_resumed_run_is_the_uninterrupted_one(finished, checkpoint, tmp_path):
    resumed = make_trainer(tmp_path)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.reward_shift.state_dict() == finished.reward_shift.state_dict()
    assert resumed.reward_shift.num_rewards == 6 * 2 * 4
    for key in ("loss", "mpo/reward_shift", "mpo/quality_loss"):
        assert logged(resumed, key) == logged(finished, key) and len(logged(resumed, key)) == 6, key
    for mine, other in zip(resumed.model.parameters(), finished.model.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_resumed_run_equals_plain_pytorch(finished, checkpoint, tmp_path):
    """The second half after a resume, against plain PyTorch that ran both halves in one go."""
    resumed = make_trainer(tmp_path)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    plain = PlainMPO(*make_models(), 0.5, (0.8, 0.2, 1.0), "running_mean", 0.0, 0.0, "sequence", 0.05)
    for index, batch in enumerate(finished.micro_batches[:6] + resumed.micro_batches):
        plain.micro_batch(batch, accumulation=2)
        if index % 2:
            plain.optimizer_step()
    assert len(resumed.micro_batches) == 6
    assert resumed.reward_shift.value == pytest.approx(plain.delta, abs=1e-6)
    for name, parameter in plain.policy.named_parameters():
        torch.testing.assert_close(resumed.model.get_parameter(name), parameter, rtol=0, atol=1e-6, msg=name)


def test_checkpoint_holds_the_state_as_json(finished):
    state = json.loads(Path(finished.args.output_dir, "checkpoint-6", STATE_FILE).read_text())
    assert state == {
        "schema_version": 1,
        "reward_shift": "running_mean",
        "reward_shift_decay": None,
        "beta": 0.5,
        "value": finished.reward_shift.value,
        "num_rewards": 48,
    }


def test_missing_state_is_refused(checkpoint, tmp_path):
    (checkpoint / STATE_FILE).unlink()
    with pytest.raises(MPOStateError, match=f"{STATE_FILE} is missing.*start a new run from the checkpoint's weights"):
        make_trainer(tmp_path).train(resume_from_checkpoint=str(checkpoint))


def test_checkpoint_of_stock_dpo_is_refused(tmp_path):
    make_trainer(tmp_path, DPOTrainer, DPOConfig, double=False, max_steps=3).train()
    with pytest.raises(MPOStateError, match="not written by `MPOTrainer`"):
        make_trainer(tmp_path, double=False).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


def test_state_of_another_setting_is_refused(checkpoint, tmp_path):
    with pytest.raises(MPOStateError, match=r"reward_shift 'running_mean' \(here 'ema'\)"):
        make_trainer(tmp_path, reward_shift="ema").train(resume_from_checkpoint=str(checkpoint))
    with pytest.raises(MPOStateError, match=r"mpo_state.json: it was written with beta 0.5 \(here 0.1\)"):
        make_trainer(tmp_path, beta=0.1).train(resume_from_checkpoint=str(checkpoint))


def test_damaged_state_is_refused(checkpoint, tmp_path):
    (checkpoint / STATE_FILE).write_text('{"schema_version": 1, "rew')
    with pytest.raises(MPOStateError, match=f"{STATE_FILE} is damaged"):
        make_trainer(tmp_path).train(resume_from_checkpoint=str(checkpoint))


def test_crash_while_writing_leaves_the_old_state(tmp_path, monkeypatch):
    shift = RewardShift("running_mean", 0.9, 0.1)
    shift.update(3.0, 2)
    save_reward_shift(shift, tmp_path)
    written = (tmp_path / STATE_FILE).read_text()
    shift.update(5.0, 2)

    def crash(*args):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        save_reward_shift(shift, tmp_path)
    assert (tmp_path / STATE_FILE).read_text() == written


def test_state_is_there_before_the_rest_of_the_checkpoint(tmp_path, monkeypatch):
    """TRL's own saving pushes and rotates inside: the state must be in the folder by then."""
    seen = []
    save_model = MPOTrainer.save_model

    def spy(self, output_dir=None, _internal_call=False):
        seen.extend(sorted(path.name for path in tmp_path.glob("checkpoint-3/*")))
        save_model(self, output_dir, _internal_call)

    monkeypatch.setattr(MPOTrainer, "save_model", spy)
    make_trainer(tmp_path, max_steps=3).train()
    assert seen == [STATE_FILE]


def test_resumed_vision_language_model_keeps_its_weights(tmp_path):
    """The published layout renames a VLM's parameters, which `transformers.Trainer` cannot read back."""
    processor = make_processor()
    common = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    runs = []
    for folder, checkpoint in (("straight", None), ("resumed", "straight/checkpoint-2")):
        policy = make_vlm(processor)
        args = MPOConfig(**training_args(tmp_path / folder, **common))
        rows = image_pairs([1, 0, 2, 1, 1, 0, 1, 1])
        trainer = MPOTrainer(policy, moved_copy(policy), args, train_dataset=rows, processing_class=processor)
        trainer.train(resume_from_checkpoint=checkpoint and str(tmp_path / checkpoint))
        runs.append(trainer)
    straight, resumed = runs
    assert logged(resumed, "loss") == logged(straight, "loss") and len(logged(resumed, "loss")) == 4
    for (name, mine), other in zip(resumed.model.named_parameters(), straight.model.parameters(), strict=True):
        assert torch.equal(mine, other), name

    from_folder = InternVLForConditionalGeneration.from_pretrained(tmp_path / "straight/checkpoint-4")
    straight.save_model(str(tmp_path / "published"))
    published = InternVLForConditionalGeneration.from_pretrained(tmp_path / "published")
    for mine, first, second in zip(
        straight.model.parameters(), from_folder.parameters(), published.parameters(), strict=True
    ):
        assert torch.equal(mine, first) and torch.equal(mine, second)
    names = [
        set(load_file(tmp_path / folder / "model.safetensors")) for folder in ("straight/checkpoint-4", "published")
    ]
    assert names[0] == set(straight.model.state_dict()) != names[1]


def test_weights_in_the_published_layout_are_refused(tmp_path):
    processor = make_processor()
    policy = make_vlm(processor)
    args = MPOConfig(**training_args(tmp_path, save_strategy="steps", save_steps=2, max_steps=2))
    trainer = MPOTrainer(
        policy, moved_copy(policy), args, train_dataset=image_pairs([1] * 4), processing_class=processor
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "checkpoint-2"))
    with pytest.raises(ValueError, match="lacks .* of the model's parameters, 'lm_head.weight' for one"):
        trainer.train(resume_from_checkpoint=True)


def test_best_mixture_of_experts_comes_back(tmp_path):
    """Experts are merged in the model and split in published checkpoints."""
    tokenizer = make_tokenizer()
    policy = make_moe_model(tokenizer)
    args = MPOConfig(
        **training_args(tmp_path, save_strategy="steps", save_steps=1, max_steps=3, learning_rate=0.5),
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_mpo/reward_shift",  # δ moves one way here, so the best is not the last
        greater_is_better=False,
    )
    trainer = MPOTrainer(
        policy,
        moved_copy(policy),
        args,
        train_dataset=text_pairs(8),
        eval_dataset=text_pairs(2),
        processing_class=tokenizer,
    )
    trainer.train()
    best = Path(trainer.state.best_model_checkpoint)
    assert best.name != "checkpoint-3"
    weights = load_file(best / "model.safetensors")
    experts = [name for name in weights if "experts" in name]
    assert experts and all(torch.equal(trainer.model.state_dict()[name], weights[name]) for name in experts)
