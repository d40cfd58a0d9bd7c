# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Which components train: the three presets of R1V2's Table 4 by GRPO on the digit tasks, over several seeds.

    python -m benchmarks.activation.compare --base runs/digits/base --data runs/digits/data
    python -m benchmarks.activation.compare --base runs/digits_clean/base --data runs/digits/data --steps 30 \
        --rates 3e-5 1e-4 3e-4 1e-3 3e-3 --results benchmarks/activation/results_clean

The second starts from a model whose language model never guesses (`recipes/digits/clean_base.yaml`).

First a learning rate is chosen for each preset: one run for each of three to five rates, with a seed that is not used
again, and the best greedy accuracy on the validation split. Then the seeds run with it and are measured on the test
split. All runs start from the same base model, so the intervals cover the seed of GRPO and nothing else. One process
does it all; runs that have a result file are skipped, so the comparison can be interrupted.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from datasets import load_dataset
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmarks.activation.summary import PRESETS, chosen_rates, summarise
from benchmarks.activation.train_one import measure, train
from benchmarks.environment import environment
from benchmarks.results import write_result


# With a frozen LLM no rate helps here; the grids go down to where nothing changes and up to where it gets worse.
LEARNING_RATES = {
    "adapter": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "llm+adapter": (1e-4, 3e-4, 1e-3),
    "adapter+vision": (1e-4, 3e-4, 1e-3, 3e-3),
}
SELECTION_SEED = 1000
MAX_NEW_TOKENS = 32


def result_of(arguments, preset: str, learning_rate: float, seed: int, split: str, report: Callable) -> dict:
    """The result file of a run, made by running it where there is none."""
    path = arguments.results / f"{split}-{preset}-{learning_rate:g}-{seed}.json"
    if not path.exists():
        scratch = Path(arguments.base).parent / "activation"
        trainer, result = train(
            arguments.base, arguments.data, arguments.recipe, scratch, preset, learning_rate, seed, arguments.steps
        )
        rows = load_dataset(arguments.data, split=split)
        modes = {"greedy": False, "sampled": True} if split == "test" else {"greedy": False}
        for name, do_sample in modes.items():
            result[name] = measure(trainer.model, trainer.processing_class, rows, MAX_NEW_TOKENS, do_sample)
        result |= {"split": split, "environment": environment()}
        write_result(path, result)
        report(f"{path.stem}: greedy {result['greedy']['accuracy/all']:.3f}")
    return json.loads(path.read_text())


def measure_base(arguments) -> None:
    path = arguments.results / "base.json"
    if path.exists():
        return
    model = AutoModelForImageTextToText.from_pretrained(arguments.base, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(arguments.base, padding_side="left")
    rows = load_dataset(arguments.data, split="test")
    figures = {
        name: measure(model, processor, rows, MAX_NEW_TOKENS, do_sample)
        for name, do_sample in (("greedy", False), ("sampled", True))
    }
    write_result(path, figures | {"environment": environment()})


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="folder of the model to start from")
    parser.add_argument("--data", required=True, help="folder of the digit tasks")
    parser.add_argument("--recipe", default="recipes/digits/grpo.yaml")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rates", type=float, nargs="+", help="learning rates to search for all presets")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    return parser


def compare(arguments: argparse.Namespace, report: Callable[[str], None]) -> None:
    """Make the runs that have no result file, and tell `report` of each."""
    arguments.results.mkdir(parents=True, exist_ok=True)
    measure_base(arguments)
    for preset in PRESETS:
        for rate in arguments.rates or LEARNING_RATES[preset]:
            result_of(arguments, preset, rate, SELECTION_SEED, "validation", report)
    chosen = chosen_rates(arguments.results)
    # Seeds outermost: an interrupted comparison still compares like with like.
    for seed in range(arguments.seeds):
        for preset in PRESETS:
            result_of(arguments, preset, chosen[preset], seed, "test", report)


def main():
    arguments = make_parser().parse_args()
    compare(arguments, lambda line: print(line, flush=True))
    summarise(arguments.results)


if __name__ == "__main__":
    main()
