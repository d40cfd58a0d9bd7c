# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Interrupted, crowded and failing output folders: what a run finds there, and what it says."""

import errno
import json
import multiprocessing
import os
import resource
import signal
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support import tiny_parts
from trl_r1v2.scripts.main import main
from trl_r1v2.vlm import shard_writer
from trl_r1v2.vlm.checkpoint_files import read_checkpoint
from trl_r1v2.vlm.errors import CheckpointError
from trl_r1v2.vlm.shard_writer import RECORD, SPARE_BYTES, written_shards


class Killed(BaseException):
    """Stands in for a signal: nothing in the code under test may catch it."""


@pytest.fixture
def tensors(tmp_path):
    """Four tensors of 40 kB from one file."""
    values = {f"t{n}": torch.arange(n, n + 10_000, dtype=torch.float32) for n in range(4)}
    save_file(values, tmp_path / "model.safetensors")
    return [tensor for _, tensor in sorted(read_checkpoint(tmp_path).items())]


def write(folder: Path, tensors, seed: int = 0) -> shard_writer.WriteResult:
    with written_shards(folder, tensors, {"seed": seed}, "50KB", progress=False) as result:
        (folder / "config.json").write_text("{}")
    return result


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def killed_at(number: int, tensors, folder: Path, monkeypatch) -> None:
    """Leave what a kill leaves when shard `number` is written and has not got its name."""
    replace, calls = os.replace, []

    def dying(source, target):
        calls.append(target)
        if len(calls) == number:
            raise Killed
        replace(source, target)

    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(Killed):
        write(folder, tensors)
    monkeypatch.undo()


def with_free_bytes(monkeypatch, free: int) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shard_writer.shutil, "disk_usage", lambda path: usage(10**12, 10**12, free))


def test_a_killed_run_is_finished_by_the_next(tmp_path, tensors, monkeypatch):
    whole = write(tmp_path / "whole", tensors)
    assert list(whole.shards.values()) == [40_000] * 4 and whole.num_shards_kept == 0
    out = tmp_path / "out"
    killed_at(3, tensors, out, monkeypatch)
    assert not (out / "config.json").exists() and len(list(out.glob("*.part"))) == 1
    assert write(out, tensors).num_shards_kept == 2
    assert folder_bytes(out) == folder_bytes(tmp_path / "whole")
    loaded = {name: value for file in whole.shards for name, value in load_file(out / file).items()}
    assert all(loaded[f"t{n}"].equal(torch.arange(n, n + 10_000.0)) for n in range(4))

    first = out / next(iter(whole.shards))
    first.write_bytes(first.read_bytes()[:-5])  # cut short by another hand
    inodes = {path.name: path.stat().st_ino for path in out.glob("*.safetensors")}
    assert write(out, tensors).num_shards_kept == 3
    assert folder_bytes(out) == folder_bytes(tmp_path / "whole")
    assert [name for name, inode in inodes.items() if (out / name).stat().st_ino != inode] == [first.name]


def test_a_shard_is_on_the_disk_before_it_gets_its_name(tmp_path, tensors, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor):
        events.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def recorded_replace(source, target):
        events.append(("replace", str(source)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    write(tmp_path / "out", tensors)
    renamed = [k for k, (what, _) in enumerate(events) if what == "replace"]
    assert len(renamed) == 4 and all(events[k - 1] == ("fsync", events[k][1]) for k in renamed)
    assert events[0] == ("fsync", str(tmp_path / "out" / RECORD))


def test_a_full_disk_is_refused_before_writing(tmp_path, tensors, monkeypatch):
    """What an earlier run left unfinished counts as room."""
    out = tmp_path / "out"
    with_free_bytes(monkeypatch, 160_000 + SPARE_BYTES - 1)
    with pytest.raises(CheckpointError, match=r"67,268,864 bytes are needed and 67,268,863 are.*nothing was written"):
        write(out, tensors)
    assert not out.exists()
    monkeypatch.undo()
    killed_at(3, tensors, out, monkeypatch)
    (left_over,) = out.glob("*.part")
    before = folder_bytes(out)
    with_free_bytes(monkeypatch, 80_000 + SPARE_BYTES - left_over.stat().st_size - 1)
    with pytest.raises(CheckpointError, match="nothing was written"):
        write(out, tensors)
    assert folder_bytes(out) == before
    with_free_bytes(monkeypatch, 80_000 + SPARE_BYTES - left_over.stat().st_size)
    assert write(out, tensors).num_shards_kept == 2 and not list(out.glob("*.part"))


def write_with_small_files(folder, tensors, said):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
    try:
        write(folder, tensors)
    except CheckpointError as error:
        said.put(str(error))


def test_a_disk_that_fails_while_a_shard_is_written_is_one_error(tmp_path, tensors):
    """The operating system's limit on the size of a file stands in for a disk that fills up."""
    context = multiprocessing.get_context("fork")
    said = context.SimpleQueue()
    process = context.Process(target=write_with_small_files, args=(tmp_path / "out", tensors, said))
    process.start()
    process.join(60)
    message = said.get()
    assert message.startswith(f"{tmp_path / 'out'}: ") and "File too large" in message
    assert "Repair that and run the same command again" in message
    assert not list((tmp_path / "out").glob("*.safetensors"))
    assert write(tmp_path / "out", tensors).num_shards_kept == 0


def test_foreign_folders_are_not_touched(tmp_path, tensors):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model-00001-of-00004.safetensors").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for folder in ("mine", "file"):
        with pytest.raises(CheckpointError, match="is a file, or is not empty and was not written by this command"):
            write(tmp_path / folder, tensors)
    assert folder_bytes(tmp_path / "mine") == {"model-00001-of-00004.safetensors": b"mine"}
    out = tmp_path / "out"
    write(out, tensors)
    before = folder_bytes(out)
    with pytest.raises(CheckpointError, match=r'other parts or settings \("seed": 0\)'):
        write(out, tensors, seed=1)
    os.utime(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"other parts or settings \(\d+\)"):
        write(out, tensors)
    assert folder_bytes(out) == before


@pytest.mark.parametrize("content", [b'{"settings": {}, "sha', b"[]", b"{}\n"])
def test_a_damaged_record_is_an_error_with_its_remedy(tmp_path, tensors, content):
    write(tmp_path / "out", tensors)
    (tmp_path / "out" / RECORD).write_bytes(content)
    before = folder_bytes(tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"composition.json is damaged.*or delete it"):
        write(tmp_path / "out", tensors)
    assert folder_bytes(tmp_path / "out") == before


def test_a_run_killed_before_its_record_is_begun_again(tmp_path, tensors):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / RECORD).touch()
    write(tmp_path / "out", tensors)
    assert json.loads((tmp_path / "out" / RECORD).read_text())["settings"] == {"seed": 0}


def hold(folder: Path, tensors, held, leave) -> None:
    with written_shards(folder, tensors, {"seed": 0}, "50KB", progress=False):
        held.set()
        leave.wait(60)


def test_one_run_at_a_time_and_the_lock_ends_with_a_kill(tmp_path, tensors):
    out, context = tmp_path / "out", multiprocessing.get_context("fork")
    held, leave = context.Event(), context.Event()
    other = context.Process(target=hold, args=(out, tensors, held, leave), daemon=True)
    other.start()
    assert held.wait(60)
    with pytest.raises(CheckpointError, match=f"{out}: another run is writing there"):
        write(out, tensors)
    other.kill()
    other.join()
    assert write(out, tensors).num_shards_kept == 4


def test_failing_folders_end_the_command_with_one_line(tmp_path, capsys, monkeypatch):
    tiny_parts.save_vision(tmp_path / "vision")
    tiny_parts.save_llm(tmp_path / "llm")
    (tmp_path / "file").write_text("mine")
    capsys.readouterr()

    def refused(output_dir: Path) -> str:
        parts = ("--vision", str(tmp_path / "vision"), "--llm", str(tmp_path / "llm"))
        assert main(["compose", *parts, "--output_dir", str(output_dir)]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
        assert line.startswith("trl-r1v2 compose: error: ")
        return line

    assert f"{tmp_path / 'file'} is a file" in refused(tmp_path / "file")
    assert "Not a directory" in refused(tmp_path / "file" / "below")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / RECORD).write_text('{"schema": 2, "fi')
    assert "is damaged" in refused(tmp_path / "damaged")

    def full(self, folder, *arguments, **options):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(Path(folder) / "config.json"))

    monkeypatch.setattr("transformers.InternVLConfig.save_pretrained", full)
    assert f"{os.strerror(errno.EDQUOT)}: '{tmp_path / 'out' / 'config.json'}'" in refused(tmp_path / "out")


@pytest.mark.parametrize("text", ["", "5", "five GB"])
def test_sizes_that_are_none(tmp_path, tensors, text):
    with pytest.raises(CheckpointError, match=f"max_shard_size: .*'{text}'"):
        with written_shards(tmp_path / "out", tensors, {}, text):
            pass
