# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Responses sampled outside a trainer, the resumable store they are written to, their scores, and what is made of them:
pools of prompts, preference pairs, a buffer to start from. Knows no command line. Importing it imports neither torch
nor TRL.
"""

import importlib

from .rollouts import Rollout, RolloutStore


_LAZY = {
    "dataset_fingerprint": "fingerprints",
    "model_fingerprint": "fingerprints",
    "sample_chunks": "generation",
    "sample_responses": "generation",
}

__all__ = ["Rollout", "RolloutStore", *_LAZY]


def __getattr__(name: str):
    if name in _LAZY:
        return importlib.import_module(f"{__name__}.{_LAZY[name]}").__dict__[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
