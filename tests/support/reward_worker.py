# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""One process of `test_reward_distributed.py`: trains, and writes what it found."""

import json
import os
import sys
from pathlib import Path

from tests.support.reward_tiny import logged, pairs, settings
from tests.support.worker_exit import leave
from trl_r1v2.rewards import VisionRewardConfig, VisionRewardTrainer


def sums(trainer) -> dict[str, float]:
    """One number a parameter."""
    state = trainer.accelerator.unwrap_model(trainer.model).state_dict()
    return {name: value.double().sum().item() for name, value in state.items()}


def run(folder: Path, model_path: str) -> dict:
    # Rows of both processes in one global batch; one of them has no image at all.
    rows = pairs([1, 0, 2, 0, 1, 1, 0, 1])
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    options = {"learning_rate": 0.05, "max_steps": 2, "per_device_train_batch_size": 4 // processes}
    trainer = VisionRewardTrainer(
        model_path, VisionRewardConfig(**settings(folder, **options)), train_dataset=rows, eval_dataset=rows
    )
    trainer.train()
    evaluated = trainer.evaluate()
    trainer.save_model()
    # The processes have different numbers of rows with a partner.
    options["image_preference_weight"] = 1.0
    swapping = VisionRewardTrainer(
        model_path, VisionRewardConfig(**settings(folder / "swapping", **options)), train_dataset=rows
    )
    swapping.train()
    keys = ("margin", "accuracy", "min_reward", "mean_reward", "max_reward", "num_tokens")
    return {
        "log": {key: logged(trainer, key) for key in keys},
        "image_accuracy": logged(swapping, "image_accuracy"),
        "swapping_parameters": sums(swapping),
        "evaluated": {f"eval_{key}": evaluated[f"eval_{key}"] for key in keys[:-1]},
        "parameters": sums(trainer),
    }


if __name__ == "__main__":
    found = run(Path(sys.argv[1]), sys.argv[2])
    rank = os.environ.get("RANK", "0")
    Path(sys.argv[1], f"rank-{rank}.json").write_text(json.dumps(found))
    leave()
