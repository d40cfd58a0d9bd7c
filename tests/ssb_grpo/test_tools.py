# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Tools and environments that TRL calls itself, in a loop of generations whose texts alone are made up: `generate` of the
model returns tool calls, and after a tool's answer some word.
"""

import copy
import random
import re

import pytest
import torch
from transformers import AutoModelForCausalLM
from trl import chat_template_utils

from tests.support.ssb_probes import fated, logged, probed
from tests.support.ssb_runs import SSBGRPOTrainer, losses, make_trainer, parameters, text_dataset
from tests.support.tiny_models import build_tokenizer


FATES = {3: 0.0, 4: 1.0, 5: 1.0}
SETTINGS = {"max_completion_length": 160, "shuffle_dataset": False, "max_steps": 3}


@pytest.fixture
def parts(text_model_path, tmp_path):
    """A tokenizer whose chat template calls tools, in a folder of its own, and the model."""
    tokenizer = build_tokenizer()
    tokenizer.chat_template = chat_template_utils.qwen2_5_chat_template
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    model = AutoModelForCausalLM.from_pretrained(text_model_path, max_position_embeddings=4096)
    return {"path": str(tmp_path / "tokenizer"), "model": model}


def multiply(a: int, b: int) -> int:
    """
    Multiply two numbers.

    Args:
        a: The first number.
        b: The second number.
    """
    return a * b


class Counter:
    """An environment that counts, and tells where it starts."""

    def reset(self, row, **kwargs) -> str:
        self.row, self.count = row, 10 * row
        return f" from {self.count}"

    def add(self, number: int) -> int:
        """
        Add to the count.

        Args:
            number: What to add.
        """
        self.count += number
        return self.count


class ScoringCounter(Counter):
    """Scores its rollouts itself; those of the later rows all alike."""

    def get_reward(self) -> float:
        return float(self.count % 7) if self.row < 3 else 1.0


def write_calls(trainer, call) -> None:
    """Have the model write `call(rng)` in most completions, one letter otherwise or after an answer."""
    tokenizer, rng = trainer.processing_class, random.Random(0)

    def generate(input_ids, **kwargs):
        texts = []
        for row in tokenizer.batch_decode(input_ids):
            last = row.rsplit("<|im_start|>", 2)[-2]
            calls = "<tool_response>" not in last and rng.random() < 0.7
            texts.append((call(rng) if calls else rng.choice("abcdefgh")) + "<|im_end|>")
        ids = [torch.tensor(tokenizer(text)["input_ids"]) for text in texts]
        made = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=tokenizer.pad_token_id)
        return torch.cat([input_ids, made.to(input_ids.device)], dim=1)

    trainer.model.generate = generate


def call_of(name, **arguments) -> str:
    text = ", ".join(f'"{key}": {value}' for key, value in arguments.items())
    return f'<tool_call>\n{{"name": "{name}", "arguments": {{{text}}}}}\n</tool_call>'


def multiplying(rng) -> str:
    return call_of("multiply", a=rng.randrange(2, 10), b=rng.randrange(2, 10))


def trained_and_not(trainer, batch, index) -> tuple[str, str]:
    """A completion's text that counts in the loss, and the text that does not."""
    mask, tool_mask = batch["completion_mask"][index].bool(), batch["tool_mask"][index].bool()
    ids = batch["completion_ids"][index]
    return tuple(trainer.processing_class.decode(ids[mask & part]) for part in (tool_mask, ~tool_mask))


@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
def test_tools(loss_type, parts, tmp_path, monkeypatch):
    """What a tool answered is in the context of a replayed row, and in no loss."""
    settings = SETTINGS | {"tools": [multiply], "loss_type": loss_type}
    trainer, probe = probed(
        monkeypatch, output_dir=tmp_path, dataset=text_dataset(), reward=fated(FATES), **parts, **settings
    )
    write_calls(trainer, multiplying)
    trainer.train()
    assert logged(trainer, "tools/call_frequency")[0] > 0 and logged(trainer, "tools/failure_frequency") == [0, 0, 0]
    assert probe.num_replayed == [0, 4, 8]
    probe.assert_gradients(3)
    probe.assert_buffer()
    num_answers = 0
    for used in probe.used:
        for index in used["ssb_is_replayed"].nonzero().flatten().tolist():
            trained, answered = trained_and_not(trainer, used, index)
            numbers = re.findall(r'"[ab]": (\d)', trained)
            assert bool(numbers) == bool(answered)
            if numbers:
                num_answers += 1
                assert f"<tool_response>\n{int(numbers[0]) * int(numbers[1])}\n</tool_response>" in answered
                assert "<tool_response>" not in trained and trained.count("<|im_end|>") == 2
    assert num_answers >= 3


def test_tools_with_shared_prompts(parts, tmp_path):
    """Tool answers inside packed rows: attended to, not trained on, as without sharing."""
    runs = []
    for share_prompts in (False, True):
        trainer = make_trainer(
            SSBGRPOTrainer, parts["path"], tmp_path, text_dataset(), fated(FATES), copy.deepcopy(parts["model"]),
            tools=[multiply], share_prompts=share_prompts, optim="sgd", learning_rate=0.05, beta=0.1, **SETTINGS,
        )  # fmt: skip
        write_calls(trainer, multiplying)
        masks, loss = [], trainer._compute_loss

        def recording(model, inputs, masks=masks, loss=loss):
            masks.append(inputs["tool_mask"] * inputs["completion_mask"])
            return loss(model, inputs)

        trainer._compute_loss = recording
        trainer.train()
        assert logged(trainer, "ssb/replayed_rows") == [0, 4, 8]
        runs.append((trainer, sum(int(mask.sum()) for mask in masks)))
    (first, num_tokens), (second, num_tokens_shared) = runs
    assert num_tokens == num_tokens_shared
    assert losses(second) == pytest.approx(losses(first), abs=1e-5)
    for name, value in parameters(first).items():
        torch.testing.assert_close(parameters(second)[name], value, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("environment", [Counter, ScoringCounter])
def test_environments(environment, parts, tmp_path, monkeypatch):
    """A replayed row keeps the prompt its environment opened with, and what the environment answered."""

    class WithEnvironment(SSBGRPOTrainer):
        def __init__(self, model, reward_funcs, *args, **kwargs):
            reward_funcs = None if environment is ScoringCounter else reward_funcs
            super().__init__(model, reward_funcs, *args, environment_factory=environment, **kwargs)

    trainer, probe = probed(
        monkeypatch, output_dir=tmp_path, dataset=text_dataset(), reward=fated(FATES), cls=WithEnvironment, **parts,
        **SETTINGS,
    )  # fmt: skip
    write_calls(trainer, lambda rng: call_of("add", number=rng.randrange(1, 10)))
    trainer.train()
    probe.assert_gradients(3)
    probe.assert_buffer()
    assert probe.num_replayed == [0, 4, 8]
    decode, num_answers = trainer.processing_class.decode, 0
    for used in probe.used:
        for index in used["ssb_is_replayed"].nonzero().flatten().tolist():
            prompt = decode(used["prompt_ids"][index][used["prompt_mask"][index].bool()])
            start = int(re.search(r"(\d+) from (\d+)<", prompt)[2])
            trained, answered = trained_and_not(trainer, used, index)
            if number := re.search(r'"number": (\d)', trained):
                num_answers += 1
                assert f"\n{start + int(number[1])}\n</tool_response>" in answered
    assert num_answers >= 3


def test_extra_rounds_of_environments_are_refused(parts, tmp_path):
    class WithEnvironment(SSBGRPOTrainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, environment_factory=Counter, **kwargs)

    with pytest.raises(ValueError, match="environment_factory"):
        make_trainer(
            WithEnvironment, parts["path"], tmp_path, text_dataset(), model=parts["model"], ssb_resample_rounds=1
        )
