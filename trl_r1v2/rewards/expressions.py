# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
Reads mathematics into trees: `\frac{\pi}{2}`, `pi/2`, `√17`, `[0, 1)`, `x^2 + 1 = 0`, `x < -2 or x > 5`.

The whole text or nothing: what the grammar does not know raises [`Unreadable`], so that no part of an answer is ever
taken for the answer. Pure, linear in the length of the text. Does not cover what a tree is worth (`numeric.py`), when
two are equal (`equality.py`), units and words (`quantities.py`, `comparison.py`), nor sums, integrals and limits.

A tree is a tuple that begins with its kind. Expressions: `num value is_decimal`, `based digits base`, `sym name`,
`const name`, `add a b`, `mul a b`, `div a b`, `pow a b`, `root a n`, `log a base`, `call name a…`. The rest: `bracket
open items close`, `list items words`, `rel signs nodes`, `cup a b`, `cap a b`, `without a b`,
`matrix rows`, `dots`.
"""

import itertools
from fractions import Fraction

from .tokens import ENDING, FUNCTIONS, OPENING, Node, Token, Unreadable, tokens_of


# Deeper nesting is no answer, and would exhaust Python's stack. Ours.
MAX_DEPTH = 30
# Letters that stand for a function where a bracket follows; others are factors, as in `x(x+1)`.
_APPLIED = frozenset("fghFGH")
_RELATIONS = frozenset(("=", "~", "<", ">", "<=", ">=", "!=", "in"))
_CLOSING = {"(": ")]", "[": ")]", "{": "}", r"\{": (r"\}",), "⟨": "⟩"}
_EXPRESSIONS = frozenset(("num", "based", "sym", "const", "add", "mul", "div", "pow", "root", "log", "call"))


class _Parser:
    """Recursive descent over the tokens of one item; the levels are named after what binds at them."""

    def __init__(self, tokens: list[Token]):
        self.tokens = [*tokens, Token("end")]
        self.at = 0
        self.depth = 0

    @property
    def kind(self) -> str:
        return self.tokens[self.at].kind

    def take(self) -> Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, *kinds: str) -> Token:
        if self.kind not in kinds:
            raise Unreadable(f"{self.kind} where {' or '.join(kinds)} is expected")
        return self.take()

    def relation(self) -> Node:
        """An expression or set, or a chain such as `0 < x <= 1`."""
        # `\geq 3` is about something that the question names
        nodes, signs = [("sym", "?") if self.kind in _RELATIONS else self.ratio()], []
        while self.kind in _RELATIONS:
            signs.append(self.take().kind)
            nodes.append(self.ratio())
        return ("rel", tuple(signs), tuple(nodes)) if signs else nodes[0]

    def ratio(self) -> Node:
        """`2:3` is a fraction, `1:2:3` a tuple."""
        nodes = [self.sets()]
        while self.kind == ":":
            self.take()
            nodes.append(_expression(self.sets()))
        if len(nodes) > 2:
            return ("bracket", "(", tuple(nodes), ")")
        return ("div", *nodes) if len(nodes) == 2 else nodes[0]

    def sets(self) -> Node:
        left = self.sum()
        while self.kind in ("∪", "∩", "∖"):
            kind = {"∪": "cup", "∩": "cap", "∖": "without"}[self.take().kind]
            left = (kind, left, self.sum())
        return left

    def sum(self) -> Node:
        left = self.product()
        while self.kind in ("+", "-"):
            sign = self.take().kind
            right = _expression(self.product())
            left = ("add", _expression(left), right if sign == "+" else _negative(right))
        return left

    def product(self) -> Node:
        if self.kind in ("+", "-"):
            return _expression(self.product()) if self.take().kind == "+" else _negative(_expression(self.product()))
        left = self.factors(self.power())
        while self.kind in ("*", "/"):
            kind = "mul" if self.take().kind == "*" else "div"
            if self.kind in ("+", "-"):
                right = self.product()
            else:
                right = self.power()
                # 1/2x is half an x, a/bc has bc below
                if not (kind == "div" and left[0] == right[0] == "num"):
                    right = self.factors(right)
            left = self.factors((kind, _expression(left), _expression(right)))
        return left

    def factors(self, left: Node) -> Node:
        """What is multiplied without a sign: `2x`, `3\\sqrt{2}`; `1 1/2` and `1\\frac{1}{2}` are sums."""
        while self.kind in ("atom", "call", "(", "[", "{", "√", "∛", "frac", "binom", "⌊", "⌈", "|"):
            if self.kind == "|" and self.closes_bar():
                break
            if self.kind == "atom" and self.tokens[self.at].value[0] in ("num", "based"):
                return self.mixed(left)
            is_fraction = self.kind == "frac"
            right = self.power()
            if is_fraction and _is_integer(left) and _is_proper(right):
                left = ("add", left, right)
            else:
                left = ("mul", _expression(left), _expression(right))
        return left

    def closes_bar(self) -> bool:
        return self.open_bars > 0

    open_bars = 0

    def mixed(self, left: Node) -> Node:
        kinds = [token.kind for token in self.tokens[self.at + 1 : self.at + 3]]
        if _is_integer(left) and kinds == ["/", "atom"] and self.tokens[self.at].spaced:
            fraction = ("div", self.take().value, (self.take(), self.take())[1].value)
            if _is_proper(fraction):
                return ("add", left, fraction)
        raise Unreadable("two numbers side by side")

    def power(self) -> Node:
        base = self.postfix()
        if self.kind != "^":
            return base
        self.take()
        exponent = self.exponent()
        if self.kind == "!":
            raise Unreadable("a factorial behind a power")
        return ("pow", _expression(base), exponent)

    def exponent(self) -> Node:
        if self.kind in ("+", "-"):
            return self.exponent() if self.take().kind == "+" else _negative(self.exponent())
        return _expression(self.power())

    def postfix(self) -> Node:
        node = self.atom()
        while self.kind in ("!", "%", "°", "'"):
            sign = self.take().kind
            if sign == "'":
                if node[0] != "sym":
                    raise Unreadable("a prime behind something else than a name")
                node = ("sym", f"{node[1]}'")
            elif sign == "!":
                node = ("call", "factorial", _expression(node))
            else:
                node = ("mul", _expression(node), ("num", Fraction(1, 100), False) if sign == "%" else _DEGREE)
        if node[0] == "sym" and self.kind == "(" and not self.tokens[self.at].spaced:
            return self.applied(node)
        return node

    def applied(self, node: Node) -> Node:
        """`f(x)` is a function of which nothing is known, `x(x+1)` a product, `P(X = 1)` a name."""
        before = self.at
        inside = self.bracket()
        if node[1][0] in _APPLIED or inside[0] == "rel":
            return ("call", f"function {node[1]}", *(inside[2] if inside[0] == "bracket" else (inside,)))
        self.at = before
        return node

    def atom(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        token = self.take()
        match token.kind:
            case "atom":
                node = token.value
            case "matrix":
                node = _matrix(token.value)
            case "call":
                node = self.call(token.value)
            case "√":
                index = self.bracketed("[", "]") if self.kind == "[" else ("num", Fraction(2), False)
                node = ("root", self.argument(), index)
            case "∛":
                node = ("root", self.argument(), ("num", Fraction(3), False))
            case "frac":
                node = ("div", self.argument(), self.argument())
            case "binom":
                node = ("call", "binomial", self.argument(), self.argument())
            case "∞":
                node = ("const", "oo")
            case "∅":
                node = ("bracket", r"\{", (), r"\}")
            case "…":
                node = ("dots",)
            case "|":
                self.open_bars += 1
                node = ("call", "abs", _expression(self.sum()))
                self.expect("|")
                self.open_bars -= 1
            case "⌊" | "⌈":
                node = ("call", "floor" if token.kind == "⌊" else "ceiling", _expression(self.sum()))
                self.expect("⌋" if token.kind == "⌊" else "⌉")
            case _:
                self.at -= 1
                node = self.bracket()
        self.depth -= 1
        return node

    def argument(self) -> Node:
        """What stands behind `\\sqrt`, `\\frac`: a group, or one sign."""
        return _expression(self.bracketed("{", "}") if self.kind == "{" else self.atom())

    def bracketed(self, opening: str, closing: str) -> Node:
        self.expect(opening)
        bars, self.open_bars = self.open_bars, 0
        node = _expression(self.sum())
        self.open_bars = bars
        self.expect(closing)
        return node

    def call(self, name: str) -> Node:
        base = None
        if self.kind == "base":
            self.take()
            base = self.bracketed("{", "}")
        power = None
        if self.kind == "^":
            self.take()
            power = self.exponent_of_function()
        if name in ("max", "min", "gcd", "lcm"):
            inside = self.bracket()
            items = inside[2] if inside[0] == "bracket" else (inside,)
            node = ("call", name, *map(_expression, items))
        else:
            argument = self.function_argument()
            if power == ("num", Fraction(-1), False) and f"arc{name}" in FUNCTIONS:
                name, power = f"arc{name}", None
            if name == "log" or name == "lg":
                node = ("log", argument, base or ("num", Fraction(10), False))
            else:
                node = ("call", name, argument)
        return ("pow", node, power) if power is not None else node

    def exponent_of_function(self) -> Node:
        """`\\sin^2 x`, `\\sin^{-1} x`: one sign or a group."""
        if self.kind == "-":
            self.take()
            return _negative(self.exponent_of_function())
        return _expression(self.bracketed("{", "}") if self.kind == "{" else self.expect("atom").value)

    def function_argument(self) -> Node:
        """A group, or a product up to the next sign or function: `\\sin 2x`, `\\ln(x+1)`, `\\cos x \\sin y`."""
        if self.kind in ("(", "{", "[", "|"):
            return _expression(self.postfix())
        if self.kind == "-":
            self.take()
            return _negative(self.function_argument())
        node = self.power()
        while self.kind in ("atom", "√", "frac") and not (
            self.kind == "atom" and self.tokens[self.at].value[0] == "num"
        ):
            node = ("mul", _expression(node), _expression(self.power()))
        return _expression(node)

    def bracket(self) -> Node:
        opening = self.expect("(", "[", "{", r"\{", "⟨").kind
        bars, self.open_bars = self.open_bars, 0
        items: list[Node] = []
        words: set[str] = set()
        is_built = opening == r"\{" and self.takes_name_of_set()
        if self.kind not in _CLOSING[opening]:
            items = [self.relation()]
            while self.kind in (",", ";") or (is_built and self.kind in ("and", "or")):
                words.add(self.take().kind)
                items.append(self.relation())
        closing = self.expect(*_CLOSING[opening]).kind
        self.open_bars = bars
        if is_built:
            return ("list", tuple(items), frozenset(words))
        if len(items) == 1 and opening in "([{":
            return items[0]
        if opening == "{":  # a set whose braces lost their backslash
            opening, closing = r"\{", r"\}"
        return ("bracket", opening, tuple(items), closing)

    def takes_name_of_set(self) -> bool:
        """Whether `x |`, `x :` or `x \\in S |` begins a set; it is what the condition behind it says."""
        kinds = [token.kind for token in self.tokens[self.at : self.at + 4]]
        size = (
            2 if kinds[1:2] in (["|"], [":"]) else 4 if kinds[1:] in (["in", "atom", "|"], ["in", "atom", ":"]) else 0
        )
        if not size or kinds[0] != "atom":
            return False
        self.at += size
        return True


_DEGREE = ("div", ("const", "pi"), ("num", Fraction(180), False))


def _expression(node: Node) -> Node:
    if node[0] not in _EXPRESSIONS and node != ("const", "oo"):
        raise Unreadable(f"a {node[0]} inside an expression")
    return node


def _negative(node: Node) -> Node:
    if node[0] == "num":
        return ("num", -node[1], node[2])
    return ("mul", ("num", Fraction(-1), False), node)


def _is_integer(node: Node) -> bool:
    return node[0] == "num" and node[1].denominator == 1 and not node[2]


def _is_proper(node: Node) -> bool:
    """Whether a node is a fraction of integers between 0 and 1."""
    return node[0] == "div" and _is_integer(node[1]) and _is_integer(node[2]) and 0 < node[1][1] < node[2][1]


def _whole(tokens: list[Token]) -> Node:
    parser = _Parser(tokens)
    node = parser.relation()
    parser.expect("end")
    return node


def _item(tokens: list[Token]) -> list[Node]:
    """An item of a list; one with ± is two."""
    num_signs = sum(token.kind in ("±", "∓") for token in tokens)
    if num_signs == 0:
        return [_whole(tokens)]
    if num_signs > 1:
        raise Unreadable("several ± in one expression")
    at = next(index for index, token in enumerate(tokens) if token.kind in ("±", "∓"))
    return [_whole([*tokens[:at], Token(sign), *tokens[at + 1 :]]) for sign in "+-"]


def read(text: str) -> Node:
    r"""
    Read a normalised text.

    Args:
        text (`str`):
            What [`~trl_r1v2.rewards.notation.normalised`] returns.

    Returns:
        `tuple`: The tree.

    Raises:
        `Unreadable`: If anything in the text is not understood.

    Example:

    ```python
    >>> read("1/2")
    ('div', ('num', Fraction(1, 1), False), ('num', Fraction(2, 1), False))
    ```
    """
    try:
        return _listed([*tokens_of(text), Token("end")])
    except RecursionError as error:
        raise Unreadable("nested too deeply") from error


def _depths(tokens: list[Token]) -> list[int]:
    """How many brackets are open behind each token."""
    return list(itertools.accumulate((token.kind in OPENING) - (token.kind in ENDING) for token in tokens))


def _listed(tokens: list[Token]) -> Node:
    """Items between commas, "and" and "or"; of `a, b; c, d` the semicolons part lists."""
    items: list[Node] = []
    words: list[str] = []
    start = 0
    outer = [token.kind for token, depth in zip(tokens, _depths(tokens), strict=True) if depth == 0]
    splits = (";",) if ";" in outer and "," in outer else (",", ";", "and", "or")
    for at, (token, depth) in enumerate(zip(tokens, _depths(tokens), strict=True)):
        if token.kind == "end" or (depth == 0 and token.kind in splits):
            if at > start:
                items += [_listed([*tokens[start:at], Token("end")])] if splits == (";",) else _item(tokens[start:at])
                words.append(token.kind)
            elif not (words and token.kind in ("and", "or")):  # `a, and b`
                raise Unreadable("nothing between two signs")
            else:
                words[-1] = token.kind
            start = at + 1
    return items[0] if len(items) == 1 else ("list", tuple(items), frozenset(words[:-1]) or frozenset((",",)))


def _matrix(rows: str) -> Node:
    cells = [[_whole(tokens_of(cell)) for cell in row.split("&")] for row in rows.split(r"\\") if row.strip()]
    if not cells or len({len(row) for row in cells}) != 1:
        raise Unreadable("rows of unlike length")
    return ("matrix", tuple(map(tuple, cells)))
