# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
One GRPO run of the comparison: a setting, a seed, and a result file with accuracy against what it cost.

Called by `compare.py` in a process of its own, so that runs do not share caches or random states.
"""

import argparse
import time
from pathlib import Path

import torch
import yaml
from datasets import load_dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

from benchmarks.environment import environment
from benchmarks.results import write_result
from trl_r1v2 import SSBGRPOConfig, SSBGRPOTrainer
from trl_r1v2.rewards import accuracy_reward, format_reward
from trl_r1v2.sampling import sample_responses


# Stock TRL is the trainer with the buffer off, which `tests/ssb_grpo/test_off_is_stock.py` shows to be the same bits.
SETTINGS = {
    "stock": {"ssb_enabled": False},
    "half": {"ssb_enabled": False, "per_device_train_batch_size": 64},  # half of the recipes' batch
    "paper": {},
    "fresh": {"ssb_age_decay": 20.0},
    "share": {"ssb_age_decay": 20.0, "ssb_replay_share": 0.5},
    # No replay: dead rows are generated anew for other prompts.
    "resample": {"ssb_replay": "none", "ssb_resample_rounds": 2},
}
LOGGED = ("ssb/effective_before", "ssb/effective_after", "ssb/dead_groups", "ssb/ratio_clipped", "reward", "step_time")


class CountingTrainer(SSBGRPOTrainer):
    """Counts every token that is generated for training, in extra rounds too."""

    num_generated_tokens = 0

    def _generate(self, prompts):
        output = super()._generate(prompts)
        if self.model.training:
            self.num_generated_tokens += sum(len(ids) for ids in output[1])
        return output


class Evaluation(TrainerCallback):
    """
    Accuracy on held-out rows, greedy or of one sample a row at temperature 1, often at first. Its own time is not
    counted as training time.
    """

    def __init__(self, rows, max_new_tokens: int, do_sample: bool):
        self.rows, self.max_new_tokens, self.do_sample = rows, max_new_tokens, do_sample
        self.trainer = None
        self.points = []
        self.seconds = self.cpu_seconds = 0.0
        self._started = self._cpu_started = None

    def _stop_clocks(self):
        if self._started is not None:
            self.seconds += time.perf_counter() - self._started
            self.cpu_seconds += time.process_time() - self._cpu_started

    def _start_clocks(self):
        self._started, self._cpu_started = time.perf_counter(), time.process_time()

    def evaluate(self, step: int):
        self._stop_clocks()
        rollouts = sample_responses(
            self.trainer.model,
            self.trainer.processing_class,
            self.rows,
            num_samples=1,
            max_new_tokens=self.max_new_tokens,
            do_sample=self.do_sample,
            batch_size=128,
            progress=False,
        )
        texts = {rollout.row: rollout.text for rollout in rollouts}
        completions = [[{"role": "assistant", "content": texts[row]}] for row in range(len(self.rows))]
        scores = accuracy_reward(completions=completions, solution=self.rows["solution"])
        self.points.append(
            {
                "step": step,
                "accuracy": sum(score or 0.0 for score in scores) / len(scores),
                "generated_tokens": self.trainer.num_generated_tokens,
                "train_seconds": self.seconds,
                "train_cpu_seconds": self.cpu_seconds,
            }
        )
        self._start_clocks()

    def on_train_begin(self, args, state, control, **kwargs):
        self.evaluate(0)

    def on_step_end(self, args, state, control, **kwargs):
        step = state.global_step
        if step % (10 if step <= 50 else 25) == 0 or step == state.max_steps:
            self.evaluate(state.global_step)


def run(arguments) -> dict:
    with open(arguments.recipe) as file:
        recipe = yaml.safe_load(file)
    settings = {name: value for name, value in recipe.items() if name in SSBGRPOConfig.__dataclass_fields__}
    settings |= {
        "output_dir": str(arguments.output.with_suffix("")),
        "max_steps": arguments.steps,
        "seed": arguments.seed,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1,
        "disable_tqdm": True,
        "log_completions": False,
        **SETTINGS[arguments.setting],
    }
    settings.pop("eval_strategy", None)
    train = load_dataset(arguments.data, split="train")
    if arguments.train_rows is not None:
        train = train.select(range(arguments.train_rows))
    held_out = load_dataset(arguments.data, split="test").select(range(arguments.eval_rows))
    is_vlm = "images" in train.column_names
    auto = AutoModelForImageTextToText if is_vlm else AutoModelForCausalLM
    evaluation = Evaluation(held_out, settings["max_completion_length"], arguments.sampled)
    trainer = CountingTrainer(
        model=auto.from_pretrained(arguments.base, dtype=torch.float32),
        reward_funcs=[accuracy_reward, format_reward],
        args=SSBGRPOConfig(**settings),
        train_dataset=train,
        # The text model's own tokenizer: `AutoTokenizer` would rebuild it as Qwen2's, with other pieces.
        processing_class=(AutoProcessor if is_vlm else PreTrainedTokenizerFast).from_pretrained(
            arguments.base, padding_side="left"
        ),
        callbacks=[evaluation],
    )
    evaluation.trainer = trainer
    trainer.train()
    steps = [
        {"step": entry["step"], **{name: entry[name] for name in LOGGED if name in entry}}
        for entry in trainer.state.log_history
        if "reward" in entry
    ]
    return {
        "setting": arguments.setting,
        "seed": arguments.seed,
        "overrides": SETTINGS[arguments.setting],
        "recipe": arguments.recipe,
        "num_steps": arguments.steps,
        "num_train_rows": len(train),
        "is_sampled": arguments.sampled,
        "num_eval_rows": len(held_out),
        "environment": environment(),
        "points": evaluation.points,
        "steps": steps,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--setting", choices=SETTINGS, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--base", required=True, help="folder of the model to start from")
    parser.add_argument("--data", required=True, help="folder of the data set (splits train and test)")
    parser.add_argument("--recipe", required=True, help="GRPO recipe whose settings are used")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--train_rows", type=int, help="only the first so many training rows")
    parser.add_argument("--sampled", action="store_true", help="evaluate by sampling instead of greedily")
    parser.add_argument("--eval_rows", type=int, default=400)
    parser.add_argument("--output", type=Path, required=True, help="result file")
    arguments = parser.parse_args()
    result = run(arguments)
    write_result(arguments.output, result)


if __name__ == "__main__":
    main()
