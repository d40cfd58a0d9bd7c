# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What an expression tree is worth, and whether two are worth the same.

Fractions stay exact; the rest is mpmath, at a precision that covers every size that occurs, so that `2^100 + 1` is not
`2^100`, nor `1/2^99` zero. Expressions with variables are compared at points (Schwartz and Zippel): a wrong answer
agrees at all of them with a probability that is negligible. Time is bounded by the size of the tree: what would be
huge is refused, so there is nothing to interrupt. Pure. Does not cover sets and relations (`equality.py`).
"""

import contextlib
import math
import random
import threading
from fractions import Fraction

import mpmath

from .expressions import Node, Unreadable


# Numbers of more bits than this are not kept as integers; sizes beyond the larger bound are refused. Ours.
_MAX_EXACT_BITS = 20_000
_MAX_BITS = 200_000
_DIGITS = 50
_MAX_DIGITS = 3_000
# Variables that stand for integers in answers: `(-1)^n`, `\\binom{n}{k}`.
_INTEGERS = frozenset("nmkjl")

_local = threading.local()


class Undefined(ArithmeticError):
    """An expression without a value at a point: a division by zero, an infinity, or a size beyond all bounds."""


def _context(digits: int):
    """mpmath's functions at a precision; a context of each thread, since the precision is a state."""
    if not hasattr(_local, "context"):
        _local.context = mpmath.mp.clone()
    _local.context.dps = digits
    return _local.context


def symbols(node: Node) -> set[str]:
    """Names of the variables in a tree."""
    if node[0] == "sym":
        return {node[1]}
    return set().union(*(symbols(part) for part in node[1:] if isinstance(part, tuple)))


class _Evaluation:
    """One pass over a tree at one point and precision."""

    def __init__(self, point: dict[str, Fraction], digits: int):
        self.point = point
        self.mp = _context(digits)
        self.bits = 0  # of the largest and smallest numbers seen
        self.is_real = True  # whether every part is

    def value(self, node: Node):
        found = getattr(self, f"_{node[0]}", None)
        if found is None:
            raise Unreadable(f"a {node[0]} has no value")
        return self.noted(found(*node[1:]))

    def noted(self, value):
        """A value, after its size was noted."""
        if isinstance(value, Fraction):
            bits = max(value.numerator.bit_length(), value.denominator.bit_length())
            value = value if bits <= _MAX_EXACT_BITS else self.real(value)
        elif not self.mp.isfinite(value):
            raise Undefined("not finite")
        else:
            bits = abs(int(self.mp.mag(value))) if value else 0
            self.is_real &= abs(self.mp.im(value)) < 1e-30
        if bits > _MAX_BITS:
            raise Undefined("too large or too small")
        self.bits = max(self.bits, bits)
        return value

    def real(self, value):
        return _real(value, self.mp)

    def _num(self, value, is_decimal):
        return value

    def _sym(self, name):
        return self.point[name]

    def _const(self, name):
        if name == "oo":
            raise Undefined("infinite")
        return {"pi": +self.mp.pi, "e": +self.mp.e, "i": self.mp.j}[name]

    def _add(self, left, right):
        left, right = self.value(left), self.value(right)
        if isinstance(left, Fraction) and isinstance(right, Fraction):
            return left + right
        return self.real(left) + self.real(right)

    def _mul(self, left, right):
        left, right = self.value(left), self.value(right)
        if isinstance(left, Fraction) and isinstance(right, Fraction):
            return left * right
        return self.real(left) * self.real(right)

    def _div(self, top, bottom):
        top, bottom = self.value(top), self.value(bottom)
        if bottom == 0:
            raise Undefined("division by zero")
        if isinstance(top, Fraction) and isinstance(bottom, Fraction):
            return top / bottom
        return self.real(top) / self.real(bottom)

    def _pow(self, base, exponent):
        base, exponent = self.value(base), self.value(exponent)
        if base == 0 and not exponent > 0:
            raise Undefined("zero to a power that is not positive")
        if isinstance(exponent, Fraction) and isinstance(base, Fraction) and exponent.denominator == 1:
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if bits * abs(exponent) <= _MAX_EXACT_BITS:
                return base**exponent.numerator
        base = self.real(base)
        size = abs(self.mp.log(abs(base), 2) * abs(self.real(exponent))) if base else 0
        if size > _MAX_BITS:
            raise Undefined("too large or too small")
        if isinstance(exponent, Fraction) and exponent.denominator == 1:
            return base**exponent.numerator
        return self.mp.power(base, self.real(exponent))

    def _root(self, of, index):
        of, index = self.value(of), self.value(index)
        if index == 0:
            raise Undefined("a root of index zero")
        if isinstance(of, Fraction) and of >= 0 and index == 2:
            top, bottom = math.isqrt(of.numerator), math.isqrt(of.denominator)
            if top * top == of.numerator and bottom * bottom == of.denominator:
                return Fraction(top, bottom)
        of = self.real(of)
        # the cube root of -8 is -2
        is_odd = isinstance(index, Fraction) and index.denominator == 1 and index.numerator % 2 == 1
        if is_odd and not isinstance(of, self.mp.mpc) and of < 0:
            return -self.mp.power(-of, 1 / self.real(index))
        return self.mp.sqrt(of) if index == 2 else self.mp.power(of, 1 / self.real(index))

    def _log(self, of, base):
        of, base = self.real(self.value(of)), self.real(self.value(base))
        if of == 0 or base in (0, 1):
            raise Undefined("a logarithm of zero, or to a base that has none")
        return self.mp.log(of) / self.mp.log(base)

    def _call(self, name, *arguments):
        values = [self.value(argument) for argument in arguments]
        if name.startswith("function "):
            return self.unknown_function(name, values)
        if name in ("max", "min", "gcd", "lcm"):
            return self.of_several(name, values)
        if name == "abs":
            return abs(values[0])
        if name in ("floor", "ceiling"):
            if isinstance(values[0], Fraction):
                return Fraction(math.floor(values[0]) if name == "floor" else math.ceil(values[0]))
            return self.mp.floor(values[0]) if name == "floor" else self.mp.ceil(values[0])
        if name in ("factorial", "binomial"):
            return self.counting(name, values)
        of = self.real(values[0])
        if self.mp.mag(of) > 300 and of or (name in ("exp", "sinh", "cosh") and abs(of) > _MAX_BITS):
            raise Undefined("a function of a huge number")
        if name == "ln" and of == 0:
            raise Undefined("the logarithm of zero")
        called = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot", "arcsec": "asec",
                  "arccsc": "acsc", "arsinh": "asinh", "arcosh": "acosh",
                  "artanh": "atanh"}.get(name, name)  # fmt: skip
        try:
            return getattr(self.mp, called)(of)
        except (ValueError, ZeroDivisionError) as error:
            raise Undefined(str(error)) from error

    def counting(self, name: str, values: list):
        """Factorials and binomial coefficients, exact for integers."""
        if any(abs(value) > 100_000 for value in values):
            raise Undefined("a factorial of a huge number")
        if all(isinstance(value, Fraction) and value.denominator == 1 and 0 <= value <= 2_000 for value in values):
            numbers = [value.numerator for value in values]
            return Fraction(math.factorial(*numbers) if name == "factorial" else math.comb(*numbers))
        try:
            return getattr(self.mp, name)(*map(self.real, values))
        except ValueError as error:
            raise Undefined(str(error)) from error

    def of_several(self, name: str, values: list):
        if name in ("gcd", "lcm"):
            if not all(isinstance(value, Fraction) and value.denominator == 1 for value in values):
                raise Undefined(f"{name} of something else than integers")
            return Fraction(getattr(math, name)(*(value.numerator for value in values)))
        if any(isinstance(value, self.mp.mpc) for value in values):
            raise Undefined(f"{name} of complex numbers")
        return (max if name == "max" else min)(values)

    def unknown_function(self, name: str, values: list):
        """A function of which only the name is known: some number for each argument, the same for equal ones."""
        return Fraction(
            random.Random(name + " ".join(self.mp.nstr(self.real(value), 30) for value in values)).random()
        )


def value_at(node: Node, point: dict[str, Fraction], digits: int = _DIGITS) -> tuple[object, int]:
    """
    Value of an expression.

    Args:
        node (`tuple`):
            Expression tree.
        point (`dict[str, Fraction]`):
            Values of its variables.
        digits (`int`, *optional*, defaults to 50):
            Decimal digits of working precision.

    Returns:
        `tuple`: The value, a `Fraction` or a number of mpmath, and the bits of the largest or smallest part.

    Raises:
        `Undefined`: If there is none.
        `Unreadable`: If the tree is no expression.
    """
    evaluation = _Evaluation(point, digits)
    try:
        return evaluation.value(node), evaluation.bits
    except (ZeroDivisionError, OverflowError, TypeError) as error:  # complex numbers have no order
        raise Undefined(str(error)) from error


def difference(left: Node, right: Node, point: dict[str, Fraction]):
    """
    `left - right` at a point: exactly 0 where they are equal up to rounding at a precision that covers all their
    parts. Raises as [`value_at`].
    """
    (a, bits_a), (b, bits_b) = value_at(left, point), value_at(right, point)
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a - b
    mp = _context(_DIGITS)
    size = int(max(bits_a, bits_b) * 0.302)  # decimal digits before or behind the point
    gap = _real(a, mp) - _real(b, mp)
    if gap and mp.mag(gap) * 0.301 > size - _DIGITS + 5:
        return gap
    digits = 2 * size + 40
    if digits > _MAX_DIGITS:
        raise Undefined("sizes that are too unlike")
    a, b = value_at(left, point, digits)[0], value_at(right, point, digits)[0]
    mp = _context(digits)
    gap = _real(a, mp) - _real(b, mp)
    return gap if gap and mp.mag(gap) * 0.301 > -size - 20 else 0


def _real(value, mp):
    return mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def points(names: set[str]) -> list[dict[str, Fraction]]:
    """Points at which expressions are compared: small, large and negative numbers; without variables one, empty."""
    if not names:
        return [{}]
    rng = random.Random(0)
    found = []
    for least, most, signs in (
        (101, 2999, (1,)),
        (3001, 40_000, (1,)),
        (40_001, 900_000, (1,)),
        (101, 2999, (-1,)),
        (101, 40_000, (-1, 1)),
    ):
        point = {}
        for name in sorted(names):
            if name == "n":
                point[name] = Fraction(rng.randint(8, 25))
            elif name in _INTEGERS:
                point[name] = Fraction(rng.choice(signs) * rng.randint(1, 7))
            else:
                point[name] = Fraction(rng.choice(signs) * rng.randint(least, most), 1009)
        found.append(point)
    return found


def same_value(left: Node, right: Node) -> bool:
    r"""
    Whether two expressions are worth the same, with variables: at a small positive point, and at others where both are
    real with all their parts. So `\sqrt{1/n}` is `1/\sqrt{n}`, and `\sqrt{x^2}` is not `x`. A decimal number may stand
    for an expression that it agrees with to six decimals and to one part in a thousand.

    Args:
        left (`tuple`), right (`tuple`):
            Expression trees.

    Raises:
        `Undefined`, `Unreadable`: If that cannot be said.
    """
    approximates = not symbols(left) | symbols(right) and any(
        _is_decimal(one) and not _is_decimal(other) and other[0] != "num"
        for one, other in ((left, right), (right, left))
    )
    all_points = points(symbols(left) | symbols(right))
    gaps = []
    for index, point in enumerate(all_points):
        with contextlib.suppress(Undefined):
            gap = difference(left, right, point)
            counts = index == 0 or (is_real(left, point) and is_real(right, point))
            gaps.append((counts, gap != 0 and not (approximates and _is_close(gap, left, right))))
    if len(gaps) < min(2, len(all_points)):
        raise Undefined("there is no value to compare")
    real = [differs for counts, differs in gaps if counts]
    return not any(real if len(real) > 1 or not symbols(left) | symbols(right) else (differs for _, differs in gaps))


def _is_decimal(node: Node) -> bool:
    """`3.14`, `-3.14`, `3.0 \\times 10^8`."""
    if node[0] == "mul" and node[2][0] == "pow" and node[2][1][:2] == ("num", 10):
        node = node[1]
    return node[0] == "num" and node[2]


def is_real(node: Node, point: dict[str, Fraction]) -> bool:
    """Whether an expression is real with all its parts: `\\sqrt{a}\\sqrt{b}` is not where both are negative."""
    evaluation = _Evaluation(point, _DIGITS)
    evaluation.value(node)
    return evaluation.is_real


def _is_close(gap, left: Node, right: Node) -> bool:
    size = max(abs(complex(value_at(node, {})[0])) for node in (left, right))
    return abs(complex(gap)) <= min(5e-7, size / 1000)
