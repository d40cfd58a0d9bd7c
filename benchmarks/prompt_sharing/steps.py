# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
A whole GRPO step, generation included: stock `GRPOTrainer` against ours with the sample buffer, `share_prompts`,
trimmed micro-batches and, where the tower is frozen, the vision cache. One ratio a model.

    python -m benchmarks.prompt_sharing.steps --model runs/digits/base --data runs/digits/data \\
        --recipe recipes/digits/grpo.yaml
    python -m benchmarks.prompt_sharing.steps --model runs/smollm2_dinov2/composed --data runs/smollm2_dinov2/data \\
        --recipe recipes/smollm2_dinov2/grpo.yaml

Two trainers take steps in turn in one process, as in `benchmarks.ssb.step_overhead`. The learning rate is zero, so
both generate the same completions at every step. A step's generation is timed apart: it is stock's on both sides, but
for what the vision cache saves.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from datasets import load_dataset
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import GRPOConfig, GRPOTrainer

from benchmarks.environment import environment
from benchmarks.results import write_result
from benchmarks.ssb.step_overhead import Clock, Turns, timed_config
from trl_r1v2 import SSBGRPOConfig, SSBGRPOTrainer
from trl_r1v2.rewards import accuracy_reward, format_reward
from trl_r1v2.vlm.activation import set_trainable
from trl_r1v2.vlm.vision_cache import VisionCache
from trl_r1v2.vlm.vision_cache_callback import VisionCacheCallback


SIDES = {"stock": (GRPOTrainer, GRPOConfig), "ours": (SSBGRPOTrainer, SSBGRPOConfig)}


def make_trainer(arguments, side: str, folder: str, clock: Clock):
    """A trainer with the recipe's settings, as far as its config has them."""
    trainer_class, config_class = SIDES[side]
    recipe = yaml.safe_load(Path(arguments.recipe).read_text())
    trainer = trainer_class(
        model=AutoModelForImageTextToText.from_pretrained(arguments.model, dtype=torch.float32),
        reward_funcs=[accuracy_reward, format_reward],
        args=timed_config(config_class, recipe, arguments.steps, folder, resume_from_checkpoint=None),
        # Stock TRL stops at text rows among image rows.
        train_dataset=load_dataset(arguments.data, split="train").filter(bool, input_columns="images"),
        processing_class=AutoProcessor.from_pretrained(arguments.model, padding_side="left"),
        callbacks=[clock],
    )
    if "trainable" in recipe:
        set_trainable(trainer.model, recipe["trainable"])
    if side == "ours" and recipe.get("vision_cache"):
        trainer.add_callback(VisionCacheCallback(VisionCache(), trainer, reference=trainer.ref_model))
    clock.generation = []
    generate = trainer._generate

    def timed(*args, **kwargs):
        start = time.process_time()
        result = generate(*args, **kwargs)
        clock.generation.append(time.process_time() - start)
        return result

    trainer._generate = timed
    return trainer


def measure(arguments) -> dict:
    """CPU seconds of every step of both sides, and of the generation in it; the first steps are left out."""
    turns = Turns()
    clocks = {side: Clock(turns, player) for player, side in enumerate(SIDES)}
    with tempfile.TemporaryDirectory() as folder:
        trainers = [make_trainer(arguments, side, folder, clocks[side]) for side in SIDES]
        turns.play([trainer.train for trainer in trainers])
    rewards = [[log["reward"] for log in trainer.state.log_history if "reward" in log] for trainer in trainers]
    assert rewards[0] == rewards[1], "both sides must meet the same completions"
    warm = slice(1, None)
    seconds = {side: {"step": clock.cpu[warm], "generation": clock.generation[warm]} for side, clock in clocks.items()}
    ratios = np.divide(seconds["stock"]["step"], seconds["ours"]["step"])
    training = {side: np.subtract(found["step"], found["generation"]) for side, found in seconds.items()}
    return {
        "steps": arguments.steps,
        "cpu_seconds": seconds,
        "step_ratio": float(np.median(ratios)),
        "step_ratio_quartiles": [float(value) for value in np.quantile(ratios, (0.25, 0.75))],
        "training_ratio": float(np.median(training["stock"] / training["ours"])),
        "medians": {side: {part: float(np.median(found[part])) for part in found} for side, found in seconds.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "steps.json")
    arguments = parser.parse_args()
    result = json.loads(arguments.output.read_text()) if arguments.output.exists() else {"models": {}}
    name = Path(arguments.recipe).parent.name
    result["models"][name] = measure(arguments)
    write_result(arguments.output, result | {"environment": environment()})
    print(name, json.dumps({key: result["models"][name][key] for key in ("step_ratio", "training_ratio", "medians")}))


if __name__ == "__main__":
    main()
