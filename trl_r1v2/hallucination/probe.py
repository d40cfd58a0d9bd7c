# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
A probe: responses of a model to a fixed set of rows, what the signals say of each, and the figures of all. One call
measures some of the rows on one process; figures come from the records of all of them, so they do not depend on how
many processes shared the rows. When to probe and what follows from it is `monitor.py`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset

from ..rewards.answers import message_text, prompt_opens_think
from ..rewards.columns import reward_columns
from ..sampling.generation import sample_responses
from ..sampling.prompts import count_images, read_prompt, tokenizer_of
from ..sampling.rollouts import Rollout
from ..sampling.scoring import score_rollouts
from .grounding import image_partners, prompt_with_other_images, response_statistics
from .monitor_config import MonitorConfig
from .signals import (
    blind_phrase_figures,
    blind_phrases,
    critical_figures,
    critical_positions,
    disagreement_figures,
    grounding_figures,
    grounding_gaps,
    named_object_figures,
    object_answer,
    object_probe_figures,
    yes_no,
)


RULE, REWARD = "rule", "reward"
RIGHT_FROM = 0.5


@dataclass(frozen=True)
class ProbeFunctions:
    """What the dotted paths of a [`MonitorConfig`] name."""

    claims: Callable | None = None  # (response, column value) → unsupported claims
    named: Callable | None = None  # (response) → all claims
    rule: Callable | None = None  # reward function that tells right (at least 0.5) from wrong
    reward: Callable | None = None  # reward model as a reward function


@dataclass
class ProbeRecord:
    """One response and what the signals say of it; `None` where a signal does not apply."""

    row: int  # of the probe set
    response: str
    num_tokens: int
    has_image: bool
    blind_phrases: list[str] | None = None
    unsupported: list[str] | None = None  # its claims without support
    named: list | None = None  # all its claims
    grounding_gap: float | None = None  # nats per token
    answer: bool | None = None  # to an object probe, if it is yes or no
    truth: bool | None = None  # the right one
    right: bool | None = None  # verdict of the rule
    reward: float | None = None  # score of the reward model
    entropies: list[float] | None = None  # before each token, nats
    critical: list[int] | None = None  # which of them precede critical words
    flags: list[str] = field(default_factory=list)  # why the response is flagged


class Probe:
    """
    A fixed set of rows and the signals to measure on it.

    Args:
        dataset ([`~datasets.Dataset`]): Rows with a column `prompt`, images in `images` or `image`, and the columns
            that the functions read; the first `monitor_max_rows` are used. A `ValueError` if it is empty, or a column
            or a function that a signal needs is lacking.
        config ([`MonitorConfig`]): What to measure and how.
        functions ([`ProbeFunctions`], *optional*): What the configuration's dotted paths name.
        chat_template_kwargs (`dict[str, Any]`, *optional*): Passed to the chat template.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: MonitorConfig,
        functions: ProbeFunctions | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
    ):
        self.config = config
        self.functions = functions or ProbeFunctions()
        self.dataset = dataset.select(range(min(config.monitor_max_rows, len(dataset))))
        self.chat_template_kwargs = chat_template_kwargs
        self._check()
        has_column = bool({"images", "image"} & set(dataset.column_names))
        self._has_image = [has_column and count_images(self.dataset, row) > 0 for row in range(len(self.dataset))]
        self._partners = image_partners(self.dataset)

    def _check(self):
        if len(self.dataset) == 0:
            raise ValueError("the probe set is empty: name a split with rows.")
        config, functions, signals = self.config, self.functions, self.config.signals
        needed = ["claims"] * ("named_objects" in signals) + ["reward", "rule"] * ("reward_disagreement" in signals)
        missing = [name for name in needed if vars(functions)[name] is None]
        if missing:
            raise ValueError(
                f"the signals {', '.join(signals)} need `ProbeFunctions.{missing[0]}`, which is not given."
            )
        wanted = {"prompt"}
        wanted |= {config.monitor_claims_column} if "named_objects" in signals else set()
        wanted |= {config.monitor_object_column} if "object_probes" in signals else set()
        if "reward_disagreement" in signals:
            wanted |= set(reward_columns([functions.rule, functions.reward]))
        absent, present = sorted(wanted - set(self.dataset.column_names)), ", ".join(self.dataset.column_names)
        if absent:
            raise ValueError(f"the probe set lacks the column {absent[0]!r}; it has {present}.")

    def chunks(self) -> list[list[int]]:
        """Rows that are answered together; the same whatever the number of processes, and so are the responses."""
        rows, size = range(len(self.dataset)), self.config.monitor_batch_size
        return [list(rows[start : start + size]) for start in rows[::size]]

    def measure(self, model, processing_class, chunks: Sequence[Sequence[int]]) -> list[ProbeRecord]:
        """Answer the rows of some of [`~Probe.chunks`] and measure the responses."""
        config, records = self.config, []
        for rows in chunks:
            sampling = (
                {"temperature": config.monitor_temperature} if config.monitor_temperature else {"do_sample": False}
            )
            rollouts = sample_responses(
                model,
                processing_class,
                self.dataset,
                num_samples=1,
                max_new_tokens=config.monitor_max_new_tokens,
                batch_size=config.monitor_batch_size,
                seed=config.monitor_seed,
                rows=rows,
                progress=False,
                chat_template_kwargs=self.chat_template_kwargs,
                **sampling,
            )
            found = [self._read(rollout) for rollout in rollouts]
            self._forward(model, processing_class, rollouts, found)
            self._score(rollouts, found)
            for record in found:
                record.flags = self._flags(record)
            records += found
        return records

    def _read(self, rollout: Rollout) -> ProbeRecord:
        """What the text alone tells."""
        config, signals = self.config, self.config.signals
        has_image = self._has_image[rollout.row]
        record = ProbeRecord(rollout.row, rollout.text, rollout.num_tokens, has_image)
        columns = self.dataset.select_columns(
            [name for name in self.dataset.column_names if name not in ("images", "image")]
        )[rollout.row]
        if "blind_phrases" in signals and has_image:
            record.blind_phrases = blind_phrases(rollout.text)
        if "named_objects" in signals and has_image:
            claims = self.functions.claims(rollout.text, columns[config.monitor_claims_column])
            record.unsupported = [str(claim) for claim in claims]
            if self.functions.named is not None:
                record.named = list(self.functions.named(rollout.text))
        if "object_probes" in signals and has_image:
            value = columns[config.monitor_object_column]
            record.truth = yes_no(None if value is None else str(value))
            if record.truth is not None:
                think_open = config.monitor_think_open
                is_open = prompt_opens_think(columns["prompt"]) if think_open is None else think_open
                record.answer = object_answer(rollout.text, is_open)
        return record

    def _forward(self, model, processing_class, rollouts: Sequence[Rollout], records: Sequence[ProbeRecord]) -> None:
        """What the model's distributions tell."""
        signals, rows = self.config.signals, [rollout.row for rollout in rollouts]
        swapped = [index for index, row in enumerate(rows) if row in self._partners]
        wants_gap = "grounding_gap" in signals and swapped
        if not wants_gap and "critical_tokens" not in signals:
            return
        prompts = {row: read_prompt(self.dataset, row, processing_class) for row in set(rows)}
        ids = [rollout.completion_ids for rollout in rollouts]
        options = {"chat_template_kwargs": self.chat_template_kwargs}
        logps, entropies, mask = response_statistics(
            model, processing_class, [prompts[row] for row in rows], ids, **options
        )
        if "critical_tokens" in signals:
            tokenizer = tokenizer_of(processing_class)
            for record, values, own, tokens in zip(records, entropies, mask, ids, strict=True):
                record.entropies = values[own].tolist()
                record.critical = critical_positions(_pieces(tokenizer, tokens))
        if wants_gap:
            others = {
                row: prompt_with_other_images(self.dataset, row, self._partners[row])
                for row in {rows[index] for index in swapped}
            }
            prompts, their_ids = [others[rows[index]] for index in swapped], [ids[index] for index in swapped]
            without, _, mask_without = response_statistics(model, processing_class, prompts, their_ids, **options)
            width = without.shape[1]
            gaps = grounding_gaps(logps[swapped, -width:].numpy(), without.numpy(), mask_without.numpy())
            for index, gap in zip(swapped, gaps.tolist(), strict=True):
                records[index].grounding_gap = gap

    def _score(self, rollouts: Sequence[Rollout], records: Sequence[ProbeRecord]) -> None:
        """What rule and reward model say."""
        if "reward_disagreement" not in self.config.signals:
            return
        functions = {RULE: self.functions.rule, REWARD: self.functions.reward}
        batches = score_rollouts(rollouts, self.dataset, functions, batch_size=len(rollouts))
        scored = [item["scores"] for batch in batches for item in batch]
        for record, scores in zip(records, scored, strict=True):
            record.right = None if scores[RULE] is None else scores[RULE] >= RIGHT_FROM
            record.reward = scores[REWARD]

    def _flags(self, record: ProbeRecord) -> list[str]:
        threshold = self.config.monitor_reward_threshold
        found = {
            "blind phrase": bool(record.blind_phrases),
            "unsupported claim": bool(record.unsupported),
            "ungrounded": record.grounding_gap is not None and record.grounding_gap < self.config.monitor_min_gap,
            "wrong about an object": record.truth is not None and record.answer != record.truth,
            "rewarded though wrong": None not in (threshold, record.reward)
            and record.right is False
            and record.reward >= threshold,
        }
        return [flag for flag, holds in found.items() if holds]

    def figures(self, records: Sequence[ProbeRecord]) -> dict[str, float]:
        """
        The figures of the records of all processes, ordered by row, under the names they are logged by, without
        prefix; what nothing could be measured on is absent.
        """
        figures = {
            "num_responses": float(len(records)),
            "mean_tokens": float(np.mean([record.num_tokens for record in records])),
            "flagged": float(np.mean([bool(record.flags) for record in records])),
        }
        signals = self.config.signals
        if "blind_phrases" in signals:
            figures |= blind_phrase_figures([record.response for record in records if record.has_image])
        gaps = [record.grounding_gap for record in records if record.grounding_gap is not None]
        figures |= grounding_figures(gaps, self.config.monitor_min_gap)
        claims = [record for record in records if record.unsupported is not None]
        named = None if self.functions.named is None else [record.named for record in claims]
        figures |= named_object_figures([record.unsupported for record in claims], named)
        probed = [record for record in records if record.truth is not None]
        figures |= object_probe_figures([record.answer for record in probed], [record.truth for record in probed])
        rewards, right = [record.reward for record in records], [record.right for record in records]
        figures |= disagreement_figures(rewards, right, self.config.monitor_reward_threshold)
        if "critical_tokens" in signals:
            figures |= critical_figures([record.entropies for record in records], [r.critical for r in records])
        return figures

    def describe(self, record: ProbeRecord) -> dict[str, Any]:
        """A record as a row of the table of flagged responses, with its question."""
        prompt = self.dataset.select_columns("prompt")[record.row]["prompt"]
        question = prompt if isinstance(prompt, str) else message_text(prompt[-1]["content"])
        return {**vars(record), "question": question}


def _pieces(tokenizer, ids: Sequence[int]) -> list[str]:
    """
    The tokens as text that keeps the spaces between them, which decoding one by one loses for some tokenizers.
    Critical words are ASCII; what else there is (dashes and quotation marks in pieces of bytes) ends a word.
    """
    tokens = tokenizer.convert_ids_to_tokens(list(ids))
    readable = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n"})
    return [re.sub(r"[^\x00-\x7f]", "\ufffd", token.translate(readable)) for token in tokens]
