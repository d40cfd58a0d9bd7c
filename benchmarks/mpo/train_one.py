# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
One training run of the comparison: a setting, a seed, a learning rate. Called by `compare.py`.

The trainer sets every random state from the seed, so a run does not depend on those before it in the same process.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from datasets import load_dataset
from trl import DPOConfig, DPOTrainer

from benchmarks.environment import environment
from benchmarks.mpo.digits import load_model, load_processor, measure
from trl_r1v2 import MPOConfig, MPOTrainer
from trl_r1v2.vlm.activation import set_trainable


MPO_WEIGHTS = {"preference_weight": 0.8, "quality_weight": 0.2, "generation_weight": 1.0}
# Trainer, configuration, and what the setting changes in the recipe.
SETTINGS = {
    # The generation loss alone is supervised training on the chosen responses.
    "sft": (
        MPOTrainer,
        MPOConfig,
        {"preference_weight": 0.0, "quality_weight": 0.0, "generation_weight": 1.0, "generation_loss_type": "token"},
    ),
    "dpo": (DPOTrainer, DPOConfig, {"loss_type": ["sigmoid"]}),
    "trl_mpo": (DPOTrainer, DPOConfig, {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]}),
    "mpo_no_shift": (MPOTrainer, MPOConfig, MPO_WEIGHTS | {"reward_shift": "zero"}),
    "mpo": (MPOTrainer, MPOConfig, MPO_WEIGHTS | {"reward_shift": "running_mean"}),
}
LOGGED = ("loss", "rewards/chosen", "rewards/rejected", "rewards/accuracies", "logps/chosen", "logps/rejected")


@dataclass
class Run:
    """
    What to train and how to measure it.

    Args:
        setting (`str`): One of `SETTINGS`, or `"base"` for the model before training.
        seed (`int`): Seed of training and of the sampled answers.
        learning_rate (`float` or `None`): Peak learning rate; `None` for the base model.
        base (`str`): Folder of the model to start from, which is the reference.
        pairs (`str`): Folder that `trl-r1v2 pairs` wrote.
        data (`str`): Folder of the digit data.
        split (`str`): Split to measure on.
        recipe (`str`): MPO recipe whose other settings are used.
        steps (`int`): Optimizer steps.
        num_rows (`int`): Rows to measure on at most, from the start of the split.
        num_samples (`int`): Sampled answers to a row.
    """

    setting: str
    seed: int
    learning_rate: float | None
    base: str
    pairs: str
    data: str
    split: str
    recipe: str
    steps: int
    num_rows: int = 600
    num_samples: int = 1


def settings_of(recipe: dict, config_class: type) -> dict:
    """The keys of the MPO recipe that the configuration has; MPO's own have no meaning for the others."""
    return {name: value for name, value in recipe.items() if name in config_class.__dataclass_fields__}


def train(run: Run, recipe: dict):
    """The trainer after its run."""
    trainer_class, config_class, changes = SETTINGS[run.setting]
    settings = settings_of(recipe, config_class) | {
        "output_dir": str(Path(run.pairs).parent / "trainer"),
        "max_steps": run.steps,
        "learning_rate": run.learning_rate,
        "seed": run.seed,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 10,
        "disable_tqdm": True,
        **changes,
    }
    trainer = trainer_class(
        model=load_model(run.base),
        ref_model=load_model(run.base),
        args=config_class(**settings),
        train_dataset=load_dataset(run.pairs, split="train"),
        processing_class=load_processor(run.base),
    )
    if "trainable" in recipe:
        set_trainable(trainer.model, recipe["trainable"])
    trainer.train()
    return trainer


def logged_steps(history: list[dict]) -> list[dict]:
    """What a trainer logged of its losses and rewards, step by step."""
    return [
        {"step": entry["step"]}
        | {name: value for name, value in entry.items() if name in LOGGED or name.startswith("mpo/")}
        for entry in history
        if "loss" in entry
    ]


def train_and_measure(run: Run) -> dict:
    recipe = yaml.safe_load(Path(run.recipe).read_text())
    model, history, num_pairs, cpu = load_model(run.base), [], 0, time.process_time()
    if run.setting != "base":
        trainer = train(run, recipe)
        model, history, num_pairs = trainer.model, trainer.state.log_history, len(trainer.train_dataset)
    cpu = time.process_time() - cpu
    rows = load_dataset(run.data, split=f"{run.split}[:{run.num_rows}]")
    return {
        **asdict(run),
        "settings": recipe,
        "changes": SETTINGS[run.setting][2] if run.setting in SETTINGS else {},
        "num_pairs": num_pairs,
        "environment": environment(),
        "figures": measure(model, load_processor(run.base), rows, run.num_samples, run.seed),
        "train_cpu_seconds": cpu,
        "steps": logged_steps(history),
    }
