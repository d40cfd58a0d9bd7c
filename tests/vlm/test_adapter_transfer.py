# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
R1V1's road by commands: an adapter is trained before a substitute LLM and moved to a reasoning one with another
tokenizer.
"""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from examples.digits.data import align_dataset
from tests.support import tiny_parts
from trl_r1v2.scripts.main import main
from trl_r1v2.vlm.activation import component_of
from trl_r1v2.vlm.checkpoint_keys import module_name


STATISTICS = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.25, 0.5, 0.75]}


def run(root: Path, command: str, **recipe) -> None:
    path = root / f"{command}.yaml"
    path.write_text(yaml.safe_dump({key: str(v) if isinstance(v, Path) else v for key, v in recipe.items()}))
    assert main([command, "--config", str(path)]) == 0


def component(folder: Path, name: str) -> dict[str, torch.Tensor]:
    tensors = {module_name(key): value for key, value in load_file(folder / "model.safetensors").items()}
    return {key: value for key, value in tensors.items() if component_of(key) == name}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """`substitute`, `aligned` (its adapter trained) and `transferred` (before another LLM), with their parts."""
    root = tmp_path_factory.mktemp("transfer")
    tiny_parts.save_vision(root / "vision")
    (root / "vision" / "preprocessor_config.json").write_text(json.dumps(STATISTICS))
    tiny_parts.save_llm(root / "substitute-llm")
    tokenizer = tiny_parts.make_tokenizer(
        extra_tokens=("<IMG_CONTEXT>", "<|begin_of_solution|>", "<|end_of_solution|>")
    )
    tiny_parts.save_llm(root / "reasoning-llm", family="qwen3", seed=5, tokenizer=tokenizer)
    scans = np.random.default_rng(0).integers(0, 256, size=(10, 28, 28), dtype=np.uint8)
    rows = align_dataset(8, scans, {digit: [digit] for digit in range(10)}, random.Random(0), 0.5, 0.5)
    rows.to_parquet(root / "data" / "train.parquet")

    tiles = {"max_patches": 2}
    run(root, "compose", vision=root / "vision", llm=root / "substitute-llm", output_dir=root / "substitute", **tiles)
    run(
        root, "align", model_name_or_path=root / "substitute", trainable="adapter", dataset_name=root / "data",
        output_dir=root / "aligned", dtype="float32", max_steps=2, learning_rate=1e-2, per_device_train_batch_size=4,
        max_length=None, report_to="none", save_strategy="no", bf16=False, use_cpu=True,
    )  # fmt: skip
    run(
        root, "compose", vision=root / "aligned", llm=root / "reasoning-llm", adapter=root / "aligned",
        output_dir=root / "transferred", **tiles,
    )  # fmt: skip
    return root


def test_align_trains_the_adapter_and_nothing_else(root):
    for name in ("vision", "llm"):
        before, after = component(root / "substitute", name), component(root / "aligned", name)
        assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    before, after = component(root / "substitute", "adapter"), component(root / "aligned", "adapter")
    assert len(after) == 6 and not any(torch.equal(before[key], after[key]) for key in before)


def test_every_part_arrives_unchanged(root):
    for source, name in (("aligned", "adapter"), ("aligned", "vision")):
        there, here = component(root / source, name), component(root / "transferred", name)
        assert there.keys() == here.keys() and all(torch.equal(there[key], here[key]) for key in there)
    llm, here = load_file(root / "reasoning-llm" / "model.safetensors"), component(root / "transferred", "llm")
    for name, value in llm.items():
        native = name if name == "lm_head.weight" else "model.language_model." + name.removeprefix("model.")
        assert torch.equal(here[native][: len(value)], value)


def test_images_stay_normalised_as_the_tower_was_trained(root):
    for name in ("substitute", "aligned", "transferred"):
        images = AutoProcessor.from_pretrained(root / name).image_processor
        assert {key: list(getattr(images, key)) for key in STATISTICS} == STATISTICS, name


def test_the_new_tokenizer_decides_the_image_token_and_images_change_the_answer(root):
    ids = []
    for name in ("substitute", "transferred"):
        model = AutoModelForImageTextToText.from_pretrained(root / name)
        ids.append(model.config.image_token_id)
        assert AutoProcessor.from_pretrained(root / name).image_token_id == ids[-1]
    assert ids[0] != ids[1]

    processor = AutoProcessor.from_pretrained(root / "transferred")
    question = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which digit?"}]}]
    text = processor.apply_chat_template(question, add_generation_prompt=True)
    pixels = np.random.default_rng(1).integers(0, 256, size=(2, 28, 56, 3), dtype=np.uint8)
    with torch.no_grad():
        logits, answers = [], []
        for image in map(Image.fromarray, pixels):
            inputs = processor(images=[image], text=[text], return_tensors="pt")
            logits.append(model(**inputs).logits[0, -1])
            output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
            answers.append(output[0, inputs["input_ids"].shape[1] :])
    assert not torch.allclose(*logits)
    image_tokens = processor.tokenizer.convert_tokens_to_ids(["<img>", "</img>", "<IMG_CONTEXT>", "<video>"])
    assert all(len(answer) and not set(answer.tolist()) & set(image_tokens) for answer in answers)


def test_an_adapter_of_other_widths_is_refused_with_the_remedy(root, capsys):
    tiny_parts.save_vision(root / "wide-vision", hidden_size=64)
    paths = [
        "--llm",
        str(root / "reasoning-llm"),
        "--adapter",
        str(root / "aligned"),
        "--output_dir",
        str(root / "no"),
    ]
    assert main(["compose", "--vision", str(root / "wide-vision"), *paths]) == 2
    error = capsys.readouterr().err
    assert (
        "leads from 128 features a token to an LLM of width 32; this tower gives 256 and this LLM has width 32"
        in error
    )
    assert "trl-r1v2 align" in error and not (root / "no").exists()
