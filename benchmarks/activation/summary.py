# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Means, 95 % intervals, paired differences, a table and plots from the result files of `compare.py`."""

import json
import sys
from pathlib import Path

import numpy as np

from benchmarks.ssb.summary import interval, plt


# R1V2, Table 4: MMMU / MathVista / OlympiadBench.
PRESETS = {
    "adapter": (73.6, 74.0, 62.6),
    "llm+adapter": (72.1, 72.0, 60.8),
    "adapter+vision": (72.3, 71.8, 60.2),
}
TASKS = ("add_two_images", "add_one_image", "larger", "yes_no", "text_add")


def load(results: Path, split: str) -> dict[str, list[dict]]:
    runs: dict[str, list[dict]] = {preset: [] for preset in PRESETS}
    for path in sorted(results.glob(f"{split}-*.json")):
        run = json.loads(path.read_text())
        runs[run["preset"]].append(run)
    return {preset: sorted(of_preset, key=lambda run: run["seed"]) for preset, of_preset in runs.items()}


def chosen_rates(results: Path) -> dict[str, float]:
    """The learning rate of each preset with the best greedy accuracy in the search; of equal ones the smallest."""
    return {
        preset: max(grid, key=lambda run: (run["greedy"]["accuracy/all"], -run["learning_rate"]))["learning_rate"]
        for preset, grid in load(results, "validation").items()
        if grid
    }


def load_chosen(results: Path) -> dict[str, list[dict]]:
    """The test runs of each preset with its chosen learning rate: a wider search can leave those of another behind."""
    rates = chosen_rates(results)
    return {
        preset: [run for run in of_preset if run["learning_rate"] == rates.get(preset)]
        for preset, of_preset in load(results, "test").items()
    }


def estimate(values: list[float]) -> dict:
    mean, half_width = interval(values)
    return {"mean": mean, "half_width_95": half_width, "values": values}


def summarise(results: Path) -> dict:
    """Write `summary.json`, `table.md` and `presets.png` beside the result files."""
    runs, grid = load_chosen(results), load(results, "validation")
    base = json.loads((results / "base.json").read_text())
    summary = {"base": base, "presets": {}, "differences_from_adapter": {}}
    for preset, of_preset in runs.items():
        first = of_preset[0]
        summary["presets"][preset] = {
            "trained_parameters": first["trained_parameters"],
            "num_seeds": len(of_preset),
            "num_steps": first["num_steps"],
            "learning_rate": first["learning_rate"],
            "validation_accuracy": {f"{r['learning_rate']:g}": r["greedy"]["accuracy/all"] for r in grid[preset]},
            "train_cpu_seconds": estimate([run["train_cpu_seconds"] for run in of_preset]),
            **{
                mode: {name: estimate([run[mode][name] for run in of_preset]) for name in first[mode]}
                for mode in ("greedy", "sampled")
            },
        }
    for preset in ("llm+adapter", "adapter+vision"):
        pairs = list(zip(runs[preset], runs["adapter"], strict=True))
        summary["differences_from_adapter"][preset] = {
            name: estimate([a["greedy"][name] - b["greedy"][name] for a, b in pairs])
            for name in ("accuracy/all", "accuracy/images")
        }
    summary["verdict"] = verdict(summary)
    (results / "summary.json").write_text(json.dumps(summary, indent=1))
    (results / "table.md").write_text(table(summary))
    plot(runs, base, results / "presets.png")
    print(table(summary))
    return summary


def verdict(summary: dict) -> str:
    """Whether the paper's direction, adapter alone ahead of the other two by 1.3 to 2.4 points, is seen here."""
    sentences = []
    for preset, figures in summary["differences_from_adapter"].items():
        difference = figures["accuracy/all"]
        mean, half_width = 100 * difference["mean"], 100 * difference["half_width_95"]
        if mean + half_width < 0:
            word = "agrees with the paper's direction"
        elif mean - half_width > 0:
            word = "is opposite to the paper's direction"
        else:
            word = "does not tell the two apart"
        sentences.append(f"`{preset}` less `adapter` is {mean:+.1f} ± {half_width:.1f} points, which {word}")
    return "; ".join(sentences) + "."


def table(summary: dict) -> str:
    def show(figure, digits=1):
        return f"{100 * figure['mean']:.{digits}f} ± {100 * figure['half_width_95']:.{digits}f}"

    lines = [
        "| trained | parameters | learning rate | accuracy | with images | without | sampled | hallucination, sampled "
        "| paper's Table 4 |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    base = summary["base"]
    plain = [base["greedy"][f"accuracy/{name}"] for name in ("all", "images", "text_add")]
    plain += [base["sampled"]["accuracy/all"], base["sampled"]["hallucination"]]
    lines.append("| nothing (base) | 0 | – | " + " | ".join(f"{100 * value:.1f}" for value in plain) + " | – |")
    for preset, entry in summary["presets"].items():
        greedy, sampled = entry["greedy"], entry["sampled"]
        cells = [show(greedy[f"accuracy/{name}"]) for name in ("all", "images", "text_add")]
        cells += [show(sampled["accuracy/all"]), show(sampled["hallucination"])]
        paper = " / ".join(f"{value:.1f}" for value in PRESETS[preset])
        lines.append(
            f"| `{preset}` | {entry['trained_parameters']:,} | {entry['learning_rate']:g} | {' | '.join(cells)} "
            f"| {paper} |"
        )
    lines += ["", "| greedy accuracy by task | " + " | ".join(f"`{task}`" for task in TASKS) + " |"]
    lines.append("|---|" + "---:|" * len(TASKS))
    lines.append(
        "| nothing (base) | " + " | ".join(f"{100 * base['greedy'][f'accuracy/{t}']:.1f}" for t in TASKS) + " |"
    )
    for preset, entry in summary["presets"].items():
        lines.append(
            f"| `{preset}` | " + " | ".join(show(entry["greedy"][f"accuracy/{task}"]) for task in TASKS) + " |"
        )
    rates = {rate for entry in summary["presets"].values() for rate in entry["validation_accuracy"]}
    rates = sorted(rates, key=float)
    lines += ["", "| validation accuracy by learning rate | " + " | ".join(rates) + " |"]
    lines.append("|---|" + "---:|" * len(rates))
    for preset, entry in summary["presets"].items():
        found = entry["validation_accuracy"]
        lines.append(
            f"| `{preset}` | " + " | ".join(f"{100 * found[r]:.1f}" if r in found else "–" for r in rates) + " |"
        )
    return "\n".join([*lines, "", summary["verdict"], ""])


def plot(runs: dict[str, list[dict]], base: dict, path: Path) -> None:
    colours = dict(zip(runs, plt.get_cmap("tab10").colors, strict=False))
    figure, axes = plt.subplots(1, 3, figsize=(13, 4))
    for place, (preset, of_preset) in enumerate(runs.items()):
        curve = 100 * np.array([run["train_accuracy"] for run in of_preset])
        mean, half_width = curve.mean(axis=0), np.array([interval(column)[1] for column in curve.T])
        steps = np.arange(1, len(mean) + 1)
        axes[0].plot(steps, mean, color=colours[preset], label=preset)
        axes[0].fill_between(steps, mean - half_width, mean + half_width, color=colours[preset], alpha=0.15)
        for axis, mode, name in ((axes[1], "greedy", "accuracy/all"), (axes[2], "sampled", "hallucination")):
            values = [100 * run[mode][name] for run in of_preset]
            centre, half = interval(values)
            axis.errorbar(place, centre, half, fmt="o", capsize=5, color=colours[preset])
            axis.scatter(np.full(len(values), place + 0.15), values, s=10, color=colours[preset], alpha=0.5)
    for axis, mode, name in ((axes[1], "greedy", "accuracy/all"), (axes[2], "sampled", "hallucination")):
        axis.axhline(100 * base[mode][name], ls="--", color="0.5", label="base")
        axis.set_xticks(range(len(runs)), list(runs))
        axis.set_ylim(0, 100)
    axes[0].set(xlabel="optimizer step", ylabel="accuracy of sampled answers in training (%)", ylim=(0, 100))
    axes[1].set(ylabel="greedy accuracy, held-out (%)")
    axes[2].set(ylabel="hallucination rate, sampled, held-out (%)")
    for axis in axes:
        axis.legend(frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    summarise(Path(sys.argv[1]))
