# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""A colocated vLLM answers the prompts that are trained on, images included, and samples no image tokens."""

import math

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import GRPOTrainer as StockGRPOTrainer

from tests.support.ssb_probes import fated, probed
from tests.support.ssb_runs import SSBGRPOTrainer, image_dataset, make_trainer, mixed_dataset
from tests.vllm.test_colocate import ENGINE
from trl_r1v2.patches.vllm_encoder_cache import VLLMEncoderCacheMixin


pytestmark = pytest.mark.vllm

LAYOUTS = {"one": ((1,),), "two": ((1, 1),), "many_tiles": ((4,),), "several": ((3, 1, 2), (1, 4))}
KINDS = ["internvl", "qwen_vl"]
# What float32 leaves between two computations of a log-probability of these models.
TOLERANCE = 2e-4


def gaps(monkeypatch, path, folder, dataset, cls=SSBGRPOTrainer, **settings):
    """Trainer's minus engine's log-probability of every sampled token, each generation a tensor; and the trainer."""
    batches = []
    stock = StockGRPOTrainer._generate_and_score_completions

    def recording(trainer, inputs):
        batches.append(stock(trainer, inputs))
        return batches[-1]

    monkeypatch.setattr(StockGRPOTrainer, "_generate_and_score_completions", recording)
    trainer = make_trainer(cls, path, folder, dataset, **(ENGINE | {"max_steps": 2} | settings))
    trainer.train()
    differences = []
    for batch in batches:
        difference = batch["old_per_token_logps"] - batch["sampling_per_token_logps"]
        differences.append(difference[batch["completion_mask"].bool()])
    return differences, trainer, batches


def never(path):
    """What a user of stock TRL has to know: no image tokens."""
    return {"logit_bias": {AutoModelForImageTextToText.from_pretrained(path).config.image_token_id: -100.0}}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_engine_sees_the_prompt(kind, layout, model_paths, tmp_path, monkeypatch):
    dataset = image_dataset(layouts=LAYOUTS[layout])
    differences, _, _ = gaps(monkeypatch, model_paths[kind], tmp_path, dataset)
    assert max(difference.abs().max() for difference in differences) < TOLERANCE


def test_text_among_images(model_paths, tmp_path, monkeypatch):
    differences, _, _ = gaps(monkeypatch, model_paths["internvl"], tmp_path, mixed_dataset(), max_steps=4)
    assert max(difference.abs().max() for difference in differences) < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_upstream_expands_image_tokens_twice(kind, model_paths, tmp_path, monkeypatch):
    """Once TRL hands vLLM what it expects, this fails, and `patches/vllm_image_tokens.py` can go."""
    path = model_paths[kind]
    dataset = image_dataset(layouts=LAYOUTS["two"])
    differences, _, _ = gaps(
        monkeypatch, path, tmp_path, dataset, StockGRPOTrainer, generation_kwargs=never(path), max_steps=1
    )
    assert differences[0].abs().mean() > 0.1


# ---- Image tokens are not sampled ----


@pytest.fixture
def image_loving_path(model_paths, tmp_path) -> str:
    """An InternVL that gives its image token a good part of the probability everywhere."""
    model = AutoModelForImageTextToText.from_pretrained(model_paths["internvl"])
    ids = torch.arange(20, 80).unsqueeze(0)
    with torch.no_grad():
        hidden = model.model(input_ids=ids).last_hidden_state[0]
        logits = model.lm_head(hidden).max(dim=-1).values.mean()
        mean = hidden.mean(dim=0)
        model.lm_head.weight[model.config.image_token_id] = mean * logits / mean.dot(mean)
    folder = tmp_path / "image_loving"
    model.save_pretrained(folder)
    AutoProcessor.from_pretrained(model_paths["internvl"]).save_pretrained(folder)
    return str(folder)


def test_image_tokens_are_never_sampled(image_loving_path, tmp_path, monkeypatch):
    """And the log-probabilities stay those of the whole vocabulary, as the trainer computes them."""
    settings = {"learning_rate": 0.0, "max_completion_length": 12, "max_steps": 4}
    differences, trainer, batches = gaps(monkeypatch, image_loving_path, tmp_path, image_dataset(), **settings)
    image_token = trainer.model.config.image_token_id
    assert not any((batch["completion_ids"] == image_token).any() for batch in batches)
    assert max(difference.abs().max() for difference in differences) < TOLERANCE
    # Without the mend the first batch already holds one, and the forward over it fails.
    with pytest.raises(ValueError, match="Image features and image tokens do not match"):
        make_trainer(StockGRPOTrainer, image_loving_path, tmp_path, image_dataset(), **ENGINE, **settings).train()


def test_what_remains_at_another_temperature(image_loving_path, tmp_path, monkeypatch):
    """There the engine's log-probabilities are those of the tokens it may sample: one p(image token) apart."""
    settings = {"learning_rate": 0.0, "temperature": 0.7, "max_steps": 1, "shuffle_dataset": False}
    _, trainer, batches = gaps(
        monkeypatch, image_loving_path, tmp_path, image_dataset(layouts=LAYOUTS["one"]), **settings
    )
    batch, model = batches[0], trainer.model
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    length = batch["completion_ids"].size(1)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, pixel_values=batch["pixel_values"]).logits
    share = torch.softmax(logits[:, -length - 1 : -1] / 0.7, dim=-1)[..., model.config.image_token_id]
    is_real = batch["completion_mask"].bool()
    difference = (batch["old_per_token_logps"] - batch["sampling_per_token_logps"])[is_real]
    assert share[is_real].max() > 0.05
    torch.testing.assert_close(difference, torch.log1p(-share[is_real]), atol=TOLERANCE, rtol=0)


def test_a_bias_of_the_user_stays(model_paths, tmp_path):
    kwargs = {"logit_bias": {20: -100.0}, "seed": 3}
    trainer = make_trainer(
        SSBGRPOTrainer, model_paths["internvl"], tmp_path, image_dataset(), **ENGINE, generation_kwargs=kwargs
    )
    image_token = trainer.model.config.image_token_id
    expected = {"logit_bias": {20: -100.0, image_token: -100.0}, "seed": 3}
    assert trainer.vllm_generation.generation_kwargs == expected
    assert trainer.args.generation_kwargs == kwargs


# ---- The same image after an update ----


@pytest.mark.parametrize("is_mended", [True, False])
def test_image_features_are_dropped_with_the_old_weights(is_mended, model_paths, tmp_path, monkeypatch):
    if not is_mended:
        monkeypatch.setattr(
            VLLMEncoderCacheMixin, "_sync_weights_and_features", lambda trainer: trainer._sync_weights_alone()
        )
    dataset = image_dataset(2, layouts=LAYOUTS["one"])
    differences, _, _ = gaps(monkeypatch, model_paths["internvl"], tmp_path, dataset, max_steps=3)
    largest = [difference.abs().max().item() for difference in differences]
    assert largest[0] < TOLERANCE
    assert all(gap < TOLERANCE for gap in largest) is is_mended


# ---- What is refused ----


def test_another_processor_than_the_checkpoints(model_paths, tmp_path, monkeypatch):
    """vLLM reads the processor's settings from the checkpoint, so one given by hand may cut other tiles."""
    trainer, _ = probed(
        monkeypatch, model_paths["internvl"], tmp_path, image_dataset(layouts=((4,),)), fated({}), **ENGINE
    )
    trainer.processing_class.image_processor.max_patches = 1
    with pytest.raises(ValueError, match=r"vLLM made \d+ tokens of a prompt with images"):
        trainer.train()
    assert math.isclose(trainer.state.global_step, 0)
