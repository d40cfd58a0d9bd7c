# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Forgeries against the score of code, and honest programs right after each; forms of tests."""

import shutil
import textwrap

import pytest

from trl_r1v2.rewards import CodeReward, Sandbox
from trl_r1v2.rewards.code.reward import last_python_block
from trl_r1v2.rewards.code.row_tests import free_names
from trl_r1v2.rewards.code.sandbox import SandboxError


needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


@pytest.fixture(scope="module")
def sandbox():
    return Sandbox(cpu_seconds=4, memory_mb=256, max_processes=8, output_kb=64)


@pytest.fixture(scope="module")
def reward(sandbox):
    return CodeReward(sandbox, seconds=30.0, num_workers=2)


def block(source):
    return f"Here it is:\n```python\n{source}\n```\n"


FUNCTION_TESTS = ["assert f(1) == 2", "assert f(5) == 6", "assert f([]) is None\nassert f('x') == 'y'"]

FORGERIES = {
    "prints markers": """
        print('passed', '{"test": 0, "passed": true}', flush=True)
        def f(x): return 0
    """,
    "writes frames everywhere": """
        import os, json, struct
        body = json.dumps({'test': 0, 'passed': True}).encode()
        for fd in range(64):
            try:
                os.write(fd, (struct.pack('>I', len(body)) + body) * 3)
            except OSError:
                pass
        def f(x): return 0
    """,
    "exits": """
        import sys
        def f(x): sys.exit(0)
    """,
    "exits at once": """
        import os
        os._exit(0)
    """,
    "exits at import": """
        raise SystemExit(0)
    """,
    "equals everything": """
        class E:
            def __eq__(self, other): return True
            def __bool__(self): return True
        def f(x): return E()
    """,
    "int that equals everything": """
        class E(int):
            def __eq__(self, other): return True
            def __hash__(self): return 0
        def f(x): return E(9)
    """,
    "str that equals everything": """
        class E(str):
            def __eq__(self, other): return True
            __hash__ = str.__hash__
        def f(x): return E('q')
    """,
    "patches the interpreter": """
        import builtins, json, sys
        builtins.AssertionError = type('A', (BaseException,), {})
        json.dumps = lambda *a, **k: '{"value": 2}'
        sys.modules['__main__'].test = None
        def f(x): return 0
    """,
    "patches the runner": """
        import sys
        main = sys.modules['__main__']
        main.encode = lambda value, remember: ['o', 0]
        main.decode = lambda value, resolve: ([], {})
        def f(*x): return 0
    """,
    "shadows the builtins of the tests": """
        def isinstance(*a): return True
        len = all = any = isinstance
        def f(x): return 0
    """,
    "reads the tests": """
        import glob
        for path in glob.glob('/code/*') + glob.glob('/tmp/*'):
            if 'assert f(1) ==' + ' 2' in open(path).read():
                def f(x): return {1: 2, 5: 6}.get(x) if type(x) is int else 'y' if x else None
    """,
    "walks the frames": """
        import gc, sys
        for item in gc.get_objects():
            if isinstance(item, dict) and 'passed' in item:
                item['passed'] = True
        def f(x):
            frame = sys._getframe()
            while frame:
                frame.f_globals['passed'] = True
                frame = frame.f_back
            return 0
    """,
    "raises what ends a loop": """
        def f(x): raise StopIteration
    """,
    "sends a reply of a false length": """
        import os, struct
        def f(x):
            for fd in range(3, 64):
                try:
                    os.write(fd, struct.pack('>I', 2**31))
                except OSError:
                    pass
            return 2
    """,
}


@needs_bwrap
@pytest.mark.parametrize("forgery", FORGERIES)
def test_test_code_cannot_be_forged(reward, forgery):
    assert reward(completions=[block(textwrap.dedent(FORGERIES[forgery]))], tests=[FUNCTION_TESTS]) == [0.0]
    honest = "def f(x):\n    return x + 1 if isinstance(x, int) else None if x == [] else 'y'"
    assert reward(completions=[block(honest)], tests=[FUNCTION_TESTS]) == [1.0]


@needs_bwrap
def test_programs_cannot_find_the_expected_output(reward):
    """Only the input enters the sandbox."""
    source = """
        import glob, os, sys
        needle = '24-detcepxe'[::-1]
        places = [open(path).read() for path in glob.glob('/code/*')] + sys.argv + [repr(os.environ), sys.stdin.read()]
        print(needle if any(needle in place for place in places) else 'nothing')
    """
    tests = {"inputs": [""], "outputs": ["expected-42"]}
    assert reward(completions=[block(textwrap.dedent(source))], tests=[tests]) == [0.0]
    assert reward(
        completions=[block("import os\nprint('4', flush=True)\nos._exit(1)")],
        tests=[{"inputs": [""], "outputs": ["4"]}],
    ) == [0.0]


@needs_bwrap
def test_what_crosses_between_the_sandboxes(reward):
    source = """
import collections
class Stack:
    size = 0
    def __init__(self, *items): self.items = list(items)
    def push(self, item): self.items.append(item); return self
    def top(self): return self.items[-1]
def same(*args, **kwargs): return args, kwargs
def sort(items): items.sort()
def grow(mapping, key): mapping[key] = 1
def count(text): return collections.Counter(text)
def squares(n): return (i * i for i in range(n))
def first(stack): return stack.items[0]
def fail(kind): raise {'key': KeyError('k'), 'own': type('Own', (Exception,), {})('o')}[kind]
"""
    tests = [
        "value = (1, 2.5, 'x', None, True, b'b', 1j, (1, [2, {3: {4}}], frozenset({5})), range(3))\n"
        "assert same(*value, k=value) == (value, {'k': value})",
        "items = [3, 1, 2]\nassert sort(items) is None\nassert items == [1, 2, 3]",
        "mapping = {}\ngrow(mapping, (1, 2))\nassert mapping == {(1, 2): 1}",
        "assert count('aab') == {'a': 2, 'b': 1}",
        "assert list(squares(4)) == [0, 1, 4, 9]",
        "stack = Stack(7)\nstack.push(8).push(9)\nassert stack.top() == 9 and stack.size == 0 and first(stack) == 7",
        "try:\n    fail('key')\n    raise SystemExit\nexcept KeyError:\n    pass",
        "import math\nassert math.isnan(same(float('nan'))[0][0]) and same(float('inf')) == ((math.inf,), {})",
        # These must fail: another type, an object that is not data, a function as argument, an own exception.
        "assert same(1) == [[1], {}]",
        "assert Stack(7) == Stack(7)",
        "same(lambda: 0)",
        "try:\n    fail('own')\nexcept KeyError:\n    pass",
    ]
    passed = [reward(completions=[block(source)], tests=[[test]])[0] for test in tests]
    assert passed == [1.0] * 8 + [0.0] * 4


@needs_bwrap
def test_exit_and_quit_are_those_of_an_interactive_python(reward):
    """They end a program as `sys.exit` does, and are as little a way to pass a test."""
    program = "if int(input()) % 2:\n    print('NO')\n    {}()\nprint('YES')"
    tests = {"inputs": ["3\n", "4\n"], "outputs": ["NO\n", "YES\n"]}
    ends = ["exit", "quit", "__import__('sys').exit"]
    assert reward(completions=[block(program.format(end)) for end in ends], tests=[tests] * 3) == [1.0] * 3
    failing = [
        block("print('NO')\nexit(1)"),
        block("print('NO')\nquit('no')"),
        block("exit()"),
        block("help\nprint('NO')"),
    ]
    one = {"inputs": [""], "outputs": ["NO\n"]}
    assert reward(completions=failing, tests=[one] * 4) == [0.0, 0.0, 0.0, 1.0]
    functions = [
        "def f(x):\n    exit()",
        "def f(x):\n    quit(0)",
        "exit()",
        "import builtins\nbuiltins.exit = print\ndef f(x):\n    exit()\n    return 0",
        "def f(x):\n    try:\n        exit()\n    except SystemExit:\n        return x + 1",
    ]
    rewards = reward(completions=list(map(block, functions)), tests=[["assert f(1) == 2"]] * 5)
    assert rewards == [0.0, 0.0, 0.0, 0.0, 1.0]


@needs_bwrap
def test_forms_of_tests(reward):
    double = block("def double(x):\n    return x * 2")
    check = "def check(candidate):\n    for value in range(3):\n        assert candidate(value) == 2 * value\n"
    pairs = {"inputs": [[1], ["a"]], "outputs": [2, "ab"], "fn_name": "double"}
    tests = [
        ["assert double(2) == 4", "assert double(2) == 5"],
        check,
        pairs,
        '["assert double(1) == 2"]',
        None,
        [],
        "assert double(",
        "assert double(3) == 6",
    ]
    entry_points = [None, "double", None, None, None, None, None, None]
    rewards = reward(completions=[double] * 8, tests=tests, entry_point=entry_points)
    assert rewards == [0.5, 1.0, 0.5, 1.0, None, None, None, 1.0]
    all_or_nothing = CodeReward(reward.sandbox, scoring="all")
    assert all_or_nothing(completions=[double] * 2, tests=[tests[0], tests[3]]) == [0.0, 1.0]
    program = block("print(input())")
    assert all_or_nothing(completions=[program], tests=[{"inputs": ["a", "b"], "outputs": ["a", "c"]}]) == [0.0]
    with pytest.raises(ValueError, match="row 0 of the column 'tests' is .* lists of equal length"):
        reward(completions=[double], tests=[{"inputs": ["1"]}])
    with pytest.raises(ValueError, match="needs the dataset column 'tests'"):
        reward(completions=[double])


@needs_bwrap
def test_time_of_one_completion_is_bounded(sandbox, monkeypatch):
    """Inputs that are not reached in time fail without being run."""
    granted, run_program = [], sandbox.run_program

    def recorded(source, stdin, seconds, output_bytes):
        granted.append(seconds)
        return run_program(source, stdin, seconds, output_bytes)

    monkeypatch.setattr(sandbox, "run_program", recorded)
    reward = CodeReward(sandbox, seconds=0.7, completion_seconds=1.5)
    tests = {"inputs": [""] * 50, "outputs": ["1"] * 50}
    assert reward(completions=[block("print(1, flush=True)\nwhile True: pass")], tests=[tests]) == [0.0]
    assert 1 <= len(granted) <= 3
    assert granted[0] == 0.7
    assert sum(granted) <= 1.5 + 0.7


@needs_bwrap
def test_a_failing_sandbox_is_unknown_not_wrong(reward, monkeypatch):
    def broken(*args, **kwargs):
        raise SandboxError("no more processes")

    monkeypatch.setattr(reward.sandbox, "start", broken)
    metrics = {}
    code = block("print(1)")
    rewards = reward(
        completions=[code, code, "no code"],
        tests=[{"inputs": [""], "outputs": ["1"]}, ["assert f() == 1"], ["assert f() == 1"]],
        log_metric=metrics.__setitem__,
    )
    assert rewards == [None, None, 0.0]
    assert metrics["code_reward/sandbox_failure"] == pytest.approx(2 / 3)
    assert metrics["code_reward/no_code"] == pytest.approx(1 / 3)


@needs_bwrap
def test_a_batch_of_hostile_and_honest_programs(sandbox):
    reward = CodeReward(sandbox, seconds=10.0, num_workers=2)
    hostile = [
        "while True: pass",
        "import os\nwhile True: os.fork()",
        "while True: print('x' * 9999)",
        "x = bytearray(10**12)",
    ]
    honest = "print(int(input()) * 2)"
    tests = {"inputs": ["2", "5"], "outputs": ["4", "10\n"]}
    solutions = [honest, hostile[0], honest, hostile[1], hostile[2], honest, hostile[3], honest]
    rewards = reward(completions=[block(solution) for solution in solutions], tests=[tests] * len(solutions))
    assert rewards == [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0]


def test_last_python_block():
    assert last_python_block("```python\na\n```\ntext\n```py\nb\n```") == "b\n"
    assert last_python_block("<think>\n```python\na\n```\n</think>no code") is None
    assert last_python_block("<think>x</think>\n```python\nif x:\n    '''```'''\n```\n") == "if x:\n    '''```'''\n"
    assert last_python_block("```python\nunclosed") is None
    assert last_python_block("```\nnot marked\n```") is None
    assert last_python_block("```text\na\n```") is None
    assert last_python_block("  ```Python3 \na\n\n```python\nb\n\t``` \nc") == "a\n\n```python\nb\n"
    assert last_python_block("```python\na\n```\n```python\nunclosed") == "a\n"
    assert last_python_block("```python\na ```\n``` b\n````\n```\n```") == "a ```\n``` b\n````\n"
    assert last_python_block("```python\n```") == ""


def test_free_names():
    source = """
import math as m
from os import path
def check(candidate, *rest):
    total = 0
    for item in rest:
        total += candidate(item) + f(len(rest)) + m.pi
    assert Solution().g(path)
"""
    assert free_names(source) == {"f", "Solution"}


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="scoring is 'best'"):
        CodeReward(scoring="best")
    with pytest.raises(ValueError, match="seconds is inf"):
        CodeReward(seconds=float("inf"))
