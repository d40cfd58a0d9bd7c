# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Best learning rates, paired differences with Holm's correction, table and plot of the runs of `skills.py`."""

import json
from pathlib import Path

import matplotlib
import numpy as np
from scipy import stats

from benchmarks.results import write_result
from benchmarks.ssb.summary import interval


matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


LAST = 3  # evaluations at the end of a run whose mean is its final accuracy


def load(folder: Path) -> dict[str, list[dict]]:
    """Runs by setting, in the order of their seeds."""
    runs: dict[str, list[dict]] = {}
    for path in sorted(folder.glob("*.json")):
        run = json.loads(path.read_text())
        runs.setdefault(run["setting"], []).append(run)
    return {setting: sorted(members, key=lambda run: run["seed"]) for setting, members in runs.items()}


def final_accuracy(run: dict) -> float:
    return float(np.mean([point["accuracy"] for point in run["points"][-LAST:]]))


def best_rates(results: Path) -> dict[str, float]:
    """Of each setting the learning rate with the highest final accuracy on validation rows."""
    return {s: max(runs, key=final_accuracy)["learning_rate"] for s, runs in load(results / "validation").items()}


def cost_to_reach(run: dict, accuracy: float, cost: str) -> float:
    """What a run has spent when the mean of three evaluations first reaches `accuracy`; infinite if it never does."""
    values, spent = ([point[name] for point in run["points"]] for name in ("accuracy", cost))
    smooth = np.convolve(values, np.ones(LAST) / LAST, "valid")  # place i is the mean of i to i + 2
    reached = np.flatnonzero(smooth >= accuracy)
    if len(reached) == 0:
        return float("inf")
    if reached[0] == 0:
        return float(spent[LAST - 1])
    first = reached[0]
    share = (accuracy - smooth[first - 1]) / (smooth[first] - smooth[first - 1])
    return float(spent[first + 1] + share * (spent[first + 2] - spent[first + 1]))


def holm(p_values: list[float]) -> list[float]:
    """Holm's (1979) adjusted p-values."""
    order, adjusted, largest = np.argsort(p_values), [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def estimate(values: list[float]) -> dict:
    mean, half_width = interval(values)
    return {"mean": mean, "half_width_95": half_width, "values": values}


def summarise(results: Path) -> dict:
    runs = load(results / "test")
    stock = {run["seed"]: run for run in runs["stock"]}
    settings = {}
    for setting, members in runs.items():
        members = [run for run in members if run["seed"] in stock]
        pairs = [(run, stock[run["seed"]]) for run in members]
        entry = {"setting": setting, "learning_rate": members[0]["learning_rate"], "num_seeds": len(members)}
        entry["num_steps"] = members[0]["num_steps"]
        entry["final_accuracy"] = estimate([final_accuracy(run) for run in members])
        for name, key in (("pass_1", "pass@1"), ("pass_32", "pass@32")):
            entry[name] = estimate([run["passes"][key] for run in members])
        for name in ("generated_tokens", "train_cpu_seconds"):
            entry[name] = estimate([run["points"][-1][name] for run in members])
            # To stock's own final accuracy with the same seed, as a part of what stock spends until then.
            ratios = [
                cost_to_reach(run, final_accuracy(base), name) / cost_to_reach(base, final_accuracy(base), name)
                for run, base in pairs
            ]
            entry[f"{name}_to_stock"] = {"values": ratios, "num_reached": int(np.isfinite(ratios).sum())}
            if np.isfinite(ratios).all():
                entry[f"{name}_to_stock"] |= estimate(ratios)
        for name in ("effective_before", "effective_after", "replayed_negative", "replayed_advantage", "ratio_max"):
            if members[0]["steps"][name]:
                entry[name] = float(np.mean([np.mean(run["steps"][name]) for run in members]))
        entry["minus_stock"] = estimate([final_accuracy(run) - final_accuracy(base) for run, base in pairs])
        settings[setting] = entry
    others = [setting for setting in settings if setting != "stock" and settings[setting]["num_seeds"] > 1]
    p_values = [float(stats.ttest_1samp(settings[name]["minus_stock"]["values"], 0.0).pvalue) for name in others]
    for name, adjusted in zip(others, holm(p_values), strict=True):
        settings[name]["minus_stock"]["p_holm"] = adjusted
    return {"settings": settings, "base": json.loads((results / "base.json").read_text())}


def table(summary: dict) -> str:
    def show(figure: dict, scale: float = 1.0, digits: int = 1, sign: str = "") -> str:
        return f"{figure['mean'] * scale:{sign}.{digits}f} ± {figure['half_width_95'] * scale:.{digits}f}"

    def cost(figure: dict) -> str:
        reached, total = figure["num_reached"], len(figure["values"])
        return show(figure, digits=2) if reached == total else f"{reached} of {total} get there"

    head = ["setting", "learning rate", "steps", "final accuracy, %", "minus stock's", "p (Holm)", "pass@32, %"]
    head += [
        "tokens, k",
        "CPU seconds",
        "tokens to stock's final accuracy, part of stock's",
        "CPU seconds to it, part",
    ]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for setting, entry in summary["settings"].items():
        paired = entry["minus_stock"]
        cells = [setting, f"{entry['learning_rate']:g}", str(entry["num_steps"]), show(entry["final_accuracy"], 100)]
        cells += ["–", "–"] if setting == "stock" else [show(paired, 100, sign="+"), f"{paired['p_holm']:.2f}"]
        cells += [show(entry["pass_32"], 100), show(entry["generated_tokens"], 1e-3, 0)]
        cells += [show(entry["train_cpu_seconds"], digits=0)]
        cells += [cost(entry[f"{name}_to_stock"]) for name in ("generated_tokens", "train_cpu_seconds")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(runs: dict[str, list[dict]], path: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(13, 4.6), sharey=True)
    colours = plt.get_cmap("tab20").colors
    for place, (setting, members) in enumerate(runs.items()):
        accuracy = np.mean([[point["accuracy"] for point in run["points"]] for run in members], axis=0) * 100
        for axis, name, scale in ((axes[0], "generated_tokens", 1e-3), (axes[1], "train_cpu_seconds", 1.0)):
            spent = np.mean([[point[name] for point in run["points"]] for run in members], axis=0) * scale
            axis.plot(spent, accuracy, label=setting, color=colours[place], lw=2.5 if setting == "stock" else 1.3)
    axes[0].set(xlabel="generated tokens (thousands)", ylabel="sampled accuracy on test rows (%)")
    axes[1].set(xlabel="CPU seconds of training")
    axes[1].legend(frameon=False, fontsize=8)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def search_table(runs: dict[str, list[dict]]) -> list[dict]:
    """What the search for the learning rate found, a run an entry."""
    rows = []
    for run in (run for members in runs.values() for run in members):
        last = run["points"][-1]
        rows.append({"setting": f"{run['setting']}, {run['learning_rate']:g}", "num_steps": run["num_steps"]})
        rows[-1] |= {"accuracy_before": run["points"][0]["accuracy"], "accuracy_after": final_accuracy(run)}
        rows[-1] |= {name: last[name] for name in ("generated_tokens", "train_cpu_seconds")}
        for name in ("replayed_negative", "replayed_advantage", "ratio_max"):
            if run["steps"][name]:
                rows[-1][name] = float(np.mean(run["steps"][name]))
    return rows


def report(results: Path) -> None:
    """Write `search.json`, and once two seeds are compared `summary.json`, `table.md` and `comparison.png`."""
    write_result(results / "search.json", search_table(load(results / "validation")))
    runs = load(results / "test")
    if len(runs.get("stock", [])) > 1:
        summary = summarise(results)
        write_result(results / "summary.json", summary)
        (results / "table.md").write_text(table(summary))
        plot(runs, results / "comparison.png")
        print(table(summary))
