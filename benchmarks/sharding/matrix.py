# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
How far the updates of two processes lie from those of one, for every backend, kind of data and algorithm.

    python -m benchmarks.sharding.matrix --output benchmarks/sharding/matrix.json

Scope: the tiny models and runs of `tests/support/sharded_runs.py`, three steps each, in float32 on CPUs with gloo; the
figure is the largest relative error `|Δ - Δ'| / |Δ'|` over all parameters, beyond one unit in the last place of a
weight. Prints the table of `docs/sharding.md`.
Does not cover speed, nor GPUs.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.environment import environment
from benchmarks.results import write_result
from tests.support import sharded_runs
from tests.support.launch import BACKENDS, launch


ALGORITHMS = {"grpo": "GRPO with replay", "mpo": "MPO"}
DATA = {"images": "images", "text": "text", "mixed": "text among images", "half": "one process all text"}


def largest_error(found: dict, expected: dict) -> dict:
    errors = sharded_runs.relative_errors(found, expected)
    parameter = max(errors, key=errors.get)
    return {"millionths": errors[parameter] * 1e6, "parameter": parameter, "num_parameters": len(errors)}


def title(run: str) -> str:
    algorithm, data = run.split("-")
    return f"{ALGORITHMS[algorithm]}, {DATA[data]}"


def measure(backends: list[str], runs: list[str]) -> dict[str, dict[str, dict]]:
    """Run by run, and backend by backend: the largest error and whose it is."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        models = str(sharded_runs.build_models(root / "models"))
        alone = {name: sharded_runs.run(name, root / "alone" / name, models) for name in runs}
        found = {title(name): {} for name in runs}
        for backend in backends:
            in_two = launch(backend, sharded_runs.__name__, root / backend, runs, models)
            for name in runs:
                found[title(name)][backend] = largest_error(in_two[name][0], alone[name])
    return found


def table(found: dict[str, dict[str, dict]]) -> str:
    lines = ["| run | " + " | ".join(BACKENDS) + " |", "|---|" + "---|" * len(BACKENDS)]
    for name, results in found.items():
        cells = [f"{results[backend]['millionths']:.0f}" if backend in results else "" for backend in BACKENDS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS), choices=BACKENDS)
    options = parser.parse_args()
    found = measure(options.backends, sharded_runs.MATRIX)
    write_result(options.output, {"environment": environment(), "runs": found})
    print(table(found))


if __name__ == "__main__":
    main()
