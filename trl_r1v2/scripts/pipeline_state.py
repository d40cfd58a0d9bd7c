# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What is on disk about a pipeline: whose folder it is, which stages are finished, and what a run therefore does.

Covers markers, the plan of a run and setting earlier output aside. Does not cover what a stage is (`pipeline.py`) nor
running it (`stage_process.py`). Imports neither torch nor trl.
"""

import json
import uuid
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .pipeline import ResolvedStage
from .recipe import RecipeError


SCHEMA_VERSION = 1
MARKER_FOLDER = "stages"
OWNER_FILE = "pipeline.json"


@dataclass
class Marker:
    """
    What is on disk about a stage: `<output_dir>/stages/<name>.json`.

    Args:
        stage (`str`):
            Name of the stage.
        command (`str` or `list[str]`):
            What was run.
        fingerprint (`str`):
            Hash of command and recipe.
        recipe (`dict[str, Any]`):
            The recipe that was run.
        follows (`str`, *optional*):
            `run_id` of the stage before it, whose output it read.
        run_id (`str`):
            Changes each time the stage runs.
        status (`str`):
            `"running"`, `"finished"`, `"failed"` or `"interrupted"`.
        started (`str`):
            Start in UTC, ISO 8601.
        seconds (`float`):
            Duration of the process; 0 while it runs.
        output_dir (`str`, *optional*):
            Folder that the stage writes.
        schema_version (`int`):
            Version of these fields.
    """

    stage: str
    command: str | list[str]
    fingerprint: str
    recipe: dict[str, Any]
    follows: str | None
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    status: str = "running"
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    seconds: float = 0.0
    output_dir: str | None = None
    schema_version: int = SCHEMA_VERSION

    def write(self, folder: Path) -> None:
        """Write the marker below the pipeline's output folder, in one step."""
        path = folder / MARKER_FOLDER / f"{self.stage}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(self), indent=2, default=str) + "\n", encoding="utf-8")
        temporary.replace(path)


def read_marker(folder: Path, name: str) -> Marker | None:
    """
    Read the marker of a stage.

    Args:
        folder (`Path`):
            Output folder of the pipeline.
        name (`str`):
            Name of the stage.

    Returns:
        `Marker` or `None`: `None` when the stage has never run.

    Raises:
        RecipeError: The marker is damaged or of another version.
    """
    path = folder / MARKER_FOLDER / f"{name}.json"
    if not path.is_file():
        return None
    try:
        marker = Marker(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise RecipeError(f"{path} is damaged ({error}). Delete it to run stage {name!r} again.") from error
    if marker.schema_version != SCHEMA_VERSION:
        raise RecipeError(
            f"{path} is of version {marker.schema_version}, not {SCHEMA_VERSION}. Delete it to run again."
        )
    return marker


@dataclass
class Step:
    """
    What a run does about one stage.

    Args:
        stage ([`ResolvedStage`]):
            The stage.
        runs (`bool`):
            Whether it is run, or left as it is.
        reason (`str`):
            Why, in words.
        resumes (`bool`, *optional*, defaults to `False`):
            Whether the same stage was stopped before its end: what it has written stays in place for it to resume.
    """

    stage: ResolvedStage
    runs: bool
    reason: str
    resumes: bool = False


def plan(
    stages: list[ResolvedStage], folder: Path, from_stage: str | None = None, only: list[str] | None = None
) -> list[Step]:
    """
    Decide which stages run.

    A stage is finished when its marker says so for the same command and recipe, for the same run of the stage before
    it, and its output folder still exists. The first stage that is not finished and all after it run.

    Args:
        stages (`list[ResolvedStage]`):
            All stages.
        folder (`Path`):
            Output folder of the pipeline.
        from_stage (`str`, *optional*):
            Run this stage and all after it, finished or not.
        only (`list[str]`, *optional*):
            Run these stages, finished or not, and no others.

    Returns:
        `list[Step]`: One for each stage.

    Raises:
        RecipeError: A name is no stage, both choices are made, or `from_stage` skips an unfinished stage.
    """
    names = [stage.name for stage in stages]
    for name in [*(only or []), *([from_stage] if from_stage else [])]:
        if name not in names:
            raise RecipeError(f"there is no stage {name!r}; the pipeline has {', '.join(names)}.")
    if only and from_stage:
        raise RecipeError("`only` and `from_stage` exclude each other.")
    steps, previous_id = [], None
    for index, stage in enumerate(stages):
        marker = read_marker(folder, stage.name)
        unfinished = _unfinished_reason(stage, marker, previous_id)
        same_work = marker is not None and marker.fingerprint == stage.fingerprint and marker.follows == previous_id
        resumes = same_work and marker.status != "finished"
        if only:
            runs, reason = stage.name in only, "asked for" if stage.name in only else "not asked for"
        elif from_stage:
            runs, reason = index >= names.index(from_stage), "asked for"
            if not runs and unfinished:
                raise RecipeError(
                    f"stage {stage.name!r} comes before {from_stage!r} and is not finished ({unfinished}). Run without "
                    "`from_stage`: finished stages are skipped."
                )
            reason = reason if runs else "finished"
        else:
            changed = any(step.runs for step in steps)
            runs = changed or unfinished is not None
            reason = unfinished or ("an earlier stage runs again" if changed else "finished")
        steps.append(Step(stage, runs, reason, resumes and not any(step.runs for step in steps)))
        previous_id = marker.run_id if marker else None
    return steps


def _unfinished_reason(stage: ResolvedStage, marker: Marker | None, previous_id: str | None) -> str | None:
    if marker is None:
        return "not run yet"
    if marker.fingerprint != stage.fingerprint:
        if marker.command != stage.command:
            return "its command changed"
        keys = {*marker.recipe, *stage.recipe}
        changed = sorted(key for key in keys if marker.recipe.get(key) != stage.recipe.get(key))
        return f"its recipe changed: {', '.join(changed)}"
    if marker.follows != previous_id:
        return "an earlier stage has run again since"
    if marker.status != "finished":
        return {"running": "was cut off", "failed": "failed", "interrupted": "was interrupted"}[marker.status]
    if stage.output_dir is not None and not stage.output_dir.exists():
        return f"its output {stage.output_dir} is gone"
    return None


def claim_folder(folder: Path, name: str, recipe: str, stages: list[str]) -> None:
    """
    Make an output folder the pipeline's own.

    Args:
        folder (`Path`):
            Output folder; created if needed.
        name (`str`):
            Name of the pipeline.
        recipe (`str`):
            Path of its recipe, for messages.
        stages (`list[str]`):
            Names of its stages, in order.

    Raises:
        RecipeError: The folder belongs to another pipeline.
    """
    check_owner(folder, name)
    folder.mkdir(parents=True, exist_ok=True)
    owner = {"schema_version": SCHEMA_VERSION, "name": name, "recipe": recipe, "stages": stages}
    (folder / OWNER_FILE).write_text(json.dumps(owner, indent=2) + "\n", encoding="utf-8")


def check_owner(folder: Path, name: str) -> None:
    """Raise a `RecipeError` when `folder` belongs to a pipeline other than `name`."""
    path = folder / OWNER_FILE
    if not path.is_file():
        return
    owner = json.loads(path.read_text(encoding="utf-8"))
    if owner["name"] != name:
        raise RecipeError(
            f"{folder} belongs to the pipeline {owner['name']!r} ({owner['recipe']}), not to {name!r}. Choose another "
            f"`--output_dir`, delete the folder, or set `name: {owner['name']}` if it is the same pipeline."
        )


def set_aside(step: Step, folder: Path, stages: list[ResolvedStage]) -> Path | None:
    """
    Move what an earlier run of a stage has written out of the way, so that old and new files do not mix.

    Only a folder of the stage's own inside the pipeline's folder is moved, and only if the stage has run before.

    Args:
        step ([`Step`]):
            Stage that is about to run.
        folder (`Path`):
            Output folder of the pipeline.
        stages (`list[ResolvedStage]`):
            All stages; a folder in which another stage writes is left alone.

    Returns:
        `Path` or `None`: Where the earlier output is now.
    """
    output_dir = step.stage.output_dir
    if step.resumes or output_dir is None or not output_dir.exists() or read_marker(folder, step.stage.name) is None:
        return None
    inside = output_dir.resolve()
    others = [stage.output_dir.resolve() for stage in stages if stage.output_dir and stage.name != step.stage.name]
    shared = any(other == inside or inside in other.parents for other in others)
    if shared or folder.resolve() not in inside.parents:
        return None
    replaced = folder / "replaced"
    replaced.mkdir(exist_ok=True)
    number = 1
    while (replaced / f"{step.stage.name}-{number}").exists():
        number += 1
    return output_dir.rename(replaced / f"{step.stage.name}-{number}")
