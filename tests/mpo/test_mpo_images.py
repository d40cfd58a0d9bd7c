# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Image pairs: each prompt and image once, equal to twice, and rows that stock TRL trips over."""

import copy
import gc
import weakref

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from PIL import Image as PILImage
from transformers import GotOcr2ImageProcessor
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

from tests.support.mpo_tiny import (
    TILE,
    TOKENS_PER_TILE,
    image_pairs,
    image_rows,
    logged,
    make_image,
    make_moe_model,
    make_processor,
    make_vlm,
    moved_copy,
    text_pairs,
    training_args,
)
from trl_r1v2.mpo.collator import MPOVisionDataCollator
from trl_r1v2.mpo.mpo_config import MPOConfig
from trl_r1v2.mpo.mpo_trainer import MPOTrainer


STOCK = {"preference_weight": 1.0, "quality_weight": 0.0, "generation_weight": 0.0}
MIXED = [1, 2, 0, 1, 3, 0, 1, 1, 2, 1, 0, 1]  # images a row: none, one, several


@pytest.fixture(scope="module")
def processor():
    return make_processor()


@pytest.fixture(scope="module")
def policy(processor):
    return make_vlm(processor)


@pytest.fixture(scope="module")
def reference(policy):
    return moved_copy(policy)


def make_trainer(cls, model, ref, args, processor, rows=None, **kwargs):
    ref = copy.deepcopy(ref) if isinstance(ref, torch.nn.Module) else ref
    rows = image_pairs(MIXED) if rows is None else rows
    return cls(copy.deepcopy(model), ref, args, train_dataset=rows, processing_class=processor, **kwargs)


class TowerWatch:
    """Counts the tiles that go through a vision tower, call by call."""

    def __init__(self, trainer):
        self.calls = {"policy": [], "reference": []}
        self._watch("policy", trainer.model)
        if trainer.ref_model is not None:
            self._watch("reference", trainer.ref_model)

    def _watch(self, name, model):
        patches = next(m for m in model.modules() if type(m).__name__ == "InternVLVisionPatchEmbeddings")
        patches.register_forward_pre_hook(lambda module, args: self.calls[name].append(len(args[0])))

    @property
    def num_tiles(self):
        return {name: sum(calls) for name, calls in self.calls.items()}


def close_runs(first, second, atol=1e-6):
    for key in ("loss", "mpo/generation_loss", "mpo/reward_shift"):
        assert logged(first, key) == pytest.approx(logged(second, key), rel=1e-5, abs=1e-6), key
    for (name, mine), other in zip(first.model.named_parameters(), second.model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=atol, msg=name)


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_preference_alone_is_stock_dpo(gradient_checkpointing, processor, policy, reference, tmp_path):
    """To the bit without sharing; with it, up to rounding."""
    common = training_args(tmp_path, max_steps=4, gradient_checkpointing=gradient_checkpointing)
    runs = {}
    for name, cls, args in (
        ("stock", DPOTrainer, DPOConfig(**common)),
        ("mpo", MPOTrainer, MPOConfig(**common, **STOCK)),
        ("shared", MPOTrainer, MPOConfig(**common, **STOCK, share_prompts=True)),
    ):
        runs[name] = make_trainer(cls, policy, reference, args, processor)
        runs[name].train()
    assert logged(runs["mpo"], "loss") == logged(runs["stock"], "loss") and len(logged(runs["mpo"], "loss")) == 4
    for mine, other in zip(runs["mpo"].model.parameters(), runs["stock"].model.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert logged(runs["shared"], "loss") == pytest.approx(logged(runs["stock"], "loss"), rel=1e-5)
    for mine, other in zip(runs["shared"].model.parameters(), runs["stock"].model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize("lora", [None, r".*language_model.*\.(q_proj|v_proj)", r".*\.(q_proj|v_proj)"])
def test_each_prompt_and_its_images_pass_once_in_either_pass(
    lora, gradient_checkpointing, processor, policy, reference, tmp_path
):
    """
    Policy and reference, rows without images among others; with LoRA the policy without adapter is the reference.
    """
    common = training_args(tmp_path, max_steps=4, gradient_accumulation_steps=2)
    common |= {"gradient_checkpointing": gradient_checkpointing}
    options = {}
    if lora is not None:
        config = LoraConfig(r=4, target_modules=lora, init_lora_weights=False, task_type="CAUSAL_LM", lora_dropout=0.0)
        options["peft_config"] = config
    runs, tiles = [], []
    for share_prompts in (False, True):
        args = MPOConfig(**common, share_prompts=share_prompts)
        torch.manual_seed(0)
        runs.append(make_trainer(MPOTrainer, policy, None if lora else reference, args, processor, **options))
        watch = TowerWatch(runs[-1])
        runs[-1].train()
        tiles.append(sum(watch.num_tiles.values()))
    close_runs(runs[1], runs[0], atol=2e-6)
    # Checkpointing recomputes some of the tower.
    assert tiles[1] == tiles[0] // 2 > 0


def test_rejected_responses_with_other_images_share_nothing(processor, policy, reference, tmp_path):
    rows = image_pairs([1, 1])
    losses = []
    for share_prompts in (False, True):
        args = MPOConfig(**training_args(tmp_path), share_prompts=share_prompts)
        trainer = make_trainer(MPOTrainer, policy, reference, args, processor, rows)
        batch = trainer.data_collator([rows[0], rows[1]])
        batch["pixel_values"][-1] += 1
        losses.append(trainer.compute_loss(trainer.model, batch).item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_a_router_with_an_auxiliary_loss_is_refused(processor, tmp_path):
    model = make_moe_model(processor.tokenizer)
    with pytest.raises(ValueError, match="auxiliary loss"):
        make_trainer(
            MPOTrainer,
            model,
            moved_copy(model),
            MPOConfig(**training_args(tmp_path), share_prompts=True),
            processor.tokenizer,
            text_pairs(6),
        )


def test_model_works_as_usual_outside_the_loss(processor, policy, reference, tmp_path):
    trainer = make_trainer(MPOTrainer, policy, reference, MPOConfig(**training_args(tmp_path)), processor)
    inputs = processor(images=[[make_image(1)]], text=["<user> <image> w1 <assistant>"], return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(trainer.model(**inputs).logits, policy(**inputs).logits)


def test_custom_collator_of_trls_layout_is_served(processor, policy, reference, tmp_path):
    rows = image_pairs([1, 2, 1, 1, 2, 1])
    args = MPOConfig(**training_args(tmp_path))
    theirs = DataCollatorForVisionPreference(processor, max_length=1024)
    ours = make_trainer(MPOTrainer, policy, reference, args, processor, rows)
    custom = make_trainer(MPOTrainer, policy, reference, args, processor, rows, data_collator=theirs)
    ours.train()
    custom.train()
    assert custom.data_collator is theirs
    assert logged(custom, "loss") == logged(ours, "loss")
    assert not logged(custom, "mpo/truncated_responses"), "unknown to TRL's collator, so not claimed"


def test_text_only_data_on_a_vlm(processor, policy, reference, tmp_path):
    rows = text_pairs(12)
    common = training_args(tmp_path)
    dpo = make_trainer(DPOTrainer, policy, reference, DPOConfig(**common), processor, rows)
    mpo = make_trainer(MPOTrainer, policy, reference, MPOConfig(**common, **STOCK), processor, rows)
    dpo.train()
    mpo.train()
    assert logged(mpo, "loss") == logged(dpo, "loss")


def test_streamed_rows(processor, policy, reference, tmp_path):
    rows = image_pairs(MIXED).to_iterable_dataset()
    common = training_args(tmp_path)
    dpo = make_trainer(DPOTrainer, policy, reference, DPOConfig(**common), processor, rows)
    mpo = make_trainer(MPOTrainer, policy, reference, MPOConfig(**common, **STOCK), processor, rows)
    dpo.train()
    mpo.train()
    assert logged(mpo, "loss") == logged(dpo, "loss") and len(logged(mpo, "loss")) == 3


def test_compute_metrics_sees_logits_and_the_same_loss(processor, policy, reference, tmp_path):
    """TRL runs a second forward for `compute_metrics`; it must not enter the loss."""
    shapes = []

    def compute_metrics(prediction):
        shapes.append(prediction.predictions.shape)
        return {"seen": len(prediction.predictions)}

    rows = image_pairs([1, 2, 1, 1])
    args = MPOConfig(**training_args(tmp_path), per_device_eval_batch_size=2)
    plain = make_trainer(MPOTrainer, policy, reference, args, processor, eval_dataset=rows)
    trainer = make_trainer(
        MPOTrainer, policy, reference, args, processor, eval_dataset=rows, compute_metrics=compute_metrics
    )
    with_metrics = trainer.evaluate()
    assert with_metrics["eval_seen"] == 8 and shapes[0][-1] == len(processor.tokenizer)
    assert with_metrics["eval_loss"] == plain.evaluate()["eval_loss"]


# Collator


def test_collator_equals_trls(processor):
    rows = image_rows([1, 2, 3])
    theirs = DataCollatorForVisionPreference(processor)(copy.deepcopy(rows))
    ours = MPOVisionDataCollator(processor)(copy.deepcopy(rows))
    assert set(ours) == {*theirs, "truncated"}
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name
    assert not ours["truncated"].any() and ours["truncated"].shape == (6,)


def test_collator_processes_every_image_once(processor, monkeypatch):
    seen = []
    preprocess = GotOcr2ImageProcessor._preprocess

    def spy(self, images, *args, **kwargs):
        seen.append(len(images))
        return preprocess(self, images, *args, **kwargs)

    monkeypatch.setattr(GotOcr2ImageProcessor, "_preprocess", spy)
    MPOVisionDataCollator(processor)(image_rows([1, 2, 0]))
    assert seen == [3]


def test_rows_without_images_share_a_batch_with_others(processor):
    rows = image_rows([2, 0, 0])
    rows[2]["images"] = None
    batch = MPOVisionDataCollator(processor)(rows)
    image_tokens = (batch["input_ids"] == processor.image_token_id).sum(dim=1)
    assert image_tokens[0] == image_tokens[3] > 0
    assert image_tokens[[1, 2, 4, 5]].tolist() == [0, 0, 0, 0]
    assert image_tokens.sum() == len(batch["pixel_values"]) * TOKENS_PER_TILE
    text_only = MPOVisionDataCollator(processor)(image_rows([0, 0]))
    assert "pixel_values" not in text_only


def test_single_image_column(processor):
    rows = image_rows([1, 0])
    for row in rows:
        images = row.pop("images")
        row["image"] = images[0] if images else None
    batch = MPOVisionDataCollator(processor)(rows)
    expected = MPOVisionDataCollator(processor)(image_rows([1, 0]))
    for name, value in expected.items():
        assert torch.equal(batch[name], value), name


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_images_become_rgb(mode, processor):
    rows = image_rows([1])
    rows[0]["images"] = [make_image(3, mode=mode)]
    expected = image_rows([1])
    expected[0]["images"] = [make_image(3, mode=mode).convert("RGB")]
    batch, in_rgb = (MPOVisionDataCollator(processor)(r) for r in (rows, expected))
    assert batch["pixel_values"].shape[1:] == (3, TILE, TILE)
    assert torch.equal(batch["pixel_values"], in_rgb["pixel_values"])


def test_broken_image_is_named(processor, tmp_path):
    make_image(1, 64, 64).save(tmp_path / "whole.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "whole.png").read_bytes()[:400])
    rows = image_rows([2])
    rows[0]["images"][1] = PILImage.open(tmp_path / "broken.png")
    with pytest.raises(ValueError, match="image 1 of the row with prompt .* cannot be read"):
        MPOVisionDataCollator(processor)(rows)


def test_truncation_shortens_responses_and_counts_them(processor):
    rows = image_rows([1, 1])
    whole = MPOVisionDataCollator(processor)(copy.deepcopy(rows))
    prompts = [
        int((mask * (1 - response)).sum())
        for mask, response in zip(whole["attention_mask"], whole["completion_mask"], strict=True)
    ]
    limit = max(prompts) + 2
    batch = MPOVisionDataCollator(processor, max_length=limit)(rows)
    assert batch["input_ids"].shape[1] == limit
    lengths = whole["attention_mask"].sum(dim=1)
    assert batch["truncated"].tolist() == (lengths > limit).tolist()
    assert 0 < batch["truncated"].sum() <= 4
    tokens = (batch["input_ids"] == processor.image_token_id).sum()
    assert tokens == (whole["input_ids"] == processor.image_token_id).sum()
    assert (batch["completion_mask"].sum(dim=1) > 0).all()


def test_prompt_without_room_for_a_response_is_refused(processor):
    rows = image_rows([1, 3])
    whole = MPOVisionDataCollator(processor)(copy.deepcopy(rows))
    prompt = int((whole["attention_mask"][1] * (1 - whole["completion_mask"][1])).sum())
    with pytest.raises(ValueError, match=f"takes {prompt} tokens with its images .* `max_length={prompt}`"):
        MPOVisionDataCollator(processor, max_length=prompt)(rows)


def test_truncated_share_is_logged(processor, policy, reference, tmp_path):
    rows = image_pairs([1] * 8)
    args = MPOConfig(**training_args(tmp_path, max_steps=1, per_device_train_batch_size=8), max_length=24)
    trainer = make_trainer(MPOTrainer, policy, reference, args, processor, rows)
    trainer.train()
    batch = trainer.data_collator([rows[i] for i in range(8)])
    share = batch["truncated"].float().mean().item()
    assert 0 < share < 1 and logged(trainer, "mpo/truncated_responses") == [pytest.approx(share)]


# Reference log-probabilities ahead of training


def test_precomputed_reference_gives_the_same_run(processor, policy, reference, tmp_path):
    common = training_args(tmp_path, max_steps=4)
    online = make_trainer(MPOTrainer, policy, reference, MPOConfig(**common), processor)
    args = MPOConfig(**common, precompute_ref_log_probs=True, precompute_ref_batch_size=3, share_prompts=True)
    rows = image_pairs(MIXED)
    ahead = make_trainer(
        MPOTrainer, policy, reference, args, processor, rows, eval_dataset=image_pairs([1, 0], seed=4)
    )
    assert args.precompute_ref_log_probs and ahead.args.precompute_ref_log_probs
    watch = TowerWatch(ahead)
    online.train()
    ahead.train()
    close_runs(ahead, online)
    assert watch.calls["reference"] == []
    assert ahead.evaluate()["eval_mpo/chosen_reward"] != 0.0


def test_precomputing_loads_the_reference_and_lets_it_go(processor, policy, tmp_path, monkeypatch):
    policy.save_pretrained(tmp_path / "policy")
    processor.save_pretrained(tmp_path / "policy")
    loaded = []
    compute = MPOTrainer.compute_ref_log_probs

    def spy(self, model, inputs):
        loaded.extend([weakref.ref(model), weakref.ref(model.model.vision_tower)])
        return compute(self, model, inputs)

    monkeypatch.setattr(MPOTrainer, "compute_ref_log_probs", spy)
    args = MPOConfig(**training_args(tmp_path / "run"), precompute_ref_log_probs=True)
    trainer = MPOTrainer(str(tmp_path / "policy"), args=args, train_dataset=image_pairs([1] * 6))
    assert trainer.ref_model is None and loaded[0]() is not trainer.model
    gc.collect()
    assert [reference() for reference in loaded[:2]] == [None, None], "the reference must not stay in memory"
    trainer.train()
    assert logged(trainer, "mpo/chosen_reward")[0] == pytest.approx(0.0, abs=1e-5)
    assert len(logged(trainer, "loss")) == 3


def test_precomputed_values_belong_to_max_length_and_tiles(processor, policy, reference, tmp_path):
    image_pairs([1] * 4).save_to_disk(str(tmp_path / "rows"))
    fewer_tiles = make_processor()
    fewer_tiles.image_processor.max_patches = 1
    values = []
    for used, max_length in ((processor, 64), (processor, 24), (fewer_tiles, 64), (processor, 64)):
        args = MPOConfig(**training_args(tmp_path), precompute_ref_log_probs=True, max_length=max_length)
        rows = Dataset.load_from_disk(str(tmp_path / "rows"))
        trainer = make_trainer(MPOTrainer, policy, reference, args, used, rows)
        values.append(list(trainer.train_dataset["ref_chosen_logps"]))
    assert values[0] == values[3]
    assert values[0] != values[1] and values[0] != values[2]
