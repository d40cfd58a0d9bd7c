# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Tables, verdicts and a plot from the result files of `run.py`: `summary.json`, `tables.md` and `transfer.png`.

    python -m benchmarks.transfer.summary

Differences are paired by seed, intervals are Student's t, and p-values are Holm's over all comparisons.
"""

import json
from pathlib import Path

from benchmarks.ablations.claims import Claim, Estimate, corrected, paired, percent
from benchmarks.ablations.page import p_text
from benchmarks.transfer.run import KINDS, SETTINGS


RESULTS = Path(__file__).parent / "results"
FIGURES = ("accuracy", "hallucination_rate", "share_of_readings", "accuracy_of_readings")
MODES = ("sampled", "greedy")
RAW = "<!-- figures: benchmarks/transfer/results/summary.json -->"
# The comparisons: settings, mode, kind of rows, figure, direction if the article is right, and what would refute it.
COMPARISONS = (
    ("text", "base", "sampled", "images", "accuracy", 1, "no gain on images, or a loss"),
    ("text", "base", "greedy", "images", "accuracy", 1, "no gain on images, or a loss"),
    ("text", "base", "sampled", "images", "hallucination_rate", -1, "as many false readings as before, or more"),
    ("text", "noise", "sampled", "images", "accuracy", 1, "a coin for a reward gives the same gain"),
    ("text", "base", "sampled", "images", "accuracy_of_readings", 1, "who reads an image, reads it no better"),
    ("images", "base", "sampled", "text", "accuracy", 1, "no gain on text, or a loss"),
    ("images", "base", "greedy", "text", "accuracy", 1, "no gain on text, or a loss"),
    ("images", "base", "sampled", "text", "hallucination_rate", -1, "as many false readings as before, or more"),
)


def load(results: Path) -> dict[str, list[dict]]:
    """The runs of each setting in the order of the seeds that all settings have."""
    runs = {
        setting: {
            run["seed"]: run for path in results.glob(f"{setting}-*.json") for run in [json.loads(path.read_text())]
        }
        for setting in SETTINGS
    }
    seeds = sorted(set.intersection(*map(set, runs.values())))
    return {setting: [of_seed[seed] for seed in seeds] for setting, of_seed in runs.items()}


def estimate(runs: list[dict], part: str, figure: str) -> Estimate:
    return percent([run["figures"][part][figure] for run in runs])


def compare(runs: dict[str, list[dict]]) -> list[Claim]:
    claims = []
    for setting, other, mode, kind, figure, sign, refuted in COMPARISONS:
        difference = paired(*(estimate(runs[name], f"{mode}/{kind}", figure) for name in (setting, other)))
        what = f"`{setting}` less `{other}`, {kind}: {figure.replace('_', ' ')}, {mode}, points"
        claims.append(Claim(f"{setting}-{other}/{mode}/{kind}/{figure}", what, "–", sign, difference, refuted))
    return corrected(claims)


def summarise(runs: dict[str, list[dict]]) -> dict:
    return {
        "seeds": [run["seed"] for run in runs["base"]],
        "settings": {
            setting: {
                f"{mode}/{kind}": {figure: estimate(members, f"{mode}/{kind}", figure).as_dict() for figure in FIGURES}
                for mode in MODES
                for kind in KINDS
            }
            | {"cpu_seconds": [run["cpu_seconds"] for run in members]}
            for setting, members in runs.items()
        },
        "comparisons": {claim.what: claim.as_dict() for claim in compare(runs)},
    }


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [RAW, *("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)), ""]


def tables(runs: dict[str, list[dict]]) -> str:
    lines = []
    for kind in KINDS:
        head = [f"measured on {kind}, %", "accuracy, greedy", "accuracy, sampled", "hallucination rate"]
        head += ["answers that read", "right among those"]
        parts = [("greedy", "accuracy"), *(("sampled", figure) for figure in FIGURES)]
        rows = [
            [f"`{setting}`", *(estimate(members, f"{mode}/{kind}", figure).text() for mode, figure in parts)]
            for setting, members in runs.items()
        ]
        lines += _table(head, rows)
    rows = [
        [claim.what, claim.difference.text(signed=True), p_text(claim.p_corrected), claim.refuted, claim.verdict]
        for claim in compare(runs)
    ]
    lines += _table(["difference", "ours", "p (Holm)", "what would have refuted it", "verdict"], rows)
    return "\n".join(lines)


def draw(path: Path, runs: dict[str, list[dict]]) -> None:
    """Sampled accuracy on either kind of rows: a bar of what reads and is right, one of what guesses and is right."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    places = np.arange(len(runs))
    for axes, kind in zip(figure.subplots(1, 2, sharey=True), KINDS, strict=True):
        found = {name: [estimate(members, f"sampled/{kind}", name) for members in runs.values()] for name in FIGURES}
        total = [value.mean for value in found["accuracy"]]
        reading = [
            np.mean([100 * a * b for a, b in zip(share.values, right.values, strict=True)])
            for share, right in zip(found["share_of_readings"], found["accuracy_of_readings"], strict=True)
        ]
        axes.bar(places, reading, color="tab:blue", label="reads, and is right")
        axes.bar(
            places, np.subtract(total, reading), bottom=reading, color="tab:orange", label="guesses, and is right"
        )
        axes.errorbar(places, total, [value.half_width for value in found["accuracy"]], fmt="none", ecolor="black",
                      capsize=4)  # fmt: skip
        axes.set_xticks(places, runs)
        axes.set(title=f"Measured on {kind}", xlabel="trained on", ylim=(0, 100))
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("sampled answers, %")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=120)


def main():
    runs = load(RESULTS)
    (RESULTS / "summary.json").write_text(json.dumps(summarise(runs), indent=1) + "\n", encoding="utf-8")
    (RESULTS / "tables.md").write_text(tables(runs), encoding="utf-8")
    draw(RESULTS / "transfer.png", runs)
    print(tables(runs))


if __name__ == "__main__":
    main()
