# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What the buffer adds to a training step at equal batch: pairs of short runs, stock and buffer in turn, in one process.

    python -m benchmarks.ssb.step_overhead --base runs/digits/base --data runs/digits/data

The learning rate is zero, so both runs of a pair generate the same completions at every step and differ only in what
the buffer does with them. The ratio is taken pair by pair, which cancels drifts of the machine's speed.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from datasets import load_dataset
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback

from benchmarks.environment import environment
from benchmarks.ssb.summary import interval
from trl_r1v2 import SSBGRPOConfig, SSBGRPOTrainer
from trl_r1v2.rewards import accuracy_reward, format_reward


class Clock(TrainerCallback):
    """Wall and CPU seconds of every optimizer step."""

    def __init__(self):
        self.wall, self.cpu = [], []

    def on_step_begin(self, args, state, control, **kwargs):
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def on_step_end(self, args, state, control, **kwargs):
        self.wall.append(time.perf_counter() - self._wall)
        self.cpu.append(time.process_time() - self._cpu)


def run(arguments, enabled: bool, seed: int) -> dict[str, float]:
    recipe = yaml.safe_load(Path(arguments.recipe).read_text())
    settings = {name: value for name, value in recipe.items() if name in SSBGRPOConfig.__dataclass_fields__}
    settings |= {
        "output_dir": str(Path(arguments.base).parent / "step_overhead"),
        "max_steps": arguments.steps,
        "learning_rate": 0.0,
        "seed": seed,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "log_completions": False,
        "logging_steps": arguments.steps,
        "ssb_enabled": enabled,
    }
    clock = Clock()
    trainer = SSBGRPOTrainer(
        model=AutoModelForImageTextToText.from_pretrained(arguments.base, dtype=torch.float32),
        reward_funcs=[accuracy_reward, format_reward],
        args=SSBGRPOConfig(**settings),
        train_dataset=load_dataset(arguments.data, split="train"),
        processing_class=AutoProcessor.from_pretrained(arguments.base, padding_side="left"),
        callbacks=[clock],
    )
    trainer.train()
    warm = slice(arguments.steps // 4, None)
    figures = {"wall": float(np.median(clock.wall[warm])), "cpu": float(np.median(clock.cpu[warm]))}
    if enabled:
        log = next(entry for entry in trainer.state.log_history if "ssb/dead_groups" in entry)
        figures |= {name: log[f"ssb/{name}"] for name in ("dead_groups", "replayed_rows", "size")}
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipe", default="recipes/digits/grpo.yaml")
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "step_overhead.json")
    arguments = parser.parse_args()
    pairs = []
    run(arguments, False, seed=0)  # warms caches of the data set and of torch; not counted
    for pair in range(arguments.pairs):
        order = (False, True) if pair % 2 == 0 else (True, False)
        of_pair = {enabled: run(arguments, enabled, seed=pair) for enabled in order}
        pairs.append({"stock": of_pair[False], "buffer": of_pair[True]})
        print(pairs[-1], flush=True)
    result = {"environment": environment(), "steps": arguments.steps, "pairs": pairs}
    for clock in ("wall", "cpu"):
        mean, half_width = interval([pair["buffer"][clock] / pair["stock"][clock] for pair in pairs])
        result[f"{clock}_ratio"] = {"mean": mean, "half_width_95": half_width}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1))
    print(json.dumps({key: result[key] for key in ("wall_ratio", "cpu_ratio")}))


if __name__ == "__main__":
    main()
