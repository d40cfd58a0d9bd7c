# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
Is a response to a benchmark's problem right? By rules, and where they cannot tell, by saying so.

The answer is found as the rewards find it (`trl_r1v2.rewards.answers`): the last `\boxed{}` after the reasoning, else
what follows "answer is", else the last line. A response without an answer, and one that declines to answer, is wrong.
Does not cover judging by a model: [`Grade.ask`] marks what a judge should see.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from trl_r1v2.rewards.declining import declines, is_unsure, refuses, says_yes_or_no

from ...rewards.answers import Answer, final_answer, last_boxed, split_reasoning
from ...rewards.comparison import Verdict, choice_letter, compare
from ...rewards.rules import AccuracyReward
from ...rewards.verifier import VerifierPool
from .adapter import LETTERS
from .numbers import bare, ends_in_words, parse_list, pieces, read_number, same_unit, split_unit


# How an answer is compared; a row's `kind`.
KINDS = ("choice", "integer", "decimal", "list", "open", "math", "several", "prose")
_MAX_STATEMENT = 2000
_LEADING_LETTER_RE = re.compile(r"\W{0,3}([A-J])(?=$|[.,;:)*}]|\s+(?:because|since|as|which|with|for)\b)")
_RELATION_RE = re.compile(r"\\(?:[gl]e(?:q|qslant)?|[gl]t)(?![A-Za-z])|[<>≤≥]")
_INTERVAL_RE = re.compile(r"[\[(][^\[\]()]*,[^\[\]()]*[\])]")
_MARKED_LETTER_RE = re.compile(r"\(([A-J])\)|\*\*([A-J])\*\*|\b[Oo]ption\s+([A-J])\b")


@dataclass(frozen=True)
class Grade:
    """
    What the rules say of one response.

    Args:
        score (`float` or `None`):
            1.0 right, 0.0 wrong, `None` where no rule can judge any answer to this problem.
        answer (`str` or `None`):
            The answer in the form in which answers are counted for the majority; `None` if there is none.
        ask (`bool`):
            Whether the rules could not decide, so that a judge should.
        statement (`str`):
            What a judge is shown: the answer, or the end of the response where no answer is marked.
    """

    score: float | None
    answer: str | None
    ask: bool
    statement: str


@dataclass(frozen=True)
class _Pending:
    """
    A comparison that needs algebra: parts of the answer against the accepted answers. `doubt`: a judge may know better
    than a negative outcome. `swapped`: also with the answer in the place of the accepted one.
    """

    parts: list[str]
    golds: list[str]
    all_of: bool
    doubt: bool
    draft: Grade
    swapped: bool = False

    def pairs(self) -> list[tuple[str, str]]:
        pairs = [(part, gold) for part in self.parts for gold in self.golds]
        return [*pairs, *((gold, part) for part, gold in pairs)] if self.swapped else pairs


class BenchmarkGrader:
    """
    Judge of responses to rows of [`~trl_r1v2.evaluation.benchmarks.loading.load_rows`].

    Args:
        think_open (`bool`, *optional*, defaults to `False`):
            Whether the chat template opens `<think>`, so that a response without `</think>` has no answer.
        pool ([`~trl_r1v2.rewards.verifier.VerifierPool`], *optional*):
            Verifier of symbolic answers; the process's shared one by default.

    Example:

    ```python
    >>> grader = BenchmarkGrader()
    >>> row = {"kind": "choice", "accepted": ["B"], "choices": ["3 cm", "4 cm"], "unit": ""}
    >>> [grade.score for grade in grader([r"so \\boxed{B}", "4 cm", "I cannot see the image."], [row] * 3)]
    [1.0, 1.0, 0.0]
    ```
    """

    def __init__(self, think_open: bool = False, pool: VerifierPool | None = None):
        self.think_open = think_open
        self._equality = AccuracyReward(think_open=False, pool=pool)

    def __call__(self, texts: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[Grade]:
        """
        Judge responses.

        Args:
            texts (`Sequence[str]`):
                Responses.
            rows (`Sequence[Mapping]`):
                The row of each, with `kind`, `accepted`, `choices`, and where they apply `decimals`, `tolerances`, `unit`.

        Returns:
            `list[Grade]`: In order.

        Raises:
            ValueError: A row's `kind` is unknown.
        """
        drafts = [self._draft(text, row) for text, row in zip(texts, rows, strict=True)]
        pending = [draft for draft in drafts if isinstance(draft, _Pending)]
        pairs = list(dict.fromkeys(pair for draft in pending for pair in draft.pairs()))
        verdicts: dict[tuple[str, str], float | None] = {}
        if pairs:
            completions = [rf"\boxed{{{part}}}" for part, _ in pairs]
            rewards = self._equality(completions=completions, solution=[gold for _, gold in pairs])
            verdicts = dict(zip(pairs, rewards, strict=True))
        return [draft if isinstance(draft, Grade) else _settle(draft, verdicts) for draft in drafts]

    def _draft(self, text: str, row: Mapping[str, Any]) -> Grade | _Pending:
        kind = row["kind"]
        if kind not in KINDS:
            raise ValueError(f"`kind` is {kind!r}, but must be one of {', '.join(KINDS)}.")
        answer = final_answer(text, self.think_open)
        if answer is None:
            return Grade(None if kind == "prose" else 0.0, None, False, "")
        written = answer.text
        answer = Answer(bare(written), answer.anchored)
        statement = answer.text
        if not answer.anchored:
            statement = (split_reasoning(text, self.think_open)[1] or "")[-_MAX_STATEMENT:]
        if kind == "choice":
            return _grade_choice(answer, statement, row["choices"], row["accepted"][0])
        number = read_number(answer.text)
        counted = (
            answer.text.replace(" ", "").casefold() if number is None else f"{number.value} {number.unit}".strip()
        )
        if kind == "prose":
            return Grade(None, counted, True, statement)
        refusal = _refusal(answer.text, statement, row["accepted"])
        if refusal is not None:
            return refusal
        if kind == "list":
            given, wanted = parse_list(answer.text), parse_list(row["accepted"][0])
            return Grade(float(given == wanted), counted, given is None, statement)
        if kind == "several":
            return _several(text, answer, row, Grade(0.0, counted, True, statement))
        return _single(answer, written, row, Grade(0.0, counted, False, statement))


def _refusal(text: str, statement: str, accepted: Sequence[str]) -> Grade | None:
    """Grade of an answer that declines, `None` of one that does not, or where declining is the accepted answer."""
    if not refuses(text) and not is_unsure(text):
        return None
    if refuses(" ".join(accepted)):
        return None
    if not declines(text) and says_yes_or_no(text) and any(map(says_yes_or_no, accepted)):
        return Grade(0.0, None, True, statement) if is_unsure(text) else None
    return Grade(0.0, None, False, statement) if refuses(text) else None


def _grade_choice(answer: Answer, statement: str, choices: Sequence[str], gold: str) -> Grade:
    letter = find_letter(answer, choices)
    if letter is not None:
        return Grade(float(letter == gold), letter, False, statement)
    if refuses(answer.text) and (declines(answer.text) or not says_yes_or_no(answer.text)):
        # an option may say the same in other words
        return Grade(0.0, None, any(map(refuses, choices)), statement)
    # a letter beyond the options is a wrong choice, anything else may be one in words
    return Grade(0.0, None, choice_letter(answer.text) is None, statement)


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
    leading = _LEADING_LETTER_RE.match(answer.text) if answer.anchored else None
    if leading and leading.group(1) in letters:
        return leading.group(1)
    marked = {next(filter(None, groups)) for groups in _MARKED_LETTER_RE.findall(answer.text)} & set(letters)
    return marked.pop() if len(marked) == 1 else None


def _single(answer: Answer, written: str, row: Mapping[str, Any], draft: Grade) -> Grade | _Pending:
    """Integer, decimal, open and mathematical answers, of which one is enough. `written`: the answer with its LaTeX."""
    kind, unit = row["kind"], row.get("unit") or ""
    given = read_number(answer.text)
    for gold in row["accepted"]:
        wanted = read_number(gold)
        if wanted is None or given is None:
            continue
        if not same_unit(given.unit, unit or wanted.unit):
            # the same quantity in another unit may be right
            return Grade(0.0, draft.answer, True, draft.statement)
        wanted_unit = unit or wanted.unit
        values = {given.value, _without_percent(given.value, given.unit, wanted_unit)}
        target = _without_percent(wanted.value, wanted_unit, given.unit)
        if any(_agree(value, accepted, kind, row) for value in values for accepted in (wanted.value, target)):
            return Grade(1.0, draft.answer, False, draft.statement)
    numeric_golds = all(read_number(gold) is not None for gold in row["accepted"])
    if kind in ("integer", "decimal"):
        return Grade(0.0, draft.answer, given is None, draft.statement)
    if numeric_golds and given is not None:
        return draft
    # an open answer may be the same in other words, a tolerance does not apply to an expression
    doubt = kind == "open" or any(row.get("tolerances") or [])
    return _symbolic(written, row, _Pending([answer.text], list(row["accepted"]), False, doubt, draft))


def _symbolic(written: str, row: Mapping[str, Any], pending: _Pending) -> Grade | _Pending:
    """An expression also without its unit, and an inequality beside an interval."""
    wanted = [split_unit(gold) for gold in pending.golds]
    golds = [*pending.golds, *(split.expression for split in wanted if split is not None)]
    parts, doubt = pending.parts, pending.doubt
    given = split_unit(written)
    if given is not None:
        units = [row.get("unit") or (split.unit if split is not None else "") for split in wanted]
        if parts[0] not in map(bare, golds) and not any(same_unit(given.unit, unit) for unit in units):
            return Grade(0.0, pending.draft.answer, True, pending.draft.statement)
        parts = [*parts, given.expression]
    elif ends_in_words(written):
        # what looks like a unit and is none that is known
        doubt = True
    # math-verify turns the accepted answer's inequality into an interval, not the given one's, and no union
    mixed = any(_is_mixed(parts[0], gold) or _is_mixed(gold, parts[0]) for gold in golds)
    return _Pending(parts, golds, False, doubt or mixed, pending.draft, swapped=mixed)


def _is_mixed(inequality: str, interval: str) -> bool:
    is_inequality = [_RELATION_RE.search(text) is not None for text in (inequality, interval)]
    return is_inequality == [True, False] and _INTERVAL_RE.search(interval) is not None


def _without_percent(value: Fraction, unit: str, other_unit: str) -> Fraction:
    """The hundredth of a percentage that is compared with a bare number, else the value itself."""
    return value / 100 if unit == "%" and not other_unit else value


def _within(given: Fraction, wanted: Fraction, tolerance: float) -> bool:
    """Whether two numbers differ by at most a tolerance, taken as it is written and with OlympiadBench's slack of 1 %."""
    return abs(given - wanted) <= Fraction(str(tolerance)) * Fraction(101, 100)


def _agree(given: Fraction, wanted: Fraction, kind: str, row: Mapping[str, Any]) -> bool:
    if kind in ("decimal", "open") and row.get("decimals") is not None:
        return round(given, row["decimals"]) == round(wanted, row["decimals"])
    if kind == "math" and row.get("tolerances"):
        return _within(given, wanted, row["tolerances"][0])
    # a decimal may stand for a fraction when they agree to six decimals, as in `rewards.comparison`
    return given == wanted or (
        kind == "math" and abs(given - wanted) <= Fraction(1, 2_000_000) and given * wanted != 0
    )


def _several(text: str, answer: Answer, row: Mapping[str, Any], draft: Grade) -> Grade | _Pending:
    """Several answers, each of which has to be given once, in any order."""
    golds = [piece for gold in row["accepted"] for piece in pieces(gold)]
    given = pieces(answer.text)
    if len(given) != len(golds):
        boxes = _boxes_of_last_line(text)
        joined = [piece for box in boxes for piece in pieces(box)]
        if len(joined) != len(golds):
            return draft
        given = joined
    tolerances = list(row.get("tolerances") or [])
    if len(tolerances) == 1:
        tolerances *= len(golds)
    if any(tolerances) and len(tolerances) == len(golds):
        numbers = [read_number(piece) for piece in given], [read_number(piece) for piece in golds]
        if all(number is not None for side in numbers for number in side):
            allowed = [
                [_within(g.value, w.value, t) for w, t in zip(numbers[1], tolerances, strict=True)] for g in numbers[0]
            ]
            return Grade(float(can_pair(allowed)), draft.answer, False, draft.statement)
    splits = [split_unit(piece) for piece in given]
    units_agree = all(split is None or same_unit(split.unit, row.get("unit") or "") for split in splits)
    if not units_agree:
        return draft
    given = [piece if split is None else split.expression for piece, split in zip(given, splits, strict=True)]
    # a tolerance that could not be applied leaves doubt
    return _Pending(given, golds, True, any(tolerances), draft)


def _boxes_of_last_line(text: str) -> list[str]:
    r"""Contents of all `\boxed{}` of the last line that has one, in order."""
    found = last_boxed(text)
    boxes: list[str] = []
    while found is not None:
        boxes.insert(0, found[1])
        line_start = text.rfind("\n", 0, found[0]) + 1
        previous = last_boxed(text[line_start : found[0]])
        found = None if previous is None else (line_start + previous[0], previous[1])
    return boxes


def can_pair(allowed: Sequence[Sequence[bool]]) -> bool:
    """
    Whether every row can be paired with a column of its own among those allowed (Kuhn's algorithm).

    Args:
        allowed (`Sequence[Sequence[bool]]` of shape `(n, n)`):
            Which pairs are allowed.

    Returns:
        `bool`
    """
    owner: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for column, fits in enumerate(allowed[row]):
            if fits and column not in seen:
                seen.add(column)
                if column not in owner or place(owner[column], seen):
                    owner[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(allowed)))


def _settle(pending: _Pending, verdicts: Mapping[tuple[str, str], float | None]) -> Grade:
    draft = pending.draft
    if pending.all_of:
        right = [[verdicts[part, gold] == 1.0 for gold in pending.golds] for part in pending.parts]
        unsure = any(verdicts[part, gold] is None for part in pending.parts for gold in pending.golds)
        settled = can_pair(right)
        return Grade(float(settled), draft.answer, (unsure or pending.doubt) and not settled, draft.statement)
    found = [verdicts[pair] for pair in pending.pairs()]
    if 1.0 in found:
        return Grade(1.0, draft.answer, False, draft.statement)
    if all(verdict is None for verdict in found):
        return Grade(None, draft.answer, True, draft.statement)
    return Grade(0.0, draft.answer, pending.doubt or None in found, draft.statement)
