# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""What the sandbox needs of its host: bubblewrap, and an interpreter of which it shows no more than it must."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from trl_r1v2.rewards import CodeReward, Sandbox
from trl_r1v2.rewards.code.sandbox import interpreter_paths


needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


def _make_reachable(folder):
    """For user 65534, as whom bubblewrap runs where the tests run as root."""
    folder.chmod(0o755)
    for parent in folder.parents:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o111)


@needs_bwrap
@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="there is no system Python to copy")
def test_of_the_interpreter_only_what_it_needs_is_visible(tmp_path):
    """An interpreter in the home's own `bin`."""
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    (home / "secret.txt").write_text("canary")
    shutil.copy(Path("/usr/bin/python3").resolve(), home / "bin" / "python3")
    (home / "link").symlink_to(home / "bin" / "python3")
    _make_reachable(home / "bin")
    source = "import os, sys, ctypes, decimal\nfor path in (sys.executable, os.path.dirname(sys.executable) + '/..'):"
    source += "\n    print(path if os.path.isfile(path) else os.listdir(path))"
    run = Sandbox(python=str(home / "link")).run_program(source, seconds=60.0)
    assert run.stdout.decode().splitlines() == [str(home / "bin" / "python3"), "['bin']"]


def test_the_files_of_an_interpreter(tmp_path, monkeypatch):
    """Its executable and its libraries, and never the home."""
    python = Path(sys._base_executable).resolve()
    paths = list(map(Path, interpreter_paths(str(python), [])))
    assert python in paths
    assert any(Path(os.__file__).is_relative_to(path) for path in paths)
    assert not any(python.parent.is_relative_to(path) for path in paths)
    assert interpreter_paths(str(python), [Path("/")]) == []
    monkeypatch.setenv("HOME", str(Path(os.__file__).parent))
    with pytest.raises(RuntimeError, match="which is or contains the home"):
        interpreter_paths(str(python), [])
    with pytest.raises(RuntimeError, match="cannot be run"):
        interpreter_paths(str(tmp_path / "none"), [])


def test_without_bubblewrap_nothing_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="no `bwrap` on the PATH.*apt-get install bubblewrap"):
        CodeReward()


def test_with_a_broken_bubblewrap_nothing_runs(monkeypatch, tmp_path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    _make_reachable(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="No permissions to create new namespace.*user namespaces"):
        Sandbox()
