# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""MPOTrainer through `trainer.train()`: against plain PyTorch, against stock DPO, and its refusals."""

import copy
import math

import pytest
import torch
from datasets import load_from_disk
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer

from tests.support.mpo_reference import PlainMPO
from tests.support.mpo_tiny import (
    logged,
    make_moe_model,
    make_text_model,
    make_tokenizer,
    moved_copy,
    text_pairs,
    training_args,
)
from trl_r1v2.mpo.mpo_config import MPOConfig
from trl_r1v2.mpo.mpo_trainer import MPOTrainer


STOCK = {"preference_weight": 1.0, "quality_weight": 0.0, "generation_weight": 0.0}


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def policy(tokenizer):
    return make_text_model(tokenizer)


@pytest.fixture(scope="module")
def reference(policy):
    return moved_copy(policy)


class Recording(MPOTrainer):
    """Keeps every micro-batch it trains on."""

    def __init__(self, *args, **kwargs):
        self.micro_batches = []
        super().__init__(*args, **kwargs)

    def _compute_loss(self, model, inputs, return_outputs):
        if self.model.training:
            self.micro_batches.append({name: value.clone() for name, value in inputs.items()})
        return super()._compute_loss(model, inputs, return_outputs)


class GradientKeeper(TrainerCallback):
    """Keeps the gradient of every optimizer step."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.steps.append({name: p.grad.clone() for name, p in model.named_parameters()})


def train(cls, model, ref, args, tokenizer, rows=16, **kwargs):
    model = copy.deepcopy(model)
    ref = copy.deepcopy(ref) if isinstance(ref, torch.nn.Module) else ref
    trainer = cls(model, ref, args, train_dataset=text_pairs(rows), processing_class=tokenizer, **kwargs)
    trainer.train()
    return trainer


def same_parameters(first, second) -> bool:
    pairs = list(zip(first.model.parameters(), second.model.parameters(), strict=True))
    assert pairs
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"reward_shift": "ema", "reward_shift_decay": 0.7, "generation_loss_type": "token"},
        {"reward_shift": "zero", "label_smoothing": 0.1},
        {"preference_weight": 0.0, "quality_weight": 3.0, "generation_weight": 0.0},
    ],
    ids=["default", "ema-token", "zero-smoothed", "quality"],
)
def test_training_equals_plain_pytorch(settings, tokenizer, policy, reference, tmp_path):
    """Losses, δ, all gradients and parameters over 5 steps of 2 micro-batches, in float64."""
    args = MPOConfig(
        **training_args(tmp_path, max_steps=5, gradient_accumulation_steps=2, learning_rate=0.02), beta=0.5, **settings
    )
    keeper = GradientKeeper()
    trainer = train(Recording, policy.double(), reference.double(), args, tokenizer, rows=24, callbacks=[keeper])
    plain = PlainMPO(
        policy,
        reference,
        beta=0.5,
        weights=(args.preference_weight, args.quality_weight, args.generation_weight),
        shift=args.reward_shift,
        decay=args.reward_shift_decay,
        smoothing=args.label_smoothing,
        generation_type=args.generation_loss_type,
        learning_rate=0.02,
    )
    assert len(trainer.micro_batches) == 10 and len(keeper.steps) == 5
    for step, gradients in enumerate(keeper.steps):
        for batch in trainer.micro_batches[2 * step : 2 * step + 2]:
            plain.micro_batch(batch, accumulation=2)
        for name, expected in plain.optimizer_step().items():
            torch.testing.assert_close(gradients[name], expected, rtol=1e-6, atol=1e-6, msg=f"step {step}: {name}")
    for name, parameter in plain.policy.named_parameters():
        torch.testing.assert_close(trainer.model.get_parameter(name), parameter, rtol=0, atol=1e-6, msg=name)

    assert trainer.reward_shift.value == pytest.approx(plain.delta, abs=1e-6)
    if args.reward_shift != "zero":
        assert len({round(entry["reward_shift"], 6) for entry in plain.history}) == 10, "δ must move"
    for name in plain.history[0]:
        key = name if name == "loss" else f"mpo/{name}"
        per_step = [(a[name] + b[name]) / 2 for a, b in zip(plain.history[::2], plain.history[1::2], strict=True)]
        assert logged(trainer, key) == pytest.approx(per_step, rel=1e-6, abs=1e-6), key


@pytest.mark.parametrize("extra", [{}, {"gradient_accumulation_steps": 2, "optim": "adamw_torch"}, {"bf16": True}])
def test_preference_alone_is_stock_dpo_to_the_bit(extra, tokenizer, policy, reference, tmp_path):
    common = training_args(tmp_path, max_steps=4, **extra)
    policy, reference = policy.float(), reference.float()
    dpo = train(DPOTrainer, policy, reference, DPOConfig(**common), tokenizer)
    mpo = train(MPOTrainer, policy, reference, MPOConfig(**common, **STOCK), tokenizer)
    assert logged(mpo, "loss") == logged(dpo, "loss") and len(logged(mpo, "loss")) == 4
    assert same_parameters(mpo, dpo)
    for key in ("rewards/chosen", "rewards/margins", "logps/rejected", "entropy", "num_tokens"):
        assert logged(mpo, key) == logged(dpo, key), key


def test_without_shift_and_by_token_it_is_trls_mpo(tokenizer, policy, reference, tmp_path):
    common = training_args(tmp_path, max_steps=5, beta=0.5)
    policy, reference = policy.float(), reference.float()
    trl_mpo = DPOConfig(**common, loss_type=["sigmoid", "bco_pair", "sft"], loss_weights=[0.8, 0.2, 1.0])
    theirs = train(DPOTrainer, policy, reference, trl_mpo, tokenizer)
    ours = MPOConfig(**common, reward_shift="zero", generation_loss_type="token")
    ours = train(MPOTrainer, policy, reference, ours, tokenizer)
    assert logged(ours, "loss") == pytest.approx(logged(theirs, "loss"), rel=1e-6)
    for mine, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)
    default = train(MPOTrainer, policy, reference, MPOConfig(**common), tokenizer)
    assert logged(default, "loss")[-1] != pytest.approx(logged(theirs, "loss")[-1], rel=1e-4), "δ and eq. 5 must show"


class GradientOnLogps(MPOTrainer):
    """Keeps the gradient that reaches the log-probabilities of each micro-batch."""

    def __init__(self, *args, **kwargs):
        self.seen = []
        super().__init__(*args, **kwargs)

    def _compute_loss(self, model, inputs, return_outputs):
        def forward(**kwargs):
            outputs = model(**kwargs)
            outputs.log_probs.retain_grad()
            self.seen.append((outputs.log_probs, inputs["completion_mask"][:, 1:]))
            return outputs

        loss = super()._compute_loss(forward, inputs, return_outputs)
        self.seen[-1] += (self.reward_shift.value,)
        return loss


def test_shift_reaches_the_gradient_of_the_rejected_response(tokenizer, policy, tmp_path):
    """Every token of a rejected response is pushed down by β·σ(r − δ)."""
    far = moved_copy(policy.float(), scale=1.0)
    pushes = {}
    for kind in ("running_mean", "zero"):
        args = MPOConfig(
            **training_args(tmp_path, max_steps=4, learning_rate=0.0, per_device_train_batch_size=1),
            beta=0.5,
            reward_shift=kind,
            preference_weight=0.0,
            quality_weight=1.0,
            generation_weight=0.0,
        )
        trainer = train(GradientOnLogps, policy, far, args, tokenizer)
        pushes[kind] = []
        for (logps, mask, shift), reward in zip(trainer.seen, logged(trainer, "mpo/rejected_reward"), strict=True):
            expected = 0.5 / (1 + math.exp(-(reward - shift)))
            gradient = logps.grad[1][mask[1].bool()]
            assert gradient.tolist() == pytest.approx([expected] * len(gradient), rel=1e-5)
            pushes[kind].append(expected)
    assert all(abs(a - b) > 0.01 for a, b in zip(pushes["running_mean"], pushes["zero"], strict=True)), pushes


def test_one_forward_each(tokenizer, policy, reference, tmp_path):
    trainer = MPOTrainer(
        copy.deepcopy(policy).float(),
        copy.deepcopy(reference).float(),
        MPOConfig(**training_args(tmp_path, max_steps=2, gradient_accumulation_steps=3)),
        train_dataset=text_pairs(16),
        processing_class=tokenizer,
    )
    calls = {"policy": 0, "reference": 0}
    for name, model in (("policy", trainer.model), ("reference", trainer.ref_model)):

        def count(module, args, name=name):
            calls[name] += 1

        model.model.register_forward_pre_hook(count)
    trainer.train()
    assert calls == {"policy": 6, "reference": 6}


def test_moe_auxiliary_loss_is_kept(tokenizer, tmp_path):
    policy = make_moe_model(tokenizer)
    reference = moved_copy(policy)
    common = training_args(tmp_path)
    dpo = train(DPOTrainer, policy, reference, DPOConfig(**common), tokenizer)
    mpo = train(MPOTrainer, policy, reference, MPOConfig(**common, **STOCK), tokenizer)
    assert logged(mpo, "loss") == logged(dpo, "loss")
    assert logged(mpo, "aux_loss") == logged(dpo, "aux_loss")
    assert same_parameters(mpo, dpo)
    full = train(MPOTrainer, policy, reference, MPOConfig(**common), tokenizer)
    for i, loss in enumerate(logged(full, "loss")):
        parts = {name: logged(full, f"mpo/{name}_loss")[i] for name in ("preference", "quality", "generation")}
        expected = 0.8 * parts["preference"] + 0.2 * parts["quality"] + parts["generation"]
        assert loss == pytest.approx(expected + 0.5 * logged(full, "aux_loss")[i], rel=1e-5)


def test_lora_takes_the_model_without_adapter_as_reference(tokenizer, policy, tmp_path):
    policy = policy.float()
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    common = training_args(tmp_path, max_steps=4)
    stock = train(DPOTrainer, policy, None, DPOConfig(**common), tokenizer, peft_config=lora)
    ours = train(MPOTrainer, policy, None, MPOConfig(**common, **STOCK), tokenizer, peft_config=lora)
    assert logged(ours, "loss") == logged(stock, "loss") and same_parameters(ours, stock)
    assert abs(logged(ours, "rewards/chosen")[0]) > 1e-4, "the adapter must set policy and reference apart"

    adapter_alone = train(MPOTrainer, policy, None, MPOConfig(**common), tokenizer, peft_config=lora)
    with_reference = train(MPOTrainer, policy, policy, MPOConfig(**common), tokenizer, peft_config=lora)
    assert logged(adapter_alone, "mpo/quality_loss") == logged(with_reference, "mpo/quality_loss")
    assert same_parameters(adapter_alone, with_reference)


def test_trained_adapter_is_its_own_reference(tokenizer, policy, tmp_path):
    torch.manual_seed(3)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = get_peft_model(copy.deepcopy(policy).float(), lora)
    trainer = train(MPOTrainer, adapted, None, MPOConfig(**training_args(tmp_path)), tokenizer)
    assert isinstance(trainer.model, PeftModel)
    assert logged(trainer, "mpo/chosen_reward")[0] == 0.0
    assert logged(trainer, "mpo/chosen_reward")[-1] != 0.0


def test_precomputed_reference_gives_the_same_run(tokenizer, policy, reference, tmp_path):
    common = training_args(tmp_path, max_steps=4)
    policy, reference = policy.float(), reference.float()
    online = train(MPOTrainer, policy, reference, MPOConfig(**common), tokenizer)
    precomputed = train(MPOTrainer, policy, reference, MPOConfig(**common, precompute_ref_log_probs=True), tokenizer)
    assert "ref_chosen_logps" in precomputed.train_dataset.column_names
    assert logged(precomputed, "loss") == pytest.approx(logged(online, "loss"), rel=1e-6)


def test_precomputed_reference_is_not_reused_for_another_max_length(tokenizer, policy, reference, tmp_path):
    common = training_args(tmp_path, max_steps=1, precompute_ref_log_probs=True)
    text_pairs(6).save_to_disk(str(tmp_path / "rows"))
    values = {}
    for max_length in (64, 11):
        trainer = MPOTrainer(
            copy.deepcopy(policy).float(),
            copy.deepcopy(reference).float(),
            MPOConfig(**common, max_length=max_length),
            train_dataset=load_from_disk(str(tmp_path / "rows")),
            processing_class=tokenizer,
        )
        values[max_length] = list(trainer.train_dataset["ref_chosen_logps"])
    assert values[64] != values[11]


def test_evaluation_leaves_the_shift_alone(tokenizer, policy, reference, tmp_path):
    trainer = MPOTrainer(
        copy.deepcopy(policy).float(),
        copy.deepcopy(reference).float(),
        MPOConfig(**training_args(tmp_path), per_device_eval_batch_size=2),
        train_dataset=text_pairs(8),
        eval_dataset=text_pairs(6, seed=5),
        processing_class=tokenizer,
    )
    before = trainer.evaluate()
    assert trainer.reward_shift.state_dict()["num_rewards"] == 0 and before["eval_mpo/reward_shift"] == 0.0
    trainer.train()
    state = trainer.reward_shift.state_dict()
    assert state["num_rewards"] == 12 and state["value"] != 0.0
    after = trainer.evaluate()
    assert trainer.reward_shift.state_dict() == state
    assert after["eval_mpo/reward_shift"] == pytest.approx(state["value"])
    parts = {name: after[f"eval_mpo/{name}_loss"] for name in ("preference", "quality", "generation")}
    expected = 0.8 * parts["preference"] + 0.2 * parts["quality"] + parts["generation"]
    assert after["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_truncation_is_counted(tokenizer, policy, reference, tmp_path, caplog):
    rows = text_pairs(12)
    args = MPOConfig(**training_args(tmp_path, max_steps=1, per_device_train_batch_size=8), max_length=8)
    with caplog.at_level("WARNING"):
        trainer = MPOTrainer(
            copy.deepcopy(policy).float(),
            copy.deepcopy(reference).float(),
            args,
            train_dataset=rows,
            processing_class=tokenizer,
        )
    kept = list(trainer.train_dataset)
    assert 8 <= len(kept) < 12
    assert f"{12 - len(kept)} of 12 rows of the train dataset are left out" in caplog.text
    trainer.train()
    batch = trainer.data_collator(kept[:8])
    lengths = [len(row["prompt_ids"] + row[f"{side}_ids"]) for side in ("chosen", "rejected") for row in kept[:8]]
    assert batch["truncated"].tolist() == [length > 8 for length in lengths]
    assert 0 < logged(trainer, "mpo/truncated_responses")[0] < 1


def test_plain_dpo_config_is_refused(tokenizer, policy, tmp_path):
    with pytest.raises(TypeError, match="DPOConfig but must be an `MPOConfig`"):
        MPOTrainer(policy, args=DPOConfig(**training_args(tmp_path)), train_dataset=text_pairs(2))


def test_reference_gone_after_precomputing_is_named(tokenizer, policy, reference, tmp_path):
    trainer = MPOTrainer(
        copy.deepcopy(policy).float(),
        None,
        MPOConfig(**training_args(tmp_path), precompute_ref_log_probs=True),
        train_dataset=text_pairs(4),
        processing_class=tokenizer,
    )
    assert trainer.ref_model is None
    batch = trainer.data_collator(
        [{n: r[n] for n in ("prompt_ids", "chosen_ids", "rejected_ids")} for r in trainer.train_dataset]
    )
    with pytest.raises(ValueError, match="the batch has no reference log-probabilities"):
        trainer.compute_loss(trainer.model, batch)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preference_weight": -1.0}, "preference_weight=-1.0 must be finite and >= 0"),
        ({"quality_weight": float("nan")}, "quality_weight=nan"),
        ({"preference_weight": 0, "quality_weight": 0, "generation_weight": 0}, "all three loss weights are 0"),
        ({"reward_shift": "mean"}, "reward_shift='mean' must be"),
        ({"reward_shift_decay": 1.0}, r"must lie in \(0, 1\)"),
        ({"generation_loss_type": "mean"}, "generation_loss_type='mean'"),
        ({"label_smoothing": 0.5}, r"must lie in \[0, 0.5\)"),
        ({"loss_type": ["sigmoid", "sft"]}, "preference_weight"),
        ({"loss_type": ["sigmoid"], "loss_weights": [2.0]}, "loss_weights=.2.0."),
        ({"sync_ref_model": True}, "frozen reference"),
        ({"ld_alpha": 0.5}, "ld_alpha=0.5 .* Leave it at None"),
        ({"f_divergence_type": "forward_kl"}, "Leave it at 'reverse_kl'"),
        ({"use_weighting": True}, "use_weighting=True"),
    ],
)
def test_settings_are_refused(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        MPOConfig(**training_args(tmp_path), **settings)


def test_defaults_are_the_papers(tmp_path):
    args = MPOConfig(output_dir=str(tmp_path), use_cpu=True)
    values = (args.preference_weight, args.quality_weight, args.generation_weight, args.beta)
    assert values == (0.8, 0.2, 1.0, 0.1)
    assert (args.reward_shift, args.generation_loss_type) == ("running_mean", "sequence")
