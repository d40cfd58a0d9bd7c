# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
GRPO on the digits with completions by a colocated vLLM, and by transformers: accuracy on the 1,000 held-out rows.

    make demo test_vllm
    .venv-vllm/bin/python -m benchmarks.vllm.digits --folder runs/digits

Runs `recipes/digits/grpo_vllm.yaml` twice from the demo's base, as it is and with `use_vllm: false`, everything else
equal, and evaluates both like `recipes/digits/evaluate_grpo.yaml`. vLLM runs on the CPU in float32, kept able to take
new weights (`tests/support/cpu_engine.py`).
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path

from _pytest.monkeypatch import MonkeyPatch

from benchmarks.environment import environment
from benchmarks.results import write_result
from tests.support.cpu_engine import use_cpu_engine
from trl_r1v2.scripts.main import main as trl_r1v2


def run(name: str, use_vllm: bool, args: argparse.Namespace) -> dict:
    """One training run and its evaluation: what `evaluate` wrote, and mean metrics of the last 50 steps."""
    trained, evaluated = f"{args.output}/{name}", f"{args.output}/evaluate_{name}"
    data = ["--dataset_name", f"{args.folder}/data"]
    model = ["--model_name_or_path", f"{args.folder}/base"]
    recipe = ["grpo", "--config", "recipes/digits/grpo_vllm.yaml", *model, *data, "--output_dir", trained]
    trl_r1v2([*recipe, "--use_vllm", str(use_vllm).lower(), "--use_cpu", "true"])
    recipe = ["evaluate", "--config", "recipes/digits/evaluate_grpo.yaml", *data, "--output_dir", evaluated]
    trl_r1v2([*recipe, "--model_name_or_path", trained, "--label", name])
    history = json.loads(Path(trained, "trainer_state.json").read_text())["log_history"][-51:-1]
    names = (
        "sampling/importance_sampling_ratio/mean",
        "sampling/sampling_logp_difference/mean",
        "ssb/effective_before",
    )
    metrics = {key: sum(row[key] for row in history) / len(history) for key in names if key in history[0]}
    evaluation = json.loads(Path(evaluated, "metrics.json").read_text())
    return {"num_rows": evaluation["num_rows"], "tasks": evaluation["tasks"], "last_50_steps": metrics}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n\n")[0])
    parser.add_argument("--folder", default="runs/digits", help="where `make demo` left base and data")
    parser.add_argument("--output", default="runs/digits_vllm")
    args = parser.parse_args()
    patch = MonkeyPatch()
    use_cpu_engine(patch)
    try:
        runs = {name: run(name, name == "vllm", args) for name in ("vllm", "transformers")}
    finally:
        patch.undo()
    result = {"environment": environment() | {"vllm": version("vllm")}, "runs": runs}
    write_result(Path(__file__).with_suffix(".json"), result)


if __name__ == "__main__":
    main()
