# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Pairs that need algebra a second: our comparison against math-verify, one pair after the other in this process.

Scope: distinct pairs, so that no cache helps; both take turns on the same pairs, and the figure is the ratio within
each turn, of CPU seconds. Does not cover: answers that hang (math-verify cannot be bounded in a thread; see the
tests).

    python benchmarks/rewards/verdicts_per_second.py --output benchmarks/rewards/verdicts_per_second.json
"""

import argparse
import json
import platform
import random
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import scipy.stats
from math_verify import parse, verify

from trl_r1v2.rewards.answers import Answer
from trl_r1v2.rewards.comparison import Verdict, compare


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
        pairs.append(kinds[index % 4])
    return list(dict.fromkeys(pairs))


def ours(pairs: list[tuple[str, str]]) -> list[bool]:
    return [compare(Answer(answer, anchored=True), gold) is Verdict.RIGHT for gold, answer in pairs]


def math_verify(pairs: list[tuple[str, str]]) -> list[bool]:
    return [
        verify(
            parse(f"${gold}$", parsing_timeout=None),
            parse(rf"\boxed{{{answer}}}", parsing_timeout=None),
            timeout_seconds=None,
        )
        for gold, answer in pairs
    ]


def timed(function, pairs) -> tuple[float, list[bool]]:
    start = time.process_time()
    result = function(pairs)
    return time.process_time() - start, result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--pairs", type=int, default=400, help="Pairs in a turn.")
    parser.add_argument("--rounds", type=int, default=10, help="Turns of both.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True, help="JSON file with every measurement.")
    args = parser.parse_args()

    rng = random.Random(args.seed)
    for function in (ours, math_verify):
        function(make_pairs(64, rng))
    rounds = []
    for number in range(args.rounds):
        pairs = make_pairs(args.pairs, rng)
        (our_seconds, verdicts), (their_seconds, their_verdicts) = timed(ours, pairs), timed(math_verify, pairs)
        if verdicts != their_verdicts:
            raise RuntimeError("The two disagree; the timing is void.")
        rounds.append({"pairs": len(pairs), "right": sum(verdicts), "ours": our_seconds, "math_verify": their_seconds})
        print(f"round {number + 1}/{args.rounds}: {our_seconds:.2f} s, math-verify {their_seconds:.2f} s", flush=True)

    ratios = [entry["math_verify"] / entry["ours"] for entry in rounds]
    interval = scipy.stats.bootstrap((ratios,), statistics.median, vectorized=False, random_state=args.seed)
    num_pairs = sum(entry["pairs"] for entry in rounds)
    result = {
        "seed": args.seed,
        "pairs_per_cpu_second": num_pairs / sum(entry["ours"] for entry in rounds),
        "math_verify_pairs_per_cpu_second": num_pairs / sum(entry["math_verify"] for entry in rounds),
        "ratio_median": statistics.median(ratios),
        "ratio_ci95": list(interval.confidence_interval),
        "rounds": rounds,
        "environment": {
            "machine": platform.machine(),
            "python": platform.python_version(),
            **{name: version(name) for name in ("math-verify", "sympy", "mpmath")},
        },
    }
    args.output.write_text(json.dumps(result, indent=2) + "\n")
    low, high = result["ratio_ci95"]
    print(f"{result['ratio_median']:.1f} times as fast (95 % CI {low:.1f} to {high:.1f}); raw data in {args.output}")


if __name__ == "__main__":
    main()
