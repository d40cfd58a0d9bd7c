# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
Units behind expressions, lists and several answers, read from short texts in the notation of answers and data sets.

Pure. Does not cover numbers themselves (`trl_r1v2.rewards.quantities`), algebra (`trl_r1v2.rewards.verifier`), nor where an
answer stands in a response.
"""

import ast
import re
import warnings
from dataclasses import dataclass
from fractions import Fraction

from ...rewards.answers import MAX_ANSWER_CHARS
from ...rewards.comparison import strip_delimiters, strip_latex
from ...rewards.quantities import NAME_RE, NO_UNIT, Quantity, Unit, leading_number, read_quantity, read_unit


# Words behind mathematics: `9\\pi\\,\\mathrm{cm}^2`, `\\text{m}/\\text{s}`.
_WRAPPER = r"\\(?:text|textrm|mathrm|mbox|operatorname)\s*\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}"
_ENDING_WORDS_RE = re.compile(
    rf"(?P<before>.*?\S)\s*(?P<words>(?:{_WRAPPER})(?:{_WRAPPER}|[\s^{{}}()\d²³/~.$-]|\\[,;: ]|\\cdot)*)"
)
_GLUED_RE = re.compile(rf"(?<=[A-Za-z\d])(?={_WRAPPER})")
_UNIT_START_RE = re.compile(r"(?<![A-Za-z\\^_{(])[A-Za-z°]")
_CONSTANTS_RE = re.compile(r"\\(?:pi|sqrt|frac|cdot|times|pm|ln|log)(?![A-Za-z])|\b(?:pi|sqrt)\b")
_MORE_RE = re.compile(r"\s*(?:[A-Za-zμΩÅ°]|\\(?:mu|Omega|AA)(?![A-Za-z]))")
_AND_RE = re.compile(r"\s*(?:\band\b|\bor\b|和|或)\s*")


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


def read_number(text: str) -> Quantity | None:
    r"""
    Read `12`, `-1/2`, `\frac{1}{2}`, `3.0 \times 10^{8} m/s`, `$1.45`, `x = 5 cm`, `50\%`.

    Args:
        text (`str`):
            An answer.

    Returns:
        [`~trl_r1v2.rewards.quantities.Quantity`] or `None`: `None` where the text is no single number with at most a unit.
    """
    return read_quantity(bare(text)) if len(text) <= MAX_ANSWER_CHARS else None


def begins_as(text: str) -> Quantity | None:
    """The number at the start of an answer behind which a word stands, a unit or not: `7 zorkmid`, `5.8 billion`."""
    found = leading_number(NAME_RE.sub("", bare(text)).removeprefix("$")) if len(text) <= MAX_ANSWER_CHARS else None
    return found[0] if found is not None and _MORE_RE.match(found[1]) else None


def counted_answer(text: str, unit: Unit = NO_UNIT, decimals: int | None = None) -> str:
    """
    An answer in the form in which equal ones are counted: numbers by value, else the text without its looks.

    Args:
        text (`str`):
            An answer.
        unit ([`~trl_r1v2.rewards.quantities.Unit`], *optional*):
            Unit of the right answer. One that agrees with it is left out.
        decimals (`int`, *optional*):
            Decimals to which numbers are compared.

    Returns:
        `str`
    """
    number = read_number(text)
    if number is None:
        return bare(text).replace(" ", "").casefold()
    value = number.value / 100 if number.unit.name == "%" and not unit.name else number.value
    value = value if decimals is None else round(value, decimals)
    return str(value) if number.unit.agrees(unit) else f"{value} {number.unit.name}"


def name_of(text: str) -> str | None:
    """The variable that an answer gives a value to, as `x` in `x = 5`; `None` where it names none."""
    match = NAME_RE.match(text)
    return match.group(1).replace("{", "").replace("}", "") if match else None


def strip_declared(text: str, unit: str) -> str:
    r"""
    Remove from an answer the unit that its row declares, whether or not it is a known one.

    Args:
        text (`str`):
            An answer without LaTeX looks.
        unit (`str`):
            Unit as the data set writes it; may be empty.

    Returns:
        `str`: What stands before the unit; the answer as it is where that unit does not end it.
    """
    symbols = re.sub(r"[\s{}]", "", bare(unit))
    match = re.search(r"[\s{}]*".join(map(re.escape, symbols)) + r"[\s{}]*$", text) if symbols else None
    if match is None or match.group(0).count("{") != match.group(0).count("}"):
        return text
    before = text[: match.start()]
    # the m of `km`, of `J/m` and of `10^m` is not the unit
    is_whole = re.search(r"[\d\s)}.]$|\\[a-z]+$", before) or (
        before and not symbols[0].isalpha() and symbols[0] != "\\"
    )
    return before.strip() or text if is_whole else text


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
    if marked is not None and read_unit(marked.unit) is not None:
        return marked
    clean = NAME_RE.sub("", bare(text))
    for start in _UNIT_START_RE.finditer(clean):
        expression, unit = clean[: start.start()].rstrip(), clean[start.start() :]
        without_constants = _CONSTANTS_RE.sub("", expression)
        if re.search(r"[A-Za-z\\]", without_constants):
            return None
        if re.search(r"\d|\\pi|pi", expression) and read_unit(unit) is not None:
            return Measured(expression, unit)
    return None


def parse_list(text: str) -> list[Fraction | str] | None:
    """Entries of `[2007, 2008]`, `2007, 2008` or `2007 and 2008`, numbers as such; `None` where there are none."""
    clean = strip_latex(text.replace("\\{", "[").replace("\\}", "]"))
    try:
        with warnings.catch_warnings():
            # Python remarks on `1/or`, which is no list anyway
            warnings.simplefilter("ignore", SyntaxWarning)
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
