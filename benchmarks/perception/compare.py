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

import yaml
from datasets import load_dataset

from benchmarks.ablations.claims import Claim, corrected, paired, percent
from benchmarks.ablations.page import markdown_table, p_text
from benchmarks.activation.train_one import measure, train
from benchmarks.environment import environment
from benchmarks.perception.term import trainer_with
from benchmarks.results import write_result
from trl_r1v2 import SSBGRPOTrainer
from trl_r1v2.rewards import FactualConsistencyReward, accuracy_reward, format_reward


RULES = (accuracy_reward, format_reward)
SETTINGS = {
    "neither": (RULES, SSBGRPOTrainer),
    "term": (RULES, trainer_with(0.01, 0.6)),
    "rule": ((*RULES, FactualConsistencyReward(shown_column="digits")), SSBGRPOTrainer),
}
MODES = {"greedy": False, "sampled": True}
FIGURES = {"accuracy/images": ("right with images", 1), "hallucination": ("hallucination rate", -1)}
MAX_NEW_TOKENS = 32


def run(arguments: argparse.Namespace, setting: str, seed: int) -> dict:
    rate = float(yaml.safe_load(Path(arguments.recipe).read_text())["learning_rate"])
    options = ("llm+adapter", rate, seed, arguments.steps, *SETTINGS[setting])
    trainer, result = train(arguments.base, arguments.data, arguments.recipe, arguments.work, *options)
    rows = load_dataset(arguments.data, split="test")
    for name, do_sample in MODES.items():
        result[name] = measure(trainer.model, trainer.processing_class, rows, MAX_NEW_TOKENS, do_sample)
    divergence = [entry["perception"] for entry in trainer.state.log_history if "perception" in entry]
    return result | {"setting": setting, "perception": divergence, "environment": environment()}


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


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="folder of the model to start from")
    parser.add_argument("--data", required=True, help="folder of the digit tasks")
    parser.add_argument("--recipe", default="recipes/digits/grpo.yaml")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--work", type=Path, default=Path("runs/perception"), help="folder of the trainer")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    return parser


def main():
    arguments = make_parser().parse_args()
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
