# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Buffer files: safetensors for the tensors, a JSON manifest that vouches for them, no pickle.

A folder holds one pair of files a process. The manifest is written last, and both are written to a temporary name,
flushed to disk and renamed, so a manifest that can be read describes a file that is whole. What a checkpoint is and
when it is written is the trainer's business.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from PIL.Image import Image
from safetensors.torch import load, save

from .sample_buffer import Sample


SCHEMA_VERSION = 1
SSB_FOLDER = "ssb"


class BufferStateError(ValueError):
    """A buffer file is missing, damaged, or belongs to another run."""


@dataclass(frozen=True)
class Shard:
    """Where the buffer of process `rank` of `world_size` lies in `folder`."""

    folder: Path
    rank: int
    world_size: int

    @property
    def tensors(self) -> Path:
        return self.folder / f"ssb-{self.rank:05d}-of-{self.world_size:05d}.safetensors"

    @property
    def manifest(self) -> Path:
        return self.tensors.with_suffix(".json")


def _write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _pack(samples: list[Sample]) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Concatenate ragged fields; the length of each part goes into the sample's JSON record."""
    parts: dict[str, list[torch.Tensor]] = {}
    records = []
    for sample in samples:
        for name, tensor in sample.tokens.items():
            parts.setdefault(f"tokens.{name}", []).append(tensor)
        records.append(
            {
                "uid": sample.uid,
                # Hexadecimal, so that the weight of a sample survives to the last bit.
                "advantage": float(sample.advantage).hex(),
                "step": sample.step,
                "uses": sample.uses,
                "source": sample.source,
                "num_images": sample.num_images,
                "lengths": {name: len(tensor) for name, tensor in sample.tokens.items()},
            }
        )
    return {name: torch.cat(tensors) for name, tensors in parts.items()}, records


def _unpack(tensors: dict[str, torch.Tensor], records: list[dict[str, Any]]) -> list[Sample]:
    offsets: dict[str, int] = {}
    samples = []
    for record in records:
        tokens = {}
        for name, length in record["lengths"].items():
            start = offsets.get(name, 0)
            tokens[name] = tensors[f"tokens.{name}"][start : start + length].clone()
            offsets[name] = start + length
        samples.append(
            Sample(
                tokens=tokens,
                advantage=float.fromhex(record["advantage"]),
                step=record["step"],
                source=record["source"],
                num_images=record["num_images"],
                uses=record["uses"],
                uid=record["uid"],
            )
        )
    return samples


def _describe(value: Any) -> Any:
    """What JSON has no form for: an image in a prompt by its content, since its `repr` is a memory address."""
    if isinstance(value, Image):
        return [value.mode, value.size, hashlib.sha256(value.tobytes()).hexdigest()]
    return repr(value)


def run_fingerprint(
    vocab_size: int, dataset: Dataset | None, has_reference: bool, has_sampling_ratio: bool
) -> dict[str, Any]:
    """
    What a stored sample silently depends on.

    Args:
        vocab_size (`int`): Number of tokens of the tokenizer.
        dataset ([`~datasets.Dataset`], *optional*): The training set whose row numbers samples refer to.
        has_reference (`bool`): Whether the loss reads reference log-probabilities.
        has_sampling_ratio (`bool`): Whether the loss reads an inference-engine importance ratio.
    """
    fingerprint = {
        "vocab_size": vocab_size,
        "reference_logps": has_reference,
        "sampling_ratio": has_sampling_ratio,
        "dataset_rows": None,
        "dataset_prompts": None,
    }
    if dataset is not None:
        digest = hashlib.sha256()
        prompts = dataset.select_columns(["prompt"])  # without decoding the images of other columns
        for index in range(0, len(dataset), max(1, len(dataset) // 64)):  # a sample: reading all would be slow
            digest.update(json.dumps(prompts[index]["prompt"], default=_describe, sort_keys=True).encode())
        fingerprint |= {"dataset_rows": len(dataset), "dataset_prompts": digest.hexdigest()}
    return fingerprint


def save_shard(
    shard: Shard,
    state: dict[str, Any],
    fingerprint: dict[str, Any],
    pixels: dict[str, dict[str, torch.Tensor]] | None = None,
) -> None:
    """
    Write one process's buffer.

    Args:
        shard ([`Shard`]): Where to.
        state (`dict[str, Any]`): From [`SelectiveSampleBuffer.state_dict`], and under `trainer` further tensors by
            name that the trainer wants back.
        fingerprint (`dict[str, Any]`): JSON-able facts about the run that a loaded buffer has to match.
        pixels (`dict[str, dict[str, torch.Tensor]]`, *optional*): Visual fields by content key, for samples whose
            images cannot be read again from a dataset row.
    """
    shard.folder.mkdir(parents=True, exist_ok=True)
    tensors, records = _pack(state["samples"])
    tensors["generator"] = state["generator"]
    tensors |= {f"trainer.{name}": tensor.contiguous() for name, tensor in state["trainer"].items()}
    for key, fields in (pixels or {}).items():
        for name, tensor in fields.items():
            tensors[f"pixels.{key}.{name}"] = tensor.contiguous()
    content = save(tensors)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "rank": shard.rank,
        "world_size": shard.world_size,
        "num_samples": len(records),
        "sha256": hashlib.sha256(content).hexdigest(),
        "fingerprint": fingerprint,
        "next_uid": state["next_uid"],
        "num_evicted": state["num_evicted"],
        "samples": records,
        "pixels": list(pixels or {}),  # safetensors sorts by name, but what the store drops next is its first entry
    }
    manifest["manifest_sha256"] = _manifest_sha256(manifest)
    shard.manifest.unlink(missing_ok=True)
    _write_atomically(shard.tensors, content)
    _write_atomically(shard.manifest, json.dumps(manifest).encode())


def _manifest_sha256(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def read_manifest(shard: Shard) -> dict[str, Any]:
    """
    Read and check a shard's manifest, without the tensors.

    Raises:
        BufferStateError: If it is missing, unreadable, altered or of another schema.
    """
    if not shard.manifest.is_file():
        found = sorted(path.name for path in shard.folder.glob("ssb-*.json")) if shard.folder.is_dir() else []
        raise BufferStateError(
            f"No buffer of process {shard.rank} of {shard.world_size} in {shard.folder} (found: {found or 'nothing'}). "
            "Use `ssb_resume='reshard'` if the number of processes changed, or `ssb_resume='empty'` to go on without "
            "the buffered samples."
        )
    try:
        manifest = dict(json.loads(shard.manifest.read_bytes()))
    except (TypeError, ValueError) as error:
        raise BufferStateError(
            f"{shard.manifest} is not a readable manifest ({error}). Resume from another checkpoint, or use "
            "`ssb_resume='empty'`."
        ) from error
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise BufferStateError(
            f"{shard.manifest} has schema version {manifest.get('schema_version')}, this version reads "
            f"{SCHEMA_VERSION}. Use `ssb_resume='empty'` to go on without the buffered samples."
        )
    if manifest.pop("manifest_sha256", None) != _manifest_sha256(manifest):
        raise BufferStateError(
            f"{shard.manifest} is altered: its checksum does not match. Resume from another checkpoint, or use "
            "`ssb_resume='empty'`."
        )
    return manifest


def _read_tensors(shard: Shard, manifest: dict[str, Any]) -> bytes:
    if not shard.tensors.is_file():
        raise BufferStateError(
            f"{shard.tensors} is missing beside its manifest. Resume from another checkpoint, or use "
            "`ssb_resume='empty'`."
        )
    content = shard.tensors.read_bytes()
    if hashlib.sha256(content).hexdigest() != manifest["sha256"]:
        raise BufferStateError(
            f"{shard.tensors} is truncated or altered: its checksum differs from the manifest's. Resume from another "
            "checkpoint, or use `ssb_resume='empty'`."
        )
    return content


def check_shards(folder: Path) -> None:
    """
    Check that all files of a folder are there and whole.

    Raises:
        BufferStateError: As [`find_shards`], and if a file is missing, truncated or altered.
    """
    for shard in find_shards(folder):
        _read_tensors(shard, read_manifest(shard))


def load_shard(shard: Shard, fingerprint: dict[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, torch.Tensor]]]:
    """
    Read one process's buffer.

    Args:
        shard ([`Shard`]): Where from.
        fingerprint (`dict[str, Any]`): Of the present run.

    Returns:
        `tuple`: What [`save_shard`] was given as `state`, and the stored pixels by content key.

    Raises:
        BufferStateError: If the file is missing, truncated, altered, or was written by a run that differs in
            `fingerprint`; every differing entry is named.
    """
    manifest = read_manifest(shard)
    differing = [
        f"{name}: {manifest['fingerprint'].get(name)!r} in the file, {fingerprint.get(name)!r} now"
        for name in sorted({*manifest["fingerprint"], *fingerprint})
        if manifest["fingerprint"].get(name) != fingerprint.get(name)
    ]
    if differing:
        raise BufferStateError(
            f"{shard.tensors} belongs to another run ({'; '.join(differing)}). Restore these settings, or use "
            "`ssb_resume='empty'` to go on without the buffered samples."
        )
    tensors = load(_read_tensors(shard, manifest))
    pixels: dict[str, dict[str, torch.Tensor]] = {key: {} for key in manifest["pixels"]}
    for name in tensors:
        if name.startswith("pixels."):
            _, key, field = name.split(".", 2)
            pixels[key][field] = tensors[name]
    state = {
        "samples": _unpack(tensors, manifest["samples"]),
        "generator": tensors["generator"],
        "trainer": {
            name.removeprefix("trainer."): tensor for name, tensor in tensors.items() if name.startswith("trainer.")
        },
        "next_uid": manifest["next_uid"],
        "num_evicted": manifest["num_evicted"],
    }
    return state, pixels


def remove_shards_of_other_world_sizes(folder: Path, world_size: int) -> None:
    """Clear what a run with another number of processes left in a folder that is about to be written again."""
    for path in folder.glob("ssb-*-of-*"):
        if f"-of-{world_size:05d}." not in path.name:
            path.unlink()


def find_shards(folder: Path) -> list[Shard]:
    """
    All shards of a folder.

    Raises:
        BufferStateError: If there are none, or not all of one number of processes.
    """
    found = []
    for path in sorted(folder.glob("ssb-*-of-*.json")) if folder.is_dir() else []:
        rank, _, world_size = path.stem.removeprefix("ssb-").partition("-of-")
        found.append(Shard(folder, int(rank), int(world_size)))
    world_sizes = {shard.world_size for shard in found}
    if not folder.is_dir():
        raise BufferStateError(f"{folder}: there is no such folder.")
    if len(world_sizes) != 1 or len(found) != found[0].world_size:
        names = ", ".join(shard.manifest.name for shard in found) or "none"
        inside = f" Its folder {SSB_FOLDER!r} may be meant." if (folder / SSB_FOLDER).is_dir() else ""
        raise BufferStateError(f"{folder} does not hold one complete set of buffer files (found: {names}).{inside}")
    return found


def load_resharded(
    folder: Path, rank: int, world_size: int, fingerprint: dict[str, Any]
) -> tuple[list[Sample], dict[str, dict[str, torch.Tensor]]]:
    """
    The samples that fall to process `rank` when the buffers of any number of processes are dealt out in turn.

    Returns:
        `tuple`: Samples (to be given new uids by [`SelectiveSampleBuffer.extend`]) and their stored pixels.

    Raises:
        BufferStateError: As [`load_shard`] and [`find_shards`].
    """
    samples, pixels = [], {}
    for shard in find_shards(folder):
        state, shard_pixels = load_shard(shard, fingerprint)
        samples += state["samples"]
        pixels |= shard_pixels
    mine = samples[rank::world_size]
    keys = {sample.source for sample in mine}
    return mine, {key: fields for key, fields in pixels.items() if key in keys}
