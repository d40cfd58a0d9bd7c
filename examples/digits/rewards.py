# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
A reward of the digit tasks that the general rules do not cover: whether the reasoning names what is shown.

The answer itself is judged by `trl_r1v2.rewards.accuracy_reward`. Does not cover other data.
"""

from collections.abc import Sequence

from trl_r1v2.rewards.answers import completion_text

from .text import named_digits, unsupported_digits


def grounded_reward(completions: Sequence, digits: Sequence[Sequence[int]], **kwargs) -> list[float]:
    """
    1 for a completion whose reasoning names digits and only such as are shown, else 0.

    Together with the accuracy it tells a reading from a guess that happens to be right.

    Args:
        completions (`Sequence`):
            Completions, plain or conversational.
        digits (`Sequence[Sequence[int]]`):
            The column `digits`: what each row shows.

    Returns:
        `list[float]`: A value for each completion.

    Example:
    ```python
    >>> grounded_reward(["I see 3 and 5. 3 + 5 = 8.", "Looks like 2 and 6. Maybe 8."], digits=[[3, 5], [3, 5]])
    [1.0, 0.0]
    ```
    """
    texts = [completion_text(completion) for completion in completions]
    return [
        float(bool(named_digits(text)) and not unsupported_digits(text, shown))
        for text, shown in zip(texts, digits, strict=True)
    ]
