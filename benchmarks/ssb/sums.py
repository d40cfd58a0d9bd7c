# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Settings of replay against stock, half the batch and dynamic sampling: sums of two-digit numbers, from a base that has
seen too few of them.

    python -m benchmarks.ssb.sums base --folder runs/sums
    python -m benchmarks.ssb.sums search --folder runs/sums
    python -m benchmarks.ssb.sums compare --folder runs/sums --seeds 5
    python -m benchmarks.ssb.sums report

The base was trained on right sums alone, no guesses among them, and stopped early; sums of the test set are in neither
training set. `search` trains with settings and learning rates and one seed that is used nowhere else, scored on
validation rows; `compare` trains with the best rate of each setting (stock's for those that were not searched), scored
on test rows. Runs that have a result file
are skipped, one that another process has begun is left to it: any number of processes may share the work, and all of
them begin no run after `--until`.
"""

import argparse
import json
import os
import random
import re
import time
from pathlib import Path

import torch
from datasets import Dataset, load_dataset
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM, TrainerCallback, set_seed

from benchmarks.environment import environment
from benchmarks.results import write_result
from benchmarks.ssb.sums_report import best_rates, report
from benchmarks.ssb.train_one import CountingTrainer
from examples.digits.models import new_language_model, train_language_model, train_tokenizer
from trl_r1v2 import SSBGRPOConfig
from trl_r1v2.sampling import sample_responses


RESULTS = Path(__file__).parent / "results" / "sums"
MAX_TOKENS, NUM_GENERATIONS, BATCH, STEPS = 5, 8, 64, 150
RATES = (3e-5, 1e-4)
SEARCH_SEED = 100
OFF, HALF = {"ssb_enabled": False}, {"per_device_train_batch_size": BATCH // 2}
# name: what differs, and steps as a multiple of stock's (settings that generate less may take more)
SETTINGS = {
    "stock": (OFF, 1),
    "half": (OFF | HALF, 2),
    "dynamic": ({"ssb_replay": "none", "ssb_resample_rounds": 2}, 1),
    "dead": ({}, 1),
    "dead, balanced": ({"ssb_balance": True}, 1),
    "share 0.5": ({"ssb_replay_share": 0.5}, 2),
    "share 0.5, balanced": ({"ssb_replay_share": 0.5, "ssb_balance": True}, 2),
    "share 0.75, balanced": ({"ssb_replay_share": 0.75, "ssb_balance": True}, 2),
    "append 0.5": ({"ssb_replay": "append", "ssb_replay_share": 0.5}, 1),
    "append 0.5, balanced": ({"ssb_replay": "append", "ssb_replay_share": 0.5, "ssb_balance": True}, 1),
}
LOGGED = ("effective_before", "effective_after", "dead_groups", "replayed_rows", "replayed_negative")
LOGGED += ("replayed_advantage", "ratio_mean", "ratio_max", "ratio_clipped", "age_mean")


# ---- Task and base ----


def rows_of(pairs: list[tuple[int, int]]) -> Dataset:
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": f"{first} + {second}"}],
                "completion": [{"role": "assistant", "content": str(first + second)}],
                "solution": str(first + second),
            }
            for first, second in pairs
        ]
    )


def answer_reward(completions, solution, **kwargs) -> list[float]:
    return [float(messages[0]["content"] == right) for messages, right in zip(completions, solution, strict=True)]


def make_base(folder: Path, num_steps: int) -> None:
    """Data, and a base that has seen `num_steps` batches of 64 sums."""
    pairs = [(first, second) for first in range(10, 100) for second in range(10, 100)]
    random.Random(0).shuffle(pairs)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for split, part in (("train", pairs[3000:7000]), ("validation", pairs[7000:7400]), ("test", pairs[7400:])):
        rows_of(part).remove_columns("completion").to_parquet(folder / "data" / f"{split}.parquet")
    shown = rows_of(pairs[:3000])
    texts = [f"{part['role']}\n{part['content']}" for row in shown for part in row["prompt"] + row["completion"]]
    tokenizer = train_tokenizer(iter(texts), vocab_size=290)
    set_seed(0)
    model = new_language_model(tokenizer, hidden_size=64, num_layers=2)
    train_language_model(model, tokenizer, shown, num_steps, batch_size=64, learning_rate=4e-3, seed=0)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")


# ---- Scores ----


def right_answers(model, tokenizer, rows: Dataset, num_samples: int) -> torch.Tensor:
    """Which answers sampled at temperature 1 are right, shape `(len(rows), num_samples)`."""
    rollouts = sample_responses(
        model, tokenizer, rows, num_samples=num_samples, max_new_tokens=MAX_TOKENS, batch_size=1024, progress=False
    )
    right = torch.zeros(len(rows), num_samples)
    for rollout in rollouts:
        completion = [{"role": "assistant", "content": rollout.text}]
        right[rollout.row, rollout.sample] = answer_reward([completion], [rows[rollout.row]["solution"]])[0]
    return right


def passes(model, tokenizer, rows: Dataset) -> dict[str, float]:
    """pass@1, a mean over 32 samples, and pass@32."""
    right = right_answers(model, tokenizer, rows, 32)
    return {"pass@1": right.mean().item(), "pass@32": right.amax(dim=1).mean().item()}


class Curve(TrainerCallback):
    """Accuracy of one answer a row every `every` steps; its own time does not count."""

    def __init__(self, rows: Dataset, every: int):
        self.rows, self.every, self.points, self.cpu_seconds = rows, every, [], 0.0

    def evaluate(self, step: int) -> None:
        right = right_answers(self.trainer.model, self.trainer.processing_class, self.rows, 1)
        point = {"step": step, "accuracy": right.mean().item(), "generated_tokens": self.trainer.num_generated_tokens}
        self.points.append(point | {"train_cpu_seconds": self.cpu_seconds})

    def on_train_begin(self, args, state, control, **kwargs):
        self.evaluate(0)
        self.started = time.process_time()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self.cpu_seconds += time.process_time() - self.started
            self.evaluate(state.global_step)
            self.started = time.process_time()


# ---- Runs ----


def train(folder: Path, setting: str, rate: float, seed: int, split: str) -> dict:
    changed, times = SETTINGS[setting]
    args = SSBGRPOConfig(
        output_dir=str(folder / "trainer"),
        **{"per_device_train_batch_size": BATCH}
        | {"num_generations": NUM_GENERATIONS, "max_completion_length": MAX_TOKENS, "max_steps": int(STEPS * times)}
        | {
            "learning_rate": rate,
            "lr_scheduler_type": "constant_with_warmup",
            "loss_type": "grpo",
            "seed": seed,
            "warmup_steps": 10,
        }
        | {"share_prompts": True, "save_strategy": "no", "report_to": "none", "logging_steps": 1}
        | {"disable_tqdm": True, "bf16": False, "gradient_checkpointing": False, "use_cpu": True}
        | changed,
    )
    rows = load_dataset(str(folder / "data"), split=split)
    curve = Curve(rows, every=args.max_steps // 15)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "base", padding_side="left")
    trainer = CountingTrainer(
        Qwen2ForCausalLM.from_pretrained(folder / "base", dtype=torch.float32),
        answer_reward,
        args,
        train_dataset=load_dataset(str(folder / "data"), split="train"),
        processing_class=tokenizer,
        callbacks=[curve],
    )
    curve.trainer = trainer
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "reward" in entry]
    result = {"setting": setting, "learning_rate": rate, "seed": seed, "split": split, "changed": changed}
    result |= {"num_steps": args.max_steps, "points": curve.points, "environment": environment()}
    result["steps"] = {
        name: [round(entry[f"ssb/{name}"], 4) for entry in logs if f"ssb/{name}" in entry] for name in LOGGED
    }
    if split == "test":
        result["passes"] = passes(trainer.model, tokenizer, rows.select(range(200)))
    return result


def claim(path: Path) -> bool:
    """Whether the run is free; then it is this process's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        return False
    try:
        path.with_suffix(".begun").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def run_all(arguments: argparse.Namespace, jobs: list[tuple[str, float, int]], split: str) -> None:
    for setting, rate, seed in jobs:
        name = f"{re.sub('[^a-z0-9.]+', '-', setting)}_{rate:g}_{seed}.json"
        path = arguments.results / split / name
        if arguments.until and time.strftime("%H:%M") >= arguments.until:
            return
        if not claim(path):
            continue
        try:
            started = time.process_time()
            result = train(arguments.folder, setting, rate, seed, split)
            write_result(path, result)
            accuracy = [round(point["accuracy"], 3) for point in result["points"]]
            print(setting, rate, seed, accuracy, f"{time.process_time() - started:.0f} CPU s", flush=True)
        finally:
            path.with_suffix(".begun").unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["base", "search", "compare", "report"])
    parser.add_argument("--folder", type=Path, help="folder of data and base")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--base_steps", type=int, default=400)
    parser.add_argument("--until", help="begin no run after this time (HH:MM)")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if arguments.stage == "base":
        make_base(arguments.folder, arguments.base_steps)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(arguments.folder / "base", padding_side="left")
        rows = load_dataset(str(arguments.folder / "data"), split="test")
        found = passes(Qwen2ForCausalLM.from_pretrained(arguments.folder / "base").eval(), tokenizer, rows)
        write_result(arguments.results / "base.json", {"base_steps": arguments.base_steps, "passes": found})
        print(json.dumps(found, indent=1))
    elif arguments.stage == "search":
        jobs = [(setting, rate, SEARCH_SEED) for rate in RATES for setting in arguments.settings]
        run_all(arguments, jobs, "validation")
    elif arguments.stage == "compare":
        rates = best_rates(arguments.results)
        jobs = [
            (setting, rates.get(setting, rates["stock"]), seed)
            for seed in range(arguments.seeds)
            for setting in arguments.settings
        ]
        run_all(arguments, jobs, "test")
    else:
        report(arguments.results)


if __name__ == "__main__":
    main()
