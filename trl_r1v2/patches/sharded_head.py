# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The output head of a vision-language model under FSDP2.

TRL's fused head reads the head's weight without calling the head. accelerate shards the head as a unit of its own
where it finds no final norm next to it, as in every vision-language model. Nothing gathers such a unit then: TRL
gathers the weight by hand, and each process trains its shard of the head on its own rows alone, without the others'
gradients. That `generate` has gathered the head hides it until completions come from elsewhere, such as vLLM.

Reported in `docs/upstream.md`; the file can go when TRL reduces that gradient. Covers FSDP2. DDP and ZeRO do not shard
by unit; FSDP1 gathers what the root holds.
"""

import torch
from torch.distributed.fsdp import FSDPModule


def gather_head_with_forward(model: torch.nn.Module) -> None:
    """
    Have every training forward of a model with `get_output_embeddings`, before or after `fully_shard`, gather its
    output head, so that FSDP2 reduces the head's gradients over all processes. Does nothing while it is not sharded.
    """

    def gather(module: torch.nn.Module, args: tuple) -> None:
        head = module.get_output_embeddings()
        # Without gradients TRL's way is right, and no backward pass would shard the head again.
        if isinstance(head, FSDPModule) and torch.is_grad_enabled():
            head.unshard()

    model.register_forward_pre_hook(gather)
