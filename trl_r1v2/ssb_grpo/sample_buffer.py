# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The Selective Sample Buffer: what is kept, drawn and evicted, and its state.

Pure: plain tensors, no trainer, no model, no collectives. How a batch becomes samples is `rows.py`, how files are
written is `state.py`, and when any of it happens is `ssb_grpo_trainer.py`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch


BEHAVIOUR_LOGPS = "old_per_token_logps"
# Why a sample can leave the buffer: a limit of the buffer, or images that could no longer be held.
EVICTION_REASONS = ("capacity", "bytes", "age", "uses", "pixels")


@dataclass
class Sample:
    """
    One completion that can be trained on again.

    Args:
        tokens (`dict[str, torch.Tensor]`):
            Unpadded CPU tensors under TRL's names: `prompt_ids` of shape `(P,)`, `completion_ids` of shape `(C,)`,
            `old_per_token_logps` (behaviour log-probabilities, nats) of shape `(C,)` once they are known, and whatever
            else the loss reads per token (`ref_per_token_logps`, `tool_mask`, `importance_sampling_ratio`, …).
        advantage (`float`):
            Group-normalised reward at the time of sampling, dimensionless (eq. 6). Never 0.
        step (`int`):
            Optimizer step at which the completion was sampled.
        source (`int` or `str` or `None`):
            Where the images come from: a row number of the training set, the content key of stored pixels, or `None`
            for a sample without images.
        num_images (`int`):
            Number of images of the prompt.
        uses (`int`):
            How often the sample has been replayed.
        uid (`int`):
            Assigned by the buffer, increasing with age of insertion.
    """

    tokens: dict[str, torch.Tensor]
    advantage: float
    step: int
    source: int | str | None = None
    num_images: int = 0
    uses: int = 0
    uid: int = -1

    @property
    def is_ready(self) -> bool:
        """Whether the behaviour log-probabilities are known, without which the sample must not be replayed."""
        return BEHAVIOUR_LOGPS in self.tokens

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensors, with room for float32 behaviour log-probabilities that are still to come."""
        held = sum(tensor.numel() * tensor.element_size() for tensor in self.tokens.values())
        return held if self.is_ready else held + 4 * self.tokens["completion_ids"].numel()


@dataclass
class SelectiveSampleBuffer:
    r"""
    Keeps informative samples and draws them back, weighted by how much they can teach (R1V2, section 3.2).

    A sample's weight is \\( |A|^{\alpha} \cdot \exp(-\text{age} / \tau) \\). The paper states weights by \\( |A| \\)
    (`priority_exponent=1`, `age_decay=None`); the exponent, the age decay and all limits are ours.

    Args:
        capacity (`int`):
            Largest number of samples held.
        priority_exponent (`float`, *optional*, defaults to `1.0`):
            \\( \alpha \\). `0` draws uniformly.
        age_decay (`float`, *optional*):
            \\( \tau \\) in optimizer steps. `None` ignores age.
        max_age (`int`, *optional*):
            Samples older than this many optimizer steps are dropped.
        max_uses (`int`, *optional*):
            Samples replayed this often are dropped.
        max_bytes (`int`, *optional*):
            Largest number of bytes held in the samples' tensors.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the buffer's own generator: drawing never touches the global random state.

    Raises:
        ValueError: If a limit is not positive.
    """

    capacity: int
    priority_exponent: float = 1.0
    age_decay: float | None = None
    max_age: int | None = None
    max_uses: int | None = None
    max_bytes: int | None = None
    seed: int = 0
    samples: dict[int, Sample] = field(default_factory=dict, repr=False)
    num_evicted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(EVICTION_REASONS, 0), repr=False)

    def __post_init__(self):
        for name in ("capacity", "age_decay", "max_age", "max_uses", "max_bytes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"`{name}` is {value} but must be positive; leave it unset for no limit.")
        self.generator = torch.Generator().manual_seed(self.seed)
        self.num_bytes = 0
        self._next_uid = 0

    def __len__(self) -> int:
        return len(self.samples)

    def log_weight(self, sample: Sample, step: int) -> float:
        """Logarithm of the drawing weight of `sample` at optimizer step `step`."""
        log_weight = self.priority_exponent * math.log(abs(sample.advantage))
        if self.age_decay is not None:
            log_weight -= (step - sample.step) / self.age_decay
        return log_weight

    def extend(self, samples: Iterable[Sample]) -> list[int]:
        """
        Keep `samples`, evicting those of lowest weight beyond the limits (of equal weights, the oldest).

        Returns:
            `list[int]`: The samples' uids. A sample of too low a weight may already be evicted again.

        Raises:
            ValueError: If an advantage is zero or not finite: such a sample carries no gradient.
        """
        uids = []
        for sample in samples:
            if not math.isfinite(sample.advantage) or sample.advantage == 0.0:
                raise ValueError(f"A sample with advantage {sample.advantage} carries no gradient: not buffered.")
            sample.uid = self._next_uid
            self._next_uid += 1
            self.samples[sample.uid] = sample
            self.num_bytes += sample.num_bytes
            uids.append(sample.uid)
        self._shrink()
        return uids

    def set_behaviour_logps(self, uid: int, logps: torch.Tensor) -> bool:
        """
        Complete a sample with the log-probabilities of the policy that produced it.

        Args:
            uid (`int`): As returned by [`extend`].
            logps (`torch.Tensor` of shape `(C,)`): Per-token log-probabilities, nats.

        Returns:
            `bool`: Whether the sample was still held and had been waiting for them.

        Raises:
            ValueError: If the length differs from that of the completion.
        """
        sample = self.samples.get(uid)
        if sample is None or sample.is_ready:
            return False
        if logps.shape != sample.tokens["completion_ids"].shape:
            raise ValueError(
                f"Sample {uid} has {len(sample.tokens['completion_ids'])} completion tokens but {tuple(logps.shape)} "
                "log-probabilities were given."
            )
        self.num_bytes -= sample.num_bytes
        sample.tokens[BEHAVIOUR_LOGPS] = logps.detach().to("cpu", torch.float32, copy=True)
        self.num_bytes += sample.num_bytes
        return True

    def num_available(self, step: int) -> int:
        """How many samples can be drawn at optimizer step `step`, after dropping those past their limits."""
        self._expire(step)
        return sum(sample.is_ready for sample in self.samples.values())

    def draw(self, num_samples: int, step: int) -> list[Sample]:
        """
        Draw up to `num_samples` samples without replacement, `p ∝ weight`, and count one use of each.

        Sequential drawing without replacement is done at once by perturbing the log-weights with Gumbel noise and
        taking the largest (Efraimidis & Spirakis, 2006), which cannot underflow however old the samples are.
        """
        self._expire(step)
        ready = [sample for sample in self.samples.values() if sample.is_ready]
        num_samples = min(num_samples, len(ready))
        if num_samples <= 0:
            return []
        log_weights = torch.tensor([self.log_weight(sample, step) for sample in ready], dtype=torch.float64)
        exponential = torch.empty_like(log_weights).exponential_(generator=self.generator)
        chosen = torch.topk(log_weights - exponential.log(), num_samples).indices.tolist()
        drawn = [ready[i] for i in chosen]
        for sample in drawn:
            sample.uses += 1
        return drawn

    def remove(self, uid: int, reason: str) -> None:
        """Drop a sample, counting it under `reason` in `num_evicted`."""
        self.num_bytes -= self.samples.pop(uid).num_bytes
        self.num_evicted[reason] += 1

    def clear(self) -> None:
        """Drop all samples, without counting them as evicted."""
        self.samples.clear()
        self.num_bytes = 0

    def _expire(self, step: int) -> None:
        for uid, sample in list(self.samples.items()):
            if self.max_age is not None and step - sample.step > self.max_age:
                self.remove(uid, "age")
            elif self.max_uses is not None and sample.uses >= self.max_uses:
                self.remove(uid, "uses")

    def _shrink(self) -> None:
        def over_bytes() -> bool:
            return self.max_bytes is not None and self.num_bytes > self.max_bytes

        if len(self.samples) <= self.capacity and not over_bytes():
            return
        # Ageing scales all weights alike, so the order of two samples does not depend on the step it is taken at.
        lightest_first = sorted(self.samples.values(), key=lambda sample: (self.log_weight(sample, 0), sample.uid))
        for sample in lightest_first:
            if len(self.samples) > self.capacity:
                self.remove(sample.uid, "capacity")
            elif over_bytes():
                self.remove(sample.uid, "bytes")
            else:
                break

    def metrics(self, step: int) -> dict[str, float]:
        """Size, bytes, ages (optimizer steps) and use counts of what is held at optimizer step `step`."""
        ages = [step - sample.step for sample in self.samples.values()]
        uses = [sample.uses for sample in self.samples.values()]
        count = max(len(ages), 1)
        return {
            "size": float(len(ages)),
            "bytes": float(self.num_bytes),
            "age_mean": sum(ages) / count,
            "age_max": float(max(ages, default=0)),
            "uses_mean": sum(uses) / count,
            "uses_max": float(max(uses, default=0)),
        }

    def state_dict(self) -> dict[str, Any]:
        """
        Everything that later draws depend on. Samples that still wait for their behaviour log-probabilities are left
        out: the forward pass that would have completed them does not happen again after a resume.
        """
        return {
            "samples": [sample for sample in self.samples.values() if sample.is_ready],
            "generator": self.generator.get_state(),
            "next_uid": self._next_uid,
            "num_evicted": dict(self.num_evicted),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Replace the content by `state`. Limits stay as configured here, so a smaller capacity evicts at once.

        Raises:
            ValueError: If a field is missing, unexpected, or a sample lacks its behaviour log-probabilities.
        """
        expected = {"samples", "generator", "next_uid", "num_evicted"}
        if set(state) != expected:
            raise ValueError(f"Buffer state differs in its fields: {sorted(set(state) ^ expected)}.")
        for sample in state["samples"]:
            if not sample.is_ready:
                raise ValueError(f"Sample {sample.uid} in the buffer state has no behaviour log-probabilities.")
        self.samples = {sample.uid: sample for sample in state["samples"]}
        self.num_bytes = sum(sample.num_bytes for sample in self.samples.values())
        self.num_evicted = dict(state["num_evicted"])
        self.generator.set_state(state["generator"])
        self._next_uid = state["next_uid"]
        self._shrink()
