# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""GRPO with shared prompts through `train()`, against stock TRL and against itself without sharing."""

import pytest
import torch
from peft import LoraConfig
from transformers import MistralConfig, MistralForCausalLM

from tests.support.packed_rows import TEXT
from tests.support.ssb_runs import (
    GRPOTrainer,
    SSBGRPOTrainer,
    TextAmongImagesGRPOTrainer,
    image_dataset,
    losses,
    make_trainer,
    mixed_dataset,
    parameters,
    text_dataset,
)


# Steps proportional to the gradient, so that differences of parameters are those of gradients.
SGD = {"optim": "sgd", "learning_rate": 0.05, "max_grad_norm": 0.0, "lr_scheduler_type": "constant", "beta": 0.1}
SETTINGS = {
    "aligned": {},
    "accumulation": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3},
    "groups larger than a micro-batch": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    "num_iterations": {"num_iterations": 2, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    "dapo": {"loss_type": "dapo", "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    # Means over a micro-batch: rows stay where TRL shuffled them.
    "bnpo": {"loss_type": "bnpo", "per_device_train_batch_size": 4, "gradient_accumulation_steps": 3},
    "entropy": {"top_entropy_quantile": 0.5, "entropy_coef": 0.1, "gradient_accumulation_steps": 3},
    "truncated completions": {"mask_truncated_completions": True, "loss_type": "dr_grpo"},
    "activation checkpointing": {"gradient_checkpointing": True},
    "lora": {"peft_config": LoraConfig(target_modules=["q_proj", "down_proj"], r=2), "beta": 0.0},
    "lora with its base as the reference": {"peft_config": LoraConfig(target_modules=["q_proj", "v_proj"], r=2)},
}


def token_counts(trainer) -> list[int]:
    """Tokens of each forward of the language model under way; generation's too."""
    counts = []
    trainer.model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: counts.append(
            (kwargs["input_ids"] if kwargs.get("inputs_embeds") is None else kwargs["inputs_embeds"]).shape[:2].numel()
        ),
        with_kwargs=True,
    )
    return counts


def assert_close(first, second) -> None:
    torch.testing.assert_close(losses(first), losses(second), atol=1e-5, rtol=1e-5)
    ours, theirs = parameters(first), parameters(second)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(
            ours[name], theirs[name], atol=2e-5, rtol=1e-5, msg=lambda text, name=name: name + text
        )


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("modality", ["text", "images", "mixed"])
def test_shared_prompts_train_as_stock(name, modality, text_model_path, internvl_path, tmp_path):
    dataset = {"text": text_dataset, "images": image_dataset, "mixed": mixed_dataset}[modality]()
    path = text_model_path if modality == "text" else internvl_path
    stock = TextAmongImagesGRPOTrainer if modality == "mixed" else GRPOTrainer
    trainers = []
    for cls in (stock, SSBGRPOTrainer):
        settings = SGD | SETTINGS[name] | ({"share_prompts": True} if cls is SSBGRPOTrainer else {})
        trainer = make_trainer(cls, path, tmp_path / cls.__name__, dataset, ssb_enabled=False, **settings)
        before = parameters(trainer)
        trainer.train()
        moved = max(float((before[key] - value).abs().max()) for key, value in parameters(trainer).items())
        assert moved > 5e-3
        trainers.append(trainer)
    assert len(losses(trainers[0])) == 4
    assert_close(*trainers)


@pytest.mark.parametrize("modality", ["text", "mixed"])
def test_replayed_rows_train_as_without_sharing(modality, text_model_path, internvl_path, tmp_path):
    """With a buffer rows of other prompts come in, some of a prompt that is there."""
    dataset, path = (text_dataset(6), text_model_path) if modality == "text" else (mixed_dataset(6), internvl_path)

    def reward(completion_ids, row, **kwargs):
        """Dead groups for half of the prompts."""
        return [float(sum(ids) % 5) if number % 2 else 1.0 for ids, number in zip(completion_ids, row, strict=True)]

    trainers, replayed = [], []
    for share_prompts in (False, True):
        settings = SGD | {
            "beta": 0.0,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 4,
            "max_steps": 5,
        }
        folder = tmp_path / str(share_prompts)
        trainer = make_trainer(
            SSBGRPOTrainer, path, folder, dataset, reward, share_prompts=share_prompts, ssb_max_uses=None, **settings
        )
        trainer.train()
        replayed.append([entry.get("ssb/replayed_rows") for entry in trainer.state.log_history if "loss" in entry])
        trainers.append(trainer)
    assert replayed[0] == replayed[1]
    assert sum(replayed[0]) > 4
    assert_close(*trainers)


def test_a_group_is_one_sequence_in_each_pass(text_model_path, tmp_path):
    settings = SGD | {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 1}
    runs, prefills = {}, {}
    for share_prompts in (False, True):
        trainer = make_trainer(
            SSBGRPOTrainer,
            text_model_path,
            tmp_path / str(share_prompts),
            text_dataset(),
            ssb_enabled=False,
            share_prompts=share_prompts,
            **settings,
        )
        batches = []
        prepare = trainer._prepare_inputs

        def recording(batch, prepare=prepare, batches=batches):
            batches.append(prepare(batch))
            return batches[-1]

        trainer._prepare_inputs = recording
        counts = token_counts(trainer)
        trainer.train()
        runs[share_prompts] = batches, counts[-2:]
        prefills[share_prompts] = counts[0]
    for batch, count in zip(*runs[True], strict=True):
        assert len({tuple(row.tolist()) for row in batch["prompt_ids"]}) == 1
        prompt, completions = int(batch["prompt_mask"][0].sum()), batch["completion_mask"].sum().item()
        assert count == prompt - 1 + 4 + completions
    assert any(len({tuple(row.tolist()) for row in batch["prompt_ids"]}) > 1 for batch in runs[False][0])
    # In generation, too: two groups of four, whose prompts pass once but for the last token.
    assert prefills[False] - 8 == 4 * prefills[True]


@pytest.mark.parametrize("share_prompts", [False, True])
def test_a_line_says_what_sharing_takes(share_prompts, text_model_path, tmp_path, capsys):
    settings = SGD | {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 2}
    trainer = make_trainer(
        SSBGRPOTrainer,
        text_model_path,
        tmp_path,
        text_dataset(),
        ssb_enabled=False,
        share_prompts=share_prompts,
        **settings,
    )
    trainer.train()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "share_prompts" in line]
    assert f"here it is {share_prompts}" in line


def test_models_and_settings_that_it_cannot_serve_are_refused(text_model_path, tmp_path):
    model = MistralForCausalLM(MistralConfig(**TEXT, sliding_window=8))
    with pytest.raises(ValueError, match="sliding window"):
        make_trainer(
            SSBGRPOTrainer,
            text_model_path,
            tmp_path,
            text_dataset(),
            model=model,
            ssb_enabled=False,
            share_prompts=True,
        )
