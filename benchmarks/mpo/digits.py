# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""What the MPO benchmarks on the digit tasks share: loading, sampling and measuring. Called by `train_*.py`."""

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from examples.digits.text import unsupported_digits
from trl_r1v2.evaluation.records import GREEDY, SAMPLED, Scorers, score_rollouts, summarize
from trl_r1v2.rewards import accuracy_reward, format_reward
from trl_r1v2.sampling import sample_responses


MAX_NEW_TOKENS = 32
SCORERS = Scorers(accuracy_reward, format_reward, unsupported_digits, "digits")
FIGURES = ("accuracy", "format_rate", "hallucination_rate")


def load_model(path: str):
    return AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32)


def load_processor(path: str):
    return AutoProcessor.from_pretrained(path, padding_side="left")


def measure(model, processor, rows, num_samples: int, seed: int) -> dict[str, dict[str, float]]:
    """
    Accuracy, format and hallucination rate on `rows`, answered once greedily and `num_samples` times by sampling.
    """
    records = []
    for mode, samples in ((GREEDY, 1), (SAMPLED, num_samples)):
        rollouts = sample_responses(
            model,
            processor,
            rows,
            num_samples=samples,
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=mode == SAMPLED,
            batch_size=512,
            seed=seed,
            progress=False,
        )
        records += score_rollouts(rollouts, rows, SCORERS, mode, progress=False)
    modes = summarize(records)["all"]
    return {mode: {name: modes[mode][name]["value"] for name in FIGURES} for mode in modes}
