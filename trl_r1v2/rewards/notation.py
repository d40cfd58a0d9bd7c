# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
One form for the many ways to write a short answer: LaTeX, Unicode, full-width and Chinese signs, markdown.

[`normalised`] keeps what has a meaning (`\text{cm}` stays a word, `x^{2}` a power), [`plain`] goes on to words
without LaTeX, and [`tokens_of`] cuts mathematics, all of it or raising [`Unreadable`]: `\cdot`, `·` and `*` are one.
Pure, linear in the length of the text. Does not cover what the tokens mean together (`expressions.py`), nor units
(`quantities.py`).
"""

import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple


Node = tuple
_INNER = r"(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*"
# More signs are no answer; longer numbers no reader counts. Ours.
MAX_TOKENS = 250
MAX_DIGITS = 400
# Replaced before NFKC, which would lose that they are raised, lowered or joined to a number.
_RAISED_RE = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣ]+")
_LOWERED_RE = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙ]+")
_VULGAR_RE = re.compile("(?<=([0-9])) ?[¼½¾⅐-⅞]|[¼½¾⅐-⅞]")
_SAME_SIGNS = str.maketrans(
    {"ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}", "。": ".",
     "、": ",", "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-", "′": "'", "’": "'", "‘": "'", "”": '"',
     "“": '"', "º": "°", "˚": "°", "\u200b": "", "\ufeff": "", "\u2061": "", "\u2062": ""}
)  # fmt: skip
_FONT = r"\\(?:text\w*|math(?:rm|bf|it|sf|normal)|mbox|hbox|operatorname\*?|boldsymbol|bm|emph)(?![A-Za-z])\s*"
_LOOKS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (rf"\\(?:boxed|fbox)\s*\{{({_INNER})\}}", r"\1"),
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
        (rf"{_FONT}\{{({_INNER})\}}", r"\\text{\1}"),
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
    text = unicodedata.normalize("NFKC", text.translate(_SAME_SIGNS)).translate(_SAME_SIGNS).replace("⁄", "/")
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
        previous, text = text, re.sub(rf"\\text\{{({_INNER})\}}", r"\1", text)
    return re.sub(r"\s+", " ", text.replace(r"\$", "$").replace(r"\infty", "infinity")).strip()


# ---- Tokens ----


class Unreadable(ValueError):
    """A text that is not mathematics, or that the grammar does not read to its end."""


class Token(NamedTuple):
    """What kind of sign it is, what it says, and whether white space stands before it."""

    kind: str
    value: Node | str = ""
    spaced: bool = False


# Every way to write a sign, by its kind.
_SIGNS = {
    way: kind
    for kind, ways in {
        "+": "+", "-": "-", "*": r"* · ⋅ ∙ × \cdot \times \ast", "/": r"/ ÷ ∕ \div", "^": "^ **", "!": "!", "%": "%",
        "°": "°", "'": r"' \prime", "±": r"± \pm +/-", "∓": r"∓ \mp", "√": r"√ \sqrt sqrt", "∛": "∛ cbrt",
        "∞": r"∞ \infty infinity inf oo", "(": r"( \lgroup", ")": r") \rgroup", "[": r"[ \lbrack", "]": r"] \rbrack",
        "{": "{", "}": "}", r"\{": r"\{ \lbrace", r"\}": r"\} \rbrace", "⟨": r"⟨ \langle", "⟩": r"⟩ \rangle",
        "⌊": r"⌊ \lfloor", "⌋": r"⌋ \rfloor", "⌈": r"⌈ \lceil", "⌉": r"⌉ \rceil",
        "|": r"| ∣ \mid \vert \lvert \rvert", ":": r": \colon", ",": ",", ";": ";", "<": r"< \lt", ">": r"> \gt",
        "<=": r"<= =< ≤ ⩽ \le \leq \leqslant", ">=": r">= ≥ ⩾ \ge \geq \geqslant", "!=": r"!= ≠ \ne \neq",
        "=": "= == :=", "~": r"≈ \approx ≃ \simeq", "in": r"∈ \in", "∪": r"∪ \cup", "∩": r"∩ \cap",
        "∖": r"∖ \setminus \backslash", "∅": r"∅ \emptyset \varnothing", "and": r"and ∧ \land \wedge 和 及 与 且",
        "or": r"or ∨ \lor \vee 或 或者", "…": r"… ... \ldots \dots \cdots \dotsc \dotsb", "frac": r"\frac",
        "binom": r"\binom \dbinom \tbinom",
    }.items()
    for way in ways.split()
}  # fmt: skip
# α is alpha, Γ is Gamma: the last word of the letter's name, which only LaTeX writes "lambda".
_GREEK = {
    letter: name.title() if letter.isupper() else name
    for letter in "αβγδεζηθικλμνξοπρσςτυφχψωΓΔΘΛΞΠΣΥΦΨΩ"
    for name in [unicodedata.name(letter).split()[-1].lower().replace("lamda", "lambda")]
} | {"∠": "angle", "△": "triangle", "∂": "partial"}
_SAME_NAMES = {
    "varepsilon": "epsilon", "varphi": "phi", "vartheta": "theta", "varrho": "rho",
    "imath": "i", "jmath": "j",
}  # fmt: skip
_NAMES = {*_GREEK.values(), *_SAME_NAMES, "hbar", "ell"}
_CIRCULAR, _HYPERBOLIC = ("sin", "cos", "tan", "cot", "sec", "csc"), ("sinh", "cosh", "tanh")
# Functions by the names of mpmath, and every way to write them.
_FUNCTION_NAMES = {
    **{name: name for name in (*_CIRCULAR, *_HYPERBOLIC, *"coth ln log lg exp max min gcd lcm".split())},
    **{f"{arc}{name}": f"a{name}" for name in (*_CIRCULAR, *_HYPERBOLIC) for arc in ("a", "arc")},
    **{f"ar{name}": f"a{name}" for name in _HYPERBOLIC},
    "tg": "tan", "ctg": "cot", "arctg": "atan", "cosec": "csc",
}  # fmt: skip
FUNCTIONS = frozenset(_FUNCTION_NAMES)
_CONSTANTS = ("pi", "e", "i")
OPENING, ENDING = frozenset(("(", "[", "{", r"\{", "⟨")), frozenset((")", "]", "}", r"\}", "⟩"))

_WRITTEN = sorted((way for way in _SIGNS if not re.search("[A-Za-z]", way)), key=len, reverse=True)
_TOKEN_RE = re.compile(
    "|".join(
        (
            r"(?P<blank>\s+)",
            # 0.1\overline{6}, 0.\dot{3}, 0.(3)
            r"(?P<repeating>(?P<whole>\d*)\.(?P<first>\d*)"
            r"(?:\\(?:overline|bar|dot)\s*(?:\{(?P<a>\d+)\}|(?P<b>\d))|\((?P<c>\d+)\)))",
            r"(?P<going_on>\d*\.\d+(?:\.\.\.|\\[lc]?dots(?![A-Za-z])))",
            r"(?P<number>(?:\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?"
            r"|\d{1,3}(?: \d{3})+(?! ?\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
            r"(?:[eE][+-]?\d{1,3}(?!\d))?)",
            rf"(?P<text>\\text\{{(?P<inside>{_INNER})\}})",
            r"(?P<accent>\\(?P<mark>vec|hat|bar|overline|tilde|dot|overrightarrow|widehat|mathbb|mathcal)\s*"
            rf"(?P<under>\{{{_INNER}\}}|\\?[A-Za-z]+))",
            r"(?P<matrix>\\begin\{(?:[pbBvV]?matrix|array)\}(?:\{[lcr|]*\})?(?P<rows>.*?)\\end\{\w+\})",
            r"(?P<command>\\[A-Za-z]+)",
            rf"(?P<sign>{'|'.join(map(re.escape, _WRITTEN))})",
            r"(?P<letters>[A-Za-z]+)",
            rf"(?P<greek>[{''.join(_GREEK)}])",
        )
    ),
    re.DOTALL,
)
_SUBSCRIPT_RE = re.compile(rf"\s*_\s*(\{{{_INNER}\}}|\\[A-Za-z]+|\d+|[A-Za-z])")
_BLOCK_RE = re.compile(r"(\d*)\.(\d*?)(?:(\d)\3\3+|(\d{2,})\4+)$")


def tokens_of(text: str) -> list[Token]:
    """All of a normalised text as tokens. Raises [`Unreadable`] at the first piece that is none."""
    tokens: list[Token] = []
    at, spaced, depth = 0, False, 0
    while at < len(text):
        match = _TOKEN_RE.match(text, at)
        if match is None:
            raise Unreadable(f"{text[at : at + 12]!r} is not understood")
        at = match.end()
        if match.lastgroup == "blank":
            spaced = True
            continue
        if depth and match.lastgroup == "number" and "," in match[0]:  # `{100,200}` is no number, `1,234` is
            at = match.start() + match[0].index(",")
            found = [_number(match[0].partition(",")[0])]
        else:
            found = _tokens(match)
        depth += (found[0].kind in ("(", "[", r"\{")) - (found[0].kind in (")", "]", r"\}"))
        below = _SUBSCRIPT_RE.match(text, at)
        if below:
            found[-1:] = _with_subscript(found[-1], below[1], match[0])
            at = below.end()
        tokens += [found[0]._replace(spaced=spaced), *found[1:]]
        spaced = False
        if len(tokens) > MAX_TOKENS:
            raise Unreadable("too long")
    return tokens


def _tokens(match: re.Match) -> list[Token]:
    written = match[0]
    match match.lastgroup:
        case "number":
            return [_number(written)]
        case "repeating":
            return [_repeating(match["whole"], match["first"], match["a"] or match["b"] or match["c"])]
        case "going_on":
            block = _BLOCK_RE.match(re.match(r"\d*\.\d+", written)[0])
            if block is None:
                raise Unreadable(f"{written!r} goes on in a way that nobody knows")
            return [_repeating(block[1], block[2], block[3] or block[4])]
        case "text":
            word = match["inside"].strip()
            if not word:
                raise Unreadable("an empty text")
            return [_known(word) or (_name(word) if len(word) == 1 else Token("atom", ("sym", f"text {word}")))]
        case "accent":
            return [Token("atom", ("sym", f"{match['mark']} {_flat(match['under'])}"))]
        case "matrix":
            return [Token("matrix", match["rows"])]
        case "command" | "sign":
            token = _known(written)
            if token is None:
                raise Unreadable(f"{written} is not understood")
            return [token]
        case "greek":
            return [_name(_GREEK[written])]
    return _letters(written)


def _flat(text: str) -> str:
    r"""What a subscript or an accented name says: `{\max}`, `\text{max}` and `{max}` are one."""
    return re.sub(r"\\text|[\\{}\s]", "", text)


def _name(name: str) -> Token:
    name = _SAME_NAMES.get(name, name)
    return Token("atom", ("const", name) if name in _CONSTANTS else ("sym", name))


def _known(written: str) -> Token | None:
    r"""A sign, a function or a name, however it is written: `\cdot`, `\sin`, `sin`, `alpha`."""
    name = written.removeprefix("\\")
    if written in _SIGNS:
        return Token(_SIGNS[written])
    if name in _FUNCTION_NAMES:
        return Token("call", _FUNCTION_NAMES[name])
    return _name(name) if name in _NAMES else None


def _letters(letters: str) -> list[Token]:
    """A run of letters in plain text: something known, `sinx`, or a product of variables."""
    if token := _known(letters):
        return [token]
    for known in ("sqrt", "pi", "sin", "cos", "tan", "ln", "log"):  # `sqrtx`, `pir`
        if letters.startswith(known) and len(letters) == len(known) + 1:
            return [*_letters(known), _name(letters[-1])]
    return [_name(letter) for letter in letters]


def _with_subscript(token: Token, below: str, written: str) -> list[Token]:
    name = token.value[1] if token.kind == "atom" and token.value[0] in ("sym", "const") else None
    if name is not None:
        return [token._replace(value=("sym", f"{name}_{_flat(below)}"))]
    if token.kind == "call" and token.value == "log":
        return [token, Token("base"), Token("{"), *tokens_of(below.removeprefix("{").removesuffix("}")), Token("}")]
    base = _flat(below).strip("()")
    if token.kind == "atom" and token.value[0] == "num" and written.isdigit() and base.isdigit():
        return [token._replace(value=("based", written, int(base)))]
    raise Unreadable(f"a subscript below {written!r} is not understood")


def _number(written: str) -> Token:
    digits = re.sub("[ ,]", "", written)
    if len(digits) > MAX_DIGITS:
        raise Unreadable("a number of too many digits")
    return Token("atom", ("num", Fraction(digits), "." in digits))


def _repeating(whole: str, first: str, block: str) -> Token:
    value = Fraction(int(whole or 0)) + Fraction(int(first or 0), 10 ** len(first))
    return Token("atom", ("num", value + Fraction(int(block), (10 ** len(block) - 1) * 10 ** len(first)), False))
