# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Hostile programs against the sandbox, and honest programs right after each."""

import os
import shutil
import signal
import socket
import textwrap
import threading
from pathlib import Path

import pytest

from trl_r1v2.rewards import Sandbox


# Stands in the command line of every sandboxed process of this test run, and of no other.
MEMORY_MB = 256 + os.getpid() % 1000

needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


@pytest.fixture(scope="module")
def sandbox():
    return Sandbox(cpu_seconds=4, memory_mb=MEMORY_MB, max_processes=8, output_kb=64)


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
    paths = [path for path in paths if not Path(sandbox.python).is_relative_to(path)]  # a user's own interpreter
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
def test_nothing_can_be_written(sandbox, tmp_path):
    """A file, too, is kernel memory that no rlimit counts, be it empty or a link."""
    before = {path.name for path in Path("/tmp").iterdir()}
    source = f"""
        import os, tempfile
        for folder in ('/', '/tmp', '/usr', '/usr/bin', '/code', '/dev', '/dev/shm', '/etc', {str(tmp_path)!r}):
            print(attempt(open, folder + '/evil', 'w'))
            print(attempt(os.mkdir, folder + '/evil'), attempt(os.mkfifo, folder + '/evil'))
            print(attempt(os.symlink, '/code/runner.py', folder + '/evil'))
            print(attempt(os.link, '/code/runner.py', folder + '/evil'))
        print(attempt(open, '/code/solution.py', 'a'), attempt(tempfile.mkstemp))
    """
    errors = attempt(sandbox, code(source)).stdout.decode().split()
    assert len(errors) == 9 * 5 + 2
    assert set(errors) <= {"OSError", "PermissionError", "FileNotFoundError", "FileExistsError"}
    assert "evil" not in {path.name for path in Path("/tmp").iterdir()} - before


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
        print(libc.semget(0, 1, 0o1600), ctypes.get_errno())
        print(libc.msgget(0, 0o1600), ctypes.get_errno())
        print(libc.mq_open(b'/q', os.O_CREAT | os.O_RDWR, 0o600, None), ctypes.get_errno())
        print(libc.inotify_init(), ctypes.get_errno())
        print(libc.inotify_init1(0), ctypes.get_errno())
        print(libc.inotify_add_watch(0, b'/tmp', 2), ctypes.get_errno())
        print(libc.fanotify_init(0x200, 0), ctypes.get_errno())
        print(libc.vmsplice(1, None, 0, 0), ctypes.get_errno())
        print(libc.syscall(444, None, 0, 1), ctypes.get_errno())  # landlock_create_ruleset
        for x86_64, aarch64 in ((248, 217), (249, 218), (250, 219), (206, 0), (317, 277), (298, 241), (321, 280)):
            number = x86_64 if os.uname().machine == 'x86_64' else aarch64
            print(libc.syscall(number, 0, 0, 0, 0, 0), ctypes.get_errno())
    """
    assert attempt(sandbox, code(source)).stdout.splitlines() == [b"-1 1"] * 19


@needs_bwrap
def test_fcntl_makes_no_kernel_memory_without_a_bound(sandbox):
    source = """
        import fcntl, os, resource, signal, socket, struct, time
        file = open('/dev/null', 'w')
        lock = struct.pack('hhqqi', fcntl.F_WRLCK, 0, 0, 1, 0)
        for command in (fcntl.F_SETLK, fcntl.F_SETLKW, fcntl.F_OFD_SETLK, fcntl.F_OFD_SETLKW):
            print(attempt(fcntl.fcntl, file, command, lock))
        print(attempt(fcntl.fcntl, file, fcntl.F_SETLEASE, fcntl.F_WRLCK))
        print(attempt(fcntl.fcntl, os.open('/', 0), fcntl.F_NOTIFY, 2))
        print(attempt(fcntl.fcntl, os.pipe()[1], 1031, 2**20))
        print(fcntl.fcntl(file, fcntl.F_GETFL) & os.O_WRONLY, resource.getrlimit(resource.RLIMIT_SIGPENDING))
    """
    *denied, allowed = attempt(sandbox, code(source)).stdout.splitlines()
    assert denied == [b"PermissionError"] * 7
    assert allowed == b"1 (256, 256)"


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
def test_limits_cannot_be_raised_and_privileges_not_regained(sandbox):
    source = """
        import os, resource
        for name in ('RLIMIT_AS', 'RLIMIT_NPROC', 'RLIMIT_CPU'):
            print(attempt(resource.setrlimit, vars(resource)[name], (-1, -1)))
        print(attempt(os.setuid, 0), attempt(os.mknod, '/sda', 0o60600, os.makedev(8, 0)), os.getuid())
    """
    lines = attempt(sandbox, code(source)).stdout.decode().splitlines()
    assert lines == ["ValueError"] * 3 + ["OSError OSError 65534"]  # user 0 is not mapped


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


@pytest.mark.parametrize("option", ["cpu_seconds", "memory_mb", "max_processes", "output_kb"])
def test_limits_must_be_positive(option):
    with pytest.raises(ValueError, match=f"{option} is 0"):
        Sandbox(**{option: 0})
