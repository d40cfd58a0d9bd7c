# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.

"""
Responses sampled outside a trainer, and the resumable store they are written to.

`rollouts` is pure (no torch); `generation`, `engines` and `fingerprints` need torch and are imported on first use. Scoring responses, judging prompts and building preference pairs live in `trl_r1v2.sampling.prompt_pool` and
`trl_r1v2.sampling.pairs`.
"""

import importlib
from typing import TYPE_CHECKING

from .rollouts import Rollout, RolloutStore


if TYPE_CHECKING:
    from .fingerprints import dataset_fingerprint, model_fingerprint
    from .generation import sample_chunks, sample_responses

_LAZY = {
    "dataset_fingerprint": "fingerprints",
    "model_fingerprint": "fingerprints",
    "sample_chunks": "generation",
    "sample_responses": "generation",
}

__all__ = [
    "Rollout",
    "RolloutStore",
    "dataset_fingerprint",
    "model_fingerprint",
    "sample_chunks",
    "sample_responses",
]


def __getattr__(name: str):
    if name in _LAZY:
        return importlib.import_module(f"{__name__}.{_LAZY[name]}").__dict__[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
