# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The ablations' intervals, tables and sentences against hand computations, and the kept page against the raw results.
"""

import json
import math
import re
import statistics
import subprocess
from pathlib import Path

import pytest
from scipy import stats


ROOT = Path(__file__).parents[2]

from benchmarks.ablations import page, sections  # noqa: E402
from benchmarks.ablations.claims import (  # noqa: E402
    AGREES,
    BY_CONSTRUCTION,
    OPPOSITE,
    UNDECIDED,
    Claim,
    Estimate,
    corrected,
    paired,
    percent,
    sentence,
)
from benchmarks.environment import environment  # noqa: E402


def half_width(values) -> float:
    """Half the 95 % Student-t interval of the mean, from the textbook's formula."""
    return stats.t(df=len(values) - 1).ppf(0.975) * statistics.stdev(values) / math.sqrt(len(values))


def claim(values, sign, name="it") -> Claim:
    return Claim(name, "a less b", "ahead", sign, Estimate(tuple(values)))


def write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_estimate():
    estimate = percent([0.5, 0.6, 0.8])
    assert estimate.mean == pytest.approx(100 * 1.9 / 3)
    assert estimate.half_width == pytest.approx(100 * half_width([0.5, 0.6, 0.8]))
    assert estimate.text() == "63.3 ± 37.9"  # t(0.975; 2) = 4.3027, s = 0.152753
    assert paired(estimate, percent([0.4, 0.6, 0.6])).text(signed=True) == "+10.0 ± 24.8"  # s = 0.1
    assert percent([0.5]).text() == "50.0"
    assert percent([0.5]).half_width is None


@pytest.mark.parametrize(
    ("values", "sign", "verdict"),
    [
        ([1.0, 1.2, 0.8, 1.1, 0.9], 1, AGREES),
        ([1.0, 1.2, 0.8, 1.1, 0.9], -1, OPPOSITE),
        ([-1.0, -1.2, -0.8], -1, AGREES),
        ([-1.0, -1.2, -0.8], 1, OPPOSITE),
        ([-1.0, 1.0, 0.5, -0.4], 1, UNDECIDED),
        ([3.0], 1, UNDECIDED),
        ([1.0, 1.2], 0, None),
    ],
)
def test_verdict(values, sign, verdict):
    assert claim(values, sign).verdict == verdict


def test_verdict_turns_where_the_interval_reaches_zero():
    values = [-1.0, 0.0, 0.5, 0.5]
    half = half_width(values)
    assert claim([value + 1.001 * half for value in values], 1).verdict == AGREES
    assert claim([value + 0.999 * half for value in values], 1).verdict == UNDECIDED
    assert claim([value - 1.001 * half for value in values], 1).verdict == OPPOSITE


def test_verdicts_are_corrected_for_their_number():
    values = [1.0, 1.2, 0.8, 1.4, 0.1]
    p_value = 2 * stats.t(df=4).sf(statistics.mean(values) / (statistics.stdev(values) / math.sqrt(5)))
    assert claim(values, 1).p_value == pytest.approx(p_value) and 0.01 < p_value < 0.05
    assert claim(values, 1).verdict == AGREES
    assert corrected([claim(values, 1)])[0].p_corrected == pytest.approx(p_value)
    noise = claim([-1.0, 1.0, 0.5, -0.4, 0.2], 1)
    first, *others = corrected([claim(values, 1)] + 4 * [noise])
    assert first.p_corrected == pytest.approx(5 * p_value) and first.verdict == UNDECIDED
    # What is claimed by nobody, or true anyhow, is no test: it takes nothing from the others.
    untested = [claim([1.0, 1.1, 0.9], 0), Claim("it", "a less b", "ahead", 1, noise.difference, "–", True)]
    first, silent, constructed, _ = corrected([claim(values, 1), *untested, noise])
    assert first.p_corrected == pytest.approx(2 * p_value)
    assert (silent.verdict, silent.p_corrected) == (None, None)
    assert (constructed.verdict, constructed.p_corrected) == (BY_CONSTRUCTION, None)
    assert [claim([2.0, 2.0], 1).p_value, claim([0.0, 0.0], 1).p_value, claim([2.0], 1).p_value] == [0.0, 1.0, 1.0]


def test_results_name_commit_and_command():
    known = {"environment": {"commit": "0123abc", "command": "python -m benchmarks.x"}}
    assert sections.source([known, known]) == "Made by `python -m benchmarks.x` at commit 0123abc."
    assert sections.source([{}]) == "Commit and command not recorded."
    some = sections.source([known, {"environment": {}}])
    assert some.endswith("0123abc. Commit and command not recorded of the others.")
    made = environment()
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    assert head.startswith(made["commit"].removesuffix("+changes")) and made["command"].startswith("python ")


def test_sentence():
    up, down, wide = [1.0, 1.1, 0.9], [-1.0, -1.1, -0.9], [-1.0, 1.0, 0.1]
    assert sentence([claim(up, 1, "speed")]) == "Agrees with the paper in direction on speed."
    assert sentence([claim(down, 1, "speed")]) == "Is opposite to the paper in direction on speed."
    assert sentence([claim(wide, 1, "speed")]) == "Does not tell the settings apart on speed."
    every = [claim(wide, 1, "weight"), claim(up, 1, "speed"), claim(down, -1, "price"), claim(up, -1, "noise")]
    every += [claim(up, 0, "colour"), Claim("share", "a less b", "ahead", 1, every[1].difference, "–", True)]
    assert sentence(every) == (
        "Agrees with the paper in direction on speed and price; is opposite to the paper in direction on noise; does "
        "not tell the settings apart on weight; could not have disagreed on share."
    )


def methods_run(setting: str, seed: int, accuracy: float, hallucination: float) -> dict:
    mode = {"accuracy": accuracy, "hallucination_rate": hallucination, "format_rate": 1.0}
    return {
        "setting": setting,
        "seed": seed,
        "learning_rate": 1e-3,
        "figures": {"greedy": mode, "sampled": mode},
        "train_cpu_seconds": 30.0,
        "steps": [],
    }


def test_methods(tmp_path):
    accuracy = {"sft": 0.5, "dpo": 0.7, "trl_mpo": 0.7, "mpo_no_shift": 0.7, "mpo": 0.7, "grpo": 0.8, "mpo_grpo": 0.9}
    waver = {"dpo": [0.1, 0.0, -0.1], "mpo": [0.0, 0.01, 0.02]}
    for setting, centre in accuracy.items():
        for seed in range(3):
            value = centre + waver.get(setting, [0.0, 0.01, 0.0])[seed]
            write(tmp_path / f"methods/{setting}-{seed}.json", methods_run(setting, seed, value, 1 - value))
    write(tmp_path / "methods/mpo-3.json", methods_run("mpo", 3, 0.0, 0.0))  # a seed that the others do not have
    write(tmp_path / "methods/base-0.json", methods_run("base", 0, 0.3, 0.7))

    section = sections.methods(tmp_path)
    assert section.seeds == [0, 1, 2]
    assert section.num_runs == 21
    assert section.cpu_seconds == 21 * 30
    rows = {row[0]: row[1:] for row in table_of(section)}
    mpo = [70.0, 71.0, 72.0]
    assert rows["MPO"] == [f"71.0 ± {half_width(mpo):.1f}"] * 2 + [f"29.0 ± {half_width(mpo):.1f}"] * 2 + ["8.7"]
    assert rows["base"] == ["30.0", "30.0", "70.0", "70.0", "–"]
    assert rows["GRPO"][-1] == "–"

    found = {claim.what: claim for claim in section.claims}
    less_sft = found["MPO less SFT, Pass@1, points"]
    assert less_sft.difference.text(signed=True) == f"+20.7 ± {half_width([20.0, 20.0, 22.0]):.1f}"
    assert less_sft.verdict == AGREES
    assert found["MPO less DPO, Pass@1, points"].verdict == UNDECIDED  # -10, +1 and +12 points
    assert found["MPO less MPO + GRPO, hallucination rate, sampled, points"].verdict == OPPOSITE  # 29 against 10 %
    assert found["MPO + GRPO less GRPO, Pass@1, points"].verdict is None
    section.draw(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def table_of(section) -> list[list[str]]:
    """The cells of the section's first table as they are printed."""
    lines = [line for line in page.render_section(section, "") if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2 : 2 + len(section.rows)]]


def test_sample_buffer(tmp_path):
    final = {
        "stock": [0.8, 0.9],
        "paper": [0.9, 0.9],
        "fresh": [0.8, 0.8],
        "share": [0.8, 0.8],
        "resample": [0.8, 0.8],
    }
    for setting, values in final.items():
        for seed, value in enumerate(values):
            points = [(0, 0.4), (10, 0.6), (40, value)]
            points = [
                {"step": step, "accuracy": accuracy, "generated_tokens": 100 * step, "train_cpu_seconds": 1.5 * step}
                for step, accuracy in points
            ]
            # Eight steps: the last quarter is the last two.
            steps = [{"ssb/effective_before": 1 - k / 10, "ssb/effective_after": 1.0 - seed / 10} for k in range(8)]
            run = {"setting": setting, "seed": seed, "points": points, "steps": steps}
            write(tmp_path / f"{setting}-{seed}.json", run)
    section = sections.sample_buffer(tmp_path)
    rows = {row[0]: row[1:] for row in table_of(section)}
    # Mean over the steps by trapezia: (0.5 * 10 + (0.6 + final) / 2 * 30) / 40.
    means = [100 * (5 + 15 * (0.6 + value)) / 40 for value in final["stock"]]
    assert rows["stock GRPO"][:2] == [
        f"85.0 ± {half_width([80, 90]):.1f}",
        f"{statistics.mean(means):.1f} ± {half_width(means):.1f}",
    ]
    assert rows["SSB, `paper`"][2:5] == ["35.0 ± 0.0", f"95.0 ± {half_width([100, 90]):.1f}", "4 ± 0"]
    assert section.claims[0].difference.text(signed=True) == f"+5.00 ± {half_width([10, 0]):.2f}"
    effective = section.claims[-1].difference
    assert effective.values == pytest.approx((1.0 - 0.35, 0.9 - 0.35))
    assert section.cpu_seconds == 10 * 60


def activation_run(preset: str, seed: int, rate: float, accuracy: float) -> dict:
    figures = {"accuracy/all": accuracy, "accuracy/images": accuracy, "hallucination": 0.2}
    return {
        "preset": preset,
        "seed": seed,
        "learning_rate": rate,
        "trained_parameters": 1000,
        "train_cpu_seconds": 6.0,
        "train_accuracy": [0.1, 0.2],
        "greedy": figures,
        "sampled": figures,
    }


def test_activation_takes_the_chosen_rate_and_complete_seeds(tmp_path):
    write(tmp_path / "base.json", activation_run("adapter", 0, 0, 0.3))
    for preset, accuracy in {"adapter": 0.9, "llm+adapter": 0.8, "adapter+vision": 0.95}.items():
        for rate, found in ((1e-3, 0.5), (1e-2, 0.7), (1e-1, 0.7)):  # of equal ones the smaller
            run = activation_run(preset, 1000, rate, found)
            write(tmp_path / f"validation-{preset}-{rate:g}-1000.json", run)
        for seed in range(3 if preset == "adapter" else 2):
            run = activation_run(preset, seed, 1e-2, accuracy + seed / 500)
            write(tmp_path / f"test-{preset}-0.01-{seed}.json", run)
            write(
                tmp_path / f"test-{preset}-0.1-{seed}.json", run | {"learning_rate": 0.1, "greedy": {}, "sampled": {}}
            )
    section = sections.activation(tmp_path)
    assert section.seeds == [0, 1]
    rows = {row[0]: row[1:] for row in table_of(section)}
    assert rows["`adapter`"][1:3] == ["0.01", f"90.1 ± {half_width([90, 90.2]):.1f}"]
    verdicts = {claim.what: claim.verdict for claim in section.claims}
    assert verdicts["`adapter` less `llm+adapter`, greedy accuracy, points"] == AGREES
    assert verdicts["`adapter` less `adapter+vision`, greedy accuracy, points"] == OPPOSITE


def test_thresholds(tmp_path):
    accuracy = {0.5: [0.3, 0.4, 0.5], 1.0: [0.3, 0.7, 0.6], 1.5: [0.3, 0.6, 0.6]}
    for threshold, of_threshold in accuracy.items():
        for seed in range(2):
            points = [
                {
                    "sampled": {"accuracy": value + seed / 100, "hallucination_rate": 0.2},
                    "pairs": {"chosen_right": value},
                }
                for value in of_threshold
            ]
            run = {"threshold": threshold, "seed": seed, "points": points, "cpu_seconds": 60.0}
            write(tmp_path / f"thresholds/{threshold:g}-{seed}.json", run)
    section = sections.thresholds(tmp_path)
    differences = {claim.what: claim.difference.mean for claim in section.claims}
    assert list(differences.values()) == pytest.approx([20.0, 10.0, 0.0, -10.0])
    assert list(differences)[-1] == "1: round 2 less round 1, Pass@1, points"
    assert table_of(section)[1][1:3] == [f"70.5 ± {half_width([70, 71]):.1f}", f"60.5 ± {half_width([60, 61]):.1f}"]


def test_reward_hacking(tmp_path):
    for setting, rates, right in (("watched", [0.1, 0.5, 0.8, 0.8], 0.2), ("controlled", [0.1, 0.2, 0.1, 0.1], 0.9)):
        for seed in range(2):
            training = [{"reward": 3 + k / 10, "hybrid/accuracy/mean": 0.9 if k < 10 else right} for k in range(20)]
            probes = [{"rate": rate, "step": 5 * k} for k, rate in enumerate(rates)]
            run = {
                "setting": setting,
                "seed": seed,
                "training": training,
                "probes": probes,
                "cpu_seconds": 1,
                "moves": [],
            }
            write(tmp_path / f"{setting}-{seed}.json", run)
    section = sections.hacking(tmp_path)
    assert [claim.verdict for claim in section.claims] == 3 * [BY_CONSTRUCTION] + 2 * [AGREES]
    differences = [claim.difference.mean for claim in section.claims]
    # Reward 3.45 and 4.45; right 0.9 and 0.2; rate 0.1, then the mean of 0.5, 0.8 and 0.8; controlled 0.4 / 3.
    assert differences == pytest.approx([1.0, -70.0, 60.0, 100 * (0.4 / 3 - 0.7), 70.0])


def test_nothing_run_is_said(tmp_path):
    found = sections.sections(sections.Results.under(tmp_path))
    text = page.render(found, "")
    assert text.count("Not run.") == 1 + len(found)
    assert "![" not in text


def test_insert_needs_its_markers(tmp_path):
    document = tmp_path / "page.md"
    document.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    page.insert(document, [], "plots/")
    text = document.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    page.insert(document, [], "plots/")
    assert document.read_text() == text
    document.write_text(f"{page.END}\n{page.BEGIN}\n")
    with pytest.raises(ValueError, match=re.escape(str(document))):
        page.insert(document, [], "plots/")


def test_kept_page_is_that_of_the_raw_results(tmp_path):
    found = sections.sections(sections.Results.kept())
    kept = ROOT / "benchmarks" / "ablations"
    figures = ((kept / "summary.json").read_text(), json.dumps(page.summary(found)))
    old, new = (json.loads(text, parse_float=lambda figure: round(float(figure), 9)) for text in figures)
    assert old == new
    assert (kept / "tables.md").read_text().endswith("\n\n" + page.render(found, ""))
    document = tmp_path / "ablations.md"
    document.write_text((ROOT / "docs" / "ablations.md").read_text())
    page.insert(document, found, "../benchmarks/ablations/")
    assert document.read_text() == (ROOT / "docs" / "ablations.md").read_text()
    for plot in re.findall(r"!\[.*?\]\((.*?)\)", document.read_text()):
        assert (ROOT / "docs" / plot).is_file()


def test_kept_mpo_grpo_continues_the_kept_mpo():
    folder = sections.Results.kept().mpo / "methods"
    for path in folder.glob("mpo_grpo-*.json"):
        run = json.loads(path.read_text())
        assert run["steps"] == json.loads((folder / f"mpo-{run['seed']}.json").read_text())["steps"]
        assert len(run["grpo_log"]) == run["grpo_steps"]
