# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Buffers in files: one safetensors file a process, with the samples' records and a checksum in its header."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from PIL.Image import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..images.prompt_images import PromptImages
from .sample_buffer import Sample, SelectiveSampleBuffer


SSB_FOLDER = "ssb"
REMEDY = "Resume from another checkpoint, or without the buffered samples (`ssb_resume='empty'`, no `ssb_prefill`)."


class BufferStateError(ValueError):
    """A buffer file is missing, damaged, or belongs to another run."""


@dataclass
class BufferCheckpoint:
    """The buffer of one process in files. Reading them raises a [`BufferStateError`] that says what is wrong."""

    buffer: SelectiveSampleBuffer
    images: PromptImages  # part of the file where no dataset row can give them again
    fingerprint: dict[str, Any]  # from `run_fingerprint`; a file with another one is refused
    rank: int = 0
    world_size: int = 1

    def __post_init__(self):
        self.file_name = f"ssb-{self.rank:05d}-of-{self.world_size:05d}.safetensors"

    def save(self, folder: Path) -> None:
        """Write this process's file, and clear away what a run with another number of processes left behind."""
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("ssb-*-of-*"):
            if f"-of-{self.world_size:05d}." not in path.name:
                path.unlink(missing_ok=True)
        state = self.buffer.state_dict()
        pixels = self.images.entries if self.images.read_row is None else {}
        tensors = {"generator": state["generator"]}
        for key, group in [*((sample.uid, sample.tokens) for sample in state["samples"]), *pixels.items()]:
            tensors |= {f"{key}.{name}": tensor.contiguous() for name, tensor in group.items()}
        manifest = {
            "fingerprint": self.fingerprint,
            "next_uid": state["next_uid"],
            "samples": [{**vars(sample), "tokens": [*sample.tokens]} for sample in state["samples"]],
            "pixels": {key: [*visual] for key, visual in pixels.items()},  # least recently used first
        }
        metadata = {"manifest": json.dumps(manifest)}
        temporary = folder / f"{self.file_name}.tmp"
        save_file(tensors, temporary, metadata | {"sha256": _digest(metadata["manifest"], tensors)})
        os.replace(temporary, folder / self.file_name)

    def load(self, folder: Path) -> None:
        """Go on with this process's file."""
        manifest, tensors = self._read(folder / self.file_name)
        samples = _samples(manifest["samples"], tensors)
        state = {"samples": samples, "generator": tensors["generator"], "next_uid": manifest["next_uid"]}
        self.buffer.load_state_dict(state)
        self._put_images(manifest, tensors)

    def load_share(self, folder: Path, restart: bool = False) -> None:
        """
        Take in what falls to this process when the samples of any number of processes are dealt out. Of their files,
        only those are read that hold some of it. With `restart`, ages and uses count from now on.
        """
        for path, records in self._share(folder):
            manifest, tensors = self._read(path)
            new = {"step": 0, "uses": 0} if restart else {}
            self.buffer.extend(_samples([record | new for record in records], tensors))
            self._put_images(manifest, tensors)

    def _share(self, folder: Path) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
        """Files with samples of this process's share, and the records of these."""
        paths = sorted(folder.glob("ssb-*-of-*.safetensors"))
        if not paths or len(paths) != int(paths[0].stem.rpartition("-")[2]):
            names = ", ".join(path.name for path in paths) or f"none; its folder {SSB_FOLDER!r} may be meant"
            raise BufferStateError(
                f"{folder} does not hold one complete set of buffer files (found: {names}). {REMEDY}"
            )
        records = {path: _read_manifest(path)["samples"] for path in paths}
        total = sum(map(len, records.values()))
        first, last = (total * rank // self.world_size for rank in (self.rank, self.rank + 1))
        for path, held in records.items():
            if mine := held[max(first, 0) : max(last, 0)]:
                yield path, mine
            first, last = first - len(held), last - len(held)

    def _read(self, path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        if not path.exists():
            found = sorted(other.name for other in path.parent.glob("ssb-*.safetensors")) or "nothing"
            raise BufferStateError(
                f"No buffer of process {self.rank} of {self.world_size} in {path.parent} (found: {found}). Use "
                f"`ssb_resume='reshard'` if the number of processes changed. {REMEDY}"
            )
        manifest = _read_manifest(path)
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.get("sha256") != _digest(metadata["manifest"], tensors):
            raise BufferStateError(f"{path} is altered: its checksum does not match. {REMEDY}")
        theirs, ours = manifest["fingerprint"], self.fingerprint
        differing = [
            f"{name}: {theirs.get(name)!r} in the file, {ours.get(name)!r} now"
            for name in sorted({*theirs, *ours})
            if theirs.get(name) != ours.get(name)
        ]
        if differing:
            raise BufferStateError(f"{path} belongs to another run ({'; '.join(differing)}). {REMEDY}")
        return manifest, tensors

    def _put_images(self, manifest: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        for key, names in manifest["pixels"].items():
            self.images.put(key, {name: tensors[f"{key}.{name}"] for name in names})
        self.images.keep_only({sample.source for sample in self.buffer.samples.values()})


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, "pt") as file:
            return json.loads(file.metadata()["manifest"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BufferStateError(f"{path} cannot be read ({error}). {REMEDY}") from error


def _digest(manifest: str, tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(manifest.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _samples(records: list[dict[str, Any]], tensors: dict[str, torch.Tensor]) -> list[Sample]:
    return [
        Sample(**{**record, "tokens": {name: tensors[f"{record['uid']}.{name}"] for name in record["tokens"]}})
        for record in records
    ]


def run_fingerprint(
    vocab_size: int, dataset: Dataset | None, has_reference: bool, importance_sampling_mode: str | None
) -> dict[str, Any]:
    """What a stored sample silently depends on, the rows that it may refer to among it."""

    def describe(value: Any) -> Any:  # of an image in a prompt, `repr` is a memory address
        return hashlib.sha256(value.tobytes()).hexdigest() if isinstance(value, Image) else repr(value)

    fingerprint = {
        "schema_version": 2,
        "vocab_size": vocab_size,
        "reference_logps": has_reference,
        "importance_sampling_mode": importance_sampling_mode,
    }
    if dataset is not None:
        prompts = dataset.select_columns(["prompt"])  # without decoding the images of other columns
        rows = range(0, len(dataset), max(1, len(dataset) // 64))  # reading all would be slow
        text = json.dumps([prompts[row]["prompt"] for row in rows], default=describe, sort_keys=True)
        fingerprint |= {"dataset_rows": len(dataset), "dataset_prompts": hashlib.sha256(text.encode()).hexdigest()}
    return fingerprint
