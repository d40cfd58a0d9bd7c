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
_SIZE = (6.0, 3.6)
_DPI = 160


@dataclass(frozen=True)
class Plot:
    """
    One picture.

    Args:
        name (`str`):
            File name without ending.
        title (`str`):
            Heading on the page.
        caption (`str`):
            What is seen, in plain language.
        png (`bytes`):
            The picture.
    """

    name: str
    title: str
    caption: str
    png: bytes


def check_plotting() -> None:
    """
    Fail before any work when matplotlib is missing.

    Raises:
        ImportError: The message names the extra.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError("the report needs matplotlib: `pip install trl_r1v2[demo]`.") from error


def draw_plots(summary: dict[str, Any]) -> list[Plot]:
    """
    Draw every plot for which there are figures.

    Args:
        summary (`dict[str, Any]`):
            Content of `summary.json`.

    Returns:
        `list[Plot]`: Accuracy first, then the training runs in order.
    """
    check_plotting()
    plots = [_draw("accuracy", *_ACCURACY_TEXT, lambda figure: draw_accuracy(figure, summary))]
    for run in summary["training"]:
        suffix = f": {run['name']}" if len(summary["training"]) > 1 else ""
        prefix = f"{run['name']}_" if len(summary["training"]) > 1 else ""
        for plot in _TRAINING_PLOTS:
            # the loss of a policy gradient says nothing about progress
            if plot.name == "loss" and "reward" in run["means"]:
                continue
            if len([step for step in run["steps"] if all(name in step for name in plot.needs)]) > 1:
                draw = plot.draw
                plots.append(
                    _draw(
                        prefix + plot.name,
                        plot.title + suffix,
                        plot.caption,
                        lambda figure, draw=draw, run=run: draw(figure, run["steps"]),
                    )
                )
    return plots


def _draw(name: str, title: str, caption: str, draw: Callable) -> Plot:
    import matplotlib
    from matplotlib.figure import Figure

    style = {
        "font.size": 11,
        "font.family": "DejaVu Sans",
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "axes.edgecolor": "#9aa5b1",
        "xtick.color": _INK,
        "ytick.color": _INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e4e7eb",
        "axes.axisbelow": True,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=_SIZE, layout="constrained")
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=_DPI, format="png", facecolor="white")
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


def _line(axes, steps, values, colour: str, label: str, style: str = "-") -> None:
    """The series itself, pale, and its moving mean."""
    smoothed = smooth(values)
    if smoothed is not values:
        axes.plot(steps, values, color=colour, alpha=0.22, linewidth=0.9)
    axes.plot(steps, smoothed, style, color=colour, label=label)


def draw_accuracy(figure, summary: dict[str, Any]) -> None:
    """Accuracy of every evaluation by task, with its interval."""
    evaluations = summary["evaluations"]
    tasks = list(evaluations[0]["tasks"])
    figure.set_size_inches(_SIZE[0], max(2.6, 0.75 + (0.24 * len(evaluations) + 0.22) * len(tasks)))
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
    axes.set_yticks(range(len(tasks)), [_task_name(task) for task in tasks])
    axes.set_ylim(len(tasks) - 0.45, -0.55)
    axes.set_xlim(0, 108)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel(f"accuracy (%), {_measure(evaluations)}")
    axes.grid(axis="y", visible=False)
    # a row of the legend holds about 50 characters
    longest = max(len(evaluation["label"]) for evaluation in evaluations)
    columns = min(len(evaluations), max(1, 50 // (longest + 4)))
    figure.legend(loc="outside upper left", ncols=columns, handletextpad=0.3)


def _measure(evaluations: Sequence[dict[str, Any]]) -> str:
    num_samples = {evaluation["settings"]["num_samples"] for evaluation in evaluations}
    if num_samples == {0}:
        return "greedy"
    return f"Pass@1 over {'/'.join(map(str, sorted(num_samples)))} runs"


def _task_name(task: str) -> str:
    return "all tasks" if task == "all" else task


def _step_axis(axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _percent_axis(axes, label: str) -> None:
    axes.set_ylim(-3, 103)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel(label)


def draw_reward(figure, steps) -> None:
    """Mean reward, with the spread of the rewards where it was logged."""
    axes = figure.subplots()
    x, reward = _series(steps, "reward")
    if all("reward_std" in step for step in steps if "reward" in step):
        _, reward_std = _series(steps, "reward", "reward_std")[1:]
        mean, spread = smooth(reward), smooth(reward_std)
        axes.fill_between(
            x, mean - spread, mean + spread, color=BLUE, alpha=0.12, linewidth=0, label="± 1 standard deviation"
        )
    _line(axes, x, reward, BLUE, "mean reward")
    _step_axis(axes)
    axes.set_ylabel("reward of a response")
    figure.legend(loc="outside upper left", ncols=2)


def draw_effective(figure, steps) -> None:
    """Share of rows that teach something, with replay and without."""
    axes = figure.subplots()
    x, before, after = _series(steps, "effective_before", "effective_after")
    axes.fill_between(x, 100 * smooth(before), 100 * smooth(after), color=BLUE, alpha=0.13, linewidth=0)
    _line(axes, x, 100 * after, BLUE, "with replay")
    _line(axes, x, 100 * before, ORANGE, "the same batches without replay", "--")
    _percent_axis(axes, "effective rows (% of a batch)")
    _step_axis(axes)
    figure.legend(loc="outside upper left", ncols=2)


def draw_dead_groups(figure, steps) -> None:
    """Share of groups answered all right or all wrong."""
    axes = figure.subplots()
    x, dead = _series(steps, "dead_groups")
    _line(axes, x, 100 * dead, ORANGE, "dead groups")
    _percent_axis(axes, "dead groups (% of fresh groups)")
    _step_axis(axes)


def draw_buffer(figure, steps) -> None:
    """Size of the buffer and age of what it holds."""
    upper, lower = figure.subplots(2, 1, sharex=True)
    x, size = _series(steps, "buffer_size")
    upper.plot(x, size, color=GREEN)
    upper.set_ylim(0, max(1.0, size.max()) * 1.08)
    upper.set_ylabel("samples held")
    x, mean, largest = _series(steps, "buffer_age_mean", "buffer_age_max")
    lower.plot(x, largest, "--", color=PURPLE, label="oldest")
    lower.plot(x, mean, color=BLUE, label="mean")
    lower.set_ylim(0, max(1.0, largest.max()) * 1.45)
    lower.set_ylabel("age (steps)")
    _step_axis(lower)
    lower.legend(loc="upper right", ncols=2)
    figure.align_ylabels()


def draw_length(figure, steps) -> None:
    """Length of completions."""
    axes = figure.subplots()
    x, mean = _series(steps, "length_mean")
    if all("length_max" in step and "length_min" in step for step in steps if "length_mean" in step):
        _, _, shortest, longest = _series(steps, "length_mean", "length_min", "length_max")
        axes.fill_between(x, shortest, longest, color=GREEN, alpha=0.13, linewidth=0, label="shortest to longest")
    _line(axes, x, mean, GREEN, "mean")
    axes.set_ylim(bottom=0)
    _step_axis(axes)
    axes.set_ylabel("completion length (tokens)")
    figure.legend(loc="outside upper left", ncols=2)


def draw_hallucination(figure, steps) -> None:
    """What the monitor's probes measured: shares of responses, the grounding gap, and the threshold, those there are."""
    panels = {
        "responses (%)": {
            "hallucination_rate": (ORANGE, "o-", "claims not shown"),
            "blind_phrase_rate": (PURPLE, "s--", "blind phrases"),
            "object_error": (GREY, "^:", "wrong about an object"),
        },
        "gap (nats a token)": {"grounding_gap": (BLUE, "o-", "")},
        "reward threshold": {"reward_threshold": (GREEN, "o-", "")},
    }
    logged = {name for step in steps for name in step}
    panels = {label: lines for label, lines in panels.items() if logged & lines.keys()}
    figure.set_size_inches(_SIZE[0], 1.2 + 1.7 * len(panels))
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (label, lines) in zip(all_axes, panels.items(), strict=True):
        scale = 100.0 if label.endswith("(%)") else 1.0
        for name, (colour, style, legend) in lines.items():
            if name in logged:
                x, values = _series(steps, name)
                drawn = "steps-post" if name == "reward_threshold" else "default"
                axes.plot(x, scale * values, style, markersize=4, color=colour, drawstyle=drawn, label=legend)
        low, high = axes.get_ylim()
        low = min(0.0, low)
        axes.set_ylim(low, max(high + 0.06 * (high - low), 1e-3))
        axes.set_ylabel(label)
    if "responses (%)" in panels:
        figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    _step_axis(all_axes[-1])
    figure.align_ylabels()


def draw_loss(figure, steps) -> None:
    """Training loss."""
    axes = figure.subplots()
    x, loss = _series(steps, "loss")
    _line(axes, x, loss, GREY, "loss")
    _step_axis(axes)
    axes.set_ylabel("loss")


@dataclass(frozen=True)
class _TrainingPlot:
    name: str
    title: str
    caption: str
    needs: tuple[str, ...]
    draw: Callable


_ACCURACY_TEXT = (
    "Accuracy by task",
    "Points are the measured accuracy, bars the 95 % interval.",
)
_SMOOTHED = " With 30 or more logged steps: pale as logged, strong the moving mean."
_TRAINING_PLOTS = (
    _TrainingPlot("reward", "Reward", "Mean reward of the sampled responses." + _SMOOTHED, ("reward",), draw_reward),
    _TrainingPlot(
        "effective_rows",
        "Effective rows",
        "Share of a batch whose rows have a non-zero advantage and therefore a gradient. The dashed line is what the "
        "freshly sampled rows alone would have given." + _SMOOTHED,
        ("effective_before", "effective_after"),
        draw_effective,
    ),
    _TrainingPlot(
        "dead_groups",
        "Dead groups",
        "Share of freshly sampled groups whose responses are all right or all wrong, so that they teach nothing."
        + _SMOOTHED,
        ("dead_groups",),
        draw_dead_groups,
    ),
    _TrainingPlot(
        "buffer",
        "Sample buffer",
        "Number of samples in the Selective Sample Buffer, and how many optimizer steps ago they were generated.",
        ("buffer_size", "buffer_age_mean", "buffer_age_max"),
        draw_buffer,
    ),
    _TrainingPlot(
        "completion_length",
        "Completion length",
        "Length of the sampled responses.",
        ("length_mean",),
        draw_length,
    ),
    _TrainingPlot(
        "hallucination",
        "Hallucination during training",
        "Probes of the monitor on a fixed set of held-out rows: shares of responses that claim what the image does not "
        "show, say that they cannot see it, or are wrong about an object; how much more likely a response is with its own "
        "image than with another; and the threshold that the controller sets. What was not measured is absent.",
        ("probe_responses",),
        draw_hallucination,
    ),
    _TrainingPlot("loss", "Loss", "Training loss." + _SMOOTHED, ("loss",), draw_loss),
)
