# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What the buffer adds to a training step at equal batch: stock and buffer take steps in turn, in one process.

    python -m benchmarks.ssb.step_overhead --base runs/digits/base --data runs/digits/data

Two trainers run in two threads and pass a baton after every optimizer step, so both steps of a pair meet the same
machine. Each has its own random state, and the learning rate is zero: both generate the same completions at every step
and differ only in what the buffer does with them. Rows that the buffer puts back may be longer than the dead ones they
replace; that is part of the figure.
"""

import argparse
import json
import random
import tempfile
import threading
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


def generator_states():
    return torch.get_rng_state(), np.random.get_state(), random.getstate()


class Turns:
    """A baton that two threads pass to each other, each with its own state of the global generators."""

    def __init__(self):
        self.holder = 0
        self.failures: list[BaseException] = []
        self.condition = threading.Condition()

    def take(self, player: int, states):
        with self.condition:
            self.condition.wait_for(lambda: self.holder == player or self.failures)
        if self.failures:
            raise self.failures[0]
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])

    def give(self, player: int):
        states = generator_states()
        with self.condition:
            self.holder = 1 - player
            self.condition.notify_all()
        return states

    def play(self, players):
        """Run the two functions in turn, each in a thread, until both are done; raises what one of them raised."""
        states = generator_states()

        def run(player: int):
            try:
                self.take(player, states)
                players[player]()
            except BaseException as failure:
                self.failures.append(failure)
            self.give(player)

        threads = [threading.Thread(target=run, args=(player,)) for player in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.failures:
            raise self.failures[0]


class Clock(TrainerCallback):
    """Wall and CPU seconds from the end of one step to the end of the next, without the other's turn."""

    def __init__(self, turns: Turns, player: int):
        self.turns, self.player = turns, player
        self.wall, self.cpu = [], []

    def _start(self):
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def on_train_begin(self, args, state, control, **kwargs):
        self._start()

    def on_step_end(self, args, state, control, **kwargs):
        self.wall.append(time.perf_counter() - self._wall)
        self.cpu.append(time.process_time() - self._cpu)
        self.turns.take(self.player, self.turns.give(self.player))
        self._start()


def timed_config(config_class, recipe: dict, steps: int, output_dir: str, **settings):
    """The recipe's settings, as far as the config has them, for steps that leave the weights as they are."""
    known = {name: value for name, value in recipe.items() if name in config_class.__dataclass_fields__}
    known |= {
        "output_dir": output_dir,
        "max_steps": steps,
        "learning_rate": 0.0,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": steps,
    }
    return config_class(**known | settings)


def make_trainer(arguments, enabled: bool, seed: int, output_dir: str, clock: Clock) -> SSBGRPOTrainer:
    recipe = yaml.safe_load(Path(arguments.recipe).read_text())
    own = {"seed": seed, "log_completions": False, "ssb_enabled": enabled}
    return SSBGRPOTrainer(
        model=AutoModelForImageTextToText.from_pretrained(arguments.base, dtype=torch.float32),
        reward_funcs=[accuracy_reward, format_reward],
        args=timed_config(SSBGRPOConfig, recipe, arguments.steps, output_dir, **own),
        train_dataset=load_dataset(arguments.data, split="train"),
        processing_class=AutoProcessor.from_pretrained(arguments.base, padding_side="left"),
        callbacks=[clock],
    )


def run_pair(arguments, seed: int) -> dict:
    """Per-step seconds of stock and buffer, warm-up left out, and what the buffer did."""
    turns = Turns()
    clocks = [Clock(turns, player) for player in (0, 1)]
    with tempfile.TemporaryDirectory() as folder:
        trainers = [make_trainer(arguments, bool(player), seed, folder, clocks[player]) for player in (0, 1)]
        turns.play([trainer.train for trainer in trainers])
    logs = [next(entry for entry in trainer.state.log_history if "reward" in entry) for trainer in trainers]
    assert logs[0]["reward"] == logs[1]["reward"], "stock and buffer must meet the same completions"
    warm = slice(arguments.steps // 4, None)
    return {
        "seed": seed,
        **{
            f"{name}_{unit}": getattr(clock, unit)[warm]
            for name, clock in zip(("stock", "buffer"), clocks, strict=True)
            for unit in ("wall", "cpu")
        },
        **{name: logs[1][f"ssb/{name}"] for name in ("dead_groups", "replayed_rows", "size")},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipe", default="recipes/digits/grpo.yaml")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "step_overhead.json")
    arguments = parser.parse_args()
    runs = []
    for seed in range(arguments.seeds):
        runs.append(run_pair(arguments, seed))
        medians = {
            unit: np.median(np.divide(runs[-1][f"buffer_{unit}"], runs[-1][f"stock_{unit}"]))
            for unit in ("wall", "cpu")
        }
        print(f"seed {seed}: " + ", ".join(f"{unit} ratio {value:.4f}" for unit, value in medians.items()), flush=True)
    result = {"environment": environment(), "steps": arguments.steps, "runs": runs}
    for unit in ("wall", "cpu"):
        ratios = [float(np.median(np.divide(run[f"buffer_{unit}"], run[f"stock_{unit}"]))) for run in runs]
        mean, half_width = interval(ratios)
        result[f"{unit}_ratio"] = {"mean": mean, "half_width_95": half_width, "median_of_each_seed": ratios}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1))
    print(json.dumps({key: result[key] for key in ("wall_ratio", "cpu_ratio")}))


if __name__ == "__main__":
    main()
