# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Writes planned tensors as a sharded safetensors checkpoint; memory holds one shard at most. A shard is written under a
temporary name, flushed and renamed: what has its name is whole, and a second run with the same settings and sources
keeps it. `composition.json` says whose folder it is. POSIX only.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm

from .checkpoint_files import LazyTensor
from .errors import CheckpointError


RECORD = "composition.json"
# Room for configs, tokenizer and the file system's own bookkeeping.
SPARE_BYTES = 64 * 1024 * 1024


@dataclass
class WriteResult:
    """The bytes of each shard's tensors by file, and how many shards were found finished instead of written."""

    shards: dict[str, int]
    num_shards_kept: int

    def __str__(self) -> str:
        num_bytes = sum(self.shards.values())
        return f"{len(self.shards)} shards, {num_bytes:,} bytes ({self.num_shards_kept} kept from an earlier run)"


@contextlib.contextmanager
def written_shards(
    output_dir: Path, tensors: Sequence[LazyTensor], settings: dict, max_shard_size: str, progress: bool = True
) -> Iterator[WriteResult]:
    """
    Write the shards of `tensors` that are not finished yet, and their index, to a folder that is empty, absent, or
    holds an earlier run of the same tensors and `settings`. The `with` block adds the rest: until its end the folder
    is this run's alone, and errors of the disk are [`~vlm.errors.CheckpointError`]s. Another such error, when the
    folder holds anything else, another run holds it, or the disk has less room than is needed: nothing is written
    then.
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    pattern, size_of = "model{suffix}.safetensors", lambda tensor: tensor.nbytes
    try:
        split = split_state_dict_into_shards_factory(
            by_name, get_storage_size=size_of, filename_pattern=pattern, max_shard_size=max_shard_size
        )
    except ValueError as error:
        raise CheckpointError(f"max_shard_size: {error}") from error
    shards = {file: [by_name[name] for name in names] for file, names in split.filename_to_tensors.items()}
    sizes = {file: sum(tensor.nbytes for tensor in shard) for file, shard in shards.items()}
    files = {path for tensor in tensors for path in tensor.files}
    sources = {str(path): [path.stat().st_size, path.stat().st_mtime_ns] for path in files}
    with _disk_errors(output_dir):
        pending = [file for file, shard in shards.items() if not _is_whole(output_dir / file, shard)]
        left_over = list(output_dir.glob("*.part"))
        needed = SPARE_BYTES + sum(sizes[file] for file in pending) - sum(path.stat().st_size for path in left_over)
        free = shutil.disk_usage(next(p for p in (output_dir, *output_dir.parents) if p.exists())).free
        if free < needed:
            raise CheckpointError(
                f"{output_dir}: {needed:,} bytes are needed and {free:,} are free. Free some room or choose an "
                "output_dir on another disk; nothing was written."
            )
        with _claimed(output_dir, {"settings": settings, "sources": sources, "shards": sizes}):
            for path in left_over:
                path.unlink()
            for file in tqdm(pending, desc="writing shards", unit="shard", disable=not progress):
                _write_shard(output_dir / file, shards[file])
            index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
            if split.is_sharded:
                write_json(output_dir / "model.safetensors.index.json", index)
            yield WriteResult(sizes, len(shards) - len(pending))


def write_json(path: Path, content: dict) -> None:
    """Write a JSON file as transformers writes its own."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: {error}. Repair that and run the same command again: it goes on with what is finished."
        ) from error


@contextlib.contextmanager
def _claimed(folder: Path, record: dict) -> Iterator[None]:
    """Hold `folder` for this run. Its record says what it is made from; the lock on that ends with the process."""
    path = folder / RECORD
    if folder.is_file() or (folder.exists() and not path.exists() and any(folder.iterdir())):
        raise CheckpointError(
            f"{folder} is a file, or is not empty and was not written by this command. Choose another output_dir."
        )
    folder.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(
                f"{folder}: another run is writing there. Wait until it has ended, or choose another output_dir."
            ) from None
        file.seek(0)
        found, wanted = file.read(), json.dumps(record, indent=2, sort_keys=True) + "\n"
        if not found:
            file.write(wanted)
            file.flush()
            os.fsync(file.fileno())
        elif found != wanted:
            other = [line.strip(" ,") for line in found.splitlines() if line not in wanted.splitlines()]
            raise CheckpointError(
                f"{folder} holds a checkpoint made from other parts or settings ({'; '.join(other[:4])}), or its "
                f"{RECORD} is damaged. Choose another output_dir, or delete it."
            )
        yield


def _is_whole(path: Path, shard: list[LazyTensor]) -> bool:
    """Whether a shard is there; a file that was cut short later is none."""
    with contextlib.suppress(SafetensorError, FileNotFoundError), safe_open(path, framework="pt") as file:
        return set(file.keys()) == {tensor.name for tensor in shard}
    return False


def _write_shard(path: Path, shard: list[LazyTensor]) -> None:
    part = path.with_name(path.name + ".part")
    save_file({tensor.name: tensor.load().contiguous() for tensor in shard}, part, metadata={"format": "pt"})
    with open(part, "rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
