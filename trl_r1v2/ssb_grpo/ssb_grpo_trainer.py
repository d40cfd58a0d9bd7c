# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""GRPO with the Selective Sample Buffer: the wiring."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl.trainer.utils import get_config_model_id, split_pixel_values_by_grid, unsplit_pixel_values_by_grid

from ..images.prompt_images import ROW_NUMBER, VISUAL_FIELDS, PromptImages, RowNumberedDataset, process_row
from ..patches.grpo import GRPOTrainer
from ..prompt_sharing.trainers import SharedPromptsGRPOMixin
from .checkpoint import SSB_FOLDER, BufferCheckpoint, run_fingerprint
from .judge import live_groups, ratio_counts, ratio_metrics, reduce_counts, replay_metrics
from .rows import SEQUENCE_FIELDS, Row, collate_rows, loss_mask, take_rows
from .sample_buffer import BEHAVIOUR_LOGPS, Sample, SelectiveSampleBuffer
from .ssb_grpo_config import SSBGRPOConfig


class SSBGRPOTrainer(SharedPromptsGRPOMixin, GRPOTrainer):
    """
    Trainer for Group Relative Policy Optimization with the Selective Sample Buffer (SSB).

    The buffer was introduced in [Skywork R1V2](https://huggingface.co/papers/2504.16656), section 3.2. As training
    goes on, more and more groups are answered all right or all wrong; their advantages are zero and they teach
    nothing. The only change w.r.t. [`~trl.GRPOTrainer`] is that their rows give way, between scoring a batch and
    training on it, to earlier completions with non-zero advantage. These keep the log-probabilities of the policy that
    produced them, so that the clipped ratio of eq. 8 corrects for their age. Everything else is inherited.

    Takes the arguments of [`~trl.GRPOTrainer`], with an [`SSBGRPOConfig`] as `args`.
    """

    _tag_names = ["trl", "ssb-grpo"]
    _name = "SSB-GRPO"
    _paper = {
        "title": "Skywork R1V2: Multimodal Hybrid Reinforcement Learning for Reasoning",
        "id": "2504.16656",
        "citation": "@article{skywork2025r1v2,\n"
        "    title  = {{Skywork R1V2: Multimodal Hybrid Reinforcement Learning for Reasoning}},\n"
        "    author = {Skywork AI},\n    year   = 2025,\n    eprint = {arXiv:2504.16656},\n}",
    }

    def __init__(self, model, reward_funcs=None, args=None, *other_args, **kwargs):
        if args is None:
            model_name = model if isinstance(model, str) else get_config_model_id(model.config)
            args = SSBGRPOConfig(f"{model_name.split('/')[-1]}-SSB-GRPO")
        elif not isinstance(args, SSBGRPOConfig):
            raise TypeError(f"`args` is a {type(args).__name__} but must be an `SSBGRPOConfig`, which takes the same.")
        super().__init__(model, reward_funcs, args, *other_args, **kwargs)
        self._loss_inputs: dict[str, Any] | None = None
        self._judged_rewards: torch.Tensor | None = None
        self.buffer: SelectiveSampleBuffer | None = None
        if args.ssb_enabled:
            self._make_buffer(args)

    def _make_buffer(self, args: SSBGRPOConfig) -> None:
        is_map_style = isinstance(self.train_dataset, Dataset)
        if args.ssb_resample_rounds > 0 and (not is_map_style or self.environment_factories is not None):
            raise ValueError(
                "`ssb_resample_rounds` needs prompts it can look up: a map-style training dataset and no "
                "`environment_factory`. Set `ssb_resample_rounds=0`."
            )
        # Whole groups are left out; as many rows are added to every micro-batch.
        unit = args.steps_per_generation if args.ssb_replay == "append" else args.num_generations
        num_rows = args.per_device_train_batch_size * args.steps_per_generation
        if args.ssb_replay_share and (num_rows % unit or args.ssb_replay_share * num_rows < unit):
            raise ValueError(
                f"`ssb_replay_share` ({args.ssb_replay_share}) of a process's {num_rows} rows of a generation must be "
                f"{unit} rows or more, and the rows divisible by {unit} (with `ssb_replay='append'` that is "
                "`steps_per_generation`, else `num_generations`)."
            )
        self._unit, rank, world_size = unit, self.accelerator.process_index, self.accelerator.num_processes
        weight, limits = (args.ssb_priority_exponent, args.ssb_age_decay), (args.ssb_max_age, args.ssb_max_uses)
        self.buffer = SelectiveSampleBuffer(
            args.ssb_capacity, *weight, *limits, args.ssb_balance, seed=args.seed + rank
        )
        # Tools, environments and custom rollouts may add images that the dataset row does not have.
        can_read = is_map_style and not self.tools and self.environment_factories is None and self.rollout_func is None
        self.images = PromptImages(args.ssb_pixel_bytes, self._read_images if can_read else None)
        corrects_engine = self.use_vllm and self.vllm_importance_sampling_correction
        engine_mode = self.vllm_importance_sampling_mode if corrects_engine else None
        dataset = self.train_dataset if can_read else None
        fingerprint = run_fingerprint(len(self._tokenizer), dataset, self.beta != 0.0, engine_mode)
        self.buffer_checkpoint = BufferCheckpoint(self.buffer, self.images, fingerprint, rank, world_size)
        if args.ssb_prefill is not None:
            self.buffer_checkpoint.load_share(Path(args.ssb_prefill), restart=True)

    @property
    def _moves_rows(self) -> bool:
        return super()._moves_rows or self.args.ssb_enabled

    def _get_dataloader(self, dataset, *args, is_training: bool = False, **kwargs):
        if is_training and self.buffer is not None and isinstance(dataset, Dataset):
            dataset = RowNumberedDataset(dataset)
        return super()._get_dataloader(dataset, *args, is_training=is_training, **kwargs)

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        self._signature_columns = [*dict.fromkeys([*self._signature_columns, ROW_NUMBER])]

    def _read_images(self, number: int) -> dict[str, torch.Tensor]:
        [row] = self.data_collator([self.train_dataset[number]])
        return process_row(row, self.processing_class, self.chat_template_kwargs)

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
        logged = sorted(set(gather_object(list(self._pending_extra_logs))))
        if judge not in logged:
            raise ValueError(
                f"`ssb_judge` is {judge!r}, which is neither a reward function ({self.reward_func_names}) nor a "
                f"column that one of them logs with `log_extra` ({logged})."
            )
        values = gather_object(self._pending_extra_logs.get(judge, [None] * num_local))
        values = [torch.nan if value is None else float(value) for value in values]
        return torch.tensor(values, device=rewards_per_func.device).unsqueeze(1)

    def _generate_and_score_completions(self, inputs):
        if self.buffer is None or not self.model.training:
            return super()._generate_and_score_completions(inputs)
        step, num_rows, replay = self.state.global_step, len(inputs), self.args.ssb_replay
        self.buffer.reward_version = repr([getattr(func, "reward_version", None) for func in self.reward_funcs])
        num_due = self._num_due(num_rows, step)
        num_rows += num_due if replay == "append" else 0
        rows = self._rollout(inputs[: num_rows - num_due])
        num_fresh, is_captured_later = len(rows), BEHAVIOUR_LOGPS not in rows[0].tokens

        # Rows to fill: those that were not generated, then those that teach nothing. Draw before keeping, so that a
        # batch is never replayed into itself and new images do not push out those of drawn samples.
        dead = [index for index, row in enumerate(rows) if not row.is_live]
        to_fill = [*range(num_fresh, num_rows), *(dead if replay == "dead" else [])]
        drawn = self.buffer.draw(len(to_fill), step)
        replayed = dict(zip(to_fill, [self._to_row(sample, step) for sample in drawn], strict=False))
        uids = self._keep(rows, step)
        resampled = self._resample([index for index in dead if index not in replayed], step)
        self._drop_lost_images()

        replaced = replayed | resampled
        num_effective, reasons = (
            sum(row.is_effective for row in rows),
            ("capacity", "age", "uses", "rewards", "pixels"),
        )
        counts = {
            "rows": num_rows,
            "fresh_rows": num_fresh,
            "dead_rows": len(dead),
            "effective_before": num_effective,
            "effective_after": num_effective + len(replaced),
            "replayed_rows": len(replayed),
            "replayed_negative": sum(sample.advantage < 0 for sample in drawn),
            "replayed_advantage": sum(sample.advantage for sample in drawn),
            "resampled_rows": len(resampled),
            "skipped/masked": sum(row.is_informative for row in rows) - num_effective,
            "pixel_bytes": self.images.num_bytes,
            **self.buffer.metrics(step),
            **{f"evicted/{reason}": self.buffer.evicted.pop(reason, 0) for reason in reasons},
        }
        self._log(counts, replay_metrics)

        rows = [replaced[index] if index in replaced else rows[index] for index in range(num_rows)]
        self._add_references(rows)
        batch = self._collate(rows)
        # Without stored log-probabilities the loss takes the policy itself as the behaviour policy (upstream
        # `_compute_loss`), which is wrong for replayed rows. Those of fresh rows are filled in at the first forward.
        device = self.accelerator.device
        if is_captured_later:
            absent = torch.zeros(batch["completion_ids"].shape, device=device)
            batch["ssb_stored_logps"] = batch.pop(BEHAVIOUR_LOGPS, absent)
        batch["ssb_uids"] = torch.tensor([uids.get(index, -1) for index in range(num_rows)], device=device)
        batch["ssb_is_replayed"] = torch.tensor([index in replayed for index in range(num_rows)], device=device)
        batch["num_items_in_batch"] = self.accelerator.gather(loss_mask(batch).sum()).sum()
        return unsplit_pixel_values_by_grid(batch)

    def _num_due(self, num_rows: int, step: int) -> int:
        """Rows that the buffer fills whatever is dead: the same number on every process, so that all keep in step."""
        if self.args.ssb_replay_share == 0:
            return 0
        num_filled = min(int(self.args.ssb_replay_share * num_rows), self.buffer.num_available(step))
        return min(gather_object([num_filled // self._unit])) * self._unit

    def _rollout(self, inputs: list[dict[str, Any]]) -> list[Row]:
        """Generate and score with TRL, and tell live rows from dead ones."""
        sources = [example.get(ROW_NUMBER) for example in inputs]
        inputs = [{key: value for key, value in example.items() if key != ROW_NUMBER} for example in inputs]
        batch = split_pixel_values_by_grid(super()._generate_and_score_completions(inputs))
        # Upstream sets `num_images=None` when tool images were cut off and it drops all pixels.
        batch = {name: value for name, value in batch.items() if value is not None}
        rows = take_rows(batch, self._tokenizer.pad_token_id)
        is_live = live_groups(self._judged_rewards, self.num_generations, self.args.ssb_judge_tolerance)
        first = self.accelerator.process_index * len(rows)
        for index, row in enumerate(rows):
            row.source, row.is_live = sources[index], bool(is_live[(first + index) // self.num_generations])
        return rows

    def _keep(self, rows: list[Row], step: int) -> dict[int, int]:
        """Offer the effective rows to the buffer; returns their uids by place."""
        samples = {}
        for index, row in enumerate(rows):
            if row.is_effective:
                tokens = {name: tensor.clone() for name, tensor in row.tokens.items()}
                source = self.images.remember(row.visual, row.source) if row.num_images > 0 else None
                version = self.buffer.reward_version
                samples[index] = Sample(tokens, row.advantage, step, source, row.num_images, reward_version=version)
        return dict(zip(samples, self.buffer.extend(samples.values()), strict=True))

    def _to_row(self, sample: Sample, step: int) -> Row:
        every = self.args.ref_model_sync_steps
        if self.args.sync_ref_model and sample.step // every != step // every:
            sample.tokens.pop("ref_per_token_logps", None)  # of a reference that has moved since
        visual = self.images.visual(sample.source) if sample.num_images > 0 else {}
        return Row(sample.tokens, sample.advantage, visual, sample.num_images)

    def _drop_lost_images(self) -> None:
        samples, images = self.buffer.samples, self.images
        for uid, sample in list(samples.items()):
            if sample.num_images and images.read_row is None and sample.source not in images.entries:
                self.buffer.remove(uid, "pixels")
        images.keep_only({sample.source for sample in samples.values()})

    def _collate(self, rows: list[Row]) -> dict[str, Any]:
        return collate_rows(rows, self._tokenizer.pad_token_id, self.pad_to_multiple_of, self.accelerator.device)

    def _add_logps(self, rows: list[Row], model, name: str) -> None:
        """Give rows their log-probabilities under a model; every process must come with as many rows."""
        batch = unsplit_pixel_values_by_grid(self._collate(rows))
        names = (*VISUAL_FIELDS, *SEQUENCE_FIELDS, "num_images", "num_tiles")
        with torch.no_grad():
            logps, _, _ = self._get_per_token_logps_and_entropies(
                model,
                torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
                torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
                batch["completion_ids"].size(1),
                batch_size=self.args.per_device_train_batch_size,
                **{name: batch[name] for name in names if name in batch},
            )
        for row, values in zip(rows, logps.cpu(), strict=True):
            row.tokens[name] = values[: len(row.tokens["completion_ids"])].clone()

    def _add_references(self, rows: list[Row]) -> None:
        """Of replayed rows whose reference has moved; a process with fewer of them computes some of the others'."""
        if self.args.sync_ref_model:
            without = [row for row in rows if "ref_per_token_logps" not in row.tokens]
            num_rows = max(gather_object([len(without)]))
            if num_rows > 0:
                self._add_logps(((without or rows) * num_rows)[:num_rows], self.ref_model, "ref_per_token_logps")

    def _resample(self, open_rows: list[int], step: int) -> dict[int, Row]:
        """Dynamic sampling: generate for further prompts until the open rows of every process are filled."""
        found, num_drawn = {}, 0
        for _ in range(self.args.ssb_resample_rounds):
            num_groups = max(gather_object([-((len(found) - len(open_rows)) // self.num_generations)]))
            if num_groups == 0:
                break
            rows = self._rollout(self._draw_prompts(num_groups, num_drawn))
            num_drawn += num_groups * self.accelerator.num_processes
            # They may end up in the buffer alone, so that no training forward captures their log-probabilities.
            if BEHAVIOUR_LOGPS not in rows[0].tokens:
                self._add_logps(rows, self.model, BEHAVIOUR_LOGPS)
            kept = [rows[index] for index in self._keep(rows, step)]
            found |= dict(zip(open_rows[len(found) :], kept, strict=False))
        return found

    def _draw_prompts(self, num_groups: int, num_drawn: int) -> list[dict[str, Any]]:
        """The next prompts of this generation's own order, which is the same on every process; each takes its part."""
        place = (self.args.seed, self.state.global_step, self._step % self.args.gradient_accumulation_steps)
        num_rows, first = len(self.train_dataset), num_drawn + num_groups * self.accelerator.process_index
        order = random.Random(repr(place)).sample(range(num_rows), num_rows)
        numbers = [order[place % num_rows] for place in range(first, first + num_groups)]
        dataset = self._remove_unused_columns(self.train_dataset, description="Training")
        rows = [{**dataset[number], ROW_NUMBER: number} for number in numbers]
        return [dict(row) for row in self.data_collator(rows) for _ in range(self.num_generations)]

    def _compute_loss(self, model, inputs):
        self._loss_inputs = dict(inputs) if "ssb_uids" in inputs else None
        try:
            return super()._compute_loss(model, self._loss_inputs or inputs)
        finally:
            self._loss_inputs = None

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        output = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        if self._loss_inputs is not None:
            self._use_behaviour_logps(self._loss_inputs, output[0].detach())
        return output

    def _use_behaviour_logps(self, inputs: dict[str, Any], logps: torch.Tensor) -> None:
        """Between the training forward and the loss: capture those of fresh rows, set what the loss divides by."""
        is_replayed = inputs["ssb_is_replayed"].unsqueeze(1)
        if "ssb_stored_logps" in inputs:  # generation and optimisation are aligned: this is the behaviour policy
            for uid, row_logps in zip(inputs["ssb_uids"].tolist(), logps.cpu(), strict=True):
                self.buffer.set_behaviour_logps(uid, row_logps)
            if is_replayed.any():
                inputs[BEHAVIOUR_LOGPS] = torch.where(is_replayed, inputs["ssb_stored_logps"].to(logps.dtype), logps)
        mask, log_ratio = loss_mask(inputs), logps - inputs.get(BEHAVIOUR_LOGPS, logps)
        if self.importance_sampling_level == "sequence":
            num_tokens = mask.sum(dim=1, keepdim=True)
            log_ratio, mask = (log_ratio * mask).sum(dim=1, keepdim=True) / num_tokens.clamp(min=1), num_tokens
        # CISPO caps the ratio at `epsilon_high` itself; SAPO and VESPO do not clip.
        delta = torch.inf if self.args.delta is None else self.args.delta
        high = {"cispo": self.epsilon_high, "sapo": torch.inf, "vespo": torch.inf}.get(self.loss_type)
        bounds = (1 - self.epsilon_low, 1 + self.epsilon_high, delta) if high is None else (0.0, high, torch.inf)
        self._log(ratio_counts(log_ratio, inputs["advantages"], (mask != 0) & is_replayed, bounds), ratio_metrics)

    def _log(self, counts: dict[str, Any], figures: Callable[[dict[str, float]], dict[str, float]]) -> None:
        device = self.accelerator.device
        values = torch.stack([torch.as_tensor(count, dtype=torch.float64, device=device) for count in counts.values()])
        total = reduce_counts(list(counts), self.accelerator.gather(values.unsqueeze(0)).cpu())
        for name, value in figures(total).items():
            self._metrics["train"][f"ssb/{name}"].append(value)

    def _save_checkpoint(self, model, trial):
        # Before TRL's own save: `trainer_state.json`, which it writes last, then vouches for the buffer too.
        if self.buffer is not None and not self.args.save_only_model:
            checkpoint = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            (checkpoint / TRAINER_STATE_NAME).unlink(missing_ok=True)  # an earlier run's, of the same step
            self.buffer_checkpoint.save(checkpoint / SSB_FOLDER)
            self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.buffer is None or checkpoint is None:
            return
        self.buffer.samples.clear()  # what `ssb_prefill` brought is not what this run goes on with
        if self.args.ssb_resume == "exact":
            self.buffer_checkpoint.load(Path(checkpoint) / SSB_FOLDER)
        elif self.args.ssb_resume == "reshard":
            self.buffer_checkpoint.load_share(Path(checkpoint) / SSB_FOLDER)
        if self.args.sync_ref_model:  # TRL does not save the reference that has moved
            for sample in self.buffer.samples.values():
                sample.tokens.pop("ref_per_token_logps", None)
        self._drop_lost_images()
