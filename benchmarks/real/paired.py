# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What each evaluation gains over the aligned model, row by row.

    python -m benchmarks.real.paired --run runs/smollm2_dinov2

Takes every folder `evaluate_*` of a run whose rows are those of `evaluate_aligned`. For each, and for each task, the
accuracy and the hallucination rate with their intervals and their mean change against the aligned model, greedy and
sampled (Pass@1 over the samples), with a 95 % interval by bootstrap over rows. Folders that differ in `_seed<n>` alone
are also taken together: a row's score is its mean over seeds, and the bootstrap draws rows and seeds. Other settings
of GRPO (`evaluate_grpo_*_seed<n>`) are compared with `evaluate_grpo_seed<n>`, too, and the logs of training that lie
beside the evaluations are summed up. Writes `benchmarks/real/paired.json`.
"""

import argparse
import json
import re
from pathlib import Path

import numpy as np

from benchmarks.environment import environment
from trl_r1v2.evaluation.records import GREEDY, SAMPLED, read_records, row_scores
from trl_r1v2.evaluation.summary import same_rows


NUM_DRAWS = 2_000
FIGURES = {"accuracy": "accuracy", "hallucination": "hallucinated"}  # name: field of a record


def mean_scores(folder: Path, mode: str, field: str) -> dict[str, dict[int, float]]:
    """Task, `all` among them → row → its mean over samples."""
    records = [record for record in read_records(folder / "records.parquet") if record.mode == mode]
    tasks = {"all": records} | {t: [r for r in records if r.task == t] for t in sorted({r.task for r in records})}
    return {
        task: {row: float(np.mean(scores)) for row, scores in row_scores(members, field).items()}
        for task, members in tasks.items()
        if members
    }


def interval(scores: np.ndarray, rng: np.random.Generator) -> list[float]:
    """95 % interval of the mean of `(num_seeds, num_rows)` scores, by bootstrap over rows and seeds."""
    num_seeds, num_rows = scores.shape
    draws = [
        scores[np.ix_(rng.integers(num_seeds, size=num_seeds), rng.integers(num_rows, size=num_rows))].mean()
        for _ in range(NUM_DRAWS)
    ]
    return [round(float(bound), 4) for bound in np.quantile(draws, (0.025, 0.975))]


def compare(before: list[Path], after: list[Path]) -> dict:
    """
    Task → mode → figure, with mean, change and their intervals. `after` are the folders of one setting's seeds,
    `before` those of the same seeds or one folder for all.
    """
    found: dict = {}
    for mode in (GREEDY, SAMPLED):
        for figure, field in FIGURES.items():
            firsts, lasts = ([mean_scores(path, mode, field) for path in paths] for paths in (before, after))
            for task in firsts[0]:
                rows = [row for row in firsts[0][task] if all(row in last.get(task, {}) for last in lasts)]
                if not rows:
                    continue
                values = np.array([[last[task][row] for row in rows] for last in lasts])
                change = values - np.array([[first[task][row] for row in rows] for first in firsts])
                rng = np.random.default_rng(0)
                found.setdefault(task, {}).setdefault(mode, {})[figure] = {
                    "num_rows": len(rows),
                    "mean": round(float(values.mean()), 4),
                    "interval": interval(values, rng),
                    "change": round(float(change.mean()), 4),
                    "change_interval": interval(change, rng),
                }
    return found


def training_log(path: Path) -> dict:
    """The reward at both ends, the rows that teach something, and minutes, from a `trainer_state.json`."""
    logs = [entry for entry in json.loads(path.read_text(encoding="utf-8"))["log_history"] if "reward" in entry]

    def mean(name: str, part: slice = slice(None)) -> float:
        return round(float(np.mean([entry[name] for entry in logs[part]])), 4)

    found = {"steps": len(logs), "first_five": mean("reward", slice(5)), "last_five": mean("reward", slice(-5, None))}
    found |= {"effective_generated": mean("ssb/effective_before"), "effective_trained": mean("ssb/effective_after")}
    return found | {"minutes": round(sum(entry["step_time"] for entry in logs) / 60, 2)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="Output folder of the pipeline.")
    parser.add_argument("--output", default="benchmarks/real/paired.json", help="File to write.")
    args = parser.parse_args()
    run = Path(args.run)
    before = run / "evaluate_aligned"
    metrics = {
        folder.parent: json.loads(folder.read_text(encoding="utf-8"))
        for folder in sorted(run.glob("evaluate_*/metrics.json"))
    }
    groups: dict[str, list[Path]] = {}
    for folder, values in metrics.items():
        if same_rows(metrics[before], values):
            groups.setdefault(folder.name, []).append(folder)
            if (together := re.sub(r"_seed\d+$", "", folder.name)) != folder.name:
                groups.setdefault(together, []).append(folder)
    result = {
        name: {"num_seeds": len(folders), "tasks": compare([before], folders)} for name, folders in groups.items()
    }
    others = {}
    for name, folders in groups.items():
        if re.fullmatch(r"evaluate_grpo_(?!seed)\w+(?<!\d)", name):
            plain = [folder.with_name("evaluate_grpo" + re.search(r"_seed\d+$", folder.name)[0]) for folder in folders]
            others[name] = {"num_seeds": len(folders), "tasks": compare(plain, folders)}
    training = {path.parent.name: training_log(path) for path in sorted(run.glob("grpo_*/trainer_state.json"))}
    found = {"evaluations": result, "against_grpo": others, "training": training, "environment": environment()}
    Path(args.output).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, values in [*result.items(), *((f"{name} - grpo", values) for name, values in others.items())]:
        for mode, entries in values["tasks"]["all"].items():
            for figure, entry in entries.items():
                print(f"{name:<35} {mode:<8} {figure:<14} {entry['mean']:.1%} {entry['interval']}  "
                      f"{entry['change']:+.1%} {entry['change_interval']}")  # fmt: skip


if __name__ == "__main__":
    main()
