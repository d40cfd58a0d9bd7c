# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The reference of an adapter under FSDP2.

TRL takes a PEFT model with its adapter switched off for the reference. PEFT switches by `requires_grad` of the modules
that it trains in full (`modules_to_save`). Those that FSDP2's root holds stay whole after a forward, so that PEFT
switches the whole parameters back on and never their shards: from the second micro-batch on, such modules get no
gradients, and nothing says so.

Reported in `docs/upstream.md`; the file can go when PEFT or FSDP2 keeps the two alike. `DPOTrainer` asks its reference
before every micro-batch and is not affected.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.fsdp import FSDPModule


@contextmanager
def trained_parameters_kept(model: torch.nn.Module) -> Iterator[None]:
    """Within the block, `requires_grad` may change; afterwards it is as before, on the shards as well."""
    if not isinstance(model, FSDPModule):
        yield
        return
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    yield
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
