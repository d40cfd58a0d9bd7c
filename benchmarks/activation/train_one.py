# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
One GRPO run with chosen components, and what the model can do afterwards. Which runs there are is `compare.py`, what
they give together `summary.py`.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import yaml
from datasets import Dataset, load_dataset
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from examples.digits.text import unsupported_digits
from trl_r1v2 import SSBGRPOConfig, SSBGRPOTrainer, set_trainable
from trl_r1v2.rewards import accuracy_reward, format_reward
from trl_r1v2.sampling import sample_responses


def measure(
    model: PreTrainedModel, processor: ProcessorMixin, rows: Dataset, max_new_tokens: int, do_sample: bool
) -> dict[str, float]:
    """Shares of `rows`: right answers, overall and by task, and answers whose reasoning names digits not shown."""
    rollouts = sample_responses(
        model,
        processor,
        rows,
        num_samples=1,
        max_new_tokens=max_new_tokens,
        do_sample=do_sample,
        batch_size=128,
        progress=False,
    )
    texts = [rollout.text for rollout in sorted(rollouts, key=lambda rollout: rollout.row)]
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    right = [score or 0.0 for score in accuracy_reward(completions=completions, solution=rows["solution"])]
    unsupported = [bool(unsupported_digits(*pair)) for pair in zip(texts, rows["digits"], strict=True)]
    tasks = {"all": range(len(rows)), "images": [k for k, task in enumerate(rows["task"]) if task != "text_add"]}
    tasks |= {name: [k for k, task in enumerate(rows["task"]) if task == name] for name in sorted(set(rows["task"]))}
    figures = {f"accuracy/{name}": sum(right[k] for k in chosen) / len(chosen) for name, chosen in tasks.items()}
    return figures | {"hallucination": sum(unsupported) / len(unsupported)}


def train(
    base: str,
    data: str,
    recipe: str,
    output_dir: Path,
    preset: str,
    learning_rate: float,
    seed: int,
    steps: int,
    reward_funcs: Sequence[Callable] = (accuracy_reward, format_reward),
    trainer_class: type[SSBGRPOTrainer] = SSBGRPOTrainer,
) -> tuple[SSBGRPOTrainer, dict]:
    """GRPO by the recipe, with the components of `preset`; what was trained, the log, and CPU seconds."""
    values = yaml.safe_load(Path(recipe).read_text())
    settings = {name: value for name, value in values.items() if name in SSBGRPOConfig.__dataclass_fields__}
    settings |= {
        "output_dir": str(output_dir),
        "max_steps": steps,
        "learning_rate": learning_rate,
        "seed": seed,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1,
        "disable_tqdm": True,
        "log_completions": False,
    }
    trainer = trainer_class(
        model=AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32),
        reward_funcs=list(reward_funcs),
        args=SSBGRPOConfig(**settings),
        train_dataset=load_dataset(data, split="train"),
        processing_class=AutoProcessor.from_pretrained(base, padding_side="left"),
    )
    report = set_trainable(trainer.model, preset)
    started = time.process_time()
    trainer.train()
    seconds = time.process_time() - started
    name = "rewards/accuracy_reward/mean"
    return trainer, {
        "preset": preset,
        "learning_rate": learning_rate,
        "seed": seed,
        "num_steps": steps,
        "trained_parameters": sum(report.trained.values()),
        "train_cpu_seconds": seconds,
        "train_accuracy": [entry[name] for entry in trainer.state.log_history if name in entry],
    }
