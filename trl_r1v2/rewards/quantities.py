# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
Units behind numbers and expressions: `12 cm`, `9\pi\text{ cm}^2`, `$1.5 million`, `25°C`, `5厘米`, `20 apples`.

Pure. Does not cover conversion (`1 m` is not `100 cm` here), nor what an expression is worth (`numeric.py`).
"""

import itertools
import re
from collections import Counter
from typing import NamedTuple

from .notation import FUNCTIONS, plain


_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
NUMBER_WORDS = {
    word: str(value) for words in (_WORDS.split(), "零一二三四五六七八九十") for value, word in enumerate(words)
}
_SCALES = {"dozen": 12, "hundred": 100, "千": 10**3, "万": 10**4, "亿": 10**8} | {
    word: 1000**power for power, word in enumerate(("thousand", "million", "billion", "trillion"), start=1)
}
MATH_WORDS = FUNCTIONS | frozenset("pi sqrt mod inf infinity".split())
# Words behind a number that calculate with it: `5 squared` is not 5.
_NOT_UNITS = MATH_WORDS | frozenset(
    "too wrong incorrect maybe perhaps possibly remainder mod modulo base choose and or to plus minus times over not "
    "squared cubed factorial half halves more less third fourth fifth sixth seventh eighth ninth tenth quarter "
    "hundredth thousandth millionth thirds fourths fifths sixths sevenths eighths ninths tenths quarters "
    "hundredths thousandths millionths".split()
)
# What a prefix and a unit are called; the units that take a prefix, and all others.
_PREFIXES = {"": "", "n": "nano 纳", "μ": "micro 微", "m": "milli 毫", "c": "centi 厘", "k": "kilo 千", "M": "mega 兆",
             "G": "giga 吉"}  # fmt: skip
_BASES = {
    "m": "meter metre 米", "g": "gram 克", "s": "second 秒", "L": "liter litre 升", "N": "newton 牛 牛顿",
    "J": "joule 焦 焦耳", "W": "watt 瓦", "V": "volt 伏", "A": "amp ampere 安 安培", "Hz": "hertz 赫兹",
    "Pa": "pascal 帕", "C": "coulomb 库仑", "F": "farad 法拉", "T": "tesla", "Wb": "weber", "Ω": "ohm 欧 欧姆",
    "eV": "electronvolt", "mol": "mole 摩尔", "H": "henry",
}  # fmt: skip
_ALIASES = {
    alias: unit
    for unit, aliases in {
        "in": "in inch inches", "ft": "ft foot feet", "mi": "mi mile miles", "lb": "lb lbs pound pounds",
        "s": "sec secs", "min": "min mins minute minutes 分钟", "h": "h hr hrs hour hours 小时 时", "L": "l",
        "mL": "ml", "dm": "dm 分米", "km": "km 公里", "kg": "kg 公斤", "t": "t tonne tonnes 吨",
        "°": "° degree degrees deg 度", "°C": "°C celsius Celsius 摄氏度", "°F": "°F fahrenheit Fahrenheit",
        "K": "K kelvin kelvins", "%": "% percent pct percentage", "$": r"$ dollar dollars usd USD 美元",
        "€": "€ euro euros", "£": "£", "¥": "¥ 元 yuan", "rad": "rad radian radians",
        "dB": "dB decibel decibels", "Å": "Å angstrom angstroms",
    }.items()
    for alias in aliases.split()
}  # fmt: skip
for (_prefix, _before), (_symbol, _names) in itertools.product(_PREFIXES.items(), _BASES.items()):
    _spelled = itertools.product(_before.split() or [""], _names.split(), ("", "s"))
    for _alias in (_prefix + _symbol, *map("".join, _spelled)):
        _ALIASES.setdefault(_alias, _prefix + _symbol)
# Symbols that are taken for a unit also where the other side has none: `12 m` equals `12`, `12 T` or `12 kT` may be
# algebra.
_CLEAR_SYMBOLS = frozenset("m cm mm km in ft mi g kg mg lb s h hr L l mL ml N J W V A Hz Pa μm Ω Å".split())
_SPEEDS = {"mph": "mi/h", "kph": "km/h", "kmh": "km/h", "kmph": "km/h"}
_SYMBOLS = {
    "²": "2",
    "³": "3",
    r"\mu": "μ",
    r"\Omega": "Ω",
    r"\AA": "Å",
    r"\cdot": "·",
    "⋅": "·",
    "*": "·",
    r"\$": "$",
}
_CHINESE = "[\u4e00-\u9fff]"
# What changes the number before it: half, tenths, discounts, "of", about, more than.
_NOT_COUNTERS = frozenset("半成折分之多余左右约上下不负至到或和倍")

# A number as it is written, before a unit: decimals, fractions, `1 1/2`, a power of ten.
_POWER = r"(?:\s*(?:\\times|\\cdot|×|\*)\s*10\s*(?:\^|\*\*)\s*(?:\{\s*[+-]?\d{1,3}\s*\}|[+-]?\d{1,3}))"
_NUMBER_RE = re.compile(
    rf"[+-]?(?:\\frac\{{[+-]?\d+\}}\{{\d+\}}|10\s*\^\s*(?:\{{\s*[+-]?\d{{1,3}}\s*\}}|\d+)|\d+ \d+/\d+(?!\d)"
    rf"|\d+(?:\.\d+)?\s*/\s*\d+(?![\d.])"
    rf"|(?:\d{{1,3}}(?:[, ]\d{{3}})+(?!\d)|\d+)?(?:\.\d+)?(?:[eE][+-]?\d{{1,2}}(?!\d))?{_POWER}?)"
)
_SCALE_RE = re.compile(rf"\s*({'|'.join(_SCALES)})(?:s(?![A-Za-z]))?(?![A-Za-z])(?!{_CHINESE}*[克米瓦])")
_CURRENCY_RE = re.compile(r"([+-]?)\s*(\\?\$|[€£¥])\s*(?=[\d.\\])")
_FACTOR_RE = re.compile(rf"([A-Za-zμΩÅ°%$€£¥]+|{_CHINESE}+)(?:\^?([1-9])|\^(-[1-9]))?")
# Where a unit may begin behind an expression that is no plain number.
_UNIT_START_RE = re.compile(rf"\s*\\text\{{|(?<=[\d}}\)π])\s+(?=[A-Za-z])|\s*(?={_CHINESE})|(?<=pi)\s+(?=[A-Za-z])")
_SAFE_BEHIND = frozenset("cm mm km kg ft".split())


class Unit(NamedTuple):
    """A unit of measure by its canonical spelling, empty for none."""

    name: str = ""
    is_clear: bool = True  # hardly anything but a unit, so that it may be missing on the other side


class Quantity(NamedTuple):
    """An expression as it was written, a word such as "million" multiplied out; and its unit."""

    text: str
    unit: Unit = Unit()


def read_unit(text: str) -> Unit | None:
    r"""
    What stands behind a number, as [`~trl_r1v2.rewards.notation.plain`] gives it: `cm`, `meters per second`, `kg \cdot
    m/s^{2}`, `J/(kg K)`, `apples`, `平方米`; `None` where it is no unit.
    """
    for written, symbol in _SYMBOLS.items():
        text = text.replace(written, symbol)
    text = re.sub(r"\bdegrees? (celsius|fahrenheit)\b", r"\1", text, flags=re.IGNORECASE)
    text = _SPEEDS.get(text.strip(), text)
    text = re.sub(r"\s*\^\s*", "^", re.sub(r"[{}]", "", text)).strip()
    text = re.sub(r"μ\s+(?=[A-Za-zΩ])", "μ", re.sub(r"°\s+(?=[CF]\b)", "°", text))
    words = text
    text = re.sub(r"(?:\bsquare\s+|\bsq\.?\s+|平方)([^\s/每]+)", r"\g<1>2", text)
    text = re.sub(r"(?:\bcubic\s+|立方)([^\s/每]+)", r"\g<1>3", text)
    if not text:
        return Unit()
    powers: Counter[str] = Counter()
    is_clear, num_factors = True, 0
    for index, side in enumerate(re.split(r"\s*/\s*|\s+per\s+|每", text.removeprefix("1/"))):
        under = bool(index) or text.startswith("1/")
        factors = re.split(r"[\s·]+", side.strip("() "))
        matches = [_FACTOR_RE.fullmatch(factor) for factor in factors]
        # of `J/kg K` nobody knows where the K stands
        unsplit = under and len(factors) > 1 and not (side.startswith("(") and side.endswith(")"))
        if unsplit or any(match is None or match.group(1) not in _ALIASES for match in matches):
            return _words_as_unit(words)
        for written, power, negative in (match.groups() for match in matches):
            powers[_ALIASES[written]] += int(power or negative or 1) * (-1 if under else 1)
            is_clear &= (
                written in _CLEAR_SYMBOLS
                or (len(written) > 2 and written.islower())
                or not written.isascii()
                or not written.isalpha()
            )
        num_factors = max(num_factors, len(factors))
    above = sorted(name + (str(power) if power > 1 else "") for name, power in powers.items() if power > 0)
    below = sorted(f"/{name}{-power if power < -1 else ''}" for name, power in powers.items() if power < 0)
    # `2 m s` may be a product of variables
    return Unit("·".join(above) + "".join(below), is_clear and num_factors == 1)


def _words_as_unit(text: str) -> Unit | None:
    """What is counted: `apples`, `个`."""
    words = text.casefold().split()
    if re.fullmatch(f"{_CHINESE}{{1,4}}", text):
        return None if _NOT_COUNTERS & set(text) else Unit(text)
    if len(words) <= 3 and all(re.fullmatch(r"[a-z]{3,}", word) and word not in _NOT_UNITS for word in words):
        return Unit(" ".join(word[:-1] if word.endswith("s") else word for word in words))
    return None


def read_quantity(text: str) -> Quantity | None:
    r"""
    One plain number and its unit: `12 cm`, `-1/2`, `3.0 \times 10^{8} m/s`, `$1.5 million`, `50%`, `seven`, `5万`;
    `None` where the text, as [`~trl_r1v2.rewards.notation.plain`] gives it, is anything else.
    """
    text = NUMBER_WORDS.get(text.casefold(), text)
    currency = _CURRENCY_RE.match(text)
    if currency:
        text = currency.group(1) + text[currency.end() :]
    match = _NUMBER_RE.match(text)
    if match is None or not re.search(r"\d", match[0]):
        return None
    number, rest = match[0], text[match.end() :]
    scale = _SCALE_RE.match(rest)
    if scale:
        number, rest = f"({number})*{_SCALES[scale.group(1)]}", rest[scale.end() :]
    unit = read_unit(rest)
    # `12abc` is a product
    is_glued = rest[:1].isascii() and rest[:1].isalpha() and len(rest) > 1 and rest not in _ALIASES and "/" not in rest
    if unit is None or is_glued or (rest.strip() and not unit.name):
        return None
    if rest.startswith(" ") and (
        len(rest.split()) == 1 or "·" not in unit.name or re.search(r"·|⋅|\*|\\cdot(?![A-Za-z])", rest)
    ):
        unit = unit._replace(is_clear=True)  # algebra does not set variables off
    if currency:
        symbol = currency.group(2).removeprefix("\\")
        return Quantity(number, Unit(symbol)) if unit.name in ("", symbol) else None
    return Quantity(number, unit)


def split_unit(text: str) -> Quantity:
    r"""
    An expression, as [`~trl_r1v2.rewards.notation.normalised`] gives it, and the unit behind it if there is one:
    `9\pi\text{ cm}^2`, `3\sqrt{2} cm`.
    """
    for match in _UNIT_START_RE.finditer(text):
        before, behind = text[: match.start()], plain(text[match.start() :])
        unit = read_unit(behind)
        # of plain letters only what can hardly be variables
        is_marked = "\\text" in match[0] or not behind[:1].isascii()
        if not before or before.count("{") != before.count("}") or unit is None or not unit.name:
            continue
        if is_marked or re.match(r"[A-Za-z]*", behind)[0] in _SAFE_BEHIND or len(re.match(r"[a-z]*", behind)[0]) > 3:
            return Quantity(before.strip(), unit._replace(is_clear=True))
    return Quantity(text)
