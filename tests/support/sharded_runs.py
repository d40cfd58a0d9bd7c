# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Short runs that one process and two make alike, and how far the updates of their parameters lie apart.

A run is named `ALGORITHM-DATA` or `ALGORITHM-DATA-VARIANT`. Steps are plain SGD in float32 on the same global batches:
rows come in order, completions are a function of the prompt (no model generates them, as with vLLM), and every draw
from the buffer takes all that it holds. As a worker: `sharded_runs FOLDER MODELS`, with the folder of
[`build_models`].
"""

import os
import random
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForImageTextToText, AutoProcessor, set_seed

from tests import conftest  # noqa: F401  (environment variables before torch)
from tests.support.launch import whole_parameters, work
from tests.support.mpo_tiny import training_args
from tests.support.reward_tiny import build_reward_model, pairs
from tests.support.ssb_runs import image
from tests.support.tiny_models import build_internvl
from tests.support.tiny_qwen_vl import build_qwen_vl
from trl_r1v2 import MPOConfig, MPOTrainer, SSBGRPOConfig, SSBGRPOTrainer, set_trainable
from trl_r1v2.rewards import VisionRewardConfig, VisionRewardTrainer


PROCESSES = int(os.environ.get("WORLD_SIZE", "1"))
GROUP = 4
# Images of each prompt. Of four prompts of a generation, the first process has two and the second two; of two pairs of
# a micro-step, each process has one.
LAYOUTS = {
    "images": {"grpo": [1, 2, 1, 1], "pairs": [1, 2, 1, 1]},
    "text": {"grpo": [0], "pairs": [0]},
    "mixed": {"grpo": [1, 0, 0, 2, 0, 1, 2, 0, 1, 1, 0, 0], "pairs": [1, 0, 0, 1, 0, 0, 2, 1, 0, 2, 1, 0]},
    "half": {"grpo": [1, 2, 0, 0], "pairs": [1, 0, 2, 0]},
}
MATRIX = [f"{algorithm}-{data}" for algorithm in ("grpo", "mpo") for data in LAYOUTS]
OTHERS = [f"reward-{data}" for data in ("mixed", "half")] + [
    f"{algorithm}-{data}-{variant}"
    for algorithm in ("grpo", "mpo", "reward")
    for data in ("mixed", "half")
    for variant in ("frozen", "qwen", "lora", "shared")
    if (algorithm, variant) != ("reward", "lora")
]
LORA = {"r": 2, "target_modules": r".*language_model.*\.(q_proj|v_proj)", "modules_to_save": ["multi_modal_projector"]}


def build_models(folder: Path) -> Path:
    """Tiny checkpoints with an output head of their own: InternVL, Qwen2.5-VL, and a reward model on each."""
    for name, build in {"internvl": build_internvl, "qwen": build_qwen_vl}.items():
        build(folder / name)
        model = AutoModelForImageTextToText.from_pretrained(folder / name)
        with torch.no_grad():
            for parameter, value in model.named_parameters():
                # Where they start, at 0 and 0.1, gradients are huge or next to nothing, and rounding shows.
                if parameter.endswith(("cls_token", "position_embeddings")):
                    value.normal_(std=0.1)
                elif "lambda_" in parameter:
                    value.fill_(1.0)
        model.save_pretrained(folder / name)
        build_reward_model(str(folder / name), folder / f"{name}-reward")
    return folder


def layout(algorithm: str, data: str, num_rows: int) -> list[int]:
    cycle = LAYOUTS[data]["grpo" if algorithm == "grpo" else "pairs"]
    return [cycle[row % len(cycle)] for row in range(num_rows)]


class FixedCompletions(SSBGRPOTrainer):
    """The n-th completion of a prompt is always the same."""

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        completions = []
        for index, ids in enumerate(prompt_ids):
            source = random.Random(f"{[token for token in ids if token > 12]} {index % GROUP}")
            completions.append([source.randrange(20, 90) for _ in range(source.randrange(2, 7))])
        return completions, None


def rewards_of(completions, is_dead, **kwargs):
    """Spread within the live groups, and flat in the dead ones."""
    return [0.0 if dead else float(index % GROUP) for index, dead in enumerate(is_dead)]


def grpo(folder: Path, model: str, data: str, share_prompts: bool = False, **options):
    """Three generations of four groups, every second of them dead. The second and third replay."""
    rows = [
        {
            "prompt": [{"role": "user", "content": "n" * (1 + row % 3) + str(row)}],
            "is_dead": row % 2 == 1,
            **({} if data == "text" else {"images": [image(10 * row + i, 1 + i) for i in range(num_images)]}),
        }
        for row, num_images in enumerate(layout("grpo", data, 12))
    ]
    num_micro_batches = 8 if data == "mixed" else 2
    args = training_args(
        folder,
        per_device_train_batch_size=4 * GROUP // num_micro_batches // PROCESSES,
        gradient_accumulation_steps=num_micro_batches,
        gradient_checkpointing=True,
        num_generations=GROUP,
        max_completion_length=6,
        beta=0.1,
        loss_type="grpo",
        shuffle_dataset=False,
        learning_rate=0.05,
        max_grad_norm=1e9,  # DeepSpeed takes 0 for 1
        ssb_max_uses=1,
        share_prompts=share_prompts,
    )
    return FixedCompletions(
        model,
        reward_funcs=rewards_of,
        args=SSBGRPOConfig(**args),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoProcessor.from_pretrained(model, padding_side="left"),
        **options,
    )


def of_pairs(folder: Path, **changes) -> dict:
    """Two micro-batches of two pairs a step."""
    return training_args(
        folder,
        per_device_train_batch_size=2 // PROCESSES,
        gradient_accumulation_steps=2,
        gradient_checkpointing=True,
        train_sampling_strategy="sequential",
        max_grad_norm=1e9,
        **changes,
    )


def mpo(folder: Path, model: str, data: str, share_prompts: bool = False, **options):
    rows = pairs(layout("mpo", data, 12))
    if data == "text":
        rows = rows.remove_columns("images")
    args = MPOConfig(**of_pairs(folder, beta=0.5, learning_rate=0.03, share_prompts=share_prompts))
    processor = AutoProcessor.from_pretrained(model)
    return MPOTrainer(model, args=args, train_dataset=rows, processing_class=processor, **options)


def reward(folder: Path, model: str, data: str, trainable: str = "all", share_prompts: bool = False):
    changes = {"trainable": trainable, "learning_rate": 0.03, "share_prompts": share_prompts}
    args = VisionRewardConfig(**of_pairs(folder, **changes))
    return VisionRewardTrainer(f"{model}-reward", args, train_dataset=pairs(layout("reward", data, 12)))


def run(name: str, folder: Path, models: str) -> dict[str, dict[str, torch.Tensor]]:
    """Train, and return every parameter's `updates` and the `weights` these led to."""
    algorithm, data, *variants = name.split("-")
    variant = variants[0] if variants else None
    model = str(Path(models) / ("qwen" if variant == "qwen" else "internvl"))
    options = {}
    if variant == "lora":
        options["peft_config"] = LoraConfig(**LORA, lora_dropout=0.0)
    if algorithm == "reward" and variant == "frozen":
        options["trainable"] = "llm+adapter"
    if variant == "shared":
        options["share_prompts"] = True
    set_seed(3)  # of fresh LoRA weights
    trainer = {"grpo": grpo, "mpo": mpo, "reward": reward}[algorithm](folder, model, data, **options)
    if variant == "frozen" and algorithm != "reward":
        set_trainable(trainer.model, "llm+adapter")
    before = whole_parameters(trainer)
    trainer.train()
    if algorithm == "grpo":
        replayed = [log["ssb/replayed_rows"] for log in trainer.state.log_history if "ssb/replayed_rows" in log]
        assert replayed == [0, 8, 8], replayed
    weights = whole_parameters(trainer)
    return {"updates": {key: value - before[key] for key, value in weights.items()}, "weights": weights}


def relative_errors(found: dict[str, dict], expected: dict[str, dict]) -> dict[str, float]:
    """
    `|Δ - Δ'| / |Δ'|` of every parameter; 0 where neither moved, infinite where only one did. One unit in the last
    place of a weight, before or after, is taken off each difference: steps of a weight near 1 are rounded to it.
    """
    updates = found["updates"]
    assert updates.keys() == expected["updates"].keys()
    errors = {}
    for name, theirs in expected["updates"].items():
        after = expected["weights"][name]
        size = torch.maximum(after.abs(), (after - theirs).abs())
        unit = torch.nextafter(size, torch.full_like(size, torch.inf)) - size
        distance = ((updates[name] - theirs).abs() - unit).clamp(min=0).norm().item()
        length = theirs.norm().item()
        errors[name] = distance / length if length > 0 else (0.0 if distance == 0 else float("inf"))
    return errors


SCENARIOS = {name: lambda folder, models, name=name: run(name, folder, models) for name in (*MATRIX, *OTHERS)}


if __name__ == "__main__":
    work(SCENARIOS)
