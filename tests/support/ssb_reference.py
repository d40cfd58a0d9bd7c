# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
An independent GRPO loss: one row at a time, no padding, no fused head, straight from eq. 6-8 of the R1V2 paper.

It shares no code with the trainer beyond the model itself.
"""

import torch
from transformers import TrainerCallback


def row_logps(model, prompt_ids, completion_ids, pixel_values=None, temperature=1.0) -> torch.Tensor:
    """Log-probability of every completion token, shape `(C,)`, from a forward over this row alone."""
    ids = torch.cat([prompt_ids, completion_ids]).unsqueeze(0)
    visual = {} if pixel_values is None or len(pixel_values) == 0 else {"pixel_values": pixel_values}
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **visual).logits[0]
    logps = torch.log_softmax(logits.float() / temperature, dim=-1)
    positions = torch.arange(len(prompt_ids), len(prompt_ids) + len(completion_ids))
    return logps[positions - 1, completion_ids]


def grpo_loss(model, rows, epsilon=0.2, beta=0.0, delta=float("inf")) -> torch.Tensor:
    """
    Eq. 8 over `rows`, with ratios of no more than `delta` (INTELLECT-2, arXiv 2505.07291): dicts with `prompt_ids`,
    `completion_ids`, `advantage`, `behaviour` (log-probs of the sampling policy, or `None` when this is the policy
    itself) and optionally `pixel_values`, `reference`.
    """
    terms = []
    for row in rows:
        logps = row_logps(model, row["prompt_ids"], row["completion_ids"], row.get("pixel_values"))
        behaviour = logps.detach() if row["behaviour"] is None else row["behaviour"]
        ratio = torch.exp(logps - behaviour)
        clipped = ratio.clamp(1 - epsilon, 1 + epsilon)
        objective = torch.minimum(ratio.clamp(max=delta) * row["advantage"], clipped * row["advantage"])
        if beta:
            log_ratio = row["reference"] - logps
            objective = objective - beta * (log_ratio.exp() - log_ratio - 1)
        terms.append(-objective.mean())
    return torch.stack(terms).mean()


class BeforeStep(TrainerCallback):
    """Calls `check(step)` between the backward pass and the optimizer step, and counts that it did."""

    def __init__(self, check):
        self.check = check
        self.num_calls = 0

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.check(state.global_step)
        self.num_calls += 1
