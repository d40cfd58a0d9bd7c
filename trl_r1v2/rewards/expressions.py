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

import functools
import itertools
from fractions import Fraction

from .notation import ENDING, FUNCTIONS, OPENING, Node, Token, Unreadable, tokens_of


# Deeper nesting is no answer, and would exhaust Python's stack. Ours.
MAX_DEPTH = 30
# Letters that stand for a function where a bracket follows; others are factors, as in `x(x+1)`.
_APPLIED = frozenset("fghFGH")
_RELATIONS = frozenset(("=", "~", "<", ">", "<=", ">=", "!=", "in"))
_CLOSING = {"(": ")]", "[": ")]", "{": "}", r"\{": (r"\}",), "⟨": "⟩"}
_FENCES = {"|": ("abs", "|"), "⌊": ("floor", "⌋"), "⌈": ("ceil", "⌉")}
_FIXED = {"∞": ("const", "oo"), "∅": ("bracket", r"\{", (), r"\}"), "…": ("dots",)}
_OF_TWO = {"frac": ("div",), "binom": ("call", "binomial")}
_SETS = {"∪": "cup", "∩": "cap", "∖": "without"}
_EXPRESSIONS = frozenset(("num", "based", "sym", "const", "add", "mul", "div", "pow", "root", "log", "call"))
_FACTORS = frozenset(("atom", "call", "(", "[", "{", "√", "∛", "frac", "binom", "⌊", "⌈", "|"))


def _integer(value: int) -> Node:
    return ("num", Fraction(value), False)


_DEGREE = ("div", ("const", "pi"), _integer(180))
_PERCENT = ("num", Fraction(1, 100), False)


class _Parser:
    """Recursive descent over the tokens of one item; the levels are named after what binds at them."""

    def __init__(self, tokens: list[Token]):
        self.tokens = [*tokens, Token("end")]
        self.at = 0
        self.depth = 0
        self.open_bars = 0  # of absolute values inside the innermost bracket

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
        while self.kind in _SETS:
            left = (_SETS[self.take().kind], left, self.sum())
        return left

    def sum(self) -> Node:
        left = self.product()
        while self.kind in ("+", "-"):
            sign = self.take().kind
            right = _expression(self.product())
            left = ("add", _expression(left), right if sign == "+" else negative(right))
        return left

    def signed(self, level) -> Node:
        """What a level reads, with any signs before it."""
        if self.kind not in ("+", "-"):
            return _expression(level())
        sign, node = self.take().kind, self.signed(level)
        return node if sign == "+" else negative(node)

    def product(self) -> Node:
        if self.kind in ("+", "-"):
            return self.signed(self.product)
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
        while self.kind in _FACTORS and not (self.kind == "|" and self.open_bars):
            if self.kind == "atom" and self.tokens[self.at].value[0] in ("num", "based"):
                return self.mixed(left)
            is_fraction = self.kind == "frac"
            right = self.power()
            is_sum = is_fraction and _is_integer(left) and _is_proper(right)
            left = ("add" if is_sum else "mul", _expression(left), _expression(right))
        return left

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
        exponent = self.signed(self.power)
        if self.kind == "!":
            raise Unreadable("a factorial behind a power")
        return ("pow", _expression(base), exponent)

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
                node = ("mul", _expression(node), _PERCENT if sign == "%" else _DEGREE)
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
        node = self.opened(self.take())
        self.depth -= 1
        return node

    def opened(self, token: Token) -> Node:
        """The node that a token opens."""
        if token.kind == "atom":
            return token.value
        if token.kind in _FIXED:
            return _FIXED[token.kind]
        if token.kind == "matrix":
            return _matrix(token.value)
        if token.kind == "call":
            return self.call(token.value)
        if token.kind in ("√", "∛"):
            index = _integer(2 if token.kind == "√" else 3)
            if token.kind == "√" and self.kind == "[":
                index = self.group("[", "]")
            return ("root", self.argument(), index)
        if token.kind in _OF_TWO:
            return (*_OF_TWO[token.kind], self.argument(), self.argument())
        if token.kind in _FENCES:
            name, closing = _FENCES[token.kind]
            self.open_bars += token.kind == "|"
            inside = _expression(self.sum())
            self.expect(closing)
            self.open_bars -= token.kind == "|"
            return ("call", name, inside)
        self.at -= 1
        return self.bracket()

    def argument(self) -> Node:
        """What stands behind `\\sqrt`, `\\frac`: a group, or one sign."""
        return _expression(self.group("{", "}") if self.kind == "{" else self.atom())

    def group(self, opening: str, closing: str) -> Node:
        self.expect(opening)
        bars, self.open_bars = self.open_bars, 0
        node = _expression(self.sum())
        self.open_bars = bars
        self.expect(closing)
        return node

    def call(self, name: str) -> Node:
        """A function: `\\sin^2 x` and `\\log_2 x` have a power or base of one sign or a group."""
        base = power = None
        if self.kind == "base":
            self.take()
            base = self.group("{", "}")
        if self.kind == "^":
            self.take()
            power = self.signed(lambda: self.group("{", "}") if self.kind == "{" else self.expect("atom").value)
        if name in ("max", "min", "gcd", "lcm"):
            inside = self.bracket()
            items = inside[2] if inside[0] == "bracket" else (inside,)
            node = ("call", name, *map(_expression, items))
        else:
            argument = self.signed(self.argument_of_function)
            if power == _integer(-1) and f"a{name}" in FUNCTIONS:
                name, power = f"a{name}", None
            is_log = name in ("log", "lg")
            node = ("log", argument, base or _integer(10)) if is_log else ("call", name, argument)
        return ("pow", node, power) if power is not None else node

    def argument_of_function(self) -> Node:
        """A group, or a product up to the next sign or function: `\\sin 2x`, `\\ln(x+1)`, `\\cos x \\sin y`."""
        if self.kind in ("(", "{", "[", "|"):
            return self.postfix()
        node = self.power()
        while self.kind in ("√", "frac") or (self.kind == "atom" and self.tokens[self.at].value[0] != "num"):
            node = ("mul", _expression(node), _expression(self.power()))
        return node

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
        for start in (["atom"], ["atom", "in", "atom"]):
            if kinds[: len(start)] == start and kinds[len(start)] in ("|", ":"):
                self.at += len(start) + 1
                return True
        return False


def _expression(node: Node) -> Node:
    if node[0] not in _EXPRESSIONS:
        raise Unreadable(f"a {node[0]} inside an expression")
    return node


def negative(node: Node) -> Node:
    """The tree of `-node`."""
    return ("num", -node[1], node[2]) if node[0] == "num" else ("mul", _integer(-1), node)


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
    signs = [index for index, token in enumerate(tokens) if token.kind in ("±", "∓")]
    if len(signs) > 1:
        raise Unreadable("several ± in one expression")
    if not signs:
        return [_whole(tokens)]
    return [_whole([*tokens[: signs[0]], Token(sign), *tokens[signs[0] + 1 :]]) for sign in "+-"]


@functools.lru_cache(maxsize=4096)
def read(text: str) -> Node:
    r"""
    The tree of a text that [`~trl_r1v2.rewards.notation.normalised`] returns: `1/2` is `("div", ("num", 1, False),
    ("num", 2, False))`. Raises [`Unreadable`] if anything in it is not understood.
    """
    try:
        return _listed(tokens_of(text))
    except RecursionError as error:
        raise Unreadable("nested too deeply") from error


def _listed(tokens: list[Token]) -> Node:
    """Items between commas, "and" and "or"; of `a, b; c, d` the semicolons part lists."""
    items: list[Node] = []
    words: list[str] = []
    start = 0
    tokens = [*tokens, Token("end")]
    depths = list(itertools.accumulate((token.kind in OPENING) - (token.kind in ENDING) for token in tokens))
    outer = {token.kind for token, depth in zip(tokens, depths, strict=True) if depth == 0}
    splits = (";",) if {";", ","} <= outer else (",", ";", "and", "or")
    for at, (token, depth) in enumerate(zip(tokens, depths, strict=True)):
        if token.kind == "end" or (depth == 0 and token.kind in splits):
            if at > start:
                items += [_listed(tokens[start:at])] if splits == (";",) else _item(tokens[start:at])
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
