# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
Is a response to a benchmark's problem right? By rules, and where they cannot tell, by saying so.

The answer is found as the rewards find it (`trl_r1v2.rewards.answers`): the last `\boxed{}` after the reasoning, else
what follows "answer is", else the last line. A response without an answer, and one that declines to answer, is wrong.
Does not cover judging by a model: [`Grade.ask`] marks what a judge should see.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from ...rewards.answers import MAX_BOXES, Answer, final_answer, last_boxed, split_reasoning
from ...rewards.comparison import choice_letter
from ...rewards.declining import declines, is_unsure, refuses, says_yes_or_no
from ...rewards.quantities import NO_UNIT, Quantity, Unit, read_unit, same_number
from ...rewards.rules import AccuracyReward
from ...rewards.verifier import VerifierPool
from .choices import find_letter
from .numbers import (
    bare,
    begins_as,
    counted_answer,
    ends_in_words,
    name_of,
    parse_list,
    pieces,
    read_number,
    split_unit,
    strip_declared,
)


# How an answer is compared; a row's `kind`.
KINDS = ("choice", "integer", "decimal", "list", "open", "math", "several", "prose")
_MAX_STATEMENT = 2000
_RELATION_RE = re.compile(r"\\(?:[gl]e(?:q|qslant)?|[gl]t)(?![A-Za-z])|[<>≤≥]")
_INTERVAL_RE = re.compile(r"[\[(][^\[\]()]*,[^\[\]()]*[\])]")


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
    than a negative outcome. `swapped`: also with the answer in the place of the accepted one. `barred`: parts that may not
    stand for an accepted answer, by their indices, as `x=2` not for `y=2`.
    """

    parts: list[str]
    golds: list[str]
    all_of: bool
    doubt: bool
    draft: Grade
    swapped: bool = False
    barred: frozenset[tuple[int, int]] = frozenset()

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
        without_unit = strip_declared(answer.text, row.get("unit") or "")
        if without_unit != answer.text:
            answer, written = Answer(without_unit, answer.anchored), without_unit
        counted = _count(answer.text, row)
        if kind == "prose":
            return Grade(None, counted, True, statement)
        refusal = _refusal(answer.text, statement, row["accepted"])
        if refusal is not None:
            return refusal
        if kind == "list":
            given, wanted = parse_list(answer.text), parse_list(row["accepted"][0])
            # an entry in words may be a sentence around the list
            in_words = given is None or (given != wanted and any(isinstance(entry, str) for entry in given))
            return Grade(float(given == wanted), counted, in_words, statement)
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


def _reference_unit(row: Mapping[str, Any], wanted: Quantity | None) -> Unit | None:
    """Unit of a right answer: the declared one, else the one that is written; `None` for one that is not known."""
    declared = bare(row.get("unit") or "")
    if not declared:
        return NO_UNIT if wanted is None else wanted.unit
    known = read_unit(declared)
    # what a row declares is a unit, so that it may be missing in the answer
    return known and Unit(known.name)


def _count(text: str, row: Mapping[str, Any]) -> str:
    """The answer in the form in which answers to its row are counted for the majority."""
    golds = row.get("accepted") or [""]
    unit = _reference_unit(row, read_number(golds[0])) or NO_UNIT
    decimals = row.get("decimals") if row["kind"] in ("decimal", "open") else None
    if row["kind"] != "several":
        return counted_answer(text, unit, decimals)
    parts = [strip_declared(piece, row.get("unit") or "") for piece in pieces(text)]
    names = [name_of(part) for part in parts]
    keep_names = len(set(map(name_of, pieces(", ".join(golds)))) - {None}) > 1
    counted = [counted_answer(part, unit) for part in parts]
    return ", ".join(
        sorted(f"{name}={part}" if keep_names and name else part for name, part in zip(names, counted, strict=True))
    )


def _single(answer: Answer, written: str, row: Mapping[str, Any], draft: Grade) -> Grade | _Pending:
    """Integer, decimal, open and mathematical answers, of which one is enough. `written`: the answer with its LaTeX."""
    kind = row["kind"]
    given = read_number(answer.text)
    wanteds = [read_number(strip_declared(bare(gold), row.get("unit") or "")) for gold in row["accepted"]]
    for wanted in wanteds:
        if wanted is None or given is None:
            continue
        unit = _reference_unit(row, wanted)
        if (given.unit.name and unit is None) or (unit is not None and not given.unit.agrees(unit)):
            # the same quantity in another unit may be right
            return Grade(0.0, draft.answer, True, draft.statement)
        name = unit.name if unit is not None else ""
        values = {given, _without_percent(given, given.unit.name, name)}
        targets = {wanted, _without_percent(wanted, name, given.unit.name)}
        if any(_agree(value, target, kind, row) for value in values for target in targets):
            return Grade(1.0, draft.answer, False, draft.statement)
    numeric_golds = all(wanted is not None for wanted in wanteds)
    # the right number, and behind it what is no known unit
    begun = begins_as(answer.text)
    begins_right = begun is not None and any(wanted and _agree(begun, wanted, kind, row) for wanted in wanteds)
    if kind in ("integer", "decimal"):
        return Grade(0.0, draft.answer, given is None or begins_right, draft.statement)
    if numeric_golds and given is not None:
        return replace(draft, ask=begins_right)
    # an open answer may be the same in other words, a tolerance does not apply to an expression
    doubt = kind == "open" or any(row.get("tolerances") or []) or begins_right
    return _symbolic(written, row, _Pending([answer.text], list(row["accepted"]), False, doubt, draft))


def _symbolic(written: str, row: Mapping[str, Any], pending: _Pending) -> Grade | _Pending:
    """An expression also without its unit, and an inequality beside an interval."""
    wanted = [split_unit(gold) for gold in pending.golds]
    golds = [*pending.golds, *(split.expression for split in wanted if split is not None)]
    parts, doubt = pending.parts, pending.doubt
    given = split_unit(written)
    if given is not None:
        units = [row.get("unit") or (split.unit if split is not None else "") for split in wanted]
        if parts[0] not in map(bare, golds) and not any(_same_unit(given.unit, unit) for unit in units):
            return Grade(0.0, pending.draft.answer, True, pending.draft.statement)
        parts = [*parts, given.expression]
    elif ends_in_words(written):
        # what looks like a unit and is none that is known
        doubt = True
    # math-verify turns the accepted answer's inequality into an interval, not the given one's, and no union
    mixed = any(_is_mixed(parts[0], gold) or _is_mixed(gold, parts[0]) for gold in golds)
    return _Pending(parts, golds, False, doubt or mixed, pending.draft, swapped=mixed)


def _same_unit(given: str, wanted: str) -> bool:
    """Whether two units as they are written agree; a missing one agrees with one that is clear."""
    units = read_unit(given), read_unit(bare(wanted))
    return None not in units and units[0].agrees(units[1])


def _is_mixed(inequality: str, interval: str) -> bool:
    is_inequality = [_RELATION_RE.search(text) is not None for text in (inequality, interval)]
    return is_inequality == [True, False] and _INTERVAL_RE.search(interval) is not None


def _without_percent(number: Quantity, unit: str, other_unit: str) -> Quantity:
    """The hundredth of a percentage that is compared with a bare number, else the number itself."""
    return replace(number, value=number.value / 100) if unit == "%" and not other_unit else number


def _within(given: Fraction, wanted: Fraction, tolerance: float) -> bool:
    """Whether two numbers differ by at most a tolerance, taken as it is written and with OlympiadBench's slack of 1 %."""
    return abs(given - wanted) <= Fraction(str(tolerance)) * Fraction(101, 100)


def _agree(given: Quantity, wanted: Quantity, kind: str, row: Mapping[str, Any]) -> bool:
    if kind in ("decimal", "open") and row.get("decimals") is not None:
        rounded = round(wanted.value, row["decimals"])
        # rounding must not make all small numbers alike
        if rounded == 0 != wanted.value:
            return abs(given.value - wanted.value) <= abs(wanted.value) / 100
        return round(given.value, row["decimals"]) == rounded
    if kind == "math" and row.get("tolerances"):
        return _within(given.value, wanted.value, row["tolerances"][0])
    return same_number(given, wanted) if kind == "math" else given.value == wanted.value


def _several(text: str, answer: Answer, row: Mapping[str, Any], draft: Grade) -> Grade | _Pending:
    """Several answers, each of which has to be given once, in any order."""
    unit = row.get("unit") or ""
    golds = [piece for gold in row["accepted"] for piece in pieces(gold)]
    given = pieces(answer.text)
    if len(given) != len(golds):
        given = [piece for box in _boxes_of_last_line(text) for piece in pieces(box)]
        if len(given) != len(golds):
            return draft
    given = [strip_declared(piece, unit) for piece in given]
    barred = _barred(given, golds)
    splits = [split_unit(piece) for piece in given]
    if not all(split is None or _same_unit(split.unit, unit) for split in splits):
        return draft
    given = [piece if split is None else split.expression for piece, split in zip(given, splits, strict=True)]
    tolerances = list(row.get("tolerances") or [])
    if len(tolerances) == 1:
        tolerances *= len(golds)
    if any(tolerances) and len(tolerances) == len(golds):
        numbers = [read_number(piece) for piece in given], [read_number(piece) for piece in golds]
        if all(number is not None for side in numbers for number in side):
            allowed = [
                [(i, j) not in barred and _within(g.value, numbers[1][j].value, t) for j, t in enumerate(tolerances)]
                for i, g in enumerate(numbers[0])
            ]
            settled = can_pair(allowed)
            return Grade(float(settled), draft.answer, bool(barred) and not settled, draft.statement)
    # a tolerance that could not be applied leaves doubt, and so do other names and words that are no known unit
    doubt = any(tolerances) or bool(barred) or any(begins_as(piece) is not None for piece in given)
    return _Pending(given, golds, True, doubt, draft, barred=barred)


def _barred(given: Sequence[str], golds: Sequence[str]) -> frozenset[tuple[int, int]]:
    """Pairs of answers to different variables; none where the right answers do not name at least two."""
    names, wanted = [name_of(piece) for piece in given], [name_of(piece) for piece in golds]
    if len(set(wanted) - {None}) < 2:
        return frozenset()
    return frozenset(
        (i, j)
        for i, name in enumerate(names)
        for j, other in enumerate(wanted)
        # answers without names stand in the order of the question
        if name != other and not (name is None and i == j)
    )


def _boxes_of_last_line(text: str) -> list[str]:
    r"""Contents of the last `MAX_BOXES` `\boxed{}` of the last line that has one, in order."""
    found = last_boxed(text)
    boxes: list[str] = []
    while found is not None and len(boxes) < MAX_BOXES:
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
        right = [
            [verdicts[part, gold] == 1.0 and (i, j) not in pending.barred for j, gold in enumerate(pending.golds)]
            for i, part in enumerate(pending.parts)
        ]
        unsure = any(verdicts[part, gold] is None for part in pending.parts for gold in pending.golds)
        settled = can_pair(right)
        return Grade(float(settled), draft.answer, (unsure or pending.doubt) and not settled, draft.statement)
    found = [verdicts[pair] for pair in pending.pairs()]
    if 1.0 in found:
        return Grade(1.0, draft.answer, False, draft.statement)
    if all(verdict is None for verdict in found):
        return Grade(None, draft.answer, True, draft.statement)
    return Grade(0.0, draft.answer, pending.doubt or None in found, draft.statement)
