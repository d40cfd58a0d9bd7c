# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""One optimizer step of a stock TRL trainer changes the chosen components' parameters, all of them and no other."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, Qwen2_5_VLForConditionalGeneration
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from tests.support import tiny_parts
from tests.support.tiny_qwen_vl import build_qwen_vl
from trl_r1v2.vlm.activation import (
    COMPONENTS,
    TrainableArguments,
    component_of,
    parse_trainable,
    refuse_frozen_adapter,
    set_trainable,
)
from trl_r1v2.vlm.compose import compose_vlm


PRESETS = ["adapter", "llm+adapter", "adapter+vision", "vision+llm", "vision", "llm", "all"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("activation")
    tiny_parts.save_vision(root / "vision")
    tiny_parts.save_llm(root / "llm")
    compose_vlm(str(root / "vision"), str(root / "llm"), str(root / "out"), max_patches=1, progress=False)
    return root / "out"


def pictures(count: int) -> list[Image.Image]:
    values = torch.randint(0, 256, (count, 28, 28, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return [Image.fromarray(value.numpy()) for value in values]


def sft_trainer(model, folder, output_dir, **settings):
    rows = [
        {
            "images": [image],
            "prompt": [{"role": "user", "content": "Say it."}],
            "completion": [{"role": "assistant", "content": answer}],
        }
        for image, answer in zip(pictures(2), ("a cat", "no dog here"), strict=True)
    ]
    config = SFTConfig(
        output_dir=str(output_dir), max_steps=1, per_device_train_batch_size=2, learning_rate=1e-2, report_to="none",
        save_strategy="no", max_length=None, use_cpu=True, bf16=False, lr_scheduler_type="constant", **settings,
    )  # fmt: skip
    return SFTTrainer(
        model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoProcessor.from_pretrained(folder),
    )


def changed_by_training(trainer) -> set[str]:
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    return {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize("trainable", PRESETS)
def test_sft_step_changes_exactly_the_chosen_parameters(folder, tmp_path, trainable, gradient_checkpointing):
    model = AutoModelForImageTextToText.from_pretrained(folder)
    trainer = sft_trainer(model, folder, tmp_path, gradient_checkpointing=gradient_checkpointing)
    report = set_trainable(trainer.model, trainable)
    roots = {
        "vision": "model.vision_tower.",
        "adapter": "model.multi_modal_projector.",
        "llm": ("model.lang", "lm_head"),
    }
    wanted = COMPONENTS if trainable == "all" else trainable.split("+")
    expected = {n for n, _ in model.named_parameters() if any(n.startswith(roots[part]) for part in wanted)}
    assert changed_by_training(trainer) == expected == set(report.trained_names)
    sizes = {part: sum(p.numel() for n, p in model.named_parameters() if n.startswith(roots[part])) for part in roots}
    assert report.trained == {part: sizes[part] * (part in wanted) for part in COMPONENTS}
    assert report.frozen == {part: sizes[part] * (part not in wanted) for part in COMPONENTS}


@pytest.mark.parametrize("trainable", ["adapter", "llm+adapter"])
def test_grpo_step_changes_exactly_the_chosen_parameters(folder, tmp_path, trainable):
    def varied_reward(completions, **kwargs):
        return [float(len(set(c[0]["content"]))) for c in completions]

    rows = [{"prompt": [{"role": "user", "content": "Say it."}], "image": image} for image in pictures(2)]
    config = GRPOConfig(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=4, num_generations=4,
        max_completion_length=8, learning_rate=1e-2, report_to="none", save_strategy="no", use_cpu=True, bf16=False,
        seed=3, lr_scheduler_type="constant",
    )  # fmt: skip
    trainer = GRPOTrainer(
        AutoModelForImageTextToText.from_pretrained(folder), reward_funcs=varied_reward, args=config,
        train_dataset=Dataset.from_list(rows), processing_class=AutoProcessor.from_pretrained(folder),
    )  # fmt: skip
    report = set_trainable(trainer.model, trainable)
    assert changed_by_training(trainer) == set(report.trained_names)
    assert {component_of(name) for name in report.trained_names} == set(trainable.split("+"))


LORA = dict(r=2, target_modules=r".*language_model.*\.(q_proj|v_proj)", lora_dropout=0.0, init_lora_weights=False)


def test_lora_on_the_llm_and_a_fully_trained_adapter(folder, tmp_path):
    """`modules_to_save` holds the adapter: it trains, is saved by PEFT, and comes back."""
    config = LoraConfig(**LORA, modules_to_save=["multi_modal_projector"])
    model = get_peft_model(AutoModelForImageTextToText.from_pretrained(folder), config)
    trainer = sft_trainer(model, folder, tmp_path / "run")
    report = set_trainable(trainer.model, "llm+adapter")
    assert report.trained["vision"] == 0
    changed = changed_by_training(trainer)
    assert changed == set(report.trained_names)
    copies = {n for n in changed if "multi_modal_projector.modules_to_save.default." in n}
    assert len(copies) == 6 and changed - copies == {n for n, _ in model.named_parameters() if ".lora_" in n}

    trainer.save_model(str(tmp_path / "saved"))
    fresh = AutoModelForImageTextToText.from_pretrained(folder)
    from peft import PeftModel

    loaded = dict(PeftModel.from_pretrained(fresh, str(tmp_path / "saved")).named_parameters())
    for name, parameter in trainer.model.named_parameters():
        if name in changed:
            assert torch.equal(loaded[name], parameter)


def test_lora_of_an_unchosen_component_rests(folder, tmp_path):
    config = LoraConfig(
        r=2, target_modules=["q_proj"], init_lora_weights=False, modules_to_save=["multi_modal_projector"]
    )
    model = get_peft_model(AutoModelForImageTextToText.from_pretrained(folder), config)
    trainer = sft_trainer(model, folder, tmp_path)
    set_trainable(trainer.model, "adapter+vision")
    changed = changed_by_training(trainer)
    assert {component_of(name) for name in changed} == {"adapter", "vision"}
    assert all(".lora_" in name for name in changed if component_of(name) == "vision")


def test_adapter_outside_peft_is_refused_unless_asked_for(folder, tmp_path):
    model = get_peft_model(AutoModelForImageTextToText.from_pretrained(folder), LoraConfig(**LORA))
    with pytest.raises(ValueError, match=r"modules_to_save=\['multi_modal_projector'\]"):
        set_trainable(model, "llm+adapter")
    trainer = sft_trainer(model, folder, tmp_path)
    report = set_trainable(trainer.model, "llm+adapter", unsaved_ok=True)
    changed = changed_by_training(trainer)
    assert changed == set(report.trained_names)
    assert {component_of(name) for name in changed} == {"adapter", "llm"}
    assert all(".lora_" in name for name in changed if component_of(name) == "llm")


def test_weights_of_resting_peft_adapters_stay_frozen(folder):
    both = dict(LORA, modules_to_save=["multi_modal_projector"])
    model = get_peft_model(AutoModelForImageTextToText.from_pretrained(folder), LoraConfig(**both))
    model.add_adapter("other", LoraConfig(**both))
    names = set_trainable(model, "llm+adapter").trained_names
    assert names and all(".default." in name for name in names)

    model = get_peft_model(AutoModelForImageTextToText.from_pretrained(folder), LoraConfig(**LORA))
    model.add_adapter("other", LoraConfig(**both))
    names = set_trainable(model, "llm+adapter", unsaved_ok=True).trained_names
    adapter = [name for name in names if component_of(name) == "adapter"]
    assert len(adapter) == 6 and all(".original_module." in name for name in adapter)
    assert all(".default." in name for name in names if component_of(name) == "llm")


def test_table_and_order(folder):
    report = set_trainable(AutoModelForImageTextToText.from_pretrained(folder), "llm+adapter")
    assert report.trainable == "adapter+llm"
    lines = str(report).splitlines()
    assert [line.split()[0] for line in lines] == ["trainable:", "component", "vision", "adapter", "llm", "total"]
    assert lines[-1].split()[1:] == [f"{sum(report.trained.values()):,}", f"{sum(report.frozen.values()):,}"]


@pytest.mark.parametrize("text", ["", "llm+", "head", "llm+llm", "all+llm", "LLM"])
def test_unknown_components_are_refused(text):
    with pytest.raises(ValueError, match="at most once"):
        parse_trainable(text)
    with pytest.raises(ValueError, match="at most once"):
        TrainableArguments(trainable=text)


def test_models_without_components_are_refused():
    with pytest.raises(ValueError, match="'0.weight' belongs to no known component"):
        set_trainable(torch.nn.Sequential(torch.nn.Linear(2, 2)), "llm")


def test_qwen_vl_keeps_its_adapter_in_the_tower(tmp_path):
    """`visual.merger` maps to the LLM's width: it is the adapter, and the rest of `visual` the tower."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(build_qwen_vl(tmp_path))
    merger = {f"model.visual.merger.{name}" for name, _ in model.model.visual.merger.named_parameters()}
    tower = {f"model.visual.{name}" for name, _ in model.model.visual.named_parameters()} - merger
    everything = {name for name, _ in model.named_parameters()}
    assert set(set_trainable(model, "adapter").trained_names) == merger
    assert set(set_trainable(model, "adapter+vision").trained_names) == merger | tower
    assert set(set_trainable(model, "llm").trained_names) == everything - merger - tower

    with pytest.raises(ValueError, match=r"modules_to_save=\['merger'\]"):
        set_trainable(get_peft_model(model, LoraConfig(**LORA)), "llm+adapter")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path)
    model = get_peft_model(model, LoraConfig(**LORA, modules_to_save=["merger"]))
    trained = set_trainable(model, "llm+adapter").trained_names
    copies = {name for name in trained if ".visual.merger.modules_to_save.default." in name}
    assert len(copies) == len(merger) and all(".lora_" in name for name in set(trained) - copies)


def test_rl_with_a_frozen_adapter_is_refused_whatever_froze_it(folder, tmp_path):
    def load():
        return AutoModelForImageTextToText.from_pretrained(folder)

    on_llm = r".*language_model.*\.(q|v)_proj"
    everywhere = r".*(language_model.*\.(q|v)_proj|multi_modal_projector.linear_1)"
    refuse_frozen_adapter(load())
    refuse_frozen_adapter(get_peft_model(load(), LoraConfig(r=2, target_modules=everywhere)))
    copies = LoraConfig(r=2, target_modules=on_llm, modules_to_save=["multi_modal_projector"])
    refuse_frozen_adapter(get_peft_model(load(), copies))
    frozen = load()
    frozen.model.multi_modal_projector.requires_grad_(False)
    for model in (frozen, get_peft_model(load(), LoraConfig(r=2, target_modules=on_llm))):
        with pytest.raises(ValueError, match=r"none of the 6 .* adapter \(multi_modal_projector\) trains.*R1V3"):
            refuse_frozen_adapter(model)
    # no adapter of a known name
    refuse_frozen_adapter(torch.nn.Sequential(torch.nn.Linear(2, 2)).requires_grad_(False))
    refuse_frozen_adapter(load().model.language_model.requires_grad_(False))
    qwen = Qwen2_5_VLForConditionalGeneration.from_pretrained(build_qwen_vl(tmp_path))
    with pytest.raises(ValueError, match=r"adapter \(merger\)"):
        refuse_frozen_adapter(get_peft_model(qwen, LoraConfig(**LORA)))
