# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Checkpoints whose weights the trainer can read back.

`save_pretrained` renames the weights of vision-language models, and splits the experts of Mixture-of-Experts models,
to the layout of their published checkpoints. `from_pretrained` turns that round; `transformers.Trainer`, when it
resumes or loads the best model, does not: it finds no key it knows, warns, and goes on with the weights it had.

Where nodes share no disk and every one is to write its checkpoints (`save_on_each_node`), `save_pretrained` leaves out
the weights on all but the first, so that no run resumes from them. No issue is open.

Covers weights saved by `save_pretrained`. Does not cover FSDP and DeepSpeed, which keep a state of their own.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

from accelerate.utils import is_peft_model
from transformers import PreTrainedModel

from ..vlm.errors import CheckpointError


@contextmanager
def _native_layout(model, on_each_node: bool) -> Iterator[None]:
    """Have `save_pretrained` write the parameters under their names in the model, and `on_each_node` if asked to."""
    if not isinstance(model, PreTrainedModel):  # a PEFT model saves its adapter alone
        yield
        return
    model.save_pretrained = functools.partial(model.save_pretrained, save_original_format=False)
    if on_each_node:
        model.should_save_on_this_rank = bool  # of `is_main_process`, without asking for the first process of all
    try:
        yield
    finally:
        del model.save_pretrained
        vars(model).pop("should_save_on_this_rank", None)


class NativeCheckpointMixin:
    """
    Mixin for a [`~transformers.Trainer`]: checkpoints keep the model's own parameter names, and loading one that lacks
    parameters is an error instead of a warning. `from_pretrained` reads such a checkpoint like any other. What
    `save_model` writes outside of checkpoints stays in the published layout.
    """

    def _save_checkpoint(self, model, trial):
        with _native_layout(self.accelerator.unwrap_model(self.model), self.args.save_on_each_node):
            super()._save_checkpoint(model, trial)

    def _issue_warnings_after_load(self, load_result):
        model = self.accelerator.unwrap_model(self.model)
        model = model.get_base_model() if is_peft_model(model) else model
        elsewhere = {*model.all_tied_weights_keys, *(model._keys_to_ignore_on_save or ())}
        missing = sorted(set(load_result.missing_keys) - elsewhere)
        if missing:
            raise CheckpointError(
                f"the checkpoint lacks {len(missing)} of the model's parameters, {missing[0]!r} for one, so they "
                "would keep the values they had before. It belongs to another model, or was saved in the layout of "
                "published checkpoints: start a new run from its weights (`model_name_or_path`) instead of resuming "
                "it."
            )
        super()._issue_warnings_after_load(load_result)
