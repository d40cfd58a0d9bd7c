# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
GRPO on the digit tasks by accuracy and format, with and without the rule of factual consistency beside them.

    python -m benchmarks.rewards.factual_consistency --base runs/digits/base --data runs/digits/data

Everything else is the recipe's, for 60 steps, and equal in both. Measured on the test split: right answers, and
answers whose reasoning claims a digit that is not shown, as `examples.digits.text` reads it; the rule reads by itself.
Runs that have a result file are skipped. Tables: `python -m benchmarks.ablations --kept`.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml
from datasets import load_dataset

from benchmarks.activation.train_one import measure, train
from benchmarks.environment import environment
from benchmarks.results import write_result
from trl_r1v2 import SSBGRPOTrainer
from trl_r1v2.rewards import FactualConsistencyReward, accuracy_reward, format_reward


SETTINGS = {
    "without": [accuracy_reward, format_reward],
    "with": [accuracy_reward, format_reward, FactualConsistencyReward(shown_column="digits")],
}
MODES = {"greedy": False, "sampled": True}
MAX_NEW_TOKENS = 32


def train_and_measure(
    arguments: argparse.Namespace, setting: str, seed: int, reward_funcs: Sequence[Callable], **options
) -> tuple[SSBGRPOTrainer, dict]:
    """Train and measure one setting; `options` are of [`train`]."""
    rate = float(yaml.safe_load(Path(arguments.recipe).read_text())["learning_rate"])
    of_run = ("llm+adapter", rate, seed, arguments.steps, reward_funcs)
    trainer, result = train(arguments.base, arguments.data, arguments.recipe, arguments.work, *of_run, **options)
    rows = load_dataset(arguments.data, split="test")
    for name, do_sample in MODES.items():
        result[name] = measure(trainer.model, trainer.processing_class, rows, MAX_NEW_TOKENS, do_sample)
    return trainer, result | {"setting": setting, "environment": environment()}


def run(arguments: argparse.Namespace, setting: str, seed: int) -> dict:
    return train_and_measure(arguments, setting, seed, SETTINGS[setting])[1]


def make_parser(
    description: str | None = __doc__,
    work: Path = Path("runs/factual_consistency"),
    results: Path = Path(__file__).parent / "results" / "factual_consistency",
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="folder of the model to start from")
    parser.add_argument("--data", required=True, help="folder of the digit tasks")
    parser.add_argument("--recipe", default="recipes/digits/grpo.yaml")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--work", type=Path, default=work, help="folder of the trainer")
    parser.add_argument("--results", type=Path, default=results)
    return parser


def compare(arguments: argparse.Namespace, report: Callable[[str], None]) -> None:
    """Make the runs that have no result file, and tell `report` of each."""
    for seed in range(arguments.seeds):  # seeds outermost: an interrupted comparison still compares like with like
        for setting in SETTINGS:
            path = arguments.results / f"{setting}-{seed}.json"
            if not path.exists():
                write_result(path, run(arguments, setting, seed))
                report(f"{setting}, seed {seed}: done")


if __name__ == "__main__":
    compare(make_parser().parse_args(), lambda line: print(line, flush=True))
