# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Means, 95 % intervals, plots and a table from the result files of `compare.py`."""

import json
import sys
from pathlib import Path

import matplotlib
import numpy as np
from scipy import stats


matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half-width of its 95 % Student-t interval (NaN for a single value)."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return float(values.mean()), float("nan")
    return float(values.mean()), float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


def mean_accuracy(points: list[dict]) -> float:
    """Accuracy averaged over all steps, interpolated linearly: evaluations are denser at the start."""
    steps, accuracy = ([point[name] for point in points] for name in ("step", "accuracy"))
    return float(np.trapezoid(accuracy, steps) / (steps[-1] - steps[0]))


def tokens_to_reach(points: list[dict], accuracy: float) -> float:
    """Generated tokens at which a run first reaches `accuracy`, interpolated linearly; NaN if it never does."""
    for before, after in zip(points, points[1:], strict=False):
        if after["accuracy"] >= accuracy > before["accuracy"]:
            share = (accuracy - before["accuracy"]) / (after["accuracy"] - before["accuracy"])
            return before["generated_tokens"] + share * (after["generated_tokens"] - before["generated_tokens"])
    return float("nan")


def paired_differences(stock: list[dict], runs: list[dict]) -> dict[str, dict]:
    """Accuracy minus stock's with the same seed: at the end, and on average over training. Points of 0 to 1."""
    of_seed = {run["seed"]: run["points"] for run in stock}
    pairs = [(of_seed[run["seed"]], run["points"]) for run in runs]
    differences = {
        "final_accuracy": [mine[-1]["accuracy"] - theirs[-1]["accuracy"] for theirs, mine in pairs],
        "mean_accuracy": [mean_accuracy(mine) - mean_accuracy(theirs) for theirs, mine in pairs],
    }
    return {
        name: dict(zip(("mean", "half_width_95"), interval(values), strict=True), values=values)
        for name, values in differences.items()
    }


def load(results: Path) -> dict[str, list[dict]]:
    runs: dict[str, list[dict]] = {}
    for path in sorted(results.glob("*-*.json")):
        run = json.loads(path.read_text())
        runs.setdefault(run["setting"], []).append(run)
    order = ["stock", "half", "paper", "fresh", "share", "resample", "skip"]
    return {setting: runs[setting] for setting in order if setting in runs}


def summarise(results: Path) -> dict:
    """Write `summary.json`, `table.md` and the plots beside the result files."""
    runs = load(results)
    # One point below: accuracies of a few hundred rows waver about their plateau by that much.
    target = interval([run["points"][-1]["accuracy"] for run in runs["stock"]])[0] - 0.01
    summary = {"target_accuracy": target, "settings": {}}
    for setting, of_setting in runs.items():
        last_quarter = [run["steps"][-len(run["steps"]) // 4 :] for run in of_setting]
        figures = {
            "final_accuracy": [run["points"][-1]["accuracy"] for run in of_setting],
            "mean_accuracy": [mean_accuracy(run["points"]) for run in of_setting],
            "generated_tokens": [run["points"][-1]["generated_tokens"] for run in of_setting],
            "tokens_to_target": [tokens_to_reach(run["points"], target) for run in of_setting],
            "train_cpu_seconds": [run["points"][-1]["train_cpu_seconds"] for run in of_setting],
            "train_seconds": [run["points"][-1]["train_seconds"] for run in of_setting],
        }
        for name in ("effective_before", "effective_after"):
            if f"ssb/{name}" in last_quarter[0][0]:
                figures[f"{name}_last_quarter"] = [
                    float(np.mean([step[f"ssb/{name}"] for step in steps])) for steps in last_quarter
                ]
        entry = {"num_seeds": len(of_setting)}
        if setting != "stock":
            entry["paired_with_stock"] = paired_differences(runs["stock"], of_setting)
        for name, values in figures.items():
            reached = [value for value in values if value == value]
            mean, half_width = interval(reached) if reached else (float("nan"), float("nan"))
            entry[name] = {"mean": mean, "half_width_95": half_width, "values": values, "num_reached": len(reached)}
        summary["settings"][setting] = entry
    (results / "summary.json").write_text(json.dumps(summary, indent=1))
    (results / "table.md").write_text(table(summary))
    plot(runs, results / "comparison.png")
    print(table(summary))
    return summary


def table(summary: dict) -> str:
    lines = [
        "| setting | final accuracy | minus stock's | mean accuracy over the steps | minus stock's | generated tokens "
        "| tokens to 1 point below stock's final accuracy | effective share, last quarter: before → after "
        "| CPU seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for setting, entry in summary["settings"].items():

        def show(name, scale=1.0, digits=1, entry=entry):
            figure = entry[name]
            return f"{figure['mean'] * scale:.{digits}f} ± {figure['half_width_95'] * scale:.{digits}f}"

        def difference(name, entry=entry):
            if "paired_with_stock" not in entry:
                return "–"
            figure = entry["paired_with_stock"][name]
            return f"{figure['mean'] * 100:+.2f} ± {figure['half_width_95'] * 100:.2f}"

        # A mean over the runs that got there would favour settings of which few do.
        reached = entry["tokens_to_target"]["num_reached"]
        tokens = f"{show('tokens_to_target', 1e-3, 0)} k"
        if reached < entry["num_seeds"]:
            tokens = f"{reached} of {entry['num_seeds']} seeds get there"
        share = "–"
        if "effective_before_last_quarter" in entry:
            share = (
                f"{show('effective_before_last_quarter', 100, 0)} → {show('effective_after_last_quarter', 100, 0)} %"
            )
        lines.append(
            f"| {setting} | {show('final_accuracy', 100)} % | {difference('final_accuracy')} "
            f"| {show('mean_accuracy', 100)} % | {difference('mean_accuracy')} "
            f"| {show('generated_tokens', 1e-3, 0)} k | {tokens} | {share} | {show('train_cpu_seconds', 1, 0)} |"
        )
    return "\n".join(lines) + "\n"


def plot(runs: dict[str, list[dict]], path: Path) -> None:
    colours = dict(zip(runs, plt.get_cmap("tab10").colors, strict=False))
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.2))
    for setting, of_setting in runs.items():
        accuracy = np.array([[point["accuracy"] for point in run["points"]] for run in of_setting]) * 100
        half_width = [interval(column)[1] for column in accuracy.T]
        mean = accuracy.mean(axis=0)
        for axis, cost, scale in ((axes[0], "generated_tokens", 1e-3), (axes[1], "train_cpu_seconds", 1.0)):
            spent = np.mean([[point[cost] for point in run["points"]] for run in of_setting], axis=0) * scale
            axis.plot(spent, mean, label=setting, color=colours[setting])
            axis.fill_between(spent, mean - half_width, mean + half_width, color=colours[setting], alpha=0.12)
        if "ssb/effective_after" in of_setting[0]["steps"][0]:
            after = np.mean([[step["ssb/effective_after"] for step in run["steps"]] for run in of_setting], axis=0)
            axes[2].plot(range(1, len(after) + 1), after * 100, label=f"{setting}, after", color=colours[setting])
        if setting == "paper":
            before = np.mean([[step["ssb/effective_before"] for step in run["steps"]] for run in of_setting], axis=0)
            axes[2].plot(range(1, len(before) + 1), before * 100, "--", label="paper, before", color="0.4")
    how = "sampled" if runs["stock"][0]["is_sampled"] else "greedy"
    axes[0].set(xlabel="generated tokens (thousands)", ylabel=f"{how} accuracy, held-out (%)")
    axes[1].set(xlabel="CPU seconds of training", ylabel=f"{how} accuracy, held-out (%)")
    axes[2].set(xlabel="optimizer step", ylabel="effective rows (%)", ylim=(0, 103))
    for axis in axes:
        axis.legend(frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    summarise(Path(sys.argv[1]))
