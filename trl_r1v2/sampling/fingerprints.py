# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Cheap digests that tell one model, dataset or reward from another, so that a resumed run does not mix two of them. They
are no checksums: a change that leaves every probed value as it was goes unnoticed.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from datasets import Dataset


NUM_PROBES = 64
_PROBE_BYTES = 4096


def model_fingerprint(model: torch.nn.Module) -> str:
    """
    Digest of the names, shapes and up to 64 evenly spaced values of every parameter of a model that holds all of its
    weights: 16 hexadecimal digits, the same on every device, others after an update of the weights.
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        values = parameter.detach().flatten()
        probes = torch.linspace(0, max(values.numel() - 1, 0), min(NUM_PROBES, values.numel()), dtype=torch.float64)
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        digest.update(values[probes.long().to(values.device)].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def dataset_fingerprint(dataset: Dataset, columns: Sequence[str] = ("prompt",)) -> str:
    """
    Digest of whole `columns`, and of the files of up to 64 evenly spaced rows' images in `images` or `image`: 16
    hexadecimal digits, the same for the same content, wherever it is loaded from.
    """
    digest = hashlib.sha256()
    # The arrow storage holds encoded images and paths: nothing is decoded.
    storage = dataset.with_format("arrow")
    for batch in storage.select_columns(sorted(columns)).iter(batch_size=1000):
        digest.update(json.dumps(batch.to_pylist(), sort_keys=True, default=repr).encode())
    step = max(1, len(dataset) // NUM_PROBES)
    for column in [name for name in ("images", "image") if name in dataset.column_names]:
        probed = storage.select_columns(column).select(range(0, len(dataset), step))
        for value in probed[:][column].to_pylist():
            for image in value if isinstance(value, list) else [value]:
                digest.update(b"none" if image is None else image["bytes"] or str(image["path"]).encode())
    return digest.hexdigest()[:16]


def content_fingerprint(content) -> str:
    """Digest of anything JSON can express: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def path_fingerprint(path: str) -> str:
    """Digest of all files of a folder by 64 evenly spaced probes of 4 KiB; what is no folder is its own digest."""
    if not Path(path).is_dir():
        return path
    digest = hashlib.sha256()
    for file in sorted(file for file in Path(path).rglob("*") if file.is_file()):
        _add_file(digest, file, file.relative_to(path).as_posix())
    return digest.hexdigest()[:16]


def reward_fingerprint(name: str, reward_func: Callable) -> str:
    """
    Digest of what a reward function is made of: 16 hexadecimal digits. Of the folder of a reward model, all files
    count, by 64 evenly spaced probes of 4 KiB; otherwise the YAML file of a hybrid reward, the source of the module
    that a dotted path names, and of those that define the function or its class. What these import goes unnoticed.
    """
    if Path(name).is_dir():
        return path_fingerprint(name)
    digest = hashlib.sha256()
    if Path(name).is_file():
        _add_file(digest, Path(name), "file")
    modules = {name.rpartition(".")[0], reward_func.__module__}  # of an instance: where its class is
    for module in sorted(module for module in modules if module in sys.modules):
        source = getattr(sys.modules[module], "__file__", None)
        if source is not None:
            _add_file(digest, Path(source), module)
    return digest.hexdigest()[:16]


def _add_file(digest, path: Path, name: str) -> None:
    """A file's name, size and probes; small files count as a whole."""
    size = path.stat().st_size
    digest.update(f"{name} {size}".encode())
    with path.open("rb") as file:
        for start in range(0, size, max(_PROBE_BYTES, size // NUM_PROBES)):
            file.seek(start)
            digest.update(file.read(_PROBE_BYTES))
