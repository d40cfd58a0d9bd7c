# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""What a figure was measured on and with; goes into every result file."""

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def installed(package: str) -> str | None:
    """Version of a package; `None` where it is not installed, which is no reason to lose a result."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit that is checked out, `+changes` behind it if code or recipes differ; `None` outside of a clone."""

    def git(*options: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", *options], cwd=Path(__file__).parent, capture_output=True, text=True)

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        changed = git("diff", "--quiet", "HEAD", "--", ":/*.py", ":/*.yaml").returncode != 0
    except FileNotFoundError:  # no git
        return None
    return head.stdout.strip() + "+changes" * changed if head.returncode == 0 else None


def command() -> str:
    """The command that this process was started by; paths within the working directory are relative to it."""
    spec = sys.modules["__main__"].__spec__
    name = sys.argv[0] if spec is None else f"-m {spec.name.removesuffix('.__main__')}"
    words = [name, *(shlex.quote(word.removeprefix(f"{os.getcwd()}/")) for word in sys.argv[1:])]
    return f"python {' '.join(words)}"


# Of the moment that a script starts: while it trains, the clone may change.
SOURCE = {"commit": commit(), "command": command()}


def environment() -> dict:
    packages = ("torch", "transformers", "trl", "accelerate", "datasets", "peft", "trl_r1v2")
    processor = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            processor = next(
                (line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), processor
            )
    return {
        **SOURCE,
        "python": platform.python_version(),
        "packages": {name: installed(name) for name in packages},
        "processor": processor,
        "num_cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
