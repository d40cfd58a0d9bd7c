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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.ssb.summary import summarise
from benchmarks.ssb.train_one import SETTINGS


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True, help="name of the result folder under benchmarks/ssb/results")
    parser.add_argument("--base", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipe", default="recipes/digits/grpo.yaml")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--train_rows", type=int, help="only the first so many training rows")
    parser.add_argument("--sampled", action="store_true", help="evaluate by sampling instead of greedily")
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()

    results = Path(__file__).parent / "results" / arguments.task
    environment = dict(os.environ, OMP_WAIT_POLICY="passive", CI="1", HF_HUB_OFFLINE="1")
    if arguments.jobs > 1:
        environment["OMP_NUM_THREADS"] = "1"

    def train(setting: str, seed: int) -> None:
        output = results / f"{setting}-{seed}.json"
        if output.exists():
            return
        output.parent.mkdir(parents=True, exist_ok=True)
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
        print(
            f"{arguments.task} {setting} seed {seed}: " + ("done" if code == 0 else f"failed, see {log}"), flush=True
        )
        if code == 0:
            log.unlink()

    # Seeds outermost: an interrupted comparison still compares like with like.
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(
            pool.map(
                lambda job: train(*job), [(s, seed) for seed in range(arguments.seeds) for s in arguments.settings]
            )
        )
    summarise(results)


if __name__ == "__main__":
    main()
