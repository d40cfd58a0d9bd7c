# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Stored tensors renamed, cut, joined and cast: what torch makes of them, unless a number would be lost."""

import re

import pytest
import torch
from safetensors.torch import save_file

from trl_r1v2.vlm.checkpoint_files import joined, read_checkpoint
from trl_r1v2.vlm.errors import CheckpointError


HUGE, INF, NAN = 70000.0, float("inf"), float("nan")


def stored(folder, values: torch.Tensor):
    save_file({"weight": values}, folder / "model.safetensors")
    return read_checkpoint(folder)["weight"]


def numbers(dtype: torch.dtype, *special: float) -> torch.Tensor:
    values = torch.randn(64, generator=torch.Generator().manual_seed(0)).to(dtype)
    values[40 : 40 + len(special)] = torch.tensor(special, dtype=dtype)
    return values


@pytest.mark.parametrize(
    ("dtype", "special", "target"),
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
def test_casts_are_torchs(tmp_path, dtype, special, target):
    values = numbers(dtype, *special)
    expected = values.to(target) if dtype.is_floating_point else values
    cast = stored(tmp_path, values).to("new", target)
    assert (cast.dtype, cast.nbytes) == (expected.dtype, expected.nbytes)
    torch.testing.assert_close(cast.load(), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("dtype", "special", "target"),
    [
        (torch.float32, (HUGE,), torch.float16),
        (torch.float32, (-65520.0,), torch.float16),
        (torch.bfloat16, (-HUGE,), torch.float16),
        (torch.float32, (3.4e38,), torch.bfloat16),
        (torch.float64, (1e300,), torch.float32),
        (torch.float32, (INF, NAN, HUGE), torch.float16),  # the first two hide nothing
    ],
)
def test_casts_that_lose_a_number_are_refused_by_name(tmp_path, dtype, special, target):
    lost = torch.tensor(special[-1], dtype=dtype).item()
    with pytest.raises(CheckpointError, match=re.escape(f": weight holds {lost}, which is infinite in {target}.")):
        stored(tmp_path, numbers(dtype, *special)).to("new", target).load()


def test_rows_and_joins_keep_every_bit(tmp_path):
    """NaN payloads and negative zeros included: nothing is decoded on the way."""
    bits = torch.randint(-(2**31), 2**31 - 1, (6, 5), dtype=torch.int32, generator=torch.Generator().manual_seed(1))
    tensor = stored(tmp_path, bits.view(torch.float32))
    parts = [tensor.rows(f"part {k}", 2 * k, 2 * k + 2) for k in range(3)]
    assert [part.shape for part in parts] == [(2, 5)] * 3
    for k, part in enumerate(parts):
        assert part.load().view(torch.int32).equal(bits[2 * k : 2 * k + 2])
    whole = joined(parts, "whole")
    assert whole.shape == (6, 5) and whole.files == tensor.files * 3
    assert whole.load().view(torch.int32).equal(bits)


def test_a_file_that_vanishes_is_named(tmp_path):
    tensor = stored(tmp_path, torch.ones(3))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=rf"{tmp_path}/model.safetensors: not a complete safetensors file \(.*No such file"
    ):
        tensor.load()
