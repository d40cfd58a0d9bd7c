# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Every run of the ablations that has no result yet, one after the other, with how many there are and how long they will
take.

The comparisons themselves are those of `benchmarks/{ssb,mpo,activation,hallucination}`; here they only get their
arguments.
"""

import argparse
import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

from benchmarks.activation import compare as activation
from benchmarks.hallucination import reward_hacking
from benchmarks.mpo import compare as mpo
from benchmarks.mpo import train_grpo, train_one
from benchmarks.rewards import factual_consistency
from benchmarks.ssb import compare as ssb


class InputsError(ValueError):
    """The results in the folder are of other inputs."""


@dataclass(frozen=True)
class Stage:
    """
    One comparison, or a part of one.

    Args:
        name (`str`): For the progress lines, and of the log.
        module (`ModuleType`): Has `make_parser()` and `compare(arguments, report)`.
        options (`list` of `str`): What it is called with besides base, data and seeds.
        results (`tuple` of `Path`): Folders with a JSON file for each run.
        num_runs (`int`): How many runs it has.
        seconds (`float`): CPU seconds of a run on one idle core, as measured; only for the estimate of the time left.
    """

    name: str
    module: ModuleType
    options: list[str]
    results: tuple[Path, ...]
    num_runs: int
    seconds: float

    @property
    def num_done(self) -> int:
        # A comparison's own summaries have no hyphen in their names, the runs' files all have one.
        return sum(len(list(folder.glob("*-*.json"))) for folder in self.results)


def stages(folder: Path, seeds: int) -> list[Stage]:
    """All stages, with their results in `folder`."""
    mpo_options = ["--results", str(folder / "mpo"), "--work_dir", str(folder / "mpo_pairs")]
    ssb_settings = ["stock", "paper", "fresh", "share", "resample"]
    num_methods = len(mpo.SEARCHED) * len(mpo.RATES) + 1
    num_methods += (len(train_one.SETTINGS) + len(train_grpo.SETTINGS)) * seeds
    num_activation = sum(map(len, activation.LEARNING_RATES.values())) + len(activation.PRESETS) * seeds
    return [
        Stage("ssb", ssb, ["--task", "digits", "--results", str(folder / "ssb"), "--settings", *ssb_settings],
              (folder / "ssb/digits",), len(ssb_settings) * seeds, 150),
        Stage("methods", mpo, [*mpo_options, "--parts", "search", "methods"],
              (folder / "mpo/search", folder / "mpo/methods"), num_methods, 40),
        Stage("thresholds", mpo, [*mpo_options, "--parts", "thresholds", "--threshold_seeds", str(seeds)],
              (folder / "mpo/thresholds",), len(mpo.THRESHOLDS) * seeds, 60),
        Stage("activation", activation, ["--results", str(folder / "activation")],
              (folder / "activation",), num_activation, 55),
        Stage("reward_hacking", reward_hacking,
              ["--results", str(folder / "reward_hacking"), "--work", str(folder / "reward_hacking_start")],
              (folder / "reward_hacking",), len(reward_hacking.SETTINGS) * seeds, 35),
        Stage("factual_consistency", factual_consistency,
              ["--results", str(folder / "factual_consistency"), "--work", str(folder / "consistency_trainer")],
              (folder / "factual_consistency",), len(factual_consistency.SETTINGS) * seeds, 70),
    ]  # fmt: skip


def duration(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class Progress:
    """Counts the result files whenever a run ends. What is left is estimated from what this call has done so far."""

    def __init__(self, plan: list[Stage], say: Callable[[str], None]):
        self.plan, self.say = plan, say
        self.started, self.cost_at_start = time.monotonic(), self.cost_left()
        self.say(f"{self.count()} runs are done; about {duration(self.cost_at_start)} on an idle core for the others.")

    def cost_left(self) -> float:
        return sum(stage.seconds * (stage.num_runs - stage.num_done) for stage in self.plan)

    def count(self) -> str:
        return f"{sum(s.num_done for s in self.plan)} of {sum(s.num_runs for s in self.plan)}"

    def report(self, line: str) -> None:
        left = self.cost_left()
        cost_done = self.cost_at_start - left
        time_left = ""
        if cost_done > 0 and left > 0:
            time_left = f", about {duration((time.monotonic() - self.started) * left / cost_done)} left"
        self.say(f"[{self.count()}] {line}{time_left}")


def check_inputs(folder: Path, base: str, data: str) -> None:
    """
    Remember what the results in `folder` are of.

    Raises:
        ValueError: If they are of another base model or other data.
    """
    files = (Path(base) / "model.safetensors", Path(data) / "README.md")  # the data's card has a digest of its files
    inputs = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    kept = folder / "inputs.json"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(inputs, indent=1) + "\n", encoding="utf-8")
    elif json.loads(kept.read_text(encoding="utf-8")) != inputs:
        raise InputsError(
            f"The results in {folder} are of another base model or other data than {base} and {data}: give another "
            "folder with --output, or remove that one."
        )


def run_all(base: str, data: str, folder: Path, seeds: int, say: Callable[[str], None]) -> list[str]:
    """
    Make the missing runs; what the trainers print goes to `<stage>.log`.

    Returns:
        `list` of `str`: A line for each stage that still lacks results, because runs of it failed.
    """
    check_inputs(folder, base, data)
    # The models are far too small for more threads. Runs in processes of their own take the variable.
    torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))
    plan = stages(folder, seeds)
    progress = Progress(plan, say)
    for stage in plan:
        if stage.num_done >= stage.num_runs:
            continue
        options = ["--base", base, "--data", data, "--seeds", str(seeds), *stage.options]
        arguments: argparse.Namespace = stage.module.make_parser().parse_args(options)
        with open(folder / f"{stage.name}.log", "a", encoding="utf-8") as log:
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                stage.module.compare(arguments, lambda line, name=stage.name: progress.report(f"{name}: {line}"))
    return [f"{s.name}: {s.num_done} of {s.num_runs} runs have a result" for s in plan if s.num_done < s.num_runs]
