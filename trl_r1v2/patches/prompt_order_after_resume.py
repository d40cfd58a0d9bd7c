# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The order of prompts after a resume.

TRL's `RepeatSampler` shuffles anew in every epoch by a generator of its own, which is no part of a checkpoint and has
no `set_epoch`. A run that resumes in a later epoch goes through the prompts in the order of the first: some come
twice, some never.

Covers map-style training sets of [`~trl.GRPOTrainer`]. Can go when `RepeatSampler` knows its epoch.
"""

from collections.abc import Callable, Iterator

import torch
from trl.trainer.utils import RepeatSampler


class EpochRepeatSampler(RepeatSampler):
    """
    The [`~trl.trainer.utils.RepeatSampler`] `sampler`, whose order depends on the `epoch` (a function: epochs finished
    so far) instead of how often it was iterated. In a run without interruption that is the same order.
    """

    def __init__(self, sampler: RepeatSampler, epoch: Callable[[], int]):
        super().__init__(
            sampler.data_source,
            sampler.mini_repeat_count,
            sampler.batch_size,
            sampler.repeat_count,
            sampler.shuffle,
            sampler.seed,
        )
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        if self.shuffle:
            self.generator.manual_seed(self.seed)
            for _ in range(self.epoch()):
                torch.randperm(self.num_samples, generator=self.generator)
        return super().__iter__()


class PromptOrderAfterResumeMixin:
    """For classes on [`~trl.GRPOTrainer`]: a resumed run visits the prompts that the uninterrupted one would have."""

    def _get_train_sampler(self, dataset=None):
        return EpochRepeatSampler(super()._get_train_sampler(dataset), lambda: int(self.state.epoch or 0))
