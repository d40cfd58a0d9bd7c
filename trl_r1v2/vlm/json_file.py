# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""JSON files of checkpoint folders: one that is broken is named with its remedy."""

import json
from pathlib import Path

from .errors import CheckpointError


def read_json_object(path: Path) -> dict:
    """
    Contents of a JSON file that holds an object.

    Raises:
        [`~vlm.errors.CheckpointError`]: when it holds none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise CheckpointError(f"{path} is no JSON ({error}). Fetch or copy it again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is no JSON object. Fetch or copy it again.")
    return content
