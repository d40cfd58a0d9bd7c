# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.

"""
Scoring rollouts with TRL reward functions outside a trainer.

Functions are called with what `GRPOTrainer` would pass; finding them by their names is `cli.loading`. Reward models given
as `nn.Module` are not covered: wrap them in a function. What a score means is the business of `ssb_grpo.prompt_pool` and
`mpo.pairs`.
"""

import asyncio
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from datasets import Dataset
from tqdm.auto import tqdm
from transformers import TrainerState
from trl.data_utils import is_conversational

from .prompts import fill_images, read_example
from .rollouts import ChunkStore, Rollout


def score_rollouts(
    rollouts: Sequence[Rollout],
    dataset: Dataset,
    functions: Mapping[str, Callable],
    *,
    batch_size: int = 64,
    progress: bool = True,
) -> Iterator[list[dict[str, Any]]]:
    """
    Calls every reward function on every rollout.

    The functions get `prompts` (with their images inside where the dataset has images), `completions`,
    `completion_ids`, every other column of the dataset, a fresh `trainer_state` (step 0), and `log_extra` and
    `log_metric`, whose input is not kept.

    Args:
        rollouts (`Sequence[Rollout]`):
            Rollouts, those of a prompt next to each other.
        dataset ([`~datasets.Dataset`]):
            Dataset that the rollouts' rows refer to.
        functions (`Mapping[str, Callable]`):
            Reward functions by name, which the scores are kept under.
        batch_size (`int`, *optional*, defaults to `64`):
            Rollouts scored at once; the rollouts of a prompt are never split.
        progress (`bool`, *optional*, defaults to `True`):
            Whether to show a progress bar.

    Yields:
        `list[dict[str, Any]]`: For each batch, records with `row`, `sample` and `scores` by path; a score is `None`
        where the function returned `None` or NaN.

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
    with tqdm(total=len(rollouts), desc="scoring", unit="response", disable=not progress) as bar:
        for batch in filter(None, batches):
            inputs = _reward_inputs(batch, dataset)
            scores = {path: _call(path, function, batch, inputs) for path, function in functions.items()}
            yield [
                {
                    "row": rollout.row,
                    "sample": rollout.sample,
                    "scores": {path: values[index] for path, values in scores.items()},
                }
                for index, rollout in enumerate(batch)
            ]
            bar.update(len(batch))


def score_to_store(
    store: ChunkStore, rollouts: Sequence[Rollout], dataset: Dataset, functions: Mapping[str, Callable], **settings
) -> None:
    """
    Scores the rollouts whose rows a store lacks, batch by batch.

    Args:
        store ([`ChunkStore`]):
            Store of this process.
        rollouts, dataset, functions, settings:
            As for [`score_rollouts`].
    """
    remaining = set(store.remaining(rollout.row for rollout in rollouts))
    todo = [rollout for rollout in rollouts if rollout.row in remaining]
    for records in score_rollouts(todo, dataset, functions, **settings):
        store.append(records)


def total_score(scores: Mapping[str, float | None], weights: Mapping[str, float]) -> float | None:
    """
    Weighted sum of the scores that are there, as `GRPOTrainer` forms it.

    Args:
        scores (`Mapping[str, float | None]`):
            Scores by path; more than `weights` has are ignored.
        weights (`Mapping[str, float]`):
            Weights by path.

    Returns:
        `float` or `None`: `None` where no weighted function gave a score.
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


def _call(path: str, function: Callable, batch: Sequence[Rollout], inputs: dict[str, Any]) -> list[float | None]:
    rows = sorted({rollout.row for rollout in batch})
    try:
        values = function(**inputs)
        if inspect.isawaitable(values):
            values = asyncio.run(_wait_for(values))
        values = list(values)
    except Exception as error:
        error.add_note(f"raised by reward function {path} on rows {rows}; what was scored before is kept")
        raise
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


async def _wait_for(awaitable):
    return await awaitable
