# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Shaping rewards against values computed by hand, and against TRL's where TRL has the same formula."""

import math
import subprocess
import sys

import pytest

from trl_r1v2.rewards import (
    CosineLengthReward,
    LanguageConsistencyReward,
    StepCompletenessReward,
    ThinkAnswerConsistencyReward,
)


def test_step_completeness_counts_markers_at_line_starts_of_the_reasoning():
    texts = [
        "<think>Step 1: a\nStep 2: b\nStep 3: c\nStep 4: d</think>x",
        "<think>First, a\n- b</think>1. x\n2. y",
        "1. a",
        "the first, the second: 1. 2.",
        "1.5 is no step",
    ]
    assert StepCompletenessReward()(completions=texts) == pytest.approx([1.0, 2 / 3, 1 / 3, 0.0, 0.0])
    assert StepCompletenessReward(target_steps=8)(completions=texts[:1]) == [0.5]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("**Step 1:** a\n**Step 2:** b\n\n**Step 3** c", 3),
        ("### Step 1\na\n### Step 2: b\n## 3. c", 3),
        ("**First**, a\n__Then,__ b\n  *Finally*, c", 3),
        ("**1. Find x**\n2. **Add**\n- **Step 3:** c", 3),
        ("\n \n\n1. a\n\n\n\t2. b\n\n", 2),
        ("Step\n1", 0),
        ("**bold** words\n***\n---\n# Heading\n###Step 1\n**Note 1:** a\n**2** is prime", 0),
        ("**1.5** metres\n*3.5 is it*\nThe **Step 1:**", 0),
    ],
)
def test_steps_in_markdown(text, steps):
    assert StepCompletenessReward(target_steps=100)(completions=[text]) == [steps / 100]


def test_a_repeated_fragment_does_not_stall_the_run():
    """The rules run in the trainer's process, over whatever the policy repeats up to its length limit."""
    script = r"""
from trl_r1v2.rewards import LanguageConsistencyReward, StepCompletenessReward, ThinkAnswerConsistencyReward
from trl_r1v2.rewards.code.reward import last_python_block

rewards = [StepCompletenessReward(), LanguageConsistencyReward(), ThinkAnswerConsistencyReward()]
for fragment in ("\n", " ", "\\[ ", "\\(", "$$x ", "1,111", "1 /", "a+", "\\frac{", "1.", "```", "step ", "**", "<a"):
    text = "<think>a" + fragment * (400_000 // len(fragment)) + "b</think>x = 1"
    print([reward(completions=[text]) for reward in rewards])
print(last_python_block("```python\n" * 40_000))
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_a_repeated_fragment_does_not_stall_the_search_for_an_answer():
    script = r"""
from trl_r1v2.rewards import FormatReward
from trl_r1v2.rewards.answers import final_answer

rewards = [FormatReward(answer_mark=mark) for mark in (None, "boxed", "answer_tag")]
boxes = ("\\boxed{}", "\\boxed{")
for fragment in ("*", "* ", "<answer>", "</answer>", *boxes, "**Answer:**", "answer is ", "\\[", "$$"):
    text = "<think>a</think>" + fragment * (400_000 // len(fragment)) + "b"
    print(final_answer(text), [reward(completions=[text]) for reward in rewards])
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_cosine_length_equals_trls_where_both_judge_alike():
    from trl.rewards import get_cosine_scaled_reward

    completions = [[{"content": rf"\boxed{{{value}}}"}] for value in (2, 2, 2, 3, 3, 3)]
    ids = [[0] * length for length in (0, 30, 200, 0, 30, 200)]
    solution = [r"\boxed{2}"] * 6
    expected = get_cosine_scaled_reward(max_len=100)(completions, solution, ids)
    ours = CosineLengthReward(max_length=100)(completions=completions, completion_ids=ids, solution=solution)
    assert ours == pytest.approx(expected)
    assert ours[1] == pytest.approx(0.5 + 0.25 * (1 + math.cos(0.3 * math.pi)))
    assert CosineLengthReward(max_length=9)(completions=["1"], completion_ids=[[0]], solution=[None]) == [None]


@pytest.mark.parametrize("bounds", [{"right": 1.0}, {"wrong": (-1.0,)}, {"right": ("a", "b")}, {"wrong": [0, 1, 2]}])
def test_cosine_length_takes_two_numbers(bounds):
    with pytest.raises(ValueError, match="it must be two numbers"):
        CosineLengthReward(max_length=9, **bounds)


def test_language_consistency():
    english = LanguageConsistencyReward("en")
    # Words of the reasoning: we, 计, 算, the, sum: 3 of 5 are Latin. The answer part does not count.
    assert english(completions=["<think>we 计算 the sum</think>答案"]) == pytest.approx([3 / 5])
    assert english(completions=["all of this"]) == [1.0]
    assert english(completions=[r"$x+y$ \frac 12 34"]) == [None]
    # Formulas do not count, whatever they hold; what is not closed is no formula.
    formulas = r"计 $a 算$ $$b\n算$$ \[ c \text{ if \(d\) 算} \] \(e\) 算 ```x\n算``` \[ f \[ 算 \]"
    assert english(completions=[formulas]) == pytest.approx([1 / 3])
    chinese = LanguageConsistencyReward("zh")
    assert chinese(completions=["<think>我们计算 $a+b$ 的和 ok</think>1"]) == pytest.approx([6 / 7])
    with pytest.raises(ValueError, match="language is 'xx'"):
        LanguageConsistencyReward("xx")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>3 + 4 = 7</think> The answer is 7.", 1.0),
        ("<think>3 + 4 = 7</think> The answer is 8.", 0.0),
        (r"<think>so \boxed{\frac{1}{2}}, 3 checks</think> \boxed{0.5}", 1.0),
        (r"<think>so \boxed{B}, 3 checks</think> (B)", 1.0),
        (r"<think>so \boxed{B}</think> (C)", 0.0),
        (r"<think>is \frac{1}{2}</think> \boxed{\frac{1}{2}}", 1.0),
        (r"<think>so \(x = \frac{1}{2}\).</think> 0.5", 1.0),
        (r"<think>is \frac{1}{2}</think> \boxed{\frac{1}{3}}", 0.0),
        (r"<think>area is $25\pi$.</think> \boxed{25\pi}", 1.0),
        (r"<think>area is 25\pi</think> \boxed{25}", None),
        (r"<think>is 2\sqrt{3}</think> \boxed{2\sqrt{3}}", 1.0),
        (r"<think>is 2\sqrt{3}</think> 3", None),
        ("<think>the area is 5 cm^2</think> 5", 1.0),
        ("<think>the area is 5 cm^2.</think> 5 cm^2", 1.0),
        ("<think>the area is 5 cm^2</think> 2", 0.0),
        ("<think>with 3 terms it is x^2</think> x^2", 1.0),
        ("<think>with 3 terms it is x^2</think> 3", None),
        ("<think>3 sides of 7cm</think> 7", None),
        ("<think>3 sides of 7cm</think> 3", None),
        (r"<think>the angle is 90^\circ</think> \boxed{90}", 1.0),
        (r"<think>the angle is 90^\circ</think> \boxed{45^\circ}", 0.0),
        (r"<think>we get \(5\), so \[x=5\]</think> 5", 1.0),
        ("<think>10-5=5</think> 5", 1.0),
        ("<think>so it is 10 - 5</think> 5", 1.0),
        (r"<think>is $-\frac{1}{2}$</think> \boxed{-\frac{1}{2}}", 1.0),
        (r"<think>is -\frac{1}{2}</think> \boxed{\frac{1}{2}}", 0.0),
        (r"<think>is -25\pi</think> \boxed{25\pi}", None),
        (r"<think>is 1+3\sqrt{2}</think> \boxed{3\sqrt{2}}", None),
        (r"<think>is 1 + 3\sqrt{2}</think> \boxed{3\sqrt{2}}", None),
        (r"<think>is 2 \sqrt{3}</think> \boxed{\sqrt{3}}", None),
        (r"<think>is 3\sqrt{2} + 1</think> 1", None),
        (r"<think>is **25\pi**.</think> \boxed{25\pi}", 1.0),
        ("<think>so 7. It was the 2nd check</think> 2", None),
        ("<think>it is -5</think> -5", 1.0),
        ("<think>2x=10, x=5.</think> $5$", 1.0),
        ("<think>1 / 2</think> 0.5", 1.0),
        ("<think>1,000!</think> 1000", None),
        ("<think>**7**</think> 7", 1.0),
        (r"<think>so \boxed{x+1}</think> \boxed{1+x}", 1.0),
        ("<think>no value here</think> 7", None),
        ("<think>there are 3</think> yes", None),
        ("<think>there are 3", None),
        ("7", None),
    ],
)
def test_think_answer_consistency(text, expected):
    assert ThinkAnswerConsistencyReward()(completions=[text]) == [expected]


def test_think_answer_consistency_where_the_prompt_opens_the_reasoning():
    reward = ThinkAnswerConsistencyReward()
    assert reward(completions=["so 4</think>4", "so 4</think>5"], prompts=["Q<think>"] * 2) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: StepCompletenessReward(target_steps=0), "target_steps is 0"),
        (lambda: CosineLengthReward(max_length=0), "max_length is 0"),
    ],
)
def test_options_out_of_bounds_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
