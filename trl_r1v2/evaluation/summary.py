# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Every figure of a report, gathered from a run's folders into one dictionary that `summary.json` holds.

Covers evaluations, training logs, durations of stages and the choice of examples. Does not cover drawing (`plots.py`)
nor the page (`report.py`). Imports neither torch nor trl.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .metrics import paired_difference
from .records import ALL_TASKS, GREEDY, SAMPLED, Record, read_records, row_scores


SCHEMA_VERSION = 1

# Name in the summary → name in the trainer's log.
SERIES = {
    "loss": "loss",
    "reward": "reward",
    "reward_std": "reward_std",
    "effective_before": "ssb/effective_before",
    "effective_after": "ssb/effective_after",
    "dead_groups": "ssb/dead_groups",
    "buffer_size": "ssb/size",
    "buffer_age_mean": "ssb/age_mean",
    "buffer_age_max": "ssb/age_max",
    "replayed_rows": "ssb/replayed_rows",
    "length_mean": "completions/mean_length",
    "length_min": "completions/min_length",
    "length_max": "completions/max_length",
    "tokens": "num_tokens",
    "probe_responses": "hallucination/num_responses",
    "hallucination_rate": "hallucination/rate",
    "blind_phrase_rate": "hallucination/blind_phrase_rate",
    "object_error": "hallucination/object_error",
    "grounding_gap": "hallucination/grounding_gap",
    "reward_threshold": "hallucination/threshold",
}
# How an example fared: right in the first and in the last evaluation.
OUTCOMES = {"gained": (False, True), "kept": (True, True), "lost": (True, False), "missed": (False, False)}


class ReportError(ValueError):
    """A run's folder from which no report can be made. The message names what is missing and the remedy."""


def read_stages(run_dir: Path) -> list[dict[str, Any]]:
    """
    The finished stages in a folder of `trl-r1v2 run`, in order: `name`, `seed` (as in its recipe, or `None`),
    `command`, `seconds` and `output_dir` of each.
    """
    owner_path = run_dir / "pipeline.json"
    if not owner_path.is_file():
        raise ReportError(
            f"{run_dir} is no output folder of `trl-r1v2 run` (there is no pipeline.json). Correct `run_dir`, or name "
            "the folders in `evaluations` and `training`."
        )
    stages = []
    for name in json.loads(owner_path.read_text(encoding="utf-8"))["stages"]:
        path = run_dir / "stages" / f"{name}.json"
        marker = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"status": "missing"}
        if marker["status"] == "finished":
            kept = {key: marker[key] for key in ("command", "seconds", "output_dir")}
            stages.append({"name": name, "seed": marker["recipe"].get("seed"), **kept})
    return stages


def read_evaluation(folder: Path) -> dict[str, Any]:
    """What `metrics.json` in a folder of `trl-r1v2 evaluate` holds, and `folder`."""
    path = folder / "metrics.json"
    if not path.is_file():
        raise ReportError(f"{folder} holds no metrics.json: run `trl-r1v2 evaluate` first, or correct `evaluations`.")
    metrics = json.loads(path.read_text(encoding="utf-8"))
    if metrics["schema_version"] != SCHEMA_VERSION:
        raise ReportError(f"{path} is of version {metrics['schema_version']}, not {SCHEMA_VERSION}: evaluate again.")
    return {**metrics, "folder": str(folder)}


def read_training(folder: Path, name: str) -> dict[str, Any]:
    """
    The log of one training run, `trainer_state.json` in its folder: `name`, `folder`, `num_steps` (optimizer steps),
    `num_tokens` (of prompts and responses, where logged), `steps` (one dict for each logged step, with `step` and the
    names of `SERIES` that were logged), `means` (of each series over all logged steps) and `thirds` (of each over the
    first and last third).
    """
    path = folder / "trainer_state.json"
    if not path.is_file():
        raise ReportError(f"{folder} holds no trainer_state.json: train first, or correct `training`.")
    state = json.loads(path.read_text(encoding="utf-8"))
    by_step: dict[int, dict[str, float]] = {}  # a step and a probe of the monitor after it are two entries
    for entry in state["log_history"]:
        values = {name: entry[key] for name, key in SERIES.items() if key in entry}
        if values:
            by_step.setdefault(entry["step"], {"step": entry["step"]}).update(values)
    steps = list(by_step.values())
    third = max(1, len(steps) // 3)
    return {
        "name": name,
        "folder": str(folder),
        "num_steps": state["global_step"],
        "num_tokens": next((step["tokens"] for step in reversed(steps) if "tokens" in step), None),
        "steps": steps,
        "means": _means(steps),
        "thirds": {"first": _means(steps[:third]), "last": _means(steps[-third:])},
    }


def _means(steps: Sequence[dict[str, float]]) -> dict[str, float]:
    values = {name: [step[name] for step in steps if name in step] for name in SERIES}
    return {name: float(np.mean(found)) for name, found in values.items() if found}


def compare(evaluations: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """
    The first evaluation against the last, row by row: task → mode → [`~trl_r1v2.evaluation.metrics.Difference`] as a
    dict. `None` when there are not two evaluations of the same rows.
    """
    if len(evaluations) < 2 or not same_rows(evaluations[0], evaluations[-1]):
        return None
    first, last = (read_records(Path(e["folder"]) / "records.parquet") for e in (evaluations[0], evaluations[-1]))
    tasks = [ALL_TASKS, *(task for task in evaluations[0]["tasks"] if task != ALL_TASKS)]
    changes: dict[str, Any] = {}
    for task in tasks:
        for mode in (GREEDY, SAMPLED):
            before, after = (
                row_scores([r for r in records if r.mode == mode and task in (ALL_TASKS, r.task)], "accuracy")
                for records in (first, last)
            )
            rows = sorted(before.keys() & after.keys())
            if rows:
                means = ([float(np.mean(scores[row])) for row in rows] for scores in (before, after))
                changes.setdefault(task, {})[mode] = asdict(paired_difference(*means))
    return changes


def same_rows(first: dict[str, Any], last: dict[str, Any]) -> bool:
    """Return whether two evaluations measured the same rows."""
    return first["fingerprint"]["dataset"] == last["fingerprint"]["dataset"]


def choose_examples(
    first: Sequence[Record], last: Sequence[Record], num_examples: int, seed: int
) -> list[dict[str, Any]]:
    """
    Choose rows to show with both greedy responses, spread over tasks: `num_examples` for each of `OUTCOMES`, fewer
    where there are fewer. Of each `row`, `outcome`, `task`, `before` and `after` (records as dicts).
    """
    before, after = ({r.row: r for r in records if r.mode == GREEDY} for records in (first, last))
    rows = [row for row in before if row in after and None not in (before[row].accuracy, after[row].accuracy)]
    random.Random(seed).shuffle(rows)
    examples = []
    for outcome, wanted in OUTCOMES.items():
        found = [row for row in rows if (before[row].accuracy == 1, after[row].accuracy == 1) == wanted]
        by_task: dict[str | None, list[int]] = {}
        for row in found:
            by_task.setdefault(after[row].task, []).append(row)
        # one of each task in turn, so that no task fills all places
        ranked = sorted(
            (rank, str(task), row) for task, members in by_task.items() for rank, row in enumerate(members)
        )
        for _, _, row in ranked[:num_examples]:
            shown = {"before": asdict(before[row]), "after": asdict(after[row])}
            examples.append({"row": row, "outcome": outcome, "task": after[row].task, **shown})
    return examples


def build_summary(
    *,
    title: str,
    notes: Sequence[str],
    stages: Sequence[dict[str, Any]],
    evaluations: Sequence[dict[str, Any]],
    training: Sequence[dict[str, Any]],
    num_examples: int = 3,
    seed: int = 0,
) -> dict[str, Any]:
    """
    Gather every figure that the report shows, the content of `summary.json`, from what [`read_stages`],
    [`read_evaluation`] (the base first, the trained model last) and [`read_training`] returned; `seed` is that of the
    choice of examples.

    Raises:
        ReportError: There is no evaluation, or two have the same label.
    """
    if not evaluations:
        raise ReportError("there is no finished evaluation: run `trl-r1v2 evaluate` first, or set `evaluations`.")
    labels = [evaluation["label"] for evaluation in evaluations]
    if len(set(labels)) < len(labels):
        raise ReportError(f"the evaluations are called {', '.join(labels)}: give each its own `label` in its recipe.")
    examples = []
    if num_examples and len(evaluations) > 1 and same_rows(evaluations[0], evaluations[-1]):
        records = [read_records(Path(evaluation["folder"]) / "records.parquet") for evaluation in evaluations]
        examples = choose_examples(records[0], records[-1], num_examples, seed)
    return {
        "schema_version": SCHEMA_VERSION,
        "title": title,
        "notes": list(notes),
        "stages": [dict(stage) for stage in stages],
        "total_seconds": sum(stage["seconds"] for stage in stages),
        "evaluations": [dict(evaluation) for evaluation in evaluations],
        "changes": compare(evaluations),
        "training": [dict(run) for run in training],
        "examples": examples,
    }
