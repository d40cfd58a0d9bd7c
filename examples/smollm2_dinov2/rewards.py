# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The rule that looks at the reading: whether the digits that an answer says it sees are those that the images show.

    trl-r1v2 grpo --config recipes/smollm2_dinov2/grpo.yaml --reward_funcs trl_r1v2.rewards.accuracy_reward \\
        trl_r1v2.rewards.format_reward examples.smollm2_dinov2.rewards.reading_reward
"""

from trl_r1v2.rewards import FactualConsistencyReward


reading_reward = FactualConsistencyReward(shown_column="digits", name="reading_reward")
