# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Partial checkpoints. A run that is killed while it saves leaves a folder without `trainer_state.json`, which
`transformers.Trainer` writes last. `resume_from_checkpoint=True` takes the folder of highest number all the same and
fails on it, or, with the folders of another step on another node's disk, resumes processes at different steps.
"""

import json
from pathlib import Path

from accelerate.utils import gather_object
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR


def whole_checkpoints(output_dir: str) -> set[int]:
    """Steps of the checkpoints that were saved to their end."""
    steps = set()
    for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*/{TRAINER_STATE_NAME}"):
        step = path.parent.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
        try:
            json.loads(path.read_bytes())
        except ValueError:
            continue
        if step.isdecimal():
            steps.add(int(step))
    return steps


class PartialCheckpointsMixin:
    """For a [`~transformers.Trainer`]: `resume_from_checkpoint=True` is the last checkpoint whole in every process."""

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        if resume_from_checkpoint is True:
            output_dir = self.args.output_dir
            steps = set.intersection(*gather_object([whole_checkpoints(output_dir)]))
            if not steps:
                raise ValueError(f"{output_dir} holds no whole checkpoint to resume from. Start a new run instead.")
            resume_from_checkpoint = str(Path(output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{max(steps)}")
        return super().train(resume_from_checkpoint, *args, **kwargs)
