# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""One process of the monitor's distributed test: what it logged, its monitor's and its gate's state."""

import json
from pathlib import Path

from tests import conftest  # noqa: F401  (environment variables before torch)
from tests.support.launch import work
from tests.support.ssb_runs import SSBGRPOTrainer, image_dataset, make_trainer
from trl_r1v2.hallucination import HallucinationMonitor, MonitorConfig, RewardThresholdController
from trl_r1v2.hallucination.probe import ProbeFunctions
from trl_r1v2.rewards import Component, HybridReward


NUM_STEPS, RESUMED_AT = 4, 2
PROBE = {
    "monitor_every": 1,
    "monitor_max_new_tokens": 6,
    "monitor_batch_size": 4,
    "monitor_max_cost_share": None,
    "monitor_claims_func": "monitor_worker.vowels",
    "monitor_claims_column": "row",
    "monitor_reward_func": "monitor_worker.letters",
    "monitor_min_gap": 0.1,
}


def vowels(text, column):
    return [character for character in text if character in "aeiou"]


def letters(completions, **kwargs):
    return [float(len(completion[0]["content"]) % 5) for completion in completions]


def half_right(completions, **kwargs):
    return [float(len(completion[0]["content"]) % 2) for completion in completions]


def monitored(folder: Path, model: str, local_batch: int, learning_rate: float = 1e-2):
    """A trainer whose global batch is 8 rows, its monitor and its reward; thirteen rows do not divide evenly."""
    reward = HybridReward({"accuracy": half_right, "reward_model": Component(letters, min_score=0.0)})
    trainer = make_trainer(
        SSBGRPOTrainer,
        model,
        folder,
        image_dataset(20),
        reward,
        per_device_train_batch_size=local_batch,
        max_steps=NUM_STEPS,
        learning_rate=learning_rate,
        shuffle_dataset=False,
        save_strategy="steps",
        save_steps=RESUMED_AT,
    )
    config = MonitorConfig(**PROBE)
    controller = RewardThresholdController(0.2, 0.0, 0.0, 6.0, gain=5.0, dead_band=0.05, patience=1)
    monitor = HallucinationMonitor(
        trainer,
        image_dataset(13, layouts=((1, 1), (2,), (), (1,))),
        config,
        ProbeFunctions(claims=vowels, rule=half_right, reward=letters),
        controller,
        lambda value: reward.set_min_score("reward_model", value),
        clock=lambda: float(trainer.state.global_step),
    )
    trainer.add_callback(monitor)
    return trainer, monitor, reward


def seen(trainer, monitor, reward) -> dict:
    return {
        "logged": [
            {key: value for key, value in entry.items() if key.startswith("hallucination/") or key == "step"}
            for entry in trainer.state.log_history
            if "hallucination/rate" in entry
        ],
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "state": monitor.state_dict(),
        "gate": reward.components["reward_model"].min_score,
    }


def scenario(folder: Path, model: str) -> dict:
    # Without learning, two processes sample other completions than one but keep the same weights.
    found = {}
    trainer, monitor, reward = monitored(folder / "still", model, local_batch=4, learning_rate=0.0)
    trainer.train()
    found["still"] = seen(trainer, monitor, reward)
    trainer, monitor, reward = monitored(folder / "whole", model, local_batch=4)
    trainer.train()
    found["whole"] = seen(trainer, monitor, reward)
    trainer, monitor, reward = monitored(folder / "resumed", model, local_batch=4)
    trainer.train(resume_from_checkpoint=str(folder / "whole" / f"checkpoint-{RESUMED_AT}"))
    found["resumed"] = seen(trainer, monitor, reward)
    return json.loads(json.dumps(found))


if __name__ == "__main__":
    work({"monitor": scenario})
