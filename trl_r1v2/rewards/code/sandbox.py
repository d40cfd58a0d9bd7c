# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Running untrusted Python in bubblewrap.

Scope: one process tree in namespaces of its own (user, pid, network, mounts, ipc, uts), with a read-only system and
nothing that can be written, no home, no `/etc`, no capabilities, resource limits, a cap on its output, and a deadline
at which the whole tree is killed. Of an interpreter outside of the system's folders, its executable and the folder of
its libraries are there, because the folder above `bin` may be a home. Does not cover: what the code should compute
(`reward.py`); third-party packages; side channels; kernel bugs, against which only a virtual machine helps.
"""

import contextlib
import json
import os
import select
import selectors
import shutil
import signal
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from .seccomp import seccomp_program


_RUNNER = Path(__file__).with_name("runner.py")
_NOBODY = 65534
_END_SECONDS = 10.0
_SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
_INSTALL_ADVICE = "Install it (`apt-get install bubblewrap`, `dnf install bubblewrap`), or leave the code reward out."


class SandboxError(RuntimeError):
    """The sandbox itself failed, so nothing is known about the code."""


@dataclass(frozen=True)
class Run:
    """What one process left behind."""

    stdout: bytes  # up to the cap
    stderr: bytes
    returncode: int | None  # `None` if it was killed at a limit of the caller,
    stopped: str | None  # namely at `"timeout"` or `"output"`


class Process:
    """A started sandbox. Ends with [`~Process.finish`] or [`~Process.kill`]."""

    def __init__(self, popen: subprocess.Popen, init: int, output_bytes: int):
        self.popen = popen
        self.init = init  # pidfd of the first process of its pid namespace
        self.output_bytes = output_bytes

    def finish(self, deadline: float) -> Run:
        """
        Read its output until it and all its children end, the output exceeds the cap, or `time.monotonic()` reaches
        `deadline`.
        """
        outputs = {stream: bytearray() for stream in (self.popen.stdout, self.popen.stderr) if stream is not None}
        stopped = None
        with selectors.DefaultSelector() as selector:
            for source in (*outputs, self.init):
                selector.register(source, selectors.EVENT_READ)
            while selector.get_map() and stopped is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    stopped = "timeout"
                for key, _ in selector.select(max(0.0, left)):
                    chunk = os.read(key.fd, 65536) if key.fileobj in outputs else b""
                    if not chunk:
                        selector.unregister(key.fileobj)
                        continue
                    outputs[key.fileobj] += chunk
                    if len(outputs[key.fileobj]) > self.output_bytes:
                        stopped = "output"
        self.kill()
        stdout, stderr = (
            bytes(outputs.get(stream, b"")[: self.output_bytes]) for stream in (self.popen.stdout, self.popen.stderr)
        )
        return Run(stdout, stderr, None if stopped else self.popen.returncode, stopped)

    def kill(self):
        """
        Kill the first process of its pid namespace; the kernel then ends every other one, and this returns when they
        are gone.
        """
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.init, signal.SIGKILL)
        # Its pidfd turns readable when it is gone, and it is the last one of its namespace to go.
        gone = select.poll()
        gone.register(self.init, select.POLLIN)
        gone.poll(_END_SECONDS * 1000)
        os.close(self.init)
        try:
            self.popen.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        for stream in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if stream is not None:
                stream.close()


@dataclass(eq=False)
class Sandbox:
    r"""
    Starts processes in bubblewrap.

    As root, bubblewrap is started as user 65534, because the kernel does not apply `RLIMIT_NPROC` to root.

    Args:
        cpu_seconds (`int`, *optional*, defaults to `10`): CPU time of one process.
        memory_mb (`int`, *optional*, defaults to `512`): Address space of one process in MiB. The bound of the tree is
            `memory_mb · max_processes`; page tables and buffers of pipes come on top.
        max_processes (`int`, *optional*, defaults to `16`): Processes and threads of one sandbox.
        output_kb (`int`, *optional*, defaults to `256`): Output after which the process is killed, in KiB.
        python (`str`, *optional*): Interpreter. By default this process's own, or `/usr/bin/python3` where the
            sandbox's user cannot execute that one (an interpreter in root's home). It runs with the standard library
            only.

    Raises:
        `RuntimeError`: Without bubblewrap, without an interpreter, or where a first run fails. Nothing is ever run
        outside a sandbox. `ValueError`: If a limit is not positive.
    """

    cpu_seconds: int = 10
    memory_mb: int = 512
    max_processes: int = 16
    output_kb: int = 256
    python: str | None = None

    def __post_init__(self):
        for name, value in vars(self).items():
            if name != "python" and value <= 0:
                raise ValueError(f"{name} is {value}; it must be positive.")
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            raise RuntimeError(
                f"The code sandbox needs bubblewrap, and there is no `bwrap` on the PATH. {_INSTALL_ADVICE}"
            )
        self.python = str(Path(self.python).resolve()) if self.python else default_python()
        self._limits = {
            "RLIMIT_CPU": self.cpu_seconds,
            "RLIMIT_AS": self.memory_mb * 2**20,
            "RLIMIT_NPROC": self.max_processes,
            "RLIMIT_FSIZE": 0,
            "RLIMIT_NOFILE": 64,
            "RLIMIT_SIGPENDING": 256,  # also bounds timers
            "RLIMIT_CORE": 0,
        }
        self._seccomp = seccomp_program()
        self._command = [bwrap, *self._isolation()]
        self._check()

    def _isolation(self) -> list[str]:
        words = "--unshare-all --unshare-user --disable-userns --die-with-parent --new-session --cap-drop ALL".split()
        words += f"--uid {_NOBODY} --gid {_NOBODY} --hostname sandbox --clearenv".split()
        words += "--setenv PATH /usr/bin:/bin --setenv HOME / --setenv LANG C.UTF-8".split()
        for folder in _SYSTEM_FOLDERS:
            if os.path.islink(folder):
                words += ["--symlink", os.readlink(folder), folder]
            elif os.path.isdir(folder):
                words += ["--ro-bind", folder, folder]
        # No /proc: through /proc/1/mem code could act as the sandbox's first process, which has no limits.
        words += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache", "--dev", "/dev"]
        system = [Path(folder) for folder in _SYSTEM_FOLDERS]
        for path in interpreter_paths(self.python, [*system, *(folder.resolve() for folder in system)]):
            words += ["--ro-bind", path, path]
        return words

    def start(self, mode: str, files: dict[str, str], stdin, pass_fds=(), arguments=(), capture=True) -> Process:
        """
        Start `runner.py` in a fresh sandbox, in one of its modes, with the texts of `files` read-only in `/code`.
        Output and errors are captured; with a descriptor as `capture`, that receives the output, and errors are
        dropped. The process inherits `pass_fds`, and the runner takes `arguments`. Raises [`SandboxError`].
        """
        with contextlib.ExitStack() as stack:
            sources = {"runner.py": _RUNNER.read_text(encoding="utf-8"), **files}
            descriptors = {
                name: _memory_file(text.encode("utf-8", "replace"), stack) for name, text in sources.items()
            }
            seccomp = _memory_file(self._seccomp, stack)
            info, write_info = os.pipe()
            stack.callback(os.close, info)
            # It waits until its pid is held: a number alone could be another process's by the time it is used.
            block, release = os.pipe()
            stack.callback(os.close, release)
            command = [*self._command, *f"--seccomp {seccomp} --info-fd {write_info} --block-fd {block}".split()]
            for name, descriptor in descriptors.items():
                command += ["--ro-bind-data", str(descriptor), f"/code/{name}"]
            # bubblewrap's own mounts are writable until told otherwise.
            command += ["--remount-ro", "/dev", "--remount-ro", "/", self.python, "-I", "-S", "-B", "/code/runner.py"]
            command += [mode, json.dumps(self._limits), *arguments]
            as_nobody = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
            try:
                popen = subprocess.Popen(
                    command,
                    stdin=stdin,
                    stdout=subprocess.PIPE if capture is True else capture,
                    stderr=subprocess.PIPE if capture is True else subprocess.DEVNULL,
                    pass_fds=(*descriptors.values(), seccomp, write_info, block, *pass_fds),
                    env={},
                    cwd="/",
                    **as_nobody,
                )
            except OSError as error:
                raise SandboxError(f"bubblewrap could not be started: {error}") from error
            finally:
                os.close(write_info)
                os.close(block)
            init = self._take_init(popen, info)
            os.write(release, b"x")
            return Process(popen, init, self.output_kb * 1024)

    def _take_init(self, popen: subprocess.Popen, info: int) -> int:
        """Pidfd of the sandbox's first process."""
        with os.fdopen(os.dup(info), "rb") as file:
            text = file.read()
        if not text:
            error = b"" if popen.stderr is None else popen.stderr.read()
            raise SandboxError(
                f"bubblewrap failed with status {popen.wait()}: {error.decode('utf-8', 'replace').strip()}"
            )
        return os.pidfd_open(json.loads(text)["child-pid"])

    def run_program(self, source: str, stdin: str = "", seconds: float = 10.0, output_bytes: int = 0) -> Run:
        """
        Run a Python program on a standard input, for at most `seconds` of wall-clock time; it may write `output_bytes`
        even if that is more than the sandbox's cap.
        """
        with contextlib.ExitStack() as stack:
            process = self.start(
                "program", {"solution.py": source}, _memory_file(stdin.encode("utf-8", "replace"), stack)
            )
        process.output_bytes = max(process.output_bytes, output_bytes)
        return process.finish(time.monotonic() + seconds)

    def _check(self):
        try:
            run = self.run_program("print(2 + 2)", seconds=60.0)
            failure = "" if run.stdout == b"4\n" else run.stderr.decode("utf-8", "replace").strip() or str(run)
        except SandboxError as error:
            failure = str(error)
        if failure:
            raise RuntimeError(
                f"bubblewrap cannot run {self.python} here: {failure}. It needs bubblewrap 0.8 and user namespaces: "
                "`sysctl kernel.unprivileged_userns_clone=1`, an AppArmor profile for bwrap (Ubuntu 24.04), or a "
                f"container started with `--security-opt seccomp=unconfined`. {_INSTALL_ADVICE}"
            )


def _memory_file(content: bytes, stack: contextlib.ExitStack) -> int:
    """Descriptor of an anonymous file with the content, at its start; closed by the stack."""
    descriptor = os.memfd_create("sandbox")
    stack.callback(os.close, descriptor)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def interpreter_paths(python: str, system: list[Path]) -> list[str]:
    """
    The executable and the libraries of an interpreter, as far as no folder of `system` holds them. Raises
    `RuntimeError` if it cannot be run, or keeps its libraries in the home itself.
    """
    command = [python, "-I", "-S", "-B", "-c", "import sys; print(sys.base_prefix)"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=60.0, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"{python} cannot be run: {error}. Pass another `python` to the sandbox.") from error
    prefix = Path(run.stdout.strip()).resolve()
    needed = [path for path in (Path(python), prefix / "lib", prefix / "lib64") if path.exists()]
    for path in needed:
        if Path.home().resolve().is_relative_to(path):
            raise RuntimeError(
                f"{python} imports from {path}, which is or contains the home; pass a `python` that is installed in a "
                "folder of its own."
            )
    return [str(path) for path in needed if not any(path.is_relative_to(folder) for folder in system)]


def default_python() -> str:
    """This process's own interpreter, or `/usr/bin/python3` where the sandbox's user cannot execute that one."""
    for candidate in (sys._base_executable, "/usr/bin/python3"):
        if os.path.exists(candidate) and _usable_by_sandbox(Path(candidate).resolve()):
            return str(Path(candidate).resolve())
    raise RuntimeError(
        f"User 65534 can execute neither {sys._base_executable} nor /usr/bin/python3; pass `python`, an interpreter "
        "outside of private folders."
    )


def _usable_by_sandbox(path: Path) -> bool:
    """Whether the user that runs bubblewrap reaches and executes the file: our own, or, as root, user 65534."""
    if os.geteuid() != 0:
        return os.access(path, os.X_OK)
    return all(part.stat().st_mode & stat.S_IXOTH for part in (path, *path.parents))
