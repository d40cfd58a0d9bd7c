# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Hashes of image tiles by their bytes, computed where the tiles are, so that no pixels leave the accelerator. Meant to
tell tiles apart, not to withstand somebody who builds collisions on purpose.
"""

import torch


class TileHasher:
    """
    Two 64-bit hashes a tile.

    Each is the sum of the tile's words times random 64-bit numbers, modulo 2^64. Words of different tiles differ in
    fewer than 32 bits' worth, so for a difference `d` the sum vanishes with a probability of at most 2^-33, and both
    do with at most 2^-66 (ours).
    """

    def __init__(self):
        self._weights: dict[tuple[int, torch.device], torch.Tensor] = {}

    def __call__(self, tiles: torch.Tensor) -> torch.Tensor:
        """Hash tiles of shape `(num_tiles, ...)` and any dtype: int64 of shape `(num_tiles, 2)`, on their device."""
        word = {1: torch.uint8, 2: torch.int16}.get(tiles.element_size(), torch.int32)
        words = tiles.detach().contiguous().flatten(1).view(word)
        weights = self.weights(words.shape[1], tiles.device)
        # Tile by tile: the 64-bit words of a whole batch would be several times its pixels.
        return torch.stack([(tile.long() * weights).sum(dim=1) for tile in words])

    def weights(self, num_words: int, device: torch.device) -> torch.Tensor:
        """The random numbers for tiles of `num_words` words: shape `(2, num_words)`, int64."""
        key = (num_words, device)
        if key not in self._weights:
            generator = torch.Generator().manual_seed(num_words)
            limits = torch.iinfo(torch.int64)
            drawn = torch.randint(limits.min, limits.max, (2, num_words), generator=generator)
            self._weights[key] = drawn.to(device)
        return self._weights[key]
