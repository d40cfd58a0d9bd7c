# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
Whether two trees of mathematics say the same: expressions, lists in any order, tuples, sets and intervals of numbers,
inequalities, equations, matrices, `1, 2, …, n`.

Pure; bounded by the size of the trees. Does not cover units, words and choices (`comparison.py`).
"""

from fractions import Fraction
from typing import NamedTuple

from .expressions import Node
from .numeric import Undefined, points, same_value, symbols, value_at


_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}
_INFINITE = ("const", "oo")
_MINUS_INFINITE = ("mul", ("num", Fraction(-1), False), _INFINITE)
_REALS = ("sym", "mathbb R")
# `k \in \mathbb{Z}` behind `2k\pi` says what k may be.
_RANGES = frozenset(f"mathbb {letter}{mark}" for letter in "ZN" for mark in ("", "_+", "_0", "+"))


class Piece(NamedTuple):
    """An interval of the real line: its ends, and whether each is left out."""

    low: Node
    high: Node
    low_open: bool
    high_open: bool


def same(gold: Node, answer: Node) -> bool:
    """
    Whether an answer says what the gold says.

    Args:
        gold (`tuple`), answer (`tuple`):
            Trees of [`~trl_r1v2.rewards.expressions.read`].

    Raises:
        `Unreadable`, `Undefined`: If that cannot be said.
    """
    gold, answer = _without_names(*_without_ranges(gold, answer))
    if gold == answer:
        return True
    if _is_set(gold) or _is_set(answer):
        gold_pieces, answer_pieces = _pieces(gold), _pieces(answer)
        if gold_pieces is not None and answer_pieces is not None:
            return len(gold_pieces) == len(answer_pieces) and all(
                one[2:] == other[2:] and same(one.low, other.low) and same(one.high, other.high)
                for one, other in zip(gold_pieces, answer_pieces, strict=True)
            )
    if gold[0] in ("cup", "cap", "without"):
        return gold[0] == answer[0] and _same_items(gold[1:], answer[1:], is_ordered=gold[0] == "without")
    if "rel" in (gold[0], answer[0]):
        return gold[0] == answer[0] and _same_relation(gold, answer)
    kinds = _several(gold), _several(answer)
    if kinds != (None, None):
        return _same_several(gold, answer, *kinds)
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
    if node[0] != "list":
        return node, None
    for item in node[1]:
        if item[0] == "rel" and item[1] == ("in",) and item[2][0][0] == "sym" and item[2][1][0] == "sym":
            name, rest = item[2][0][1], tuple(other for other in node[1] if other != item)
            bounds = any(other[0] == "rel" and not set(other[1]) <= {"=", "~"} for other in rest)
            if item[2][1][1] in _RANGES and not bounds and any(name in symbols(other) for other in rest):
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
    items = node[1] if node[0] == "list" else (node,)
    named = []
    for item in items:
        inner = _named(item) if item[0] == "list" else None
        if inner:
            named.append((("bracket", "(", inner[0], ")"), inner[1]))
            continue
        if item[0] != "rel" or not set(item[1]) <= {"=", "~"}:
            return None
        # of `x = 1/3 ≈ 0.33` the exact value counts
        exact = (
            item[1].index("~") + 1 if "~" in item[1] and item[2][: item[1].index("~") + 1][-1][0] != "sym" else None
        )
        name, *_, value = item[2][:exact] if exact != 1 else (item[2][0], item[2][0])
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
    """Ends of intervals that are no numbers."""


def _is_set(node: Node) -> bool:
    """Whether something can only be a set of numbers; `(1, 2)` may be a pair."""
    match node:
        case ("list", items, _):
            return any(_is_bound(item) for item in items)
        case ("bracket", opening, items, closing):
            is_mixed = (opening, closing) in (("(", "]"), ("[", ")")) and len(items) == 2
            return is_mixed or not {_INFINITE, _MINUS_INFINITE}.isdisjoint(items)
    return node[0] in ("cup", "cap", "without") or node == _REALS or _is_bound(node)


def _is_bound(node: Node) -> bool:
    return node[0] == "rel" and not set(node[1]) <= {"=", "~"}


def _pieces(node: Node) -> list[Piece] | None:
    """The pieces of a set of real numbers in their order; `None` where it is none, or has ends without an order."""
    try:
        return _found_pieces(node)
    except _NoOrder:
        return None


def _found_pieces(node: Node) -> list[Piece]:
    match node:
        case ("sym", "mathbb R"):
            return _complement([])
        case ("bracket", "(" | "[", (low, high), ")" | "]"):
            return _union([Piece(low, high, node[1] == "(", node[3] == ")")])
        case ("bracket", r"\{", items, _):
            return _union([Piece(item, item, False, False) for item in items])
        case ("cup", left, right):
            return _union(_found_pieces(left) + _found_pieces(right))
        case ("cap", left, right):
            return _intersection([_found_pieces(left), _found_pieces(right)])
        case ("without", left, right):
            return _intersection([_found_pieces(left), _complement(_found_pieces(right))])
        case ("rel", signs, nodes):
            return _pieces_of_relation(signs, nodes)
        case ("list", items, words) if len({_variable(item) for item in items}) == 1:
            parts = [_found_pieces(item) for item in items]
            common = _intersection(parts)
            # `x < -2, x > 5` can only be meant as "or"
            return _union(sum(parts, [])) if "or" in words or not common else common
    raise _NoOrder


def _variable(node: Node) -> Node | None:
    """The one variable that a relation bounds."""
    if node[0] != "rel":
        raise _NoOrder
    names = [part for part in node[2] if part[0] in ("sym", "call") and symbols(part) and part != _REALS]
    return names[0] if len(names) == 1 else None


def _pieces_of_relation(signs: tuple[str, ...], nodes: tuple[Node, ...]) -> list[Piece]:
    variable = _variable(("rel", signs, nodes))
    if variable is None:
        raise _NoOrder
    parts = []
    for left, sign, right in zip(nodes[:-1], signs, nodes[1:], strict=True):
        if sign == "in":
            parts.append(_found_pieces(right))
            continue
        if right == variable:
            left, sign, right = right, _FLIPPED.get(sign, "="), left
        if left != variable:
            raise _NoOrder
        point = [Piece(right, right, False, False)]
        if sign in ("=", "~"):
            parts.append(_union(point))
        elif sign == "!=":
            parts.append(_complement(_union(point)))
        elif sign in ("<", "<="):
            parts.append(_union([Piece(_MINUS_INFINITE, right, True, sign == "<")]))
        else:
            parts.append(_union([Piece(right, _INFINITE, sign == ">", True)]))
    return _intersection(parts)


def _size(node: Node) -> float:
    if node == _INFINITE:
        return float("inf")
    if node == _MINUS_INFINITE:
        return float("-inf")
    if symbols(node):
        raise _NoOrder
    value = complex(value_at(node, {})[0])
    if abs(value.imag) > 1e-12:
        raise _NoOrder
    return value.real


def _union(pieces: list[Piece]) -> list[Piece]:
    """Pieces in their order, without empty ones, those that touch made one."""
    found: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: (_size(piece.low), piece.low_open)):
        low, high = _size(piece.low), _size(piece.high)
        piece = piece._replace(
            low_open=piece.low_open or low == float("-inf"), high_open=piece.high_open or high == float("inf")
        )
        if low > high or (low == high and (piece.low_open or piece.high_open)):
            continue
        last = found[-1] if found else None
        if last is None or low > _size(last.high) or (low == _size(last.high) and last.high_open and piece.low_open):
            found.append(piece)
        elif (high, not piece.high_open) > (_size(last.high), not last.high_open):
            found[-1] = last._replace(high=piece.high, high_open=piece.high_open)
    return found


def _complement(pieces: list[Piece]) -> list[Piece]:
    found, low, low_open = [], _MINUS_INFINITE, True
    for piece in pieces:
        found.append(Piece(low, piece.low, low_open, not piece.low_open))
        low, low_open = piece.high, not piece.high_open
    return _union([*found, Piece(low, _INFINITE, low_open, True)])


def _intersection(parts: list[list[Piece]]) -> list[Piece]:
    return _complement(_union([piece for pieces in parts for piece in _complement(pieces)]))


# ---- Equations, and inequalities of several variables ----


def _same_relation(gold: Node, answer: Node) -> bool:
    """The same chain, from either end; or one equation or inequality, its sides brought to one and scaled."""
    (_, gold_signs, gold_nodes), (_, signs, nodes) = gold, answer
    flipped = tuple(_FLIPPED.get(sign, "") for sign in reversed(signs))
    if gold_signs == signs and _same_items(gold_nodes, nodes):
        return True
    if gold_signs == flipped and _same_items(gold_nodes, tuple(reversed(nodes))):
        return True
    if len(signs) != 1 or len(gold_signs) != 1 or "in" in (signs[0], gold_signs[0]):
        return False
    factor = _factor(
        *(("add", left, ("mul", ("num", Fraction(-1), False), right)) for left, right in (gold_nodes, nodes))
    )
    if factor is None:
        return False
    equal = {"=", "!=", "~"}
    return gold_signs[0] == (signs[0] if factor > 0 or signs[0] in equal else _FLIPPED[signs[0]])


def _factor(gold: Node, answer: Node) -> float | None:
    """The constant that an answer is to be multiplied with to be the gold; `None` if there is none."""
    factors = []
    for point in points(symbols(gold) | symbols(answer)):
        try:
            left, right = (complex(value_at(node, point)[0]) for node in (gold, answer))
        except Undefined:
            continue
        if right and left:
            factors.append(left / right)
        elif left or right:
            return None
    if len(factors) < 3 or any(abs(factor - factors[0]) > 1e-9 * abs(factors[0]) for factor in factors):
        return None
    return factors[0].real if abs(factors[0].imag) < 1e-9 * abs(factors[0]) else None


# ---- Several things ----


def _several(node: Node) -> str | None:
    """How things stand together: as a `list` or `set` in any order, as a `tuple`; `None` for one expression."""
    if node[0] == "list":
        return "list"
    if node[0] == "bracket":
        return "set" if node[1] == r"\{" else "tuple"
    return "tuple" if node[0] == "matrix" else None


def _items(node: Node) -> tuple[Node, ...]:
    if node[0] == "matrix":
        rows = node[1]
        return tuple(row[0] for row in rows) if len(rows[0]) == 1 else rows[0] if len(rows) == 1 else ()
    return node[1] if node[0] == "list" else node[2] if node[0] == "bracket" else (node,)


def _same_several(gold: Node, answer: Node, gold_kind: str | None, kind: str | None) -> bool:
    items, others = _items(gold), _items(answer)
    if gold[0] == answer[0] == "matrix":
        return [len(row) for row in gold[1]] == [len(row) for row in answer[1]] and _same_items(
            sum(gold[1], ()), sum(answer[1], ())
        )
    if gold_kind is None:  # `1/2 or 0.5`, `{5}`
        return bool(others) and kind != "tuple" and all(same(gold, item) for item in others)
    if kind is None:
        return len(items) == 1 and same(items[0], answer)
    if {gold_kind, kind} == {"set", "tuple"}:
        return False
    if ("dots",) in items or ("dots",) in others:
        return _same_progression(items, others)
    is_ordered = "tuple" in (gold_kind, kind)
    if not is_ordered and all(item[0] == "bracket" for item in items + others):  # solutions, each counted once
        items, others = (tuple(dict.fromkeys(side)) for side in (items, others))
    if is_ordered and len(items) == 2 and _ends(gold) != _ends(answer):
        return False
    return _same_items(items, others, is_ordered)


def _ends(node: Node) -> tuple[str, str]:
    """`[1, 2]` is an interval, all others are pairs."""
    return (node[1], node[3]) if node[0] == "bracket" and "[" in node[1] + node[3] else ("(", ")")


def _same_items(items: tuple[Node, ...], others: tuple[Node, ...], is_ordered: bool = True) -> bool:
    if len(items) != len(others):
        return False
    if is_ordered:
        return all(same(item, other) for item, other in zip(items, others, strict=True))
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
    (start, end), (other_start, other_end) = (
        (side[: side.index(("dots",))], side[side.index(("dots",)) + 1 :]) for side in (items, others)
    )
    shorter, longer = sorted((start, other_start), key=len)
    if len(shorter) < 2 or not _same_items(end, other_end) or not _same_items(shorter, longer[: len(shorter)]):
        return False
    steps = [
        ("add", after, ("mul", ("num", Fraction(-1), False), before))
        for before, after in zip(longer, longer[1:], strict=False)
    ]
    return len(longer) == len(shorter) or all(same_value(steps[0], step) for step in steps)
