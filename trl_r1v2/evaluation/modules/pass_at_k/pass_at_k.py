# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Pass@k and majority over n sampled runs, as a module of `evaluate`. The mathematics is `trl_r1v2.evaluation.metrics`."""

import datasets
import evaluate
import numpy as np

from trl_r1v2.evaluation.metrics import majority_score, pass_at_k
from trl_r1v2.evaluation.records import counted_answer
from trl_r1v2.rewards import accuracy_reward
from trl_r1v2.rewards.answers import final_answer


DESCRIPTION = """\
Chance that at least one of k responses to a problem is right, estimated without bias from n >= k of them (arXiv
2107.03374, eq. 1), and the accuracy of the answer that most of them give. Judged by rules, as `pass_at_1`.
"""
INPUTS = """
Args:
    predictions (`list[list[str]]`): The n responses to each problem.
    references (`list[str]`): The right answers.
    k (`list[int]`, *optional*, defaults to `[1]`): Numbers of responses, each at most n.
Returns:
    `dict`: `pass_at_<k>` for each k, `majority`, and `num_unjudged` (responses that no rule can judge, which count as
    wrong).
"""


class PassAtK(evaluate.Metric):
    """Metric with `predictions` (n responses a problem) and `references` (right answers)."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"predictions": datasets.List(datasets.Value("string")), "references": datasets.Value("string")}
        )
        return evaluate.MetricInfo(description=DESCRIPTION, citation="", inputs_description=INPUTS, features=features)

    def _compute(self, predictions: list[list[str]], references: list[str], k: list[int] | None = None) -> dict:
        counts = {len(responses) for responses in predictions}
        if len(counts) != 1:
            raise ValueError(f"every problem needs the same number of responses, but there are {sorted(counts)}.")
        num_samples = counts.pop()
        rewards = accuracy_reward(
            completions=[response for responses in predictions for response in responses],
            solution=[reference for reference in references for _ in range(num_samples)],
        )
        scores = np.array([reward or 0.0 for reward in rewards]).reshape(-1, num_samples)
        answers = [[final_answer(response) for response in responses] for responses in predictions]
        counted = [[None if answer is None else counted_answer(answer.text) for answer in row] for row in answers]
        majority = [majority_score(row, values) for row, values in zip(counted, scores, strict=True)]
        return {
            **{f"pass_at_{size}": float(pass_at_k(scores, size).mean()) for size in k or [1]},
            "majority": float(np.mean(majority)),
            "num_unjudged": rewards.count(None),
        }
