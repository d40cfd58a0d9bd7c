# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Positions without a label, on a CPU.

TRL's fused head projects only positions whose next token has a label, but where Triton does not run it projects all:
for a prompt of 80 tokens and an answer of 30, with a vocabulary of 49,152, this is a third of an alignment step of
SmolLM2-135M. TRL does it for compilers that want fixed shapes; PyTorch on a CPU is none.

No issue is open. Can go when TRL leaves them out on a CPU. Covers the trainers with TRL's fused head (SFT, DPO, GRPO).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import trl.trainer.utils


@contextmanager
def labelled_positions_only() -> Iterator[None]:
    """
    Have TRL's fused head leave positions without a label out on a CPU. Log-probabilities and gradients are the same up
    to the rounding of products of another shape.
    """
    has_triton = trl.trainer.utils._use_triton
    trl.trainer.utils._use_triton = lambda device: device.type == "cpu" or has_triton(device)
    try:
        yield
    finally:
        trl.trainer.utils._use_triton = has_triton
