# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The last row of R1V2's Table 3: MPO and then GRPO with the sample buffer; and GRPO alone from the base, by the same
number of GRPO steps. Called by `compare.py`.

MPO is that of `train_one.py` with the same seed. GRPO takes the settings of its own recipe, and trains every
component, as it does in the pipeline, where it starts from a saved model.
"""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import yaml
from datasets import load_dataset

from benchmarks.environment import environment
from benchmarks.mpo import train_one
from benchmarks.mpo.digits import load_model, load_processor, measure
from trl_r1v2 import SSBGRPOConfig, SSBGRPOTrainer
from trl_r1v2.rewards import accuracy_reward, format_reward


SETTINGS = ("grpo", "mpo_grpo")
LOGGED = ("reward", "rewards/accuracy_reward/mean", "ssb/effective_before", "ssb/effective_after")


@dataclass(kw_only=True)
class GRPORun(train_one.Run):
    """
    A [`train_one.Run`] with GRPO at its end: `setting` is one of `SETTINGS`, and `learning_rate` and `steps` are
    MPO's.

    Args:
        grpo_recipe (`str`): GRPO recipe whose settings are used, its learning rate among them.
        grpo_steps (`int`): Optimizer steps of GRPO.
    """

    grpo_recipe: str
    grpo_steps: int


def train_grpo(run: GRPORun, weights: dict | None) -> SSBGRPOTrainer:
    """The trainer after GRPO from the base model, or from `weights`."""
    recipe = yaml.safe_load(Path(run.grpo_recipe).read_text())
    settings = train_one.settings_of(recipe, SSBGRPOConfig) | {
        "output_dir": str(Path(run.pairs).parent / "trainer"),
        "max_steps": run.grpo_steps,
        "seed": run.seed,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1,
        "disable_tqdm": True,
        "log_completions": False,
    }
    model = load_model(run.base)
    if weights is not None:
        model.load_state_dict(weights)
    trainer = SSBGRPOTrainer(
        model=model,
        reward_funcs=[accuracy_reward, format_reward],
        args=SSBGRPOConfig(**settings),
        train_dataset=load_dataset(run.data, split="train"),
        processing_class=load_processor(run.base),
    )
    trainer.train()
    return trainer


def train_and_measure(run: GRPORun) -> dict:
    weights, mpo_steps, cpu = None, [], time.process_time()
    if run.setting == "mpo_grpo":
        recipe = yaml.safe_load(Path(run.recipe).read_text())
        trainer = train_one.train(replace(run, setting="mpo"), recipe)
        weights, mpo_steps = trainer.model.state_dict(), train_one.logged_steps(trainer.state.log_history)
    trainer = train_grpo(run, weights)
    cpu = time.process_time() - cpu
    rows = load_dataset(run.data, split=f"{run.split}[:{run.num_rows}]")
    return {
        **asdict(run),
        "environment": environment(),
        "figures": measure(trainer.model, load_processor(run.base), rows, run.num_samples, run.seed),
        "train_cpu_seconds": cpu,
        "steps": mpo_steps,
        "grpo_log": [
            {"step": entry["step"]} | {name: entry[name] for name in LOGGED if name in entry}
            for entry in trainer.state.log_history
            if "reward" in entry
        ],
    }
