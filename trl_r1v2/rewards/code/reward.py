# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
Reward for generated Python: the share of tests it passes, in a sandbox.

Scope: the last ```` ```python ```` block of the answer, against programs' input and output or against test code. No
code of the solution runs where a verdict is made: expected outputs never enter its sandbox; test code runs in a second
sandbox, reaches the solution by calls that carry plain data, and gives its verdicts on a channel the solution does not
have. Does not cover: the form of tests (`row_tests.py`), other languages, third-party packages, performance of the
code.
"""

import contextlib
import io
import json
import math
import os
import re
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..answers import completion_text, split_reasoning
from .row_tests import RowTests, row_tests
from .runner import receive
from .sandbox import Sandbox, SandboxError


_NUMBER_RE = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_DECIMAL_RE = re.compile(r"[+-]?\d*\.\d+(?:[eE][+-]?\d+)?", re.ASCII)
_OPENING_RE = re.compile(r"[ \t]*```(?:python3?|py)[ \t]*", re.IGNORECASE)


def last_python_block(text: str) -> str | None:
    """Content of the last closed ```` ```python ```` block of the answer; blocks of the reasoning do not count."""
    block, opened = None, None
    for line in (split_reasoning(text)[1] or "").split("\n"):
        if opened is None:
            opened = [] if _OPENING_RE.fullmatch(line) else None
        elif line.strip(" \t") == "```":
            block, opened = "".join(opened), None
        else:
            opened.append(f"{line}\n")
    return block


def same_output(given: str, wanted: str) -> bool:
    """
    Equal up to white space at line ends and at the end of the text; a decimal number that is wanted, up to 1e-6,
    absolute or relative.
    """
    lines, wanted_lines = ([line.rstrip() for line in text.rstrip().splitlines()] for text in (given, wanted))
    return len(lines) == len(wanted_lines) and all(map(_same_line, lines, wanted_lines))


def _same_line(given: str, wanted: str) -> bool:
    if given == wanted:
        return True
    words, wanted_words = given.split(), wanted.split()
    return len(words) == len(wanted_words) and all(
        word == want
        or (
            _DECIMAL_RE.fullmatch(want)
            and _NUMBER_RE.fullmatch(word)
            and math.isclose(float(word), float(want), rel_tol=1e-6, abs_tol=1e-6)
        )
        for word, want in zip(words, wanted_words, strict=True)
    )


@dataclass(eq=False)
class CodeReward:
    r"""
    Reward function: tests passed by the generated program, each completion in sandboxes of its own.

    The column of tests holds, for each row (or as JSON text):
    - `{"inputs": [str, …], "outputs": [str, …]}`: a program; each input (a text, or a list of lines) goes to its
      standard input, and its output must match up to trailing white space, decimal numbers to 1e-6;
    - `{"inputs": [[…], …], "outputs": […], "fn_name": str}`: a function, or a method of the solution's `class
      Solution`; each list (or text, one a line) is its arguments, and the result must equal the output or the one that
      the output lists (APPS, TACO), where a tuple counts as a list and floats count to 1e-6;
    - `[{"input": str, "output": str, "testtype": "stdin" | "functional"}, …]` (LiveCodeBench): the same, the
      function's name in a column `entry_point`;
    - `[str, …]` or `str`: test code, one verdict a string (MBPP's `test_list`). With a column `entry_point` and a
      function `check` in the code, `check(entry_point)` is called (HumanEval).

    Test code reaches the solution, by its names or by `from solution import f`, through proxies that carry plain data,
    with the limits that `docs/rewards.md` lists. `None` for a row without tests, with test code that does not parse,
    or where the sandbox itself failed; 0.0 for a completion without a closed Python block.

    Args:
        sandbox ([`Sandbox`], *optional*): Limits of each process; a default one if not given.
        tests_column (`str`, *optional*, defaults to `"tests"`): Dataset column with the tests.
        scoring (`str`, *optional*, defaults to `"fraction"`): `"fraction"`: passed / all; `"all"`: 1.0 if every test
            passes, else 0.0.
        seconds (`float`, *optional*, defaults to `10.0`): Wall-clock time of one program run, or of all test code of
            one completion.
        completion_seconds (`float`, *optional*, defaults to `60.0`): Wall-clock time of all program runs of one
            completion; inputs not reached fail.
        num_workers (`int`, *optional*): Completions judged at a time; by default the CPUs of this process divided by
            `LOCAL_WORLD_SIZE`.
        name (`str`, *optional*, defaults to `"code_reward"`): Name under which TRL logs it.

    Raises:
        `RuntimeError`: If no sandbox can run here. Code is never run outside one. `ValueError`: When called with tests
        of another form; it names the row.

    Example:
    ```python
    >>> from trl_r1v2.rewards import CodeReward

    >>> code_reward = CodeReward()
    >>> code_reward(
    ...     completions=["```python\ndef double(x):\n    return x + x\n```"],
    ...     tests=[["assert double(2) == 4", "assert double('a') == 'b'"]],
    ... )
    [0.5]
    ```
    """

    sandbox: Sandbox | None = None
    tests_column: str = "tests"
    scoring: str = "fraction"
    seconds: float = 10.0
    completion_seconds: float = 60.0
    num_workers: int | None = None
    name: str = "code_reward"

    def __post_init__(self):
        self.__name__ = self.name
        self.required_columns = (self.tests_column,)
        if self.scoring not in ("fraction", "all"):
            raise ValueError(f"scoring is {self.scoring!r}; it must be 'fraction' or 'all'.")
        if not (0 < self.seconds < math.inf and 0 < self.completion_seconds < math.inf):
            raise ValueError(
                f"seconds is {self.seconds} and completion_seconds {self.completion_seconds}; both must be positive "
                "and finite."
            )
        if self.num_workers is None:
            processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            self.num_workers = max(1, len(os.sched_getaffinity(0)) // processes)
        if self.sandbox is None:
            self.sandbox = Sandbox()

    def __call__(self, completions, entry_point=None, log_metric=None, **kwargs) -> list[float | None]:
        if self.tests_column not in kwargs:
            raise ValueError(
                f"{self.__name__} needs the dataset column {self.tests_column!r}; the columns here are "
                f"{sorted(kwargs)}. Rename the column, or set `tests_column`."
            )
        entry_points = entry_point or [None] * len(completions)
        rows = [
            _tests_or_reason(stored, entry, f"{self.__name__}: row {index} of the column {self.tests_column!r}")
            for index, (stored, entry) in enumerate(zip(kwargs[self.tests_column], entry_points, strict=True))
        ]
        with ThreadPoolExecutor(self.num_workers) as executor:
            judged = list(executor.map(self._judge, map(completion_text, completions), rows))
        outcomes = Counter(reason for _, reason in judged)
        if log_metric is not None:
            for reason in ("no_code", "no_tests", "bad_tests", "sandbox_failure"):
                log_metric(f"{self.__name__}/{reason}", outcomes[reason] / len(judged))
        return [reward for reward, _ in judged]

    def _judge(self, text: str, row: RowTests | str) -> tuple[float | None, str]:
        """Reward of one completion and why: `judged`, `no_code`, `no_tests`, `bad_tests` or `sandbox_failure`."""
        if isinstance(row, str):
            return None, row
        solution = last_python_block(text)
        if solution is None:
            return 0.0, "no_code"
        try:
            passed = (self._run_programs if row.inputs else self._run_tests)(solution, row)
        except SandboxError:
            return None, "sandbox_failure"
        return float(all(passed)) if self.scoring == "all" else sum(passed) / len(passed), "judged"

    def _run_programs(self, solution: str, row: RowTests) -> list[bool]:
        passed = []
        end = time.monotonic() + self.completion_seconds
        for given, wanted in zip(row.inputs, row.outputs, strict=True):
            seconds = min(self.seconds, end - time.monotonic())
            if seconds <= 0 or (self.scoring == "all" and False in passed):
                passed.append(False)
                continue
            run = self.sandbox.run_program(solution, given, seconds, 2 * len(wanted.encode()))
            passed.append(run.returncode == 0 and same_output(run.stdout.decode("utf-8", "replace"), wanted))
        return passed

    def _run_tests(self, solution: str, row: RowTests) -> list[bool]:
        """Verdicts of test code in one sandbox about the solution in another; what gives no verdict has failed."""
        to_solution, ask = os.pipe()
        hear, from_solution = os.pipe()
        try:
            server = self.sandbox.start("serve", {"solution.py": solution}, to_solution, capture=from_solution)
            try:
                tester = self.sandbox.start(
                    "test",
                    {"tests.json": json.dumps({"tests": row.tests, "names": row.names})},
                    stdin=subprocess.DEVNULL,
                    pass_fds=(hear, ask),
                    arguments=(str(hear), str(ask)),
                )
            except SandboxError:
                server.kill()
                raise
        finally:
            for descriptor in (to_solution, ask, hear, from_solution):
                os.close(descriptor)
        try:
            run = tester.finish(time.monotonic() + self.seconds)
        finally:
            server.kill()
        passed = [False] * len(row.tests)
        for verdict in _frames(run.stdout):
            passed[verdict["test"]] = verdict["passed"]
        return passed


def _tests_or_reason(stored, entry_point: str | None, place: str) -> RowTests | str:
    """Tests, or why there are none: `no_tests` or `bad_tests`."""
    try:
        return row_tests(stored, entry_point, place) or "no_tests"
    except SyntaxError:
        return "bad_tests"


def _frames(data: bytes) -> list[dict]:
    """Complete messages of a stream that may end inside one."""
    stream = io.BytesIO(data)
    frames = []
    with contextlib.suppress(EOFError):
        while True:
            frames.append(receive(stream))
    return frames
