# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Interrupted, crowded and failing output folders: what a run finds there, and what it says."""

import errno
import json
import multiprocessing
import os
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.support import tiny_parts
from trl_r1v2.scripts.main import main
from trl_r1v2.vlm import output_folder, shard_writer
from trl_r1v2.vlm.errors import CheckpointError
from trl_r1v2.vlm.output_folder import LOCK, folder_lock
from trl_r1v2.vlm.shard_writer import MANIFEST, SPARE_BYTES, ShardWriter, plan_shards
from trl_r1v2.vlm.tensor_files import copied, read_header


class Killed(BaseException):
    """Stands in for a signal: nothing in the code under test may catch it."""


@pytest.fixture
def shards(tmp_path):
    """Four shards of 40 kB from one file."""
    values = {f"t{n}": torch.arange(n, n + 10_000, dtype=torch.float32) for n in range(4)}
    save_file(values, tmp_path / "source.safetensors")
    header = read_header(tmp_path / "source.safetensors")
    return plan_shards([copied(header[name], name) for name in sorted(header)], 50_000)


def write(folder: Path, shards) -> shard_writer.WriteResult:
    with ShardWriter(folder, shards, {"seed": 0}) as writer:
        result = writer.write(progress=False)
        writer.finish()
    return result


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def killed_in(shards, folder: Path, filename: str, monkeypatch) -> None:
    """Leave what a kill leaves when `filename` is written, though not yet flushed."""

    def dying(self, shard, digest):
        if shard.filename == filename:
            raise Killed
        return original(self, shard, digest)

    original = ShardWriter._finish_shard
    monkeypatch.setattr(ShardWriter, "_finish_shard", dying)
    with pytest.raises(Killed):
        write(folder, shards)
    monkeypatch.undo()
    (folder / LOCK).touch()  # a kill leaves the file, the lock itself is gone


def with_free_bytes(monkeypatch, free: int) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(output_folder.shutil, "disk_usage", lambda path: usage(10**12, 10**12, free))


def test_unfinished_shards_of_an_earlier_run_count_as_room(tmp_path, shards, monkeypatch):
    """A kill while a shard is flushed and the next one written leaves two parts, and perhaps one without its record."""
    write(tmp_path / "whole", shards)
    out = tmp_path / "out"
    killed_in(shards, out, shards[2].filename, monkeypatch)
    stale = [out / f"{shard.filename}.part" for shard in shards[2:]]
    stale.append(out / shards[2].filename)
    stale[-1].write_bytes(stale[0].read_bytes())
    occupied = sum(512 * path.stat().st_blocks for path in stale)
    assert occupied >= 2 * shards[2].nbytes + shards[3].nbytes
    needed = shards[2].nbytes + shards[3].nbytes + SPARE_BYTES

    before = folder_bytes(out)
    with_free_bytes(monkeypatch, needed - occupied - 1)
    with pytest.raises(CheckpointError, match="nothing was written"):
        write(out, shards)
    assert folder_bytes(out) == {name: data for name, data in before.items() if name != LOCK}

    with_free_bytes(monkeypatch, needed - occupied)
    left, original = [], ShardWriter._write_part

    def watched(self, shard, advance):
        if shard is shards[2]:
            left.extend(path for path in stale if path.exists())
        return original(self, shard, advance)

    monkeypatch.setattr(ShardWriter, "_write_part", watched)
    assert write(out, shards).num_shards_kept == 2
    assert not left, "what was counted as free must be free before the first byte"
    assert folder_bytes(out) == folder_bytes(tmp_path / "whole")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"complete": false, "finger',
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"schema": 2, "fingerprint": "x", "settings": {}, "shards": {"model.safetensors": {}}}',
    ],
)
def test_a_damaged_record_is_an_error_with_its_remedy(tmp_path, shards, content):
    write(tmp_path / "out", shards)
    (tmp_path / "out" / MANIFEST).write_bytes(content)
    before = folder_bytes(tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"composition.json is damaged.*Delete the folder .*/out and run"):
        write(tmp_path / "out", shards)
    assert folder_bytes(tmp_path / "out") == before


def test_the_record_is_on_the_disk_before_it_gets_its_name(tmp_path, shards, monkeypatch):
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
    write(tmp_path / "out", shards)
    renamed = [k for k, (what, path) in enumerate(events) if what == "replace"]
    assert sum(MANIFEST in events[k][1] for k in renamed) == len(shards) + 2
    assert all(events[k - 1] == ("fsync", events[k][1]) for k in renamed)


@pytest.mark.parametrize("left", [[f"{MANIFEST}.part"], [LOCK], [LOCK, f"{MANIFEST}.part"]])
def test_a_run_killed_in_its_first_write_is_begun_again(tmp_path, shards, left):
    write(tmp_path / "whole", shards)
    (tmp_path / "out").mkdir()
    for name in left:
        (tmp_path / "out" / name).write_text("{")
    write(tmp_path / "out", shards)
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "whole")
    (tmp_path / "mine").mkdir()
    for name in (*left, "model.safetensors.part"):
        (tmp_path / "mine" / name).write_text("{")
    with pytest.raises(CheckpointError, match="not empty"):
        write(tmp_path / "mine", shards)


def hold(folder: Path, held, leave) -> None:
    with folder_lock(folder):
        held.set()
        leave.wait(60)


def test_a_second_run_is_refused_and_the_first_goes_on(tmp_path, shards):
    out = tmp_path / "out"
    with ShardWriter(out, shards, {"seed": 0}) as writer:
        with pytest.raises(CheckpointError, match=f"{out}: another run is writing there"):
            write(out, shards)
        writer.write(progress=False)
        with pytest.raises(CheckpointError, match="another run is writing there"):
            write(out, shards)
        writer.finish()
    assert not (out / LOCK).exists() and json.loads((out / MANIFEST).read_text())["complete"]
    assert write(out, shards).num_shards_kept == 4


def test_the_lock_holds_between_processes_and_ends_with_a_kill(tmp_path, shards):
    out = tmp_path / "out"
    out.mkdir()
    context = multiprocessing.get_context("fork")
    held, leave = context.Event(), context.Event()
    other = context.Process(target=hold, args=(out, held, leave), daemon=True)
    other.start()
    assert held.wait(60)
    with pytest.raises(CheckpointError, match="another run is writing there"):
        write(out, shards)
    other.kill()
    other.join()
    assert (out / LOCK).exists()
    assert write(out, shards).num_shards_kept == 0
    assert not (out / LOCK).exists()


def test_a_lock_on_a_file_that_was_removed_is_taken_anew(tmp_path, monkeypatch):
    """A holder that ends between the opening and the locking takes the opened file with it."""
    flock, calls = output_folder.fcntl.flock, []

    def late_flock(descriptor, operation):
        if not calls:
            (tmp_path / LOCK).unlink()
        calls.append(descriptor)
        flock(descriptor, operation)

    monkeypatch.setattr(output_folder.fcntl, "flock", late_flock)
    with folder_lock(tmp_path):
        assert len(calls) == 2
        with pytest.raises(CheckpointError, match="another run"), folder_lock(tmp_path):
            pass
    assert not (tmp_path / LOCK).exists()


def test_an_error_of_the_disk_names_the_file_and_goes_on_later(tmp_path, shards, monkeypatch):
    write(tmp_path / "whole", shards)
    out, fsync, calls = tmp_path / "out", os.fsync, []

    def failing(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if path.endswith(f"{shards[1].filename}.part"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        calls.append(path)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with_free_bytes(monkeypatch, 10**9)
    message = (
        rf"{out}/{shards[1].filename}.part: No space left on device \(1,000,000,000 bytes are free\).*same command"
    )
    with pytest.raises(CheckpointError, match=message):
        write(out, shards)
    monkeypatch.undo()
    assert calls and write(out, shards).num_shards_kept == 1
    assert folder_bytes(out) == folder_bytes(tmp_path / "whole")


def test_a_part_that_cannot_be_read_is_named(tmp_path, shards, monkeypatch):
    piece = shards[1].tensors[0].pieces[0]
    gone = piece.path.with_name("gone.safetensors")
    shard_writer_chunks = type(piece).chunks

    def vanished(self):
        moved = type(piece)(gone, self.offset, self.nbytes) if self == piece else self
        yield from shard_writer_chunks(moved)

    monkeypatch.setattr(type(piece), "chunks", vanished)
    with pytest.raises(CheckpointError, match=rf"{gone}: cannot be read \(No such file"):
        write(tmp_path / "out", shards)


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
    (tmp_path / "damaged" / MANIFEST).write_text('{"schema": 2, "fi')
    assert "is damaged" in refused(tmp_path / "damaged")

    def full(self, folder, *arguments, **options):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(Path(folder) / "config.json"))

    monkeypatch.setattr("transformers.InternVLConfig.save_pretrained", full)
    assert f"{tmp_path / 'out' / 'config.json'}: {os.strerror(errno.EDQUOT)}" in refused(tmp_path / "out")
    monkeypatch.undo()
    assert not (tmp_path / "out" / LOCK).exists()


@pytest.mark.parametrize("text,expected", [("5GB", 5 * 10**9), ("200 MiB", 200 * 2**20), ("1.5kb", 1500), ("7B", 7)])
def test_sizes(text, expected):
    assert shard_writer.parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "5", "-1GB", "0MB", "five GB"])
def test_sizes_that_are_none(text):
    with pytest.raises(CheckpointError, match="is no size"):
        shard_writer.parse_size(text)
