# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The pure losses and the reward shift, against the equations written out in plain Python."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_r1v2.mpo.losses import MPOWeights, PairLogps, generation_loss, mpo_losses, preference_loss, quality_loss
from trl_r1v2.mpo.reward_shift import MPOStateError, RewardShift


LENGTHS = (3, 1, 4, 2)  # of two chosen and two rejected responses
WEIGHTS = MPOWeights(preference=0.8, quality=0.2, generation=1.0)


def neg_log_sigmoid(x: float) -> float:
    return math.log1p(math.exp(-x)) if x > 0 else -x + math.log1p(math.exp(x))


def make_pairs(seed: int = 0, requires_grad: bool = False) -> PairLogps:
    generator = torch.Generator().manual_seed(seed)
    logps = -5 * torch.rand(4, 6, generator=generator, dtype=torch.float64)
    mask = torch.zeros(4, 6, dtype=torch.long)
    for row, length in enumerate(LENGTHS):
        mask[row, 1 : 1 + length] = 1  # a prompt position before, padding behind
    return PairLogps(
        per_token_logps=logps.requires_grad_(requires_grad),
        completion_mask=mask,
        ref_chosen_logps=-6 * torch.rand(2, generator=generator, dtype=torch.float64),
        ref_rejected_logps=-6 * torch.rand(2, generator=generator, dtype=torch.float64),
    )


def by_hand(pairs: PairLogps, beta: float, shift: float, smoothing: float, generation_type: str) -> dict[str, float]:
    """Eqs. 2-5 of R1V2, number by number."""
    rows = [
        [logp for logp, in_response in zip(logps, mask, strict=True) if in_response]
        for logps, mask in zip(pairs.per_token_logps.tolist(), pairs.completion_mask.tolist(), strict=True)
    ]
    reference = pairs.ref_chosen_logps.tolist() + pairs.ref_rejected_logps.tolist()
    rewards = [beta * (sum(row) - ref) for row, ref in zip(rows, reference, strict=True)]
    chosen, rejected = rewards[:2], rewards[2:]
    margins = [c - r for c, r in zip(chosen, rejected, strict=True)]
    preference = [(1 - smoothing) * neg_log_sigmoid(m) + smoothing * neg_log_sigmoid(-m) for m in margins]
    quality = [
        neg_log_sigmoid(c - shift) + neg_log_sigmoid(-(r - shift)) for c, r in zip(chosen, rejected, strict=True)
    ]
    if generation_type == "sequence":
        generation = sum(-sum(row) / len(row) for row in rows[:2]) / 2
    else:
        generation = -sum(sum(row) for row in rows[:2]) / sum(len(row) for row in rows[:2])
    return {
        "preference_loss": sum(preference) / 2,
        "quality_loss": sum(quality) / 2,
        "generation_loss": generation,
        "chosen_reward": sum(chosen) / 2,
        "rejected_reward": sum(rejected) / 2,
    }


@pytest.mark.parametrize("generation_type", ["sequence", "token"])
@pytest.mark.parametrize(("shift", "smoothing"), [(0.0, 0.0), (-0.7, 0.0), (0.4, 0.2)])
def test_losses_equal_the_equations(shift, smoothing, generation_type):
    pairs = make_pairs()
    expected = by_hand(pairs, 0.3, shift, smoothing, generation_type)
    losses = mpo_losses(pairs, WEIGHTS, 0.3, shift, smoothing, generation_type)
    for name, value in expected.items():
        assert losses.metrics[name].item() == pytest.approx(value, rel=1e-12), name
    total = 0.8 * expected["preference_loss"] + 0.2 * expected["quality_loss"] + expected["generation_loss"]
    assert losses.loss.item() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("generation_type", ["sequence", "token"])
def test_gradients_equal_finite_differences(generation_type):
    pairs = make_pairs(requires_grad=True)

    def total(logps):
        changed = PairLogps(logps, pairs.completion_mask, pairs.ref_chosen_logps, pairs.ref_rejected_logps)
        return mpo_losses(changed, WEIGHTS, 0.3, -0.2, 0.1, generation_type).loss

    assert torch.autograd.gradcheck(total, (pairs.per_token_logps,))
    (gradient,) = torch.autograd.grad(total(pairs.per_token_logps), pairs.per_token_logps)
    assert (gradient[pairs.completion_mask == 0] == 0).all()
    assert (gradient[pairs.completion_mask == 1] != 0).all()


@pytest.mark.parametrize(
    ("shift", "expected"), [(0.0, (-0.7311, 0.0474)), (-2.0, (-0.2689, 0.2689))], ids=["without", "with"]
)
def test_shift_balances_the_gradients(shift, expected):
    """Both rewards below zero: without δ the rejected response is all but left alone."""
    rewards = torch.tensor([-1.0, -3.0], dtype=torch.float64, requires_grad=True)
    sum(quality_loss(rewards[:1], rewards[1:], shift)).sum().backward()
    assert rewards.grad.tolist() == pytest.approx(expected, abs=1e-4)


def test_a_term_of_weight_zero_cannot_poison_the_gradient():
    pairs = make_pairs()
    pairs.ref_rejected_logps[0] = -math.inf  # an infinite reward: the quality term overflows
    logps = pairs.per_token_logps.requires_grad_()
    loss = mpo_losses(pairs, MPOWeights(preference=0.0, quality=0.0, generation=1.0), 0.1, 0.0).loss
    loss.backward()
    assert loss.isfinite() and logps.grad.isfinite().all()
    assert (logps.grad[2:] == 0).all()


def test_label_smoothing_of_one_half_forgets_the_order():
    margins = torch.tensor([2.0, -0.5], dtype=torch.float64)
    torch.testing.assert_close(preference_loss(margins, 0.5), preference_loss(-margins, 0.5))
    assert not torch.allclose(preference_loss(margins, 0.1), preference_loss(-margins, 0.1))


def test_empty_response_is_counted_and_contributes_nothing():
    pairs = make_pairs()
    pairs.completion_mask[1] = 0
    losses = mpo_losses(pairs, WEIGHTS, 0.1, 0.0)
    only = -pairs.per_token_logps[0, 1:4].mean() / 2
    assert losses.metrics["generation_loss"].item() == pytest.approx(only.item(), rel=1e-12)
    assert losses.metrics["empty_responses"].item() == 0.25


def test_malformed_input_is_refused():
    pairs = make_pairs()
    with pytest.raises(ValueError, match="4 rows for 1 chosen"):
        PairLogps(pairs.per_token_logps, pairs.completion_mask, torch.zeros(1), torch.zeros(1))
    with pytest.raises(ValueError, match="drop the mask's first position"):
        PairLogps(pairs.per_token_logps, torch.ones(4, 7), pairs.ref_chosen_logps, pairs.ref_rejected_logps)
    with pytest.raises(ValueError, match="'mean'"):
        generation_loss(pairs.per_token_logps, pairs.completion_mask, "mean")


batches = st.lists(st.lists(st.floats(-50, 50, allow_nan=False), min_size=1, max_size=6), min_size=1, max_size=12)


@settings(max_examples=50, deadline=None)
@given(batches)
def test_running_mean_is_the_mean_of_all_rewards(rewards):
    shift = RewardShift("running_mean", 0.99, 0.1)
    assert shift.value == 0.0
    seen = []
    for batch in rewards:
        seen += batch
        value = shift.update(math.fsum(batch), len(batch))
        assert value == shift.value == pytest.approx(math.fsum(seen) / len(seen), abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(batches, st.floats(0.01, 0.99))
def test_ema_is_the_weighted_sum_of_batch_means(rewards, decay):
    shift = RewardShift("ema", decay, 0.1)
    means = [math.fsum(batch) / len(batch) for batch in rewards]
    for batch in rewards:
        shift.update(math.fsum(batch), len(batch))
    last = len(means) - 1
    expected = decay**last * means[0] + sum((1 - decay) * decay ** (last - i) * means[i] for i in range(1, last + 1))
    assert shift.value == pytest.approx(expected, abs=1e-9)


def test_zero_stays_and_an_infinite_reward_is_refused():
    shift = RewardShift("zero", 0.99, 0.1)
    assert shift.update(12.0, 4) == 0.0
    shift = RewardShift("running_mean", 0.99, 0.1)
    shift.update(2.0, 2)
    with pytest.raises(FloatingPointError, match="sum to -inf"):
        shift.update(-math.inf, 2)
    assert (shift.value, shift.num_rewards) == (1.0, 2)


def test_state_goes_on_where_it_was():
    straight, first, second = (RewardShift("ema", 0.9, 0.1) for _ in range(3))
    for reward_sum in (1.0, -4.0, 2.5):
        straight.update(reward_sum, 2)
    first.update(1.0, 2)
    first.update(-4.0, 2)
    second.load_state_dict(first.state_dict())
    second.update(2.5, 2)
    assert second.state_dict() == straight.state_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version 2"),
        ({"reward_shift": "ema"}, "reward_shift 'ema' .here 'running_mean'"),
        ({"beta": 0.2}, "beta 0.2 .here 0.1"),
        ({"value": math.nan}, "value nan"),
        ({"num_rewards": ...}, "fields missing: num_rewards"),
    ],
)
def test_foreign_state_is_refused(change, message):
    shift = RewardShift("running_mean", 0.99, 0.1)
    state = {**shift.state_dict(), **change}
    state = {name: value for name, value in state.items() if value is not ...}
    with pytest.raises(MPOStateError, match=message):
        shift.load_state_dict(state)
    assert (shift.value, shift.num_rewards) == (0.0, 0)
