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
    return Sandbox(cpu_seconds=4, memory_mb=MEMORY_MB, max_processes=8, tmp_mb=4, output_kb=64)


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
        file = open('/tmp/f', 'w')
        lock = struct.pack('hhqqi', fcntl.F_WRLCK, 0, 0, 1, 0)
        for command in (fcntl.F_SETLK, fcntl.F_SETLKW, fcntl.F_OFD_SETLK, fcntl.F_OFD_SETLKW):
            print(attempt(fcntl.fcntl, file, command, lock))
        print(attempt(fcntl.fcntl, file, fcntl.F_SETLEASE, fcntl.F_WRLCK))
        print(attempt(fcntl.fcntl, os.open('/tmp', 0), fcntl.F_NOTIFY, 2))
        print(attempt(fcntl.fcntl, os.pipe()[1], 1031, 2**20))
        print(fcntl.fcntl(file, fcntl.F_GETFL) & os.O_WRONLY, resource.getrlimit(resource.RLIMIT_SIGPENDING))
    """
    *denied, allowed = attempt(sandbox, code(source)).stdout.splitlines()
    assert denied == [b"PermissionError"] * 7
    assert allowed == b"1 (256, 256)"


FILE_BOMBS = {
    "symbolic links": "os.symlink('x' * 120, name)",
    "empty files": "os.close(os.open(name, os.O_CREAT))",
    "folders": "os.mkdir(name)",
    "hard links": "os.link('/tmp/f', name)",
    "pipes": "os.mkfifo(name)",
    "empty files of several processes": "os.fork() if n in (5, 6) else os.close(os.open(name, os.O_CREAT))",
    "symbolic links after the output is closed": "os.close(1) or os.close(2) if n == 5 else os.symlink('x', name)",
}


@needs_bwrap
@pytest.mark.parametrize("kind", FILE_BOMBS)
def test_file_bomb(sandbox, kind):
    """Each file is kernel memory that no rlimit counts; without the limit, this runs into its deadline."""
    source = f"""
        import os
        open('/tmp/f', 'w').close()
        n = 0
        while True:
            n += 1
            name = f'/tmp/{{os.getpid()}}_{{n}}'
            {FILE_BOMBS[kind]}
    """
    run = attempt(sandbox, code(source), seconds=20.0)
    assert (run.stopped, run.returncode) == ("files", None)


@needs_bwrap
def test_files_below_the_limit_are_kept_and_deleted_ones_do_not_count(sandbox):
    source = """
        import os, time
        for n in range(20_000):
            open('/tmp/again', 'w').close()
            os.remove('/tmp/again')
        for n in range(4000):
            open(f'/tmp/{n}', 'w').close()
        time.sleep(0.2)
        print(len(os.listdir('/tmp')))
    """
    assert attempt(sandbox, code(source)).stdout == b"4000\n"
    small = Sandbox(max_files=10)
    filled = "for n in range({}):\n    open(f'/tmp/{{n}}', 'w')\nimport time\ntime.sleep({})\nprint(1)"
    assert small.run_program(filled.format(8, 0.5), seconds=60.0).stdout == b"1\n"
    assert small.run_program(filled.format(12, 600), seconds=60.0).stopped == "files"


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


@pytest.mark.parametrize("option", ["cpu_seconds", "memory_mb", "max_processes", "tmp_mb", "max_files", "output_kb"])
def test_limits_must_be_positive(option):
    with pytest.raises(ValueError, match=f"{option} is 0"):
        Sandbox(**{option: 0})
