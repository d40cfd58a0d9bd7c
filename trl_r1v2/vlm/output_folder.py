# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
A folder that one command at a time writes to: its lock, small files replaced in one step, and errors of the disk as
messages with a remedy. POSIX only. What is written is the caller's (`shard_writer.py`, `compose.py`, `convert.py`).
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from .errors import CheckpointError


LOCK = "composition.lock"


def free_bytes(path: Path) -> int:
    """Free bytes of the disk that `path` lies on, or would lie on."""
    return shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """
    Name the file that could not be written.

    Args:
        path (`Path`): The file, where the system's error names none.

    Raises:
        [`~vlm.errors.CheckpointError`]: in place of an error that the operating system reports.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # raised by a library, about something else
            raise
        raise CheckpointError(
            f"{error.filename or path}: {os.strerror(error.errno)} ({free_bytes(path):,} bytes are free). Repair that and "
            "run the same command again: it goes on with what is finished."
        ) from error


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """
    Hold `folder` for one run. The lock ends with the process, whatever ends it; its file is removed with the lock.

    Raises:
        [`~vlm.errors.CheckpointError`]: when another run holds the folder.
    """
    path = folder / LOCK
    descriptor = _locked(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if not isinstance(error, BlockingIOError):
                raise
            raise CheckpointError(
                f"{path.parent}: another run is writing there. Wait until it has ended, or choose another output_dir."
            ) from None
        # A holder that ended in between has removed the file: a lock on it would keep nobody out.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)


def write_text_atomically(path: Path, text: str) -> None:
    """Replace `path` in one step, so that a kill or a power cut leaves the old file or the new one."""
    part = path.with_name(path.name + ".part")
    with disk_errors(part):
        with open(part, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
