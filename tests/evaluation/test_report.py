# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The report of a synthetic run: figures on the page equal summary.json, which equals the inputs."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Features, Image, List, Value
from matplotlib.figure import Figure
from PIL import Image as PILImage
from scipy import stats

from trl_r1v2.evaluation import plots
from trl_r1v2.evaluation.records import Record, summarize, write_records
from trl_r1v2.evaluation.report import figure
from trl_r1v2.evaluation.summary import ReportError, build_summary, choose_examples, read_evaluation, read_stages
from trl_r1v2.scripts.main import main


NUM_ROWS, NUM_SAMPLES = 12, 4
FEATURES = Features(
    {
        "prompt": [{"role": Value("string"), "content": Value("string")}],
        "images": List(Image()),
        "solution": Value("string"),
    }
)


def write_evaluation(
    folder: Path, label: str, share_right: float, seed: int, dataset: str = "rows", **settings
) -> Path:
    rng = np.random.default_rng(seed)
    records = [
        Record(
            row=row,
            mode=mode,
            sample=sample,
            task="odd" if row % 2 else "even",
            text=f"<b>{label}</b> & {row}",
            accuracy=float(rng.random() < share_right),
            format=float(rng.random() < 0.9),
            hallucinated=bool(rng.random() < 0.5) if row % 3 else None,
            num_tokens=int(rng.integers(5, 20)),
            finished=True,
        )
        for mode, num_samples in (("greedy", 1), ("sampled", NUM_SAMPLES))
        for row in range(NUM_ROWS)
        for sample in range(num_samples)
    ]
    folder.mkdir()
    write_records(records, folder / "records.parquet")
    metrics = {
        "schema_version": 1,
        "label": label,
        "settings": {
            "model_name_or_path": f"models/{label}",
            "dataset_name": str(folder.parent / "data"),
            "dataset_config": None,
            "dataset_split": "test",
            "num_samples": NUM_SAMPLES,
            "temperature": 0.8,
            "top_p": 0.95,
            "max_new_tokens": 32,
            "seed": 17,
            **settings,
        },
        "fingerprint": {"model": label, "dataset": dataset},
        "num_rows": NUM_ROWS,
        "device": "cpu",
        "tasks": summarize(records),
        "generated_tokens": {
            mode: sum(r.num_tokens for r in records if r.mode == mode) for mode in ("greedy", "sampled")
        },
        "seconds": {"greedy": 1.25, "sampled": 63.5},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


@pytest.fixture
def run_dir(tmp_path) -> Path:
    return build_run(tmp_path / "run")


def build_run(folder: Path) -> Path:
    """A pipeline's folder with two evaluations, a training log, and the report stage at work."""
    (folder / "stages").mkdir(parents=True)
    (folder / "data").mkdir()
    rows = [
        {
            "prompt": [{"role": "user", "content": f"What <is> {row}?"}],
            "images": [PILImage.new("L", (28, 28), row)] * (row % 3),
            "solution": str(row),
        }
        for row in range(NUM_ROWS)
    ]
    Dataset.from_list(rows, features=FEATURES).to_parquet(folder / "data" / "test.parquet")
    write_evaluation(folder / "before", "base", 0.3, seed=1)
    write_evaluation(folder / "after", "trained", 0.8, seed=2)
    log = [
        {
            "step": step,
            "reward": 0.1 * step,
            "reward_std": 0.2,
            "ssb/effective_before": 0.9 - 0.1 * step,
            "ssb/effective_after": 0.95,
            "ssb/dead_groups": 0.1 * step,
            "ssb/size": 10.0 * step,
            "ssb/age_mean": 0.5 * step,
            "ssb/age_max": float(step),
            "completions/mean_length": 20.0,
            "num_tokens": 1000.0 * step,
        }
        for step in range(1, 7)
    ]
    (folder / "grpo").mkdir()
    state = {"global_step": 6, "log_history": [*log, {"step": 6, "train_runtime": 3.0}]}
    (folder / "grpo" / "trainer_state.json").write_text(json.dumps(state))
    stages = {"evaluate-base": "before", "grpo": "grpo", "evaluate-grpo": "after", "report": "report"}
    for index, (name, output) in enumerate(stages.items()):
        marker = {
            "status": "running" if name == "report" else "finished",
            "command": name.split("-")[0],
            "seconds": 10.5 * (index + 1),
            "output_dir": str(folder / output),
            "recipe": {"seed": 5} if name == "grpo" else {},
        }
        (folder / "stages" / f"{name}.json").write_text(json.dumps(marker))
    (folder / "pipeline.json").write_text(json.dumps({"name": "x", "recipe": "y", "stages": [*stages, "unfinished"]}))
    return folder


class Page(HTMLParser):
    """The figures, image sources and links of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.figures, self.sources, self.text = [], [], ""
        self._open = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "data":
            self._open = [json.loads(attributes["data-path"]), json.loads(attributes["value"]), ""]
            self.figures.append(self._open)
        self.sources += [attributes[name] for name in ("src", "href") if name in attributes]

    def handle_endtag(self, tag):
        if tag == "data":
            self._open = None

    def handle_data(self, data):
        self.text += data
        if self._open is not None:
            self._open[2] += data


def write_report(run_dir: Path, *args: str) -> tuple[Page, dict]:
    out = run_dir / "report"
    assert main(["report", "--run_dir", str(run_dir), "--output_dir", str(out), *args]) == 0
    return Page((out / "report.html").read_text()), json.loads((out / "summary.json").read_text())


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> tuple[Path, Page, dict]:
    """A run's folder, its page and its summary, for tests that only read."""
    folder = build_run(tmp_path_factory.mktemp("report") / "run")
    return folder, *write_report(folder, "--title", "A <title>", "--notes", "First & last.", "Second.")


def at(summary, path):
    for key in path:
        summary = summary[key]
    return summary


def test_every_figure_of_the_page_is_in_the_summary(report):
    _, page, summary = report
    assert len(page.figures) > 100
    for path, value, text in page.figures:
        assert at(summary, path) == value, path
        if text.endswith(" %"):
            assert float(text[:-2]) == pytest.approx(100 * value, abs=0.0501), path
    shown = {json.dumps(path) for path, _, _ in page.figures}
    for path in (
        ["evaluations", 0, "tasks", "all", "sampled", "accuracy", "value"],
        ["evaluations", 1, "tasks", "odd", "greedy", "accuracy", "value"],
        ["evaluations", 1, "tasks", "even", "sampled", "hallucination_rate", "value"],
        ["evaluations", 1, "tasks", "all", "sampled", "format_rate", "value"],
        ["changes", "all", "sampled", "value"],
        ["training", 0, "thirds", "last", "effective_before"],
        ["training", 0, "num_tokens"],
        ["evaluations", 0, "generated_tokens", "sampled"],
        ["stages", 1, "seconds"],
        ["stages", 1, "seed"],
        ["evaluations", 0, "settings", "seed"],
    ):
        assert json.dumps(path) in shown, path


def test_the_summary_equals_the_inputs(report):
    run_dir, _, summary = report
    for index, folder in enumerate(("before", "after")):
        metrics = json.loads((run_dir / folder / "metrics.json").read_text())
        assert {key: summary["evaluations"][index][key] for key in metrics} == metrics
    assert [(stage["name"], stage["seconds"]) for stage in summary["stages"]] == [
        ("evaluate-base", 10.5), ("grpo", 21.0), ("evaluate-grpo", 31.5),
    ]  # fmt: skip
    assert summary["total_seconds"] == 63.0
    (run,) = summary["training"]
    assert [step["effective_before"] for step in run["steps"]] == pytest.approx([0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    assert [step["effective_after"] for step in run["steps"]] == [0.95] * 6
    assert run["means"]["effective_before"] == pytest.approx(0.55)
    assert run["thirds"]["first"]["effective_before"] == pytest.approx(0.75)
    assert run["thirds"]["last"]["dead_groups"] == pytest.approx(0.55)
    assert (run["num_steps"], run["num_tokens"]) == (6, 6000.0)


def test_changes_are_paired_by_row(report):
    import pandas as pd

    run_dir, _, summary = report
    tables = [pd.read_parquet(run_dir / folder / "records.parquet") for folder in ("before", "after")]
    before, after = (table[table["mode"] == "sampled"].groupby("row").accuracy.mean() for table in tables)
    odd = before.index % 2 == 1
    for task, rows in (("all", before.index >= 0), ("odd", odd), ("even", ~odd)):
        interval = stats.ttest_rel(after[rows], before[rows]).confidence_interval(0.95)
        found = summary["changes"][task]["sampled"]
        expected = [(after - before)[rows].mean(), interval.low, interval.high]
        assert [found[key] for key in ("value", "low", "high")] == pytest.approx(expected)


def test_page_stands_alone_and_text_is_escaped(report):
    _, page, summary = report
    assert page.sources and all(source.startswith("data:image/") for source in page.sources)
    assert "A <title>" in page.text and "First & last." in page.text and "Second." in page.text
    example = summary["examples"][0]
    assert f"What <is> {example['row']}?" in page.text and f"<b>trained</b> & {example['row']}" in page.text
    assert summary["notes"] == ["First & last.", "Second."]


def test_plots_are_written_beside_the_page(report):
    run_dir, _, _ = report
    names = {path.stem for path in (run_dir / "report" / "plots").glob("*.png")}
    assert names == {"accuracy", "reward", "effective_rows", "dead_groups", "buffer", "completion_length"}
    for path in (run_dir / "report" / "plots").glob("*.png"):
        with PILImage.open(path) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 20


def test_a_run_without_the_buffer_has_no_plots_of_it(run_dir):
    state = {"global_step": 2, "log_history": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]}
    (run_dir / "grpo" / "trainer_state.json").write_text(json.dumps(state))
    page, summary = write_report(run_dir)
    assert {path.stem for path in (run_dir / "report" / "plots").glob("*.png")} == {"accuracy", "loss"}
    assert "Effective rows" not in page.text and summary["training"][0]["num_tokens"] is None


def test_plotted_lines_are_the_logged_values():
    steps = [{"step": s, "effective_before": 0.1 * s, "effective_after": 0.5} for s in range(1, 6)]
    canvas = Figure()
    plots.draw_training(canvas, steps, plots.TRAINING_PLOTS["effective_rows"])
    axes = canvas.axes[0]
    lines = {line.get_label(): line.get_xydata() for line in axes.get_lines()}
    np.testing.assert_allclose(lines["the same batches without replay"], [[s, 10 * s] for s in range(1, 6)])
    np.testing.assert_allclose(lines["with replay"], [[s, 50] for s in range(1, 6)])
    assert axes.get_xlabel() == "optimizer step" and "%" in axes.get_ylabel()


def test_probes_of_the_monitor_stand_in_the_report(run_dir):
    state = json.loads((run_dir / "grpo" / "trainer_state.json").read_text())
    probes = {0: (0.5, 0.0), 3: (0.3, 0.4), 6: (0.2, 0.6)}
    for step, (rate, gap) in probes.items():
        place = next((i + 1 for i, entry in enumerate(state["log_history"]) if entry["step"] == step), 0)
        entry = {"step": step, "hallucination/num_responses": 64.0, "hallucination/grounding_gap": gap}
        entry["hallucination/rate"] = rate
        state["log_history"].insert(place, entry)
    (run_dir / "grpo" / "trainer_state.json").write_text(json.dumps(state))
    page, summary = write_report(run_dir)
    (run,) = summary["training"]
    assert [step["step"] for step in run["steps"]] == [0, 1, 2, 3, 4, 5, 6]
    assert run["num_tokens"] == 6000.0  # the last entry of the log is a probe, which counts no tokens
    assert run["means"]["hallucination_rate"] == pytest.approx(1 / 3)
    assert "Hallucination during training" in page.text
    canvas = Figure()
    plots.draw_training(canvas, run["steps"], plots.TRAINING_PLOTS["hallucination"])
    rate, gap = (axes.get_lines()[0].get_xydata() for axes in canvas.axes)
    np.testing.assert_allclose(rate, [[0, 50], [3, 30], [6, 20]])
    np.testing.assert_allclose(gap, [[0, 0], [3, 0.4], [6, 0.6]])


def test_probes_without_claims_are_drawn_too(run_dir):
    state = json.loads((run_dir / "grpo" / "trainer_state.json").read_text())
    for step in (2, 4):
        entry = {"step": step, "hallucination/num_responses": 8.0, "hallucination/object_error": 0.1 * step}
        state["log_history"].append(entry)
    (run_dir / "grpo" / "trainer_state.json").write_text(json.dumps(state))
    page, summary = write_report(run_dir)
    assert "Hallucination during training" in page.text
    canvas = Figure()
    plots.draw_training(canvas, summary["training"][0]["steps"], plots.TRAINING_PLOTS["hallucination"])
    (axes,) = canvas.axes
    (line,) = axes.get_lines()
    np.testing.assert_allclose(line.get_xydata(), [[2, 20], [4, 40]])
    assert line.get_label() == "wrong about an object"


def test_smoothing_keeps_constants_and_short_series():
    np.testing.assert_allclose(plots.smooth(np.full(200, 3.0)), 3.0)
    short = np.arange(20.0)
    assert plots.smooth(short) is short
    ramp = np.arange(100.0)
    np.testing.assert_allclose(plots.smooth(ramp)[10:90], ramp[10:90], atol=0.51)


def test_one_evaluation_alone(tmp_path):
    write_evaluation(tmp_path / "only", "base", 0.5, seed=3)
    args = ["--evaluations", str(tmp_path / "only"), "--output_dir", str(tmp_path / "out")]
    assert main(["report", *args]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["changes"] is None and summary["examples"] == [] and summary["stages"] == []
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert "Pass@1 of base on the test split is" in re.sub(r"\s+", " ", page.text)


def test_evaluations_of_different_rows_are_not_compared(tmp_path):
    write_evaluation(tmp_path / "a", "base", 0.5, seed=3)
    write_evaluation(tmp_path / "b", "trained", 0.5, seed=4, dataset="other rows", dataset_split="validation")
    args = ["--evaluations", str(tmp_path / "a"), str(tmp_path / "b"), "--output_dir", str(tmp_path / "out")]
    assert main(["report", *args]) == 0
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert "The evaluations measured different rows" in page.text


def test_examples_are_what_their_outcome_says_and_spread_over_tasks():
    def records(right: set[int]) -> list[Record]:
        task = {row: "rare" if row >= 18 else "common" for row in range(20)}
        return [Record(row, "greedy", 0, task[row], "", float(row in right), 1.0, None, 1, True) for row in range(20)]

    first, last = records({0, 1, 2}), records({0, 3, 4, 5, 6, 18, 19})
    examples = choose_examples(first, last, num_examples=2, seed=0)
    outcomes = {
        name: [e["row"] for e in examples if e["outcome"] == name] for name in ("gained", "kept", "lost", "missed")
    }
    assert outcomes["kept"] == [0] and set(outcomes["lost"]) == {1, 2} and len(outcomes["missed"]) == 2
    assert len(outcomes["gained"]) == 2 and set(outcomes["gained"]) & {18, 19}
    assert set(outcomes["missed"]) <= set(range(7, 18))
    assert examples == choose_examples(first, last, num_examples=2, seed=0)


def test_what_no_report_can_be_made_from(tmp_path, run_dir):
    with pytest.raises(ReportError, match="is no output folder of `trl-r1v2 run`"):
        read_stages(tmp_path)
    with pytest.raises(ReportError, match="holds no metrics.json"):
        read_evaluation(tmp_path)
    with pytest.raises(ReportError, match="there is no finished evaluation"):
        build_summary(title="", notes=[], stages=[], evaluations=[], training=[])
    twice = [read_evaluation(run_dir / "before")] * 2
    with pytest.raises(ReportError, match="give each its own `label`"):
        build_summary(title="", notes=[], stages=[], evaluations=twice, training=[])


def test_a_missing_run_ends_with_a_message(tmp_path, capsys):
    assert main(["report", "--run_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")]) == 2
    assert "is no output folder of `trl-r1v2 run`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("style", "value", "text"),
    [
        ("percent", 0.12345, "12.3 %"), ("points", -0.05, "−5.0"), ("points", 0.05, "+5.0"),
        ("seconds", 3.14, "3.1 s"),
        ("seconds", 125.2, "2 min 05 s"), ("seconds", 7380, "2 h 03 min"), ("integer", 12345, "12\u202f345"),
        ("number", 0.95, "0.95"),
    ],
)  # fmt: skip
def test_texts_of_figures(style, value, text):
    assert figure({"a": [value]}, style, "a", 0) == f'<data value="{value}" data-path="[&#34;a&#34;, 0]">{text}</data>'
    assert "–" in figure({"a": None}, style, "a") and "–" in figure({}, style, "a", "b")
