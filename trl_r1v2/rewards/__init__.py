# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Rewards of the R1V2 stage: rules, reward model, code sandbox, and their sum.

Names are resolved on first use, so that importing a rule does not import torch. Does not cover: training (`ssb_grpo`,
`mpo`).
"""

import importlib


_PUBLIC_NAMES = {
    "AccuracyReward": "rules",
    "AsyncRewardModelReward": "reward_http",
    "CodeReward": "code.reward",
    "Component": "hybrid",
    "CosineLengthReward": "rules_text",
    "FactualConsistencyReward": "grounded",
    "FormatReward": "rules",
    "HTTPRewardModel": "reward_http",
    "HybridReward": "hybrid",
    "LanguageConsistencyReward": "rules_text",
    "Raw": "calibration",
    "RewardModel": "reward_model",
    "RewardModelReward": "reward_model",
    "RunningZScore": "calibration",
    "Sandbox": "code.reward",
    "Sigmoid": "calibration",
    "StepCompletenessReward": "rules_text",
    "ThinkAnswerConsistencyReward": "rules_text",
    "VisionRewardConfig": "reward_trainer_config",
    "VisionRewardDataCollator": "reward_collator",
    "VisionRewardTrainer": "reward_trainer",
    "accuracy_reward": "rules",
    "format_reward": "rules",
    "load_trainable": "trainable_model",
    "r1v2_reward": "hybrid",
}

__all__ = list(_PUBLIC_NAMES)


def __getattr__(name: str):
    if name not in _PUBLIC_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC_NAMES[name]}", __name__), name)


def __dir__():
    return sorted(__all__)
