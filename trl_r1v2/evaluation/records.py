# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Scored samples: one record a response, and the figures that follow from them.

Covers scoring by TRL reward functions or by a benchmark's rules, the answers that go to a judge, the parquet file, and
rates by task. Does not cover sampling (`trl_r1v2.sampling`) nor the mathematics of a rate (`metrics.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..rewards.answers import final_answer, gold_text, prompt_opens_think, split_reasoning
from ..rewards.comparison import choice_letter
from .benchmarks import numbers
from .benchmarks.grading import BenchmarkGrader, Grade
from .judge import Case, Judge
from .metrics import estimate_rate, majority_score, pass_at_k


if TYPE_CHECKING:
    from datasets import Dataset

    from ..sampling import Rollout

GREEDY, SAMPLED = "greedy", "sampled"
ALL_TASKS = "all"
_SCORED_AT_ONCE = 512
_IMAGE_COLUMNS = ("image", "images")
# A judge reads the end of a response whose answer is not marked. Ours.
_STATEMENT_CHARS = 2000
RULE, JUDGE, NOBODY = "rule", "judge", "nobody"


@dataclass(frozen=True)
class Record:
    """
    One scored response.

    Args:
        row (`int`):
            Row of the dataset.
        mode (`str`):
            `"greedy"` or `"sampled"`.
        sample (`int`):
            Number of the response among those of its row and mode.
        task (`str` or `None`):
            Task of the row, if the dataset has that column.
        text (`str`):
            Response.
        accuracy (`float` or `None`):
            Score of the answer in [0, 1]; `None` when no rule could judge it.
        format (`float`):
            Score of the form in [0, 1].
        hallucinated (`bool` or `None`):
            Whether the response claims something that the image does not hold; `None` where that is not measured.
        num_tokens (`int`):
            Generated tokens.
        finished (`bool`):
            Whether the response ended by itself.
        answer (`str`, *optional*):
            Final answer, written alike where it is the same; `None` where there is none.
        judged_by (`str`, *optional*, defaults to `"rule"`):
            `"rule"`, `"judge"`, or `"nobody"` where neither could tell.
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
    judged_by: str = RULE


@dataclass(frozen=True)
class Scorers:
    """
    What responses are scored by.

    Args:
        accuracy (`Callable`):
            TRL reward function of the answer; values in [0, 1] or `None`.
        format (`Callable`):
            TRL reward function of the form; values in [0, 1].
        unsupported (`Callable`, *optional*):
            Maps a response and the row's `unsupported_column` to what the response claims without support.
        unsupported_column (`str`, *optional*):
            Column with what the images hold.
        grader ([`~trl_r1v2.evaluation.benchmarks.grading.BenchmarkGrader`], *optional*):
            Rules of a benchmark, in place of `accuracy`.
        judge ([`~trl_r1v2.evaluation.judge.Judge`], *optional*):
            Judge of what the rules cannot decide.
        think_open (`bool`, *optional*):
            Whether prompts open `<think>`; `None` looks at them.
    """

    accuracy: Callable
    format: Callable
    unsupported: Callable | None = None
    unsupported_column: str | None = None
    grader: BenchmarkGrader | None = None
    judge: Judge | None = None
    think_open: bool | None = None


def score_rollouts(
    rollouts: Sequence["Rollout"], dataset: "Dataset", scorers: Scorers, mode: str, progress: bool = True
) -> list[Record]:
    """
    Score responses.

    Args:
        rollouts (`Sequence[Rollout]`):
            Responses to rows of `dataset`.
        dataset (`Dataset`):
            Prompts and the columns that the reward functions ask for; images are not passed to them.
        scorers ([`Scorers`]):
            Reward functions.
        mode (`str`):
            `"greedy"` or `"sampled"`.
        progress (`bool`, *optional*, defaults to `True`):
            Whether to show a progress bar.

    Returns:
        `list[Record]`: One for each response, in the same order.
    """
    from tqdm.auto import tqdm

    has_images = rows_with_images(dataset) if scorers.unsupported is not None else []
    dataset = dataset.remove_columns([column for column in _IMAGE_COLUMNS if column in dataset.column_names])
    records = []
    with tqdm(total=len(rollouts), desc=f"scoring {mode}", unit="response", disable=not progress) as bar:
        for start in range(0, len(rollouts), _SCORED_AT_ONCE):
            batch = rollouts[start : start + _SCORED_AT_ONCE]
            rows = [dataset[rollout.row] for rollout in batch]
            columns = {name: [row[name] for row in rows] for name in dataset.column_names if name != "prompt"}
            prompts = [row["prompt"] for row in rows]
            completions = [
                rollout.text if isinstance(prompt, str) else [{"role": "assistant", "content": rollout.text}]
                for rollout, prompt in zip(batch, prompts, strict=True)
            ]
            grades = grade_batch(scorers, batch, rows, prompts, completions, columns)
            judged = judge_batch(scorers.judge, grades, rows)
            formats = scorers.format(prompts=prompts, completions=completions, **columns)
            for rollout, row, grade, (accuracy, judged_by), form in zip(
                batch, rows, grades, judged, formats, strict=True
            ):
                hallucinated = None
                if scorers.unsupported is not None and has_images[rollout.row]:
                    hallucinated = bool(scorers.unsupported(rollout.text, row[scorers.unsupported_column]))
                records.append(
                    Record(
                        row=rollout.row,
                        mode=mode,
                        sample=rollout.sample,
                        task=None if row.get("task") is None else str(row["task"]),
                        text=rollout.text,
                        accuracy=accuracy,
                        format=float(form),
                        hallucinated=hallucinated,
                        num_tokens=rollout.num_tokens,
                        finished=rollout.finished,
                        answer=grade.answer,
                        judged_by=judged_by,
                    )
                )
            bar.update(len(batch))
    return records


def grade_batch(
    scorers: Scorers, batch: Sequence["Rollout"], rows: Sequence[Mapping], prompts, completions, columns: dict
) -> list[Grade]:
    """
    Grade responses by the rules: a benchmark's own, or the reward function, which is asked to be judged where it is `None`.
    """
    if scorers.grader is not None:
        return scorers.grader([rollout.text for rollout in batch], rows)
    accuracies = scorers.accuracy(prompts=prompts, completions=completions, **columns)
    grades = []
    for rollout, prompt, accuracy in zip(batch, prompts, accuracies, strict=True):
        is_open = prompt_opens_think(prompt) if scorers.think_open is None else scorers.think_open
        answer = final_answer(rollout.text, is_open)
        statement = (split_reasoning(rollout.text, is_open)[1] or "")[-_STATEMENT_CHARS:]
        if answer is not None and answer.anchored:
            statement = answer.text
        grades.append(
            Grade(
                score=None if accuracy is None else float(accuracy),
                answer=None if answer is None else counted_answer(answer.text),
                ask=accuracy is None,
                statement=statement,
            )
        )
    return grades


def counted_answer(text: str) -> str:
    """An answer in the form in which equal ones are counted: the letter of a choice, a number by value, else the text."""
    return choice_letter(text) or numbers.counted_answer(text)


def judge_batch(
    judge: Judge | None, grades: Sequence[Grade], rows: Sequence[Mapping]
) -> list[tuple[float | None, str]]:
    """
    Ask the judge about what the rules could not decide.

    Args:
        judge ([`~trl_r1v2.evaluation.judge.Judge`], *optional*):
            Judge. Without one the rules' score stands.
        grades (`Sequence[Grade]`):
            What the rules say.
        rows (`Sequence[Mapping]`):
            Row of each, with `question` or `prompt`, and `solution`. Rows without a right answer are not judged.

    Returns:
        `list[tuple[float | None, str]]`: Score and who gave it. An answer that the judge gave no verdict on has none.
    """
    settled = [(grade.score, RULE if grade.score is not None else NOBODY) for grade in grades]
    if judge is None:
        return settled
    cases: dict[int, Case] = {}
    for index, (grade, row) in enumerate(zip(grades, rows, strict=True)):
        reference = reference_of(row)
        if grade.ask and grade.statement and reference is not None:
            cases[index] = Case(row.get("question") or question_of(row["prompt"]), reference, grade.statement)
    for index, right in zip(cases, judge(list(cases.values()), progress=False), strict=True):
        settled[index] = (None, NOBODY) if right is None else (float(right), JUDGE)
    return settled


def reference_of(row: Mapping[str, Any]) -> str | None:
    """Right answer of a row as text; of several accepted ones all, joined by "or"."""
    solution = row.get("solution")
    accepted = solution if isinstance(solution, list) else [solution]
    texts = [text for text in map(gold_text, accepted) if text is not None]
    return " or ".join(texts) or None


def question_of(prompt: str | list[dict[str, Any]]) -> str:
    """Return the text of a prompt's last user message, or a plain prompt itself."""
    if isinstance(prompt, str):
        return prompt
    content = next(message["content"] for message in reversed(prompt) if message["role"] == "user")
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part.get("type") == "text")


def rows_with_images(dataset: "Dataset") -> list[bool]:
    """Return for each row whether it has an image, without decoding any."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = [column for column in _IMAGE_COLUMNS if column in dataset.column_names]
    if not columns:
        return [False] * len(dataset)
    # the arrow storage holds encoded bytes and paths; TRL, too, prefers `images` where both exist
    storage = dataset.select_columns(columns[-1]).with_format("arrow")[:][columns[-1]]
    is_list = pa.types.is_list(storage.type) or pa.types.is_large_list(storage.type)
    has_image = pc.greater(pc.list_value_length(storage), 0) if is_list else pc.is_valid(storage)
    return has_image.fill_null(False).to_pylist()


def write_records(records: Sequence[Record], path: Path) -> None:
    """Write records as parquet, one row a response."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("row", pa.int64()), ("mode", pa.string()), ("sample", pa.int64()), ("task", pa.string()),
            ("text", pa.string()), ("accuracy", pa.float64()), ("format", pa.float64()),
            ("hallucinated", pa.bool_()), ("num_tokens", pa.int64()), ("finished", pa.bool_()),
            ("answer", pa.string()), ("judged_by", pa.string()),
        ]
    )  # fmt: skip
    pq.write_table(pa.Table.from_pylist([asdict(record) for record in records], schema=schema), path)


def read_records(path: Path) -> list[Record]:
    """Read what [`write_records`] wrote."""
    import pyarrow.parquet as pq

    return [Record(**row) for row in pq.read_table(path).to_pylist()]


def row_scores(records: Sequence[Record], field: str, keep_unjudged: bool = False) -> dict[int, list[float]]:
    """
    Return the scores of each row, ordered by sample.

    A row none of whose samples could be judged is left out, or kept as wrong; in the others, a sample that could not be
    judged counts as 0. For `hallucinated`, rows where it is not measured are left out.

    Args:
        records (`Sequence[Record]`):
            Records of one mode.
        field (`str`):
            `"accuracy"`, `"format"`, `"hallucinated"` or `"finished"`.
        keep_unjudged (`bool`, *optional*, defaults to `False`):
            Whether rows without any judged sample stay, as wrong.

    Returns:
        `dict[int, list[float]]`: Row → scores.
    """
    by_row: dict[int, list[Any]] = {}
    for record in sorted(records, key=lambda record: (record.row, record.sample)):
        by_row.setdefault(record.row, []).append(vars(record)[field])
    return {
        row: [0.0 if score is None else float(score) for score in scores]
        for row, scores in by_row.items()
        if keep_unjudged or any(score is not None for score in scores)
    }


def summarize(records: Sequence[Record], keep_unjudged: bool = False) -> dict[str, dict[str, Any]]:
    """
    Return all figures of an evaluation, overall and for each task.

    Args:
        records (`Sequence[Record]`):
            Records of both modes.
        keep_unjudged (`bool`, *optional*, defaults to `False`):
            Whether rows without any judged response count as wrong, as in a benchmark's published score, rather than
            being left out.

    Returns:
        `dict`: task (`"all"` first) → mode → `accuracy`, `format_rate`, `hallucination_rate`, `finished_rate` (each an
        [`~trl_r1v2.evaluation.metrics.Estimate`] as a dict, or `None` where nothing was judged), `runs` (accuracy of
        each sampled run), `num_rows`, `num_unjudged` and `num_judged_by_model` (responses), `mean_tokens` (a response);
        for several samples also `pass_at_k` (k → estimate) and `majority`.
    """
    tasks = sorted({record.task for record in records if record.task is not None})
    groups = {ALL_TASKS: list(records)} | {task: [r for r in records if r.task == task] for task in tasks}
    return {
        task: {
            mode: _summarize_mode([record for record in members if record.mode == mode], keep_unjudged)
            for mode in (GREEDY, SAMPLED)
            if any(record.mode == mode for record in members)
        }
        for task, members in groups.items()
    }


def _summarize_mode(records: list[Record], keep_unjudged: bool) -> dict[str, Any]:
    scores = {field: row_scores(records, field) for field in ("format", "hallucinated", "finished")}
    scores["accuracy"] = row_scores(records, "accuracy", keep_unjudged)
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
        "num_judged_by_model": sum(record.judged_by == JUDGE for record in records),
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
