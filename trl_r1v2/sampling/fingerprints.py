# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.

"""
Cheap digests that tell one model or dataset from another, so that a resumed run does not mix two of them.

They are no checksums: a change that leaves every probed value as it was goes unnoticed.
"""

import hashlib
import json
from collections.abc import Sequence

import torch
from datasets import Dataset


NUM_PROBES = 64


def model_fingerprint(model: torch.nn.Module) -> str:
    """
    Digest of the names, shapes and up to 64 evenly spaced values of every parameter.

    Args:
        model (`torch.nn.Module`):
            Model that holds all of its weights.

    Returns:
        `str`: 16 hexadecimal digits; the same on every device, another one after an update of the weights.
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
    Digest of some columns, and of the files of up to 64 evenly spaced rows' images.

    Args:
        dataset ([`~datasets.Dataset`]):
            Dataset with images, if any, in column `images` or `image`.
        columns (`Sequence[str]`, *optional*, defaults to `("prompt",)`):
            Columns to read as a whole.

    Returns:
        `str`: 16 hexadecimal digits; the same for the same content, wherever it is loaded from.
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
    """
    Digest of anything JSON can express.

    Args:
        content (JSON-serialisable):
            Lists, dictionaries, strings, numbers.

    Returns:
        `str`: 16 hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
