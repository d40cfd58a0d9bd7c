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
from fractions import Fraction

from .answers import Answer
from .declining import declines


# A gold of more words than this is prose: no rule can verify it. Ours.
MAX_GOLD_WORDS = 8

_NUMBER_WORDS = {
    word: str(value)
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty".split()
    )
}
_MATH_WORDS = frozenset(
    "pi sqrt sin cos tan cot sec csc arcsin arccos arctan log ln exp mod inf infinity max min".split()
)
_YES_NO = frozenset(("yes", "no", "true", "false"))
_UNIT_ALIASES = {
    alias: unit
    for unit, aliases in {
        "m": "m meter meters metre metres",
        "cm": "cm centimeter centimeters centimetre centimetres",
        "mm": "mm millimeter millimeters millimetre millimetres",
        "km": "km kilometer kilometers kilometre kilometres",
        "in": "in inch inches",
        "ft": "ft foot feet",
        "mi": "mi mile miles",
        "g": "g gram grams",
        "kg": "kg kilogram kilograms",
        "mg": "mg milligram milligrams",
        "lb": "lb lbs pound pounds",
        "s": "s sec secs second seconds",
        "min": "min mins minute minutes",
        "h": "h hr hrs hour hours",
        "L": "L l liter liters litre litres",
        "mL": "mL ml milliliter milliliters millilitre millilitres",
        "°": "° degree degrees deg",
        "°C": "°C celsius",
        "°F": "°F fahrenheit",
        "%": "% percent pct percentage",
        "$": "dollar dollars usd",
        "N": "N newton newtons",
        "J": "J joule joules",
        "W": "W watt watts",
        "V": "V volt volts",
        "A": "A amp amps ampere amperes",
        "Hz": "Hz hertz",
        "Pa": "Pa pascal pascals",
    }.items()
    for alias in aliases.split()
}
_NOT_UNITS = _MATH_WORDS | frozenset(
    "and or to plus minus times over hundred thousand million billion trillion".split()
)

_DECIMAL = r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][+-]?\d{1,2})?"
_DECIMAL_RE = re.compile(rf"(?=[+-]?\.?\d){_DECIMAL}")
_RATIO_RE = re.compile(r"([+-]?)\\frac\{([+-]?\d{1,50})\}\{(\d{1,50})\}|([+-]?\d{1,50})\s*/\s*(\d{1,50})")
_LOOSE_NUMBER_RE = re.compile(rf"(?<![\w.])(?=[+-]?\.?\d){_DECIMAL}")
_WRAPPER_RE = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|boxed|operatorname)\s*\{([^{}]*)\}"
)
_CHOICE_ALONE_RE = re.compile(r"\(?([A-Ja-j])\)?[.):]?")
_CHOICE_LEADING_RE = re.compile(r"(?:\(([A-J])\)|([A-J])[.):])\s*(\S.*)", re.DOTALL)
_CHOICE_NAMED_RE = re.compile(
    r"(?:the\s+)?(?:correct\s+)?(?:option|choice|answer)\s*(?:is|:)?\s*\(?([A-J])\)?(?![\w])", re.IGNORECASE
)


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
    text = strip_delimiters(text.strip().strip("*").strip())
    text = re.sub(r"\\(?:left|right)(?![A-Za-z])", "", text.replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac"))
    text = (
        text.replace(r"\%", "%")
        .replace(r"\$", "$")
        .replace("{,}", ",")
        .replace("\u2212", "-")
        .replace(r"\infty", "infinity")
    )
    text = re.sub(r"\^\{?\\circ\}?|\\degree", "°", text)
    text = re.sub(r"\\[,;:! ]|~", " ", text)
    text = re.sub(r"\\frac(\d)(\d)(?!\d)", r"\\frac{\1}{\2}", text)
    previous = None
    while previous != text:
        previous, text = text, _WRAPPER_RE.sub(r"\1", text)
    text = re.sub(r"\s+", " ", text).strip()
    return text.rstrip(".").rstrip() if text.endswith(".") else text


def plain_number(text: str) -> tuple[Fraction, bool] | None:
    r"""
    Value of a plain decimal or integer fraction, and whether it was written as a fraction; `None` for anything else.
    """
    if len(text) > 100:
        return None
    ratio = _RATIO_RE.fullmatch(text)
    if ratio is not None:
        sign, top, bottom, plain_top, plain_bottom = ratio.groups()
        denominator = int(bottom or plain_bottom)
        if denominator == 0:
            return None
        value = Fraction(int(top or plain_top), denominator)
        return (-value if sign == "-" else value), True
    if _DECIMAL_RE.fullmatch(text):
        return Fraction(text.replace(",", "")), False
    return None


def _same_number(left: tuple[Fraction, bool], right: tuple[Fraction, bool]) -> bool:
    """
    Exact, except that a decimal may stand for a fraction when they agree to six decimals (math-verify's rounding).
    """
    if left[0] == right[0]:
        return True
    one_is_ratio = left[1] != right[1]
    return one_is_ratio and bool(left[0]) and bool(right[0]) and abs(left[0] - right[0]) <= Fraction(1, 2_000_000)


def _canonical_unit(text: str) -> str | None:
    """Unit in canonical spelling, `""` for none, `None` where the text is not a unit."""
    text = text.strip()
    if not text:
        return ""
    text = text.replace("²", "2").replace("³", "3").replace(" per ", "/")
    parts = []
    for part in re.sub(r"[{}^]", "", text).split("/"):
        match = re.fullmatch(r"(?:(square|cubic) )?([A-Za-z°%$]+)([23]?)", part.strip())
        if match is None or match.group(2) not in _UNIT_ALIASES:
            break
        power = {"square": "2", "cubic": "3"}.get(match.group(1), match.group(3))
        parts.append(_UNIT_ALIASES[match.group(2)] + power)
    else:
        return "/".join(parts)
    words = text.casefold().split()
    if len(words) <= 3 and all(re.fullmatch(r"[a-z]{3,}", word) and word not in _NOT_UNITS for word in words):
        return " ".join(word[:-1] if word.endswith("s") else word for word in words)
    return None


def _quantity(text: str) -> tuple[tuple[Fraction, bool], str] | None:
    """Number and canonical unit of `12`, `12 cm`, `$12`, `50%`, `1/2 kg`, `x = 12`; `None` for anything else."""
    text = _NUMBER_WORDS.get(text.casefold(), text)
    text = re.sub(r"^[A-Za-z]\s*=\s*", "", text)
    currency = re.match(r"[+-]?([$€£¥])\s*(?=[\d.])", text)
    if currency:
        text = text.replace(currency.group(1), "", 1).replace(" ", "")
    match = _RATIO_RE.match(text) or _DECIMAL_RE.match(text)
    if match is None:
        return None
    number = plain_number(match.group(0))
    rest = text[match.end() :]
    if number is None or (rest[:1].isalpha() and len(rest) > 1 and rest not in _UNIT_ALIASES and "/" not in rest):
        return None
    unit = _canonical_unit(rest)
    if unit is None:
        return None
    return number, (currency.group(1) if currency else unit)


def _same_quantity(left, right) -> bool:
    """Equal numbers, and equal units where both are given; `%` also matches the hundredth."""
    (left_number, left_unit), (right_number, right_unit) = left, right
    if left_unit and right_unit and left_unit != right_unit:
        return False
    if _same_number(left_number, right_number):
        return True
    if left_unit == right_unit:
        return False
    if left_unit == "%":
        left_number = (left_number[0] / 100, left_number[1])
    elif right_unit == "%":
        right_number = (right_number[0] / 100, right_number[1])
    return _same_number(left_number, right_number)


def choice_letter(text: str) -> str | None:
    """Letter A-J that an answer chooses: `B`, `(B)`, `B.`, `B) text`, `option B`; `None` if it chooses none."""
    text = strip_latex(text)
    alone = _CHOICE_ALONE_RE.fullmatch(text)
    if alone:
        return alone.group(1).upper()
    leading = _CHOICE_LEADING_RE.fullmatch(text)
    if leading:
        return leading.group(1) or leading.group(2)
    named = _CHOICE_NAMED_RE.match(text)
    return named.group(1).upper() if named else None


def _words(text: str) -> list[str] | None:
    """
    Lower-case words of a text without digits, symbols or LaTeX; articles dropped. `None` if it is not plain words.
    """
    if re.search(r"[\d\\^_={}$<>+*/|]", text):
        return None
    words = [word for word in re.findall(r"[^\W\d_]+", text.casefold()) if word not in ("a", "an", "the")]
    return words or None


def _is_word_gold(words: list[str]) -> bool:
    """Whether words are an answer in words rather than letters of algebra (`x`, `ab`, `sin x`)."""
    return " ".join(words) in _YES_NO or (any(len(word) > 2 for word in words) and not _MATH_WORDS.intersection(words))


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
    if given.replace(" ", "") == wanted.replace(" ", ""):
        return Verdict.RIGHT
    wanted_quantity = _quantity(wanted)
    if wanted_quantity is not None:
        return _compare_with_number(answer, given, wanted_quantity)
    verdict = _compare_with_choice(given, wanted)
    if verdict is not None:
        return verdict
    given_words = _words(given)
    if wanted_words and given_words == wanted_words:
        return Verdict.RIGHT
    if wanted_words and _is_word_gold(wanted_words):
        leads = wanted_words[0] in _YES_NO and bool(given_words) and given_words[0] == wanted_words[0]
        return Verdict.RIGHT if leads and not declines(given) else Verdict.WRONG
    return Verdict.ASK


def _compare_with_number(answer: Answer, given: str, wanted) -> Verdict:
    quantity = _quantity(given)
    if quantity is not None:
        return Verdict.RIGHT if _same_quantity(quantity, wanted) else Verdict.WRONG
    if re.fullmatch(r"[A-Za-z ,.;:!?'\"-]*", given) and not _MATH_WORDS.intersection(given.casefold().split()):
        return Verdict.WRONG  # words cannot equal a number
    if not answer.anchored and not re.search(r"[\\^{}=*/]", given):
        loose = _LOOSE_NUMBER_RE.findall(given)  # a sentence: its last number, as math-verify would take it
        last = plain_number(loose[-1]) if loose else None
        return Verdict.RIGHT if last is not None and _same_number(last, wanted[0]) else Verdict.WRONG
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
