# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Rewards of the 38B recipes, for a chat template that opens `<think>` as QwQ-32B's does.

`rule_accuracy` and `rule_format` need no model. `reward_model` and `hybrid_reward` (eq. 7: `r_rule + r_θ + r_format`,
unweighted) ask the servers of `serve_reward.yaml`, at the addresses in `R1V2_REWARD_URL`, and are made when they are
first named, because making them needs it to run. Training is not covered.
"""

import functools
import os

from trl_r1v2.rewards import HybridReward
from trl_r1v2.rewards.reward_http import HTTPRewardModel
from trl_r1v2.rewards.reward_model import RewardModelReward
from trl_r1v2.rewards.rules import AccuracyReward, FormatReward


rule_accuracy = AccuracyReward(think_open=True)
rule_format = FormatReward(think_open=True)


@functools.cache
def _reward_model() -> RewardModelReward:
    return RewardModelReward(HTTPRewardModel(os.environ["R1V2_REWARD_URL"].split(",")))


@functools.cache
def _hybrid_reward() -> HybridReward:
    return HybridReward({"accuracy": rule_accuracy, "reward_model": _reward_model(), "format": rule_format})


_MADE_ON_DEMAND = {"reward_model": _reward_model, "hybrid_reward": _hybrid_reward}


def __getattr__(name: str):
    if name not in _MADE_ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _MADE_ON_DEMAND[name]()
