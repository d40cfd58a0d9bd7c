# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Wording of the digit tasks: what demonstrations say, and which digits a completion claims to see."""

import random
import re
from collections import Counter

import pytest

from examples.digits.data import draw_digits
from examples.digits.text import (
    TASKS,
    ask,
    demonstration,
    is_hasty,
    named_digits,
    solve,
    unsupported_digits,
)
from trl_r1v2.rewards import accuracy_reward, format_reward


NUMERALS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def make_row(task: str, rng: random.Random) -> dict:
    digits, target = draw_digits(task, rng)
    question = ask(task, digits, target, rng)
    return {"prompt": [{"role": "user", "content": question}], "digits": digits, "task": task}


def true_answer(row: dict) -> str:
    """The answer, worked out from the question's own words."""
    question = row["prompt"][0]["content"]
    if row["task"] == "larger":
        return str(sorted(row["digits"])[-1])
    if row["task"] == "yes_no":
        (asked,) = [digit for digit, numeral in enumerate(NUMERALS) if numeral in re.findall("[a-z]+", question)]
        return "yes" if row["digits"] == [asked] else "no"
    return str(row["digits"][0] + row["digits"][1])


def answer_of(completion: str) -> str:
    return re.fullmatch(r"<think>[^<]+</think>\\boxed\{(\w+)\}", completion).group(1)


@pytest.mark.parametrize("task", TASKS)
def test_reasoning_names_what_is_shown_and_answers_right(task):
    rng = random.Random(task)
    rows = [make_row(task, rng) for _ in range(200)]
    completions = [demonstration(row, rng, "reason") for row in rows]
    answers = [true_answer(row) for row in rows]
    assert [answer_of(completion) for completion in completions] == answers
    assert [solve(row["task"], row["digits"], asked_of(row)) for row in rows] == answers
    assert [named_digits(completion) for completion in completions] == [row["digits"] for row in rows]
    assert len(set(answers)) > 1 and len(set(completions)) > 20


def asked_of(row: dict) -> int | None:
    found = [digit for digit, numeral in enumerate(NUMERALS) if f" {numeral}" in row["prompt"][0]["content"]]
    return found[0] if row["task"] == "yes_no" else None


def test_the_answer_of_an_addition_is_in_its_reasoning_once_as_a_result():
    row = {"prompt": [{"role": "user", "content": "Add."}], "digits": [3, 5], "task": "add_two_images"}
    completion = demonstration(row, random.Random(0), "reason")
    assert "3 + 5 = 8." in completion
    assert named_digits(completion) == [3, 5]


def test_guesses_do_not_depend_on_what_is_shown():
    rng = random.Random(1)
    rows = [make_row("add_two_images", rng) for _ in range(3000)]
    completions = [demonstration(row, rng, "guess") for row in rows]
    named = [named_digits(completion) for completion in completions]
    assert [int(answer_of(completion)) for completion in completions] == [sum(digits) for digits in named]
    # A digit is named right one time in ten; 6,000 draws have a standard error of 0.4 points.
    right = sum(
        a == b for digits, row in zip(named, rows, strict=True) for a, b in zip(digits, row["digits"], strict=True)
    )
    assert abs(right / 6000 - 0.1) < 0.016
    counts = Counter(digit for digits in named for digit in digits)
    assert set(counts) == set(range(10)) and min(counts.values()) > 500


def test_every_demonstration_is_well_formed_for_the_rewards():
    rng = random.Random(2)
    rows = [make_row(task, rng) for task in TASKS for _ in range(4)]
    reasoned = [demonstration(row, rng, "reason") for row in rows]
    guessed = [demonstration(row, rng, "guess") for row in rows]
    as_messages = [[{"role": "assistant", "content": text}] for text in reasoned + guessed]
    solutions = [true_answer(row) for row in rows] * 2
    assert format_reward(completions=as_messages) == [1.0] * 40
    rewards = accuracy_reward(completions=as_messages, solution=solutions)
    assert rewards[:20] == [1.0] * 20
    assert sum(rewards[20:]) < 12


def test_an_unknown_mode_is_refused():
    row = make_row("larger", random.Random(0))
    with pytest.raises(ValueError, match="'maybe'; use 'reason' or 'guess'"):
        demonstration(row, random.Random(0), "maybe")


@pytest.mark.parametrize(
    ("completion", "named"),
    [
        ("<think>I see 3 and 5. 3 + 5 = 8.</think>\\boxed{8}", [3, 5]),
        ("<think>I see 3, 5, and 7. 7 is larger.</think>\\boxed{7}", [3, 5, 7]),
        ("<think>I see a 3 and a 5. So 8.</think>\\boxed{8}", [3, 5]),
        ("<think>The first is odd. I see the digits 4 and 4.</think>\\boxed{8}", [4, 4]),
        ("<think>Looks like 7. Maybe no.</think>\\boxed{no}", [7]),
        ("<think>It looks like 7 and 2, then I read 1.</think>\\boxed{9}", [7, 2, 1]),
        ("<think>I see 12 and 5.</think>\\boxed{17}", [12, 5]),
        ("<think>3 + 5 = 8.</think>\\boxed{8}", []),
        ("<think>I cannot see the image.</think>\\boxed{8}", []),
        ("<think>I see 3.</think>I see 5.\\boxed{3}", [3]),
        ("I see 3 and", [3]),
        ("", []),
    ],
)
def test_named_digits(completion, named):
    assert named_digits(completion) == named


@pytest.mark.parametrize(
    ("named", "shown", "unsupported"),
    [("3 and 5", [5, 3], []), ("3 and 5", [3, 4], [5]), ("3 and 3", [3, 4], [3]), ("9", [], [9]), ("3", [3, 4], [])],
)
def test_unsupported_digits_count_how_often_a_digit_is_shown(named, shown, unsupported):
    assert unsupported_digits(f"<think>I see {named}.</think>\\boxed{{1}}", shown) == unsupported


def test_hasty_and_careful_openings_both_occur():
    rng = random.Random(3)
    questions = [make_row("larger", rng)["prompt"][0]["content"] for _ in range(600)]
    share = sum(map(is_hasty, questions)) / len(questions)
    assert 0.6 < share < 0.73  # four of six openings
    assert is_hasty("Quick: which digit is larger?") and not is_hasty("Look closely: which digit is larger?")
    assert all(question[0].isupper() for question in questions)
