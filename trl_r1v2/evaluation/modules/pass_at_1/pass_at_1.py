# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Pass@1 over k sampled runs, as a module of `evaluate`. The mathematics is `trl_r1v2.evaluation.metrics`."""

from dataclasses import asdict

import datasets
import evaluate

from trl_r1v2.evaluation.metrics import estimate_rate
from trl_r1v2.rewards import accuracy_reward


DESCRIPTION = """\
Mean accuracy over k sampled responses to each problem (Skywork R1V2, section 4), judged by rules: the final answer is
compared as text, number, choice letter, or mathematics.
"""
INPUTS = """
Args:
    predictions (`list[list[str]]`): The k responses to each problem.
    references (`list[str]`): The right answers.
Returns:
    `dict`: `pass_at_1`, `standard_error` (problems are the units), `low` and `high` (95 % interval), `runs` (accuracy of
    each of the k runs) and `num_unjudged` (responses that no rule can judge, which count as wrong).
"""


class PassAt1(evaluate.Metric):
    """Metric with `predictions` (k responses a problem) and `references` (right answers)."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"predictions": datasets.List(datasets.Value("string")), "references": datasets.Value("string")}
        )
        return evaluate.MetricInfo(description=DESCRIPTION, citation="", inputs_description=INPUTS, features=features)

    def _compute(self, predictions: list[list[str]], references: list[str]) -> dict:
        counts = {len(responses) for responses in predictions}
        if len(counts) != 1:
            raise ValueError(f"every problem needs the same number of responses, but there are {sorted(counts)}.")
        flat = [response for responses in predictions for response in responses]
        solutions = [
            reference for reference, responses in zip(references, predictions, strict=True) for _ in responses
        ]
        rewards = accuracy_reward(completions=flat, solution=solutions)
        num_samples = counts.pop()
        scores = [
            [reward or 0.0 for reward in rewards[start : start + num_samples]]
            for start in range(0, len(rewards), num_samples)
        ]
        estimate = asdict(estimate_rate(scores))
        return {
            "pass_at_1": estimate["value"],
            **{key: estimate[key] for key in ("standard_error", "low", "high")},
            "runs": [sum(run) / len(run) for run in zip(*scores, strict=True)],
            "num_unjudged": rewards.count(None),
        }
