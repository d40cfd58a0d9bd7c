# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""On a CPU, TRL's fused head scores prompts and padding as well; the commands leave them out, and nothing changes."""

import pytest
import torch
import trl.trainer.utils
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from tests.support.tiny_models import build_qwen2
from trl_r1v2.scripts.training import train_and_save


PROMPT, COMPLETIONS = "What_is_the_sum_of_12_and_5?", ["17", "It_is_17.", "7"]


@pytest.fixture
def scored(monkeypatch) -> list[int]:
    """Positions that the fused head projects, forward by forward."""
    counts, apply = [], trl.trainer.utils._ChunkedLogProbFunction.apply

    def counting(hidden, *args):
        counts.append(len(hidden))
        return apply(hidden, *args)

    monkeypatch.setattr(trl.trainer.utils._ChunkedLogProbFunction, "apply", counting)
    return counts


def sft_trainer(path: str, output_dir) -> SFTTrainer:
    return SFTTrainer(
        AutoModelForCausalLM.from_pretrained(path),
        SFTConfig(
            output_dir=str(output_dir),
            use_cpu=True,
            bf16=False,
            report_to="none",
            max_steps=2,
            logging_steps=1,
            per_device_train_batch_size=3,
            learning_rate=1e-2,
            save_strategy="no",
            max_grad_norm=1e9,
        ),  # fmt: skip
        train_dataset=Dataset.from_dict({"prompt": [PROMPT] * 3, "completion": COMPLETIONS}),
        processing_class=AutoTokenizer.from_pretrained(path),
    )


def test_the_commands_score_labelled_positions_alone_and_train_the_same(tmp_path, scored):
    path = build_qwen2(tmp_path / "model")
    stock = sft_trainer(path, tmp_path / "stock")
    stock.train()
    longest = len(PROMPT) + len(COMPLETIONS[1]) + 1  # a token a character, and the end
    assert scored == [3 * (longest - 1)] * 2  # why the mend exists: when this fails, it can go

    scored.clear()
    ours = sft_trainer(path, tmp_path / "ours")
    train_and_save(ours, None)
    assert scored == [sum(len(text) + 1 for text in COMPLETIONS)] * 2
    for name in ("loss", "grad_norm", "entropy", "mean_token_accuracy"):
        for entry, expected in zip(ours.state.log_history[:2], stock.state.log_history[:2], strict=True):
            assert entry[name] == pytest.approx(expected[name], rel=1e-5), name
    for (name, weight), expected in zip(ours.model.named_parameters(), stock.model.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-4, atol=1e-5, msg=name)

    scored.clear()
    stock.train()  # outside of a command TRL is as it was
    assert scored == [3 * (longest - 1)] * 2
