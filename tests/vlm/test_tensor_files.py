# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Casts of stored tensors, chunk by chunk: what torch makes of them, unless a number would be lost."""

import re

import pytest
import torch
from safetensors.torch import save_file

from trl_r1v2.vlm import tensor_files
from trl_r1v2.vlm.errors import CheckpointError
from trl_r1v2.vlm.tensor_files import DTYPE_NAMES, TORCH_DTYPES, copied, read_header


HUGE, INF, NAN = 70000.0, float("inf"), float("nan")


def cast(folder, values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`values` stored and read back as `dtype`."""
    save_file({"weight": values}, folder / "model.safetensors")
    tensor = copied(read_header(folder / "model.safetensors")["weight"], "new", DTYPE_NAMES[dtype])
    return torch.frombuffer(bytearray(b"".join(map(bytes, tensor.chunks()))), dtype=TORCH_DTYPES[tensor.dtype])


def numbers(dtype: torch.dtype, *special: float) -> torch.Tensor:
    """Ordinary numbers of four chunks, with `special` ones in the third."""
    values = torch.randn(64, generator=torch.Generator().manual_seed(0)).to(dtype)
    values[40 : 40 + len(special)] = torch.tensor(special, dtype=dtype)
    return values


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(tensor_files, "CHUNK_BYTES", 64)


@pytest.mark.parametrize(
    ("stored", "special", "dtype"),
    [
        (torch.float32, (65519.0, -65519.0, 1e-30), torch.float16),  # round to the largest, and to 0
        (torch.float32, (HUGE,), torch.bfloat16),
        (torch.bfloat16, (3e38,), torch.float32),
        (torch.float16, (65504.0,), torch.bfloat16),
        (torch.float32, (INF, -INF, NAN), torch.float16),  # as they were
        (torch.float32, (HUGE,), torch.float32),
        (torch.int64, (2**62,), torch.float16),  # integers are not cast
    ],
)
def test_casts_are_torchs(tmp_path, stored, special, dtype):
    values = numbers(stored, *special)
    expected = values.to(dtype) if stored.is_floating_point else values
    torch.testing.assert_close(cast(tmp_path, values, dtype), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("stored", "special", "dtype"),
    [
        (torch.float32, (HUGE,), torch.float16),
        (torch.float32, (-65520.0,), torch.float16),
        (torch.bfloat16, (-HUGE,), torch.float16),
        (torch.float32, (3.4e38,), torch.bfloat16),
        (torch.float64, (1e300,), torch.float32),
        (torch.float32, (INF, NAN, HUGE), torch.float16),  # the first two hide nothing
    ],
)
def test_casts_that_lose_a_number_are_refused_by_name(tmp_path, stored, special, dtype):
    lost = torch.tensor(special[-1], dtype=stored).item()
    with pytest.raises(CheckpointError, match=re.escape(f": weight holds {lost}, which is infinite in {dtype}.")):
        cast(tmp_path, numbers(stored, *special), dtype)
