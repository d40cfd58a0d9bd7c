# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Stock GRPO against the buffer's settings: accuracy against generated tokens and against time, over several seeds.

    python -m benchmarks.ssb.compare --task digits --base runs/digits/base --data runs/digits/data

Runs that have a result file are skipped, so the comparison can be interrupted. `--jobs 2` runs two at a time with one
thread each: accuracies and token counts do not depend on that, wall-clock does, and CPU seconds are kept beside it.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.ssb.summary import summarise
from benchmarks.ssb.train_one import SETTINGS


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True, help="name of the result folder in --results")
    parser.add_argument("--base", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--recipe", default="recipes/digits/grpo.yaml")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--train_rows", type=int, help="only the first so many training rows")
    parser.add_argument("--sampled", action="store_true", help="evaluate by sampling instead of greedily")
    parser.add_argument("--jobs", type=int, default=1)
    return parser


def train(arguments: argparse.Namespace, setting: str, seed: int, report: Callable[[str], None]) -> None:
    """Make one run in a process of its own, unless it has a result file."""
    output = arguments.results / arguments.task / f"{setting}-{seed}.json"
    if output.exists():
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ, OMP_WAIT_POLICY="passive", CI="1", HF_HUB_OFFLINE="1")
    if arguments.jobs > 1:
        environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-m", "benchmarks.ssb.train_one", "--setting", setting, "--seed", str(seed)]
    command += ["--base", arguments.base, "--data", arguments.data, "--recipe", arguments.recipe]
    command += ["--steps", str(arguments.steps), "--output", str(output)]
    if arguments.train_rows is not None:
        command += ["--train_rows", str(arguments.train_rows)]
    if arguments.sampled:
        command.append("--sampled")
    log = output.with_suffix(".log")
    with open(log, "w") as file:
        code = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT).returncode
    report(f"{arguments.task} {setting} seed {seed}: " + ("done" if code == 0 else f"failed, see {log}"))
    if code == 0:
        log.unlink()


def compare(arguments: argparse.Namespace, report: Callable[[str], None]) -> None:
    """Make the runs that have no result file, and tell `report` of each."""
    # Seeds outermost: an interrupted comparison still compares like with like.
    jobs = [(setting, seed) for seed in range(arguments.seeds) for setting in arguments.settings]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda job: train(arguments, *job, report), jobs))


def main():
    arguments = make_parser().parse_args()
    compare(arguments, lambda line: print(line, flush=True))
    summarise(arguments.results / arguments.task)


if __name__ == "__main__":
    main()
