# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
Whether two trees of mathematics say the same: expressions, lists in any order, tuples, sets and intervals of numbers,
inequalities, equations, matrices, `1, 2, …, n`.

Pure; bounded by the size of the trees. Does not cover units, words and choices (`comparison.py`).
"""

import contextlib
from fractions import Fraction

from .expressions import Node, Unreadable, negative
from .numeric import Evaluation, Undefined, points, same_value, symbols


_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}
_EQUAL = frozenset(("=", "~"))
_INFINITE = ("const", "oo")
_MINUS_INFINITE = negative(_INFINITE)
_REALS = ("sym", "mathbb R")
# `k \in \mathbb{Z}` behind `2k\pi` says what k may be.
_RANGES = frozenset(f"mathbb {letter}{mark}" for letter in "ZN" for mark in ("", "_+", "_0", "+"))


def same(gold: Node, answer: Node) -> bool:
    """Whether an answer says what the gold says. Raises `Unreadable` or `Undefined` where that cannot be said."""
    gold, answer = _without_names(*_without_ranges(gold, answer))
    if gold == answer:
        return True
    if _is_set(gold) or _is_set(answer):
        with contextlib.suppress(_NoOrder):
            return _same_set(gold, answer)
    if gold[0] in ("cup", "cap", "without"):
        return gold[0] == answer[0] and _same_items(gold[1:], answer[1:], is_ordered=gold[0] == "without")
    if "rel" in (gold[0], answer[0]):
        return gold[0] == answer[0] and _same_relation(gold, answer)
    (gold_kind, items), (kind, others) = _several(gold), _several(answer)
    if gold_kind or kind:
        if gold[0] == answer[0] == "matrix":
            return [len(row) for row in gold[1]] == [len(row) for row in answer[1]] and _same_items(
                sum(gold[1], ()), sum(answer[1], ())
            )
        return _same_several(gold_kind, items, kind, others) and _ends(gold) == _ends(answer)
    if "based" in (gold[0], answer[0]):  # the base may be left out where the question asks for it
        return gold[0] == "based" and answer[0] == "num" and Fraction(gold[1]) == answer[1]
    if {_INFINITE, _MINUS_INFINITE} & {gold, answer}:
        return False  # equal ones are equal trees
    return same_value(gold, answer)


# ---- Names: `x = 5` against `5` ----


def _without_ranges(gold: Node, answer: Node) -> tuple[Node, Node]:
    """Without `k \\in \\mathbb{Z}` behind what k stands in; the answer may call it otherwise."""
    gold, name = _without_range(gold)
    answer, other = _without_range(answer)
    return gold, _renamed(answer, other, name) if name and other and name != other else answer


def _without_range(node: Node) -> tuple[Node, str | None]:
    for item in node[1] if node[0] == "list" else ():
        match item:
            case ("rel", ("in",), (("sym", name), ("sym", where))) if where in _RANGES:
                rest = tuple(other for other in node[1] if other != item)
                if not any(map(_bounds, rest)) and any(name in symbols(other) for other in rest):
                    return (rest[0] if len(rest) == 1 else ("list", rest, node[2])), name
    return node, None


def _renamed(node: Node, old: str, new: str) -> Node:
    if node == ("sym", old):
        return ("sym", new)
    return tuple(_renamed(part, old, new) if isinstance(part, tuple) else part for part in node)


def _without_names(gold: Node, answer: Node) -> tuple[Node, Node]:
    """The values of `x = 5`, `x = 1, y = 2`, `x = 0 or x = 2` where the other side has none or the same names."""
    left, right = _named(gold), _named(answer)
    if left and right:
        return (left[1], right[1]) if left[0] == right[0] else (gold, answer)
    if left and answer[0] != "rel":
        return left[1], answer
    if right and gold[0] != "rel":
        return gold, right[1]
    return gold, answer


def _named(node: Node) -> tuple[tuple[Node, ...], Node] | None:
    """Names and values of one equation, or of a list of them."""
    named = []
    for item in node[1] if node[0] == "list" else (node,):
        inner = _named(item) if item[0] == "list" else None
        if inner:
            named.append((("bracket", "(", inner[0], ")"), inner[1]))
            continue
        if item[0] != "rel" or not set(item[1]) <= _EQUAL:
            return None
        sides = item[2]
        if "~" in item[1]:  # of `x = 1/3 ≈ 0.33` the exact value counts
            exact = sides[: item[1].index("~") + 1]
            sides = (exact[0], exact[-1]) if exact[-1][0] != "sym" else sides
        name, value = sides[0], sides[-1]
        if value[0] == "sym" and not symbols(name):
            name, value = value, name
        if not (_is_name(name, value) or (not symbols(name) and same_value(name, value))):
            return None
        named.append((name, value))
    names, values = (tuple(column) for column in zip(*named, strict=True))
    if len(values) == 1:
        return names, values[0]
    if len(set(names)) == 1:
        return names[:1], ("list", values, node[2])
    return names, ("bracket", "(", values, ")")


def _is_name(node: Node, value: Node) -> bool:
    """Whether something names a quantity: `x`, `f(3)`, `|AB|`, `AB`, `a+b`, `x^2`; not `2x+3`, nor `a+b` of 0."""
    if node[0] in ("sym", "call", "log"):
        return node[0] == "call" or bool(symbols(node))
    if node[0] == "bracket":
        return all(item[0] == "sym" for item in node[2])
    parts = node[1:2] if node[0] == "pow" else node[1:]
    return (
        value[:2] != ("num", 0)
        and node[0] in ("add", "mul", "div", "pow")
        and all(part[0] in ("sym", "call") or (part[0] == "mul" and _is_name(part, value)) for part in parts)
    )


# ---- Sets of real numbers ----


class _NoOrder(Exception):
    """What is no set of real numbers, or has ends that are no numbers."""


def _bounds(node: Node) -> bool:
    """Whether something bounds a variable, other than by an equation."""
    return node[0] == "rel" and not set(node[1]) <= _EQUAL


def _is_set(node: Node) -> bool:
    """Whether something can only be a set of numbers; `(1, 2)` may be a pair."""
    match node:
        case ("list", items, _):
            return any(map(_bounds, items))
        case ("bracket", opening, items, closing):
            is_mixed = (opening, closing) in (("(", "]"), ("[", ")")) and len(items) == 2
            return is_mixed or not {_INFINITE, _MINUS_INFINITE}.isdisjoint(items)
    return node[0] in ("cup", "cap", "without") or node == _REALS or _bounds(node)


def _same_set(gold: Node, answer: Node) -> bool:
    line = _Line(_numbers(gold) + _numbers(answer))
    return line.places(gold) == line.places(answer)


def _numbers(node: Node) -> list[Node]:
    """The numbers by which a set is described."""
    match node:
        case ("cup" | "cap" | "without", *parts) | ("bracket", _, parts, _) | ("list", parts, _) | ("rel", _, parts):
            return [number for part in parts for number in _numbers(part)]
    return [] if symbols(node) or node in (_INFINITE, _MINUS_INFINITE) else [node]


class _Line:
    """
    The real line, cut at the numbers that occur in two sets. These have the places 1, 3, 5, … in their order, what
    lies between has the even ones; a set is the places that it holds.
    """

    def __init__(self, numbers: list[Node]):
        found = []
        for node in numbers:
            try:
                evaluation = Evaluation(node, {})
            except Unreadable as error:
                raise _NoOrder from error
            if abs(evaluation.mp.im(evaluation.number)) > 1e-12:
                raise _NoOrder
            found.append((evaluation.mp.re(evaluation.number), node))
        found.sort(key=lambda pair: pair[0])
        self.place_of, place = {_MINUS_INFINITE: -1}, -1
        for index, (_, node) in enumerate(found):
            place += 2 * (index == 0 or not same_value(found[index - 1][1], node))
            self.place_of[node] = place
        self.place_of[_INFINITE] = place + 2
        self.all = frozenset(range(place + 2))

    def at(self, node: Node) -> int:
        if node not in self.place_of:
            raise _NoOrder
        return self.place_of[node]

    def places(self, node: Node) -> frozenset[int]:
        match node:
            case ("sym", "mathbb R"):
                return self.all
            case ("bracket", "(" | "[", (low, high), ")" | "]"):
                inside = range(self.at(low) + (node[1] == "("), self.at(high) + (node[3] == "]"))
                return self.all.intersection(inside)
            case ("bracket", r"\{", items, _):
                return self.all.intersection(map(self.at, items))
            case ("cup", left, right):
                return self.places(left) | self.places(right)
            case ("cap", left, right):
                return self.places(left) & self.places(right)
            case ("without", left, right):
                return self.places(left) - self.places(right)
            case ("rel", signs, nodes):
                variable = _variable(node)
                links = zip(nodes[:-1], signs, nodes[1:], strict=True)
                return self.all.intersection(*(self.places_of_link(*link, variable) for link in links))
            case ("list", items, words) if len({_variable(item) for item in items}) == 1:
                parts = [self.places(item) for item in items]
                common = self.all.intersection(*parts)
                # `x < -2, x > 5` can only be meant as "or"
                return frozenset().union(*parts) if "or" in words or not common else common
        raise _NoOrder

    def places_of_link(self, left: Node, sign: str, right: Node, variable: Node | None) -> frozenset[int]:
        """Where the variable is by one link of a chain such as `0 < x <= 1`."""
        if sign == "in":
            return self.places(right)
        if right == variable:
            left, sign, right = right, _FLIPPED.get(sign, "="), left
        if left != variable:
            raise _NoOrder
        if sign == "!=":
            return self.all - {self.at(right)}
        if sign in _EQUAL:
            return self.all.intersection((self.at(right),))
        if "<" in sign:
            return self.all.intersection(range(self.at(right) + (sign == "<=")))
        return self.all.intersection(range(self.at(right) + (sign == ">"), len(self.all)))


def _variable(node: Node) -> Node | None:
    """The one variable that a relation bounds."""
    if node[0] != "rel":
        raise _NoOrder
    names = [part for part in node[2] if part[0] in ("sym", "call") and symbols(part) and part != _REALS]
    return names[0] if len(names) == 1 else None


# ---- Equations, and inequalities of several variables ----


def _same_relation(gold: Node, answer: Node) -> bool:
    """The same chain, from either end; or one equation or inequality, its sides brought to one and scaled."""
    (_, gold_signs, gold_nodes), (_, signs, nodes) = gold, answer
    flipped = tuple(_FLIPPED.get(sign, "") for sign in reversed(signs))
    if gold_signs == signs and _same_items(gold_nodes, nodes):
        return True
    if gold_signs == flipped and _same_items(gold_nodes, nodes[::-1]):
        return True
    if len(signs) != 1 or len(gold_signs) != 1 or "in" in (signs[0], gold_signs[0]):
        return False
    factor = _factor(*(("add", left, negative(right)) for left, right in (gold_nodes, nodes)))
    if factor is None:
        return False
    return gold_signs[0] == (signs[0] if factor > 0 or signs[0] in ("=", "!=", "~") else _FLIPPED[signs[0]])


def _factor(gold: Node, answer: Node) -> float | None:
    """The constant that an answer is to be multiplied with to be the gold; `None` if there is none."""
    factors = []
    for point in points(symbols(gold) | symbols(answer)):
        with contextlib.suppress(Undefined):
            left, right = Evaluation(gold, point).number, Evaluation(answer, point).number
            if bool(left) != bool(right):
                return None
            if left:
                factors.append(complex(left / right))
    if len(factors) < 3 or any(abs(factor - factors[0]) > 1e-9 * abs(factors[0]) for factor in factors):
        return None
    return factors[0].real if abs(factors[0].imag) < 1e-9 * abs(factors[0]) else None


# ---- Several things ----


def _several(node: Node) -> tuple[str | None, tuple[Node, ...]]:
    """How things stand together, as a `list` or `set` in any order or as a `tuple`, `None` for one; and the things."""
    match node:
        case ("list", items, _):
            return "list", items
        case ("bracket", opening, items, _):
            return "set" if opening == r"\{" else "tuple", items
        case ("matrix", rows):
            column = tuple(row[0] for row in rows) if len(rows[0]) == 1 else ()
            return "tuple", rows[0] if len(rows) == 1 else column
    return None, (node,)


def _same_several(gold_kind: str | None, items: tuple, kind: str | None, others: tuple) -> bool:
    if gold_kind is None:  # `1/2 or 0.5`, `{5}`
        return bool(others) and kind != "tuple" and all(same(items[0], item) for item in others)
    if kind is None:
        return len(items) == 1 and same(items[0], others[0])
    if {gold_kind, kind} == {"set", "tuple"}:
        return False
    if ("dots",) in items + others:
        return _same_progression(items, others)
    is_ordered = "tuple" in (gold_kind, kind)
    if not is_ordered and all(item[0] == "bracket" for item in items + others):  # solutions, each counted once
        items, others = (tuple(dict.fromkeys(side)) for side in (items, others))
    return _same_items(items, others, is_ordered)


def _ends(node: Node) -> tuple[str, str]:
    """`[1, 2]` is an interval, all others are pairs."""
    is_interval = node[0] == "bracket" and len(node[2]) == 2 and "[" in node[1] + node[3]
    return (node[1], node[3]) if is_interval else ("", "")


def _same_items(items: tuple[Node, ...], others: tuple[Node, ...], is_ordered: bool = True) -> bool:
    if len(items) != len(others):
        return False
    if is_ordered:
        return all(map(same, items, others))
    left = list(others)
    for item in items:
        found = next((other for other in left if same(item, other)), None)
        if found is None:
            return False
        left.remove(found)
    return True


def _same_progression(items: tuple[Node, ...], others: tuple[Node, ...]) -> bool:
    """`1, 2, …, n` against `1, 2, 3, …, n`: the same start and end, and what only one has goes on in equal steps."""
    if any(side.count(("dots",)) != 1 for side in (items, others)):
        return False
    sides = [(side[: side.index(("dots",))], side[side.index(("dots",)) + 1 :]) for side in (items, others)]
    (shorter, _), (longer, _) = sorted(sides, key=lambda side: len(side[0]))
    if len(shorter) < 2 or not _same_items(sides[0][1], sides[1][1]):
        return False
    steps = [("add", after, negative(before)) for before, after in zip(longer, longer[1:], strict=False)]
    return _same_items(shorter, longer[: len(shorter)]) and all(
        same_value(steps[0], step) for step in steps[: len(longer) - 1 if len(longer) > len(shorter) else 0]
    )
