# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Where the reasoning ends, what the final answer is, and what a gold answer says."""

import math
import struct
import time

import pytest

from trl_r1v2.rewards.answers import (
    completion_text,
    final_answer,
    gold_text,
    prompt_opens_think,
    split_reasoning,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"<think>\boxed{1}</think> so \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{1} then \boxed{2", None),
        (r"\boxed{1} and \boxed{2}", "1, 2"),
        (r"\boxed{1} apples, \boxed{2} pears or \boxed{3}", "1, 2 or 3"),
        (r"\boxed{1}. And \boxed{2}", "2"),
        (r"\boxed{1} is wrong", None),
        (r"\boxed{1} is wrong. The answer is 7.", "7."),
        (r"\boxed{1}. This answer is right.", "1"),
        (r"The first \boxed{x} is a name.\n\n**Answer: D**".replace(r"\n", "\n"), "D"),
        (r"\boxed{\text{a } \{b\}}", r"\text{a } \{b\}"),
        ("<think>x</think><answer> 7 </answer>", "7"),
        (r"<answer>so \boxed{8}</answer>", "8"),
        (r"\boxed{3} <answer>4</answer>", "4"),
        (r"<answer>4</answer> no, \boxed{3}", "3"),
        ("<think>x</think>The answer is 12.\nDone.", "12."),
        ("The answer is 12. I hope it is correct.", "12."),
        ("The answer is 12. It was easy.", "12"),
        ("The answer is 12. Or maybe 13.", "12. Or maybe 13."),
        ("So it is 5. Therefore $x \\ge 5$ is the solution.", "x \\ge 5"),
        ("So $a = 1$ and the pair is $(1, 2)$.", "(1, 2)"),
        ("答案：B", "B"),
        ("所以答案是5。", "5。"),
        ("故选B。", "B。"),
        ("Final answer: **12**", "12"),
        ("first 5\nlast 6", "last 6"),
        ("<think>no end, 5", None),
        ("<think>x</think>  ", None),
        ("", None),
        (r"\boxed{" + "1" * 1001 + "}", None),
        # the answer stands behind bold headings and between delimiters on lines of their own
        ("**Answer:**\n\n204", "204"),
        ("**Final Answer:**\n204\n", "204"),
        ("**Answer:**\n\n**B**", "B"),
        ("**Answer**: B", "B"),
        ("The answer is\n$$\n204\n$$", "204"),
        ("So\n\\[\n204\n\\]", "204"),
        ("Thus\n$$\n204\n$$\n", "204"),
        ("**C** is right because option B is wrong.", "**C** is right because option B is wrong."),
    ],
)
def test_final_answer(text, expected):
    found = final_answer(text)
    assert (found.text if found else None) == expected


def test_a_text_that_repeats_unclosed_boxes_is_read_in_linear_time():
    """Quadratic scanning of this text takes minutes."""
    assert final_answer(r"\boxed{" * 50_000) is None
    assert final_answer(r"\boxed{" * 50_000 + r"\boxed{7}").text == "7"


@pytest.mark.parametrize("blank", ["\n", " ", "\t \n"])
def test_a_run_of_blanks_is_read_in_linear_time(blank):
    """Looking from each blank to the end of the run takes ten seconds for 20,000 of them."""
    start = time.process_time()
    assert final_answer(f"so{blank * 40_000}the answer is 7").text == "7"
    assert time.process_time() - start < 1.0


def test_a_prompt_that_opened_the_reasoning_leaves_an_unclosed_completion_without_answer():
    assert final_answer("still thinking 5").text == "still thinking 5"
    assert final_answer("still thinking 5", think_open=True) is None
    assert final_answer("thought</think>5", think_open=True).text == "5"
    assert split_reasoning("a</think>b", think_open=True) == ("a", "b")


def test_completion_text_of_every_form():
    assert completion_text("plain") == "plain"
    assert completion_text([{"content": "no role"}]) == "no role"
    assert (
        completion_text(
            [{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
        )
        == "ab"
    )
    tools = [
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "99"},
        {"role": "assistant", "content": "last", "reasoning_content": "why"},
        {"role": "tool", "content": "after"},
    ]
    assert completion_text(tools) == "<think>why</think>\nlast"
    assert completion_text([{"role": "tool", "content": "99"}]) == ""


def test_prompt_opens_think():
    assert prompt_opens_think("Q <think>\n")
    assert not prompt_opens_think("Q <think>\n</think>")
    assert prompt_opens_think([{"role": "user", "content": "Q"}, {"role": "assistant", "content": "<think>"}])
    assert not prompt_opens_think([{"role": "user", "content": "Say <think>"}])


@pytest.mark.parametrize(
    ("gold", "expected"),
    [
        (12, "12"),
        (12.5, "12.5"),
        # 0.1 and 1/3 of a column of 32-bit floats, and of 64-bit ones
        (struct.unpack("f", struct.pack("f", 0.1))[0], "0.1"),
        (struct.unpack("f", struct.pack("f", 1 / 3))[0], "0.33333334"),
        (1 / 3, "0.3333333333333333"),
        (1e-05, "1e-05"),
        (r"Thus \boxed{x^2}.", "x^2"),
        ("work #### 42", "42"),
        (r"\boxed{1} papers and \boxed{2} bins", "1, 2"),
        ("We count.\nTherefore, the answer is: 180.", "180."),
        ("<answer>C</answer>", "C"),
        (None, None),
        (math.nan, None),
        ("  ", None),
        (r"\boxed{}", None),
    ],
)
def test_gold_text(gold, expected):
    assert gold_text(gold) == expected
