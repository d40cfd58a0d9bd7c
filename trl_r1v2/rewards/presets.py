# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Ready instances for dotted paths, e.g. stock `trl grpo --reward_funcs trl_r1v2.rewards.r1v2_reward`.

Scope: rewards that need no model. Does not cover: anything with options; build a [`HybridReward`] for that.
"""

from .hybrid import HybridReward
from .rules import accuracy_reward, format_reward


# Eq. 7 without r_θ: accuracy + format, unweighted.
r1v2_reward = HybridReward({"accuracy": accuracy_reward, "format": format_reward}, name="r1v2_reward")
