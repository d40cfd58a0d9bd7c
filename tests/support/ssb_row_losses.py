# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Every loss of TRL 1.16's `GRPOConfig.loss_type`, one row at a time and without padding, from the papers' formulas.

Shares no code with the trainer beyond the model itself. Complements `reference.py`, which has eq. 8 alone.
"""

from dataclasses import dataclass

import torch


@dataclass
class RefRow:
    """One row; all tensors of shape `(C,)` but the prompt and the visual inputs."""

    prompt_ids: torch.Tensor
    completion_ids: torch.Tensor
    advantage: float
    behaviour: torch.Tensor  # log-probabilities of the policy that sampled the row
    visual: dict[str, torch.Tensor]
    mask: torch.Tensor
    reference: torch.Tensor | None = None
    engine_ratio: torch.Tensor | None = None  # shape `(C,)`, or `(1,)` for one ratio a sequence


def row_logps(model, prompt_ids, completion_ids, visual, temperature=1.0) -> torch.Tensor:
    """Log-probability of every completion token from a forward over this row alone."""
    ids = torch.cat([prompt_ids, completion_ids]).unsqueeze(0)
    extra = {name: value for name, value in visual.items() if name != "mm_token_type_ids"}
    if "mm_token_type_ids" in visual:
        types = visual["mm_token_type_ids"]
        extra["mm_token_type_ids"] = torch.cat([types, types.new_zeros(len(completion_ids))]).unsqueeze(0)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **extra).logits[0]
    logps = torch.log_softmax(logits.float() / temperature, dim=-1)
    positions = torch.arange(len(prompt_ids), ids.size(1))
    return logps[positions - 1, completion_ids]


def token_losses(row: RefRow, logps: torch.Tensor, args) -> torch.Tensor:
    """Loss of every token of one row, before any averaging."""
    advantage, log_ratio = row.advantage, logps - row.behaviour
    if args.importance_sampling_level == "sequence":
        ratio = torch.exp((log_ratio * row.mask).sum() / row.mask.sum()).expand(len(logps))
    else:
        ratio = torch.exp(log_ratio)
    high = args.epsilon if args.epsilon_high is None else args.epsilon_high
    if args.loss_type == "cispo":
        losses = -ratio.clamp(max=high).detach() * advantage * logps
    elif args.loss_type == "sapo":
        temperature = args.sapo_temperature_pos if advantage > 0 else args.sapo_temperature_neg
        losses = -torch.sigmoid(temperature * (ratio - 1)) * 4 / temperature * advantage
    elif args.loss_type == "vespo":
        log_weight = (log_ratio.detach() * row.mask).sum()
        if row.engine_ratio is not None:
            log_weight = log_weight + row.engine_ratio.log().sum()
        k, rate = (
            (args.vespo_k_pos, args.vespo_lambda_pos) if advantage >= 0 else (args.vespo_k_neg, args.vespo_lambda_neg)
        )
        losses = -torch.exp(rate + k * log_weight - rate * log_weight.exp()) * advantage * logps
    else:
        bounded = ratio if args.delta is None else ratio.clamp(max=args.delta)
        losses = -torch.minimum(bounded * advantage, ratio.clamp(1 - args.epsilon, 1 + high) * advantage)
    if row.engine_ratio is not None and args.loss_type != "vespo":
        losses = losses * row.engine_ratio
    if args.beta:
        difference = row.reference - logps
        kl = difference.exp() - difference - 1
        losses = losses + args.beta * kl * (ratio if args.use_bias_correction_kl else 1.0)
    return losses * row.mask


def step_loss(model, micro_batches: list[tuple[list[RefRow], int]], args) -> torch.Tensor:
    """
    Loss of one optimizer step of one process.

    Args:
        micro_batches (`list[tuple[list[RefRow], int]]`):
            For each backward pass of the step its rows, and the tokens trained on in their whole generation batch.
    """
    total = torch.zeros(())
    num_backwards = len(micro_batches)
    for rows, num_tokens_in_generation in micro_batches:
        sums, means = [], []
        for row in rows:
            if row.mask.any():
                logps = row_logps(model, row.prompt_ids, row.completion_ids, row.visual, args.temperature)
                losses = token_losses(row, logps, args)
            else:
                losses = torch.zeros(1)
            sums.append(losses.sum())
            means.append(losses.sum() / max(int(row.mask.sum()), 1))
        tokens = sum(int(row.mask.sum()) for row in rows)
        if args.loss_type in ("grpo", "sapo"):
            total = total + torch.stack(means).mean() / num_backwards
        elif args.loss_type == "bnpo":
            total = total + torch.stack(sums).sum() / max(tokens, 1) / num_backwards
        elif args.loss_type == "dr_grpo":
            total = total + torch.stack(sums).sum() / (len(rows) * args.max_completion_length) / num_backwards
        elif args.loss_type == "luspo":
            total = total + torch.stack(sums).mean() / num_backwards
        else:  # dapo, cispo, vespo: over the tokens of one optimizer step's part of the generation batch
            part = num_tokens_in_generation * num_backwards / args.steps_per_generation
            total = total + torch.stack(sums).sum() / part
    return total
