# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Tests of a dataset row, checked and brought into one form.

Scope: input and output of programs, calls with their results, test code; which names tests take from the solution.
Does not cover: running them (`code/reward.py`).
"""

import ast
import builtins
import contextlib
import functools
import json
import re
import symtable
from dataclasses import dataclass
from decimal import Decimal

from .runner import encode


_BUILTINS = frozenset(vars(builtins))
_IMPORT_RE = re.compile(r"^\s*(?:from|import)\s+solution\b", re.MULTILINE)
_EXPECTED = (
    'a test or a list of tests as code (`"assert f(1) == 2"`), or a dict (also as JSON text) with lists of equal '
    "length under `inputs` and `outputs`: texts, or lists of lines, for a program; with the name of a function under "
    "`fn_name`, lists of arguments, or a text with one a line, and their results; "
    "or a list of dicts with `input` and `output`"
)


@dataclass(frozen=True)
class RowTests:
    """Tests of one row."""

    inputs: list[str]  # of a program, standard input and output; empty for other tests
    outputs: list[str]
    tests: list[str | dict]  # test code, or `{"call", "args", "wanted"}` with encoded values
    names: list[str]  # what the tests take from the solution


def _names(source: str) -> set[str]:
    """Names that code reads and does not bind itself. Raises `SyntaxError`."""
    tables = [symtable.symtable(source, "tests", "exec")]
    top = tables[0]
    bound = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    read = set()
    for table in tables:  # which grows by what is nested
        symbols = [symbol for symbol in table.get_symbols() if table is top or symbol.is_global()]
        read |= {symbol.get_name() for symbol in symbols if symbol.is_referenced()}
        tables += table.get_children()
    return read - bound


def free_names(source: str) -> set[str]:
    """What test code expects of the solution: [`_names`] that are no builtins."""
    return _names(source) - _BUILTINS


def names_of_solution(sources: list[str]) -> set[str]:
    """
    What test code takes from the solution: its free names. Without any, and without `import solution`, the tests are
    about a function that is named like a builtin: the one builtin that all of them read. A solution cannot replace
    other builtins of the tests, since the verdict depends on them. Raises `SyntaxError`.
    """
    names = [_names(source) for source in sources]
    free = set().union(*names) - _BUILTINS
    common = set.intersection(*names) & _BUILTINS
    if free or len(common) != 1 or any(map(_IMPORT_RE.search, sources)):
        return free
    return common


def _integer(digits: str) -> int:
    """An integer of any length; Python's own reading stops at 4,300 digits."""
    return int(Decimal(digits))


def row_tests(stored, entry_point: str | None, place: str) -> RowTests | None:
    """
    Tests as stored in a dataset, or `None` if there are none. `place` names them in errors.

    Raises:
        `ValueError`: For another form than those above. `SyntaxError`: For test code that does not parse.
    """
    if isinstance(stored, str) and stored.lstrip().startswith(("{", "[")):
        with contextlib.suppress(json.JSONDecodeError):  # test code may begin with a bracket too
            stored = json.loads(stored, parse_int=_integer)
    if isinstance(stored, (list, tuple)) and stored and all(isinstance(case, dict) for case in stored):
        stored = _of_cases(stored, entry_point, place)  # LiveCodeBench
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
            names = set().union(*map(free_names, sources), _names(entry_point))
    except (ValueError, RecursionError, MemoryError) as error:  # a null byte; too deeply nested
        raise SyntaxError(str(error)) from error
    if entry_point is not None:
        sources = [f"{source}\n\ncheck({entry_point})\n" if "def check(" in source else source for source in sources]
    return RowTests([], [], list(sources), sorted(names))


def _of_cases(cases, entry_point: str | None, place: str) -> dict:
    """`[{"input", "output", "testtype"}, …]` as lists of inputs and outputs."""
    if not all({"input", "output"} <= set(case) for case in cases):
        raise ValueError(_wrong(cases, place))
    columns = {name + "s": [case[name] for case in cases] for name in ("input", "output")}
    is_call = any(case.get("testtype") == "functional" for case in cases)
    if is_call and not isinstance(entry_point, str):
        raise ValueError(f"{place} calls a function; its name must stand in the column `entry_point`.")
    return {**columns, "fn_name": entry_point} if is_call else columns


def _pairs(stored: dict, place: str) -> RowTests | None:
    inputs, outputs, call = stored.get("inputs"), stored.get("outputs"), stored.get("fn_name")
    if not inputs and not outputs and {"inputs", "outputs"} <= set(stored):
        return None
    lists = isinstance(inputs, (list, tuple)) and isinstance(outputs, (list, tuple)) and len(inputs) == len(outputs)
    if not lists or not (call is None or isinstance(call, str)):
        raise ValueError(_wrong(stored, place))
    if not call:
        texts = [_lines(text) for text in (*inputs, *outputs)]
        if None in texts:
            raise ValueError(_wrong(stored, place))
        return RowTests(texts[: len(inputs)], texts[len(inputs) :], [], [])

    def refuse(value):
        raise ValueError(f"{place} holds a {type(value).__name__}; arguments and results must be plain data.")

    tests = []
    for arguments, wanted in zip(inputs, outputs, strict=True):
        if isinstance(arguments, str):  # an argument a line, as text
            arguments = [_value(line) for line in arguments.splitlines()]
            wanted = _value(wanted)
        if not isinstance(arguments, (list, tuple)):
            raise ValueError(_wrong(stored, place))
        # APPS and TACO put the result into a list of its own
        results = [wanted, *wanted] if isinstance(wanted, (list, tuple)) and len(wanted) == 1 else [wanted]
        tests.append({"call": call, "args": encode(list(arguments), refuse), "wanted": encode(results, refuse)})
    return RowTests([], [], tests, sorted(_names(call)))


def _lines(text) -> str | None:
    """Text of a program's input or output, which APPS also gives as a list of lines."""
    if isinstance(text, (list, tuple)) and all(isinstance(line, str) for line in text):
        return "\n".join(text)
    return text if isinstance(text, str) else None


def _value(text):
    """What a text holds as JSON or as a Python literal; else the text."""
    for read in (functools.partial(json.loads, parse_int=_integer), ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, TypeError):
            return read(text)
    return text


def _wrong(stored, place: str) -> str:
    shown = repr(stored)
    return f"{place} is {shown if len(shown) <= 120 else shown[:120] + '…'}; it must be {_EXPECTED}."
