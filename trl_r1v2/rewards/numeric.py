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


class _Local(threading.local):
    """mpmath's functions, for each thread its own: their precision is a state."""

    def __init__(self):
        self.mp = mpmath.mp.clone()


_local = _Local()


class Undefined(ArithmeticError):
    """An expression without a value at a point: a division by zero, an infinity, or a size beyond all bounds."""


def symbols(node: Node) -> set[str]:
    """Names of the variables in a tree."""
    if node[:1] == ("sym",):
        return {node[1]}
    return set().union(*(symbols(part) for part in node[1:] if isinstance(part, tuple)))


class Evaluation:
    """
    The value of a tree at one point, worked out with `digits` decimal digits: a `Fraction` or a number of mpmath.

    Raises [`Undefined`] where there is none, and `Unreadable` where the tree is no expression.
    """

    def __init__(self, node: Node, point: dict[str, Fraction], digits: int = _DIGITS):
        self.mp = _local.mp
        self.mp.dps = digits
        self.point = point
        self.bits = 0  # of the largest and smallest numbers seen
        self.is_real = True  # whether every part is: `\sqrt{a}\sqrt{b}` is not where both are negative
        try:
            self.value = self.of(node)
        except (ZeroDivisionError, OverflowError, TypeError) as error:  # complex numbers have no order
            raise Undefined(str(error)) from error

    def of(self, node: Node):
        """The value of a part, after its size was noted."""
        value = self.compute(*node)
        if isinstance(value, Fraction):
            bits = _bits(value)
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

    def compute(self, kind: str, *parts):
        if kind == "num":
            return parts[0]
        if kind == "sym":
            return self.point[parts[0]]
        if kind == "const":
            if parts[0] == "oo":
                raise Undefined("infinite")
            return {"pi": +self.mp.pi, "e": +self.mp.e, "i": self.mp.j}[parts[0]]
        if kind == "call":
            return self.call(parts[0], [self.of(part) for part in parts[1:]])
        if kind not in ("add", "mul", "div", "pow", "root", "log"):
            raise Unreadable(f"a {kind} has no value")
        left, right = (self.of(part) for part in parts)
        if kind == "pow":
            return self.power(left, right)
        if kind == "root":
            return self.root(left, right)
        if not (isinstance(left, Fraction) and isinstance(right, Fraction)) or kind == "log":
            left, right = self.real(left), self.real(right)
        if kind == "add":
            return left + right
        if kind == "mul":
            return left * right
        if kind == "div":
            return left / right
        if left == 0 or right == 0:
            raise Undefined("a logarithm of zero, or to the base zero")
        return self.mp.log(left) / self.mp.log(right)

    @property
    def number(self):
        """The value as a number of mpmath."""
        return self.real(self.value)

    def real(self, value):
        return self.mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value

    def power(self, base, exponent):
        if base == 0 and not exponent > 0:
            raise Undefined("zero to a power that is not positive")
        is_integer = isinstance(exponent, Fraction) and exponent.denominator == 1
        if is_integer and isinstance(base, Fraction) and _bits(base) * abs(exponent) <= _MAX_EXACT_BITS:
            return base**exponent.numerator
        base = self.real(base)
        if base and abs(self.mp.log(abs(base), 2) * abs(self.real(exponent))) > _MAX_BITS:
            raise Undefined("too large or too small")
        return base**exponent.numerator if is_integer else self.mp.power(base, self.real(exponent))

    def root(self, of, index):
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

    def call(self, name: str, values: list):
        numbers = [value.numerator for value in values if isinstance(value, Fraction) and value.denominator == 1]
        are_integers = len(numbers) == len(values)
        if name.startswith("function "):  # of which only the name is known: the same number for equal arguments
            shown = " ".join(self.mp.nstr(self.real(value), 30) for value in values)
            return Fraction(random.Random(name + shown).random())
        if name in ("gcd", "lcm"):
            if not are_integers:
                raise Undefined(f"{name} of something else than integers")
            return Fraction(getattr(math, name)(*numbers))
        if name in ("max", "min"):
            if any(isinstance(value, self.mp.mpc) for value in values):
                raise Undefined(f"{name} of complex numbers")
            return (max if name == "max" else min)(values, key=self.real)
        if name == "abs":
            return abs(values[0])
        if name in ("floor", "ceil") and isinstance(values[0], Fraction):
            return Fraction(getattr(math, name)(values[0]))
        if name in ("factorial", "binomial"):
            is_bounded = all(isinstance(value, Fraction) and abs(value) <= 100_000 for value in values)
            if not is_bounded or (self.mp.dps > 2 * _DIGITS and not are_integers):  # which would take seconds
                raise Undefined("a factorial of a huge number, or of none that is whole")
            if are_integers and all(0 <= number <= 2_000 for number in numbers):
                return Fraction((math.factorial if name == "factorial" else math.comb)(*numbers))
        values = [self.real(value) for value in values]
        is_huge = self.mp.mag(values[0]) > 300 or (name in ("exp", "sinh", "cosh") and abs(values[0]) > _MAX_BITS)
        if is_huge and name not in ("floor", "ceil"):
            raise Undefined("a function of a huge number")
        try:
            return getattr(self.mp, name)(*values)
        except ValueError as error:
            raise Undefined(str(error)) from error


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def difference(left: Node, right: Node, point: dict[str, Fraction]):
    """
    `left - right` at a point: exactly 0 where they are equal up to rounding at a precision that covers all their
    parts; and whether all these are real.
    """
    one, other = Evaluation(left, point), Evaluation(right, point)
    are_real = one.is_real and other.is_real
    if isinstance(one.value, Fraction) and isinstance(other.value, Fraction):
        return one.value - other.value, are_real
    mp = one.mp
    size = int(max(one.bits, other.bits) * 0.302)  # decimal digits before or behind the point
    gap = one.number - other.number
    if gap and mp.mag(gap) * 0.301 > size - _DIGITS + 5:
        return gap, are_real
    digits = 2 * size + 40
    if digits > _MAX_DIGITS:
        raise Undefined("sizes that are too unlike")
    one, other = Evaluation(left, point, digits), Evaluation(right, point, digits)
    gap = one.number - other.number
    return (gap if gap and mp.mag(gap) * 0.301 > -size - 20 else 0), are_real


def points(names: set[str]) -> list[dict[str, Fraction]]:
    """Points at which expressions are compared: small, large and negative numbers; without variables one, empty."""
    if not names:
        return [{}]
    rng = random.Random(0)

    def number(name: str, least: int, most: int, signs: tuple[int, ...]) -> Fraction:
        if name == "n":
            return Fraction(rng.randint(8, 25))
        if name in _INTEGERS:
            return Fraction(rng.choice(signs) * rng.randint(1, 7))
        return Fraction(rng.choice(signs) * rng.randint(least, most), 1009)

    ranges = (
        (101, 2999, (1,)),
        (3001, 40_000, (1,)),
        (40_001, 900_000, (1,)),
        (101, 2999, (-1,)),
        (101, 40_000, (-1, 1)),
    )
    return [{name: number(name, *bounds) for name in sorted(names)} for bounds in ranges]


def same_value(left: Node, right: Node) -> bool:
    r"""
    Whether two expressions are worth the same, with variables: at a small positive point, and at others where both are
    real with all their parts. So `\sqrt{1/n}` is `1/\sqrt{n}`, and `\sqrt{x^2}` is not `x`. A decimal number may stand
    for an expression that it agrees with to six decimals and to one part in a thousand.

    Raises [`Undefined`] or `Unreadable` where that cannot be said.
    """
    names = symbols(left) | symbols(right)
    approximates = not names and any(
        _is_decimal(one) and not _is_decimal(other) and other[0] != "num"
        for one, other in ((left, right), (right, left))
    )
    gaps = []
    for index, point in enumerate(points(names)):
        with contextlib.suppress(Undefined):
            gap, are_real = difference(left, right, point)
            differs = gap != 0 and not (approximates and _is_close(gap, left, right))
            gaps.append((index == 0 or are_real, differs))
    if len(gaps) < (2 if names else 1):
        raise Undefined("there is no value to compare")
    real = [differs for counts, differs in gaps if counts]
    return not any(real if len(real) > 1 or not names else (differs for _, differs in gaps))


def _is_decimal(node: Node) -> bool:
    """`3.14`, `-3.14`, `3.0 \\times 10^8`."""
    if node[0] == "mul" and node[2][0] == "pow" and node[2][1][:2] == ("num", 10):
        node = node[1]
    return node[0] == "num" and node[2]


def _is_close(gap, left: Node, right: Node) -> bool:
    sides = [Evaluation(node, {}) for node in (left, right)]
    return abs(sides[0].real(gap)) <= min(5e-7, max(abs(side.number) for side in sides) / 1000)
