# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Means, 95 % intervals (Student's t over seeds), paired differences, tables and the plot of `compare.py`'s results.
"""

import json
import sys
from pathlib import Path

import numpy as np

from benchmarks.ssb.summary import interval, plt


LABELS = {
    "base": "base",
    "sft": "SFT on the chosen",
    "dpo": "DPO",
    "trl_mpo": "TRL's MPO",
    "mpo_no_shift": "MPO, δ = 0",
    "mpo": "MPO",
    "grpo": "GRPO",
    "mpo_grpo": "MPO + GRPO",
}
FIGURES = {
    "greedy accuracy": ("greedy", "accuracy"),
    "Pass@1": ("sampled", "accuracy"),
    "hallucination rate, greedy": ("greedy", "hallucination_rate"),
    "hallucination rate, sampled": ("sampled", "hallucination_rate"),
    "format rate, sampled": ("sampled", "format_rate"),
}
# Each setting against the one it is an alternative to.
DIFFERENCES = (
    ("dpo", "sft"),
    ("mpo", "sft"),
    ("mpo", "dpo"),
    ("mpo", "trl_mpo"),
    ("mpo", "mpo_no_shift"),
    ("mpo_grpo", "mpo"),
    ("mpo_grpo", "dpo"),
    ("mpo_grpo", "grpo"),
)


def estimate(values: list[float]) -> dict:
    mean, half_width = interval(values)
    return {"mean": mean, "half_width_95": half_width, "values": values}


def load(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def summarise_methods(runs: list[dict]) -> dict:
    by_setting = {name: {run["seed"]: run for run in runs if run["setting"] == name} for name in LABELS}
    by_setting = {name: of_setting for name, of_setting in by_setting.items() if of_setting}
    settings, differences = {}, {}
    for name, of_setting in by_setting.items():
        settings[name] = {
            "num_seeds": len(of_setting),
            "learning_rate": next(iter(of_setting.values()))["learning_rate"],
            "train_cpu_seconds": estimate([run["train_cpu_seconds"] for run in of_setting.values()]),
            "figures": {
                label: estimate([run["figures"][mode][figure] for run in of_setting.values()])
                for label, (mode, figure) in FIGURES.items()
            },
        }
        last_steps = [run["steps"][-1] for run in of_setting.values() if run["steps"]]
        if last_steps and "mpo/reward_shift" in last_steps[0]:
            settings[name]["last_reward_shift"] = estimate([step["mpo/reward_shift"] for step in last_steps])
    for first, second in DIFFERENCES:
        if not {first, second} <= by_setting.keys():
            continue
        seeds = sorted(by_setting[first].keys() & by_setting[second].keys())
        differences[f"{first} - {second}"] = {
            label: estimate(
                [
                    by_setting[first][seed]["figures"][mode][figure]
                    - by_setting[second][seed]["figures"][mode][figure]
                    for seed in seeds
                ]
            )
            for label, (mode, figure) in FIGURES.items()
        }
    return {"settings": settings, "differences": differences}


def summarise_search(runs: list[dict]) -> list[dict]:
    """One entry for each setting and learning rate: a single seed, so no intervals."""
    return [
        {"setting": run["setting"], "learning_rate": run["learning_rate"]}
        | {label: run["figures"][mode][figure] for label, (mode, figure) in FIGURES.items()}
        for run in sorted(runs, key=lambda run: (list(LABELS).index(run["setting"]), run["learning_rate"]))
    ]


def summarise_thresholds(runs: list[dict]) -> dict:
    summary = {}
    for threshold in sorted({run["threshold"] for run in runs}):
        of_threshold = [run for run in runs if run["threshold"] == threshold]
        iterations = []
        for points in zip(*(run["points"] for run in of_threshold), strict=True):
            entry = {
                label: estimate([point[mode][figure] for point in points]) for label, (mode, figure) in FIGURES.items()
            }
            if "pairs" in points[0]:
                entry |= {name: estimate([point["pairs"][name] for point in points]) for name in points[0]["pairs"]}
            iterations.append(entry)
        summary[f"{threshold:g}"] = {"num_seeds": len(of_threshold), "iterations": iterations}
    return summary


def percent(figure: dict, signed: bool = False) -> str:
    sign = "+" if signed else ""
    mean, half_width = 100 * figure["mean"], 100 * figure["half_width_95"]
    return f"{mean:{sign}.1f} ± {half_width:.1f}"


def table(summary: dict) -> str:
    head = list(FIGURES)
    lines = ["| | learning rate | " + " | ".join(head) + " |", "|---" * (len(head) + 2) + "|"]
    for name, entry in summary["methods"]["settings"].items():
        rate = "–" if entry["learning_rate"] is None else f"{entry['learning_rate']:g}"
        cells = [percent(entry["figures"][label]) for label in head]
        if name == "base":
            cells = [f"{100 * entry['figures'][label]['mean']:.1f}" for label in head]
        lines.append(f"| {LABELS[name]} | {rate} | " + " | ".join(cells) + " |")
    lines += ["", "| difference | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for name, figures in summary["methods"]["differences"].items():
        first, second = name.split(" - ")
        cells = [percent(figures[label], signed=True) for label in head]
        lines.append(f"| {LABELS[first]} − {LABELS[second]} | " + " | ".join(cells) + " |")
    lines += ["", "| search, validation split, one seed | learning rate | " + " | ".join(head) + " |"]
    lines.append("|---" * (len(head) + 2) + "|")
    for entry in summary["search"]:
        cells = [f"{100 * entry[label]:.1f}" for label in head]
        lines.append(f"| {LABELS[entry['setting']]} | {entry['learning_rate']:g} | " + " | ".join(cells) + " |")
    lines += ["", "| threshold | iteration | Pass@1 | hallucination rate, sampled | right among the chosen | pairs |"]
    lines.append("|---|---|---|---|---|---|")
    for threshold, entry in summary["thresholds"].items():
        for iteration, figures in enumerate(entry["iterations"]):
            if iteration == 0:
                continue
            lines.append(
                f"| {threshold} | {iteration} | {percent(figures['Pass@1'])} "
                f"| {percent(figures['hallucination rate, sampled'])} | {percent(figures['chosen_right'])} "
                f"| {figures['num_pairs']['mean']:.0f} |"
            )
    return "\n".join(lines) + "\n"


def draw_methods(axes, settings: dict) -> None:
    """Two panels: Pass@1 and the sampled hallucination rate of each setting, with its seeds."""
    positions = range(len(settings))
    for axis, label in zip(axes, ("Pass@1", "hallucination rate, sampled"), strict=True):
        for position, entry in zip(positions, settings.values(), strict=True):
            values = np.array(entry["figures"][label]["values"]) * 100
            mean, half_width = interval(values)
            axis.plot(values, [position] * len(values), "o", color="0.75", markersize=4, zorder=1)
            axis.errorbar(mean, position, xerr=np.nan_to_num(half_width), fmt="s", color="#0072B2", capsize=3)
        axis.set_yticks(positions, [LABELS[name] for name in settings] if axis is axes[0] else [""] * len(settings))
        axis.set(xlabel=f"{label} (%)", ylim=(len(settings) - 0.5, -0.5))


def draw_thresholds(axis, thresholds: dict, label: str) -> None:
    """A figure of each threshold against the iterations."""
    for (threshold, entry), colour, style in zip(
        thresholds.items(), ("#D55E00", "#009E73", "#0072B2"), ("o-", "s--", "^-."), strict=False
    ):
        mean = np.array([point[label]["mean"] for point in entry["iterations"]]) * 100
        half_width = np.array([point[label]["half_width_95"] for point in entry["iterations"]]) * 100
        iterations = np.arange(len(mean))
        axis.plot(iterations, mean, style, color=colour, label=f"threshold {threshold}")
        axis.fill_between(iterations, mean - half_width, mean + half_width, color=colour, alpha=0.12)
        axis.set_xticks(iterations)
    axis.set(xlabel="iteration of MPO under a faulty reward", ylabel=f"{label} (%)")
    axis.legend(frameon=False, fontsize=9)


def save(figure, path: Path) -> None:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def plot(summary: dict, path: Path) -> None:
    panels = 3 if summary["thresholds"] else 2
    figure, axes = plt.subplots(1, panels, figsize=(13 * panels / 3, 3.8), layout="constrained")
    draw_methods(axes[:2], summary["methods"]["settings"])
    if panels == 3:
        draw_thresholds(axes[2], summary["thresholds"], "Pass@1")
    save(figure, path)


def summarise(results: Path) -> dict:
    """Write `summary.json`, `table.md` and `comparison.png` beside the result folders."""
    summary = {
        "search": summarise_search(load(results / "search")),
        "methods": summarise_methods(load(results / "methods")),
        "thresholds": summarise_thresholds(load(results / "thresholds")),
    }
    (results / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    (results / "table.md").write_text(table(summary))
    plot(summary, results / "comparison.png")
    print(table(summary))
    return summary


if __name__ == "__main__":
    summarise(Path(sys.argv[1]))
