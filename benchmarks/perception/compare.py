# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What makes a model read its images better: GRPO by accuracy and format, with a perception term, or with the rule of
factual consistency, from a base whose adapter is weak and which never guesses (`recipes/digits/clean_base.yaml`).

    python -m benchmarks.perception.compare --base runs/digits_clean/base --data runs/digits/data

Everything else is the recipe's and equal in all. Measured on the test split, greedy and sampled: right answers to rows
with images, and answers whose reasoning claims a digit that is not shown. Differences are paired by seed, intervals
are Student's t, p-values Holm's over all of them. Runs that have a result file are skipped; `summary.json` and
`table.md` come out beside them.
"""

import argparse
import json
from pathlib import Path

from benchmarks.ablations.claims import Claim, corrected, paired, percent
from benchmarks.ablations.page import markdown_table, p_text
from benchmarks.perception.term import trainer_with
from benchmarks.results import write_result
from benchmarks.rewards.factual_consistency import MODES, make_parser, train_and_measure
from benchmarks.rewards.factual_consistency import SETTINGS as REWARDS
from trl_r1v2 import SSBGRPOTrainer


SETTINGS = {
    "neither": ("without", SSBGRPOTrainer),
    "term": ("without", trainer_with(0.01, 0.6)),
    "rule": ("with", SSBGRPOTrainer),
}
FIGURES = {"accuracy/images": ("right with images", 1), "hallucination": ("hallucination rate", -1)}


def run(arguments: argparse.Namespace, setting: str, seed: int) -> dict:
    rewards, trainer_class = SETTINGS[setting]
    trainer, result = train_and_measure(arguments, setting, seed, REWARDS[rewards], trainer_class=trainer_class)
    divergence = [entry["perception"] for entry in trainer.state.log_history if "perception" in entry]
    return result | {"perception": divergence}


def summarise(runs: dict[str, list[dict]]) -> tuple[dict, str]:
    """Figures of every setting and their differences from `neither`, as data and as a table."""
    parts = [(mode, figure) for mode in MODES for figure in FIGURES]
    values = {
        setting: {part: percent([run[part[0]][part[1]] for run in members]) for part in parts}
        for setting, members in runs.items()
    }
    claims = corrected(
        [
            Claim(f"{setting}/{mode}/{figure}", "", "", FIGURES[figure][1], paired(found[mode, figure], plain), "")
            for setting, found in values.items()
            if setting != "neither"
            for (mode, figure), plain in values["neither"].items()
        ]
    )
    changes = {claim.name: claim for claim in claims}
    rows, summary = [], {}
    for setting, found in values.items():
        row, summary[setting] = [setting], {}
        for (mode, figure), value in found.items():
            text, entry = value.text(), value.as_dict()
            if claim := changes.get(f"{setting}/{mode}/{figure}"):
                text += f", {claim.difference.text(signed=True)} (p {p_text(claim.p_corrected)})"
                entry["change"] = claim.difference.as_dict() | {"p": claim.p_value, "p_corrected": claim.p_corrected}
            summary[setting][f"{mode}/{figure}"] = entry | {"shown": text}
            row.append(text)
        rows.append(row)
    return summary, "\n".join(markdown_table(["", *(f"{FIGURES[name][0]}, {mode}, %" for mode, name in parts)], rows))


def main():
    folders = {"work": Path("runs/perception"), "results": Path(__file__).parent / "results"}
    arguments = make_parser(__doc__, **folders).parse_args()
    paths = {
        (setting, seed): arguments.results / f"{setting}-{seed}.json"
        for seed in range(arguments.seeds)  # seeds outermost: an interrupted comparison still compares like with like
        for setting in SETTINGS
    }
    for (setting, seed), path in paths.items():
        if not path.exists():
            write_result(path, run(arguments, setting, seed))
            print(f"{setting}, seed {seed}: done", flush=True)
    runs = {
        setting: [json.loads(paths[setting, seed].read_text()) for seed in range(arguments.seeds)]
        for setting in SETTINGS
    }
    summary, table = summarise(runs)
    write_result(arguments.results / "summary.json", {"settings": summary, "steps": arguments.steps})
    (arguments.results / "table.md").write_text(f"{table}\n", encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
