# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Which prompts are rolled out next: TRL's order, resumable in any epoch, and optionally fewer visits to prompts whose
groups keep dying.

The skipping is ours; the paper filters prompts once, before training (`prompt_pool.py`).
"""

from collections.abc import Iterator, Sized
from typing import Any

import torch
from datasets import Dataset
from trl.trainer.utils import RepeatSampler


# Column that carries a row's number from the data loader to the buffer; taken out again before TRL sees the row.
ROW_NUMBER = "_ssb_row"


class RowNumberedDataset(torch.utils.data.Dataset):
    """A map-style dataset whose rows also say which row they are."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.dataset[index], ROW_NUMBER: index}

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        rows = self.dataset.__getitems__(indices)
        return [{**row, ROW_NUMBER: index} for row, index in zip(rows, indices, strict=True)]


class PromptHistory:
    r"""
    How often in a row each prompt's group has died.

    A prompt that died in its last \\( d \\) visits is skipped with probability \\( p_{max} \cdot d / (d + 1) \\),
    which never reaches one: what the policy could not do yesterday it may learn tomorrow.

    Args:
        num_prompts (`int`): Rows of the training set.
        max_skip_probability (`float`): \\( p_{max} \\), in [0, 1).
    """

    def __init__(self, num_prompts: int, max_skip_probability: float):
        self.max_skip_probability = max_skip_probability
        self.deaths = torch.zeros(num_prompts, dtype=torch.int32)

    def observe(self, rows: torch.Tensor, is_live: torch.Tensor) -> None:
        """Count outcomes; `rows` and `is_live` of shape `(num_groups,)`, of all processes and in the same order."""
        for row, live in zip(rows.tolist(), is_live.tolist(), strict=True):
            self.deaths[row] = 0 if live else self.deaths[row] + 1

    def skip_probability(self, row: int) -> float:
        deaths = self.deaths[row].item()
        return self.max_skip_probability * deaths / (deaths + 1)


class PromptSampler(RepeatSampler):
    """
    [`~trl.trainer.utils.RepeatSampler`] with a state, so that a resumed run visits the prompts the uninterrupted one
    would have, in later epochs too (the parent starts over with the first epoch's order).

    With a `history` that skips, it decides chunk by chunk from outcomes seen so far and starts the next permutation
    when one is used up, so an epoch keeps its length. Every process has to be shown the same outcomes.

    Args:
        data_source, mini_repeat_count, batch_size, repeat_count, shuffle, seed: As the parent.
        history ([`PromptHistory`], *optional*): Without one the order is the parent's.
    """

    def __init__(
        self,
        data_source: Sized,
        mini_repeat_count: int,
        batch_size: int = 1,
        repeat_count: int = 1,
        shuffle: bool = True,
        seed: int | None = None,
        history: PromptHistory | None = None,
    ):
        super().__init__(data_source, mini_repeat_count, batch_size, repeat_count, shuffle, seed)
        self.generator = torch.Generator().manual_seed(0 if seed is None else seed)
        self.history = history
        self.num_skipped = 0
        self._epoch_start = self.generator.get_state()
        self._decided: list[int] = []  # prompts of this epoch, in order
        self._to_repeat: list[int] = []  # prompts decided before the checkpoint this run resumed from
        self._remaining: list[int] = []  # rest of the current permutation

    def __iter__(self) -> Iterator[int]:
        self._epoch_start = self.generator.get_state()
        if self.history is None:
            yield from super().__iter__()
            return
        to_repeat, self._to_repeat, self._decided = self._to_repeat, [], []
        for start in range(0, self.num_samples // self.batch_size * self.batch_size, self.batch_size):
            chunk = to_repeat[start : start + self.batch_size] or self._decide_chunk()
            self._decided += chunk
            for _ in range(self.repeat_count):
                for index in chunk:
                    for _ in range(self.mini_repeat_count):
                        yield index

    def _decide_chunk(self) -> list[int]:
        chunk: list[int] = []
        while len(chunk) < self.batch_size:
            if not self._remaining:
                order = torch.randperm(self.num_samples, generator=self.generator) if self.shuffle else None
                self._remaining = list(range(self.num_samples)) if order is None else order.tolist()
            row = self._remaining.pop(0)
            probability = self.history.skip_probability(row)
            if probability > 0 and torch.rand((), generator=self.generator).item() < probability:
                self.num_skipped += 1
            else:
                chunk.append(row)
        return chunk

    def state_dict(self, is_epoch_boundary: bool) -> dict[str, torch.Tensor]:
        """
        What the order of the rest of training depends on.

        Args:
            is_epoch_boundary (`bool`): Whether training has just finished an epoch: a resumed run then starts the
                next one, and otherwise goes through the present one again up to where it stopped.
        """
        state = {
            "epoch_start": self._epoch_start,
            "decided": torch.tensor([] if is_epoch_boundary else self._decided, dtype=torch.int64),
            "remaining": torch.tensor(self._remaining, dtype=torch.int64),
            "generator": self.generator.get_state(),
        }
        if is_epoch_boundary:
            state["epoch_start"] = state["generator"].clone()  # safetensors refuses shared memory
        if self.history is not None:
            state["deaths"] = self.history.deaths.clone()
        return state

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """
        Go on where `state` was taken.

        Raises:
            ValueError: If only one of the state and this run skips prompts.
        """
        if ("deaths" in state) != (self.history is not None):
            raise ValueError(
                "The checkpoint was written with another `ssb_skip_probability` (only one of the two runs skips "
                "prompts). Restore the setting, or use `ssb_resume='empty'`."
            )
        if self.history is None:
            self.generator.set_state(state["epoch_start"])
            return
        self.history.deaths = state["deaths"].clone()
        self._to_repeat = state["decided"].tolist()
        self._remaining = state["remaining"].tolist()
        self.generator.set_state(state["generator"])
