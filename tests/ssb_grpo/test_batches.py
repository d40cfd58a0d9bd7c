# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Kinds of batches through `trainer.train()`, each step's gradient against `row_losses.py`."""

import pytest
import torch
from peft import LoraConfig

from tests.support.ssb_probes import fated, logged, probed
from tests.support.ssb_reference import grpo_loss
from tests.support.ssb_runs import (
    GRPOTrainer,
    SSBGRPOTrainer,
    image_dataset,
    losses,
    make_trainer,
    mixed_dataset,
    mixed_reward,
    spread_reward,
    text_dataset,
)


# With two groups a generation: the second dies in the second generation, both in the third.
FATES = {3: 0.0, 4: 1.0, 5: 1.0}


# ---- Losses ----


LOSS_TYPES = {
    "grpo": {},
    "bnpo": {},
    "dr_grpo": {},
    "dapo": {},
    "cispo": {"epsilon_high": 5.0},
    "sapo": {},
    "luspo": {"importance_sampling_level": "sequence"},
    "vespo": {},
    "grpo_recomputing_activations": {"loss_type": "grpo", "gradient_checkpointing": True},
    "grpo_with_reference": {"loss_type": "grpo", "beta": 0.3},
    "grpo_two_sided": {"loss_type": "grpo", "delta": 1.3, "learning_rate": 5e-2},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4},
}


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_gradient_of_every_loss_type(loss_type, text_model_path, tmp_path, monkeypatch):
    settings = {"loss_type": loss_type, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    trainer, probe = probed(
        monkeypatch, text_model_path, tmp_path, text_dataset(), fated(FATES), **(settings | LOSS_TYPES[loss_type])
    )
    trainer.train()
    probe.assert_gradients(3)
    probe.assert_buffer()
    assert probe.num_replayed == [0, 4, 8]
    assert all(torch.isfinite(torch.tensor(losses(trainer))))


SCHEDULES = {
    # name: settings, number of optimizer steps for three generations
    "num_iterations": ({"num_iterations": 2}, 6),
    "steps_per_generation": ({"per_device_train_batch_size": 4, "steps_per_generation": 2}, 6),
    "several_iterations_of_slices": (
        {"per_device_train_batch_size": 4, "steps_per_generation": 2, "num_iterations": 2},
        12,
    ),
    "generations_within_a_step": (
        {"per_device_train_batch_size": 4, "steps_per_generation": 2, "gradient_accumulation_steps": 6},
        1,
    ),
    "iterations_within_a_step": (
        {"steps_per_generation": 1, "num_iterations": 2, "gradient_accumulation_steps": 2},
        3,
    ),
}


@pytest.mark.parametrize(
    ("schedule", "loss_type"),
    [*((name, "grpo") for name in SCHEDULES), ("steps_per_generation", "dapo"), ("generations_within_a_step", "dapo")],
)
def test_gradient_of_every_schedule(schedule, loss_type, text_model_path, tmp_path, monkeypatch):
    """Steps on old rollouts divide by the policy of the rollout, whether that is stored or captured."""
    settings, num_steps = SCHEDULES[schedule]
    trainer, probe = probed(
        monkeypatch,
        text_model_path,
        tmp_path,
        text_dataset(),
        fated(FATES),
        max_steps=num_steps,
        loss_type=loss_type,
        **settings,
    )
    trainer.train()
    probe.assert_gradients(num_steps)
    probe.assert_buffer()
    assert probe.num_replayed == [0, 4, 8]


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("modality", ["text", "images"])
def test_reference_model(modality, adapter, text_model_path, internvl_path, tmp_path, monkeypatch):
    """Replayed rows keep their reference log-probabilities; the gradient is eq. 8's with the KL term."""
    extra = {"peft_config": LoraConfig(target_modules=["q_proj", "v_proj"], r=2)} if adapter else {}
    path, dataset = (text_model_path, text_dataset()) if modality == "text" else (internvl_path, image_dataset())
    checks = []

    def against_eq_8(step):
        [(rows, _)] = probe.steps[-1]
        as_dicts = [
            {
                "prompt_ids": row.prompt_ids,
                "completion_ids": row.completion_ids,
                "advantage": row.advantage,
                "behaviour": row.behaviour,
                "reference": row.reference,
                "pixel_values": row.visual.get("pixel_values"),
            }
            for row in rows
        ]
        weights = [weight for weight in trainer.model.parameters() if weight.grad is not None]
        expected = torch.autograd.grad(
            grpo_loss(trainer.model, as_dicts, beta=0.3), weights, allow_unused=True, materialize_grads=True
        )
        for weight, gradient in zip(weights, expected, strict=True):
            scale = gradient.abs().max().item() + 1e-6
            torch.testing.assert_close(weight.grad, gradient, atol=2e-4 * scale, rtol=1e-3)
        checks.append(step)

    trainer, probe = probed(
        monkeypatch, path, tmp_path, dataset, fated(FATES), beta=0.3, use_bias_correction_kl=False, **extra
    )
    check_step = probe.callback.check
    probe.callback.check = lambda step: (check_step(step), against_eq_8(step))
    trainer.train()
    probe.assert_gradients(3)
    probe.assert_buffer()
    assert checks == [0, 1, 2] and probe.num_replayed == [0, 4, 8]
    assert all(value > 0 for value in logged(trainer, "kl")[1:])


# ---- Sizes ----


def test_all_dead_first_batch_with_an_empty_buffer(text_model_path, tmp_path, monkeypatch):
    fates = {0: 1.0, 1: 0.0, 3: 0.0, 5: 0.0}
    trainer, probe = probed(monkeypatch, text_model_path, tmp_path, text_dataset(), fated(fates))
    trainer.train()
    # Row 2 is live, so its four completions are all there is to replay, in the batch after its own.
    assert probe.num_replayed == [0, 0, 4]
    assert losses(trainer)[0] == 0.0 and logged(trainer, "grad_norm")[0] == 0.0
    assert logged(trainer, "ssb/dead_groups") == [1.0, 0.5, 0.5]
    assert logged(trainer, "ssb/effective_before") == [0.0, 0.5, 0.5]
    assert logged(trainer, "ssb/effective_after") == [0.0, 0.5, 1.0]
    assert len(probe.book) == 4 + 4
    probe.assert_gradients(3)


@pytest.mark.parametrize("num_iterations", [1, 2])
def test_the_first_replay_waits_for_an_earlier_batch(num_iterations, text_model_path, tmp_path, monkeypatch):
    """A batch is never replayed into itself, also where its log-probabilities are known before training on it."""
    trainer, probe = probed(
        monkeypatch,
        text_model_path,
        tmp_path,
        text_dataset(),
        fated({1: 0.0}),
        max_steps=num_iterations,
        num_iterations=num_iterations,
    )
    trainer.train()
    assert probe.num_replayed == [0] and len(trainer.buffer) == 4


@pytest.mark.parametrize("capacity", [1, 3])
def test_small_capacity(capacity, text_model_path, tmp_path, monkeypatch):
    """What the buffer cannot fill stays dead, and is not counted as effective."""
    trainer, probe = probed(
        monkeypatch, text_model_path, tmp_path, text_dataset(), fated(FATES), ssb_capacity=capacity
    )
    trainer.train()
    assert probe.num_replayed == [0, capacity, capacity]
    assert logged(trainer, "ssb/size") == [capacity] * 3
    assert logged(trainer, "ssb/effective_after") == [1.0, (4 + capacity) / 8, capacity / 8]
    assert logged(trainer, "ssb/evicted/capacity") == [8 - capacity, 4, 0]
    probe.assert_gradients(3)


def test_one_group(text_model_path, tmp_path, monkeypatch):
    trainer, probe = probed(
        monkeypatch,
        text_model_path,
        tmp_path,
        text_dataset(),
        fated({1: 0.0, 3: 1.0}),
        per_device_train_batch_size=4,
        max_steps=4,
    )
    trainer.train()
    assert probe.num_replayed == [0, 4, 0, 4]
    probe.assert_gradients(4)


def test_tied_priorities(text_model_path, tmp_path, monkeypatch):
    """Half right, half wrong: every advantage has the same size."""

    def half(completion_ids, **kwargs):
        return [float(index % 2) for index, _ in enumerate(completion_ids)]

    trainer, probe = probed(
        monkeypatch, text_model_path, tmp_path, text_dataset(), fated(FATES, half), ssb_capacity=10
    )
    trainer.train()
    assert len({abs(row.advantage) for row in probe.book.values()}) == 1
    assert probe.num_replayed == [0, 4, 8]
    assert all(len(set(uids)) == len(uids) for uids in probe.drawn)
    assert list(trainer.buffer.samples) == list(range(2, 12)), "of equal weights the oldest two went"
    probe.assert_gradients(3)


def test_limits_on_age_and_uses(text_model_path, tmp_path, monkeypatch):
    """Every group after the first generation is dead: samples go back until they are used up or too old."""
    fates = dict.fromkeys(range(2, 12), 1.0)
    trainer, probe = probed(
        monkeypatch, text_model_path, tmp_path, text_dataset(), fated(fates), max_steps=5, ssb_max_uses=2
    )
    trainer.train()
    assert probe.num_replayed == [0, 8, 8, 0, 0]
    assert logged(trainer, "ssb/evicted/uses") == [0, 0, 0, 8, 0]
    probe.assert_gradients(5)
    trainer, probe = probed(
        monkeypatch, text_model_path, tmp_path, text_dataset(), fated(fates), max_steps=5, ssb_max_age=2
    )
    trainer.train()
    assert probe.num_replayed == [0, 8, 8, 0, 0]
    assert logged(trainer, "ssb/evicted/age") == [0, 0, 0, 8, 0]


class RoundingGRPOTrainer(GRPOTrainer):
    """Leaves at the group's mean what float32 leaves there in about one group of eight in four: up to 6e-7."""

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        output["advantages"] = torch.where(output["advantages"] == 0, 5e-7, output["advantages"])
        return output


class RoundingSSBGRPOTrainer(SSBGRPOTrainer, RoundingGRPOTrainer):
    pass


def test_rewards_at_the_mean_are_not_kept(text_model_path, tmp_path, monkeypatch):
    """Rounding is no gradient worth a place, a draw or the word effective."""

    def with_mean(completion_ids, **kwargs):
        return [(0.0, 1.0, 2.0, 1.0)[index % 4] for index, _ in enumerate(completion_ids)]

    trainer, probe = probed(
        monkeypatch,
        text_model_path,
        tmp_path,
        text_dataset(),
        with_mean,
        cls=RoundingSSBGRPOTrainer,
        stock=RoundingGRPOTrainer,
        max_steps=2,
    )
    trainer.train()
    assert all((batch["advantages"] == 5e-7).sum() == 4 for [batch] in probe.fresh)
    assert len(trainer.buffer) == 8 and logged(trainer, "ssb/effective_before") == [0.5, 0.5]


# ---- Rewards ----


@pytest.mark.parametrize("scale_rewards", ["none", "batch", "group"])
def test_scale_rewards(scale_rewards, text_model_path, tmp_path, monkeypatch):
    trainer, probe = probed(
        monkeypatch, text_model_path, tmp_path, text_dataset(), fated(FATES), scale_rewards=scale_rewards
    )
    trainer.train()
    assert probe.num_replayed == [0, 4, 8]
    probe.assert_gradients(3)


def falling_reward(completion_ids, row, **kwargs):
    return [-2.0 * (index % 4) if number not in (5,) else 3.0 for index, number in enumerate(row)]


def test_normalize_then_sum(text_model_path, tmp_path, monkeypatch):
    """Objectives that are normalised one by one make a group live as soon as one of them spreads."""
    trainer, probe = probed(
        monkeypatch,
        text_model_path,
        tmp_path,
        text_dataset(),
        [fated({2: 0.0, 3: 0.0, 4: 1.0, 5: 1.0}), falling_reward],
        multi_objective_aggregation="normalize_then_sum",
        reward_weights=[1.0, 0.5],
    )
    trainer.train()
    # Rows 2, 3 and 4 spread by the second reward, row 5 by none.
    assert probe.num_replayed == [0, 0, 4]
    probe.assert_gradients(3)


class NoisyTotal:
    """A rule that dies as `fates` says, plus noise that never does, as one number; the rule is logged beside it."""

    __name__ = "noisy_total"

    def __init__(self, fates):
        self.rule = fated(fates)

    def __call__(self, completion_ids, row, log_extra, **kwargs):
        rule = self.rule(completion_ids=completion_ids, row=row)
        log_extra("rule_score", rule)
        return [score + 0.01 * (index % 3) for index, score in enumerate(rule)]


def noise(completion_ids, **kwargs):
    return [0.01 * (index % 3) for index, _ in enumerate(completion_ids)]


@pytest.mark.parametrize(
    ("reward", "judge", "replayed"),
    [
        ([fated(FATES), noise], "reward", [0, 0, 0]),
        ([fated(FATES), noise], "fated", [0, 4, 8]),
        ([fated(FATES), noise], "noise", [0, 0, 0]),
        (NoisyTotal(FATES), "reward", [0, 0, 0]),
        (NoisyTotal(FATES), "rule_score", [0, 4, 8]),
    ],
    ids=["total", "function", "other_function", "hybrid_total", "column"],
)
def test_judges(reward, judge, replayed, text_model_path, tmp_path, monkeypatch):
    """With a noisy part the total is never flat; the rule alone tells dead groups."""
    trainer, probe = probed(monkeypatch, text_model_path, tmp_path, text_dataset(), reward, ssb_judge=judge)
    trainer.train()
    assert probe.num_replayed == replayed
    probe.assert_gradients(3)


def test_judge_tolerance(text_model_path, tmp_path, monkeypatch):
    reward = NoisyTotal(FATES)
    trainer, probe = probed(monkeypatch, text_model_path, tmp_path, text_dataset(), reward, ssb_judge_tolerance=0.05)
    trainer.train()
    assert probe.num_replayed == [0, 4, 8]


def test_unknown_judge_is_refused_with_the_names(text_model_path, tmp_path):
    trainer = make_trainer(
        SSBGRPOTrainer, text_model_path, tmp_path, text_dataset(), [NoisyTotal({}), noise], ssb_judge="ruel"
    )
    with pytest.raises(ValueError, match=r"'ruel'.*\['noisy_total', 'noise'\].*\['rule_score'\]"):
        trainer.train()


def test_unscorable_completions(text_model_path, tmp_path, monkeypatch):
    """A reward of `None` neither makes a group live nor enters the buffer."""

    def partly(completion_ids, row, **kwargs):
        scores = {2: [None, 1.0, 1.0, None], 3: [None] * 4, 4: [0.0, None, 1.0, None]}
        return [
            scores[number][index % 4] if number in scores else float(index % 4) for index, number in enumerate(row)
        ]

    trainer, probe = probed(monkeypatch, text_model_path, tmp_path, text_dataset(), partly)
    trainer.train()
    assert probe.num_replayed == [0, 8, 0]
    assert logged(trainer, "ssb/effective_before") == [1.0, 0.0, 6 / 8]
    assert len(probe.book) == 8 + 0 + 6
    probe.assert_gradients(3)


# ---- Fewer or more rollouts ----


@pytest.mark.parametrize("modality", ["text", "mixed"])
def test_share_generates_less(modality, text_model_path, internvl_path, tmp_path, monkeypatch):
    """Left-out groups are filled first, then dead ones; every figure counts what was generated."""
    path, dataset = (text_model_path, text_dataset(24)) if modality == "text" else (internvl_path, mixed_dataset(24))
    trainer, probe = probed(
        monkeypatch,
        path,
        tmp_path,
        dataset,
        fated({1: 1.0, 2: 0.0, 3: 0.0, 4: 0.0}),
        per_device_train_batch_size=16,
        max_steps=4,
        ssb_replay_share=0.5,
        ssb_max_uses=None,
    )
    trainer.train()
    generated = [len(batch["advantages"]) for [batch] in probe.fresh]
    # First only row 0 is live: four samples. They allow one group of the next batch to be left out, not two.
    assert generated == [16, 12, 8, 8]
    assert logged(trainer, "ssb/fresh_rows") == generated
    # Four samples fill the four rows left out; then 12 and 20 fill eight.
    assert probe.num_replayed == [0, 4, 8, 8]
    assert logged(trainer, "ssb/replayed_rows") == probe.num_replayed
    assert [int(used["ssb_is_replayed"][generated[i] :].sum()) for i, used in enumerate(probe.used)] == [0, 4, 8, 8]
    assert logged(trainer, "ssb/dead_groups")[:2] == [0.75, 1 / 3]
    assert logged(trainer, "ssb/effective_before") == [4 / 16, 8 / 12, 1.0, 1.0]
    assert logged(trainer, "ssb/effective_after") == [4 / 16, 12 / 16, 1.0, 1.0]
    probe.assert_gradients(4)
    probe.assert_buffer()


@pytest.mark.parametrize(("modality", "iterations"), [("text", 1), ("images", 1), ("mixed", 1), ("mixed", 2)])
def test_extra_rounds_fill_from_new_prompts(
    modality, iterations, text_model_path, internvl_path, tmp_path, monkeypatch
):
    path = text_model_path if modality == "text" else internvl_path
    dataset = {"text": text_dataset, "images": image_dataset, "mixed": mixed_dataset}[modality]()
    trainer, probe = probed(
        monkeypatch,
        path,
        tmp_path,
        dataset,
        fated({0: 0.0, 1: 1.0, 2: 0.0, 3: 0.0}),
        max_steps=2 * iterations,
        num_iterations=iterations,
        ssb_resample_rounds=5,
        ssb_capacity=3,
    )
    trainer.train()
    # The first generation is dead and the buffer empty: all eight rows come from further prompts.
    assert logged(trainer, "ssb/resampled_rows")[0] == 8 and len(probe.fresh[0]) >= 2
    # Then three samples are replayed, and the other five rows come from further prompts again.
    assert probe.num_replayed == [0, 3]
    assert [row for row in logged(trainer, "ssb/resampled_rows") if row] == [8, 5]
    assert logged(trainer, "ssb/effective_after") == [1.0, 1.0]
    probe.assert_gradients(2 * iterations)
    probe.assert_buffer()


def test_extra_rounds_in_place_of_replay(text_model_path, tmp_path, monkeypatch):
    trainer, probe = probed(
        monkeypatch,
        text_model_path,
        tmp_path,
        text_dataset(),
        fated({0: 0.0, 1: 1.0, 2: 0.0, 3: 0.0}),
        max_steps=2,
        ssb_resample_rounds=3,
        ssb_replay="none",
    )
    trainer.train()
    assert probe.num_replayed == [0, 0]
    assert logged(trainer, "ssb/resampled_rows") == [8, 8]
    probe.assert_gradients(2)


def test_extra_rounds_end(text_model_path, tmp_path, monkeypatch):
    """When every prompt is dead the rounds are used up, and the batch is trained on as it is."""
    fates = dict.fromkeys(range(12), 1.0)
    trainer, probe = probed(
        monkeypatch, text_model_path, tmp_path, text_dataset(), fated(fates), max_steps=2, ssb_resample_rounds=2
    )
    trainer.train()
    assert [len(batches) for batches in probe.fresh] == [3, 3]
    assert logged(trainer, "ssb/resampled_rows") == [0, 0] and losses(trainer) == [0.0, 0.0]


# ---- What must stay as it is ----


class WithEval:
    """A trainer class that evaluates on the training set's first rows."""

    def __init__(self, *args, train_dataset, **kwargs):
        super().__init__(*args, train_dataset=train_dataset, eval_dataset=train_dataset.select(range(2)), **kwargs)


class StockWithEval(WithEval, GRPOTrainer):
    pass


class SSBWithEval(WithEval, SSBGRPOTrainer):
    pass


@pytest.mark.parametrize("modality", ["text", "images"])
def test_evaluation_is_untouched(modality, text_model_path, internvl_path, tmp_path):
    """Losses, rewards and random numbers of evaluations during training are stock TRL's."""
    path, dataset = (text_model_path, text_dataset()) if modality == "text" else (internvl_path, image_dataset())
    histories = []
    for cls in (StockWithEval, SSBWithEval):
        trainer = make_trainer(
            cls, path, tmp_path / cls.__name__, dataset, spread_reward, eval_strategy="steps", eval_steps=1
        )
        trainer.train()
        timed = ("runtime", "per_second", "time")
        evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
        histories.append([{k: v for k, v in e.items() if not k.endswith(timed)} for e in evaluations])
    assert len(histories[0]) == 4 and histories[0] == histories[1]
    held = {uid: sample.uses for uid, sample in trainer.buffer.samples.items()}
    trainer.evaluate()
    assert held == {uid: sample.uses for uid, sample in trainer.buffer.samples.items()}


def test_drawing_leaves_the_rollouts_alone(text_model_path, tmp_path):
    """With learning rate 0 the completions of a run that replays are those of stock TRL, number for number."""
    seen = []
    for cls in (GRPOTrainer, SSBGRPOTrainer):
        sampled = []

        def recording(completion_ids, row, sampled=sampled, **kwargs):
            sampled.append([list(ids) for ids in completion_ids])
            return fated(FATES)(completion_ids=completion_ids, row=row)

        trainer = make_trainer(
            cls, text_model_path, tmp_path / cls.__name__, text_dataset(), recording, learning_rate=0.0
        )
        trainer.train()
        seen.append(sampled)
    assert seen[0] == seen[1] and len(seen[0]) == 4


def test_bf16_autocast(text_model_path, tmp_path):
    """
    With learning rate 0 a replayed row's policy is the one that sampled it: ratios of one, up to bf16's rounding.
    """
    trainer = make_trainer(
        SSBGRPOTrainer, text_model_path, tmp_path, text_dataset(), fated(FATES), bf16=True, learning_rate=0.0
    )
    trainer.train()
    assert sum(logged(trainer, "ssb/replayed_rows")) > 0
    assert all(
        sample.tokens["old_per_token_logps"].dtype == torch.float32 for sample in trainer.buffer.samples.values()
    )
    assert logged(trainer, "ssb/ratio_mean") == pytest.approx([1.0] * len(logged(trainer, "ssb/ratio_mean")), abs=0.05)


def test_removed_columns(internvl_path, tmp_path, monkeypatch):
    """With `remove_unused_columns` the reward sees no extra column, and images are still found by row."""

    def only_completions(completion_ids, **kwargs):
        assert "row" not in kwargs and not any(name.startswith("_ssb") for name in kwargs)
        values = mixed_reward(completion_ids)
        return [0.0] * len(values) if trainer.state.global_step == 2 else values

    trainer, probe = probed(
        monkeypatch,
        internvl_path,
        tmp_path,
        image_dataset(),
        only_completions,
        remove_unused_columns=True,
        ssb_pixel_bytes=20_000,
    )
    trainer.train()
    assert probe.num_replayed[2] == 8
    probe.assert_gradients(3)
