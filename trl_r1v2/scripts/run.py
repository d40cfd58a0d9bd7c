# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Run the stages of a pipeline recipe in order, each in a process of its own.

    trl-r1v2 run --config recipes/digits/pipeline.yaml

Stages that are finished are skipped; after a change of a recipe, that stage and all after it run again. What a stage
prints is in `<output_dir>/logs/<stage>.log`, the recipe it was given in `<output_dir>/recipes/<stage>.yaml`.
"""

import multiprocessing
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

from .parser import RecipeParser
from .pipeline import Stage, resolve_stages
from .recipe import RecipeError


@dataclass
class RunArguments:
    """
    Arguments of `trl-r1v2 run`.
    """

    output_dir: str = field(metadata={"help": "Folder of the whole pipeline: logs, markers, and the stages' output."})
    stages: list[Stage] = field(
        metadata={
            "help": "Stages in order. Each is a mapping with `name`, `command` (a command of trl-r1v2, or a program as "
            "a list), and optionally `config` (its recipe, relative to this one) and `args` (keys that override it). "
            "`${output_dir}` stands for the pipeline's output folder."
        }
    )
    name: str | None = field(
        default=None,
        metadata={"help": "Name of the pipeline, which owns the output folder. Unset: folder and name of the recipe."},
    )
    from_stage: str | None = field(
        default=None, metadata={"help": "Run this stage and all after it, even if they are finished."}
    )
    only: list[str] | None = field(
        default=None, metadata={"help": "Run these stages and no others, even if finished."}
    )
    overrides: list[str] | None = field(
        default=None, metadata={"help": "Keys to override, as stage.key=value, for example grpo.max_steps=20."}
    )
    dry_run: bool = field(
        default=False, metadata={"help": "Check every stage's recipe and say what would run, without running it."}
    )
    verbose: bool = field(default=False, metadata={"help": "Show the running stage's own output."})

    def __post_init__(self):
        self.stages = [
            Stage.from_mapping(index, stage) if isinstance(stage, dict) else stage
            for index, stage in enumerate(self.stages)
        ]
        if not self.stages:
            raise ValueError("`stages` is empty: a pipeline has at least one stage.")
        self.recipe_path = Path("pipeline.yaml")

    @property
    def pipeline_name(self) -> str:
        """Name that owns the output folder."""
        return self.name or f"{self.recipe_path.resolve().parent.name}/{self.recipe_path.stem}"


class PipelineParser(RecipeParser):
    """[`RecipeParser`] that tells [`RunArguments`] which recipe it was read from."""

    def parse_args_and_config(self, *args, **kwargs):
        outputs = super().parse_args_and_config(*args, **kwargs)
        if self.recipe_path is not None:
            outputs[0].recipe_path = self.recipe_path
        return outputs


def main(run_args: RunArguments):
    from .pipeline_state import check_owner, plan
    from .stage_process import Stopped, stop_signals

    folder = Path(run_args.output_dir)
    stages = resolve_stages(run_args.stages, run_args.output_dir, run_args.recipe_path.parent, run_args.overrides)
    check_owner(folder, run_args.pipeline_name)
    steps = plan(stages, folder, run_args.from_stage, run_args.only)
    if run_args.dry_run:
        report_dry_run(steps)
        return
    try:
        with stop_signals():
            failure = carry_out(run_args, steps, folder)
    except Stopped as stopped:
        print(f"{stopped}; the same command goes on with the stage that was stopped.", file=sys.stderr)
        raise SystemExit(128 + stopped.signal_number) from None
    if failure:
        print(failure, file=sys.stderr)
        raise SystemExit(1)
    print(f"Done; the stages' output is in {folder}.")
    for stage in stages:
        if stage.command == "report":
            print(f"The report is {Path(stage.recipe['output_dir']) / 'report.html'}.")


def carry_out(run_args: RunArguments, steps, folder: Path) -> str | None:
    """
    Check the stages that run, take the folder, and run them.

    Args:
        run_args ([`RunArguments`]):
            Name of the pipeline and what to show.
        steps (`list[Step]`):
            Plan.
        folder (`Path`):
            Output folder of the pipeline.

    Returns:
        `str` or `None`: What to tell the user when a stage failed.

    Raises:
        RecipeError: A stage could not start, or the folder is taken.
    """
    from .pipeline_state import claim_folder
    from .pipeline_view import PipelineView
    from .stage_process import folder_lock

    problems = check_apart([step for step in steps if step.runs])
    if problems:
        raise RecipeError("\n  ".join(problems))
    names = [step.stage.name for step in steps]
    claim_folder(folder, run_args.pipeline_name, str(run_args.recipe_path), names)
    with folder_lock(folder) as lock, PipelineView(steps, folder, run_args.verbose) as view:
        return run_steps(steps, folder, view, lock)


def check_steps(steps) -> list[str]:
    """
    Parse the recipes of stages with their own parsers.

    Args:
        steps (`list[Step]`):
            Stages to check.

    Returns:
        `list[str]`: What is wrong, for each stage that could not start.
    """
    problems = []
    for step in steps:
        try:
            step.stage.check()
        except RecipeError as error:
            message = str(error)
            problems.append(message if message.startswith("stage ") else f"{step.stage.place}: {message}")
    return problems


def check_apart(steps) -> list[str]:
    """[`check_steps`] in a process that ends afterwards: parsers import what training does, which a run need not hold."""
    if not any(isinstance(step.stage.command, str) for step in steps):
        return check_steps(steps)
    with multiprocessing.get_context("spawn").Pool(1, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        return pool.apply(check_steps, (steps,))


def report_dry_run(steps) -> None:
    """Print what a run would do, and fail if a stage's recipe is wrong."""
    problems = check_steps(steps)
    for number, step in enumerate(steps, start=1):
        action = "run" if step.runs else "skip"
        command = step.stage.command if isinstance(step.stage.command, str) else " ".join(step.stage.command)
        print(f"[{number}/{len(steps)}] {step.stage.name}: {command}: would {action} ({step.reason})")
    if problems:
        raise RecipeError("\n  ".join(problems))
    print(f"The recipes of {len(steps)} stages are in order; nothing was run.")


def run_steps(steps, folder: Path, view, lock: int) -> str | None:
    """
    Run what the plan says, in order.

    Args:
        steps (`list[Step]`):
            Plan.
        folder (`Path`):
            Output folder of the pipeline.
        view ([`~trl_r1v2.scripts.pipeline_view.PipelineView`]):
            What the user sees.
        lock (`int`):
            Descriptor of the folder's lock.

    Returns:
        `str` or `None`: What to tell the user when a stage failed; later stages have not run.
    """
    import yaml

    from .pipeline_state import Marker, read_marker, set_aside
    from .stage_process import Timer, describe_exit, log_lines, run_stage

    previous_id = None
    for step in steps:
        stage = step.stage
        if not step.runs:
            marker = read_marker(folder, stage.name)
            previous_id = marker.run_id if marker else None
            continue
        aside = set_aside(step, folder, [other.stage for other in steps])
        if aside:
            view.say(f"{stage.name}: earlier output moved to {aside}; delete it when it is no longer needed.")
        for subfolder in ("logs", "recipes"):
            (folder / subfolder).mkdir(exist_ok=True)
        recipe_path, log_path = folder / "recipes" / f"{stage.name}.yaml", folder / "logs" / f"{stage.name}.log"
        recipe_path.write_text(yaml.safe_dump(stage.recipe, sort_keys=False, allow_unicode=True), encoding="utf-8")
        output_dir = str(stage.output_dir) if stage.output_dir else None
        marker = Marker(
            stage.name, stage.command, stage.fingerprint, stage.recipe, follows=previous_id, output_dir=output_dir
        )
        marker.write(folder)
        view.start(stage.name, f"goes on: {step.reason}" if step.resumes else step.reason, log_path)
        timer, code, status = Timer(), None, "interrupted"
        try:
            code = run_stage(stage.argv(recipe_path), log_path, lock, view.tick)
            status = "finished" if code == 0 else "failed"
        finally:
            marker.status, marker.seconds = status, round(timer.seconds, 3)
            marker.write(folder)
            note = {"finished": "", "failed": describe_exit(code or 0), "interrupted": "stopped"}[status]
            view.end(stage.name, status, note, timer.seconds)
        if status == "failed":
            last = "\n".join(f"  | {line}" for line in log_lines(log_path, 20))
            return (
                f"Stage {stage.name!r} failed ({describe_exit(code)}). Its log is {log_path}, which ends with:\n{last}"
            )
        previous_id = marker.run_id
    return None


def make_parser(prog: str | None = None):
    return PipelineParser((RunArguments,), prog=prog)


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
