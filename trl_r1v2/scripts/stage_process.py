# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
One stage of a pipeline as a process of its own: started, followed through its log, and stopped with all its children.

Does not cover what is run (`pipeline.py`) nor what is shown (`pipeline_view.py`). POSIX only.
"""

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .recipe import RecipeError, search_path


_POLL_SECONDS = 0.2
# How long a stage has to end after each signal. A trainer needs a moment to leave its workers.
_STOP_SECONDS = ((signal.SIGINT, 15.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))
_TAIL_BYTES = 65_536
_LINE_LENGTH = 240
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Stopped(KeyboardInterrupt):
    """The run was asked to stop by a signal."""

    def __init__(self, signal_number: int):
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """
    Raise [`Stopped`] on SIGINT, SIGTERM and SIGHUP, so that no stage outlives the run that started it.

    A signal that the run was started to ignore (`nohup`) stays ignored.
    """

    def stop(signal_number, frame):
        raise Stopped(signal_number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, stop) for number in heeded}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[int]:
    """
    Hold the pipeline's folder for one run. Stages inherit the lock, so it is held until the last of them has ended.

    Args:
        folder (`Path`):
            Output folder of the pipeline.

    Returns:
        `int`: Descriptor that a stage's process has to inherit.

    Raises:
        RecipeError: Another run works in the folder.
    """
    descriptor = os.open(folder / "pipeline.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecipeError(
                f"another run is at work in {folder}. Wait until it, or a stage that it left behind, has ended."
            ) from None
        yield descriptor
    finally:
        os.close(descriptor)


def run_stage(argv: list[str], log_path: Path, lock: int, tick: Callable[[], None]) -> int:
    """
    Run a stage to its end.

    Args:
        argv (`list[str]`):
            Command line.
        log_path (`Path`):
            File that takes its standard output and error.
        lock (`int`):
            Descriptor of [`folder_lock`].
        tick (`Callable[[], None]`):
            Called several times a second while it runs, and once at the end.

    Returns:
        `int`: Exit code; negative when a signal ended the process.

    Raises:
        Stopped: The run was asked to stop; the stage and its children have ended.
    """
    path = os.pathsep.join([*search_path(), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=(lock,),
            start_new_session=True,
        )
        try:
            while True:
                try:
                    return process.wait(timeout=_POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    tick()
        finally:
            if process.poll() is None:
                _stop(process)
            tick()


def _stop(process: subprocess.Popen) -> None:
    """End the process and everything in its session's group, gently first."""
    for signal_number, seconds in _STOP_SECONDS:
        if signal.getsignal(signal_number) is signal.SIG_IGN:
            # a run in the background is started to ignore SIGINT, and its stages inherit that
            continue
        try:
            os.killpg(process.pid, signal_number)
            process.wait(timeout=seconds)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
        except Stopped:
            # asked a second time: no more patience
            continue
        break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def log_lines(log_path: Path, number: int) -> list[str]:
    """
    Return the last lines of a log.

    Args:
        log_path (`Path`):
            Log of a stage; may be missing.
        number (`int`):
            How many lines.

    Returns:
        `list[str]`: Lines without colour codes, the long ones cut off; of a progress bar only its latest state.
    """
    if not log_path.is_file():
        return []
    with open(log_path, "rb") as log:
        log.seek(max(0, log_path.stat().st_size - _TAIL_BYTES))
        text = log.read().decode("utf-8", errors="replace")
    lines = []
    for line in text.split("\n"):
        states = [state for state in line.split("\r") if state.strip()]
        if states:
            line = _ANSI.sub("", states[-1]).rstrip()
            lines.append(line if len(line) <= _LINE_LENGTH else line[:_LINE_LENGTH] + "…")
    return lines[-number:]


class LogFollower:
    """
    Copies a growing log to the terminal.

    Args:
        log_path (`Path`):
            Log of the running stage.
        write (`Callable[[bytes], None]`):
            Takes what is new.
    """

    def __init__(self, log_path: Path, write: Callable[[bytes], None]):
        self.log_path = log_path
        self.write = write
        self.position = 0

    def __call__(self) -> None:
        """Copy what has been written since the last call."""
        if not self.log_path.is_file():
            return
        with open(self.log_path, "rb") as log:
            log.seek(self.position)
            new = log.read()
        if new:
            self.position += len(new)
            self.write(new)


def describe_exit(code: int) -> str:
    """Return an exit code in words; the signal that out-of-memory killers send is named as such."""
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"ended by {name}" + (", which the system sends when memory runs out" if name == "SIGKILL" else "")


def clock(seconds: float) -> str:
    """Return a duration as `h:mm:ss`, or `m:ss` below an hour."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Timer:
    """Seconds since it was made, by a clock that does not jump."""

    def __init__(self):
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start
