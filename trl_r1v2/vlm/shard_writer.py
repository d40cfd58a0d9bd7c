# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Writes planned tensors as a sharded safetensors checkpoint that can be resumed.

A shard is written under a temporary name, flushed to disk, hashed on the way and renamed; only then is it recorded in
`composition.json`. A second run with the same plan checks recorded shards by size and hash (XXH3, 128 bits: it tells
damage, not forgery, and keeps up with the disk), keeps the ones that hold, and writes the rest: the folder ends up byte
for byte the same as that of an uninterrupted run. Tensor names and contents are the caller's; configs and processors are
not written here; the folder's lock is `output_folder.py`.
"""

import contextlib
import hashlib
import json
import os
import re
import struct
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import xxhash
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from .errors import CheckpointError
from .output_folder import LOCK, disk_errors, folder_lock, free_bytes, write_text_atomically
from .tensor_files import OutputTensor, dtype_size


MANIFEST = "composition.json"
SCHEMA = 2
# Room for configs, tokenizer and the file system's own bookkeeping.
SPARE_BYTES = 64 * 1024 * 1024


def parse_size(text: str, name: str = "max_shard_size") -> int:
    """
    Bytes of a size such as `"5GB"` or `"200MiB"` (decimal units without the `i`, as in `save_pretrained`); `name` is the
    setting that the error names.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B\s*", text, flags=re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise CheckpointError(f"{name} {text!r} is no size: give for example '5GB' or '200MB'.")
    power = " KMGT".index(match[2].upper() or " ")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


@dataclass(frozen=True)
class Shard:
    """One output file and its tensors in the order in which they are stored."""

    filename: str
    tensors: tuple[OutputTensor, ...]

    def header(self) -> bytes:
        entries: dict[str, dict] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for tensor in self.tensors:
            end = offset + tensor.nbytes
            entries[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(entries, separators=(",", ":")).encode()
        return struct.pack("<Q", len(text) + -len(text) % 8) + text + b" " * (-len(text) % 8)

    @property
    def nbytes(self) -> int:
        return len(self.header()) + sum(tensor.nbytes for tensor in self.tensors)


@dataclass
class WriteResult:
    """
    What a run wrote.

    Args:
        shards (`list[str]`): File names, in order.
        num_shards_kept (`int`): Shards found finished and verified instead of written.
        bytes_total (`int`): Bytes of all shards.
        bytes_written (`int`): Bytes written by this run.
        largest_shard_bytes (`int`): Size of the largest shard.
    """

    shards: list[str] = field(default_factory=list)
    num_shards_kept: int = 0
    bytes_total: int = 0
    bytes_written: int = 0
    largest_shard_bytes: int = 0


def plan_shards(tensors: list[OutputTensor], max_shard_bytes: int) -> list[Shard]:
    """Fill shards in the given order; a tensor larger than `max_shard_bytes` gets a shard of its own."""
    groups: list[list[OutputTensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if groups[-1] and filled + tensor.nbytes > max_shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(tensor)
        filled += tensor.nbytes
    # Wider elements first, so that every tensor stays aligned to its element size.
    ordered = [tuple(sorted(group, key=lambda tensor: -dtype_size(tensor.dtype))) for group in groups]
    if len(ordered) == 1:
        return [Shard("model.safetensors", ordered[0])]
    names = (f"model-{i:05d}-of-{len(ordered):05d}.safetensors" for i in range(1, len(ordered) + 1))
    return [Shard(name, group) for name, group in zip(names, ordered, strict=True)]


class ShardWriter:
    """
    Writes shards into a folder, keeping what an earlier run of the same plan has finished. A context manager: inside it
    the folder is this run's alone, and errors of the disk are `CheckpointError`s.

    Args:
        output_dir (`Path`): Folder to write to; it must be empty, absent, or hold an earlier run of the same plan.
        shards (`list[Shard]`): What to write.
        settings (`dict`): Everything else that decides the result (part of the fingerprint and of the manifest).

    Raises:
        [`~vlm.errors.CheckpointError`]: when the folder holds anything else, its record is damaged, another run holds
            it, or the disk has less room than is needed; nothing is written then. Also when the disk fails on the way.
    """

    def __init__(self, output_dir: Path, shards: list[Shard], settings: dict):
        self.output_dir = output_dir
        self.shards = shards
        self.settings = settings
        plan = {"settings": settings, "shards": [[s.filename, [t.identity() for t in s.tensors]] for s in shards]}
        self.fingerprint = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
        self.finished: dict[str, dict] = self._load_manifest()
        self._held = contextlib.ExitStack()

    def __enter__(self) -> "ShardWriter":
        if not self.output_dir.exists():
            self.check_disk(sum(shard.nbytes for shard in self.shards))
        with contextlib.ExitStack() as stack:
            stack.enter_context(disk_errors(self.output_dir))
            self.output_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(folder_lock(self.output_dir))
            # Only now nobody else changes it.
            self.finished = self._load_manifest()
            self._held = stack.pop_all()
        return self

    def __exit__(self, *error) -> bool | None:
        return self._held.__exit__(*error)

    def _load_manifest(self) -> dict[str, dict]:
        path = self.output_dir / MANIFEST
        if not path.is_file():
            if self.output_dir.exists() and not self.output_dir.is_dir():
                raise CheckpointError(f"{self.output_dir} is a file. Choose another output_dir.")
            # What a run has made, or has left when it was killed, by its first record.
            begun = {LOCK, MANIFEST, f"{MANIFEST}.part"}
            if self.output_dir.exists() and any(found.name not in begun for found in self.output_dir.iterdir()):
                raise CheckpointError(
                    f"{self.output_dir} is not empty and was not written by this command. Choose another output_dir, "
                    "or empty it."
                )
            return {}
        manifest = _read_manifest(path)
        if manifest["schema"] != SCHEMA or manifest["fingerprint"] != self.fingerprint:
            changed = sorted(
                key for key in {*self.settings, *manifest["settings"]}
                if self.settings.get(key) != manifest["settings"].get(key)
            )  # fmt: skip
            raise CheckpointError(
                f"{self.output_dir} holds a checkpoint made from other parts or settings "
                f"(different: {changed or 'the files of the parts'}). Choose another output_dir, or delete it."
            )
        return manifest["shards"]

    def _save_manifest(self, complete: bool) -> None:
        manifest = {
            "schema": SCHEMA,
            "fingerprint": self.fingerprint,
            "complete": complete,
            "settings": self.settings,
            "shards": {s.filename: self.finished[s.filename] for s in self.shards if s.filename in self.finished},
        }
        write_text_atomically(self.output_dir / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True) + "\n")

    def _is_finished(self, shard: Shard) -> bool:
        path = self.output_dir / shard.filename
        record = self.finished.get(shard.filename)
        if record is None or not path.is_file() or path.stat().st_size != record["nbytes"]:
            return False
        with open(path, "rb") as file:
            return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest() == record["xxh3_128"]

    def check_disk(self, needed: int, stale: list[Path] | None = None) -> None:
        """
        Refuse before writing when fewer than `needed` bytes (and some room for small files) are free. What the `stale`
        files occupy counts as free.
        """
        free = free_bytes(self.output_dir) + sum(512 * path.stat().st_blocks for path in stale or [])
        if free < needed + SPARE_BYTES:
            raise CheckpointError(
                f"{self.output_dir}: {needed + SPARE_BYTES:,} bytes are needed and {free:,} are free. "
                "Free some room or choose an output_dir on another disk; nothing was written."
            )

    def write(self, progress: bool = True) -> WriteResult:
        """Write the shards that are not finished yet, and the index when there is more than one shard."""
        pending = [shard for shard in self.shards if not self._is_finished(shard)]
        result = WriteResult(
            shards=[shard.filename for shard in self.shards],
            num_shards_kept=len(self.shards) - len(pending),
            bytes_total=sum(shard.nbytes for shard in self.shards),
            bytes_written=sum(shard.nbytes for shard in pending),
            largest_shard_bytes=max(shard.nbytes for shard in self.shards),
        )
        candidates = [path for s in pending for path in (self._part_path(s), self.output_dir / s.filename)]
        stale = [path for path in candidates if path.is_file()]
        self.check_disk(result.bytes_written, stale)
        for path in stale:
            path.unlink()
        self._save_manifest(complete=False)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, disable=not progress) as bar:
            task = bar.add_task("writing shards", total=result.bytes_total)
            bar.advance(task, result.bytes_total - result.bytes_written)
            # The disk flushes a shard while the next one is put together.
            with ThreadPoolExecutor(1) as flusher:
                flushing: list[Future] = []
                for shard in pending:
                    digest = self._write_part(shard, lambda n: bar.advance(task, n))
                    for future in flushing:
                        future.result()
                    flushing = [flusher.submit(self._finish_shard, shard, digest)]
                for future in flushing:
                    future.result()
        if len(self.shards) > 1:
            self._write_index()
        return result

    def _write_part(self, shard: Shard, advance) -> str:
        """Write a shard under its temporary name; returns its hash."""
        digest = xxhash.xxh3_128()
        with disk_errors(self._part_path(shard)), open(self._part_path(shard), "wb") as file:
            for chunk in chain([shard.header()], *(tensor.chunks() for tensor in shard.tensors)):
                file.write(chunk)
                digest.update(chunk)
                advance(len(chunk))
        return digest.hexdigest()

    def _finish_shard(self, shard: Shard, digest: str) -> None:
        """Flush a written shard, give it its name, and record it."""
        with disk_errors(self._part_path(shard)):
            with open(self._part_path(shard), "rb") as file:
                os.fsync(file.fileno())
            os.replace(self._part_path(shard), self.output_dir / shard.filename)
        self.finished[shard.filename] = {"nbytes": shard.nbytes, "xxh3_128": digest}
        self._save_manifest(complete=False)

    def _part_path(self, shard: Shard) -> Path:
        return self.output_dir / f"{shard.filename}.part"

    def _write_index(self) -> None:
        index = {
            "metadata": {"total_size": sum(t.nbytes for shard in self.shards for t in shard.tensors)},
            "weight_map": {t.name: shard.filename for shard in self.shards for t in shard.tensors},
        }
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        write_text_atomically(self.output_dir / "model.safetensors.index.json", text)

    def finish(self) -> None:
        """Record that configs and processor are written too."""
        self._save_manifest(complete=True)


def _read_manifest(path: Path) -> dict:
    """The record of an earlier run, with every entry that is read later."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        sound = (
            isinstance(manifest, dict)
            and {"schema", "fingerprint", "settings", "shards"} <= manifest.keys()
            and isinstance(manifest["settings"], dict)
            and isinstance(manifest["shards"], dict)
            and all(isinstance(s, dict) and {"nbytes", "xxh3_128"} <= s.keys() for s in manifest["shards"].values())
        )
    except ValueError:  # no JSON, or no UTF-8
        sound = False
    if not sound:
        raise CheckpointError(
            f"{path} is damaged, and without it finished shards cannot be told from broken ones. Delete the folder "
            f"{path.parent} and run the same command again."
        )
    return manifest
