# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""`trl-r1v2 align` on a tiny model and rows of the digit tasks, text-only rows among them."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForImageTextToText, AutoProcessor

from examples.digits.data import TASK_FEATURES, align_dataset, task_dataset
from trl_r1v2.scripts.main import main


NUM_ROWS = 10


def made_up_scans() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(10, 28, 28), dtype=np.uint8)


@pytest.fixture
def recipe(tmp_path, internvl_path):
    """A function that writes a recipe for ten demonstrations in one batch, and returns its path."""
    scans_of = {digit: [digit] for digit in range(10)}
    (tmp_path / "data").mkdir()
    rows = align_dataset(NUM_ROWS, made_up_scans(), scans_of, random.Random(0), 0.5, 0.5)
    rows.to_parquet(tmp_path / "data" / "train.parquet")

    def write(**changes) -> Path:
        keys = {
            "model_name_or_path": internvl_path,
            "dtype": "float32",
            "trainable": "llm+adapter",
            "dataset_name": str(tmp_path / "data"),
            "output_dir": str(tmp_path / "out"),
            "per_device_train_batch_size": NUM_ROWS,
            "max_steps": 1,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "bf16": False,
            "gradient_checkpointing": False,
            "use_cpu": True,
        }
        path = tmp_path / "align.yaml"
        path.write_text(yaml.safe_dump({**keys, **changes}))
        return path

    return write


def completion_loss(model_path: str, rows) -> float:
    """Mean negative log-likelihood of the completions' tokens, row by row, without padding or collator."""
    model = AutoModelForImageTextToText.from_pretrained(model_path, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(model_path)
    total, count = 0.0, 0
    for row in rows:
        question, answer = row["prompt"][0]["content"], row["completion"][0]["content"]
        prompt = "<|im_start|>user\n" + "<IMG_CONTEXT>\n" * len(row["images"])
        prompt += f"{question}<|im_end|>\n<|im_start|>assistant\n"
        images = row["images"] or None
        completion_ids = processor.tokenizer(f"{answer}<|im_end|>\n", return_tensors="pt")["input_ids"]
        inputs = processor(images=images, text=[prompt], return_tensors="pt")
        length = inputs["input_ids"].size(1)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], completion_ids], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with torch.no_grad():
            logps = model(**inputs).logits[0, length - 1 : -1].log_softmax(dim=-1)
        total -= logps.gather(1, completion_ids[0][:, None]).sum().item()
        count += completion_ids.numel()
    return total / count


def test_loss_is_that_of_the_completions_in_a_batch_of_text_and_images(recipe, tmp_path, internvl_path):
    from datasets import load_dataset

    rows = load_dataset(str(tmp_path / "data"), split="train")
    assert sorted({len(row["images"]) for row in rows}) == [0, 1, 2]
    assert main(["align", "--config", str(recipe())]) == 0
    log = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
    assert log[0]["loss"] == pytest.approx(completion_loss(internvl_path, rows), rel=1e-4)


def test_the_chosen_components_train_and_the_model_loads(recipe, tmp_path, internvl_path):
    assert main(["align", "--config", str(recipe(max_steps=2))]) == 0
    before = AutoModelForImageTextToText.from_pretrained(internvl_path, dtype=torch.float32)
    after = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", dtype=torch.float32)
    changed = {
        name.split(".")[1] if name.startswith("model.") else name.split(".")[0]
        for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True)
        if not torch.equal(old, new)
    }
    assert changed == {"multi_modal_projector", "language_model", "lm_head"}
    ends = [model.generation_config.eos_token_id for model in (before, after)]
    assert [set(ids if isinstance(ids, list) else [ids]) for ids in ends] == [{ends[0]}] * 2
    assert AutoProcessor.from_pretrained(tmp_path / "out").image_seq_length == 4


def test_an_aligned_run_is_resumed(recipe, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    settings = {
        "save_strategy": "steps",
        "save_steps": 2,
        "per_device_train_batch_size": 4,
        "lr_scheduler_type": "constant",
    }
    assert main(["align", "--config", str(recipe(output_dir=str(whole), max_steps=4, **settings))]) == 0
    assert main(["align", "--config", str(recipe(output_dir=str(parts), max_steps=2, **settings))]) == 0
    resumed = recipe(output_dir=str(parts), max_steps=4, resume_from_checkpoint="auto", **settings)
    assert main(["align", "--config", str(resumed)]) == 0
    models = [AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32) for path in (whole, parts)]
    for (name, one), other in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, msg=lambda text, name=name: f"{name}: {text}")


def test_data_without_completions_is_refused(recipe, tmp_path, capsys):
    tasks = task_dataset(5, made_up_scans(), {digit: [digit] for digit in range(10)}, random.Random(0))
    assert tasks.features == TASK_FEATURES
    (tmp_path / "tasks").mkdir()
    tasks.to_parquet(tmp_path / "tasks" / "train.parquet")
    assert main(["align", "--config", str(recipe(dataset_name=str(tmp_path / "tasks")))]) != 0
    assert "there is no column 'completion'" in capsys.readouterr().err
