# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
Numbers with units, lists and several answers, read from short texts in the notation of answers and data sets.

Pure. Does not cover algebra (`trl_r1v2.rewards.verifier`), conversion of units, nor where an answer stands in a response.
"""

import ast
import re
from dataclasses import dataclass
from fractions import Fraction

from ...rewards.answers import MAX_ANSWER_CHARS, Answer
from ...rewards.comparison import Verdict, compare, plain_number, strip_delimiters, strip_latex


_CURRENCIES = "$€£¥"
_MAX_EXPONENT = 300
_NAME_RE = re.compile(r"^(?:[A-Za-z](?:_\{?\w+\}?)?)\s*(?:=|\\approx|≈)\s*")
_MANTISSA_RE = re.compile(
    r"[+-]?(?:\\frac\{[+-]?\d{1,50}\}\{\d{1,50}\}|\d{1,50}\s*/\s*\d{1,50}"
    r"|(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][+-]?\d{1,2})?)"
)
_POWER_RE = re.compile(r"\s*(?:\\times|\\cdot|×|\*)\s*10\s*\^\s*\{?\s*([+-]?\d{1,3})\s*\}?")
# Words behind mathematics: `9\\pi\\,\\mathrm{cm}^2`, `\\text{m}/\\text{s}`.
_WRAPPER = r"\\(?:text|textrm|mathrm|mbox|operatorname)\s*\{[^{}]*\}"
_ENDING_WORDS_RE = re.compile(
    rf"(?P<before>.*?\S)\s*(?P<words>(?:{_WRAPPER})(?:{_WRAPPER}|[\s^{{}}()\d²³/~.$-]|\\[,;: ]|\\cdot)*)"
)
_GLUED_RE = re.compile(rf"(?<=[A-Za-z])(?={_WRAPPER})")
_UNIT_START_RE = re.compile(r"(?<![A-Za-z\\^_{(])[A-Za-z°]")
_CONSTANTS_RE = re.compile(r"\\(?:pi|sqrt|frac|cdot|times|pm|ln|log)(?![A-Za-z])|\b(?:pi|sqrt)\b")
_AND_RE = re.compile(r"\s*(?:\band\b|\bor\b|和|或)\s*")


@dataclass(frozen=True)
class Number:
    """
    A number as it was written.

    Args:
        value (`Fraction`):
            Exact value, without its unit.
        unit (`str`):
            What follows it or, for a currency, leads it; may be empty.
    """

    value: Fraction
    unit: str


@dataclass(frozen=True)
class Measured:
    """
    An expression and the unit behind it.

    Args:
        expression (`str`):
            What stands before the unit.
        unit (`str`):
            Unit as it was written, without LaTeX.
    """

    expression: str
    unit: str


def bare(text: str) -> str:
    """An answer without its looks: what [`~trl_r1v2.rewards.comparison.strip_latex`] removes, also where a full stop stands behind the delimiters."""
    # the name of a command must not run into what stands in a wrapper
    text = _GLUED_RE.sub(" ", text)
    previous = None
    while previous != text:
        previous, text = text, strip_latex(text)
    return text


def read_number(text: str) -> Number | None:
    r"""
    Read `12`, `-1/2`, `\frac{1}{2}`, `3.0 \times 10^{8} m/s`, `$1.45`, `x = 5 cm`, `50\%`.

    Args:
        text (`str`):
            An answer.

    Returns:
        [`Number`] or `None`: `None` where the text is no single number with at most a unit.
    """
    if len(text) > MAX_ANSWER_CHARS:
        return None
    currency = ""
    text = text.strip()
    leading = re.match(r"(-?)\\?([$€£¥])\s*(?=[\d.])", text)
    # an even number of dollars delimits mathematics
    if leading and text.count("$") % 2 == (leading.group(2) == "$"):
        currency = leading.group(2)
        text = leading.group(1) + text[leading.end() :]
    clean = _NAME_RE.sub("", bare(text))
    mantissa = _MANTISSA_RE.match(clean)
    number = plain_number(mantissa.group(0)) if mantissa else None
    if mantissa is None or number is None:
        return None
    value, end = number[0], mantissa.end()
    power = _POWER_RE.match(clean, end)
    if power:
        exponent = int(power.group(1))
        if abs(exponent) > _MAX_EXPONENT:
            return None
        value, end = value * Fraction(10) ** exponent, power.end()
    unit = currency or clean[end:].strip()
    if unit and not _is_unit(unit):
        return None
    return Number(value, unit)


def _is_unit(text: str) -> bool:
    """Whether a text can stand behind a number as its unit: `12 cm` equals `12`, `12 + x` does not."""
    return text in _CURRENCIES or compare(Answer(f"1 {text}", anchored=True), "1") is Verdict.RIGHT or text == "%"


def same_unit(given: str, wanted: str) -> bool:
    """
    Whether two units agree; a missing one agrees with every other.

    Args:
        given (`str`):
            Unit of the answer.
        wanted (`str`):
            Unit of the right answer.

    Returns:
        `bool`
    """
    wanted = strip_latex(wanted) if wanted not in _CURRENCIES else wanted
    if not given or not wanted or given == wanted:
        return True
    return compare(Answer(_one(given), anchored=True), _one(wanted)) is Verdict.RIGHT


def _one(unit: str) -> str:
    return f"{unit}1" if unit in _CURRENCIES else f"1 {unit}"


def ends_in_words(text: str) -> bool:
    r"""Whether an answer ends in a `\text{}` or `\mathrm{}` behind its mathematics: a unit, known or not, or a remark."""
    return _marked_words(text) is not None


def _marked_words(text: str) -> Measured | None:
    match = _ENDING_WORDS_RE.fullmatch(strip_delimiters(text.strip()))
    if match is None or match["before"].count("{") != match["before"].count("}"):
        return None
    before = re.sub(r"(?:\\(?:[,;:! ]|$)|~|\\q?quad|\s)+$", "", match["before"])
    return Measured(bare(before), bare(match["words"])) if before else None


def split_unit(text: str) -> Measured | None:
    r"""
    Split `9\pi\text{ cm}^2` or `\sqrt{2} m/s` into expression and unit.

    Letters behind an expression are a unit if they are set upright (`\text{}`, `\mathrm{}`) or if the expression holds no
    variable: `2am` stays whole, `2\pi m` does not.

    Args:
        text (`str`):
            An answer, with its LaTeX.

    Returns:
        [`Measured`] or `None`: `None` where no known unit stands behind an expression.
    """
    if len(text) > MAX_ANSWER_CHARS:
        return None
    marked = _marked_words(text)
    if marked is not None and _is_unit(marked.unit):
        return marked
    clean = _NAME_RE.sub("", bare(text))
    for start in _UNIT_START_RE.finditer(clean):
        expression, unit = clean[: start.start()].rstrip(), clean[start.start() :]
        without_constants = _CONSTANTS_RE.sub("", expression)
        if re.search(r"[A-Za-z\\]", without_constants):
            return None
        if re.search(r"\d|\\pi|pi", expression) and _is_unit(unit):
            return Measured(expression, unit)
    return None


def parse_list(text: str) -> list[Fraction | str] | None:
    """Entries of `[2007, 2008]`, `2007, 2008` or `2007 and 2008`, numbers as such; `None` where there are none."""
    clean = strip_latex(text.replace("\\{", "[").replace("\\}", "]"))
    try:
        value = ast.literal_eval(clean)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = None
    if isinstance(value, list | tuple):
        entries = [str(entry) for entry in value]
    else:
        entries = pieces(clean.strip("[]()"))
    if not entries:
        return None
    numbers = [read_number(entry) for entry in entries]
    return [
        entry.strip(" '\"").casefold() if number is None else number.value
        for entry, number in zip(entries, numbers, strict=True)
    ]


def pieces(text: str) -> list[str]:
    r"""
    Split several answers: at commas and semicolons outside of brackets, at "and" and "or"; `\pm a` gives `a` and `-a`.

    Args:
        text (`str`):
            Answers joined as a data set or a response joins them.

    Returns:
        `list[str]`: The answers, without math delimiters.
    """
    text = strip_latex(text.replace("$", "")).replace("，", ",").replace("；", ";").replace("、", ",")
    text = re.sub(r"\\q?quad", " ", text)
    parts, depth, current = [], 0, ""
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        if char in ",;" and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += char
    parts.append(current)
    split = [piece.strip() for part in parts for piece in _AND_RE.split(part)]
    expanded: list[str] = []
    for piece in filter(None, split):
        if r"\pm" in piece or "±" in piece:
            for sign in "+-":
                signed = re.sub(r"\\pm\s*|±\s*", sign, piece).strip()
                expanded.append(signed.removeprefix("+"))
        else:
            expanded.append(piece)
    return expanded
