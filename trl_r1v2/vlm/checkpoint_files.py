# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The tensors of a checkpoint folder, loaded when they are written: renamed, cut, joined or cast. Stored values are never
decoded into another format, so every dtype survives bit for bit. Pickled checkpoints (`*.bin`, `*.pt`) are refused:
loading them would run code.
"""

import contextlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .errors import CheckpointError


DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
          "BOOL": torch.bool}  # fmt: skip


@dataclass(frozen=True)
class LazyTensor:
    """
    A tensor that is not loaded yet: `load` gives the values, or the rows `start:stop` if called with these two, and
    `files` is where they come from.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    load: Callable[..., torch.Tensor] = field(repr=False)
    files: tuple[Path, ...] = ()

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def rows(self, name: str, start: int, stop: int) -> "LazyTensor":
        """Rows `start:stop` along the first dimension as a tensor of their own."""
        return replace(self, name=name, shape=(stop - start, *self.shape[1:]), load=partial(self.load, start, stop))

    def to(self, name: str, dtype: torch.dtype | None = None) -> "LazyTensor":
        """This tensor under a new name, cast to `dtype` when that is given and the tensor is a floating-point one."""
        if dtype in (None, self.dtype) or not self.dtype.is_floating_point:
            return replace(self, name=name)
        return replace(self, name=name, dtype=dtype, load=lambda: _cast(self, dtype))


def _cast(tensor: LazyTensor, dtype: torch.dtype) -> torch.Tensor:
    """Refuses a number that is too large for the dtype; what was infinite or no number stays so."""
    values = tensor.load()
    cast = values.to(dtype)
    lost = values[values.isfinite() & cast.isinf()] if cast.isinf().any() else values[:0]
    if len(lost):
        raise CheckpointError(
            f"{tensor.files[0]}: {tensor.name} holds {lost[0].item()}, which is infinite in {dtype}. Leave out "
            "`dtype` or choose one of a larger range, and delete the unfinished output_dir."
        )
    return cast


def joined(tensors: Iterable[LazyTensor], name: str) -> LazyTensor:
    """Tensors of one dtype and row shape, stacked along their first dimension."""
    tensors = list(tensors)
    shape = (sum(tensor.shape[0] for tensor in tensors), *tensors[0].shape[1:])
    files = tuple(path for tensor in tensors for path in tensor.files)
    return LazyTensor(name, tensors[0].dtype, shape, lambda: torch.cat([t.load() for t in tensors]), files)


def read_checkpoint(folder: Path) -> dict[str, LazyTensor]:
    """
    Every tensor of a checkpoint folder by name; a [`~vlm.errors.CheckpointError`] when it holds no safetensors or
    quantised ones, a shard is missing or cut short, or the index and the shards disagree.
    """
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return _read_file(folder / "model.safetensors")
    if not index.is_file():
        raise CheckpointError(
            f"{folder}: no checkpoint found: expected `model.safetensors` or `model.safetensors.index.json`. Pickled "
            "weights (`*.bin`) are not read: load the model once with transformers and call `save_pretrained`."
        )
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{index} has no weight_map. Fetch or copy it again.")
    shards = {file: _read_file(folder / file) for file in sorted(set(weight_map.values()))}
    found = {(name, file) for file, tensors in shards.items() for name in tensors}
    wrong = sorted({name for name, _ in found ^ weight_map.items()})
    if wrong:
        raise CheckpointError(f"{folder}: the index and the shards disagree about {wrong[:5]} ({len(wrong)} names).")
    return {name: tensor for tensors in shards.values() for name, tensor in tensors.items()}


def _read_file(path: Path) -> dict[str, LazyTensor]:
    tensors = {}
    with _opened(path) as file:
        for name in file.keys():  # noqa: SIM118 (no mapping)
            stored = file.get_slice(name)
            dtype = DTYPES.get(stored.get_dtype())
            if dtype is None:
                raise CheckpointError(
                    f"{path}: dtype {stored.get_dtype()!r} is not supported: quantised checkpoints cannot be "
                    f"composed. De-quantise to one of {sorted(DTYPES)} first."
                )
            tensors[name] = LazyTensor(name, dtype, tuple(stored.get_shape()), partial(_load, path, name), (path,))
    return tensors


def _load(path: Path, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
    """Values, or rows of them, from the mapped file."""
    with _opened(path) as file:
        return file.get_tensor(name) if stop is None else file.get_slice(name)[start:stop]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a complete safetensors file ({error}). Fetch or copy it again.") from error


def read_json_object(path: Path) -> dict:
    """Contents of a JSON file that holds an object; any other is a [`~vlm.errors.CheckpointError`]."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"but a {type(content).__name__}")
    except ValueError as error:  # no JSON, no UTF-8, no object
        raise CheckpointError(f"{path} is no JSON object ({error}). Fetch or copy it again.") from error
    return content
