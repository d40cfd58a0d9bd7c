# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Shared prompts in TRL's trainers: the wiring.

For classes on a trainer of TRL whose `args` have `share_prompts`. With `share_prompts=False` all is left to TRL.
"""

import functools
import math
from collections.abc import Callable
from contextlib import nullcontext

from accelerate.logging import get_logger
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

from .batches import by_group, by_length, groups_of, lengths, merge, take
from .layout import group_rows, packed_length, row_bounds
from .model import PromptSharing, refusal


logger = get_logger(__name__)


class SharedPromptsMixin:
    """
    What the trainers have in common.

    Raises:
        ValueError: If the model or a setting does not allow it; the message says why.
    """

    # Of trainers that have none of these.
    aux_loss_enabled, ref_model = False, None
    _has_logged_tokens = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.args.share_prompts:
            _ = self._prompt_sharing

    # Made on first use, which for TRL's precomputation of reference log-probabilities is in its constructor.
    @functools.cached_property
    def _prompt_sharing(self) -> PromptSharing:
        if self.args.torch_compile:
            raise ValueError("`share_prompts=True` does not support `torch_compile`: set one of them to False.")
        if self.aux_loss_enabled:
            raise ValueError(
                "`share_prompts=True` does not support a router's auxiliary loss, in which a shared prompt would "
                "count once: set `router_aux_loss_coef=0` to train without it, or `share_prompts=False`."
            )
        models = (self.model, self.ref_model)
        return PromptSharing(*(self.accelerator.unwrap_model(model) for model in models if model is not None))

    def _with_shared_prompts(self, model: Callable) -> Callable:
        return self._prompt_sharing.wrap(model) if self.args.share_prompts else model

    def _log_tokens(self, num_padded: int, num_packed: int) -> None:
        if not self._has_logged_tokens and refusal(self.accelerator.unwrap_model(self.model)) is None:
            self.accelerator.print(
                f"A pass over this process's first batch takes {num_packed} tokens with `share_prompts=True` and "
                f"{num_padded} without ({num_padded / num_packed:.1f} times as many); "
                f"here it is {self.args.share_prompts}."
            )
        self._has_logged_tokens = True

    def _log_tokens_of_rows(self, input_ids, attention_mask, is_answer) -> None:
        if not self._has_logged_tokens:
            bounds = row_bounds(attention_mask.cpu(), is_answer.cpu())
            prompts, answers = zip(
                *((boundary - start, end - boundary) for start, boundary, end in bounds), strict=True
            )
            self._log_tokens(input_ids.numel(), packed_length(group_rows(input_ids.cpu(), bounds), prompts, answers))


class SharedPromptsGRPOMixin(SharedPromptsMixin):
    """
    For classes on [`~trl.GRPOTrainer`]: the rows of a prompt stay together in a micro-batch and pass policy and
    reference as one packed sequence. Losses are those of TRL to rounding; where a generation feeds several optimizer
    steps, groups are dealt to them whole. Losses that are means over a micro-batch keep TRL's micro-batches.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.args.share_prompts and self._averages_micro_batches:
            logger.warning(
                "`share_prompts=True` saves little here: with `loss_type='bnpo'`, an entropy bonus or "
                "`top_entropy_quantile` below 1, which are means over a micro-batch, rows stay in the micro-batch "
                "that they were shuffled into, and share their prompt where they meet there."
            )

    @property
    def _averages_micro_batches(self) -> bool:
        """Whether losses are means over a micro-batch, which another choice of its rows would change."""
        return self.loss_type == "bnpo" or self._entropy_bonus_enabled or self.top_entropy_quantile < 1

    def _get_per_token_logps_and_entropies(self, model, *args, **kwargs):
        return super()._get_per_token_logps_and_entropies(self._with_shared_prompts(model), *args, **kwargs)

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, *args, **kwargs):
        # After a tool's answer each completion has a history of its own, and not every process comes here.
        shares = self.args.share_prompts and not self.use_vllm and num_generations > 1
        with self._prompt_sharing.in_generate() if shares else nullcontext():
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, *args, **kwargs
            )

    @property
    def _moves_rows(self) -> bool:
        """Whether rows may move between the micro-batches of an optimizer step, and lose needless padding."""
        return self.args.share_prompts

    def _prepare_inputs(self, generation_batch):
        buffered = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is buffered or (self._has_logged_tokens and not self._moves_rows):
            return inputs
        batch = merge([split_pixel_values_by_grid(batch) for batch in self._buffered_inputs])
        groups = groups_of(batch)
        self._log_tokens(
            batch["prompt_ids"].numel() + batch["completion_ids"].numel(), packed_length(groups, *lengths(batch))
        )
        if not self._moves_rows:
            return inputs
        batches = [take(batch, rows, self.pad_to_multiple_of) for rows in self._arranged(batch, groups)]
        self._buffered_inputs = [unsplit_pixel_values_by_grid(batch) for batch in batches]
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _arranged(self, batch, groups) -> list[list[int]]:
        """Rows of each micro-batch. TRL has shuffled them, so the order in which groups appear is random as well."""
        num_batches = self.args.steps_per_generation
        # Whatever the two numbers are, that many micro-batches in a row belong to one optimizer step.
        window = math.gcd(num_batches, self.args.gradient_accumulation_steps)
        if self._averages_micro_batches:
            window = 1
        elif self.args.share_prompts:
            return by_group(groups, num_batches, window, *lengths(batch))
        return by_length([sum(row) for row in zip(*lengths(batch), strict=True)], num_batches, window)


class SharedPromptsDPOMixin(SharedPromptsMixin):
    """
    For classes on [`~trl.DPOTrainer`]: chosen and rejected share their prompt in the passes that come through
    `compute_ref_log_probs`. A class that overrides `_compute_loss` hands `super()` the policy of
    `_with_shared_prompts`.
    """

    def compute_ref_log_probs(self, model, inputs):
        return super().compute_ref_log_probs(self._with_shared_prompts(model), inputs)

    def _compute_loss(self, model, inputs, return_outputs):
        self._log_tokens_of_rows(inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"].bool())
        return super()._compute_loss(model, inputs, return_outputs)
