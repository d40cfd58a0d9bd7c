# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Write the report of a run: one HTML page, its plots as PNG files, and every figure of the page in `summary.json`.

    trl-r1v2 report --config recipes/digits/report.yaml

Reads a pipeline's output folder, or the folders named in `evaluations` and `training`.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from transformers.hf_argparser import HfArg

from ..evaluation.plots import draw_plots
from ..evaluation.report import render_report
from ..evaluation.summary import build_summary, read_evaluation, read_stages, read_training
from ..sampling.histograms import check_plotting
from .evaluate import read_dataset
from .recipe import refusals_of


@dataclass
class ReportArguments:
    """Arguments of `trl-r1v2 report`."""

    output_dir: str = HfArg(help="Folder for report.html, summary.json and the plots.")
    run_dir: str | None = HfArg(
        default=None,
        help="Output folder of `trl-r1v2 run`: its finished stages are reported, with their durations. Its "
        "`evaluate` stages and its stages with a training log are found by themselves.",
    )
    evaluations: list[str] | None = HfArg(default=None, help="Folders of `evaluate`, base first. Unset: `run_dir`'s.")
    training: list[str] | None = HfArg(default=None, help="Folders with trainer_state.json. Unset: `run_dir`'s.")
    title: str = HfArg(default="Evaluation report", help="Heading of the page.")
    notes: list[str] | None = HfArg(default=None, help="Sentences for the reader: what the figures do not show.")
    num_examples: int = HfArg(default=3, help="Examples for each outcome (right or wrong, before, after).")
    seed: int = HfArg(default=0, help="Seed of the choice of examples.")

    def __post_init__(self):
        if self.run_dir is None and not self.evaluations:
            raise ValueError("set `run_dir`, or name folders in `evaluations`.")
        if self.num_examples < 0:
            raise ValueError(f"`num_examples` is {self.num_examples}; give 0 for none.")


def main(report_args: ReportArguments):
    check_plotting()
    with refusals_of():
        summary = collect(report_args)
    plots = draw_plots(summary)
    page = render_report(summary, plots, load_example_rows(summary))
    folder = Path(report_args.output_dir)
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    for plot in plots:
        (folder / "plots" / f"{plot.name}.png").write_bytes(plot.png)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(page, encoding="utf-8")
    print(f"The report is {folder / 'report.html'}, its figures are in {folder / 'summary.json'}.")


def collect(report_args: ReportArguments) -> dict:
    """Gather the figures of the run from its folders."""
    stages = read_stages(Path(report_args.run_dir)) if report_args.run_dir is not None else []
    evaluations = report_args.evaluations
    if evaluations is None:
        evaluations = [stage["output_dir"] for stage in stages if stage["command"] == "evaluate"]
    training = {Path(folder).name: folder for folder in report_args.training or []}
    if report_args.training is None:
        folders = {stage["name"]: stage["output_dir"] for stage in stages if stage["output_dir"]}
        training = {name: f for name, f in folders.items() if (Path(f) / "trainer_state.json").is_file()}
    return build_summary(
        title=report_args.title,
        notes=report_args.notes or [],
        stages=stages,
        evaluations=[read_evaluation(Path(folder)) for folder in evaluations],
        training=[read_training(Path(folder), name) for name, folder in training.items()],
        num_examples=report_args.num_examples,
        seed=report_args.seed,
    )


def load_example_rows(summary: dict) -> dict[int, dict]:
    """Load the dataset rows of the examples, as the last evaluation read them."""
    if not summary["examples"]:
        return {}
    dataset = read_dataset(summary["evaluations"][-1]["settings"])
    return {example["row"]: dataset[example["row"]] for example in summary["examples"]}
