# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Checkpoint folders as byte ranges: which tensors a folder of safetensors files holds and where their bytes lie, and how
the bytes of a new tensor are put together from such ranges.

A tensor that is only renamed, split along its first dimension or joined from such parts is never decoded: its bytes
are copied in chunks, so memory stays at one chunk whatever the size of the checkpoint, and every dtype survives bit
for bit. Writing files is `shard_writer.py`; names are `checkpoint_keys.py`. Pickled checkpoints (`*.bin`, `*.pt`) are
refused: loading them would run code.
"""

import contextlib
import hashlib
import json
import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open

from .errors import CheckpointError
from .json_file import read_json_object


# Small enough to be hashed and written while it is still in the processor's cache.
CHUNK_BYTES = 1024 * 1024
# Values drawn at a time; the bytes of a fresh tensor depend on it.
DRAWN_VALUES = 2 * 1024 * 1024

TORCH_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def dtype_size(name: str) -> int:
    """Bytes of one element of the safetensors dtype `name` (`F32`, `BF16`, ...)."""
    if name not in TORCH_DTYPES:
        raise CheckpointError(
            f"dtype {name!r} is not supported: quantised checkpoints cannot be composed. "
            f"De-quantise to one of {sorted(TORCH_DTYPES)} first."
        )
    return TORCH_DTYPES[name].itemsize


@dataclass(frozen=True)
class TensorInfo:
    """
    Where one tensor lies.

    Args:
        name (`str`): Name inside the checkpoint.
        dtype (`str`): safetensors dtype name.
        shape (`tuple[int, ...]`): Shape.
        path (`Path`): File that holds it.
        offset (`int`): First byte of the data, from the beginning of the file.
        nbytes (`int`): Number of bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    nbytes: int


def read_header(path: Path) -> dict[str, TensorInfo]:
    """
    Names, dtypes, shapes and byte ranges of the tensors in one safetensors file; the data is not read.

    Raises:
        [`~vlm.errors.CheckpointError`]: when the file is cut short or no safetensors file.
    """
    try:
        # The library checks what a parser could forget: overlaps, holes, a file shorter than its header says.
        with safe_open(path, framework="pt"):
            pass
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a complete safetensors file ({error}). Fetch or copy it again.") from error
    with open(path, "rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(header_bytes))
    header.pop("__metadata__", None)
    start = 8 + header_bytes
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = TensorInfo(name, entry["dtype"], tuple(entry["shape"]), path, start + begin, end - begin)
    return tensors


def checkpoint_files(folder: Path) -> list[Path]:
    """
    The safetensors files of a checkpoint folder: `model.safetensors`, or the shards its index names.

    Raises:
        [`~vlm.errors.CheckpointError`]: when there is no safetensors checkpoint, or a shard of the index is missing.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        weight_map = _weight_map(index)
        files = [folder / name for name in sorted(set(weight_map.values()))]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise CheckpointError(f"{folder}: the index names shards that are not there: {missing}. Fetch them.")
        return files
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if pickled:
        raise CheckpointError(
            f"{folder}: only pickled weights found ({pickled[0]}, ...), which are not read because loading them runs "
            "code. Load the model once with transformers and call `save_pretrained` to get safetensors."
        )
    raise CheckpointError(
        f"{folder}: no checkpoint found: expected `model.safetensors` or `model.safetensors.index.json`."
    )


def _weight_map(index: Path) -> dict[str, str]:
    """Which file holds which tensor, as an index says."""
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{index} has no weight_map. Fetch or copy it again.")
    return weight_map


def read_checkpoint(folder: Path) -> dict[str, TensorInfo]:
    """
    Every tensor of a checkpoint folder by name.

    Raises:
        [`~vlm.errors.CheckpointError`]: when the folder holds no safetensors checkpoint, a shard is missing, a name occurs
            in two shards, or the index and the shards disagree.
    """
    tensors: dict[str, TensorInfo] = {}
    for path in checkpoint_files(folder):
        for name, info in read_header(path).items():
            if name in tensors:
                raise CheckpointError(
                    f"{folder}: tensor {name!r} is in both {tensors[name].path.name} and {path.name}."
                )
            tensors[name] = info
    index = folder / "model.safetensors.index.json"
    if index.is_file() and not (folder / "model.safetensors").is_file():
        weight_map = _weight_map(index)
        wrong = sorted(n for n in weight_map if n not in tensors or tensors[n].path.name != weight_map[n])
        wrong += sorted(set(tensors) - set(weight_map))
        if wrong:
            raise CheckpointError(
                f"{folder}: the index and the shards disagree about {wrong[:5]} ({len(wrong)} names)."
            )
    return tensors


# --- Pieces: where the bytes of an output tensor come from -----------------------------------------------------------


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[BinaryIO]:
    """The opened file of a part; an error while it is read names it."""
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}). Check the disk and run again.") from error


@dataclass(frozen=True)
class FileRange:
    """Bytes copied from a file as they are."""

    path: Path
    offset: int
    nbytes: int

    def chunks(self) -> Iterator[memoryview]:
        """The bytes in order. Each chunk overwrites the one before it."""
        buffer = memoryview(bytearray(min(CHUNK_BYTES, self.nbytes)))
        with _readable(self.path) as file:
            file.seek(self.offset)
            left = self.nbytes
            while left:
                chunk = buffer[: min(CHUNK_BYTES, left)]
                if file.readinto(chunk) < len(chunk):
                    raise CheckpointError(
                        f"{self.path}: ended early while it was copied, {left} bytes before the end of a tensor."
                    )
                left -= len(chunk)
                yield chunk

    def identity(self) -> list:
        stat = self.path.stat()
        return ["file", self.path.name, stat.st_size, stat.st_mtime_ns, self.offset, self.nbytes]


@dataclass(frozen=True)
class Cast:
    """Bytes of the tensor `name` in another piece, converted from one dtype to another chunk by chunk."""

    source: FileRange
    source_dtype: str
    dtype: str
    name: str

    @property
    def nbytes(self) -> int:
        return self.source.nbytes // dtype_size(self.source_dtype) * dtype_size(self.dtype)

    def chunks(self) -> Iterator[bytes]:
        for chunk in self.source.chunks():
            values = torch.frombuffer(chunk, dtype=TORCH_DTYPES[self.source_dtype])
            cast = values.to(TORCH_DTYPES[self.dtype])
            self._check_finite(values, cast)
            yield tensor_bytes(cast)

    def _check_finite(self, values: torch.Tensor, cast: torch.Tensor) -> None:
        """Refuse a number that is too large for the dtype; what was infinite or no number stays so."""
        # Bits without their sign are ordered as the numbers, infinity last but for NaN; integers are quick to compare.
        integer = {2: torch.int16, 4: torch.int32}[cast.itemsize]
        infinity = torch.tensor(math.inf, dtype=cast.dtype).view(integer).item()
        if (cast.view(integer).numpy() & torch.iinfo(integer).max).max() < infinity:
            return
        lost = values[values.isfinite() & cast.isinf()].tolist()
        if lost:
            raise CheckpointError(
                f"{self.source.path}: {self.name} holds {lost[0]}, which is infinite in {cast.dtype}. Leave out `dtype` or "
                "choose one of a larger range, and delete the unfinished output_dir."
            )

    def identity(self) -> list:
        return ["cast", self.source_dtype, self.dtype, self.source.identity()]


@dataclass(frozen=True)
class Normal:
    """
    Seeded normal values. Each tensor has its own generator, seeded from `seed` and its name, so the bytes do not
    depend on the order or the number of runs in which tensors are written.
    """

    name: str
    seed: int
    std: float
    numel: int
    dtype: str

    @property
    def nbytes(self) -> int:
        return self.numel * dtype_size(self.dtype)

    def chunks(self) -> Iterator[bytes]:
        digest = hashlib.sha256(f"{self.seed}:{self.name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        for start in range(0, self.numel, DRAWN_VALUES):
            values = torch.randn(min(DRAWN_VALUES, self.numel - start), generator=generator, dtype=torch.float32)
            yield tensor_bytes((values * self.std).to(TORCH_DTYPES[self.dtype]))

    def identity(self) -> list:
        return ["normal", self.name, self.seed, self.std, self.numel, self.dtype]


@dataclass(frozen=True)
class Constant:
    """One value, `numel` times."""

    value: float
    numel: int
    dtype: str

    @property
    def nbytes(self) -> int:
        return self.numel * dtype_size(self.dtype)

    def chunks(self) -> Iterator[bytes]:
        yield tensor_bytes(torch.full((self.numel,), self.value, dtype=TORCH_DTYPES[self.dtype]))

    def identity(self) -> list:
        return ["constant", self.value, self.numel, self.dtype]


@dataclass(frozen=True)
class MeanRow:
    """
    The mean of the first `num_rows` rows of a matrix in a file, repeated `repeat` times; the sum is accumulated in
    float64, chunk by chunk.
    """

    source: TensorInfo
    num_rows: int
    repeat: int
    dtype: str

    @property
    def nbytes(self) -> int:
        return self.repeat * self.source.shape[1] * dtype_size(self.dtype)

    def chunks(self) -> Iterator[bytes]:
        width = self.source.shape[1]
        row_bytes = width * dtype_size(self.source.dtype)
        rows_a_chunk = max(1, CHUNK_BYTES // row_bytes)
        total = torch.zeros(width, dtype=torch.float64)
        with _readable(self.source.path) as file:
            file.seek(self.source.offset)
            for start in range(0, self.num_rows, rows_a_chunk):
                chunk = bytearray(file.read(min(rows_a_chunk, self.num_rows - start) * row_bytes))
                total += torch.frombuffer(chunk, dtype=TORCH_DTYPES[self.source.dtype]).view(-1, width).double().sum(0)
        yield tensor_bytes((total / self.num_rows).to(TORCH_DTYPES[self.dtype])) * self.repeat

    def identity(self) -> list:
        rows = FileRange(self.source.path, self.source.offset, self.source.nbytes).identity()
        return ["mean", self.num_rows, self.repeat, self.dtype, rows]


Piece = FileRange | Cast | Normal | Constant | MeanRow


@dataclass(frozen=True)
class OutputTensor:
    """
    A tensor to be written: its bytes are those of `pieces`, one after the other.

    Args:
        name (`str`): Name in the output checkpoint.
        dtype (`str`): safetensors dtype name.
        shape (`tuple[int, ...]`): Shape.
        pieces (`tuple[Piece, ...]`): Where the bytes come from.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...] = field(repr=False)

    def __post_init__(self):
        expected = math.prod(self.shape) * dtype_size(self.dtype)
        if self.nbytes != expected:
            raise AssertionError(f"{self.name}: pieces hold {self.nbytes} bytes, the shape needs {expected}")

    @property
    def nbytes(self) -> int:
        return sum(piece.nbytes for piece in self.pieces)

    def chunks(self) -> Iterator[bytes | memoryview]:
        for piece in self.pieces:
            yield from piece.chunks()

    def identity(self) -> list:
        return [self.name, self.dtype, list(self.shape), [piece.identity() for piece in self.pieces]]


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """The little-endian bytes of a tensor, as safetensors stores them."""
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def copied(info: TensorInfo, name: str, dtype: str | None = None) -> OutputTensor:
    """`info` under a new name, cast to `dtype` when that is given and the tensor is a floating-point one."""
    return rows_of(info, name, 0, info.shape[0] if info.shape else 1, dtype, info.shape)


def rows_of(
    info: TensorInfo, name: str, start: int, stop: int, dtype: str | None = None, shape: tuple[int, ...] | None = None
) -> OutputTensor:
    """Rows `start:stop` of `info` along its first dimension as a tensor of their own."""
    shape = (stop - start, *info.shape[1:]) if shape is None else shape
    piece, dtype = row_piece(info, start, stop, dtype)
    return OutputTensor(name, dtype, shape, (piece,))


def row_piece(info: TensorInfo, start: int, stop: int, dtype: str | None = None) -> tuple[Piece, str]:
    """The bytes of rows `start:stop` of `info`, and their dtype."""
    dtype_size(info.dtype)  # refuses those that are not supported
    row_bytes = info.nbytes // (info.shape[0] or 1) if info.shape else info.nbytes
    piece = FileRange(info.path, info.offset + start * row_bytes, (stop - start) * row_bytes)
    if dtype is None or dtype == info.dtype or not TORCH_DTYPES[info.dtype].is_floating_point:
        return piece, info.dtype
    return Cast(piece, info.dtype, dtype, info.name), dtype


def joined(infos: Iterable[TensorInfo], name: str) -> OutputTensor:
    """Tensors of one dtype and row shape, stacked along their first dimension."""
    infos = list(infos)
    rows = sum(info.shape[0] for info in infos)
    pieces = tuple(FileRange(info.path, info.offset, info.nbytes) for info in infos)
    return OutputTensor(name, infos[0].dtype, (rows, *infos[0].shape[1:]), pieces)
