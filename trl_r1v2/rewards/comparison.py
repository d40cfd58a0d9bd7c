# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
The cheap part of deciding whether an answer is right: equal strings, plain numbers and integer fractions, numbers with
units, multiple-choice letters, words.

Scope: pure functions over two short texts, tens of microseconds a pair. What needs algebra is reported as
`Verdict.ASK` and left to [`~trl_r1v2.rewards.verifier.VerifierPool`]. Does not cover: symbolic equality, unit
conversion (`1 m` is not `100 cm` here), judging of free prose.
"""

import enum
import re
from dataclasses import replace

from .answers import Answer, strip_bold
from .declining import declines
from .quantities import LOOSE_NUMBER_RE, MATH_WORDS, Quantity, leading_number, read_quantity, same_number


# A gold of more words than this is prose: no rule can verify it. Ours.
MAX_GOLD_WORDS = 8

_YES_NO = frozenset(("yes", "no", "true", "false"))
# The first word of a sentence, unless the other one is offered as well ("yes or no", "Yes, No"), or it is a term.
_OR = r"(?![\w'’-])(?!\W*(?:(?:and|or)\W+)?"
_YES_NO_RE = re.compile(
    rf"\W*(?:(?:yes|true(?!\s+(?:posi|nega)tive)){_OR}(?:no|false)\b)|(?:no|false(?!\s+(?:posi|nega)tive)){_OR}(?:yes|true)\b))",
    re.IGNORECASE,
)
_WORDS_RE = re.compile(
    r"""[\s("']*[^\W\d_]+(?:(?:['’-]|[\s,.;"()][\s,.;"'()]*|'[\s,.;][\s,.;"'()]*)[^\W\d_]+)*(?:[\s,.;"')]|(?<=\w{2})[!?])*"""
)
# Words behind a number that calculate with it: `5 squared` is not 5. math-verify does not see them.
_ARITHMETIC_RE = re.compile(
    r"\s*(?:and\s+a\s+)?(?:squared|cubed|factorial|hal(?:f|ves)|(?:third|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth"
    r"|hundredth|thousandth|millionth)s?)\b"
)
_WRAPPER_RE = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|boxed|operatorname)\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}"
)
_CHOICE_ALONE_RE = re.compile(r"\(?([A-Ja-j])\)?[.):]?")
_CHOICE_LEADING_RE = re.compile(r"(?:\(([A-J])\)|([A-J])(?:[.):]|\s+[-–—](?=\s+\S{3}|\s+\S+\s)))\s*(\S.*)", re.DOTALL)
# What follows "because" is about the other letters; "option B is correct".
_CHOICE_REASONED_RE = re.compile(r"(?:[Oo]ption\s+)?\(?([A-J])\)?,?\s+(?:because|since)\b.*", re.DOTALL)
_CHOICE_CALLED_RE = re.compile(
    r"(?:[A-Za-z]+,?\s+)?(?:[Tt]he\s+)?(?:(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s+)?\(?([A-J])\)?\s+is\s+(?:the\s+)?(?:correct|right)"
    r"(?:\s+(?:option|choice|answer|one))?\W*(?:(?:because|since)\b.*)?",
    re.DOTALL,
)
_CHOICE_NAMED_RE = re.compile(
    r"(?:the\s+)?(?:correct\s+)?(?:option|choice|answer)\s*(?:is|:)?\s*\(?([A-J])\)?(?![\w])(.*)",
    re.IGNORECASE | re.DOTALL,
)
# Behind a letter: another one joined to it or marked as a choice, or a verdict on the letter itself ("is too short").
_CHOICE_JOINED_RE = re.compile(r"[^\w,;/&+]*(?:[,;/&+]|(?:and|or)\b)(?:\W|(?:and|or|option|choice)\b)*[A-J](?![\w'])")
_CHOICE_MARKED_RE = re.compile(r"(?<!\w)\(([A-J])\)|(?<![\w(])([A-J])[.):](?=\s|$)|\b[Oo]ption\s+([A-J])\b")
_CHOICE_REJECTED_RE = re.compile(
    r"\W*(?:(?:is|was|seems?|looks|does|do|has|would|could|should|must|may|can|will)(?:\s.*?\b(?:not|no|never|wrong|incorrect|false"
    r"|too|ruled|eliminated|excluded|impossible|rejected)|n't)|can(?:no|')t\s+be\s+(?:right|correct|true|the|it))\b"
)
_BOUND_RE = re.compile(r"[A-Za-z]?\s*(?:\\(?:[gl]e(?:q|qslant)?|[gl]t|neq?)(?![A-Za-z])|!=|[<>≤≥≠])")
_SET_RE, _PAIR_RE = re.compile(r"\\\{.*,.*\\\}"), re.compile(r"[\[(][^{}]*,.*[\])]")
_BLANK = r"(?<!\d) | (?!\d)| (?=\d{3}(?!\d))"


class Verdict(enum.Enum):
    """Outcome of the cheap comparison."""

    RIGHT = "right"
    WRONG = "wrong"
    ASK = "ask"  # needs algebra
    UNVERIFIABLE = "unverifiable"  # the gold answer is empty or prose


def strip_delimiters(text: str) -> str:
    """Remove one pair of math delimiters around the whole text."""
    for left, right in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
        if len(text) > len(left) + len(right) and text.startswith(left) and text.endswith(right):
            return text[len(left) : -len(right)].strip()
    return text


def strip_latex(text: str) -> str:
    """
    Remove what changes the look of an answer but not its value: math delimiters, text wrappers, spacing, markdown
    bold.
    """
    text = strip_delimiters(strip_bold(text))
    text = re.sub(r"\\(?:left|right)(?![A-Za-z])", "", text.replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac"))
    text = (
        text.replace(r"\%", "%")
        .replace(r"\$", "$")
        .replace("{,}", ",")
        .replace("\u2212", "-")
        .replace(r"\infty", "infinity")
    )
    text = re.sub(r"^[–—](?=\s*[\d.\\])", "-", text)
    # `20.5\text{K}`: a unit does not stick to its number, as a variable may
    text = re.sub(r"(?<=[\d}])(?=\\(?:text|textrm|mathrm|mbox)\s*\{)", " ", text)
    text = re.sub(r"\^\{?\\circ\}?|\\degree", "°", text)
    text = re.sub(r"\\[,;:! ]|~", " ", text)
    text = re.sub(r"\\frac(\d)(\d)(?!\d)", r"\\frac{\1}{\2}", text)
    previous = None
    while previous != text:
        previous, text = text, _WRAPPER_RE.sub(r"\1", text)
    text = re.sub(r"\s+", " ", text).strip()
    return text.rstrip(".").rstrip() if text.endswith(".") else text


def choice_letter(text: str) -> str | None:
    """
    Letter A-J that an answer chooses: `B`, `(B)`, `B.`, `B) text`, `option B`; `None` if it chooses none, several ("B, C")
    or rejects the letter ("(B) is too short").
    """
    text = strip_latex(text).replace("**", "")
    alone = _CHOICE_ALONE_RE.fullmatch(text)
    alone = alone or _CHOICE_REASONED_RE.fullmatch(text) or _CHOICE_CALLED_RE.fullmatch(text)
    if alone:
        return alone.group(1).upper()
    leading, named = _CHOICE_LEADING_RE.fullmatch(text), _CHOICE_NAMED_RE.fullmatch(text)
    if leading:
        letter, rest = leading.group(1) or leading.group(2), leading.group(3)
    elif named and (named.group(1).isupper() or not named.group(2).strip(" .")):
        letter, rest = named.group(1).upper(), named.group(2)
    else:
        return None
    others = {next(filter(None, groups)) for groups in _CHOICE_MARKED_RE.findall(rest)} - {letter}
    return None if others or _CHOICE_JOINED_RE.match(rest) or _CHOICE_REJECTED_RE.match(rest) else letter


def _words(text: str) -> list[str] | None:
    """
    Lower-case words of a text; articles dropped. `None` where there is anything else in it, as a sign or a root, that
    changes what the letters mean.
    """
    if _WORDS_RE.fullmatch(text) is None:
        return None
    words = [word for word in re.findall(r"[^\W\d_]+", text.casefold()) if word not in ("a", "an", "the")]
    return words or None


def _is_word_gold(text: str, words: list[str]) -> bool:
    """Whether words are an answer in words rather than letters of algebra (`x`, `ab`, `sin x`, `mgR`, `mgh`)."""
    if " ".join(words) in _YES_NO:
        return True
    is_product = re.fullmatch(r"(?=.*[a-z])(?=.+[A-Z])[A-Za-z]{3,4}|[bcdfghj-np-tv-z]{3,4}", text)
    return any(len(word) > 2 for word in words) and not MATH_WORDS.intersection(words) and not is_product


def compare(answer: Answer, gold: str) -> Verdict:
    r"""
    Compare an answer with the gold answer without algebra.

    In this order: equal strings (LaTeX wrappers and white space removed; case-blind for words), plain numbers with or
    without units, multiple-choice letters, words. Anything else is `ASK`.

    Args:
        answer ([`Answer`]):
            What the policy answered.
        gold (`str`):
            Gold answer from [`gold_text`].

    Returns:
        [`Verdict`]
    """
    given, wanted = strip_latex(answer.text), strip_latex(gold)
    wanted_words = _words(wanted)
    if not wanted or (
        len(wanted.split()) > MAX_GOLD_WORDS and wanted_words and len(wanted_words) > MAX_GOLD_WORDS // 2
    ):
        return Verdict.UNVERIFIABLE
    # the blank of `1 1/2` counts, that of `1 000` does not
    if re.sub(_BLANK, "", given) == re.sub(_BLANK, "", wanted):
        return Verdict.RIGHT
    # math-verify sees neither the relation of `\geq 3` nor that the set `\{1,2\}` is no interval `(1,2)`
    bounds = _BOUND_RE.match(given) and "," not in wanted and not re.search(r"\\[gln]e|\\[gl]t|[<>≤≥≠]", wanted)
    if bounds or (_SET_RE.fullmatch(given) and _PAIR_RE.fullmatch(wanted)):
        return Verdict.WRONG
    wanted_quantity = read_quantity(wanted)
    if wanted_quantity is not None:
        return _compare_with_number(answer, given, wanted_quantity)
    verdict = _compare_with_choice(given, wanted)
    if verdict is not None:
        return verdict
    if wanted_words and _is_word_gold(wanted, wanted_words):
        leads = len(wanted_words) == 1 and _YES_NO_RE.match(given)
        given_words = _words(given) or []
        same = given_words == wanted_words or (
            leads and re.sub(r"\W", "", leads.group(0)).casefold() == wanted_words[0] and not declines(given)
        )
        # "no solutions" is "no solution"
        if wanted_words[0] == "no" and not same:
            same = [word.removesuffix("s") for word in given_words] == [
                word.removesuffix("s") for word in wanted_words
            ]
        return Verdict.RIGHT if same else Verdict.WRONG
    # math-verify drops the prime of a derivative
    primes = [text.replace(r"\prime", "'").count("'") for text in (given, wanted)]
    return Verdict.ASK if primes[0] == primes[1] else Verdict.WRONG


def _compare_quantities(given: Quantity, wanted: Quantity) -> Verdict:
    """Equal numbers, and equal units where both are given; `%` also matches the hundredth."""
    units = {given.unit.name, wanted.unit.name}
    if len(units) == 2 and "" not in units:
        return Verdict.WRONG
    right = same_number(given, wanted)
    if not right and units == {"%", ""}:
        left, other = (replace(side, value=side.value / 100) if side.unit.name else side for side in (given, wanted))
        right = same_number(left, other)
    if not right:
        return Verdict.WRONG
    return Verdict.RIGHT if given.unit.agrees(wanted.unit) else Verdict.ASK


def _compare_with_number(answer: Answer, given: str, wanted: Quantity) -> Verdict:
    quantity = read_quantity(given)
    if quantity is not None:
        return _compare_quantities(quantity, wanted)
    begun = leading_number(given)
    if begun is not None and _ARITHMETIC_RE.match(begun[1]):
        return Verdict.WRONG
    if re.fullmatch(r"[A-Za-z ,.;:!?'\"-]*", given) and not MATH_WORDS.intersection(given.casefold().split()):
        return Verdict.WRONG  # words cannot equal a number
    if not answer.anchored and not re.search(r"[\\^{}=*/]", given):
        loose = LOOSE_NUMBER_RE.findall(given)  # a sentence: its last number, as math-verify would take it
        last = read_quantity(loose[-1]) if loose else None
        return Verdict.RIGHT if last is not None and same_number(last, wanted) else Verdict.WRONG
    return Verdict.ASK


def _compare_with_choice(given: str, wanted: str) -> Verdict | None:
    """Verdict where the gold is a choice (an upper-case letter A-J, alone or before its text), else `None`."""
    alone = _CHOICE_ALONE_RE.fullmatch(wanted)
    leading = _CHOICE_LEADING_RE.fullmatch(wanted)
    if not ((alone and alone.group(1).isupper()) or leading):
        return None
    letter = alone.group(1) if alone else leading.group(1) or leading.group(2)
    chosen = choice_letter(given)
    if chosen is not None:
        return Verdict.RIGHT if chosen == letter else Verdict.WRONG
    same_text = leading is not None and given.casefold() == leading.group(3).casefold()
    return Verdict.RIGHT if same_text else Verdict.WRONG
