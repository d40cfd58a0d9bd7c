# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Run the stages of a pipeline recipe in order, each in a process of its own.

    trl-r1v2 run --config recipes/digits/pipeline.yaml

Stages that are finished are skipped; after a change of a recipe, that stage and all after it run again. What a stage
prints is in `<output_dir>/logs/<stage>.log`, the recipe it was given in `<output_dir>/recipes/<stage>.yaml`.
"""

import json
import multiprocessing
import signal
import sys
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text
from transformers.hf_argparser import HfArg

from .pipeline import Stage, plan
from .recipe import RecipeError
from .stage_process import Stopped, folder_lock, log_lines, run_stage, stop_signals


@dataclass
class RunArguments:
    """Arguments of `trl-r1v2 run`."""

    output_dir: str = HfArg(help="Folder of the whole pipeline: logs, markers, and the stages' output.")
    stages: list[Stage] = HfArg(help="Stages in order: `name`, `command`, and optionally `config`, `args`.")
    name: str | None = HfArg(default=None, help="Pipeline that owns the folder. Unset: folder and name of the recipe.")
    only: list[str] | None = HfArg(default=None, help="Run these stages and no others, even if finished.")
    overrides: list[str] | None = HfArg(default=None, help="As stage.key=value, for example grpo.max_steps=20.")
    dry_run: bool = HfArg(default=False, help="Check every stage's recipe and say what would run; nothing is run.")
    recipe_path: str = HfArg(default="pipeline.yaml", help="The recipe itself; filled in from `--config`.")

    def resolve(self) -> list[Stage]:
        """Fill in the stages' recipes and the pipeline's name; refuse what names no stage, or two."""
        stages = [Stage(**stage) for stage in self.stages]
        overriding: dict[str, dict[str, Any]] = {stage.name: {} for stage in stages}
        if len(overriding) < len(stages):
            raise RecipeError("`stages`: two of them are called alike; give each its own name.")
        for entry in self.overrides or []:
            place, equals, value = entry.partition("=")
            name, _, key = place.partition(".")
            if not equals or not key:
                raise RecipeError(f"`overrides: {entry}` is not of the form stage.key=value.")
            overriding.setdefault(name, {})[key] = yaml.safe_load(value)
        known = [stage.name for stage in stages]
        for name in [*(self.only or []), *overriding]:
            if name not in known:
                raise RecipeError(f"there is no stage {name!r}; the pipeline has {', '.join(known)}.")
        for stage in stages:
            stage.resolve(Path(self.recipe_path).parent, self.output_dir, overriding[stage.name])
        path = Path(self.recipe_path)
        self.name = self.name or f"{path.resolve().parent.name}/{path.stem}"
        return stages


def main(run_args: RunArguments):
    folder, stages = Path(run_args.output_dir), run_args.resolve()
    owner_path = folder / "pipeline.json"
    owner = json.loads(owner_path.read_text(encoding="utf-8")) if owner_path.is_file() else {"name": run_args.name}
    if owner["name"] != run_args.name:
        raise RecipeError(
            f"{folder} belongs to the pipeline {owner['name']!r} ({owner['recipe']}), not to {run_args.name!r}. "
            f"Choose another `--output_dir`, delete the folder, or set `name: {owner['name']}` if it is the same "
            "pipeline."
        )
    plan(stages, run_args.only)
    # in a process that ends afterwards: parsers import what training does, which a run need not hold
    with multiprocessing.get_context("spawn").Pool(1, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        problems = pool.map(Stage.check, [stage for stage in stages if stage.runs or run_args.dry_run])
    for stage in stages if run_args.dry_run else []:
        print(f"{stage.name}: would {'run' if stage.runs else 'skip'} ({stage.reason})")
    if any(problems):
        raise RecipeError("\n  ".join(filter(None, problems)))
    if run_args.dry_run:
        print(f"The recipes of {len(stages)} stages are in order; nothing was run.")
        return
    for subfolder in ("stages", "logs", "recipes"):
        (folder / subfolder).mkdir(parents=True, exist_ok=True)
    owner = {"name": run_args.name, "recipe": run_args.recipe_path, "stages": [stage.name for stage in stages]}
    owner_path.write_text(json.dumps(owner, indent=2) + "\n", encoding="utf-8")
    previous_id = None
    try:
        with stop_signals(), folder_lock(folder) as lock:
            for number, stage in enumerate(stages, start=1):
                previous_id = run(stage, stages, f"[{number}/{len(stages)}] {stage.name}", previous_id, lock)
    except Stopped as stopped:
        print(f"Stopped by {stopped.args[0].name}; the same command goes on from there.", file=sys.stderr)
        raise SystemExit(128 + stopped.args[0]) from None
    reports = [f"{stage.output_dir}/report.html" for stage in stages if stage.command == "report"]
    there = [str(folder), *(report for report in reports if Path(report).is_file())]
    print(f"Done; the stages' output is in {', '.join(there)}.")


def run(stage: Stage, stages: list[Stage], title: str, previous_id: str | None, lock: int) -> str | None:
    """
    Run one stage if the plan says so, with the latest line of its log on a terminal. A stage that fails ends the
    program.
    """
    console, start = Console(highlight=False, markup=False), time.monotonic()
    if not stage.runs:
        console.print(f"{title}: skipped ({stage.reason})")
        return (stage.read_marker() or {}).get("run_id")
    if not stage.resumes and (aside := stage.set_aside(stages)):
        console.print(f"{title}: earlier output moved to {aside}; delete it when it is not needed", soft_wrap=True)
    stage.recipe_path.write_text(yaml.safe_dump(stage.args, sort_keys=False, allow_unicode=True), encoding="utf-8")
    marker = {"stage": stage.name, "command": stage.command, "recipe": stage.args, "output_dir": stage.output_dir}
    marker |= {"run_id": uuid.uuid4().hex[:12], "follows": previous_id, "started": f"{datetime.now(UTC):%FT%TZ}"}

    def mark(status: str) -> None:
        marker.update(status=status, seconds=round(time.monotonic() - start, 3))
        stage.marker_path.with_suffix(".tmp").write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
        stage.marker_path.with_suffix(".tmp").replace(stage.marker_path)

    def tick() -> None:
        line = " ".join(log_lines(stage.log_path, 1))
        status.update(Text(f"{title} {elapsed(start)} {line}", no_wrap=True, overflow="ellipsis"))

    mark("running")
    console.print(f"{title}: running ({'goes on: ' if stage.resumes else ''}{stage.reason})", soft_wrap=True)
    outcome = "interrupted"
    try:
        with console.status("") as status:
            code = run_stage(stage.argv(), stage.log_path, lock, tick)
        outcome = "failed" if code else "finished"
    finally:
        mark(outcome)
        console.print(f"{title}: {outcome} after {elapsed(start)}")
    if code:
        # -9 is the signal that out-of-memory killers send
        reason = f"exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"
        lines = "".join(f"\n  | {line}" for line in log_lines(stage.log_path, 20))
        sys.exit(f"Stage {stage.name!r} failed ({reason}). Its log is {stage.log_path}, which ends with:{lines}")
    return marker["run_id"]


def elapsed(start: float) -> timedelta:
    return timedelta(seconds=int(time.monotonic() - start))
