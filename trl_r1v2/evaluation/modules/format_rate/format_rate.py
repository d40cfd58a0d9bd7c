# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Share of responses in the form `<think>reasoning</think>answer`, as a module of `evaluate`."""

import datasets
import evaluate

from trl_r1v2.evaluation.metrics import estimate_rate
from trl_r1v2.rewards import format_reward


DESCRIPTION = "Share of responses in the form `<think>reasoning</think>answer` (Skywork R1V2, eq. 7)."
INPUTS = """
Args:
    predictions (`list[str]`): Responses, one a problem.
Returns:
    `dict`: `format_rate`, `low` and `high` (95 % interval).
"""


class FormatRate(evaluate.Metric):
    """Metric with `predictions` alone."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("string")})
        return evaluate.MetricInfo(description=DESCRIPTION, citation="", inputs_description=INPUTS, features=features)

    def _compute(self, predictions: list[str]) -> dict:
        estimate = estimate_rate([[reward] for reward in format_reward(completions=predictions)])
        return {"format_rate": estimate.value, "low": estimate.low, "high": estimate.high}
