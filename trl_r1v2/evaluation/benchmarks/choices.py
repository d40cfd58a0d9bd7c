# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Which option of a multiple-choice problem does an answer choose?

Pure. A letter is never guessed: where a sentence names two, or rejects one, there is none. Does not cover the score
(`grading.py`).
"""

import re
from collections.abc import Sequence

from ...rewards.answers import Answer
from ...rewards.comparison import Verdict, choice_letter, compare
from ...rewards.declining import declines, is_unsure, refuses, says_yes_or_no
from .adapter import LETTERS
from .numbers import bare


_LEADING_LETTER_RE = re.compile(r"\W{0,3}([A-J])(?=$|[.,;:)*}]|\s+(?:because|since|as|which|with|for)\b)")
_LETTER_RE = re.compile(r"(?<![\w\\'])(?!I(?:\s+[a-z]|['’]))([A-J])(?![\w'])")
_REASON_RE = re.compile(r"\b(?:because|since|as)\b|[.;]\s")
_NEGATION_RE = re.compile(
    r"\b(?:not|no|never|neither|nor|none|except|but|without|wrong|incorrect|false|too|can(?:no|')t|unlike|instead|ruled?|ruling"
    r"|exclud\w*|eliminat\w*|reject\w*|impossible)\b|n['’]t\b",
    re.IGNORECASE,
)
_MARKED_LETTER_RE = re.compile(r"\(([A-J])\)|\*\*([A-J])\*\*|\b[Oo]ption\s+([A-J])\b")


def find_letter(answer: Answer, choices: Sequence[str]) -> str | None:
    """
    Letter of the option that an answer chooses.

    In this order: the answer is a letter (`B`, `(B)`, `B. text`); it is the text or the value of exactly one option; a
    letter leads the sentence or is the only one that is marked in it. `None` if none of these holds, or if the answer
    declines to answer ("No image was provided.") and no option does.

    Args:
        answer ([`~trl_r1v2.rewards.answers.Answer`]):
            Final answer.
        choices (`Sequence[str]`):
            Text of the options.

    Returns:
        `str` or `None`: A letter that the options have.
    """
    letters = LETTERS[: len(choices)]
    declined = declines(answer.text)
    if declined and not any(map(refuses, choices)):
        return None
    named = choice_letter(answer.text)
    by_text = [
        letter
        for letter, choice in zip(letters, choices, strict=True)
        if bare(choice).casefold() == bare(answer.text).casefold()
    ]
    # a lower-case letter is rather the text of an option, as in "x" of "x, a, y"
    if named is not None and named in letters and not (by_text and answer.text.islower()):
        return named
    if len(by_text) == 1:
        return by_text[0]
    if named is not None or declined or (says_yes_or_no(answer.text) and is_unsure(answer.text)):
        return None
    by_value = [
        letter
        for letter, choice in zip(letters, choices, strict=True)
        if compare(Answer(answer.text, anchored=True), choice) is Verdict.RIGHT
    ]
    if len(by_value) == 1:
        return by_value[0]
    claim = _REASON_RE.split(answer.text)[0]
    # of a sentence with two letters, or one with a negation, only a reader knows which letter it means
    if len(set(_LETTER_RE.findall(answer.text)) & set(letters)) != 1 or _NEGATION_RE.search(claim):
        return None
    leading = _LEADING_LETTER_RE.match(answer.text) if answer.anchored else None
    if leading and leading.group(1) in letters:
        return leading.group(1)
    marked = {next(filter(None, groups)) for groups in _MARKED_LETTER_RE.findall(claim)} & set(letters)
    return marked.pop() if len(marked) == 1 else None
