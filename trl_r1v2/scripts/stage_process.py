# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""One stage of a pipeline as a process of its own, stopped with all its children. POSIX only."""

import contextlib
import fcntl
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from .loading import search_path
from .recipe import RecipeError


# How long a stage has to end after each signal. A trainer needs a moment to leave its workers.
_STOP_SECONDS = ((signal.SIGINT, 15.0), (signal.SIGTERM, 5.0))
_TAIL_BYTES, _LINE_LENGTH = 65_536, 240
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Stopped(KeyboardInterrupt):
    """The run was asked to stop by a signal, the error's argument."""


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """Raise [`Stopped`] on the signals that end a run, but for those it was started to ignore (`nohup`)."""

    def stop(number, frame):
        raise Stopped(signal.Signals(number))

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {n: signal.signal(n, stop) for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[int]:
    """Hold a pipeline's folder. Stages inherit the descriptor, so it is held until the last of them has ended."""
    with open(folder / "pipeline.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecipeError(f"another run, or a stage that it left behind, is at work in {folder}.") from None
        yield file.fileno()


def run_stage(argv: list[str], log_path: Path, lock: int, tick: Callable[[], None]) -> int:
    """
    Run a stage to its end, or to a [`Stopped`]; return its exit code, negative when a signal ended it. Its output goes
    to the log, it inherits the lock, and `tick` is called several times a second.
    """
    path = os.pathsep.join([*search_path(), *filter(None, [os.environ.get("PYTHONPATH")])])
    settings = {"env": {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}, "stdin": subprocess.DEVNULL}
    with open(log_path, "wb") as log:
        settings |= {"stdout": log, "stderr": subprocess.STDOUT, "pass_fds": (lock,), "start_new_session": True}
        process = subprocess.Popen(argv, **settings)
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(timeout=0.2)
                tick()
        finally:
            if process.poll() is None:
                _stop(process)


def _stop(process: subprocess.Popen) -> None:
    """End the process and everything in its session's group, gently first."""
    for number, seconds in _STOP_SECONDS:
        # a run in the background ignores SIGINT, and so do its stages; asked a second time, it has no more patience
        with contextlib.suppress(subprocess.TimeoutExpired, Stopped):
            if process.poll() is None and signal.getsignal(number) is not signal.SIG_IGN:
                os.killpg(process.pid, number)
                process.wait(timeout=seconds)
    with contextlib.suppress(ProcessLookupError):  # children that heed nothing else
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def log_lines(log_path: Path, number: int) -> list[str]:
    """The last lines of a log, without colour codes, long ones cut off; of a progress bar only its latest state."""
    with open(log_path, "rb") as log:
        log.seek(max(0, log_path.stat().st_size - _TAIL_BYTES))
        text = _ANSI.sub("", log.read().decode("utf-8", errors="replace"))
    lines = [[state for state in line.split("\r") if state.strip()] for line in text.split("\n")]
    return [line[-1].rstrip()[:_LINE_LENGTH] for line in lines if line][-number:]
