# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
SFT, DPO, TRL's MPO and ours on the same pairs, and iterated MPO under three reward thresholds.

    python -m benchmarks.mpo.compare --base runs/digits/base --data runs/digits/data

1. Pairs: `trl-r1v2 pairs` samples the base model once for each seed.
2. Search: SFT, DPO and MPO are trained with each learning rate on the pairs of a seed of their own, and measured on the
   validation split. TRL's MPO and MPO without a shift take the rate of MPO.
3. Comparison: every setting, every seed, measured on the test split.
4. Thresholds: iterated MPO, for each threshold and seed.

Runs that have a result file are skipped, so the comparison can be interrupted. All runs are made in one process, one by
one; the threads are those that the environment gives it (OMP_NUM_THREADS).
"""

import argparse
import json
from pathlib import Path

from benchmarks.mpo import train_iterated, train_one
from benchmarks.mpo.digits import write_result
from benchmarks.mpo.summary import summarise
from trl_r1v2.scripts import pairs


RESULTS = Path(__file__).parent / "results" / "compare"
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
        pairs.main(*pairs.make_parser().parse_args_and_config(command_line))
    return str(folder)


def train(arguments, setting: str, seed: int, rate: float | None, split: str, output: Path) -> None:
    if output.exists():
        return
    run = train_one.Run(
        setting=setting,
        seed=seed,
        learning_rate=rate,
        base=arguments.base,
        pairs=pairs_of(arguments, seed),
        data=arguments.data,
        split=split,
        recipe=arguments.recipe,
        steps=arguments.steps,
    )
    write_result(output, train_one.train_and_measure(run))
    print(f"{output.stem}: done", flush=True)


def search(arguments) -> None:
    for setting in SEARCHED:
        for rate in RATES:
            train(arguments, setting, SEARCH_SEED, rate, "validation", RESULTS / "search" / f"{setting}-{rate:g}.json")
    found = {}
    for setting in SEARCHED:
        runs = [json.loads((RESULTS / "search" / f"{setting}-{rate:g}.json").read_text()) for rate in RATES]
        best = max(runs, key=lambda run: run["figures"]["sampled"]["accuracy"])
        found[setting] = best["learning_rate"]
    rates = {setting: found.get(setting, found["mpo"]) for setting in train_one.SETTINGS}
    (RESULTS / "learning_rates.json").write_text(json.dumps(rates, indent=1) + "\n")


def methods(arguments) -> None:
    rates = json.loads((RESULTS / "learning_rates.json").read_text())
    train(arguments, "base", 0, None, "test", RESULTS / "methods" / "base-0.json")
    # Seeds outermost: an interrupted comparison still compares like with like.
    for seed in range(arguments.seeds):
        for setting in train_one.SETTINGS:
            train(arguments, setting, seed, rates[setting], "test", RESULTS / "methods" / f"{setting}-{seed}.json")


def thresholds(arguments) -> None:
    rate = json.loads((RESULTS / "learning_rates.json").read_text())["mpo"]
    for seed in range(arguments.threshold_seeds):
        for threshold in THRESHOLDS:
            output = RESULTS / "thresholds" / f"{threshold:g}-{seed}.json"
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
            print(f"threshold {output.stem}: done", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--work_dir", default="runs/mpo_compare", help="folder of the pairs")
    parser.add_argument("--pairs_recipe", default="recipes/digits/pairs.yaml")
    parser.add_argument("--num_prompts", type=int, default=600, help="prompts of the pairs")
    parser.add_argument("--recipe", default="recipes/digits/mpo.yaml")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threshold_seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--iteration_steps", type=int, default=30)
    arguments = parser.parse_args()
    steps = {"search": search, "methods": methods, "thresholds": thresholds, "summary": lambda _: summarise(RESULTS)}
    for part in arguments.parts:
        steps[part](arguments)


if __name__ == "__main__":
    main()
