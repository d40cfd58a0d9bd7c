# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Our verdicts on the pairs of math-verify's own tests: how often they are the expected ones, and which are not.

Scope: every (gold, prediction, expected) that a `parametrize` of the checkout's `tests/` spells out; `accuracy_reward`
scores the prediction, a whole response, against the gold. Does not cover: rows whose expectation depends on an option
of math-verify (another precision, asymmetric relations), which are counted as left out.

    git clone https://github.com/huggingface/Math-Verify
    python benchmarks/rewards/public_pairs.py Math-Verify --output benchmarks/rewards/public_pairs.json
"""

import argparse
import ast
import json
from importlib.metadata import version
from pathlib import Path

from trl_r1v2.rewards import accuracy_reward


_COLUMNS = ["gold", "pred", "expected"]
_DEFAULT_PRECISION = 6
_KEPT = 120  # characters of each text in the result


def rows_of(path: Path) -> list[dict]:
    """Gold, prediction, expectation and options of every literal row of a test file."""
    rows = []
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for decorator in getattr(function, "decorator_list", []):
            if not (isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.parametrize"):
                continue
            try:
                names, cases = map(ast.literal_eval, decorator.args[:2])
            except ValueError:  # rows that are computed
                continue
            names = [name.strip() for name in names.split(",")]
            if names[:3] == _COLUMNS:
                test = f"{path.stem}::{function.name}"
                rows += [{"test": test, **dict(zip(names, case, strict=True))} for case in cases]
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("checkout", type=Path, help="Folder of a checkout of math-verify.")
    parser.add_argument("--output", type=Path, required=True, help="JSON file with every verdict.")
    args = parser.parse_args()

    files = [path for path in sorted((args.checkout / "tests").glob("test_*.py")) if "string" not in path.stem]
    found = [row for path in files for row in rows_of(path)]
    rows = [
        row
        for row in found
        if row.get("precision", _DEFAULT_PRECISION) == _DEFAULT_PRECISION and "allow_set_relation_comp" not in row
    ]
    rewards = accuracy_reward(completions=[row["pred"] for row in rows], solution=[row["gold"] for row in rows])
    unlike = [
        {
            "test": row["test"],
            "gold": row["gold"][-_KEPT:],
            "pred": row["pred"][-_KEPT:],
            "expected": row["expected"],
            "reward": reward,
        }
        for row, reward in zip(rows, rewards, strict=True)
        if (reward == 1.0) != bool(row["expected"])
    ]
    result = {
        "pairs": len(rows),
        "left_out": len(found) - len(rows),
        "agree": len(rows) - len(unlike),
        "share": (len(rows) - len(unlike)) / len(rows),
        "paid_but_expected_wrong": sum(row["reward"] == 1.0 for row in unlike),
        "not_read": rewards.count(None),
        "math_verify": version("math-verify"),
        "unlike": unlike,
    }
    args.output.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print({name: value for name, value in result.items() if name != "unlike"})


if __name__ == "__main__":
    main()
