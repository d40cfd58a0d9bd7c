# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
SFT, DPO, TRL's MPO and ours on the same pairs, MPO followed by GRPO, and iterated MPO under three reward thresholds.

    python -m benchmarks.mpo.compare --base runs/digits/base --data runs/digits/data

1. Pairs: `trl-r1v2 pairs` samples the base model once for each seed.
2. Search: SFT, DPO and MPO are trained with each learning rate on the pairs of a seed of their own, and measured on
   the validation split. TRL's MPO and MPO without a shift take the rate of MPO.
3. Comparison: every setting, every seed, measured on the test split. Two settings end with GRPO: from MPO's model and,
   to compare, from the base.
4. Thresholds: iterated MPO, for each threshold and seed.

Runs that have a result file are skipped, so the comparison can be interrupted. All runs are made in one process, one
by one; the threads are those that the environment gives it (OMP_NUM_THREADS).
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from benchmarks.mpo import train_grpo, train_iterated, train_one
from benchmarks.mpo.summary import summarise
from benchmarks.results import write_result
from trl_r1v2.scripts import pairs
from trl_r1v2.scripts.parser import parser_of


RATES = (1e-4, 3e-4, 1e-3)
SEARCHED = ("sft", "dpo", "mpo")
SEARCH_SEED = 100
THRESHOLDS = (0.5, 1.0, 1.5)
PARTS = ("search", "methods", "thresholds", "summary")


def pairs_of(arguments, seed: int) -> str:
    """Folder of a seed's pairs, sampled if they are not there."""
    folder = Path(arguments.work_dir) / f"pairs-{seed}"
    if not (folder / "data").is_dir():
        options = {"model_name_or_path": arguments.base, "dataset_name": arguments.data, "output_dir": str(folder)}
        options |= {"config": arguments.pairs_recipe, "seed": str(seed), "max_prompts": str(arguments.num_prompts)}
        command_line = [part for name, value in options.items() for part in (f"--{name}", value)]
        pairs.main(*parser_of(pairs.main).parse_args_and_config(command_line))
    return str(folder)


def train(arguments, setting: str, seed: int, rate: float | None, split: str, output: Path, report: Callable) -> None:
    if output.exists():
        return
    of_run = {
        "setting": setting,
        "seed": seed,
        "learning_rate": rate,
        "base": arguments.base,
        "pairs": pairs_of(arguments, seed),
        "data": arguments.data,
        "split": split,
        "recipe": arguments.recipe,
        "steps": arguments.steps,
    }
    if setting in train_grpo.SETTINGS:
        run = train_grpo.GRPORun(**of_run, grpo_recipe=arguments.grpo_recipe, grpo_steps=arguments.grpo_steps)
        write_result(output, train_grpo.train_and_measure(run))
    else:
        write_result(output, train_one.train_and_measure(train_one.Run(**of_run)))
    report(f"{output.parent.name} {output.stem}: done")


def search(arguments, report: Callable) -> None:
    folder = arguments.results / "search"
    for setting in SEARCHED:
        for rate in RATES:
            output = folder / f"{setting}-{rate:g}.json"
            train(arguments, setting, SEARCH_SEED, rate, "validation", output, report)
    found = {}
    for setting in SEARCHED:
        runs = [json.loads((folder / f"{setting}-{rate:g}.json").read_text()) for rate in RATES]
        best = max(runs, key=lambda run: run["figures"]["sampled"]["accuracy"])
        found[setting] = best["learning_rate"]
    rates = {setting: found.get(setting, found["mpo"]) for setting in train_one.SETTINGS}
    (arguments.results / "learning_rates.json").write_text(json.dumps(rates, indent=1) + "\n")


def methods(arguments, report: Callable) -> None:
    rates = json.loads((arguments.results / "learning_rates.json").read_text())
    # In the runs with GRPO the rate is that of the MPO before it; GRPO's is its recipe's.
    rates |= {"grpo": None, "mpo_grpo": rates["mpo"]}
    folder = arguments.results / "methods"
    train(arguments, "base", 0, None, "test", folder / "base-0.json", report)
    # Seeds outermost: an interrupted comparison still compares like with like.
    for seed in range(arguments.seeds):
        for setting in (*train_one.SETTINGS, *train_grpo.SETTINGS):
            train(arguments, setting, seed, rates[setting], "test", folder / f"{setting}-{seed}.json", report)


def thresholds(arguments, report: Callable) -> None:
    rate = json.loads((arguments.results / "learning_rates.json").read_text())["mpo"]
    for seed in range(arguments.threshold_seeds):
        for threshold in THRESHOLDS:
            output = arguments.results / "thresholds" / f"{threshold:g}-{seed}.json"
            if output.exists():
                continue
            run = train_iterated.IteratedRun(
                threshold=threshold,
                seed=seed,
                learning_rate=rate,
                base=arguments.base,
                data=arguments.data,
                recipe=arguments.recipe,
                output_dir=str(Path(arguments.work_dir) / "trainer"),
                iterations=arguments.iterations,
                steps=arguments.iteration_steps,
            )
            write_result(output, train_iterated.train_and_measure(run))
            report(f"threshold {output.stem}: done")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "compare")
    parser.add_argument("--work_dir", default="runs/mpo_compare", help="folder of the pairs")
    parser.add_argument("--pairs_recipe", default="recipes/digits/pairs.yaml")
    parser.add_argument("--num_prompts", type=int, default=600, help="prompts of the pairs")
    parser.add_argument("--recipe", default="recipes/digits/mpo.yaml")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--grpo_recipe", default="recipes/digits/grpo.yaml")
    parser.add_argument("--grpo_steps", type=int, default=60)
    parser.add_argument("--threshold_seeds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--iteration_steps", type=int, default=30)
    return parser


def compare(arguments: argparse.Namespace, report: Callable[[str], None]) -> None:
    """Make the runs that have no result file, and tell `report` of each."""
    steps = {"search": search, "methods": methods, "thresholds": thresholds}
    for part in arguments.parts:
        if part == "summary":
            summarise(arguments.results)
        else:
            steps[part](arguments, report)


def main():
    compare(make_parser().parse_args(), lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
