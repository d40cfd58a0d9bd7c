# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
A reward model's reward function that TRL awaits: several servers are asked at the same time.

TRL runs asynchronous reward functions together, after the others. Does not cover: components of a
[`~trl_r1v2.rewards.hybrid.HybridReward`], which are called one after the other; put it beside one in `reward_funcs`.
"""

import asyncio

from .reward_model import RewardModelReward


class AsyncRewardModelReward(RewardModelReward):
    r"""
    [`~trl_r1v2.rewards.reward_model.RewardModelReward`] as an asynchronous reward function.

    Scores, options and metrics are the same; the call runs in a thread. Meant for
    [`~trl_r1v2.rewards.reward_http.HTTPRewardModel`]: a model in this process gains nothing from it.

    Example:
    ```python
    >>> from trl_r1v2.rewards import AsyncRewardModelReward, HTTPRewardModel

    >>> rewards = [
    ...     AsyncRewardModelReward(HTTPRewardModel("http://10.0.0.7:8000"), name="helpful"),
    ...     AsyncRewardModelReward(HTTPRewardModel("http://10.0.0.8:8000"), name="honest"),
    ... ]
    ```
    """

    async def __call__(self, *args, **kwargs) -> list[float | None]:
        return await asyncio.to_thread(super().__call__, *args, **kwargs)
