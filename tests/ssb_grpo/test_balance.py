# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Draws that do not tilt: the sum of replayed advantages, priorities within a sign, and what is logged of it."""

import copy

import pytest
import torch
from scipy.stats import binomtest

from tests.support.ssb_probes import fated, logged, probed
from tests.support.ssb_runs import text_dataset
from trl_r1v2.ssb_grpo.sample_buffer import Sample, SelectiveSampleBuffer


# What the buffer of a model that is mostly right holds: one wrong answer among eight, again and again.
LONE_WRONG = [-2.47, *[0.353] * 7] * 20
LONE_RIGHT = [2.47, *[-0.353] * 7] * 5


def buffer_of(advantages, **settings) -> SelectiveSampleBuffer:
    tokens = {name: torch.zeros(2) for name in ("completion_ids", "old_per_token_logps")}
    buffer = SelectiveSampleBuffer(**({"capacity": 1000, "seed": 4} | settings))
    buffer.extend([Sample(dict(tokens), advantage, step=0) for advantage in advantages])
    return buffer


def test_without_balance_a_draw_takes_the_largest_perturbed_weights():
    """Bit for bit: weights, noise and order are spelled out here."""
    buffer = buffer_of(LONE_WRONG + LONE_RIGHT)
    generator = torch.Generator()
    for _ in range(5):
        generator.set_state(buffer.generator.get_state())
        log_weights = torch.tensor([abs(s.advantage) for s in buffer.samples.values()], dtype=torch.float64).log()
        noise = torch.empty_like(log_weights).exponential_(generator=generator).log()
        expected = torch.topk(log_weights - noise, 16).indices.tolist()
        assert [sample.uid for sample in buffer.draw(16, step=0)] == expected


@pytest.mark.parametrize("advantages", [LONE_WRONG, LONE_RIGHT, LONE_WRONG + LONE_RIGHT])
@pytest.mark.parametrize("num_samples", [1, 7, 16])
def test_drawn_advantages_sum_to_no_more_than_one_of_them(advantages, num_samples):
    balanced, tilted = (buffer_of(advantages, balance=balance) for balance in (True, False))
    sums = [[sum(s.advantage for s in b.draw(num_samples, 0)) for _ in range(30)] for b in (balanced, tilted)]
    assert all(abs(total) <= 2.47 for total in sums[0])
    if num_samples == 16:
        assert max(map(abs, sums[1])) > 2 * 2.47, "the case is balanced anyway"


def test_no_sample_comes_twice_and_what_is_missing_of_a_sign_is_made_up():
    buffer = buffer_of([-1.0, 2.0, 1.0, 0.5], balance=True)
    assert sorted(sample.uid for sample in buffer.draw(9, step=0)) == [0, 1, 2, 3]
    assert [sample.uses for sample in buffer.samples.values()] == [1] * 4


def test_priority_holds_within_a_sign():
    buffer = buffer_of([1.0, 3.0, -1.0, -3.0], balance=True)
    first = [[sample.advantage for sample in buffer.draw(2, step=0)] for _ in range(2000)]
    assert all(positive > 0 > negative for positive, negative in first)
    for place, largest in ((0, 3.0), (1, -3.0)):
        count = sum(drawn[place] == largest for drawn in first)
        assert binomtest(count, len(first), 0.75).pvalue > 1e-4


def test_eviction_keeps_the_balance():
    """By |A| alone the forty heaviest are the lone wrong answers, and no draw could be balanced any more."""
    kept = {}
    for balance in (True, False):
        buffer = buffer_of(LONE_WRONG * 2, balance=balance, capacity=40)
        kept[balance] = [sample.advantage for sample in buffer.samples.values()]
        assert buffer.evicted["capacity"] == 320 - 40
    assert kept[False] == [-2.47] * 40
    assert abs(sum(kept[True])) <= 2.47 and kept[True].count(-2.47) == 5


def test_a_loaded_buffer_draws_the_same():
    buffer = buffer_of(LONE_WRONG, balance=True)
    again = buffer_of([], balance=True, seed=9)
    again.load_state_dict(copy.deepcopy(buffer.state_dict()))
    assert [s.uid for s in buffer.draw(9, 0)] == [s.uid for s in again.draw(9, 0)]


def lone_wrong(completion_ids, **kwargs):
    return [float(index % 4 > 0) for index, _ in enumerate(completion_ids)]


@pytest.mark.parametrize("balance", [False, True])
def test_through_a_run(balance, text_model_path, tmp_path, monkeypatch):
    """Four groups of one wrong answer and three right ones, then dead ones: A = -1.5 and 0.5."""
    reward = fated(dict.fromkeys(range(4, 12), 1.0), lone_wrong)
    trainer, probe = probed(
        monkeypatch, text_model_path, tmp_path, text_dataset(), reward, max_steps=6, ssb_balance=balance,
        ssb_max_uses=None, ssb_priority_exponent=4.0,
    )  # fmt: skip
    trainer.train()
    assert probe.num_replayed == [0, 0, 8, 8, 8, 8]
    drawn = [[probe.book[uid].advantage for uid in uids] for uids in probe.drawn]
    share = [sum(value < 0 for value in values) / 8 for values in drawn[2:]]
    assert logged(trainer, "ssb/replayed_negative")[2:] == share
    means = [sum(values) / 8 for values in drawn[2:]]
    assert logged(trainer, "ssb/replayed_advantage")[2:] == pytest.approx(means)
    assert share == [0.25 if balance else 0.5] * 4, "all four wrong ones come first without balance"
    assert (max(map(abs, means)) < 1e-3) == balance
    probe.assert_gradients(6)
