# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""What a figure was measured on and with; goes into every result file."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch


def installed(package: str) -> str | None:
    """Version of a package; `None` where it is not installed, which is no reason to lose a result."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def environment() -> dict:
    packages = ("torch", "transformers", "trl", "accelerate", "datasets", "peft", "trl_r1v2")
    processor = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            processor = next(
                (line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), processor
            )
    return {
        "python": platform.python_version(),
        "packages": {name: installed(name) for name in packages},
        "processor": processor,
        "num_cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
