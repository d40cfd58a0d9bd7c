# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Mixed Preference Optimization: the wiring.

The losses are `losses.py`, the reward shift is `reward_shift.py`, batches are `collator.py`. Does
not cover where the pairs come from (`pairs.py`).
"""

import copy
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.logging import get_logger
from accelerate.utils import is_peft_model
from datasets import Dataset, DatasetDict
from datasets.fingerprint import Hasher
from transformers import ProcessorMixin
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl.trainer.utils import get_config_model_id, hash_module

from ..patches.dpo import DPOTrainer
from ..prompt_sharing.trainers import SharedPromptsDPOMixin
from .collator import TRUNCATED, MPODataCollator, MPOVisionDataCollator
from .losses import MPOWeights, PairLogps, mpo_losses
from .mpo_config import MPOConfig
from .reward_shift import RewardShift, load_reward_shift, save_reward_shift


logger = get_logger(__name__)


def _has_images(dataset) -> bool:
    row = next(iter(dataset))
    return "image" in row or "images" in row


class MPOTrainer(SharedPromptsDPOMixin, DPOTrainer):
    """
    Trainer for Mixed Preference Optimization (MPO).

    MPO was introduced in [Enhancing the Reasoning Ability of Multimodal Large Language Models via Mixed Preference
    Optimization](https://huggingface.co/papers/2411.10442) and is the first stage of [Skywork
    R1V2](https://huggingface.co/papers/2504.16656): a weighted sum of a preference loss, a quality loss with a reward
    shift δ, and a generation loss (eqs. 2-5).

    The changes w.r.t. [`~trl.DPOTrainer`]: the loss; a prompt and its images may pass once per pair (`share_prompts`);
    reference log-probabilities can be precomputed for data with images; δ is saved with checkpoints, and weights so
    that they can be read back; the collators say what they truncated. The forward passes, the MoE auxiliary loss and
    DPO's metrics are inherited. With `preference_weight=1, quality_weight=0, generation_weight=0` the losses and
    parameters are those of [`~trl.DPOTrainer`] to the bit.

    Takes the arguments of [`~trl.DPOTrainer`], with an [`MPOConfig`] as `args`.

    Raises:
        TypeError: If `args` is not an [`MPOConfig`].
        ValueError: If prompts are to be shared on a model that does not allow it; the message says why.
    """

    _tag_names = ["trl", "mpo"]
    _name = "MPO"
    _paper = {
        "title": "Enhancing the Reasoning Ability of Multimodal Large Language Models "
        "via Mixed Preference Optimization",
        "id": "2411.10442",
        # docstyle-ignore
        "citation": textwrap.dedent("""\
            @article{wang2024enhancing,
                title        = {{Enhancing the Reasoning Ability of Multimodal Large Language Models
                                via Mixed Preference Optimization}},
                author       = {Weiyun Wang and Zhe Chen and Wenhai Wang and Yue Cao and Yangzhou Liu and
                                Zhangwei Gao and Jinguo Zhu and Xizhou Zhu and Lewei Lu and Yu Qiao and Jifeng Dai},
                year         = 2024,
                eprint       = {arXiv:2411.10442},
            }"""),
    }

    def __init__(
        self, model, ref_model=None, args=None, data_collator=None, train_dataset=None, *other_args, **kwargs
    ):
        if args is None:
            model_name = model if isinstance(model, str) else get_config_model_id(model.config)
            args = MPOConfig(f"{model_name.split('/')[-1]}-MPO")
        elif not isinstance(args, MPOConfig):
            raise TypeError(
                f"`args` is a {type(args).__name__} but must be an `MPOConfig`, which takes the same arguments: "
                "`from trl_r1v2 import MPOConfig`."
            )
        precompute_images = args.precompute_ref_log_probs and train_dataset is not None and _has_images(train_dataset)
        if precompute_images:
            # TRL's constructor refuses this for images, so it comes afterwards, when all it needs is in place.
            args = copy.copy(args)
            args.precompute_ref_log_probs = False
            # Hashed here, before the reference is sharded.
            ref_model_hash = None if ref_model is None else hash_module(ref_model)
        self.reward_shift = RewardShift(args.reward_shift, args.reward_shift_decay, args.beta)
        self._loss_weights = MPOWeights(args.preference_weight, args.quality_weight, args.generation_weight)
        super().__init__(model, ref_model, args, data_collator, train_dataset, *other_args, **kwargs)
        if self.accelerator.num_processes > 1 and args.accelerator_config.even_batches is False:
            raise ValueError(
                "`accelerator_config={'even_batches': False}` leaves the processes with different numbers of pairs in "
                "the last batch, on which TRL's gathering of per-pair metrics hangs. Set it to True, the default."
            )
        # TRL is left the forward passes, the auxiliary loss and its metrics; the losses are ours.
        self.loss_types, self.loss_weights = [], []
        if data_collator is None:
            self.data_collator = self._make_collator()
        if precompute_images:
            args.precompute_ref_log_probs = self.precompute_ref_logps = True
            self._precompute_model_hash = ref_model_hash or hash_module(self.model)
            self._precompute_image_reference()
            if ref_model is None:
                self._drop_reference()

    # Data

    def _make_collator(self) -> MPODataCollator | MPOVisionDataCollator:
        if self._is_vision_dataset:
            processor = self._processor_of_responses(self.train_dataset)
            return MPOVisionDataCollator(processor, self.args.max_length, self.args.pad_to_multiple_of)
        return MPODataCollator(
            self._tokenizer.pad_token_id,
            max_length=self.args.max_length,
            truncation_mode=self.args.truncation_mode,
            pad_to_multiple_of=self.args.pad_to_multiple_of,
        )

    def _prepare_dataset(self, dataset, processing_class, args, dataset_name):
        prepared = super()._prepare_dataset(dataset, processing_class, args, dataset_name)
        if isinstance(dataset, Dataset) and len(prepared) < len(dataset):
            logger.warning(
                f"{len(dataset) - len(prepared)} of {len(dataset)} rows of the {dataset_name} dataset are left out: "
                f"their prompts leave no room for a response within `max_length={args.max_length}`."
            )
        return prepared

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        if self._is_vision_dataset and "ref_chosen_logps" not in self._signature_columns:
            self._signature_columns += ["ref_chosen_logps", "ref_rejected_logps"]

    # Reference

    def _precompute_image_reference(self) -> None:
        batch_size = self.args.precompute_ref_batch_size
        train_size = batch_size or self.args.per_device_train_batch_size
        self.train_dataset = self._precompute_ref_logps(self.train_dataset, "train", train_size)
        eval_size = batch_size or self.args.per_device_eval_batch_size
        if isinstance(self.eval_dataset, dict | DatasetDict):
            self.eval_dataset = {
                name: self._precompute_ref_logps(dataset, name, eval_size)
                for name, dataset in self.eval_dataset.items()
            }
        elif self.eval_dataset is not None:
            self.eval_dataset = self._precompute_ref_logps(self.eval_dataset, "eval", eval_size)

    def _drop_reference(self) -> None:
        self.ref_model = None
        # The accelerator keeps what it prepared, so far the reference and the data loaders of its passes.
        self.accelerator.free_memory()

    def _precompute_ref_logps(self, dataset, name, batch_size):
        if self.accelerator.num_processes > 1 and isinstance(dataset, Dataset) and not dataset.cache_files:
            raise ValueError(
                f"the {name} dataset lies in memory, where the processes cannot share the precomputed "
                "log-probabilities. Write it with `dataset.save_to_disk(folder)` and load it with "
                "`datasets.load_from_disk(folder)`."
            )
        # TRL keys its cache by dataset and model, but truncation and image processing move the log-probs as well.
        processing = self.processing_class
        settings = (
            self.args.max_length,
            self.args.truncation_mode,
            processing.to_json_string() if isinstance(processing, ProcessorMixin) else None,
        )
        model_hash = self._precompute_model_hash
        self._precompute_model_hash = Hasher.hash((model_hash, settings))
        try:
            return super()._precompute_ref_logps(dataset, name, batch_size)
        finally:
            self._precompute_model_hash = model_hash

    def compute_ref_log_probs(self, model, inputs):
        inputs = {name: value for name, value in inputs.items() if name != TRUNCATED}
        return super().compute_ref_log_probs(model, inputs)

    def _reference_logps(self, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        if "ref_chosen_logps" in inputs:
            return inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
        if self.ref_model is None and not is_peft_model(self.model):
            raise ValueError(
                "the batch has no reference log-probabilities, and with `precompute_ref_log_probs=True` the reference "
                "model is not kept. Pass this dataset as `eval_dataset` when the trainer is made, pass a `ref_model`, "
                "or set `precompute_ref_log_probs=False`."
            )
        return self.compute_ref_log_probs(self.model if self.ref_model is None else self.ref_model, inputs)

    @contextmanager
    def _reference_from_batch(self) -> Iterator[None]:
        """Have TRL take the reference log-probabilities from the batch, precomputed or not."""
        precomputed, self.precompute_ref_logps = self.precompute_ref_logps, True
        try:
            yield
        finally:
            self.precompute_ref_logps = precomputed

    # Loss

    def _compute_loss(self, model, inputs, return_outputs):
        inputs = dict(inputs)
        truncated = inputs.pop(TRUNCATED, None)
        forwards, model = [], self._with_shared_prompts(model)

        def policy(**kwargs):
            forwards.append(model(**kwargs))
            return forwards[-1]

        with self._reference_from_batch():
            inputs["ref_chosen_logps"], inputs["ref_rejected_logps"] = self._reference_logps(inputs)
            result = super()._compute_loss(policy, inputs, return_outputs)
        other_losses, outputs = result if return_outputs else (result, None)

        completion_mask = inputs["completion_mask"][:, 1:]
        pairs = PairLogps(
            # Prompt-learning PEFT prepends virtual tokens; the real ones are the last.
            per_token_logps=forwards[0].log_probs[:, -completion_mask.size(1) :],
            completion_mask=completion_mask,
            ref_chosen_logps=inputs["ref_chosen_logps"],
            ref_rejected_logps=inputs["ref_rejected_logps"],
        )
        if self.model.training:
            self._update_reward_shift(*pairs.rewards(self.beta))
        losses = mpo_losses(
            pairs,
            self._loss_weights,
            self.beta,
            self.reward_shift.value,
            self.args.label_smoothing,
            self.args.generation_loss_type,
        )
        metrics = dict(losses.metrics)
        if truncated is not None:
            metrics["truncated_responses"] = truncated.to(losses.loss.dtype).mean()
        self._log_losses(metrics, pairs.num_pairs)
        # TRL's part is the MoE auxiliary loss, or 0.
        loss = losses.loss + other_losses
        return (loss, outputs) if return_outputs else loss

    @torch.no_grad()
    def _update_reward_shift(self, chosen_rewards: torch.Tensor, rejected_rewards: torch.Tensor) -> None:
        rewards = torch.cat([chosen_rewards, rejected_rewards])
        # Sum and count, not the mean: processes may hold different numbers of pairs.
        totals = torch.stack([rewards.sum(), rewards.new_tensor(rewards.numel())])
        reward_sum, num_rewards = self.accelerator.reduce(totals, reduction="sum").tolist()
        self.reward_shift.update(reward_sum, int(num_rewards))

    def _log_losses(self, means: dict[str, torch.Tensor], num_pairs: int) -> None:
        """Log means over the local pairs as means over those of all processes, in one collective."""
        totals = torch.stack([*means.values(), next(iter(means.values())).new_ones(())]) * num_pairs
        *sums, count = self.accelerator.reduce(totals, reduction="sum").tolist()
        logged = self._metrics["train" if self.model.training else "eval"]
        for name, total in zip(means, sums, strict=True):
            logged[f"mpo/{name}"].append(total / count)
        logged["mpo/reward_shift"].append(self.reward_shift.value)

    # Checkpoints

    def _save_checkpoint(self, model, trial):
        # Before TRL writes the rest, so that no checkpoint that counts as complete lacks it.
        if self.args.should_save:
            folder = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            save_reward_shift(self.reward_shift, Path(self._get_output_dir(trial=trial)) / folder)
        super()._save_checkpoint(model, trial)

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            load_reward_shift(self.reward_shift, Path(checkpoint))
