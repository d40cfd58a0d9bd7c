# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Throughput of `VerifierPool` against math-verify called one pair after the other in this process.

Scope: distinct pairs that need algebra, so that no cache and no fast path helps; serial and pooled runs alternate, and
the figure is the ratio within each alternation. Does not cover: hanging answers (a serial call cannot be bounded at
all; see the tests).

    python benchmarks/rewards/verifier_throughput.py --output benchmarks/rewards/verifier_throughput.json
"""

import argparse
import json
import os
import platform
import random
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import scipy.stats
from math_verify import parse, verify

from trl_r1v2.rewards.verifier import VerifierPool


def make_pairs(num_pairs: int, rng: random.Random) -> list[tuple[str, str]]:
    """
    Gold and answer of four kinds: polynomials, radicals, sets, fractions in a variable. Half of the answers are right.
    """
    pairs = []
    for index in range(num_pairs):
        a, b, c = (rng.randint(2, 97) for _ in range(3))
        off = index // 4 % 2  # 1 makes the answer wrong
        kinds = [
            (f"x^2+{a + b}x+{a * b}", f"(x+{a})(x+{b})+{off}"),
            (rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b + off}}}"),
            (rf"\{{{a},{a + b},{a + b + c}\}}", rf"\{{{a + b + c},{a + off},{a + b}\}}"),
            (rf"\frac{{x+{a}}}{{{b}}}", rf"\frac{{{c}x+{a * c + off}}}{{{b * c}}}"),
        ]
        gold, answer = kinds[index % 4]
        pairs.append((f"${gold}$", rf"\boxed{{{answer}}}"))
    return pairs


def serial(pairs: list[tuple[str, str]]) -> list[bool]:
    return [
        verify(parse(gold, parsing_timeout=None), parse(answer, parsing_timeout=None), timeout_seconds=None)
        for gold, answer in pairs
    ]


def cpu_seconds(pool: VerifierPool) -> float:
    """CPU time so far of this process and the pool's workers: unlike wall-clock time, hardly changed by other load."""
    total = time.process_time()
    for worker in pool._workers:
        fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime
    return total


def timed(pool: VerifierPool, function, pairs) -> tuple[float, float, list]:
    """Wall-clock seconds, CPU seconds and result."""
    start, cpu_start = time.perf_counter(), cpu_seconds(pool)
    result = function(pairs)
    return time.perf_counter() - start, cpu_seconds(pool) - cpu_start, result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--pairs", type=int, default=400, help="Pairs in a run.")
    parser.add_argument("--rounds", type=int, default=10, help="Alternations of a serial and a pooled run.")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="Worker processes.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True, help="JSON file with every measurement.")
    args = parser.parse_args()

    rng = random.Random(args.seed)
    pool = VerifierPool(num_workers=args.workers, timeout=60.0, batch_timeout=600.0)
    warm_up = make_pairs(64 * args.workers, rng)
    serial(warm_up)
    pool.verify(warm_up)
    rounds = []
    for number in range(args.rounds):
        pairs = make_pairs(args.pairs, rng)
        distinct = list(dict.fromkeys(pairs))
        pooled_seconds, pooled_cpu, outcomes = timed(pool, pool.verify, distinct)
        serial_seconds, serial_cpu, verdicts = timed(pool, serial, distinct)
        if [outcome.verdict for outcome in outcomes] != verdicts:
            raise RuntimeError("The pool and the serial run disagree; the timing is void.")
        rounds.append(
            {
                "pairs": len(distinct),
                "right": sum(verdicts),
                "serial_seconds": serial_seconds,
                "pooled_seconds": pooled_seconds,
                "serial_cpu_seconds": serial_cpu,
                "pooled_cpu_seconds": pooled_cpu,
                "load_average": os.getloadavg()[0],
            }
        )
        print(
            f"round {number + 1}/{args.rounds}: serial {serial_seconds:.2f} s, pooled {pooled_seconds:.2f} s",
            flush=True,
        )
    pool.close()

    ratios = [entry["serial_seconds"] / entry["pooled_seconds"] for entry in rounds]
    interval = scipy.stats.bootstrap((ratios,), statistics.median, vectorized=False, random_state=args.seed)
    result = {
        "workers": args.workers,
        "seed": args.seed,
        "speedup_median": statistics.median(ratios),
        "speedup_ci95": list(interval.confidence_interval),
        "serial_pairs_per_second": sum(entry["pairs"] for entry in rounds)
        / sum(entry["serial_seconds"] for entry in rounds),
        "pooled_pairs_per_second": sum(entry["pairs"] for entry in rounds)
        / sum(entry["pooled_seconds"] for entry in rounds),
        "cpu_cost_ratio": sum(entry["pooled_cpu_seconds"] for entry in rounds)
        / sum(entry["serial_cpu_seconds"] for entry in rounds),
        "rounds": rounds,
        "environment": {
            "cpus": len(os.sched_getaffinity(0)),
            "machine": platform.machine(),
            "python": platform.python_version(),
            **{name: version(name) for name in ("math-verify", "sympy", "latex2sympy2_extended")},
        },
    }
    args.output.write_text(json.dumps(result, indent=2) + "\n")
    print(
        f"speed-up {result['speedup_median']:.2f} (95 % CI {result['speedup_ci95'][0]:.2f} to {result['speedup_ci95'][1]:.2f}); raw data in {args.output}"
    )


if __name__ == "__main__":
    main()
