# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Curves and figures of the reward-hacking runs: `summary.json` and `curves.png` beside the result files."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats


LAST_PROBES = 3  # the end of a run: mean of its last probes
SMOOTHED = 5
COLOURS = {"watched": "tab:red", "controlled": "tab:blue"}


def mean_and_half_width(values: Sequence[float]) -> dict:
    """Mean and half width of its 95 % Student-t interval (`None` for one value)."""
    values = np.asarray(values, dtype=float)
    half = None
    if len(values) > 1:
        half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return {"mean": float(values.mean()), "half_width": half}


def summarise(runs: dict[str, list[dict]], bound: float) -> dict:
    """Start, end, largest value and share of probes above the bound, for each setting over its seeds."""
    summary = {}
    for setting, members in runs.items():
        rates = [[probe["rate"] for probe in run["probes"]] for run in members]
        accuracy = [[step["hybrid/accuracy/mean"] for step in run["training"]][-10:] for run in members]
        summary[setting] = {
            "seeds": [run["seed"] for run in members],
            "rate_start": mean_and_half_width([rate[0] for rate in rates]),
            "rate_end": mean_and_half_width([np.mean(rate[-LAST_PROBES:]) for rate in rates]),
            "rate_max": [max(rate) for rate in rates],
            "share_of_probes_above_bound": mean_and_half_width([np.mean(np.array(rate) > bound) for rate in rates]),
            "training_accuracy_end": mean_and_half_width([np.mean(values) for values in accuracy]),
            "grounding_gap_end": mean_and_half_width(
                [np.mean([probe["grounding_gap"] for probe in run["probes"][-LAST_PROBES:]]) for run in members]
            ),
            "cost_share": mean_and_half_width([run["probes"][-1]["cost_share"] for run in members]),
            "moves": [len(run["moves"]) for run in members],
            "cpu_seconds": [run["cpu_seconds"] for run in members],
        }
    return summary


def draw(path: Path, runs: dict[str, list[dict]], target: float, bound: float) -> None:
    """
    Four panels against the step: the reward that is paid, the rule's accuracy, the hallucination rate, and the gate.

    Thin lines are seeds, thick ones their mean. Reward and accuracy are of 32 sampled answers a step, and therefore
    drawn as means of `SMOOTHED` steps.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    (paid, right), (rates, gate) = figure.subplots(2, 2)
    for setting, members in runs.items():
        for axes, name in ((paid, "reward"), (right, "hybrid/accuracy/mean")):
            curves = [[step[name] for step in run["training"]] for run in members]
            curves = [np.convolve(curve, np.ones(SMOOTHED) / SMOOTHED, mode="valid") for curve in curves]
            _curves(axes, range(SMOOTHED, SMOOTHED + len(curves[0])), curves, setting)
        steps = [probe["step"] for probe in members[0]["probes"]]
        _curves(rates, steps, [[probe["rate"] for probe in run["probes"]] for run in members], setting)
        for run in members:
            if run["moves"]:
                gate.step(steps, [probe["threshold"] for probe in run["probes"]], where="post", alpha=0.7,
                          label=f"seed {run['seed']}")  # fmt: skip
    rates.axhline(target, color="grey", linewidth=0.8, linestyle=":", label=f"target {target:g}")
    rates.axhline(bound, color="black", linewidth=0.8, linestyle="--", label=f"bound {bound:g}")
    paid.set(ylabel="reward", title=f"Reward paid in training (mean of {SMOOTHED} steps)")
    right.set(ylabel="share of sampled answers", ylim=(-0.02, 1.02),
              title=f"Right answers in training (mean of {SMOOTHED} steps)")  # fmt: skip
    rates.set(ylabel="share of responses", ylim=(-0.02, 1.02), title="Hallucination rate (claims of digits not shown)")
    gate.set(ylabel="score", title="Gate of the flawed reward model, controlled runs")
    for axes in (paid, right, rates, gate):
        axes.set_xlabel("optimizer step")
        if axes.get_legend_handles_labels()[0]:  # no run may have moved its gate
            axes.legend(fontsize="small")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def _curves(axes, steps: Sequence[int], curves: Sequence[Sequence[float]], setting: str) -> None:
    for curve in curves:
        axes.plot(steps, curve, color=COLOURS[setting], alpha=0.3, linewidth=1)
    axes.plot(steps, np.mean(curves, axis=0), color=COLOURS[setting], linewidth=2.2,
              label=f"{setting}, mean of {len(curves)}")  # fmt: skip


def load(results: Path, settings: Sequence[str]) -> dict[str, list[dict]]:
    """The runs of each setting, over the seeds that all settings have."""
    found = {
        setting: {run["seed"]: run for run in map(_read, sorted(results.glob(f"{setting}-*.json")))}
        for setting in settings
    }
    seeds = sorted(set.intersection(*(set(members) for members in found.values())))
    return {setting: [members[seed] for seed in seeds] for setting, members in found.items()}


def report(results: Path, settings: Sequence[str], target: float, bound: float) -> None:
    """
    Write `summary.json` and `curves.png` from the result files in `results`, over the seeds that all settings have.
    """
    runs = load(results, settings)
    if not runs[settings[0]]:
        raise ValueError(f"{results} holds no seed that all of {', '.join(settings)} have: run the benchmark first.")
    summary = {"target": target, "bound": bound, "settings": summarise(runs, bound)}
    (results / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    draw(results / "curves.png", runs, target, bound)
    for setting, figures in summary["settings"].items():
        print(f"{setting}: {json.dumps(figures)}")
    print(f"Summary and curves are in {results}.")


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))
