# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The plots of a report: PNG files drawn from the figures of `summary.json` and from nothing else.

Colours are Okabe and Ito's, told apart by readers who see few colours, and lines also differ in style. Does not cover
the page they stand on (`report.py`). Needs matplotlib.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#6b7280"
_CYCLE = (GREY, BLUE, ORANGE, GREEN, PURPLE)
_INK = "#1f2933"
_STYLE = {
    "font.size": 11, "font.family": "DejaVu Sans", "text.color": _INK, "axes.labelcolor": _INK,
    "axes.edgecolor": "#9aa5b1", "xtick.color": _INK, "ytick.color": _INK, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#e4e7eb", "axes.axisbelow": True,
    "legend.frameon": False, "lines.linewidth": 1.8,
}  # fmt: skip


@dataclass(frozen=True)
class Plot:
    """A picture: file name without ending, heading, what is seen in plain language, and the PNG file's bytes."""

    name: str
    title: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Line:
    """A series of the summary, how it is drawn, and what the legend calls it."""

    series: str
    colour: str
    label: str = ""
    style: str = "-"


@dataclass(frozen=True)
class Panel:
    """
    Lines over the optimizer steps that share an axis.

    Args:
        label (`str`): What the axis is called.
        lines (`Sequence[Line]`): The lines; those whose series was not logged are left out.
        percent (`bool`, *optional*, defaults to `False`): Whether the series are shares, shown from 0 to 100 %.
        band (`Callable`, *optional*): From the steps to label, lower and upper bound of the area behind the first
            line.
        smooth (`bool`, *optional*, defaults to `True`): Whether lines are moving means over what was logged.
        from_zero (`bool`, *optional*, defaults to `False`): Whether the axis begins at zero, or below it.
    """

    label: str
    lines: Sequence[Line]
    percent: bool = False
    band: Callable | None = None
    smooth: bool = True
    from_zero: bool = False


@dataclass(frozen=True)
class TrainingPlot:
    """A plot of a training log: heading, caption, the series that must be there, and its panels from the top."""

    title: str
    caption: str
    needs: Sequence[str]
    panels: Sequence[Panel]


def draw_plots(summary: dict[str, Any]) -> list[Plot]:
    """Every plot for which `summary.json` has figures: accuracy first, then the training runs in order."""
    caption = "Points are the measured accuracy, bars the 95 % interval."
    plots = [_draw("accuracy", "Accuracy by task", caption, lambda figure: draw_accuracy(figure, summary))]
    for run in summary["training"]:
        several = len(summary["training"]) > 1
        prefix, suffix = (f"{run['name']}_", f": {run['name']}") if several else ("", "")
        for name, plot in TRAINING_PLOTS.items():
            # the loss of a policy gradient says nothing about progress
            if name == "loss" and "reward" in run["means"]:
                continue
            if sum(all(series in step for series in plot.needs) for step in run["steps"]) > 1:
                draw = lambda figure, run=run, plot=plot: draw_training(figure, run["steps"], plot)  # noqa: E731
                plots.append(_draw(prefix + name, plot.title + suffix, plot.caption, draw))
    return plots


def _draw(name: str, title: str, caption: str, draw: Callable) -> Plot:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.0, 3.6), layout="constrained")
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=160, format="png", facecolor="white")
    return Plot(name, title, caption, buffer.getvalue())


def _series(steps: Sequence[dict[str, float]], *names: str) -> list[np.ndarray]:
    """Step numbers and the named series, at the steps that logged all of them."""
    rows = [step for step in steps if all(name in step for name in names)]
    return [np.array([row[name] for row in rows], dtype=float) for name in ("step", *names)]


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred moving mean over a tenth of the series; at the ends over what there is."""
    width = max(1, len(values) // 10)
    if width < 3:
        return values
    kernel = np.ones(width)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")


def draw_training(figure, steps: Sequence[dict[str, float]], plot: TrainingPlot) -> None:
    """Draw a training log's series into a figure, each panel on axes of its own."""
    from matplotlib.ticker import MaxNLocator

    logged = {name for step in steps for name in step}
    panels = [panel for panel in plot.panels if logged & {line.series for line in panel.lines}]
    if len(plot.panels) > 1:
        figure.set_size_inches(6.0, 1.2 + 1.7 * len(panels))
    for panel, axes in zip(panels, figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0], strict=True):
        _draw_panel(axes, steps, panel, logged)
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles, labels = (
        [entry for axes in figure.axes for entry in axes.get_legend_handles_labels()[i]] for i in (0, 1)
    )
    if labels:
        figure.legend(handles, labels, loc="outside upper left", ncols=3)
    figure.align_ylabels()


def _draw_panel(axes, steps, panel: Panel, logged: set[str]) -> None:
    scale = 100.0 if panel.percent else 1.0
    if panel.band is not None and (band := panel.band(steps)) is not None:
        label, x, low, high = band
        axes.fill_between(
            x, scale * low, scale * high, color=panel.lines[0].colour, alpha=0.13, linewidth=0, label=label
        )
    for line in panel.lines:
        if line.series not in logged:
            continue
        x, values = _series(steps, line.series)
        smoothed = smooth(values) if panel.smooth else values
        if smoothed is not values:  # the series itself, pale, and its moving mean
            axes.plot(x, scale * values, color=line.colour, alpha=0.22, linewidth=0.9)
        steps_style = {"drawstyle": "steps-post"} if line.series == "reward_threshold" else {}
        axes.plot(
            x, scale * smoothed, line.style, color=line.colour, label=line.label or None, markersize=4, **steps_style
        )
    if panel.percent and panel.smooth:
        axes.set_ylim(-3, 103)
        axes.set_yticks(range(0, 101, 20))
    elif panel.from_zero:
        low, high = min(0.0, axes.get_ylim()[0]), axes.get_ylim()[1]
        axes.set_ylim(low, max(high + 0.06 * (high - low), 1e-3))
    axes.set_ylabel(panel.label)


def draw_accuracy(figure, summary: dict[str, Any]) -> None:
    """Accuracy of every evaluation by task, with its interval."""
    evaluations = summary["evaluations"]
    tasks = list(evaluations[0]["tasks"])
    figure.set_size_inches(6.0, max(2.6, 0.75 + (0.24 * len(evaluations) + 0.22) * len(tasks)))
    axes = figure.subplots()
    spread = 0.62 / len(evaluations)
    for index, evaluation in enumerate(evaluations):
        colour = _CYCLE[index % len(_CYCLE)]
        marker = "osD^v"[index % 5]
        for position, task in enumerate(tasks):
            modes = evaluation["tasks"].get(task, {})
            estimate = modes.get("sampled", modes.get("greedy", {})).get("accuracy")
            if estimate is None:
                continue
            y = position + (index - (len(evaluations) - 1) / 2) * spread
            value, low, high = (100 * estimate[key] for key in ("value", "low", "high"))
            axes.plot([low, high], [y, y], color=colour, linewidth=3.2, alpha=0.45, solid_capstyle="round")
            label = evaluation["label"] if position == 0 else None
            axes.plot(value, y, marker, color=colour, markersize=6.5, label=label)
            axes.annotate(
                f"{value:.1f}", (high, y), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9
            )
    runs = sorted({evaluation["settings"]["num_samples"] for evaluation in evaluations})
    measure = "greedy" if runs == [0] else f"Pass@1 over {'/'.join(map(str, runs))} runs"
    axes.set_yticks(range(len(tasks)), ["all tasks" if task == "all" else task for task in tasks])
    axes.set_ylim(len(tasks) - 0.45, -0.55)
    axes.set_xlim(0, 108)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel(f"accuracy (%), {measure}")
    axes.grid(axis="y", visible=False)
    # a row of the legend holds about 50 characters
    longest = max(len(evaluation["label"]) for evaluation in evaluations)
    columns = min(len(evaluations), max(1, 50 // (longest + 4)))
    figure.legend(loc="outside upper left", ncols=columns, handletextpad=0.3)


def _between(label: str | None, low: str, high: str, smoothed: bool = False) -> Callable:
    """The band between two series, where all steps that logged the first logged the second."""

    def band(steps):
        if not all(high in step for step in steps if low in step) or not any(low in step for step in steps):
            return None
        x, lower, upper = _series(steps, low, high)
        return (label, x, smooth(lower), smooth(upper)) if smoothed else (label, x, lower, upper)

    return band


def _spread(steps):
    """The band of a standard deviation around the mean reward, where it was logged."""
    if not all("reward_std" in step for step in steps if "reward" in step):
        return None
    x, mean, deviation = _series(steps, "reward", "reward_std")
    return "± 1 standard deviation", x, smooth(mean) - smooth(deviation), smooth(mean) + smooth(deviation)


_SMOOTHED = " With 30 or more logged steps: pale as logged, strong the moving mean."
TRAINING_PLOTS = {
    "reward": TrainingPlot(
        "Reward",
        "Mean reward of the sampled responses." + _SMOOTHED,
        ["reward"],
        [Panel("reward of a response", [Line("reward", BLUE, "mean reward")], band=_spread)],
    ),
    "effective_rows": TrainingPlot(
        "Effective rows",
        "Share of a batch whose rows have a non-zero advantage and therefore a gradient. The dashed line is what the "
        "freshly sampled rows alone would have given." + _SMOOTHED,
        ["effective_before", "effective_after"],
        [
            Panel(
                "effective rows (% of a batch)",
                [
                    Line("effective_after", BLUE, "with replay"),
                    Line("effective_before", ORANGE, "the same batches without replay", "--"),
                ],
                percent=True,
                band=_between(None, "effective_before", "effective_after", smoothed=True),
            )
        ],
    ),
    "dead_groups": TrainingPlot(
        "Dead groups",
        "Share of freshly sampled groups whose responses are all right or all wrong, so that they teach nothing."
        + _SMOOTHED,
        ["dead_groups"],
        [Panel("dead groups (% of fresh groups)", [Line("dead_groups", ORANGE)], percent=True)],
    ),
    "buffer": TrainingPlot(
        "Sample buffer",
        "Number of samples in the Selective Sample Buffer, and how many optimizer steps ago they were generated.",
        ["buffer_size", "buffer_age_mean", "buffer_age_max"],
        [
            Panel("samples held", [Line("buffer_size", GREEN)], smooth=False, from_zero=True),
            Panel(
                "age (steps)",
                [Line("buffer_age_max", PURPLE, "age of the oldest", "--"), Line("buffer_age_mean", BLUE, "mean age")],
                smooth=False,
                from_zero=True,
            ),
        ],
    ),
    "completion_length": TrainingPlot(
        "Completion length",
        "Length of the sampled responses.",
        ["length_mean"],
        [
            Panel(
                "completion length (tokens)",
                [Line("length_mean", GREEN, "mean")],
                band=_between("shortest to longest", "length_min", "length_max"),
                from_zero=True,
            )
        ],
    ),
    "hallucination": TrainingPlot(
        "Hallucination during training",
        "Probes of the monitor on a fixed set of held-out rows: shares of responses that claim what the image does "
        "not show, say that they cannot see it, or are wrong about an object; how much more likely a response is with "
        "its own image than with another; and the threshold that the controller sets. What was not measured is "
        "absent.",
        ["probe_responses"],
        [
            Panel(
                "responses (%)",
                [
                    Line("hallucination_rate", ORANGE, "claims not shown", "o-"),
                    Line("blind_phrase_rate", PURPLE, "blind phrases", "s--"),
                    Line("object_error", GREY, "wrong about an object", "^:"),
                ],
                percent=True,
                smooth=False,
                from_zero=True,
            ),
            Panel("gap (nats a token)", [Line("grounding_gap", BLUE, "", "o-")], smooth=False, from_zero=True),
            Panel("reward threshold", [Line("reward_threshold", GREEN, "", "o-")], smooth=False, from_zero=True),
        ],
    ),
    "loss": TrainingPlot("Loss", "Training loss." + _SMOOTHED, ["loss"], [Panel("loss", [Line("loss", GREY, "")])]),
}
