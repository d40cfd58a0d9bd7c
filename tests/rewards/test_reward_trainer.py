# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""VisionRewardTrainer against the formula in float64, its checkpoints against RewardModel, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.support.reward_tiny import (
    PlainReward,
    build_qwen_vl,
    build_reward_model,
    conversation,
    is_close,
    logged,
    pair,
    pairs,
    picture,
    settings,
    train,
)
from trl_r1v2.rewards import (
    RewardModel,
    VisionRewardConfig,
    VisionRewardTrainer,
    load_trainable,
)
from trl_r1v2.rewards.trainable_model import set_reward_trainable


MIXED = [1, 0, 2, 1]


@pytest.fixture(scope="module")
def qwen_path(tmp_path_factory):
    return build_qwen_vl(tmp_path_factory.mktemp("qwen_vl"))


@pytest.fixture(scope="module")
def reward_path(internvl_path, tmp_path_factory):
    return build_reward_model(internvl_path, tmp_path_factory.mktemp("reward_model"))


def double_model(path):
    return load_trainable(path, dtype=torch.float64).double()


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("family", ["internvl", "qwen"])
def test_loss_gradients_and_metrics_equal_the_formula(family, share, internvl_path, qwen_path, tmp_path):
    path = internvl_path if family == "internvl" else qwen_path
    rows = pairs(MIXED, margins=[0.0, 0.5, -0.25, 1.0])
    model = double_model(path)
    torch.nn.init.normal_(model.value_head.summary.weight, generator=torch.Generator().manual_seed(5))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = PlainReward(path, *(before[f"value_head.summary.{name}"] for name in ("weight", "bias")))
    trainer = train(
        tmp_path, model, rows, share_prompts=share, center_rewards_coefficient=0.05, trainable="llm+adapter"
    )
    loss, chosen, rejected = plain.loss(list(rows), center=0.05)
    loss.backward()

    assert is_close(logged(trainer, "loss"), [loss.item()], 1e-6)
    gaps = [a - b for a, b in zip(chosen, rejected, strict=True)]
    expected = {
        "accuracy": sum(gap > 0 for gap in gaps) / 4,
        "margin": sum(gaps) / 4,
        "min_reward": min(chosen + rejected),
        "mean_reward": sum(chosen + rejected) / 8,
        "max_reward": max(chosen + rejected),
    }
    for name, value in expected.items():
        assert is_close(logged(trainer, name), [value], 1e-6), name
    gradients = plain.gradients()
    after = trainer.model.state_dict()
    for name, value in before.items():
        step = value - after[name]
        if name in trainer.activation_report.trained_names:
            # The norms round to float32, each pass in its own way (and so does transformers before 5.13 in Qwen).
            tolerance = {"rtol": 1e-5, "atol": 1e-6 if share else 1e-7}
            torch.testing.assert_close(step, gradients[name], **tolerance)
            assert name == "value_head.summary.bias" or step.abs().max() > 0, name
        else:
            assert not step.any(), name
    frozen = set(before) - set(trainer.activation_report.trained_names)
    assert all("vision_tower" in name or "visual" in name or name == "lm_head.weight" for name in frozen)


def test_text_only_pairs_equal_the_formula_and_micro_batches_add_up(reward_path, tmp_path):
    rows = pairs([0, 0, 0, 0]).remove_columns("images")
    plain = PlainReward.from_reward_folder(reward_path)
    loss, *_ = plain.loss([{**row, "images": []} for row in rows])
    loss.backward()
    model = double_model(reward_path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = {"trainable": "llm", "per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    trainer = train(tmp_path, model, rows, **options)
    assert is_close(logged(trainer, "loss"), [loss.item()], 1e-6)
    for name, gradient in plain.gradients().items():
        if "language_model" in name or "value_head" in name:
            step = before[name] - trainer.model.state_dict()[name]
            torch.testing.assert_close(step, gradient, rtol=1e-7, atol=1e-9, msg=name)


def test_image_preference_equals_the_formula(reward_path, tmp_path):
    """Rows with one image are each other's partners; one with two and one with none have no partner."""
    rows = pairs([1, 0, 2, 1])
    plain = PlainReward.from_reward_folder(reward_path)
    loss, *_ = plain.loss(list(rows))
    image_loss = plain.image_loss(list(rows), {0: 3, 3: 0})
    (loss + 0.7 * image_loss).backward()
    model = double_model(reward_path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = train(tmp_path, model, rows, image_preference_weight=0.7)
    assert is_close(logged(trainer, "loss"), [(loss + 0.7 * image_loss).item()], 1e-6)
    gradients = plain.gradients()
    for name in trainer.activation_report.trained_names:
        step = before[name] - trainer.model.state_dict()[name]
        torch.testing.assert_close(step, gradients[name], rtol=1e-5, atol=1e-6, msg=name)  # norms are float32

    gaps = []
    for row, other in ((0, 3), (3, 0)):
        messages = [conversation({**rows[row], "images": rows[shown]["images"]}, "chosen") for shown in (row, other)]
        with torch.no_grad():
            own, elsewhere = map(PlainReward.from_reward_folder(reward_path).score, messages)
        gaps.append((own - elsewhere).item())
    assert is_close(logged(trainer, "image_margin"), [sum(gaps) / 2], 1e-6)
    assert logged(trainer, "image_accuracy") == [sum(gap > 0 for gap in gaps) / 2]


def test_a_batch_without_partners_has_the_loss_of_the_pairs_alone(reward_path, tmp_path):
    rows = pairs([1, 0, 2])
    runs = [train(tmp_path, double_model(reward_path), rows, image_preference_weight=weight) for weight in (0.0, 1.0)]
    assert logged(runs[0], "loss") == logged(runs[1], "loss")
    assert not logged(runs[1], "image_accuracy")
    for mine, other in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)


def test_what_is_saved_scores_as_the_trained_model(internvl_path, tmp_path):
    rows = pairs(MIXED)
    trainer = train(
        tmp_path, internvl_path, rows, learning_rate=0.05, save_strategy="steps", save_steps=1, max_steps=2
    )
    trainer.save_model()
    conversations = [conversation(row, side) for row in rows for side in ("chosen", "rejected")]
    expected = [PlainReward.from_reward_folder(str(tmp_path)).score(messages).item() for messages in conversations]
    assert len({round(score, 4) for score in expected}) == 8
    trained = RewardModel(trainer.model, trainer.processing_class).score(conversations)
    assert trained == pytest.approx(expected, abs=1e-4)
    for folder in (tmp_path, tmp_path / "checkpoint-2"):
        assert RewardModel.from_pretrained(str(folder)).score(conversations) == trained, folder
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["InternVLForConditionalGeneration"]
    whole = AutoModelForImageTextToText.from_pretrained(tmp_path)
    start = AutoModelForImageTextToText.from_pretrained(internvl_path)
    assert torch.equal(whole.lm_head.weight, start.lm_head.weight), "the folder is still a complete checkpoint"


def test_the_image_decides_after_training_on_images(internvl_path, tmp_path):
    """Two images, the same two answers: the right one depends on the image alone."""
    light, dark = picture(1), picture(2).point(lambda value: value // 6)
    base = pair(1, 1)
    answers = {"one": [{"role": "assistant", "content": "one"}], "two": [{"role": "assistant", "content": "two"}]}
    rows = [
        {**base, "chosen": answers[right], "rejected": answers[wrong], "images": [image]}
        for image, right, wrong in ((light, "one", "two"), (dark, "two", "one"))
    ]
    dataset = Dataset.from_list(rows * 4, features=pairs([1]).features)
    options = {"optim": "adamw_torch", "learning_rate": 1e-2, "max_steps": 40}
    trainer = train(tmp_path, internvl_path, dataset, **options)
    assert logged(trainer, "accuracy")[-1] == 1.0
    model = RewardModel(trainer.model, trainer.processing_class)
    for row, other in (rows, rows[::-1]):
        right, wrong = model.score([conversation(row, side) for side in ("chosen", "rejected")])
        swapped = {**row, "images": other["images"]}
        right_elsewhere, wrong_elsewhere = model.score([conversation(swapped, s) for s in ("chosen", "rejected")])
        assert right > wrong and right_elsewhere < wrong_elsewhere


def test_gradient_checkpointing_changes_nothing(reward_path, tmp_path):
    runs = [
        train(tmp_path, double_model(reward_path), pairs(MIXED), trainable="adapter", gradient_checkpointing=on)
        for on in (False, True)
    ]
    for mine, other in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("trainable", "segments"),
    [
        ("adapter", {"multi_modal_projector"}),
        ("llm", {"language_model"}),
        ("llm+adapter", {"language_model", "multi_modal_projector"}),
        ("all", {"language_model", "multi_modal_projector", "vision_tower"}),
    ],
)
def test_exactly_the_chosen_parts_train(trainable, segments, reward_path, tmp_path):
    trainer = train(tmp_path, reward_path, pairs(MIXED), trainable=trainable, optim="adamw_torch", learning_rate=1e-3)
    start = load_trainable(reward_path).state_dict()
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, start[name])}
    # The bias cancels out of s⁺ - s⁻ up to rounding, so it may or may not move.
    expected = {name for name in start if segments & set(name.split("."))} | {"value_head.summary.weight"}
    assert changed | {"value_head.summary.bias"} == expected | {"value_head.summary.bias"}


def test_resumed_run_is_the_uninterrupted_one(reward_path, tmp_path):
    rows = pairs([1, 0, 2, 1, 1, 0, 1, 1])
    options = {
        "optim": "adamw_torch", "learning_rate": 1e-3, "max_steps": 4, "save_strategy": "steps", "save_steps": 2,
        "per_device_train_batch_size": 2,
    }  # fmt: skip
    straight = train(tmp_path / "straight", reward_path, rows, **options)
    resumed = VisionRewardTrainer(
        reward_path, VisionRewardConfig(**settings(tmp_path / "resumed", **options)), train_dataset=rows
    )
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-2"))
    assert logged(resumed, "loss") == logged(straight, "loss") and len(logged(straight, "loss")) == 4
    for (name, mine), other in zip(
        resumed.model.state_dict().items(), straight.model.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, other), name
    assert not torch.equal(
        resumed.model.value_head.summary.weight, load_trainable(reward_path).value_head.summary.weight
    )


def test_checkpoint_without_head_is_not_resumed(reward_path, tmp_path):
    train(tmp_path, reward_path, pairs(MIXED), save_strategy="steps", save_steps=1)
    shutil.copytree(tmp_path / "checkpoint-1", tmp_path / "broken" / "checkpoint-1")
    (tmp_path / "broken" / "checkpoint-1" / "value_head.safetensors").unlink()
    trainer = VisionRewardTrainer(
        reward_path, VisionRewardConfig(**settings(tmp_path / "new", max_steps=2)), train_dataset=pairs(MIXED)
    )
    with pytest.raises(ValueError, match="has no value_head.safetensors"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "broken" / "checkpoint-1"))


def test_best_model_comes_back_with_its_head(reward_path, tmp_path):
    rows = pairs(MIXED)
    args = VisionRewardConfig(
        **settings(tmp_path, save_strategy="steps", save_steps=1, max_steps=3),
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_mean_reward",
    )
    trainer = VisionRewardTrainer(reward_path, args, train_dataset=rows, eval_dataset={"a": rows}["a"])
    trainer.train()
    best = Path(trainer.state.best_model_checkpoint)
    head = load_file(best / "value_head.safetensors")["language_model.score.weight"]
    assert torch.equal(trainer.model.value_head.summary.weight, head)
    others = [
        load_file(tmp_path / f"checkpoint-{step}" / "value_head.safetensors")["language_model.score.weight"]
        for step in (1, 2, 3)
    ]
    assert sum(torch.equal(head, other) for other in others) == 1


def test_a_fresh_head_depends_on_the_seed_alone(internvl_path, tmp_path):
    heads = [
        VisionRewardTrainer(
            internvl_path, VisionRewardConfig(**settings(tmp_path, seed=seed)), train_dataset=pairs(MIXED)
        ).model.value_head.summary.weight
        for seed in (1, 1, 2)
    ]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    assert heads[0].dtype == torch.float32


def test_lora(reward_path, tmp_path):
    from peft import LoraConfig

    rows = pairs(MIXED)
    peft_config = LoraConfig(
        r=4, target_modules=r".*language_model.*\.(q|v)_proj", modules_to_save=["multi_modal_projector"],
        task_type="CAUSAL_LM",
    )  # fmt: skip
    options = {
        "optim": "adamw_torch", "learning_rate": 1e-2, "max_steps": 4, "save_strategy": "steps", "save_steps": 2
    }  # fmt: skip
    args = VisionRewardConfig(**settings(tmp_path, **options))
    trainer = VisionRewardTrainer(reward_path, args, train_dataset=rows, peft_config=peft_config)
    trained = trainer.activation_report.trained_names
    assert all("lora" in name or "modules_to_save" in name for name in trained)
    assert any("value_head" in name for name in trained) and any("projector" in name for name in trained)
    trainer.train()
    trainer.save_model()
    trainer.model.eval()
    batch = trainer.data_collator(list(rows))
    with torch.no_grad():
        expected = trainer.model(**batch).logits.squeeze(-1).tolist()
        start = load_trainable(reward_path).eval()(**batch).logits.squeeze(-1).tolist()
    assert not is_close(expected, start, 1e-2)
    conversations = [conversation(row, side) for side in ("chosen", "rejected") for row in rows]
    assert RewardModel.from_pretrained(str(tmp_path)).score(conversations) == pytest.approx(expected, abs=1e-4)

    resumed = VisionRewardTrainer(reward_path, args, train_dataset=rows, peft_config=peft_config)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert logged(resumed, "loss") == logged(trainer, "loss") and len(logged(resumed, "loss")) == 4


def test_lora_outside_the_chosen_parts_rests_or_is_refused(reward_path):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(load_trainable(reward_path), LoraConfig(target_modules=["q_proj"]))
    report = set_reward_trainable(model, "llm+adapter")
    assert report.trained["llm"] and not report.trained["vision"]
    with pytest.raises(ValueError, match="makes nothing trainable in adapter"):
        set_reward_trainable(model, "adapter")


def test_models_and_settings_that_do_not_fit_are_refused(internvl_path, text_model_path, reward_path, tmp_path):
    rows = pairs(MIXED)
    args = VisionRewardConfig(**settings(tmp_path))
    with pytest.raises(ValueError, match="without a scalar head. Pass its folder"):
        VisionRewardTrainer(AutoModelForImageTextToText.from_pretrained(internvl_path), args, train_dataset=rows)
    with pytest.raises(ValueError, match="train a text-only reward model with `trl.RewardTrainer`"):
        VisionRewardTrainer(text_model_path, args, train_dataset=rows)
    tokenizer = AutoProcessor.from_pretrained(internvl_path).tokenizer
    with pytest.raises(TypeError, match="needs its processor"):
        VisionRewardTrainer(reward_path, args, train_dataset=rows, processing_class=tokenizer)
    with pytest.raises(ValueError, match="set `image_preference_weight=0`"):
        swapping = VisionRewardConfig(**settings(tmp_path), image_preference_weight=1)
        VisionRewardTrainer(reward_path, swapping, train_dataset=rows, data_collator=list)
    with pytest.raises(ValueError, match="trainable is 'vision\\+head'"):
        VisionRewardConfig(**settings(tmp_path), trainable="vision+head")
    with pytest.raises(ValueError, match="image_preference_weight=-1 must be finite"):
        VisionRewardConfig(**settings(tmp_path), image_preference_weight=-1)
    with pytest.raises(ValueError, match="chat_template_path"):
        VisionRewardConfig(**settings(tmp_path), chat_template_path="other")
    with pytest.raises(ValueError, match="eos_token"):
        VisionRewardConfig(**settings(tmp_path), eos_token="</s>")
