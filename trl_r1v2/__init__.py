# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The Skywork R1V2 method as an extension layer on TRL.

Public names are resolved on first use, so `import trl_r1v2` imports neither torch nor trl.
"""

import importlib


__version__ = "0.1.0"

_PUBLIC_NAMES = {
    "SSBGRPOConfig": "trl_r1v2.ssb_grpo.ssb_grpo_config",
    "SSBGRPOTrainer": "trl_r1v2.ssb_grpo.ssb_grpo_trainer",
    "SelectiveSampleBuffer": "trl_r1v2.ssb_grpo.sample_buffer",
    "MPOConfig": "trl_r1v2.mpo.mpo_config",
    "MPOTrainer": "trl_r1v2.mpo.mpo_trainer",
    "HybridReward": "trl_r1v2.rewards.hybrid",
    "VisionRewardConfig": "trl_r1v2.rewards.reward_trainer_config",
    "VisionRewardTrainer": "trl_r1v2.rewards.reward_trainer",
    "HallucinationMonitor": "trl_r1v2.hallucination.monitor",
    "MonitorConfig": "trl_r1v2.hallucination.monitor_config",
    "RewardThresholdController": "trl_r1v2.hallucination.threshold",
    "compose_vlm": "trl_r1v2.vlm.compose",
    "set_trainable": "trl_r1v2.vlm.activation",
}

__all__ = ["__version__", *_PUBLIC_NAMES]


def __getattr__(name: str):
    if name not in _PUBLIC_NAMES:
        raise AttributeError(f"module 'trl_r1v2' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC_NAMES[name]), name)


def __dir__():
    return sorted(__all__)
