# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
R1V2's ablations on the digit tasks: tables, plots, and whether each agrees with the paper in direction.

    python -m benchmarks.ablations --base runs/digits/base --data runs/digits/data
    python -m benchmarks.ablations --kept

The first makes every run anew (hours on one core); runs that have a result are skipped, so it can be interrupted. The
second trains nothing: it rebuilds the page from the raw results that are kept beside the benchmarks, and the figures
of `docs/ablations.md` with it.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.ablations.page import insert, write
from benchmarks.ablations.runner import InputsError, run_all
from benchmarks.ablations.sections import Results, sections


HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs" / "ablations.md"


def rebuild_kept() -> None:
    found = sections(Results.kept())
    write(found, HERE)
    insert(DOCUMENT, found, "../benchmarks/ablations/")
    print(f"Rebuilt from the kept results: {HERE / 'tables.md'}, {DOCUMENT}.")


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base", help="folder of the model to start from")
    parser.add_argument("--data", help="folder of the digit tasks")
    parser.add_argument("--output", type=Path, default=Path("runs/ablations"), help="folder of results and page")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--kept", action="store_true", help="rebuild the page from the kept results, without training")
    arguments = parser.parse_args()
    if arguments.kept:
        rebuild_kept()
        return
    if arguments.base is None or arguments.data is None:
        parser.error("Give --base and --data (`make demo` makes both), or --kept to train nothing.")
    terminal = sys.stdout

    def say(line: str) -> None:
        print(line, file=terminal, flush=True)

    try:
        missing = run_all(arguments.base, arguments.data, arguments.output, arguments.seeds, say)
    except InputsError as error:
        parser.error(str(error))
    write(sections(Results.under(arguments.output)), arguments.output)
    print(f"Tables and plots are in {arguments.output}; the page is {arguments.output / 'tables.md'}.")
    if missing:
        sys.exit("Not complete. " + "; ".join(missing) + f". See the logs in {arguments.output}, and run this again.")


if __name__ == "__main__":
    main()
