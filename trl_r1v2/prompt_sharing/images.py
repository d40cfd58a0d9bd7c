# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The images of a micro-batch's rows, taken apart by the image tokens that stand for them.

Processors return the images of all rows end to end, without saying whose is whose. A unit is what has image tokens of
its own: a tile where all tiles have as many (InternVL), an image where `image_grid_thw` says how many (Qwen-VL).
"""

from typing import Any

import torch

from .layout import Segment


class RowImages:
    """
    Images of rows, by unit.

    Args:
        inputs (`dict[str, Any]`): Arguments of the model's forward; `pixel_values` and `image_grid_thw` are read.
        is_image (`torch.Tensor` of shape `(B, S)`): Whether a token stands for an image, on the CPU.
        merge_size (`int`): Patches a side that one image token stands for, where `image_grid_thw` counts patches.
    """

    def __init__(self, inputs: dict[str, Any], is_image: torch.Tensor, merge_size: int):
        self.pixels, self.grid = inputs["pixel_values"], inputs.get("image_grid_thw")
        self.sizes = [1] * len(self.pixels) if self.grid is None else self.grid.prod(dim=1).tolist()
        num_tokens = int(is_image.sum())
        if self.grid is None:
            tokens = torch.full((len(self.sizes),), num_tokens // max(len(self.sizes), 1))
        else:
            tokens = torch.tensor(self.sizes, dtype=torch.long) // merge_size**2
        if int(tokens.sum()) != num_tokens:
            raise ValueError(
                f"the rows hold {num_tokens} image tokens, but their images stand for {int(tokens.sum())}. A sampled "
                "image token or truncation inside an image does this; suppress the first, and raise the length limit."
            )
        self._length = is_image.size(1)
        self._ends = tokens.cumsum(0)  # image tokens up to the end of each unit
        self._seen = torch.cat([torch.zeros(1, dtype=torch.long), is_image.flatten().cumsum(0)])
        self._places = torch.tensor([0, *self.sizes]).cumsum(0).tolist()

    def units(self, segment: Segment) -> slice:
        """The units whose image tokens lie in the segment."""
        first, last = (self._seen[segment.row * self._length + edge] for edge in (segment.start, segment.end))
        start, end = torch.searchsorted(self._ends, torch.stack([first, last]), right=True).tolist()
        return slice(start, end)

    def pixels_of(self, units: slice) -> torch.Tensor:
        return self.pixels[self._places[units.start] : self._places[units.stop]]

    def are_equal(self, first: Segment, second: Segment) -> bool:
        """Whether two segments show the same images to the bit."""
        mine, others = self.units(first), self.units(second)
        if self.grid is not None and not torch.equal(self.grid[mine], self.grid[others]):
            return False
        return torch.equal(self.pixels_of(mine), self.pixels_of(others))

    def select(self, segments: list[Segment]) -> dict[str, torch.Tensor]:
        """Arguments of the forward for the images of these segments, in their order."""
        chosen = [self.units(segment) for segment in segments]
        inputs = {"pixel_values": torch.cat([self.pixels_of(units) for units in chosen])}
        if self.grid is not None:
            inputs["image_grid_thw"] = torch.cat([self.grid[units] for units in chosen])
        return inputs
