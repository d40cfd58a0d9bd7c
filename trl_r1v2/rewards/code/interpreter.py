# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The interpreter that the sandbox runs, and the files of it that the sandbox needs.

Scope: choosing an interpreter that the sandbox's user can execute; its executable, standard library and the shared
libraries that these load, one by one, because the folder above `bin` may be a home. Does not cover: third-party
packages.
"""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path


# Run by the interpreter itself: loads each module that is a shared library, then lists what is mapped.
_LIST_FILES = """
import importlib, json, os, sys
folders = [path for path in sys.path if os.path.exists(path)]
for folder in filter(os.path.isdir, sys.path):
    for name in os.listdir(folder):
        if name.endswith(".so"):
            try:
                importlib.import_module(name.partition(".")[0])
            except ImportError:
                pass
with open("/proc/self/maps") as file:
    mapped = {line.split(maxsplit=5)[5].rstrip() for line in file if "/" in line}
print(json.dumps(folders + sorted(path for path in mapped if os.path.isfile(path))))
"""


def interpreter_paths(python: str, system: list[Path]) -> list[str]:
    """
    Files and folders that the interpreter needs and that no folder of `system` holds.

    Raises:
        `RuntimeError`: If the interpreter cannot be run, or keeps its standard library in the home itself.
    """
    try:
        run = subprocess.run(
            [python, "-I", "-S", "-B", "-c", _LIST_FILES], capture_output=True, text=True, timeout=60.0, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"{python} cannot be run: {error}. Pass another `python` to the sandbox.") from error
    needed: list[Path] = []
    for path in map(Path, sorted([python, *json.loads(run.stdout.splitlines()[-1])])):
        if Path.home().resolve().is_relative_to(path.resolve()):
            raise RuntimeError(
                f"{python} imports from {path}, which is or contains the home; pass a `python` that is installed in a "
                "folder of its own."
            )
        if any(path.is_relative_to(folder) for folder in (*system, *needed)):
            continue
        needed.append(path)
        if ".so" in path.name:  # a library is looked for by a shorter name, which links to it
            links = path.parent.glob(path.name.partition(".so")[0] + ".so*")
            needed += [link for link in links if link.is_symlink() and link.resolve() == path]
    return list(map(str, needed))


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
