# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
GRPO with the Selective Sample Buffer: the wiring.

What is kept and drawn is `sample_buffer.py`, which groups are dead `judge.py`, batch surgery `rows.py`, images
`pixels.py`, text rows among image rows `text_among_images.py`, checkpoints `checkpoints.py`, figures `metrics.py`.
"""

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl.trainer.utils import get_config_model_id, split_pixel_values_by_grid, unsplit_pixel_values_by_grid

from ..patches.grpo import GRPOTrainer
from .checkpoints import BufferCheckpointMixin
from .judge import live_groups
from .metrics import clip_bounds, ratio_counts, ratio_metrics, replay_metrics
from .pixels import PromptImages
from .prompt_sampler import ROW_NUMBER, PromptHistory, PromptSampler, RowNumberedDataset
from .refusals import refuse_misspelt_judge, refuse_unsupported
from .rows import (
    SEQUENCE_FIELDS,
    VISUAL_FIELDS,
    Row,
    check_fields,
    put_rows,
    row_lengths,
    select_rows,
    take_row,
    tokens_on_cpu,
)
from .sample_buffer import BEHAVIOUR_LOGPS, EVICTION_REASONS, Sample, SelectiveSampleBuffer
from .ssb_grpo_config import SSBGRPOConfig


# What float32 makes of the advantage of a reward that is exactly its group's mean.
ADVANTAGE_ROUNDING = 1e-6


def _loss_mask(batch: dict[str, Any]) -> torch.Tensor:
    """Completion tokens that are trained on, shape `(B, C)`."""
    return batch["completion_mask"] * batch["tool_mask"] if "tool_mask" in batch else batch["completion_mask"]


@dataclass
class _Rollout:
    """One scored batch of this process: TRL's dict (visual fields split by row) and what the buffer needs beside it."""

    batch: dict[str, Any]
    is_live: torch.Tensor  # (B,) bool on the CPU: the row's group has spread
    sources: list[int | None]  # dataset row numbers

    @property
    def is_informative(self) -> torch.Tensor:
        """Rows in a live group and not at its mean."""
        return self.is_live & (self.batch["advantages"].cpu().abs() > ADVANTAGE_ROUNDING)

    @property
    def is_effective(self) -> torch.Tensor:
        """Informative rows with a token to train on, unlike those that `mask_truncated_completions` masks out."""
        return self.is_informative & _loss_mask(self.batch).any(dim=1).cpu()


class SSBGRPOTrainer(BufferCheckpointMixin, GRPOTrainer):
    """
    Trainer for Group Relative Policy Optimization with the Selective Sample Buffer (SSB).

    The buffer was introduced in [Skywork R1V2](https://huggingface.co/papers/2504.16656), section 3.2. As training
    goes on, more and more groups are answered all right or all wrong; their advantages are zero and they teach
    nothing. The buffer keeps completions with non-zero advantage and puts them in the place of those rows.

    The only change w.r.t. [`~trl.GRPOTrainer`] is what happens between scoring a batch and training on it: rows of
    dead groups give way to buffered ones, which keep the log-probabilities of the policy that produced them, so that
    the clipped ratio of eq. 8 corrects for their age. Everything else is inherited. With `ssb_enabled=False`, so is
    this.

    Takes the arguments of [`~trl.GRPOTrainer`], with an [`SSBGRPOConfig`] as `args`.

    Raises:
        TypeError: If `args` is not an [`SSBGRPOConfig`].
        ValueError: If the configuration cannot be combined with the buffer; the message says why.
    """

    _tag_names = ["trl", "ssb-grpo"]
    _name = "SSB-GRPO"
    _paper = {
        "title": "Skywork R1V2: Multimodal Hybrid Reinforcement Learning for Reasoning",
        "id": "2504.16656",
        # docstyle-ignore
        "citation": textwrap.dedent("""\
            @article{skywork2025r1v2,
                title        = {{Skywork R1V2: Multimodal Hybrid Reinforcement Learning for Reasoning}},
                author       = {Skywork AI},
                year         = 2025,
                eprint       = {arXiv:2504.16656},
            }"""),
    }

    def __init__(self, model, reward_funcs=None, args=None, *other_args, **kwargs):
        if args is None:
            model_name = model if isinstance(model, str) else get_config_model_id(model.config)
            args = SSBGRPOConfig(f"{model_name.split('/')[-1]}-SSB-GRPO")
        elif not isinstance(args, SSBGRPOConfig):
            raise TypeError(
                f"`args` is a {type(args).__name__} but must be an `SSBGRPOConfig`, which takes the same arguments: "
                "`from trl_r1v2 import SSBGRPOConfig`."
            )
        super().__init__(model, reward_funcs, args, *other_args, **kwargs)
        self._loss_inputs: dict[str, Any] | None = None
        self._judged_rewards: torch.Tensor | None = None
        self.buffer: SelectiveSampleBuffer | None = None
        if not args.ssb_enabled:
            return
        refuse_unsupported(
            args,
            self.model.config.model_type,
            self.train_dataset,
            self.environment_factories is not None,
        )
        refuse_misspelt_judge(args.ssb_judge, self.reward_func_names)
        rank = self.accelerator.process_index
        self.buffer = SelectiveSampleBuffer(
            capacity=args.ssb_capacity,
            priority_exponent=args.ssb_priority_exponent,
            age_decay=args.ssb_age_decay if args.ssb_mode == "fresh" else None,
            max_age=args.ssb_max_age,
            max_uses=args.ssb_max_uses,
            max_bytes=args.ssb_max_bytes,
            seed=args.ssb_seed + rank,
        )
        # Prompts for extra rounds have to be the same list on every process.
        self._prompt_generator = torch.Generator().manual_seed(args.ssb_seed)
        self._has_row_numbers = isinstance(self.train_dataset, Dataset)
        self._prompt_sampler: PromptSampler | None = None
        # Tools, environments and custom rollouts may add images that the dataset row does not have.
        rows_are_complete = not self.tools and self.environment_factories is None and self.rollout_func is None
        self.images = PromptImages(
            args.ssb_pixel_bytes,
            self.train_dataset if self._has_row_numbers and rows_are_complete else None,
            self.processing_class,
            self.chat_template_kwargs,
        )
        if args.ssb_prefill is not None:
            self._prefill(Path(args.ssb_prefill))

    @property
    def _pad_token_id(self) -> int:
        return self._tokenizer.pad_token_id

    # ---- Data: rows that say where they come from ----

    def _get_dataloader(self, dataset, *args, is_training: bool = False, **kwargs):
        if is_training and self.buffer is not None and self._has_row_numbers:
            dataset = RowNumberedDataset(dataset)
        return super()._get_dataloader(dataset, *args, is_training=is_training, **kwargs)

    def _get_train_sampler(self, dataset=None):
        sampler = super()._get_train_sampler(dataset)
        if self.buffer is None:
            return sampler
        history = None
        if self.args.ssb_skip_probability > 0:
            history = PromptHistory(sampler.num_samples, self.args.ssb_skip_probability)
        self._prompt_sampler = PromptSampler(
            sampler.data_source,
            sampler.mini_repeat_count,
            sampler.batch_size,
            sampler.repeat_count,
            sampler.shuffle,
            sampler.seed,
            history,
        )
        return self._prompt_sampler

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        if ROW_NUMBER not in self._signature_columns:
            self._signature_columns.append(ROW_NUMBER)

    # ---- Judging ----

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards_per_func = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self.buffer is not None and self.model.training:
            self._judged_rewards = self._select_judged(rewards_per_func, len(prompts))
        return rewards_per_func

    def _select_judged(self, rewards_per_func: torch.Tensor, num_local: int) -> torch.Tensor:
        """Columns (of all processes) by which groups are judged, shape `(N, K)`."""
        judge = self.args.ssb_judge
        if judge == "reward":
            weighted = rewards_per_func * self.reward_weights.to(rewards_per_func.device)
            if self.multi_objective_aggregation == "normalize_then_sum":
                return weighted  # each objective is normalised on its own: any spread in any of them counts
            return torch.where(weighted.isnan().all(dim=1), torch.nan, weighted.nansum(dim=1)).unsqueeze(1)
        if judge in self.reward_func_names:
            return rewards_per_func[:, [self.reward_func_names.index(judge)]]
        # TRL clears these columns once it has gathered them for its own table, which is after this call.
        values = self._pending_extra_logs.get(judge)
        is_logged = torch.tensor([values is not None], device=rewards_per_func.device)
        if not self.accelerator.gather(is_logged).any():
            raise ValueError(
                f"`ssb_judge` is {judge!r}, which is neither a reward function ({self.reward_func_names}) nor a "
                f"column that one of them logs with `log_extra` ({sorted(self._pending_extra_logs)})."
            )
        values = [None] * num_local if values is None else values
        if len(values) != num_local:
            raise ValueError(f"The logged column {judge!r} has {len(values)} values for {num_local} completions.")
        wrong = next((value for value in values if not isinstance(value, int | float | None)), None)
        if wrong is not None:
            raise ValueError(f"`ssb_judge` names the column {judge!r}, which holds {wrong!r} and not numbers.")
        column = torch.tensor(
            [torch.nan if value is None else float(value) for value in values],
            dtype=torch.float32,
            device=rewards_per_func.device,
        )
        return self.accelerator.gather(column).unsqueeze(1)

    # ---- Keeping, drawing, putting back ----

    def _generate_and_score_completions(self, inputs):
        if self.buffer is None or not self.model.training:
            return super()._generate_and_score_completions(inputs)
        step, batch_size = self.state.global_step, len(inputs)
        evicted_before = dict(self.buffer.num_evicted)
        num_left_out = self._num_left_out(batch_size, step)
        rollout = self._rollout(inputs[: batch_size - num_left_out])
        num_fresh = len(rollout.sources)

        # Rows to fill: those that were not generated, then those that teach nothing. Draw before keeping, so that a
        # batch is never replayed into itself and new images do not push out those of drawn samples.
        dead = (~rollout.is_live).nonzero().flatten().tolist()
        to_fill = [*range(num_fresh, batch_size), *dead]
        room = int(self.args.ssb_max_replay_fraction * batch_size)
        drawn = [self._to_row(sample) for sample in self.buffer.draw(min(len(to_fill), room), step)]
        replayed = dict(zip(to_fill, drawn, strict=False))
        uids, num_skipped = self._keep(rollout, step)
        uids += [-1] * num_left_out
        resampled = self._resample([index for index in dead if index not in replayed], step)
        for index in (*replayed, *resampled):
            uids[index] = -1
        self._drop_unreferenced_images()

        batch = select_rows(rollout.batch, [*range(num_fresh), *[0] * num_left_out])
        batch = self._put(batch, replayed, resampled)
        batch["ssb_uids"] = torch.tensor(uids, device=batch["advantages"].device)
        num_effective = int(rollout.is_effective.sum())
        evicted = {reason: self.buffer.num_evicted[reason] - evicted_before[reason] for reason in EVICTION_REASONS}
        if self._prompt_sampler is not None:  # the same on every process
            self._metrics["train"]["ssb/skipped_prompts"].append(self._prompt_sampler.num_skipped)
        self._log_replay(
            {
                "rows": batch_size,
                "fresh_rows": num_fresh,
                "dead_rows": len(dead),
                "effective_before": num_effective,
                "effective_after": num_effective + len(replayed) + len(resampled),
                "replayed_rows": len(replayed),
                "resampled_rows": len(resampled),
                "skipped/masked": num_skipped,
                "pixel_bytes": self.images.store.num_bytes,
                **self.buffer.metrics(step),
                **{f"evicted/{reason}": count for reason, count in evicted.items()},
            }
        )
        return unsplit_pixel_values_by_grid(batch)

    def _num_left_out(self, batch_size: int, step: int) -> int:
        """Rows not to generate, because the buffer fills them: whole groups, the same number on every process."""
        if self.args.ssb_replay != "share":
            return 0
        num_rows = min(int(self.args.ssb_replay_share * batch_size), self.buffer.num_available(step))
        num_groups = torch.tensor([num_rows // self.num_generations], device=self.accelerator.device)
        return int(self.accelerator.gather(num_groups).min()) * self.num_generations

    def _rollout(self, inputs: list[dict[str, Any]]) -> _Rollout:
        """Generate and score with TRL, and tell live rows from dead ones."""
        sources = [example.get(ROW_NUMBER) for example in inputs]
        inputs = [{key: value for key, value in example.items() if key != ROW_NUMBER} for example in inputs]
        batch = split_pixel_values_by_grid(super()._generate_and_score_completions(inputs))
        # Upstream sets `num_images=None` when tool images were cut off and it drops all pixels.
        batch = {name: value for name, value in batch.items() if value is not None}
        check_fields(batch)
        is_live = live_groups(self._judged_rewards, self.num_generations, self.args.ssb_judge_tolerance)
        if self._prompt_sampler is not None and self._prompt_sampler.history is not None:
            numbers = torch.tensor(sources, device=self.accelerator.device)
            self._prompt_sampler.history.observe(self.accelerator.gather(numbers)[:: self.num_generations], is_live)
        start = self.accelerator.process_index * len(inputs)
        is_live = is_live.repeat_interleave(self.num_generations)[start : start + len(inputs)].cpu()
        return _Rollout(batch, is_live, sources)

    def _keep(self, rollout: _Rollout, step: int) -> tuple[list[int], int]:
        """Offer the effective rows to the buffer; returns each row's uid (-1: not kept) and how many were unusable."""
        batch = tokens_on_cpu(rollout.batch)
        prompt_lengths, completion_lengths = (lengths.tolist() for lengths in row_lengths(batch, self._pad_token_id))
        usable = rollout.is_effective.nonzero().flatten().tolist()
        samples = []
        for index in usable:
            row = take_row(batch, index, prompt_lengths[index], completion_lengths[index])
            source = self.images.remember(row.visual, rollout.sources[index]) if row.num_images > 0 else None
            samples.append(Sample(row.tokens, row.advantage, step, source, row.num_images))
        uids = [-1] * len(rollout.sources)
        for index, uid in zip(usable, self.buffer.extend(samples), strict=True):
            uids[index] = uid
        return uids, int(rollout.is_informative.sum()) - len(usable)

    def _put(self, batch: dict[str, Any], replayed: dict[int, Row], resampled: dict[int, Row]) -> dict[str, Any]:
        """Put rows into the batch and recompute what depends on all rows of all processes."""
        # Without stored log-probabilities the loss takes the policy itself as the behaviour policy (upstream
        # `_compute_loss`), which is wrong for replayed rows. Those of fresh rows are filled in at the first forward.
        is_captured_later = BEHAVIOUR_LOGPS not in batch
        if is_captured_later:
            batch[BEHAVIOUR_LOGPS] = torch.zeros(batch["completion_ids"].shape, device=batch["advantages"].device)
        batch = put_rows(batch, replayed | resampled, self._pad_token_id, self.pad_to_multiple_of)
        if is_captured_later:
            batch["ssb_stored_logps"] = batch.pop(BEHAVIOUR_LOGPS)
        batch["ssb_is_replayed"] = torch.zeros_like(batch["advantages"], dtype=torch.bool)
        batch["ssb_is_replayed"][list(replayed)] = True
        batch["num_items_in_batch"] = self.accelerator.gather(_loss_mask(batch).sum()).sum()
        return batch

    def _resample(self, open_rows: list[int], step: int) -> dict[int, Row]:
        """Generate for further prompts until the open rows of every process are filled or the rounds are used up."""
        found: dict[int, Row] = {}
        for _ in range(self.args.ssb_resample_rounds):
            num_missing = len(open_rows) - len(found)
            num_groups = torch.tensor([-(-num_missing // self.num_generations)], device=self.accelerator.device)
            num_groups = int(self.accelerator.gather(num_groups).max())
            if num_groups == 0:
                break
            rollout = self._rollout(self._draw_prompts(num_groups))
            self._add_behaviour_logps(rollout.batch)
            uids, _ = self._keep(rollout, step)
            batch = tokens_on_cpu(rollout.batch)
            prompt_lengths, completion_lengths = row_lengths(batch, self._pad_token_id)
            kept = [index for index, uid in enumerate(uids) if uid >= 0]
            for index in kept[:num_missing]:
                row = take_row(batch, index, int(prompt_lengths[index]), int(completion_lengths[index]))
                found[open_rows[len(found)]] = row
        return found

    def _draw_prompts(self, num_groups: int) -> list[dict[str, Any]]:
        dataset = self._remove_unused_columns(self.train_dataset, description="Training")
        num_prompts = num_groups * self.accelerator.num_processes
        numbers = torch.randint(len(dataset), (num_prompts,), generator=self._prompt_generator).tolist()
        start = self.accelerator.process_index * num_groups
        own = numbers[start : start + num_groups]
        examples = [{**dataset[number], ROW_NUMBER: number} for number in own]
        return [dict(example) for example in examples for _ in range(self.num_generations)]

    def _add_behaviour_logps(self, batch: dict[str, Any]) -> None:
        """Rows of extra rounds may end up in the buffer only, so no training forward captures theirs."""
        if BEHAVIOUR_LOGPS in batch:
            return
        flat = unsplit_pixel_values_by_grid(batch)
        names = (*VISUAL_FIELDS, *SEQUENCE_FIELDS, "num_images", "num_tiles")
        with torch.no_grad():
            batch[BEHAVIOUR_LOGPS], _, _ = self._get_per_token_logps_and_entropies(
                self.model,
                torch.cat([flat["prompt_ids"], flat["completion_ids"]], dim=1),
                torch.cat([flat["prompt_mask"], flat["completion_mask"]], dim=1),
                flat["completion_ids"].size(1),
                batch_size=self.args.per_device_train_batch_size,
                **{name: flat[name] for name in names if name in flat},
            )

    # ---- Images ----

    def _to_row(self, sample: Sample) -> Row:
        visual = self.images.visual(sample.source) if sample.num_images > 0 else {}
        return Row(sample.tokens, sample.advantage, visual, sample.num_images)

    def _drop_unreferenced_images(self) -> None:
        samples = self.buffer.samples
        for uid in [
            uid for uid, sample in samples.items() if sample.num_images and self.images.is_lost(sample.source)
        ]:
            self.buffer.remove(uid, "pixels")
        self.images.store.keep_only({sample.source for sample in samples.values()})

    # ---- Loss: behaviour log-probabilities ----

    def _compute_loss(self, model, inputs):
        if "ssb_uids" not in inputs:
            return super()._compute_loss(model, inputs)
        self._loss_inputs = dict(inputs)
        try:
            return super()._compute_loss(model, self._loss_inputs)
        finally:
            self._loss_inputs = None

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        output = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        if self._loss_inputs is not None:
            self._use_behaviour_logps(self._loss_inputs, output[0].detach())
        return output

    def _use_behaviour_logps(self, inputs: dict[str, Any], logps: torch.Tensor) -> None:
        """
        Between the training forward and the loss: capture what the policy that sampled the fresh rows assigned to
        them, and set the behaviour log-probabilities that the loss divides by.
        """
        if "ssb_stored_logps" in inputs:  # generation and optimisation are aligned: this is the behaviour policy
            on_cpu = logps.cpu()
            for index, uid in enumerate(inputs["ssb_uids"].tolist()):
                sample = self.buffer.samples.get(uid)
                if sample is not None:
                    self.buffer.set_behaviour_logps(uid, on_cpu[index, : len(sample.tokens["completion_ids"])])
            if inputs["ssb_is_replayed"].any():
                is_replayed = inputs["ssb_is_replayed"].unsqueeze(1)
                inputs[BEHAVIOUR_LOGPS] = torch.where(is_replayed, inputs["ssb_stored_logps"].to(logps.dtype), logps)
        self._log_ratios(inputs, logps)

    # ---- Metrics ----

    def _log_replay(self, local: dict[str, float]) -> None:
        values = torch.tensor(list(local.values()), dtype=torch.float64, device=self.accelerator.device)
        gathered = self.accelerator.gather(values.unsqueeze(0)).cpu()
        for name, value in replay_metrics(list(local), gathered).items():
            self._metrics["train"][f"ssb/{name}"].append(value)

    def _log_ratios(self, inputs: dict[str, Any], logps: torch.Tensor) -> None:
        mask = _loss_mask(inputs)
        log_ratio = logps - inputs.get(BEHAVIOUR_LOGPS, logps)
        if self.importance_sampling_level == "sequence":
            num_tokens = mask.sum(dim=1, keepdim=True)
            log_ratio = (log_ratio * mask).sum(dim=1, keepdim=True) / num_tokens.clamp(min=1)
            mask = num_tokens
        mask = (mask != 0) & inputs["ssb_is_replayed"].unsqueeze(1)
        bounds = clip_bounds(self.loss_type, self.epsilon_low, self.epsilon_high)
        local = ratio_counts(log_ratio, inputs["advantages"], mask, bounds)
        gathered = self.accelerator.gather(local.unsqueeze(0)).cpu()
        for name, value in ratio_metrics(gathered).items():
            self._metrics["train"][f"ssb/{name}"].append(value)
