# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The interpreter that the sandbox runs, and the files of it that the sandbox needs.

Scope: choosing an interpreter that the sandbox's user can execute; its executable and the folder of its libraries,
because the folder above `bin` may be a home. Does not cover: third-party packages.
"""

import os
import stat
import subprocess
import sys
from pathlib import Path


def interpreter_paths(python: str, system: list[Path]) -> list[str]:
    """
    The executable and the libraries of an interpreter, as far as no folder of `system` holds them. Raises
    `RuntimeError` if it cannot be run, or keeps its libraries in the home itself.
    """
    command = [python, "-I", "-S", "-B", "-c", "import sys; print(sys.base_prefix)"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=60.0, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"{python} cannot be run: {error}. Pass another `python` to the sandbox.") from error
    prefix = Path(run.stdout.strip()).resolve()
    needed = [path for path in (Path(python), prefix / "lib", prefix / "lib64") if path.exists()]
    for path in needed:
        if Path.home().resolve().is_relative_to(path):
            raise RuntimeError(
                f"{python} imports from {path}, which is or contains the home; pass a `python` that is installed in a "
                "folder of its own."
            )
    return [str(path) for path in needed if not any(path.is_relative_to(folder) for folder in system)]


def default_python() -> str:
    """This process's own interpreter, or `/usr/bin/python3` where the sandbox's user cannot execute that one."""
    for candidate in (sys._base_executable, "/usr/bin/python3"):
        if os.path.exists(candidate) and _usable_by_sandbox(Path(candidate).resolve()):
            return str(Path(candidate).resolve())
    raise RuntimeError(
        f"User 65534 can execute neither {sys._base_executable} nor /usr/bin/python3; pass `python`, an interpreter "
        "outside of private folders."
    )


def _usable_by_sandbox(path: Path) -> bool:
    """Whether the user that runs bubblewrap reaches and executes the file: our own, or, as root, user 65534."""
    if os.geteuid() != 0:
        return os.access(path, os.X_OK)
    return all(part.stat().st_mode & stat.S_IXOTH for part in (path, *path.parents))
