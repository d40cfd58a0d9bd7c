# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Hostile programs against the sandbox, forgeries against the score, and honest programs right after each."""

import os
import shutil
import signal
import socket
import textwrap
import threading
from pathlib import Path

import pytest

from trl_r1v2.rewards import CodeReward, Sandbox
from trl_r1v2.rewards.code_sandbox import free_names, last_python_block
from trl_r1v2.rewards.sandbox import SandboxError


# Stands in the command line of every sandboxed process of this test run, and of no other.
MEMORY_MB = 256 + os.getpid() % 1000

needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


@pytest.fixture(scope="module")
def sandbox():
    return Sandbox(cpu_seconds=4, memory_mb=MEMORY_MB, max_processes=8, tmp_mb=4, output_kb=64)


@pytest.fixture(scope="module")
def reward(sandbox):
    return CodeReward(sandbox, seconds=30.0, num_workers=2)


def block(source):
    return f"Here it is:\n```python\n{source}\n```\n"


def sandboxed_processes():
    """Living processes of this module's sandbox, bubblewrap's own included."""
    marker = f'"RLIMIT_AS": {MEMORY_MB * 2**20}'.encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            alive = folder.joinpath("stat").read_text().rpartition(")")[2].split()[0] != "Z"
            if alive and marker in folder.joinpath("cmdline").read_bytes():
                found.append(folder.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def attempt(sandbox, source, seconds=60.0):
    """Run a hostile program, then show that nothing of it is left and that an honest one still works."""
    run = sandbox.run_program(source, "ping", seconds)
    assert sandboxed_processes() == []
    assert sandbox.run_program("print(input()[::-1])", "ping", 30.0).stdout == b"gnip\n"
    return run


TRY = """
def attempt(action, *args):
    try:
        return repr(action(*args))
    except BaseException as error:
        return type(error).__name__
"""


def code(source):
    """A program with the function `attempt` of `TRY`."""
    return TRY + textwrap.dedent(source)


@needs_bwrap
def test_network_is_out_of_reach(sandbox):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.2)
        source = f"""
            import socket
            print(attempt(socket.create_connection, ('127.0.0.1', {server.getsockname()[1]}), 1))
            for family in (1, 2, 10, 16, 17, 40):
                print(attempt(socket.socket, family, socket.SOCK_STREAM))
        """
        assert attempt(sandbox, code(source)).stdout.split() == [b"PermissionError"] * 7
        with pytest.raises(TimeoutError):
            server.accept()


@needs_bwrap
def test_host_files_are_out_of_reach(sandbox, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("canary")
    paths = ["/etc/shadow", "/etc/passwd", "/root", "/home", "/proc/1/environ", "/sys", str(secret), __file__]
    source = f"""
        import os
        for path in {paths!r}:
            print(os.path.lexists(path))
        print(sorted(os.listdir('/')), dict(os.environ))
    """
    *lines, listing = attempt(sandbox, code(source)).stdout.decode().splitlines()
    assert lines == ["False"] * len(paths)
    assert "'proc'" not in listing and "PYTEST" not in listing


@needs_bwrap
def test_nothing_outside_tmp_can_be_written(sandbox, tmp_path):
    before = {path.name for path in Path("/tmp").iterdir()}
    source = f"""
        for folder in ('/', '/usr', '/usr/bin', '/code', '/dev', '/dev/shm', '/etc', {str(tmp_path)!r}):
            print(attempt(open, folder + '/evil', 'w'))
        print(attempt(open, '/code/solution.py', 'a'))
        print(open('/tmp/evil', 'w').write('x'))
    """
    *outside, inside = attempt(sandbox, code(source)).stdout.decode().split()
    assert len(outside) == 9
    assert set(outside) <= {"OSError", "PermissionError", "FileNotFoundError"}
    assert inside == "1"
    assert "evil" not in {path.name for path in Path("/tmp").iterdir()} - before
    assert attempt(sandbox, "import os\nprint(os.listdir('/tmp'))").stdout == b"[]\n"


@needs_bwrap
def test_fork_bomb(sandbox):
    run = attempt(sandbox, "import os\nwhile True:\n    os.fork()")
    assert b"BlockingIOError" in run.stderr or run.stopped == "timeout"
    source = """
        import os, time
        children = 0
        try:
            while True:
                if os.fork() == 0:
                    time.sleep(60)
                children += 1
        except OSError:
            print(children)
    """
    assert 0 < int(attempt(sandbox, code(source)).stdout) < 8


@needs_bwrap
def test_thread_bomb(sandbox):
    source = """
        import threading, time
        started = 0
        try:
            while True:
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
                started += 1
        except RuntimeError:
            print(started, flush=True)
    """
    assert 0 < int(attempt(sandbox, code(source)).stdout) < 8


@needs_bwrap
def test_memory_bomb(sandbox):
    run = attempt(sandbox, "data = []\nwhile True:\n    data.append(bytearray(2**20))")
    assert run.returncode not in (0, None)
    assert b"MemoryError" in run.stderr


@needs_bwrap
def test_memory_that_no_rlimit_counts(sandbox):
    source = """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        memfd_create = 319 if os.uname().machine == 'x86_64' else 279
        print(libc.shmget(0, 2**20, 0o1600), ctypes.get_errno())
        print(libc.syscall(memfd_create, b'x', 0), ctypes.get_errno())
        print(libc.syscall(425, 1, 0), ctypes.get_errno())  # io_uring_setup
    """
    assert attempt(sandbox, code(source)).stdout.splitlines() == [b"-1 1"] * 3


@needs_bwrap
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_endless_output(sandbox, stream):
    run = attempt(sandbox, f"import sys\nwhile True:\n    sys.{stream}.write('x' * 4096)")
    assert run.stopped == "output"
    assert len(run.stdout + run.stderr) == 64 * 1024


@needs_bwrap
def test_endless_loop_ends_at_the_deadline_and_at_the_cpu_limit(sandbox):
    assert attempt(sandbox, "while True:\n    pass", seconds=1.0).stopped == "timeout"
    assert attempt(sandbox, "import time\ntime.sleep(600)", seconds=1.0).stopped == "timeout"
    run = Sandbox(cpu_seconds=1).run_program("while True:\n    pass", seconds=120.0)
    assert run.stopped is None
    assert run.returncode == 128 + signal.SIGKILL


@needs_bwrap
def test_signals_cannot_leave(sandbox):
    source = f"""
        import os, signal
        print(os.getpid(), os.getppid(), flush=True)
        for pid in (1, {os.getpid()}, -1):
            print(attempt(os.kill, pid, signal.SIGKILL), flush=True)
    """
    # Pids of a namespace of its own, whose first process ignores the signal, and where nobody else is.
    expected = [b"2 1", b"None", b"ProcessLookupError", b"ProcessLookupError"]
    assert attempt(sandbox, code(source)).stdout.splitlines() == expected


@needs_bwrap
def test_tracing_and_new_namespaces_are_denied(sandbox):
    source = """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        print(libc.ptrace(16, 1, 0, 0), ctypes.get_errno())
        print(libc.unshare(0x10000000), ctypes.get_errno())
        print(libc.unshare(0x00020000), ctypes.get_errno())
        print(libc.mount(b'x', b'/tmp', b'tmpfs', 0, None), ctypes.get_errno())
        print(libc.chroot(b'/tmp'), ctypes.get_errno())
        # clone(CLONE_NEWUSER | SIGCHLD): stopped by --disable-userns.
        print(libc.syscall(56 if os.uname().machine == 'x86_64' else 220, 0x10000000 | 17, 0, 0, 0, 0))
    """
    assert attempt(sandbox, code(source)).stdout.splitlines() == [b"-1 1"] * 5 + [b"-1"]


@needs_bwrap
def test_symlinks_lead_nowhere(sandbox, tmp_path):
    target = tmp_path / "target.txt"
    target.write_text("untouched")
    source = f"""
        import os
        for name, path in (('a', {str(target)!r}), ('b', '/code/solution.py'), ('c', '../../../../..{target}')):
            os.symlink(path, '/tmp/' + name)
            print(attempt(open, '/tmp/' + name, 'w'))
        print(attempt(os.link, '/code/runner.py', '/tmp/d'))
    """
    errors = attempt(sandbox, code(source)).stdout.split()
    assert len(errors) == 4
    assert set(errors) <= {b"FileNotFoundError", b"OSError", b"PermissionError"}
    assert target.read_text() == "untouched"


@needs_bwrap
def test_daemons_die_with_the_program(sandbox):
    source = """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(0, 64)
                time.sleep(600)
            os._exit(0)
        print('left')
    """
    assert attempt(sandbox, code(source)).stdout == b"left\n"


@needs_bwrap
def test_huge_files_and_many_files(sandbox):
    huge = "with open('/tmp/big', 'wb') as file:\n    while True:\n        file.write(b'x' * 2**16)"
    assert attempt(sandbox, huge).returncode != 0
    many = """
        def fill():
            for index in range(100):
                open(f'/tmp/{index}', 'wb').write(b'x' * 2**19)
        print(attempt(fill))
    """
    assert attempt(sandbox, code(many)).stdout == b"OSError\n"


@needs_bwrap
def test_limits_cannot_be_raised_and_privileges_not_regained(sandbox):
    source = """
        import os, resource
        for name in ('RLIMIT_AS', 'RLIMIT_NPROC', 'RLIMIT_CPU'):
            print(attempt(resource.setrlimit, vars(resource)[name], (-1, -1)))
        print(attempt(os.setuid, 0), attempt(os.mknod, '/tmp/sda', 0o60600, os.makedev(8, 0)), os.getuid())
    """
    lines = attempt(sandbox, code(source)).stdout.decode().splitlines()
    assert lines == ["ValueError"] * 3 + ["OSError PermissionError 65534"]  # user 0 is not mapped


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
    assert sandboxed_processes() == []


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
    with pytest.raises(ValueError, match="as many 'outputs' as 'inputs'"):
        reward(completions=[double], tests=[{"inputs": ["1"]}])
    with pytest.raises(ValueError, match="needs the dataset column 'tests'"):
        reward(completions=[double])


@needs_bwrap
def test_time_of_one_completion_is_bounded(sandbox, monkeypatch):
    """Inputs that are not reached in time fail without being run."""
    granted, run_program = [], sandbox.run_program

    def recorded(source, stdin, seconds):
        granted.append(seconds)
        return run_program(source, stdin, seconds)

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
def test_many_threads_use_one_sandbox(sandbox):
    outputs = {}

    def work(number):
        outputs[number] = sandbox.run_program(f"print({number} + 1)", seconds=60.0).stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == {number: f"{number + 1}\n".encode() for number in range(8)}
    assert len(os.listdir("/proc/self/fd")) < 200


def test_without_bubblewrap_nothing_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="no `bwrap` on the PATH.*apt-get install bubblewrap"):
        CodeReward()


def test_with_a_broken_bubblewrap_nothing_runs(monkeypatch, tmp_path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o111)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="No permissions to create new namespace.*user namespaces"):
        Sandbox()


def test_last_python_block():
    assert last_python_block("```python\na\n```\ntext\n```py\nb\n```") == "b\n"
    assert last_python_block("<think>\n```python\na\n```\n</think>no code") is None
    assert last_python_block("<think>x</think>\n```python\nif x:\n    '''```'''\n```\n") == "if x:\n    '''```'''\n"
    assert last_python_block("```python\nunclosed") is None
    assert last_python_block("```\nnot marked\n```") is None
    assert last_python_block("```text\na\n```") is None


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


@pytest.mark.parametrize("option", ["cpu_seconds", "memory_mb", "max_processes", "tmp_mb", "output_kb"])
def test_limits_must_be_positive(option):
    with pytest.raises(ValueError, match=f"{option} is 0"):
        Sandbox(**{option: 0})


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="scoring is 'best'"):
        CodeReward(scoring="best")
    with pytest.raises(ValueError, match="seconds is inf"):
        CodeReward(seconds=float("inf"))
