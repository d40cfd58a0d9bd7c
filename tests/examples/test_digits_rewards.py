# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""What counts as grounded in the digit tasks."""

import pytest

from examples.digits.rewards import grounded_reward


@pytest.mark.parametrize(
    ("text", "digits", "expected"),
    [
        (r"<think>I see 3 and 5. 3 + 5 = 8.</think>\boxed{8}", [3, 5], 1.0),
        (r"<think>I see 5 and 3. 5 + 3 = 8.</think>\boxed{8}", [3, 5], 1.0),
        (r"<think>Looks like 2 and 6. Maybe 8.</think>\boxed{8}", [3, 5], 0.0),
        (r"<think>I see 3 and 3. So 3 is larger.</think>\boxed{3}", [3, 2], 0.0),
        (r"<think>I see 4. 7 is 3 away.</think>\boxed{no}", [4], 1.0),
        (r"<think>It must be.</think>\boxed{8}", [3, 5], 0.0),
        (r"\boxed{8} I see 3", [3], 1.0),
    ],
)
def test_grounded(text, digits, expected):
    assert grounded_reward([text], digits=[digits]) == [expected]
    assert grounded_reward([[{"role": "assistant", "content": text}]], digits=[digits], solution=["x"]) == [expected]
