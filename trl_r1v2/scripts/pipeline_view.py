# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What the user of `trl-r1v2 run` sees: one line a stage, redrawn on a terminal, printed once elsewhere.

Does not cover deciding or running anything.
"""

import sys
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from .pipeline_state import Step
from .stage_process import LogFollower, Timer, clock, log_lines


_SIGNS = {"waiting": "·", "running": "▶", "finished": "✔", "skipped": "✔", "failed": "✘", "interrupted": "■"}
_COLOURS = {"running": "cyan", "finished": "green", "skipped": "dim", "failed": "red", "interrupted": "yellow"}


class PipelineView:
    """
    The lines of a run.

    Args:
        steps (`list[Step]`):
            Plan of the run.
        folder (`Path`):
            Output folder of the pipeline.
        verbose (`bool`):
            Whether to copy the running stage's own output to the terminal instead of redrawing.
    """

    def __init__(self, steps: list[Step], folder: Path, verbose: bool):
        self.console = Console(highlight=False)
        self.folder = folder
        self.verbose = verbose
        self.states = {step.stage.name: "waiting" if step.runs else "skipped" for step in steps}
        self.notes = {step.stage.name: step.reason for step in steps}
        self.elapsed = dict.fromkeys(self.states, "")
        self.number = {step.stage.name: index for index, step in enumerate(steps, start=1)}
        self._timer, self._follow, self._running = Timer(), None, None
        self._live = None
        if self.console.is_terminal and not verbose:
            self._live = Live(console=self.console, auto_refresh=False, transient=False)

    def __enter__(self) -> "PipelineView":
        if self._live is not None:
            self._live.start()
            self._draw()
        else:
            for name, state in self.states.items():
                if state == "skipped":
                    self._print_line(name)
        return self

    def __exit__(self, *exception) -> None:
        if self._live is not None:
            self._draw()
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line above the stages."""
        self.console.print(escape(text), soft_wrap=True)

    def start(self, name: str, note: str, log_path: Path) -> None:
        """Show a stage as running; `note` says why it runs."""
        self.states[name], self.notes[name], self._running = "running", note, log_path
        self._timer = Timer()
        if self.verbose:
            self._follow = LogFollower(log_path, self._copy)
        if self._live is None:
            self._print_line(name)
        self.tick()

    def tick(self) -> None:
        """Redraw, or copy what the running stage has written."""
        if self._follow is not None:
            self._follow()
        for name, state in self.states.items():
            if state == "running":
                self.elapsed[name] = clock(self._timer.seconds)
                if self._live is not None:
                    self.notes[name] = " ".join(log_lines(self._running, 1)) or self.notes[name]
        self._draw()

    def end(self, name: str, state: str, note: str, seconds: float) -> None:
        """Show how a stage ended."""
        self.states[name], self.notes[name], self.elapsed[name] = state, note, clock(seconds)
        self._follow = None
        if self._live is None:
            self._print_line(name)
        self._draw()

    def _copy(self, output: bytes) -> None:
        sys.stdout.buffer.write(output)
        sys.stdout.buffer.flush()

    def _print_line(self, name: str) -> None:
        line = f"{_SIGNS[self.states[name]]} [{self.number[name]}/{len(self.states)}] {name}: {self.states[name]}"
        parts = [line, self.elapsed[name], f"({self.notes[name]})" if self.notes[name] else ""]
        self.console.print(escape(" ".join(part for part in parts if part)), soft_wrap=True)

    def _draw(self) -> None:
        if self._live is None:
            return
        table = Table.grid(padding=(0, 2))
        for justify in ("left", "left", "left", "right"):
            table.add_column(justify=justify, no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", style="dim", ratio=1)
        for name, state in self.states.items():
            colour = _COLOURS.get(state, "dim")
            sign, word = f"[{colour}]{_SIGNS[state]}[/]", f"[{colour}]{state}[/]"
            table.add_row(sign, name, word, self.elapsed[name], escape(self.notes[name]))
        self._live.update(table, refresh=True)
