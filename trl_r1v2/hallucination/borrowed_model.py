# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
A trainer's model, lent for a measurement in the middle of training and given back as it was: whole weights in every
process (plain, DDP, DeepSpeed), modules' modes and random states. FSDP is not covered.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from transformers import Trainer
from transformers.integrations import is_deepspeed_zero3_enabled
from trl.models.utils import unwrap_model_for_generation

from ..sampling.generation import evaluation_mode, forked_random_state


@contextmanager
def borrowed_model(trainer: Trainer) -> Iterator[torch.nn.Module]:
    """
    The model of `trainer` without its distributed wrapper, its weights gathered where they are sharded, in evaluation
    mode without gradients. Afterwards modes and the random states of Python, numpy and torch are as before.
    """
    if not is_deepspeed_zero3_enabled():
        model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
        with _undisturbed(model):
            yield model
        return
    engine = trainer.model_wrapped
    options = {"gradient_checkpointing_kwargs": trainer.args.gradient_checkpointing_kwargs}
    with unwrap_model_for_generation(engine, trainer.accelerator, **options) as model, _no_meetings(engine):
        with _undisturbed(model):
            yield model


@contextmanager
def _no_meetings(engine: torch.nn.Module) -> Iterator[None]:
    """
    Forwards of a gathered ZeRO-3 model that are the process's own affair.

    TRL takes DeepSpeed's hooks off while the weights are gathered, but for the one at the start of the model's
    forward: it compares notes with all processes, and one that has fewer rows to answer, or none, would be waited for.
    """
    coordinator = engine.optimizer.parameter_offload.get_param_coordinator()
    coordinator.reset_step = lambda: None
    try:
        yield
    finally:
        del coordinator.reset_step


@contextmanager
def _undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards modes and random states are as before."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with forked_random_state(model.device), evaluation_mode(model), torch.no_grad():
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
