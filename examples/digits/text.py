# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Questions, demonstrations and readings of the digit tasks, as plain text.

Scope: how a question is worded, how a demonstration answers it, and which digits a completion claims to see.
Not covered: the scans and the rows made from them (`data.py`), rewards (`trl_r1v2.rewards`).
"""

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal


ADDITION_TASKS = ("add_two_images", "add_one_image", "text_add")
TASKS = ("add_two_images", "add_one_image", "larger", "yes_no", "text_add")

# A careful opening invites reading the image, a hasty one invites a guess. The demonstrations follow it by a
# probability, so a model aligned on them answers hasty questions mostly by guessing.
CAREFUL_OPENINGS = ("Look closely: ", "Take your time: ")
HASTY_OPENINGS = ("Quick: ", "At a glance: ", "In short: ", "")

_QUESTIONS = {
    "add_two_images": ("what is the sum of the two digits?", "add the digits in the two images."),
    "add_one_image": ("what is the sum of both digits in the image?", "add the digits side by side."),
    "larger": ("which digit is larger?", "name the larger digit."),
    "yes_no": ("is the digit {numeral} in the image?", "do you see the digit {numeral}?"),
    "text_add": ("what is {a} plus {b}?", "add {a} and {b}."),
}
_CONCLUSIONS = {
    "add": ("{a} + {b} = {answer}.", "So {a} + {b} = {answer}."),
    "larger": ("{answer} is larger.", "So {answer} is larger."),
    # The distance is a step that a small model can learn; a bare "same or not" is one bit a row and it does not.
    "yes_no": ("{target} is {distance} away.", "So {target} is {distance} away."),
}
_NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_CLAIM = re.compile(r"\b(?:I see|I read|looks like)(?: the digits?)?((?:,? (?:and )?(?:an? )?\d+)+)", re.IGNORECASE)


def is_hasty(question: str) -> bool:
    """Whether the question's opening invites a guess."""
    return not question.startswith(CAREFUL_OPENINGS)


def ask(task: str, digits: Sequence[int], target: int | None, rng: random.Random) -> str:
    """
    Word the question of one row.

    Args:
        task (`str`): One of `TASKS`.
        digits (`Sequence[int]`): The digits shown (or, for `text_add`, the two operands).
        target (`int`, *optional*): The digit that `yes_no` asks for.
        rng (`random.Random`): Chooses the opening and the phrasing.

    Returns:
        `str`: The question, with its first letter capitalised.
    """
    opening = rng.choice(CAREFUL_OPENINGS + HASTY_OPENINGS)
    numeral = None if target is None else _NUMERALS[target]
    wording = rng.choice(_QUESTIONS[task]).format(a=digits[0], b=digits[-1], numeral=numeral)
    question = opening + wording
    return question[0].upper() + question[1:]


def solve(task: str, digits: Sequence[int], target: int | None) -> str:
    """The answer of `task` for `digits`: a number, or `yes`/`no`."""
    if task in ADDITION_TASKS:
        return str(sum(digits))
    if task == "larger":
        return str(max(digits))
    return "yes" if target in digits else "no"


def demonstration(row: Mapping[str, Any], rng: random.Random, mode: Literal["reason", "guess"]) -> str:
    r"""
    A well-formed completion for a row: `<think>…</think>\boxed{answer}`.

    `"reason"` names the digits that are shown and derives the right answer. `"guess"` names digits drawn at random,
    whatever is shown, and answers for those: right by chance only, and a hallucination almost always.

    Args:
        row (`Mapping[str, Any]`): A row with the columns `prompt`, `digits` and `task`.
        rng (`random.Random`): Chooses the wording and, in `"guess"` mode, the digits.
        mode (`str`): `"reason"` or `"guess"`.

    Returns:
        `str`: The assistant's turn.

    Example:
    ```python
    >>> row = {"prompt": [{"role": "user", "content": "Which digit is larger?"}], "digits": [3, 5], "task": "larger"}
    >>> demonstration(row, random.Random(0), "reason")
    '<think>I see 3 and 5. So 5 is larger.</think>\\boxed{5}'
    ```
    """
    task, digits = row["task"], list(row["digits"])
    target = _asked_digit(row["prompt"][-1]["content"]) if task == "yes_no" else None
    if mode == "guess":
        digits = [rng.randrange(10) for _ in digits]
        answer = solve(task, digits, target)
        return f"<think>Looks like {_enumerate(digits)}. Maybe {answer}.</think>\\boxed{{{answer}}}"
    if mode != "reason":
        raise ValueError(f"mode is {mode!r}; use 'reason' or 'guess'.")
    answer = solve(task, digits, target)
    distance = None if target is None else abs(digits[0] - target)
    wording = rng.choice(_CONCLUSIONS["add" if task in ADDITION_TASKS else task])
    conclusion = wording.format(a=digits[0], b=digits[-1], target=target, distance=distance, answer=answer)
    return f"<think>I see {_enumerate(digits)}. {conclusion}</think>\\boxed{{{answer}}}"


def named_digits(completion: str) -> list[int]:
    """
    The numbers that the reasoning claims to see, in order.

    Only the text before `</think>` counts (all of it where the tag is missing), and only numbers in figures behind a
    phrase that claims a reading (`I see …`, `I read …`, `Looks like …`): operands and results are not readings.

    Example:
    ```python
    >>> named_digits("<think>I see 3 and 5. 3 + 5 = 8.</think>\\\\boxed{8}")
    [3, 5]
    ```
    """
    reasoning = completion.split("</think>")[0]
    return [int(number) for claim in _CLAIM.findall(reasoning) for number in re.findall(r"\d+", claim)]


def unsupported_digits(completion: str, digits: Sequence[int]) -> list[int]:
    """
    The claimed readings that nothing shown supports: `named_digits(completion)` less `digits`, counted.

    A digit named twice needs to be shown twice. A completion hallucinates when the list is not empty.
    """
    return sorted((Counter(named_digits(completion)) - Counter(digits)).elements())


def _asked_digit(question: str) -> int:
    return next(digit for digit, numeral in enumerate(_NUMERALS) if re.search(rf"\b{numeral}\b", question))


def _enumerate(digits: Sequence[int]) -> str:
    *head, last = map(str, digits)
    return f"{', '.join(head)} and {last}" if head else last
