# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The stages of a pipeline recipe: what each runs, what is on disk about it, and whether a run therefore starts it.
Running is `run.py` and `stage_process.py`. Imports neither torch nor trl, unless a stage is checked.
"""

import importlib
import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .loading import extend_search_path
from .main import COMMANDS, script_of
from .recipe import RecipeError, read_recipe, unknown


@dataclass
class Stage:
    """
    One stage of a pipeline recipe.

    Args:
        name (`str`): Name of the stage; its log, recipe and marker carry it.
        command (`str` or `list[str]`): A command of `trl-r1v2`, or a program with its arguments; `python` is the
            running interpreter.
        config (`str`, *optional*): Recipe of the command, relative to the pipeline recipe.
        args (`dict[str, Any]`, *optional*): Keys that override the recipe's. A program with `config` or `args` is
            called with `--config FILE` behind its arguments. `${output_dir}` stands for the pipeline's output folder,
            here and in `command`.
    """

    __pydantic_config__ = {"extra": "forbid"}

    name: str
    command: str | list[str]
    config: str | None = None
    args: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        self.place = f"stage {self.name!r}"
        if not self.name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"{self.place}: a name takes letters, digits, - and _, because files are called by it.")
        if isinstance(self.command, str) and self.command not in COMMANDS:
            refusal = unknown("command", self.command, COMMANDS)
            raise ValueError(f"{self.place}: {refusal}; a program is given as a list.")

    def resolve(self, recipe_folder: Path, output_dir: str, overrides: dict[str, Any]) -> None:
        """Fill in the recipe, what overrides it, and what `${output_dir}` stands for."""
        recipe = {}
        if self.config is not None:
            recipe = read_recipe(recipe_folder / self.config)
            self.place += f" ({os.path.relpath(recipe_folder / self.config)})"
        written = json.dumps([self.command, {**recipe, **self.args, **overrides}], default=str)
        self.command, self.args = json.loads(written.replace("${output_dir}", json.dumps(output_dir)[1:-1]))
        self.folder, self.output_dir = Path(output_dir), self.args.get("output_dir")
        self.log_path, self.recipe_path, self.marker_path = (
            self.folder / kind / f"{self.name}{ending}"
            for kind, ending in (("logs", ".log"), ("recipes", ".yaml"), ("stages", ".json"))
        )

    def argv(self) -> list[str]:
        """The command line of the stage's process."""
        if isinstance(self.command, str):
            return [sys.executable, "-m", "trl_r1v2", self.command, "--config", str(self.recipe_path)]
        program = sys.executable if self.command[0] == "python" else self.command[0]
        return [program, *self.command[1:], *(["--config", str(self.recipe_path)] if self.args else [])]

    def check(self) -> str | None:
        """Parse the recipe with the command's or module's own parser, or look up the program; return what is wrong."""
        if isinstance(self.command, str):
            module = script_of(self.command)
        elif self.command[:2] == ["python", "-m"]:
            module = self.command[2]
        else:
            found = self.command[0] == "python" or shutil.which(self.command[0]) is not None
            return None if found else f"{self.place}: there is no program {self.command[0]!r}."
        from .parser import parser_of

        extend_search_path()
        try:
            script = importlib.import_module(module)
            if isinstance(self.command, str):
                parser_of(script.main).parse_recipe(self.args, self.place)
            elif "make_parser" in vars(script):
                script.make_parser(prog=module).parse_recipe(self.args, self.place)
        except ModuleNotFoundError as error:
            return f"{self.place}: there is no module {module!r} ({error})."
        except RecipeError as error:
            return str(error)
        return None

    def read_marker(self) -> dict[str, Any] | None:
        """
        What is on disk about the stage, `None` if it has never run: `command`, `recipe`, `output_dir`, `run_id`, which
        changes each time, `follows`, the `run_id` of the stage before it, whose output it read, `status` (`"running"`,
        `"finished"`, `"failed"` or `"interrupted"`), `started` (UTC) and `seconds`.
        """
        return json.loads(self.marker_path.read_text(encoding="utf-8")) if self.marker_path.is_file() else None

    def unfinished(self, marker: dict[str, Any] | None, previous_id: str | None) -> str | None:
        """Why the stage of this marker has to run, behind the run `previous_id` of the stage before it, or `None`."""
        if marker is None:
            return "not run yet"
        if marker["command"] != self.command:
            return "its command changed"
        keys = sorted({*marker["recipe"], *self.args})
        changed = [key for key in keys if marker["recipe"].get(key) != self.args.get(key)]
        if changed:
            return f"its recipe changed: {', '.join(changed)}"
        if marker["follows"] != previous_id:
            return "an earlier stage has run again since"
        if marker["status"] != "finished":
            return marker["status"]
        gone = self.output_dir is not None and not Path(self.output_dir).exists()
        return f"its output {self.output_dir} is gone" if gone else None

    def set_aside(self, stages: list["Stage"]) -> Path | None:
        """
        Move what an earlier run has written out of the way, so that old and new files do not mix: only a folder of the
        stage's own inside the pipeline's, in which no other of `stages` writes. Return where it is now.
        """
        marker, written = self.read_marker(), Path(self.output_dir or "").resolve()
        others = [Path(stage.output_dir).resolve() for stage in stages if stage.output_dir and stage is not self]
        shared = any(written in (other, *other.parents) for other in others)
        if marker is None or not written.exists() or self.folder.resolve() not in written.parents or shared:
            return None
        (self.folder / "replaced").mkdir(exist_ok=True)
        return written.rename(self.folder / "replaced" / f"{self.name}-{marker['run_id']}")


def plan(stages: list[Stage], only: list[str] | None = None) -> None:
    """
    Decide what is done about each stage: whether it `runs`, the `reason`, and whether it `resumes`, because it was
    stopped. The first stage that is not finished ([`Stage.unfinished`]) runs, and all after it; or those in `only`.
    """
    previous_id, changed = None, False
    for stage in stages:
        marker = stage.read_marker()
        unfinished = stage.unfinished(marker, previous_id)
        stage.reason = unfinished or ("an earlier stage runs again" if changed else "finished")
        stage.runs = stage.reason != "finished"
        if only:
            stage.runs = stage.name in only
            stage.reason = "asked for" if stage.runs else "not asked for"
        stage.resumes = not changed and unfinished in ("running", "failed", "interrupted")
        changed = changed or stage.runs
        previous_id = marker["run_id"] if marker else None
