# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The buffer against an obvious list that obeys the same rules, and its draws against exact probabilities."""

import copy
import itertools
import math
import random
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from scipy.stats import chisquare

from trl_r1v2.ssb_grpo.sample_buffer import Sample, SelectiveSampleBuffer


INT64 = 8


def make_sample(advantage=1.0, step=0, length=3, ready=True, prompt_length=2) -> Sample:
    tokens = {"prompt_ids": torch.arange(prompt_length), "completion_ids": torch.arange(length)}
    if ready:
        tokens["old_per_token_logps"] = -torch.rand(length, generator=torch.Generator().manual_seed(length))
    return Sample(tokens, advantage, step)


# ---- Any sequence of operations, against a list ----


class BufferMachine(RuleBasedStateMachine):
    """`self.model` is a plain list of dicts, oldest first, on which every rule is spelled out."""

    @initialize(
        capacity=st.integers(1, 6),
        exponent=st.sampled_from([0.0, 1.0, 2.0]),
        decay=st.sampled_from([None, 2.0]),
        max_age=st.sampled_from([None, 1, 3]),
        max_uses=st.sampled_from([None, 1, 2]),
    )
    def start(self, capacity, exponent, decay, max_age, max_uses):
        self.limits = dict(capacity=capacity, max_age=max_age, max_uses=max_uses)
        self.exponent, self.decay = exponent, decay
        self.buffer = SelectiveSampleBuffer(priority_exponent=exponent, age_decay=decay, seed=5, **self.limits)
        self.model, self.step, self.num_made = [], 0, 0
        self.evicted = Counter()

    def weight(self, entry):
        age_factor = 1.0 if self.decay is None else math.exp(entry["step"] / self.decay)
        return abs(entry["advantage"]) ** self.exponent * age_factor

    def drop(self, entry, reason):
        self.model.remove(entry)
        self.evicted[reason] += 1

    def expire(self):
        for entry in list(self.model):
            if self.limits["max_age"] is not None and self.step - entry["step"] > self.limits["max_age"]:
                self.drop(entry, "age")
            elif self.limits["max_uses"] is not None and entry["uses"] >= self.limits["max_uses"]:
                self.drop(entry, "uses")

    @rule(
        new=st.lists(
            st.tuples(st.sampled_from([-2.0, -0.5, 0.5, 1.0, 3.0]), st.integers(1, 5), st.booleans()), max_size=5
        )
    )
    def extend(self, new):
        samples = [make_sample(advantage, self.step, length, ready) for advantage, length, ready in new]
        uids = self.buffer.extend(samples)
        assert uids == list(range(self.num_made, self.num_made + len(new)))
        self.num_made += len(new)
        for uid, (advantage, length, ready) in zip(uids, new, strict=True):
            self.model.append(dict(uid=uid, advantage=advantage, length=length, ready=ready, uses=0, step=self.step))
        while len(self.model) > self.limits["capacity"]:
            self.drop(min(self.model, key=lambda entry: (self.weight(entry), entry["uid"])), "capacity")

    @rule(data=st.data())
    @precondition(lambda self: self.num_made > 0)
    def complete(self, data):
        uid = data.draw(st.integers(0, self.num_made - 1))
        entry = next((e for e in self.model if e["uid"] == uid), None)
        logps = torch.full((entry["length"] if entry else 1,), -float(uid))
        is_waiting = entry is not None and not entry["ready"]
        before = {u: dict(s.tokens) for u, s in self.buffer.samples.items()}
        self.buffer.set_behaviour_logps(uid, torch.cat([logps, torch.zeros(2)]))  # as padded as the batch
        if is_waiting:
            entry["ready"] = True
            assert self.buffer.samples[uid].tokens["old_per_token_logps"].tolist() == logps.tolist()
            logps.zero_()  # the buffer must not share memory with the caller
            assert self.buffer.samples[uid].tokens["old_per_token_logps"].sum() == -float(uid) * entry["length"]
        else:
            assert all(s.tokens.keys() == before[u].keys() for u, s in self.buffer.samples.items())

    @rule(count=st.integers(0, 8))
    def draw(self, count):
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        drawn = self.buffer.draw(count, self.step)
        assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
        self.expire()
        ready = {entry["uid"]: entry for entry in self.model if entry["ready"]}
        uids = [sample.uid for sample in drawn]
        assert len(set(uids)) == len(uids) == min(count, len(ready))
        assert set(uids) <= set(ready)
        for uid in uids:
            ready[uid]["uses"] += 1

    @rule(steps=st.integers(1, 3))
    def train(self, steps):
        self.step += steps

    @rule()
    def count(self):
        self.expire()
        assert self.buffer.num_available(self.step) == sum(entry["ready"] for entry in self.model)

    @rule()
    def save_and_load(self):
        """What still waits for its log-probabilities is not saved; everything else goes on as if nothing happened."""
        state = copy.deepcopy(self.buffer.state_dict())
        restored = SelectiveSampleBuffer(priority_exponent=self.exponent, age_decay=self.decay, seed=99, **self.limits)
        restored.load_state_dict(copy.deepcopy(state))
        restored.evicted = self.buffer.evicted
        self.model = [entry for entry in self.model if entry["ready"]]
        for uid in [uid for uid, sample in self.buffer.samples.items() if not sample.is_ready]:
            del self.buffer.samples[uid]
        ours, theirs = copy.deepcopy(self.buffer), copy.deepcopy(restored)
        for _ in range(3):
            assert [s.uid for s in ours.draw(2, self.step)] == [s.uid for s in theirs.draw(2, self.step)]
        self.buffer = restored

    @invariant()
    @precondition(lambda self: hasattr(self, "buffer"))
    def agrees_with_the_list(self):
        assert list(self.buffer.samples) == [entry["uid"] for entry in self.model]
        for entry, sample in zip(self.model, self.buffer.samples.values(), strict=True):
            assert (sample.uses, sample.step, sample.is_ready) == (entry["uses"], entry["step"], entry["ready"])
        assert len(self.buffer) <= self.limits["capacity"]
        assert self.buffer.evicted == self.evicted


TestBuffer = BufferMachine.TestCase
TestBuffer.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class DeepBufferMachine(BufferMachine):
    pass


TestBufferDeep = pytest.mark.slow(DeepBufferMachine.TestCase)
TestBufferDeep.settings = settings(
    max_examples=3000, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


# ---- Draw frequencies ----


def ordered_probabilities(weights, count):
    """Probability of every ordered outcome of drawing one after another without replacement."""
    probabilities = {}
    for outcome in itertools.permutations(range(len(weights)), count):
        left, probability = sum(weights), 1.0
        for index in outcome:
            probability *= weights[index] / left
            left -= weights[index]
        probabilities[outcome] = probability
    assert sum(probabilities.values()) == pytest.approx(1)
    return probabilities


def count_draws(buffer, count, step, num_draws):
    counts = dict.fromkeys(itertools.permutations(sorted(buffer.samples), count), 0)
    for _ in range(num_draws):
        counts[tuple(sample.uid for sample in buffer.draw(count, step))] += 1
    return counts


def p_value(counts, probabilities):
    total = sum(counts.values())
    return chisquare(list(counts.values()), [total * probabilities[outcome] for outcome in counts]).pvalue


ADVANTAGES, STEPS = [0.5, -1.0, 2.0, 0.25, -3.0], [7, 1, 5, 8, 2]


@pytest.mark.parametrize("num_draws", [4000, pytest.param(150_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("exponent", "decay"), [(1.0, None), (2.0, None), (0.0, None), (1.0, 4.0), (0.5, 2.0)])
@pytest.mark.parametrize("count", [1, 3])
def test_draw_frequencies_are_those_of_sequential_sampling(count, exponent, decay, num_draws):
    now = 9
    buffer = SelectiveSampleBuffer(10, priority_exponent=exponent, age_decay=decay, seed=3)
    buffer.extend([make_sample(a, s) for a, s in zip(ADVANTAGES, STEPS, strict=True)])
    weights = [
        abs(a) ** exponent * (1.0 if decay is None else math.exp(-(now - s) / decay))
        for a, s in zip(ADVANTAGES, STEPS, strict=True)
    ]
    counts = count_draws(buffer, count, now, num_draws)
    assert p_value(counts, ordered_probabilities(weights, count)) > 1e-3
    # The test can tell: with half a unit more of the exponent these draws would not pass.
    wrong = [w * abs(a) ** 0.5 for w, a in zip(weights, ADVANTAGES, strict=True)]
    assert p_value(counts, ordered_probabilities(wrong, count)) < 1e-6


def test_very_old_samples_are_still_drawn_by_weight():
    """exp(-age/τ) of these underflows to zero in float64; only their relation counts."""
    buffer = SelectiveSampleBuffer(2, age_decay=1.0, seed=0)
    buffer.extend([make_sample(1.0, 0), make_sample(3.0, 0)])
    counts = count_draws(buffer, 1, 100_000, 4000)
    assert p_value(counts, {(0,): 0.25, (1,): 0.75}) > 1e-3


def test_tied_priorities_are_drawn_uniformly_and_evicted_oldest_first():
    buffer = SelectiveSampleBuffer(4, seed=1)
    buffer.extend([make_sample(sign * 0.5) for sign in (1, -1, 1, -1)])
    counts = count_draws(buffer, 2, 0, 3000)
    assert p_value(counts, ordered_probabilities([1, 1, 1, 1], 2)) > 1e-3
    assert buffer.extend([make_sample(-0.5), make_sample(0.5)]) == [4, 5]
    assert list(buffer.samples) == [2, 3, 4, 5]


# ---- Corners ----


def test_empty_buffer():
    buffer = SelectiveSampleBuffer(3)
    state = buffer.generator.get_state()
    assert buffer.draw(5, 0) == [] and buffer.num_available(0) == 0 and buffer.extend([]) == []
    assert torch.equal(buffer.generator.get_state(), state), "drawing nothing must not advance the generator"
    assert buffer.metrics(0) == dict(size=0, bytes=0, age_sum=0, age_max=0)


def test_capacity_one_keeps_the_heaviest():
    buffer = SelectiveSampleBuffer(1)
    for advantage, held in ((0.5, 0), (-2.0, 1), (1.0, 1), (2.0, 3)):
        buffer.extend([make_sample(advantage)])
        assert list(buffer.samples) == [held]
    assert [sample.uid for sample in buffer.draw(4, 0)] == [3]


def test_eviction_order_does_not_depend_on_the_step():
    """A new light sample outlasts an old heavy one exactly when ageing says so."""
    buffer = SelectiveSampleBuffer(1, age_decay=10.0)
    buffer.extend([make_sample(1.0, step=0)])
    buffer.extend([make_sample(0.5, step=6)])  # 0.5 < exp(-0.6) = 0.549
    assert list(buffer.samples) == [0]
    buffer.extend([make_sample(0.5, step=7)])  # 0.5 > exp(-0.7) = 0.497
    assert list(buffer.samples) == [2]


def test_metrics_match_a_hand_count():
    buffer = SelectiveSampleBuffer(4, seed=0)
    buffer.extend([make_sample(1.0, step=2, length=4), make_sample(1.0, step=5, length=1)])
    buffer.draw(1, 5), buffer.draw(2, 6)
    expected = dict(size=2, bytes=4 * INT64 + 5 * 12, age_sum=5, age_max=4)
    assert buffer.metrics(6) == expected


def test_a_smaller_capacity_evicts_on_load():
    buffer = SelectiveSampleBuffer(4)
    buffer.extend([make_sample(a) for a in (0.5, 3.0, -2.0, 1.0)])
    smaller = SelectiveSampleBuffer(2)
    smaller.load_state_dict(buffer.state_dict())
    assert list(smaller.samples) == [1, 2] and smaller.evicted["capacity"] == 2
