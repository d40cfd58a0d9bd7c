# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The Selective Sample Buffer: what is kept, drawn and evicted, and its state. Pure: no trainer, no collectives."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch


BEHAVIOUR_LOGPS = "old_per_token_logps"


@dataclass
class Sample:
    """One completion that can be trained on again."""

    # Unpadded CPU tensors under TRL's names: `prompt_ids` of shape `(P,)`, `completion_ids` of shape `(C,)`,
    # `old_per_token_logps` (those of the policy that sampled it, nats) of shape `(C,)` once they are known, and
    # whatever else the loss reads per token (`ref_per_token_logps`, `tool_mask`, `importance_sampling_ratio`, …).
    tokens: dict[str, torch.Tensor]
    advantage: float  # group-normalised reward at the time of sampling, dimensionless (eq. 6); never 0
    step: int  # optimizer step at which it was sampled
    source: int | str | None = None  # of its images: a row of the training set, or the content key of stored pixels
    num_images: int = 0
    uses: int = 0  # how often it has been replayed
    reward_version: str | None = None  # of the rewards that its advantage was computed from; `None` if not known
    uid: int = -1  # assigned by the buffer, in the order of arrival

    @property
    def is_ready(self) -> bool:
        """Whether the behaviour log-probabilities are known, without which the sample must not be replayed."""
        return BEHAVIOUR_LOGPS in self.tokens


@dataclass
class SelectiveSampleBuffer:
    r"""
    Keeps informative samples and draws them back, weighted by how much they can teach (R1V2, section 3.2).

    A sample's weight is \\( |A|^{\alpha} \cdot \exp(-\text{age} / \tau) \\), with `priority_exponent` \\( \alpha \\)
    and `age_decay` \\( \tau \\) in optimizer steps. The paper states weights by \\( |A| \\); the exponent, the age
    decay and all limits are ours, and so is `balance`: samples are taken such that their advantages sum to about
    zero, as those of a whole group do. The generator is the buffer's own: drawing never touches the global one.
    """

    capacity: int
    priority_exponent: float = 1.0
    age_decay: float | None = None
    max_age: int | None = None  # in optimizer steps
    max_uses: int | None = None
    balance: bool = False
    reward_version: str | None = None  # samples of another one are dropped
    seed: int = 0
    samples: dict[int, Sample] = field(default_factory=dict, repr=False)  # by uid
    evicted: Counter = field(default_factory=Counter, repr=False)  # how many left, by reason

    def __post_init__(self):
        self.generator = torch.Generator().manual_seed(self.seed)
        self._next_uid = 0

    def __len__(self) -> int:
        return len(self.samples)

    def log_weight(self, sample: Sample, step: int) -> float:
        """Logarithm of the drawing weight of `sample` at optimizer step `step`."""
        log_weight = self.priority_exponent * math.log(abs(sample.advantage))
        return log_weight if self.age_decay is None else log_weight - (step - sample.step) / self.age_decay

    def extend(self, samples: Iterable[Sample]) -> list[int]:
        """
        Keep samples, evicting those of lowest weight beyond the capacity (of equal weights, the oldest); returns their
        uids. A sample of too low a weight may already be evicted again.
        """
        samples = list(samples)
        for sample in samples:
            assert math.isfinite(sample.advantage) and sample.advantage != 0, "carries no gradient"
            sample.uid, self._next_uid = self._next_uid, self._next_uid + 1
            self.samples[sample.uid] = sample
        self._shrink()
        return [sample.uid for sample in samples]

    def set_behaviour_logps(self, uid: int, logps: torch.Tensor) -> None:
        """Complete a sample, if it still waits for them, with the log-probabilities (`(C,)`, nats) of its policy."""
        sample = self.samples.get(uid)
        if sample is not None and not sample.is_ready:
            logps = logps[: len(sample.tokens["completion_ids"])]
            sample.tokens[BEHAVIOUR_LOGPS] = logps.detach().to("cpu", torch.float32, copy=True)

    def num_available(self, step: int) -> int:
        """How many samples can be drawn at optimizer step `step`, after dropping those past their limits."""
        self._expire(step)
        return sum(sample.is_ready for sample in self.samples.values())

    def draw(self, num_samples: int, step: int) -> list[Sample]:
        """Draw up to `num_samples` samples without replacement, `p ∝ weight`, and count one use of each."""
        self._expire(step)
        ready = [sample for sample in self.samples.values() if sample.is_ready]
        if min(num_samples, len(ready)) <= 0:
            return []
        # Sequential drawing without replacement, done at once by perturbing the log-weights with Gumbel noise and
        # taking the largest (Efraimidis & Spirakis, 2006), which cannot underflow however old the samples are.
        log_weights = torch.tensor([self.log_weight(sample, step) for sample in ready], dtype=torch.float64)
        exponential = torch.empty_like(log_weights).exponential_(generator=self.generator)
        order = torch.argsort(log_weights - exponential.log(), descending=True).tolist()
        drawn = self._take([ready[i] for i in order], num_samples)
        for sample in drawn:
            sample.uses += 1
        return drawn

    def _take(self, ordered: list[Sample], num_samples: int) -> list[Sample]:
        """The first samples; with `balance` the first of the sign that the sum of the advantages taken lacks."""
        if not self.balance:
            return ordered[:num_samples]
        positive, negative = ([s for s in ordered[::-1] if (s.advantage > 0) == sign] for sign in (True, False))
        taken: list[Sample] = []
        total = 0.0
        while len(taken) < min(num_samples, len(ordered)):
            side = positive if total <= 0 and positive or not negative else negative
            taken.append(side.pop())
            total += taken[-1].advantage
        return taken

    def remove(self, uid: int, reason: str) -> None:
        """Drop a sample, counting it under `reason`."""
        del self.samples[uid]
        self.evicted[reason] += 1

    def _expire(self, step: int) -> None:
        for uid, sample in list(self.samples.items()):
            if self.max_age is not None and step - sample.step > self.max_age:
                self.remove(uid, "age")
            elif self.max_uses is not None and sample.uses >= self.max_uses:
                self.remove(uid, "uses")
            elif sample.reward_version not in (None, self.reward_version):
                self.remove(uid, "rewards")

    def _shrink(self) -> None:
        # Ageing scales all weights alike, so the order of two samples does not depend on the step it is taken at.
        order = sorted(self.samples.values(), key=lambda sample: (self.log_weight(sample, 0), sample.uid))
        for uid in self.samples.keys() - {sample.uid for sample in self._take(order[::-1], self.capacity)}:
            self.remove(uid, "capacity")

    def metrics(self, step: int) -> dict[str, float]:
        """Size, bytes, and sum and maximum of the ages (optimizer steps) of what is held at `step`."""
        ages = [step - sample.step for sample in self.samples.values()]
        return {
            "size": len(ages),
            "bytes": sum(tensor.nbytes for sample in self.samples.values() for tensor in sample.tokens.values()),
            "age_sum": sum(ages),
            "age_max": max(ages, default=0),
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that later draws depend on, but samples that no forward pass will complete after a resume."""
        ready = [sample for sample in self.samples.values() if sample.is_ready]
        return {"samples": ready, "generator": self.generator.get_state(), "next_uid": self._next_uid}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the content by `state`. Limits stay as configured here, so a smaller capacity evicts at once."""
        self.samples = {sample.uid: sample for sample in state["samples"]}
        self.generator.set_state(state["generator"])
        self._next_uid = state["next_uid"]
        self._shrink()
