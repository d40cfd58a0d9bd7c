# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
Numbers with units, read from answers whose LaTeX looks are removed: `12`, `1/2 kg`, `$1.5 million`, `3\times10^8 m/s`.

Pure. Does not cover conversion (`1 m` is not `100 cm` here), algebra, nor where an answer stands in a response.
"""

import re
from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction


NUMBER_WORDS = {
    word: str(value)
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty".split()
    )
}
MATH_WORDS = frozenset(
    "pi sqrt sin cos tan cot sec csc arcsin arccos arctan log ln exp mod inf infinity max min".split()
)
_SCALES = {"dozen": 12, "hundred": 100} | {
    word: 1000**power for power, word in enumerate(("thousand", "million", "billion", "trillion"), start=1)
}
_NOT_UNITS = (
    MATH_WORDS
    | frozenset("and or to plus minus times over not squared cubed factorial half halves more less".split())
    | frozenset("third fourth fifth sixth seventh eighth ninth tenth quarter hundredth thousandth millionth".split())
    | frozenset("thirds fourths fifths sixths sevenths eighths ninths tenths quarters hundredths thousandths".split())
    | frozenset(_SCALES)
)
_MAX_EXPONENT = 300

_SPEEDS = {"mph": "mi/h", "kph": "km/h", "kmh": "km/h", "kmph": "km/h"}
_PREFIXES = {"n": "nano", "μ": "micro", "m": "milli", "c": "centi", "k": "kilo", "M": "mega", "G": "giga"}
# Symbol, and the singulars that take a prefix.
_BASES = {
    "m": "meter metre", "g": "gram", "s": "second", "L": "liter litre", "N": "newton", "J": "joule", "W": "watt", "V": "volt",
    "A": "amp ampere", "Hz": "hertz", "Pa": "pascal", "C": "coulomb", "F": "farad", "T": "tesla", "Wb": "weber", "Ω": "ohm",
    "eV": "electronvolt", "mol": "mole", "H": "henry",
}  # fmt: skip
_ALIASES = {
    f"{prefix}{written}{ending}": f"{prefix_symbol}{symbol}"
    for symbol, names in _BASES.items()
    for prefix_symbol, prefix_name in (_PREFIXES | {"": ""}).items()
    for prefix, forms, endings in ((prefix_symbol, [symbol], ("",)), (prefix_name, names.split(), ("", "s")))
    for written in forms
    for ending in endings
} | {
    alias: unit
    for unit, aliases in {
        "in": "in inch inches",
        "ft": "ft foot feet",
        "mi": "mi mile miles",
        "lb": "lb lbs pound pounds",
        "s": "sec secs",
        "min": "min mins minute minutes",
        "h": "h hr hrs hour hours",
        "L": "l",
        "mL": "ml",
        "°": "° degree degrees deg",
        "°C": "°C celsius Celsius",
        "°F": "°F fahrenheit Fahrenheit",
        "K": "K kelvin kelvins",
        "%": "% percent pct percentage",
        "$": "$ dollar dollars usd",
        "€": "€ euro euros",
        "£": "£",
        "¥": "¥",
        "A": "amps",
        "rad": "rad radian radians",
        "dB": "dB decibel decibels",
        "Å": "Å angstrom angstroms",
    }.items()
    for alias in aliases.split()
}  # fmt: skip
# Symbols that are taken for a unit also where the other side has none: `12 m` equals `12`, `12 T` or `12 kT` may be algebra.
_CLEAR_SYMBOLS = frozenset("m cm mm km in ft mi g kg mg lb s h hr L l mL ml N J W V A Hz Pa μm Ω Å".split())

_DECIMAL = r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][+-]?\d{1,2})?"
_DECIMAL_RE = re.compile(rf"(?=[+-]?\.?\d){_DECIMAL}")
_RATIO_RE = re.compile(r"([+-]?)\\frac\{([+-]?\d{1,50})\}\{(\d{1,50})\}|([+-]?\d{1,50})\s*/\s*(\d{1,50})")
LOOSE_NUMBER_RE = re.compile(rf"(?<![\w.])(?=[+-]?\.?\d){_DECIMAL}")
_POWER_RE = re.compile(r"\s*(?:\\times|\\cdot|×|\*)\s*10\s*(?:\^\s*\{?|\*\*)\s*([+-]?\d{1,3})\s*\}?")
_SCALE_RE = re.compile(rf"\s*({'|'.join(_SCALES)})s?(?![A-Za-z])")
# The variable that an answer gives a value to, as `x` in `x = 5`.
NAME_RE = re.compile(r"^\s*(\\?[A-Za-z]+|[A-Za-z]_\{?\w+\}?)\s*(?:=|\\approx(?![A-Za-z])|≈)\s*")
_CURRENCY_RE = re.compile(r"([+-]?)([$€£¥])\s*(?=[\d.])")
_FACTOR_RE = re.compile(r"([A-Za-zμΩÅ°%$€£¥]+)(?:\^?([1-9])|\^(-[1-9]))?")
_POWER_ALONE_RE = re.compile(r"([+-]?)10\s*\^\s*(?:\{\s*([+-]?\d{1,3})\s*\}|(\d)(?!\d))")
_MIXED_RE = re.compile(r"([+-]?)(\d{1,50})\s+(\d{1,50})/(\d{1,50})(?!\d)")
_DOT_RE = re.compile(r"·|⋅|\*|\\cdot(?![A-Za-z])")
_SYMBOLS = {"²": "2", "³": "3", "µ": "μ", r"\mu": "μ", r"\Omega": "Ω", r"\AA": "Å", r"\cdot": "·", "⋅": "·", "*": "·", "\u2212": "-"}  # fmt: skip


@dataclass(frozen=True)
class Unit:
    """
    A unit of measure.

    Args:
        name (`str`, *optional*, defaults to `""`):
            Canonical spelling; empty for none.
        is_clear (`bool`, *optional*, defaults to `True`):
            Whether its spelling can hardly be anything but a unit, so that it may be missing on the other side.
    """

    name: str = ""
    is_clear: bool = True

    def agrees(self, other: "Unit") -> bool:
        """Whether two units are the same, or one is missing and the other is clear."""
        if self.name and other.name:
            return self.name == other.name
        return self.is_clear and other.is_clear


NO_UNIT = Unit()


@dataclass(frozen=True)
class Quantity:
    """
    A number as it was written.

    Args:
        value (`Fraction`):
            Exact value, without its unit.
        is_ratio (`bool`):
            Whether it was written as a fraction of integers.
        unit ([`Unit`], *optional*):
            What follows it or, for a currency, leads it.
    """

    value: Fraction
    is_ratio: bool
    unit: Unit = NO_UNIT


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


def same_number(left: Quantity, right: Quantity) -> bool:
    """
    Exact, except that a decimal may stand for a fraction of integers when they agree to six decimals (math-verify's
    rounding) and, as small numbers are all alike by that, to one part in a thousand (ours).
    """
    if left.value == right.value:
        return True
    allowed = min(Fraction(1, 2_000_000), max(abs(left.value), abs(right.value)) / 1000)
    return left.is_ratio != right.is_ratio and abs(left.value - right.value) <= allowed


def read_unit(text: str) -> Unit | None:
    r"""
    Read `cm`, `meters per second`, `kg \cdot m/s^{2}`, `J/(kg K)`, `apples`.

    Args:
        text (`str`):
            What stands behind a number, without LaTeX wrappers.

    Returns:
        [`Unit`] or `None`: `None` where the text is not a unit.
    """
    for written, symbol in _SYMBOLS.items():
        text = text.replace(written, symbol)
    text = re.sub(r"\bdegrees? (celsius|fahrenheit)\b", r"\1", text, flags=re.IGNORECASE)
    text = _SPEEDS.get(text.strip(), text)
    text = re.sub(r"\s*\^\s*", "^", re.sub(r"[{}]", "", text)).strip()
    text = re.sub(r"μ\s+(?=[A-Za-zΩ])", "μ", re.sub(r"°\s+(?=[CF]\b)", "°", text))
    words = text
    text = re.sub(r"\bsquare\s+([^\s/]+)", r"\g<1>2", re.sub(r"\bcubic\s+([^\s/]+)", r"\g<1>3", text))
    if not text:
        return NO_UNIT
    powers: Counter[str] = Counter()
    is_clear, num_factors = True, 0
    for index, side in enumerate(re.split(r"\s*/\s*|\s+per\s+", text.removeprefix("1/"))):
        under = bool(index) or text.startswith("1/")
        factors = re.split(r"[\s·]+", side.strip("() "))
        matches = [_FACTOR_RE.fullmatch(factor) for factor in factors]
        # of `J/kg K` nobody knows where the K stands
        unsplit = under and len(factors) > 1 and not (side.startswith("(") and side.endswith(")"))
        if unsplit or any(match is None or match.group(1) not in _ALIASES for match in matches):
            return _words_as_unit(words)
        for written, power, negative in (match.groups() for match in matches):
            powers[_ALIASES[written]] += int(power or negative or 1) * (-1 if under else 1)
            is_clear &= written in _CLEAR_SYMBOLS or (len(written) > 2 and written.islower()) or not written.isalpha()
        num_factors = max(num_factors, len(factors))
    above = sorted(name + (str(power) if power > 1 else "") for name, power in powers.items() if power > 0)
    below = sorted(f"/{name}{-power if power < -1 else ''}" for name, power in powers.items() if power < 0)
    # `2 m s` may be a product of variables
    return Unit("·".join(above) + "".join(below), is_clear and num_factors == 1)


def _words_as_unit(text: str) -> Unit | None:
    words = text.casefold().split()
    if len(words) <= 3 and all(re.fullmatch(r"[a-z]{3,}", word) and word not in _NOT_UNITS for word in words):
        return Unit(" ".join(word[:-1] if word.endswith("s") else word for word in words))
    return None


def leading_number(text: str) -> tuple[Quantity, str] | None:
    r"""
    The number at the start of a text, with its power of ten, and what stands behind it.

    Args:
        text (`str`):
            A text without LaTeX looks.

    Returns:
        `tuple[Quantity, str]` or `None`: `None` where the text does not begin with a number.
    """
    mixed, alone = _MIXED_RE.match(text), _POWER_ALONE_RE.match(text)
    if mixed and 0 < int(mixed.group(3)) < int(mixed.group(4)):
        value = int(mixed.group(2)) + Fraction(int(mixed.group(3)), int(mixed.group(4)))
        return Quantity(-value if mixed.group(1) == "-" else value, True), text[mixed.end() :]
    if alone:
        text = f"{alone.group(1)}1\\cdot {text[alone.start() :].lstrip('+-')}"
    match = _RATIO_RE.match(text) or _DECIMAL_RE.match(text)
    number = plain_number(match.group(0)) if match else None
    if match is None or number is None:
        return None
    value, end = number[0], match.end()
    power = _POWER_RE.match(text, end)
    if power:
        exponent = int(power.group(1))
        if abs(exponent) > _MAX_EXPONENT:
            return None
        value, end = value * Fraction(10) ** exponent, power.end()
    return Quantity(value, number[1]), text[end:]


def read_quantity(text: str) -> Quantity | None:
    r"""
    Read `12`, `12 cm`, `-1/2`, `\frac{1}{2} kg`, `3.0 \times 10^{8} m/s`, `$1.5 million`, `50%`, `x = 12`, `seven`.

    Args:
        text (`str`):
            An answer without LaTeX looks.

    Returns:
        [`Quantity`] or `None`: `None` where the text is no single number with at most a unit.
    """
    text = NAME_RE.sub("", NUMBER_WORDS.get(text.casefold(), text))
    currency = _CURRENCY_RE.match(text)
    if currency:
        text = currency.group(1) + text[currency.end() :]
    found = leading_number(text)
    if found is None:
        return None
    number, rest = found
    scale = _SCALE_RE.match(rest)
    if scale:
        number, rest = replace(number, value=number.value * _SCALES[scale.group(1)]), rest[scale.end() :]
    unit = read_unit(rest)
    if (
        unit is not None
        and rest.startswith(" ")
        and (len(rest.split()) == 1 or "·" not in unit.name or _DOT_RE.search(rest))
    ):
        # algebra does not set variables off
        unit = replace(unit, is_clear=True)
    # `12abc` is a product
    is_glued = rest[:1].isalpha() and len(rest) > 1 and rest not in _ALIASES and "/" not in rest
    if unit is None or is_glued:
        return None
    if currency:
        symbol = currency.group(2)
        return replace(number, unit=Unit(symbol)) if unit.name in ("", symbol) else None
    return replace(number, unit=unit)
