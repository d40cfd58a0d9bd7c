# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
A buffer file made from rollouts that were sampled before training, for `SSBGRPOConfig.ssb_prefill`: with the
advantages GRPO would have given them, behaviour log-probabilities from a forward pass of the model that sampled them,
and, for a run that generates with vLLM, TRL's correction from the engine to that model.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import BatchFeature
from trl.trainer.utils import add_fused_lm_head, nanstd

from ..images.prompt_images import PromptImages
from ..ssb_grpo.checkpoint import BufferCheckpoint, run_fingerprint
from ..ssb_grpo.rows import SEQUENCE_FIELDS
from ..ssb_grpo.sample_buffer import Sample, SelectiveSampleBuffer
from .prompts import count_images, encode_prompts, read_prompt, tokenizer_of
from .rollouts import Rollout


def group_advantages(rewards: torch.Tensor) -> torch.Tensor:
    """
    Group-normalised rewards as `GRPOTrainer` computes them with `scale_rewards="group"` (eq. 6): dimensionless, of the
    shape `(num_groups, num_samples)` of the rewards; 0 where these are NaN because a response could not be scored.
    """
    centred = rewards - rewards.nanmean(dim=1, keepdim=True)
    return (centred / (nanstd(rewards, dim=1, keepdim=True) + 1e-4)).nan_to_num(nan=0.0)


@dataclass(frozen=True)
class EngineCorrection:
    """
    How a run with vLLM corrects for the engine, `vllm_importance_sampling_*` of [`~trl.GRPOConfig`]: the mode
    (`"token_truncate"`, `"token_mask"`, `"sequence_truncate"` or `"sequence_mask"`) and bounds of the ratio.
    """

    mode: str
    clip_max: float | None = None
    clip_min: float | None = None

    def ratio(self, logps: torch.Tensor, sampling_logps: torch.Tensor) -> torch.Tensor:
        """
        Importance ratio of one completion, as TRL forms it, from the log-probabilities (nats, NaN where the engine has
        none) of its tokens under the model and in the engine, both of shape `(C,)`: dimensionless, of shape `(C,)`, or
        `(1,)` in the modes by sequence; 0 where it is masked.
        """
        difference = (logps - sampling_logps).nan_to_num(nan=0.0)
        ratio = (difference.sum(dim=0, keepdim=True) if self.mode.startswith("sequence") else difference).exp()
        low = -math.inf if self.clip_min is None else self.clip_min
        high = math.inf if self.clip_max is None else self.clip_max
        if self.mode.endswith("truncate"):
            return ratio.clamp(low, high)
        return ratio.masked_fill((ratio < low) | (ratio > high), 0.0)


def completion_logps(
    model,
    processing_class,
    dataset: Dataset,
    rollouts: Sequence[Rollout],
    *,
    temperature: float,
    batch_size: int,
    progress: bool = True,
) -> Iterator[tuple[Rollout, dict[str, torch.Tensor]]]:
    """
    Log-probabilities of rollouts under the model that sampled them (in evaluation mode; it keeps TRL's fused head,
    which never holds the logits of a whole vocabulary), by a forward pass over prompt and completion, `batch_size`
    rollouts at once; `temperature` is what the logits are divided by, as in sampling.

    Yields:
        `tuple[Rollout, dict[str, torch.Tensor]]`: For each rollout, unpadded CPU tensors: `prompt_ids` of shape
            `(P,)`, `completion_ids` and `old_per_token_logps` (nats) of shape `(C,)`, and the token-type fields of
            models that have them, of shape `(P + C,)`.
    """
    add_fused_lm_head(model, temperature=temperature)
    for start in tqdm(range(0, len(rollouts), batch_size), desc="log-probabilities", disable=not progress):
        batch = rollouts[start : start + batch_size]
        prompts = [read_prompt(dataset, rollout.row, processing_class) for rollout in batch]
        inputs = encode_prompts(processing_class, prompts, [rollout.completion_ids for rollout in batch])
        labels = torch.full_like(inputs["input_ids"], -100)
        for index, rollout in enumerate(batch):  # left padding: every completion ends in the last column
            labels[index, -rollout.num_tokens :] = inputs["input_ids"][index, -rollout.num_tokens :]
        with torch.no_grad():
            on_device = BatchFeature(inputs | {"labels": labels}).to(model.device)
            logps = model(**on_device, fused_lm_head=True).log_probs.float().cpu()
        for index, rollout in enumerate(batch):
            length = int(inputs["attention_mask"][index].sum())
            sequence = inputs["input_ids"][index, -length:]
            tokens = {
                "prompt_ids": sequence[: -rollout.num_tokens].clone(),
                "completion_ids": sequence[-rollout.num_tokens :].clone(),
                "old_per_token_logps": logps[index, -rollout.num_tokens :].clone(),
            }
            for name in SEQUENCE_FIELDS:
                if name in inputs:
                    tokens[name] = inputs[name][index, -length:].clone()
            yield rollout, tokens


def write_prefill(
    folder: str | Path,
    model,
    processing_class,
    dataset: Dataset,
    samples: Sequence[tuple[Rollout, float]],
    *,
    temperature: float,
    capacity: int,
    batch_size: int,
    with_reference: bool = False,
    correction: EngineCorrection | None = None,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    progress: bool = True,
) -> int:
    """
    Writes this process's share of a buffer that `ssb_prefill` reads.

    Args:
        folder (`str` or `Path`): Folder of the buffer files.
        model, processing_class, batch_size: As for [`completion_logps`].
        dataset ([`~datasets.Dataset`]): The training set of the coming run, which the rollouts' rows refer to.
        samples (`Sequence[tuple[Rollout, float]]`): Rollouts of this process with their advantages; those with
            advantage 0 are left out.
        temperature (`float`): Temperature of the sampling, which must be that of the coming run.
        capacity (`int`): Samples to keep, those of largest |advantage|.
        with_reference (`bool`, *optional*, defaults to `False`): Whether to store the log-probabilities as the
            reference's too, for a run with `beta > 0` whose reference is this model.
        correction ([`EngineCorrection`], *optional*): That of the coming run, if it generates with vLLM. Without
            log-probabilities of an engine, the model is taken for the engine. Samples whose ratio is 0 everywhere are
            left out, as the run would leave them out.
        seed (`int`), rank (`int`), world_size (`int`), *optional*: Seed of the stored generators; number of this
            process, and of all.

    Returns:
        `int`: Samples written by this process.
    """
    buffer = SelectiveSampleBuffer(capacity=capacity, seed=seed + rank)
    # Largest first, so that the forward passes are made for what stays only.
    chosen = sorted((item for item in samples if item[1] != 0.0), key=lambda item: -abs(item[1]))[:capacity]
    advantage_of = {(rollout.row, rollout.sample): value for rollout, value in chosen}
    # Reading order of the dataset keeps the prompts of a batch alike in length.
    ordered = sorted((rollout for rollout, _ in chosen), key=lambda rollout: (rollout.row, rollout.sample))
    for rollout, tokens in completion_logps(
        model, processing_class, dataset, ordered, temperature=temperature, batch_size=batch_size, progress=progress
    ):
        logps = tokens["old_per_token_logps"]
        if with_reference:
            tokens["ref_per_token_logps"] = logps.clone()
        if correction is not None:
            sampling_logps = logps.clone() if rollout.logps is None else torch.tensor(rollout.logps)
            tokens["sampling_per_token_logps"] = sampling_logps
            tokens["importance_sampling_ratio"] = correction.ratio(logps, sampling_logps)
            if not tokens["importance_sampling_ratio"].any():
                continue
        num_images = count_images(dataset, rollout.row)
        source = rollout.row if num_images else None
        advantage = advantage_of[rollout.row, rollout.sample]
        buffer.extend([Sample(tokens, advantage, step=0, source=source, num_images=num_images)])
    vocab_size = len(tokenizer_of(processing_class))
    fingerprint = run_fingerprint(vocab_size, dataset, with_reference, correction and correction.mode)
    BufferCheckpoint(buffer, PromptImages(max_bytes=0), fingerprint, rank, world_size).save(Path(folder))
    return len(buffer)
