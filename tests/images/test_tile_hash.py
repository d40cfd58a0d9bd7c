# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Tile hashes: every bit counts, places count, and the number is the one that the docstring defines."""

import pytest
import torch

from trl_r1v2.images.tile_hash import TileHasher


def tiles(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_hashes_see_every_bit(dtype):
    hasher = TileHasher()
    pixels = tiles(40).to(dtype)
    flipped = pixels.clone()
    for row in range(40):  # one bit of one value in each tile: the lowest and the sign bit among them
        words = flipped[row].flatten().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[pixels.element_size()])
        bits = 8 * pixels.element_size()
        words[row * 57] ^= torch.tensor(1, dtype=words.dtype) << (row % bits)
    a, b = hasher(pixels), hasher(flipped)
    assert torch.equal(a, hasher(pixels.clone()))
    assert len({tuple(pair) for pair in torch.cat([a, b]).tolist()}) == 80
    swapped = pixels.transpose(2, 3).contiguous()
    assert not (hasher(swapped) == a).any()


def test_hash_is_the_sum_it_says():
    """The same number by Python's unbounded integers."""
    hasher = TileHasher()
    pixels = tiles(2)[:, :, :2, :3]
    hashes = hasher(pixels)
    weights = hasher.weights(18, torch.device("cpu")).tolist()
    for row in range(2):
        words = pixels[row].contiguous().flatten().view(torch.int32).tolist()
        for k in range(2):
            total = sum(w * x for w, x in zip(weights[k], words, strict=True)) % 2**64
            assert hashes[row, k].item() % 2**64 == total
