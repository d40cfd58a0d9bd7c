# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Tests of a dataset row, checked and brought into one form.

Scope: input and output of programs, calls with their results, test code; which names tests take from the solution.
Does not cover: running them (`code_sandbox.py`).
"""

import ast
import builtins
import contextlib
import json
from dataclasses import dataclass

from .sandbox_runner import encode


_EXPECTED = (
    'a test or a list of tests as code (`"assert f(1) == 2"`), or a dict (also as JSON text) with lists of equal length '
    "under `inputs` and `outputs`: texts for a program; with the name of a function under `fn_name`, lists of "
    "arguments and their results"
)


@dataclass(frozen=True)
class RowTests:
    """
    Tests of one row.

    Args:
        inputs (`list[str]`), outputs (`list[str]`):
            Standard input and output of a program; empty for other tests.
        tests (`list[str | dict]`):
            Test code, or `{"call", "args", "wanted"}` with encoded values.
        names (`list[str]`):
            What the tests take from the solution.
    """

    inputs: list[str]
    outputs: list[str]
    tests: list[str | dict]
    names: list[str]


def free_names(source: str) -> set[str]:
    """
    Names that test code reads but neither binds nor finds among the builtins: what it expects of the solution. Raises
    `SyntaxError`.
    """
    read, bound, _ = _names(source)
    return read - bound - set(vars(builtins))


def _names(source: str) -> tuple[set[str], set[str], set[str]]:
    """Names that code reads, names that it binds, and modules that it imports."""
    read, bound, modules = set(), set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module)
            bound.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
            bound.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    return read, bound, modules


def names_of_solution(sources: list[str]) -> set[str]:
    """
    What test code takes from the solution: its free names. Without any, and without `import solution`, the tests are
    about a function that is named like a builtin: the one builtin that all of them call. A solution cannot replace
    other builtins of the tests, since the verdict depends on them. Raises `SyntaxError`.
    """
    free = set().union(*map(free_names, sources))
    if free or any("solution" in _names(source)[2] for source in sources):
        return free
    called = []
    for source in sources:
        _, bound, _ = _names(source)
        calls = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
        called.append({call.id for call in calls if isinstance(call, ast.Name)} - bound)
    common = set.intersection(*called) & set(vars(builtins))
    return common if len(common) == 1 else set()


def row_tests(stored, entry_point: str | None, place: str) -> RowTests | None:
    """
    Tests as stored in a dataset, or `None` if there are none. `place` names them in errors.

    Raises:
        `ValueError`: For another form than those above. `SyntaxError`: For test code that does not parse.
    """
    if isinstance(stored, str) and stored.lstrip().startswith(("{", "[")):
        with contextlib.suppress(json.JSONDecodeError):  # test code may begin with a bracket too
            stored = json.loads(stored)
    if stored is None or (isinstance(stored, (str, list, tuple, dict)) and not stored):
        return None
    if isinstance(stored, dict):
        return _pairs(stored, place)
    sources = [stored] if isinstance(stored, str) else stored
    if not isinstance(sources, (list, tuple)) or not all(isinstance(source, str) for source in sources):
        raise ValueError(_wrong(stored, place))
    if not (entry_point is None or isinstance(entry_point, str)):
        raise ValueError(f"The entry point beside {place} is {entry_point!r}; it must be the name of a function.")
    try:
        names = names_of_solution(sources)
        if entry_point is not None:
            names = set().union(*map(free_names, sources), _names(entry_point)[0])
    except (ValueError, RecursionError, MemoryError) as error:  # a null byte; too deeply nested
        raise SyntaxError(str(error)) from error
    if entry_point is not None:
        sources = [f"{source}\n\ncheck({entry_point})\n" if "def check(" in source else source for source in sources]
    return RowTests([], [], list(sources), sorted(names))


def _pairs(stored: dict, place: str) -> RowTests | None:
    inputs, outputs, call = stored.get("inputs"), stored.get("outputs"), stored.get("fn_name")
    if not inputs and not outputs and {"inputs", "outputs"} <= set(stored):
        return None
    lists = isinstance(inputs, (list, tuple)) and isinstance(outputs, (list, tuple)) and len(inputs) == len(outputs)
    if not lists or not (call is None or isinstance(call, str)):
        raise ValueError(_wrong(stored, place))
    if not call:
        if not all(isinstance(text, str) for text in (*inputs, *outputs)):
            raise ValueError(_wrong(stored, place))
        return RowTests(list(inputs), list(outputs), [], [])
    if not all(isinstance(arguments, (list, tuple)) for arguments in inputs):
        raise ValueError(_wrong(stored, place))

    def refuse(value):
        raise ValueError(f"{place} holds a {type(value).__name__}; arguments and results must be plain data.")

    tests = [
        {"call": call, "args": encode(list(arguments), refuse), "wanted": encode(wanted, refuse)}
        for arguments, wanted in zip(inputs, outputs, strict=True)
    ]
    return RowTests([], [], tests, sorted(_names(call)[0]))


def _wrong(stored, place: str) -> str:
    shown = repr(stored)
    return f"{place} is {shown if len(shown) <= 120 else shown[:120] + '…'}; it must be {_EXPECTED}."
