# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Sweep reward thresholds over scored responses, and suggest one.

    trl-r1v2 calibrate --scored_dir runs/pairs --output_dir runs/calibration
    trl-r1v2 pairs --threshold_file runs/calibration/thresholds.json …

Reads the rollouts and scores that `trl-r1v2 pairs` or `filter-prompts` keeps in its output folder. Writes
`thresholds.json` (the suggestion and every point of the sweep), `thresholds.md` (the table) and `thresholds.png` to
`output_dir`. Nothing is sampled or scored again.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers.hf_argparser import HfArg

from ..hallucination.threshold import calibrate_threshold
from ..hallucination.threshold_files import write_atomically, write_threshold_file
from ..sampling.histograms import check_plotting, new_figure
from ..sampling.rollouts import merge_shards
from ..sampling.scoring import total_score
from .recipe import RecipeError
from .sample_and_score import ROLLOUT_FOLDER, markdown_table


TABLE_FILE, JSON_FILE, PLOT_FILE = "thresholds.md", "thresholds.json", "thresholds.png"


@dataclass
class CalibrateArguments:
    """Arguments of `trl-r1v2 calibrate`."""

    scored_dir: str = HfArg(help="Output folder of `trl-r1v2 pairs` or `filter-prompts`.")
    output_dir: str = HfArg(help="Folder for thresholds.json, the table and the plot.")
    score_funcs: list[str] | None = HfArg(default=None, help="Functions whose sum is the score. Unset: that run's.")
    score_weights: list[float] | None = HfArg(default=None, help="Weight of each. Unset: 1, or that run's.")
    thresholds: list[float] | None = HfArg(default=None, help="Thresholds to try, in units of the score.")
    quantiles: list[float] | None = HfArg(
        default=None,
        help="Thresholds to try as quantiles of the scores of right responses. Unset: 0, 0.05, …, 0.95, if there "
        "are no `thresholds`.",
    )
    min_precision: float = HfArg(default=0.9, help="Wanted share of right responses among those above the threshold.")
    min_pairs: int = HfArg(default=1, help="Pairs that the suggested threshold has to leave.")
    max_pairs: int = HfArg(default=15, help="Pairs counted for each prompt (MMPR: up to 15).")
    plots: bool = HfArg(default=True, help="Draw the plot (needs matplotlib).")

    def __post_init__(self):
        if not 0 <= self.min_precision <= 1:
            raise ValueError(f"`min_precision` is {self.min_precision}; it must lie in [0, 1].")
        for name in ("min_pairs", "max_pairs"):
            if vars(self)[name] < 1:
                raise ValueError(f"`{name}` is {vars(self)[name]}; give at least 1.")
        if self.score_weights is not None and len(self.score_weights) != len(self.score_funcs or ()):
            raise ValueError(
                f"`score_weights` has {len(self.score_weights)} entries for {len(self.score_funcs or ())} "
                "`score_funcs`: give one weight a function."
            )


def main(args: CalibrateArguments) -> None:
    if args.plots:
        check_plotting()
    records, weights, judge, limit = read_scored(args)
    verdicts = [record["scores"][judge] for record in records]
    names = ("thresholds", "quantiles", "min_precision", "min_pairs", "max_pairs")
    calibration = calibrate_threshold(
        [total_score(record["scores"], weights) for record in records],
        [None if verdict is None else verdict >= limit for verdict in verdicts],
        [record["row"] for record in records],
        **{name: vars(args)[name] for name in names},
    )
    folder = Path(args.output_dir)
    found = {"reason": calibration.reason, "judge": judge, "num_responses": len(records), "settings": asdict(args)}
    found["sweep"] = [asdict(point) for point in calibration.points]
    path = folder / JSON_FILE
    write_threshold_file(path, calibration.suggested, source="calibrate", score=weights, **found)
    table = table_of(calibration)
    write_atomically(folder / TABLE_FILE, f"# Reward thresholds\n\n{table}\n\n{sentence(calibration)}\n")
    if args.plots:
        draw(folder / PLOT_FILE, calibration, args.min_precision)
    print(f"{table}\n\n{sentence(calibration)}\nSweep, table and plot are in {folder}.")
    if weights.get(judge):
        print(
            f"Warning: the judge, {judge}, is a part of the score, so the precision rises with the threshold by "
            "construction. Calibrate a score without it: name the others in `score_funcs`."
        )


def read_scored(args: CalibrateArguments) -> tuple[list[dict], dict[str, float], str, float]:
    """The records that an earlier command kept; the weights in the score, the function that judges, its limit."""
    summary = Path(args.scored_dir) / "summary.json"
    if not summary.is_file():
        raise RecipeError(
            f"`scored_dir: {args.scored_dir}` holds no summary.json: run `trl-r1v2 pairs` to its end first."
        )
    settings = json.loads(summary.read_text(encoding="utf-8")).get("settings", {})
    if "reward_funcs" not in settings:
        raise RecipeError(f"`scored_dir: {args.scored_dir}` is no result of `trl-r1v2 pairs` or `filter-prompts`.")
    records = merge_shards(Path(args.scored_dir) / ROLLOUT_FOLDER, "scores")
    functions = args.score_funcs or settings["reward_funcs"]
    given = args.score_weights if args.score_funcs is not None else settings["reward_weights"]
    weights = dict(zip(functions, given or [1.0] * len(functions), strict=True))
    judge = settings["judge_func"] or settings["reward_funcs"][0]
    called = list(records[0]["scores"]) if records else []
    absent = [name for name in functions if name not in called]
    if absent:
        raise RecipeError(
            f"{absent[0]} was not called on these responses; there are scores of {', '.join(called) or 'nothing'}. "
            "Run `trl-r1v2 pairs` with it among its `reward_funcs`."
        )
    return records, weights, judge, settings["judge_threshold"]


def sentence(calibration) -> str:
    """The suggestion in words."""
    if calibration.suggested is None:
        return f"No threshold is suggested: {calibration.reason}."
    return f"Suggested threshold: {calibration.suggested:g} ({calibration.reason})."


def table_of(calibration) -> str:
    """The sweep as a Markdown table."""
    header = ("threshold", "quantile", "precision", "95 % interval", "recall", "responses", "prompts", "pairs")
    rows = []
    for point in calibration.points:
        mark = " ←" if point.threshold == calibration.suggested else ""
        precision = "–" if point.precision is None else f"{point.precision:.3f}"
        interval = "–" if point.low is None else f"{point.low:.3f}–{point.high:.3f}"
        shown = (f"{point.threshold:g}{mark}", f"{point.quantile:.2f}", precision, interval, f"{point.recall:.3f}")
        rows.append((*shown, point.num_responses, point.num_prompts, point.num_pairs))
    return markdown_table(header, rows)


def draw(path: Path, calibration, min_precision: float) -> None:
    """Precision with its interval, recall, and pairs kept, against the threshold."""
    points = [point for point in calibration.points if point.precision is not None]
    x = [point.threshold for point in points]
    figure, (left, right) = new_figure(2)
    left.fill_between(x, [p.low for p in points], [p.high for p in points], alpha=0.25, label="95 % interval")
    left.plot(x, [p.precision for p in points], marker=".", label="precision")
    left.plot(x, [p.recall for p in points], color="tab:orange", linestyle=":", label="recall")
    left.axhline(min_precision, color="grey", linewidth=0.8, label=f"wanted precision {min_precision:g}")
    left.set(xlabel="threshold", ylabel="share", ylim=(-0.02, 1.02), title="Right responses above the threshold")
    right.plot(x, [p.num_pairs for p in points], marker=".", label="pairs")
    right.plot(x, [p.num_prompts for p in points], marker=".", linestyle=":", label="prompts with pairs")
    right.set(xlabel="threshold", ylabel="count", title="What is left", ylim=(0, None))
    for axes in (left, right):
        if calibration.suggested is not None:
            axes.axvline(
                calibration.suggested, color="black", linestyle="--", label=f"suggested {calibration.suggested:g}"
            )
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
