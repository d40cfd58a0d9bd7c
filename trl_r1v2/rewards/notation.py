# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
One form for the many ways to write the same short answer: LaTeX, Unicode, full-width and Chinese signs, markdown.

Pure. [`normalised`] keeps what has a meaning (`\text{cm}` stays a word, `x^{2}` a power); [`plain`] goes on to words
without LaTeX. Does not cover reading mathematics (`expressions.py`) or units (`quantities.py`).
"""

import re
import unicodedata


# Replaced before NFKC, which would lose that they are raised, lowered or joined to a number.
_RAISED_RE = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣ]+")
_LOWERED_RE = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙ]+")
_VULGAR_RE = re.compile("(?<=([0-9])) ?[¼½¾⅐-⅞]|[¼½¾⅐-⅞]")
_SIGNS = str.maketrans(
    {"ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}", "。": ".",
     "、": ",", "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-", "′": "'", "’": "'", "‘": "'", "”": '"',
     "“": '"', "º": "°", "˚": "°", "\u200b": "", "\ufeff": "", "\u2061": "", "\u2062": ""}
)  # fmt: skip
_FONT = r"\\(?:text\w*|math(?:rm|bf|it|sf|normal)|mbox|hbox|operatorname\*?|boldsymbol|bm|emph)(?![A-Za-z])\s*"
_INNER = r"\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"
_LOOKS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (rf"\\(?:boxed|fbox)\s*{_INNER}", r"\1"),
        (r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z])\s*\.?", ""),
        (r"\\(?:displaystyle|textstyle|limits|nolimits|rm|bf|it)(?![A-Za-z])", ""),
        (r"(?<!\\)\\!\s*", ""),
        (r"(?<!\\)\\(?:[,;:> ]|q?quad|thinspace(?![A-Za-z]))|~", " "),
        (r"(?<!\\)\\[()\[\]]", " "),
        (r" ?\{ ?, ?\}", ","),
        (r"^\s*(-?0),(?=\d{3,}\s*$)", r"\1."),
        (r"\s*\^\s*\{?\s*(?:\\circ(?![A-Za-z])|\\degree(?![A-Za-z])|°|∘)\s*\}?|\\(?:text)?degree(?![A-Za-z])", "°"),
        (r"\\%|(?<![A-Za-z])(?:percent|pct)(?![A-Za-z])", "%"),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (rf"{_FONT}{_INNER}", r"\\text{\1}"),
    )
)
_LAST_RE = re.compile(r"(?:(?<!\.)\.|[,;:\s]|(?<=[^\W\d_]{3})[!?]|(?<=\b[Nn]o)[!?])+$")


def strip_bold(text: str) -> str:
    """Remove markdown's bold around a text, also half of it; of "**C** is right" nothing, where it marks a part."""
    inner = text.strip().strip("*").strip()
    return text.strip() if "**" in inner else inner


def normalised(text: str) -> str:
    r"""
    A short answer without math delimiters, boxes, sizes, spacing, bold print and the full stop at the end;
    superscripts as `^{2}`, compatible signs such as full-width ones by Unicode's NFKC, every font as `\text{…}`.
    """
    text = _RAISED_RE.sub(lambda match: f"^{{{unicodedata.normalize('NFKC', match[0])}}}", text)
    text = _LOWERED_RE.sub(lambda match: f"_{{{unicodedata.normalize('NFKC', match[0])}}}", text)
    text = _VULGAR_RE.sub(lambda match: " " * bool(match[1]) + unicodedata.normalize("NFKC", match[0].strip()), text)
    text = unicodedata.normalize("NFKC", text.translate(_SIGNS)).translate(_SIGNS).replace("⁄", "/")
    if len(re.findall(r"(?<!\\)\$", text)) % 2 == 0:  # else it is a currency
        text = re.sub(r"(?<!\\)\$", "", text)
    if r"\begin" not in text:  # where `\\` ends a row; elsewhere an escape was escaped
        text = re.sub(r"\\\\(?=[A-Za-z])", r"\\", text)
    for pattern, replacement in _LOOKS:
        text = pattern.sub(replacement, text)
    previous = None
    while previous != text:
        previous, text = text, _LAST_RE.sub("", strip_bold(text).strip('`"'))
    return re.sub(r"\s+", " ", text).strip()


def plain(text: str) -> str:
    r"""A normalised text without `\text{…}`: words and units as they are read."""
    # `20.5\text{K}`: a unit does not stick to its number, as a variable may
    text = re.sub(r"(?<=[\d}])(?=\\text\{)", " ", text)
    previous = None
    while previous != text:
        previous, text = text, re.sub(rf"\\text{_INNER}", r"\1", text)
    return re.sub(r"\s+", " ", text.replace(r"\$", "$").replace(r"\infty", "infinity")).strip()
