# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Accuracy and format rewards on plain and conversational completions, with and without a prompt that opens the
reasoning.
"""

import pytest

from trl_r1v2.rewards import AccuracyReward, FormatReward, accuracy_reward, format_reward


def conversational(texts):
    return [[{"role": "assistant", "content": text}] for text in texts]


@pytest.mark.parametrize("wrap", [list, conversational])
def test_accuracy_over_a_mixed_batch(wrap):
    completions = wrap(
        [
            r"<think>1+1</think> \boxed{2}",
            r"<think>\boxed{2}</think> I do not know",
            r"<think>cut off \boxed{2}",
            r"<think>a</think> \boxed{x+1}",
            r"<think>a</think> \boxed{x+2}",
            "(B)",
            "anything",
            "",
        ]
    )
    solution = [2, "2", "2", "1+x", "1+x", "B", None, "2"]
    assert accuracy_reward(completions=completions, solution=solution) == [1.0, 0.0, 0.0, 1.0, 0.0, 1.0, None, 0.0]


def test_accuracy_accepts_any_of_several_golds():
    completions = ["grey", "gray", "black"]
    assert accuracy_reward(completions=completions, solution=[["gray", "grey"]] * 3) == [1.0, 1.0, 0.0]


def test_what_was_taken_for_the_answer_is_logged():
    columns = {}
    rewards = accuracy_reward(
        completions=[r"\boxed{7}", r"\boxed{9^{9^9}}", r"\boxed{x+y}", r"\boxed{\sqrt{4}}", "no idea", ""],
        solution=["7", "7", "y-x", ["2", "5"], "7", "7"],
        log_extra=columns.__setitem__,
    )
    assert rewards == [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    assert columns["accuracy_reward/answer"] == ["7", "9^{9^9}", "x+y", r"\sqrt{4}", "no idea", None]


def test_accuracy_where_the_prompt_opens_the_reasoning():
    completions = ["cut off 5", "a</think>5"]
    assert accuracy_reward(completions=completions, solution=["5", "5"]) == [1.0, 1.0]
    assert accuracy_reward(completions=completions, solution=["5", "5"], prompts=["Q<think>\n"] * 2) == [0.0, 1.0]
    assert AccuracyReward(think_open=True)(completions=completions, solution=["5", "5"]) == [0.0, 1.0]


def test_open_intervals():
    completions = [r"\boxed{(-\infty, \frac{6}{2})}", r"\boxed{(-\infty, 4)}"]
    assert accuracy_reward(completions=completions, solution=[r"(-\infty, 3)"] * 2) == [1.0, 0.0]


def test_small_numbers_are_not_alike():
    completions = [r"\boxed{9.11\times10^{-31}}", r"\boxed{\frac{9.11}{10^{31}}}", r"\boxed{\frac{6.63}{10^{34}}}"]
    assert accuracy_reward(completions=completions, solution=[r"6.63 \times 10^{-34}"] * 3) == [0.0, 0.0, 1.0]
    assert accuracy_reward(completions=[r"\boxed{\frac{1}{10^5}}", r"\boxed{2^{-10}}"], solution=[1e-05] * 2) == [
        1.0,
        0.0,
    ]


def test_signs_and_operators_are_not_words():
    wrong = {
        "x": "-x",
        "n!": "n",
        "f(x)": "f'(x)",
        "a-b": "b-a",
        "x-a": "x",
        r"-\infty": r"\infty",
        "(x,-y)": "(-x,y)",
    }
    completions = [rf"\boxed{{{answer}}}" for answer in wrong.values()]
    assert accuracy_reward(completions=completions, solution=list(wrong)) == [0.0] * len(wrong)
    right = [rf"\boxed{{{gold}}}" for gold in wrong]
    assert accuracy_reward(completions=right, solution=list(wrong)) == [1.0] * len(wrong)
    assert accuracy_reward(completions=[r"\boxed{Rmg}"], solution=["mgR"]) == [1.0]


def test_accuracy_names_the_missing_column():
    with pytest.raises(ValueError, match=r"needs the dataset column 'gold'.*\['solution'\]"):
        AccuracyReward(solution_column="gold")(completions=["1"], solution=["1"])
    assert AccuracyReward(solution_column="gold")(completions=["1"], gold=["1"]) == [1.0]


@pytest.mark.parametrize(
    ("text", "closed_prompt", "open_prompt"),
    [
        ("<think>a</think>b", 1.0, 0.0),
        (" \n<think>\na\n</think>\n\nb", 1.0, 0.0),
        ("a</think>b", 0.0, 1.0),
        ("<think>a</think>", 0.0, 0.0),
        ("<think> </think>b", 0.0, 0.0),
        ("</think>b", 0.0, 0.0),
        ("x<think>a</think>b", 0.0, 0.0),
        ("<think>a</think>b</think>c", 0.0, 0.0),
        ("<think>a<think>b</think>c", 0.0, 0.0),
        ("</think>a<think>b", 0.0, 0.0),
        ("a", 0.0, 0.0),
    ],
)
def test_format(text, closed_prompt, open_prompt):
    assert format_reward(completions=[text], prompts=["Q"]) == [closed_prompt]
    assert format_reward(completions=conversational([text])) == [closed_prompt]
    assert format_reward(completions=[text], prompts=["Q <think>\n"]) == [open_prompt]
    assert FormatReward(think_open=True)(completions=conversational([text])) == [open_prompt]


def test_format_with_a_marked_answer():
    texts = [
        r"<think>a</think>\boxed{1}",
        "<think>a</think><answer>1</answer>",
        "<think>a</think>1",
        r"<think>\boxed{1}</think>1",
    ]
    assert FormatReward(answer_mark="boxed")(completions=texts) == [1.0, 0.0, 0.0, 0.0]
    assert FormatReward(answer_mark="answer_tag")(completions=texts) == [0.0, 1.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="answer_mark is 'tag'"):
        FormatReward(answer_mark="tag")
