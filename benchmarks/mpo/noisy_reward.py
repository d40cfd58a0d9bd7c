# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
A reward model with known faults, so that a reward threshold has something to separate.

Not a model: the rule's score with two errors added. One is drawn anew for each response; the other belongs to the
final answer, whatever the question, so a policy can raise its score by giving the answers that the reward likes.
"""

import random
from collections.abc import Sequence

from trl_r1v2.rewards import accuracy_reward
from trl_r1v2.rewards.answers import final_answer


class NoisyReward:
    """
    Score of a response: 1 if it is right, 0 if not, plus both errors.

    Args:
        seed (`int`):
            Draws both errors; the same response to the same row always has the same score.
        answer_error (`float`, *optional*, defaults to `0.5`):
            Standard deviation of the error of a final answer, in units of the rule's score.
        response_error (`float`, *optional*, defaults to `0.5`):
            Standard deviation of the error of a response.
    """

    def __init__(self, seed: int, answer_error: float = 0.5, response_error: float = 0.5):
        self.seed, self.answer_error, self.response_error = seed, answer_error, response_error

    def scores(self, rows: Sequence[int], texts: Sequence[str], solutions: Sequence[str]) -> list[float]:
        """Scores of responses to rows of the data set."""
        rights = accuracy_reward(completions=list(texts), solution=list(solutions))
        return [
            (right or 0.0) + self._answer_error_of(text) + self._draw(self.response_error, f"response/{row}/{text}")
            for row, text, right in zip(rows, texts, rights, strict=True)
        ]

    def _answer_error_of(self, text: str) -> float:
        answer = final_answer(text, think_open=False)
        return self._draw(self.answer_error, f"answer/{answer.text if answer else None}")

    def _draw(self, deviation: float, of: str) -> float:
        return random.Random(f"{self.seed}/{of}").gauss(0.0, deviation)
