# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Result files of benchmarks whose runs are skipped where there is one."""

import json
import os
from pathlib import Path
from typing import Any


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write a result file in one step, so that a run that was cut off leaves none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)
