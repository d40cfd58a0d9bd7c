# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Settings of replay against stock, half the batch and dynamic sampling, where reinforcement learning adds skill.

    python -m benchmarks.ssb.skills base --task sort --folder runs/sort
    python -m benchmarks.ssb.skills search --task sort --folder runs/sort
    python -m benchmarks.ssb.skills compare --task sort --folder runs/sort --seeds 5
    python -m benchmarks.ssb.skills pool --task sort --folder runs/sort --seeds 5
    python -m benchmarks.ssb.skills report --task sort

`search` trains with every setting and learning rate and one seed that is used nowhere else, scored on validation rows;
`compare` trains with the best rate of each setting (stock's where none was searched), scored on test rows. `pool`
filters the training prompts with `trl-r1v2 filter-prompts`, trains on what is left, the buffer off or filled
beforehand, and stops early. Runs that have a result file are skipped, one that another process has begun is left to
it: any number of processes may share the work, and all of them begin no run after `--until`. The tasks are in
`skill_tasks.py`, the statistics in `skills_report.py`.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset, load_dataset
from transformers import TrainerCallback

from benchmarks.environment import SOURCE, environment
from benchmarks.results import write_result
from benchmarks.ssb.skill_tasks import TASKS, Task, answer_reward, load_model, make_base
from benchmarks.ssb.skills_report import best_rates, report
from benchmarks.ssb.train_one import CountingTrainer
from trl_r1v2 import SSBGRPOConfig
from trl_r1v2.sampling import sample_responses


RESULTS = Path(__file__).parent / "results"
NUM_GENERATIONS, BATCH, NUM_EVALUATIONS = 8, 64, 12
RATES = (1e-4, 3e-4, 1e-3)
SEARCH_SEED = 100
NUM_PASSES = 3  # seeds whose pass@32 is measured
OFF, BALANCED, HALF = {"ssb_enabled": False}, {"ssb_balance": True}, {"per_device_train_batch_size": BATCH // 2}
# Few rows are live, so the buffer runs dry at the default of 4 uses; ratios grow with more.
COMBINED = BALANCED | {"ssb_max_uses": 16, "delta": 2.0}
TWICE, APPEND = {"num_iterations": 2}, {"ssb_replay": "append", "ssb_replay_share": 0.5}
# name: what differs, and steps as a multiple of stock's (settings that generate less a step may take more)
SETTINGS = {
    "stock": (OFF, 1),
    "half": (OFF | HALF, 2),
    "dynamic": ({"ssb_replay": "none", "ssb_resample_rounds": 2}, 1),
    "twice": (OFF | TWICE, 2),
    "dead": ({}, 1),
    "dead, balanced": (BALANCED, 1),
    "dead, combined": (COMBINED, 1),
    "half, dead, combined": (HALF | COMBINED, 2),
    "twice, dead, combined": (TWICE | COMBINED, 2),
    "share 0.5": ({"ssb_replay_share": 0.5}, 1.5),
    "share 0.25, combined": ({"ssb_replay_share": 0.25} | COMBINED, 1.25),
    "share 0.5, combined": ({"ssb_replay_share": 0.5} | COMBINED, 1.5),
    "share 0.75, combined": ({"ssb_replay_share": 0.75} | COMBINED, 2),
    "half, share 0.5, combined": ({"ssb_replay_share": 0.5} | HALF | COMBINED, 3),
    "twice, share 0.5, combined": ({"ssb_replay_share": 0.5} | TWICE | COMBINED, 3),
    "append 0.5": (APPEND, 1),
    "append 0.5, combined": (APPEND | COMBINED, 1),
}
# On the filtered prompts, with the rates of "stock" and "dead"; for the first half of the steps.
POOL_SETTINGS = {"pool": (OFF, 0.5), "pool, prefilled": ({"ssb_prefill": "pool/ssb"}, 0.5)}
LOGGED = ("effective_before", "effective_after", "dead_groups", "replayed_rows", "replayed_negative")
LOGGED += ("replayed_advantage", "ratio_mean", "ratio_max", "ratio_clipped", "age_mean")


# ---- Scores ----


def right_answers(task: Task, model, processing_class, rows: Dataset, num_samples: int) -> torch.Tensor:
    """Which answers sampled at temperature 1 are right, shape `(len(rows), num_samples)`."""
    rollouts = sample_responses(
        model,
        processing_class,
        rows,
        num_samples=num_samples,
        max_new_tokens=task.max_tokens,
        batch_size=1024,
        progress=False,
    )
    right, solutions = torch.zeros(len(rows), num_samples), rows["solution"]
    for rollout in rollouts:
        right[rollout.row, rollout.sample] = float(rollout.text == solutions[rollout.row])
    return right


def passes(task: Task, model, processing_class, rows: Dataset) -> dict:
    """pass@1, a mean over 32 samples, and pass@32; of all rows, and by the length of the answer."""
    right = right_answers(task, model, processing_class, rows, 32)
    lengths = torch.tensor(rows["length"])

    def both(chosen: torch.Tensor) -> dict[str, float]:
        return {"pass@1": right[chosen].mean().item(), "pass@32": right[chosen].amax(dim=1).mean().item()}

    by_length = {str(length): both(lengths == length) for length in lengths.unique().tolist()}
    return both(lengths > 0) | {"num_rows": len(rows), "by_length": by_length}


class Curve(TrainerCallback):
    """Accuracy of one answer a row every `every` steps; its own time does not count."""

    def __init__(self, task: Task, rows: Dataset, every: int):
        self.task, self.rows, self.every, self.points, self.cpu_seconds = task, rows, every, [], 0.0

    def evaluate(self, step: int) -> None:
        right = right_answers(self.task, self.trainer.model, self.trainer.processing_class, self.rows, 1)
        point = {"step": step, "accuracy": right.mean().item(), "generated_tokens": self.trainer.num_generated_tokens}
        self.points.append(point | {"train_cpu_seconds": self.cpu_seconds})

    def on_train_begin(self, args, state, control, **kwargs):
        self.evaluate(0)
        self.started = time.process_time()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.every == 0:
            self.cpu_seconds += time.process_time() - self.started
            self.evaluate(state.global_step)
            self.started = time.process_time()


# ---- Runs ----


def train(task: Task, folder: Path, setting: str, rate: float, seed: int, split: str) -> dict:
    changed, times = (SETTINGS | POOL_SETTINGS)[setting]
    every = round(task.steps * times / NUM_EVALUATIONS)
    arguments = {
        "output_dir": str(folder / "trainer"),
        "per_device_train_batch_size": BATCH,
        "num_generations": NUM_GENERATIONS,
        "max_completion_length": task.max_tokens,
        "max_steps": every * NUM_EVALUATIONS,
        "learning_rate": rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 10,
        "loss_type": "grpo",
        "seed": seed,
        "share_prompts": True,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1,
        "disable_tqdm": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
    }
    if "ssb_prefill" in changed:
        changed = {"ssb_prefill": str(folder / changed["ssb_prefill"])}
    args = SSBGRPOConfig(**arguments | changed)
    rows = load_dataset(str(folder / "data"), split=split)
    curve = Curve(task, rows.select(range(300)), every)
    model, processing_class = load_model(folder / "base")
    trainer = CountingTrainer(
        model,
        answer_reward,
        args,
        train_dataset=load_dataset(str(folder / ("pool" if setting in POOL_SETTINGS else "data")), split="train"),
        processing_class=processing_class,
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
    result["steps"]["reward"] = [round(entry["reward"], 4) for entry in logs]
    if split == "test" and seed < NUM_PASSES:
        result["passes"] = passes(task, trainer.model, processing_class, rows.select(range(300, len(rows))))
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


def filter_prompts(task: Task, folder: Path, results: Path) -> None:
    """The training prompts to which the base gives right and wrong answers among 8, and a buffer of these answers."""
    command = [sys.executable, "-m", "trl_r1v2", "filter-prompts", "--model_name_or_path", str(folder / "base")]
    command += ["--dataset_name", str(folder / "data"), "--output_dir", str(folder / "pool"), "--use_cpu", "true"]
    command += ["--num_samples", str(NUM_GENERATIONS), "--max_new_tokens", str(task.max_tokens), "--prefill", "true"]
    command += ["--reward_funcs", "benchmarks.ssb.skill_tasks.answer_reward", "--batch_size", "512"]
    subprocess.run(command, check=True)
    summary = json.loads((folder / "pool" / "summary.json").read_text())
    num_tokens = round(summary["mean_tokens"] * summary["num_responses"])
    write_result(results / "filter.json", {"prompts": summary["prompts"], "generated_tokens": num_tokens} | SOURCE)


def run_all(
    arguments: argparse.Namespace, jobs: list[tuple[str, float, int]], split: str, under: str | None = None
) -> None:
    results = arguments.results / arguments.task
    for setting, rate, seed in jobs:
        name = f"{re.sub('[^a-z0-9.]+', '-', setting)}_{rate:g}_{seed}.json"
        path = results / (under or split) / name
        if arguments.until and time.strftime("%H:%M") >= arguments.until:
            return
        if not claim(path):
            continue
        try:
            started = time.process_time()
            result = train(TASKS[arguments.task], arguments.folder, setting, rate, seed, split)
            write_result(path, result)
            accuracy = [round(point["accuracy"], 3) for point in result["points"]]
            print(setting, rate, seed, accuracy, f"{time.process_time() - started:.0f} CPU s", flush=True)
        finally:
            path.with_suffix(".begun").unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["base", "search", "compare", "pool", "report"])
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--folder", type=Path, help="folder of data and base")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tasks' result folders")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--rates", nargs="+", type=float, default=RATES, help="learning rates to search")
    parser.add_argument("--rates_of", choices=TASKS, help="task whose search gives the learning rates, if another")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--until", help="begin no run after this time (HH:MM)")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    task, results = TASKS[arguments.task], arguments.results / arguments.task
    if arguments.stage == "base":
        make_base(task, arguments.folder)
        rows = load_dataset(str(arguments.folder / "data"), split="test")
        model, processing_class = load_model(arguments.folder / "base")
        found = passes(task, model, processing_class, rows.select(range(300, len(rows))))
        write_result(results / "base.json", {"base_steps": task.base_steps, "passes": found} | SOURCE)
        print(found)
    elif arguments.stage == "search":
        jobs = [(setting, rate, SEARCH_SEED) for rate in arguments.rates for setting in arguments.settings]
        run_all(arguments, jobs, "validation")
    elif arguments.stage == "compare":
        rates = best_rates(arguments.results / (arguments.rates_of or arguments.task))
        jobs = [
            (setting, rates.get(setting, rates["stock"]), seed)
            for seed in range(arguments.seeds)
            for setting in arguments.settings
        ]
        run_all(arguments, jobs, "test")
    elif arguments.stage == "pool":
        if not (results / "filter.json").exists():
            filter_prompts(task, arguments.folder, results)
        rates = best_rates(arguments.results / (arguments.rates_of or arguments.task))
        of_setting = {"pool": rates["stock"], "pool, prefilled": rates["dead"]}
        jobs = [(setting, of_setting[setting], seed) for seed in range(arguments.seeds) for setting in POOL_SETTINGS]
        run_all(arguments, jobs, "test", under="pool")
    else:
        report(results)


if __name__ == "__main__":
    main()
