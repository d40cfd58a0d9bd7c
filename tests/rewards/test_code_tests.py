# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Rows of tests: which names they take from a solution, what crosses to it and back, and forms that are refused."""

import json
import shutil
import textwrap

import pytest

from trl_r1v2.rewards import CodeReward, Sandbox
from trl_r1v2.rewards.code.row_tests import names_of_solution, row_tests


needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


@pytest.fixture(scope="module")
def reward():
    return CodeReward(Sandbox(cpu_seconds=4, memory_mb=256, max_processes=8), seconds=30.0, num_workers=2)


def judged(reward, source, tests, **columns):
    """Reward of one solution."""
    block = f"```python\n{textwrap.dedent(source)}\n```"
    return reward(completions=[block], tests=[tests], **{name: [value] for name, value in columns.items()})[0]


LOOPS = [
    "for got, want in zip(map(f, [1, 2]), [2, 3]):\n    assert got == want",
    "assert all(map(lambda a: f(a) == a + 1, [1, 2, 3]))",
    "assert not any(map(lambda a: f(a) != a + 1, [1, 2, 3]))",
    "async def g():\n    return [f(1) == 2]\ntry:\n    g().send(None)\nexcept StopIteration as end:\n"
    "    assert end.value == [True]",
    "def g():\n    yield f(1) == 2\nassert list(g()) == [True]",
]
ENDS = ("StopIteration", "StopAsyncIteration", "GeneratorExit", "SystemExit(0)", "KeyboardInterrupt", "BaseException")


@needs_bwrap
@pytest.mark.parametrize("end", [*ENDS, "type('Own', (StopIteration,), {})", "ExceptionGroup('g', [StopIteration()])"])
def test_what_ends_a_loop_is_a_failure(reward, end):
    """Each test fails by itself: the process that answers lives on."""
    source = f"def f(x):\n    if x != 9:\n        raise {end}\n    return 10"
    assert judged(reward, source, [*LOOPS, "assert f(9) == 10"]) == pytest.approx(1 / 6)
    check = (
        "def check(candidate):\n    for got, want in zip(map(candidate, [1, 2]), [2, 3]):\n        assert got == want"
    )
    assert judged(reward, source, check, entry_point="f") == 0.0
    honest = "def f(x):\n    return x + 1"
    assert judged(reward, honest, LOOPS) == judged(reward, honest, check, entry_point="f") == 1.0


@needs_bwrap
def test_exceptions_that_tests_expect(reward):
    source = """
        import os
        def f(kind):
            if kind == 'end':
                os._exit(0)
            raise {'value': ValueError('bad'), 'key': KeyError('k'), 'zero': ZeroDivisionError()}[kind]
    """
    raises = (
        "import unittest\n"
        "class T(unittest.TestCase):\n"
        "    def runTest(self):\n"
        "        with self.assertRaisesRegex(ValueError, 'bad'):\n"
        "            f('value')\n"
        "assert T().run().wasSuccessful()"
    )
    caught = "try:\n    f({kind!r})\n    raise SystemExit\nexcept {error}:\n    pass"
    tests = [
        raises,
        caught.format(kind="zero", error="ZeroDivisionError"),
        caught.format(kind="key", error="ValueError"),
    ]
    assert judged(reward, source, tests) == pytest.approx(2 / 3)
    # A solution that ends is not one that raises what an empty input raises.
    assert judged(reward, source, [caught.format(kind="end", error="(EOFError, OSError)")]) == 0.0


@needs_bwrap
def test_a_solution_named_like_a_builtin(reward):
    source = "def sum(a, b):\n    return len([d for d in range(1, a + 1) if a % d == 0 == b % d]) * 3"
    assert judged(reward, source, ["assert sum(10, 15) == 6", "assert sum(4, 6) == 6"]) == 1.0
    assert judged(reward, source, ["assert sum([1, 2]) == 3", "assert sum([4]) == 4"]) == 0.0
    check = "def check(candidate):\n    assert candidate(10, 15) == 6 and len([candidate(4, 6)]) == 1"
    assert judged(reward, source, check, entry_point="sum") == 1.0
    assert judged(reward, source, {"inputs": [[10, 15]], "outputs": [6], "fn_name": "sum"}) == 1.0


@needs_bwrap
@pytest.mark.parametrize(
    "test",
    [
        "assert all(f(x) == x + 1 for x in [1, 2])",
        "from solution import f\nassert all([f(1) == 2])",
        "import solution\nassert all([solution.f(1) == 2])",
    ],
)
def test_a_solution_does_not_replace_other_builtins_of_the_tests(reward, test):
    assert judged(reward, "def f(x): return 0\ndef all(x): return True", [test]) == 0.0
    assert judged(reward, "def f(x): return x + 1\ndef all(x): return False", [test]) == 1.0


def test_names_of_solution():
    assert names_of_solution(["assert sum(10, 15) == 6", "x = 3\nassert sum(x, 2) == 1"]) == {"sum"}
    assert names_of_solution(["assert sum(10, 15) == 6", "assert max(1, 2) == 2"]) == set()
    assert names_of_solution(["assert set(sum(1, 2)) == {3}"]) == set()
    assert names_of_solution(["assert sum(f(3)) == 6"]) == {"f"}
    assert names_of_solution(["from solution import f\nassert sum(f(3)) == 6"]) == set()
    assert names_of_solution(["def sum(a):\n    return a\nassert sum(1) == 1"]) == set()


@needs_bwrap
def test_import_from_solution(reward):
    source = "class Box:\n    def __init__(self, x): self.x = x\ndef f(x): return x + 1"
    tests = [
        "from solution import f, Box\nassert f(1) == 2 and Box(3).x == 3",
        "import solution as s\nassert s.f(1) == 2",
        "from solution import *\nassert f(1) == 2",
        "from solution import missing\nassert missing(1) == 2",
        "from solution import f\nassert f(1) == 3",
    ]
    assert judged(reward, source, tests) == 0.6


@needs_bwrap
def test_attributes_of_objects_can_be_set(reward):
    source = """
        class Node:
            def __init__(self, value, left=None, right=None):
                self.value, self.left, self.right = value, left, right
        def height(node):
            return 0 if node is None else 1 + max(height(node.left), height(node.right))
        def find(node, value):
            return node if node is None or node.value == value else find(node.left, value) or find(node.right, value)
        def twice(function, x):
            return function(function(x))
        def half(x):
            return x // 2
    """
    tree = "root = Node(1)\nroot.left = Node(2)\nroot.right = Node(3)\nroot.left.left = Node(4)\n"
    tests = [
        tree + "assert height(root) == 3",
        tree + "root.left = None\nassert height(root) == 2 and root.left is None",
        tree + "root.value = [1, {2}]\nassert root.value == [1, {2}]",
        tree + "assert find(root, 4) is root.left.left and find(root, 2) != root.right",
        "assert twice(half, 12) == 3",
        # Special names and what is not plain data are refused, not lost.
        tree + "root.__class__ = Node",
        tree + "root.left = lambda: 0",
    ]
    assert [judged(reward, source, [test]) for test in tests] == [1.0] * 5 + [0.0] * 2


@needs_bwrap
def test_tuples_are_lists_in_pairs(reward):
    source = "def f(x):\n    return {'t': (1, 2), 'n': [(1, (2,))], 'd': {'k': (1,)}, 's': 'ab', 'i': float('inf')}[x]"
    pairs = {
        "inputs": [["t"], ["n"], ["d"], ["i"], ["s"], ["t"]],
        "outputs": [[1, 2], [[1, [2]]], {"k": [1]}, float("inf"), ["a", "b"], [2, 1]],
        "fn_name": "f",
    }
    assert judged(reward, source, pairs) == pytest.approx(4 / 6)
    assert judged(reward, source, json.dumps(pairs)) == pytest.approx(4 / 6)
    method = {"inputs": [[2]], "outputs": [4], "fn_name": "Solution().double"}
    assert judged(reward, "class Solution:\n    def double(self, x): return 2 * x", method) == 1.0
    assert judged(reward, source, ["assert f('t') == [1, 2]"]) == 0.0  # test code means what it says


@needs_bwrap
def test_numbers_and_deques_cross(reward):
    source = """
        from collections import deque
        from decimal import Decimal
        from fractions import Fraction
        def f(x): return {'f': Fraction(1, 3), 'd': Decimal('0.10'), 'q': deque([1, (2,)], 5), 'n': -(7 ** 9000)}[x]
        def same(x): return x
        def rotate(queue): queue.rotate(1)
    """
    tests = [
        "from fractions import Fraction\nassert f('f') == Fraction(1, 3) and same(Fraction(-2, 6)) == -f('f')",
        "from decimal import Decimal\nassert str(f('d')) == '0.10' and same(Decimal('-Infinity')) < 0",
        "assert list(f('q')) == [1, (2,)] and f('q').maxlen == 5",
        "from collections import deque\nq = deque([1, 2, 3])\nrotate(q)\nassert q == deque([3, 1, 2])",
        "assert f('n') == -(7 ** 9000) and same(2 ** 63) == 2 ** 63 and same(-(2 ** 63)) == -(2 ** 63)",
        "assert f('f') == 0.5",
    ]
    assert [judged(reward, source, [test]) for test in tests] == [1.0] * 5 + [0.0]


WRONG = [
    5,
    {"foo": 1},
    {"inputs": [1], "outputs": [1]},
    {"inputs": ["1"], "outputs": [1]},
    {"inputs": ["1"], "outputs": ["1", "2"]},
    {"inputs": "1", "outputs": "1"},
    {"inputs": [1], "outputs": [1], "fn_name": "f"},
    {"inputs": [[1]], "outputs": [1], "fn_name": 3},
    {"inputs": [[1]], "outputs": [object()], "fn_name": "f"},
    ["assert f(1) == 2", 7],
    '[{"a": 1}]',
]


@pytest.mark.parametrize("wrong", WRONG)
def test_tests_of_another_form_are_refused_with_their_row(wrong):
    with pytest.raises(ValueError, match=r"^row 3 (is .*; it must be .*`inputs` and `outputs`|holds a object; .*)"):
        row_tests(wrong, None, "row 3")


@needs_bwrap
def test_the_row_is_named(reward):
    right, wrong = ["assert f(1) == 2"], ["assert f(1) == 2", 7]
    with pytest.raises(
        ValueError, match=r"^code_reward: row 1 of the column 'tests' is \['assert f\(1\) == 2', 7\]; it"
    ):
        reward(completions=["none"] * 3, tests=[right, wrong, wrong])
    with pytest.raises(ValueError, match=r"row 0 of the column 'tests' is 3; it must be the name of a function"):
        reward(completions=["none"], tests=[right], entry_point=[3])


@pytest.mark.parametrize(
    "none", [None, "", [], (), {}, {"inputs": [], "outputs": []}, {"inputs": None, "outputs": None}]
)
def test_rows_without_tests(none):
    assert row_tests(none, None, "row 0") is None


@needs_bwrap
def test_test_code_that_does_not_parse_is_not_judged(reward):
    tests = ["{not json", "assert f(", "assert f(1) == '\0'", ["(" * 9999]]
    metrics = {}
    completions = ["```python\ndef f(x): return 1\n```"] * 4
    assert reward(completions=completions, tests=tests, log_metric=metrics.__setitem__) == [None] * 4
    assert metrics["code_reward/bad_tests"] == 1.0
