# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Scoring rollouts with TRL reward functions outside a trainer. Functions are called with what `GRPOTrainer` would pass,
and as it calls them: the asynchronous ones together. Reward models given as `nn.Module` are not covered.
"""

import asyncio
import contextlib
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from datasets import Dataset
from transformers import TrainerState
from trl.data_utils import is_conversational

from .fingerprints import content_fingerprint
from .prompts import fill_images, read_example
from .rollouts import Rollout


def score_rollouts(
    rollouts: Sequence[Rollout],
    dataset: Dataset,
    functions: Mapping[str, Callable],
    *,
    batch_size: int = 64,
) -> Iterator[list[dict[str, Any]]]:
    """
    Calls every reward function on every rollout.

    The functions get `prompts` (with their images inside where the dataset has images), `completions`,
    `completion_ids`, every other column of the dataset, a fresh `trainer_state` (step 0), and `log_extra` and
    `log_metric`, whose input is not kept.

    Args:
        rollouts (`Sequence[Rollout]`), dataset ([`~datasets.Dataset`]): Rollouts, those of a prompt next to each
            other, and the dataset that their rows refer to.
        functions (`Mapping[str, Callable]`): Reward functions by name, which the scores are kept under.
        batch_size (`int`, *optional*, defaults to `64`): Rollouts scored at once; those of a prompt are never split.

    Yields:
        `list[dict[str, Any]]`: For each batch, records with `row`, `sample`, a digest of the `response`, and `scores`
            by name; a score is `None` where the function returned `None` or NaN.

    Raises:
        `ValueError`: A function returns the wrong number of scores or an infinite one. An error inside a function
            names the function and the rows.
    """
    batches = [[]]
    for _, group in itertools.groupby(rollouts, key=lambda rollout: rollout.row):
        group = list(group)
        if batches[-1] and len(batches[-1]) + len(group) > batch_size:
            batches.append([])
        batches[-1].extend(group)
    for batch in filter(None, batches):
        scores = _call(functions, batch, _reward_inputs(batch, dataset))
        yield [
            {
                "row": rollout.row,
                "sample": rollout.sample,
                "response": content_fingerprint(rollout.text),
                "scores": {path: values[index] for path, values in scores.items()},
            }
            for index, rollout in enumerate(batch)
        ]


def total_score(scores: Mapping[str, float | None], weights: Mapping[str, float]) -> float | None:
    """
    Weighted sum of the scores that are there, as `GRPOTrainer` forms it; `None` where no weighted function gave one.
    Scores without a weight are ignored.
    """
    parts = [weight * scores[path] for path, weight in weights.items() if scores[path] is not None]
    return math.fsum(parts) if parts else None


def _reward_inputs(batch: Sequence[Rollout], dataset: Dataset) -> dict[str, Any]:
    examples = {row: read_example(dataset, row) for row in sorted({rollout.row for rollout in batch})}
    conversational = is_conversational({"prompt": examples[batch[0].row]["prompt"]})
    prompts = {row: example["prompt"] for row, example in examples.items()}
    if conversational and {"images", "image"} & set(dataset.column_names):
        prompts = {row: fill_images(example, row) for row, example in examples.items()}
    columns = [name for name in dataset.column_names if name not in ("prompt", "completion", "completion_ids")]
    return {
        **{name: [examples[rollout.row][name] for rollout in batch] for name in columns},
        "prompts": [prompts[rollout.row] for rollout in batch],
        "completions": [
            [{"role": "assistant", "content": rollout.text}] if conversational else rollout.text for rollout in batch
        ],
        "completion_ids": [rollout.completion_ids for rollout in batch],
        "trainer_state": TrainerState(),
        "log_extra": lambda column, values: None,
        "log_metric": lambda name, value: None,
    }


def _call(
    functions: Mapping[str, Callable], batch: Sequence[Rollout], inputs: dict[str, Any]
) -> dict[str, list[float | None]]:
    values, awaited = {}, {}
    for path, function in functions.items():
        with _naming(path, batch):
            found = function(**inputs)
            if inspect.isawaitable(found):
                awaited[path] = found
            else:
                values[path] = list(found)

    async def wait_for(path: str) -> None:
        with _naming(path, batch):
            values[path] = list(await awaited[path])

    async def wait_for_all() -> None:
        await asyncio.gather(*map(wait_for, awaited))

    if awaited:
        asyncio.run(wait_for_all())
    return {path: _checked(path, batch, values[path]) for path in functions}


@contextlib.contextmanager
def _naming(path: str, batch: Sequence[Rollout]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        rows = sorted({rollout.row for rollout in batch})
        error.add_note(f"raised by reward function {path} on rows {rows}; what was scored before is kept")
        raise


def _checked(path: str, batch: Sequence[Rollout], values: list) -> list[float | None]:
    if len(values) != len(batch):
        raise ValueError(f"reward function {path} returned {len(values)} scores for {len(batch)} responses")
    scores = []
    for rollout, value in zip(batch, values, strict=True):
        score = None if value is None or math.isnan(value) else float(value)
        if score is not None and math.isinf(score):
            raise ValueError(
                f"reward function {path} returned {score} for sample {rollout.sample} of row {rollout.row}: return "
                "a finite number, or None for what cannot be scored"
            )
        scores.append(score)
    return scores
