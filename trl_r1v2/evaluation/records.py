# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Scored samples: one record a response, and the figures that follow from them.

Covers scoring by TRL reward functions, the parquet file, and rates by task. Does not cover sampling
(`trl_r1v2.sampling`) nor the mathematics of a rate (`metrics.py`).
"""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..rewards.answers import final_answer, prompt_opens_think
from ..rewards.comparison import choice_letter
from .metrics import estimate_rate, majority_score, pass_at_k


if TYPE_CHECKING:
    from datasets import Dataset

    from ..sampling import Rollout

GREEDY, SAMPLED = "greedy", "sampled"
ALL_TASKS = "all"


@dataclass(frozen=True)
class Record:
    """
    One scored response.

    Args:
        row (`int`): Row of the dataset.
        mode (`str`): `"greedy"` or `"sampled"`.
        sample (`int`): Number of the response among those of its row and mode.
        task (`str` or `None`): Task of the row, if the dataset has that column.
        text (`str`): Response.
        accuracy (`float` or `None`): Score of the answer in [0, 1]; `None` when no rule could judge it.
        format (`float`): Score of the form in [0, 1].
        hallucinated (`bool` or `None`): Whether the response claims something that the image does not hold; `None`
            where that is not measured.
        num_tokens (`int`): Generated tokens.
        finished (`bool`): Whether the response ended by itself.
        answer (`str`, *optional*): Final answer, written alike where it is the same; `None` where there is none.
    """

    row: int
    mode: str
    sample: int
    task: str | None
    text: str
    accuracy: float | None
    format: float
    hallucinated: bool | None
    num_tokens: int
    finished: bool
    answer: str | None = None


@dataclass(frozen=True)
class Scorers:
    """
    What responses are scored by.

    Args:
        accuracy (`Callable`): TRL reward function of the answer; values in [0, 1] or `None`.
        format (`Callable`): TRL reward function of the form; values in [0, 1].
        unsupported (`Callable`, *optional*): Maps a response and the row's `unsupported_column` to what the response
            claims without support.
        unsupported_column (`str`, *optional*): Column with what the images hold.
        think_open (`bool`, *optional*): Whether prompts open `<think>`; `None` looks at them.
    """

    accuracy: Callable
    format: Callable
    unsupported: Callable | None = None
    unsupported_column: str | None = None
    think_open: bool | None = None


def score_rollouts(
    rollouts: Sequence["Rollout"], dataset: "Dataset", scorers: Scorers, mode: str, progress: bool = True
) -> list[Record]:
    """
    Score responses to rows of `dataset`, whose images are not passed to reward functions, one record each in the same
    order.
    """
    from tqdm.auto import tqdm

    from ..sampling.prompts import count_images
    from ..sampling.scoring import score_rollouts as rewards_of

    with_images, images = dataset, {"image", "images"} & set(dataset.column_names)
    dataset, records = dataset.remove_columns(sorted(images)), []
    functions = {"accuracy": scorers.accuracy, "format": scorers.format}
    scored = itertools.chain.from_iterable(rewards_of(rollouts, dataset, functions))
    bar = tqdm(scored, total=len(rollouts), desc=f"scoring {mode}", unit="response", disable=not progress)
    for rollout, found in zip(rollouts, bar, strict=True):
        row, accuracy = dataset[rollout.row], found["scores"]["accuracy"]
        is_open = prompt_opens_think(row["prompt"]) if scorers.think_open is None else scorers.think_open
        answer = final_answer(rollout.text, is_open)
        hallucinated = None
        if scorers.unsupported is not None and count_images(with_images, rollout.row) > 0:
            hallucinated = bool(scorers.unsupported(rollout.text, row[scorers.unsupported_column]))
        records.append(
            Record(
                row=rollout.row,
                mode=mode,
                sample=rollout.sample,
                task=None if row.get("task") is None else str(row["task"]),
                text=rollout.text,
                accuracy=accuracy,
                format=found["scores"]["format"],
                hallucinated=hallucinated,
                num_tokens=rollout.num_tokens,
                finished=rollout.finished,
                answer=None if answer is None else counted_answer(answer.text),
            )
        )
    return records


def counted_answer(text: str) -> str:
    """An answer in the form in which equal ones are counted: a choice's letter, a number by value, else the text."""
    letter, written = choice_letter(text), text.strip().strip("$").replace(" ", "").replace(",", "").removesuffix(".")
    is_number = re.fullmatch(r"[-+]?\d{1,30}(\.\d{1,30}|/0*[1-9]\d{0,30})?", written)
    return letter or (str(Fraction(written)) if is_number else written.casefold())


def question_of(prompt: str | list[dict[str, Any]]) -> str:
    """Return the text of a prompt's last user message, or a plain prompt itself."""
    if isinstance(prompt, str):
        return prompt
    content = next(message["content"] for message in reversed(prompt) if message["role"] == "user")
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part.get("type") == "text")


def write_records(records: Sequence[Record], path: Path) -> None:
    """Write records as parquet, one row a response."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("row", pa.int64()), ("mode", pa.string()), ("sample", pa.int64()), ("task", pa.string()),
            ("text", pa.string()), ("accuracy", pa.float64()), ("format", pa.float64()),
            ("hallucinated", pa.bool_()), ("num_tokens", pa.int64()), ("finished", pa.bool_()),
            ("answer", pa.string()),
        ]
    )  # fmt: skip
    pq.write_table(pa.Table.from_pylist([asdict(record) for record in records], schema=schema), path)


def read_records(path: Path) -> list[Record]:
    """Read what [`write_records`] wrote."""
    import pyarrow.parquet as pq

    return [Record(**row) for row in pq.read_table(path).to_pylist()]


def row_scores(records: Sequence[Record], field: str) -> dict[int, list[float]]:
    """
    The scores of each row in records of one mode, ordered by sample: `field` is `"accuracy"`, `"format"`,
    `"hallucinated"` or `"finished"`. A row none of whose samples could be judged is left out; in the others, a sample
    that could not be judged counts as 0. For `hallucinated`, rows where it is not measured are left out.
    """
    by_row: dict[int, list[Any]] = {}
    for record in sorted(records, key=lambda record: (record.row, record.sample)):
        by_row.setdefault(record.row, []).append(vars(record)[field])
    return {
        row: [0.0 if score is None else float(score) for score in scores]
        for row, scores in by_row.items()
        if any(score is not None for score in scores)
    }


def summarize(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """
    All figures of an evaluation from the records of both modes, overall and for each task.

    Returns:
        `dict`: task (`"all"` first) → mode → `accuracy`, `format_rate`, `hallucination_rate`, `finished_rate` (each an
            [`~trl_r1v2.evaluation.metrics.Estimate`] as a dict, or `None` where nothing was judged), `runs` (accuracy
            of each sampled run), `num_rows`, `num_unjudged` (responses), `mean_tokens` (a response); for several
            samples also `pass_at_k` (k → estimate) and `majority`.
    """
    tasks = sorted({record.task for record in records if record.task is not None})
    groups = {ALL_TASKS: list(records)} | {task: [r for r in records if r.task == task] for task in tasks}
    return {
        task: {
            mode: _summarize_mode([record for record in members if record.mode == mode])
            for mode in (GREEDY, SAMPLED)
            if any(record.mode == mode for record in members)
        }
        for task, members in groups.items()
    }


def _summarize_mode(records: list[Record]) -> dict[str, Any]:
    scores = {field: row_scores(records, field) for field in ("accuracy", "format", "hallucinated", "finished")}
    rates = {
        name: asdict(estimate_rate(list(scores[field].values()))) if scores[field] else None
        for name, field in {
            "accuracy": "accuracy",
            "format_rate": "format",
            "hallucination_rate": "hallucinated",
            "finished_rate": "finished",
        }.items()
    }
    judged = np.array(list(scores["accuracy"].values()))
    return {
        **rates,
        "runs": judged.mean(axis=0).tolist() if judged.size else [],
        "num_rows": len({record.row for record in records}),
        "num_unjudged": sum(record.accuracy is None for record in records),
        "mean_tokens": float(np.mean([record.num_tokens for record in records])),
        **(_votes(records, scores["accuracy"]) if judged.size and judged.shape[1] > 1 else {}),
    }


def _votes(records: list[Record], accuracy: dict[int, list[float]]) -> dict[str, Any]:
    """Pass@k for powers of two up to all samples, and the majority."""
    values = np.array(list(accuracy.values()))
    num_samples = values.shape[1]
    sizes = [k for k in (2**power for power in range(num_samples.bit_length())) if k < num_samples] + [num_samples]
    answers: dict[int, list[str | None]] = {}
    for record in sorted(records, key=lambda record: (record.row, record.sample)):
        answers.setdefault(record.row, []).append(record.answer)
    majority = [majority_score(answers[row], scores) for row, scores in accuracy.items()]
    return {
        "pass_at_k": {
            str(k): asdict(estimate_rate(pass_at_k(values, k)[:, None], draws=num_samples / k)) for k in sizes
        },
        "majority": asdict(estimate_rate(np.array(majority)[:, None])),
    }
