# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Rows that a model's own files rule out: found before training, without its weights."""

import shutil

import pytest
from datasets import Dataset
from PIL import Image
from transformers import AutoProcessor

from tests.support.tiny_qwen_vl import build_qwen_vl
from trl_r1v2.checks.prompt_limits import PromptLimits
from trl_r1v2.checks.rows import DatasetError, check_dataset
from trl_r1v2.images.counts import count_prompt_tokens
from trl_r1v2.scripts.main import main


# Positions of the tiny models.
POSITIONS = 512


@pytest.fixture(scope="module")
def weightless(internvl_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("limits") / "model"
    shutil.copytree(internvl_path, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return str(folder)


def dataset(content, num_images: int = 1, size: tuple[int, int] = (28, 28), **columns) -> Dataset:
    row = {"prompt": [{"role": "user", "content": content}], "images": [Image.new("RGB", size)] * num_images}
    return Dataset.from_list([{**row, "prompt": [{"role": "user", "content": "fine"}]} | columns, row | columns])


def refusal(rows: Dataset, limits: PromptLimits, **options) -> str:
    with pytest.raises(DatasetError) as refused:
        check_dataset(rows, name="data [train]", progress=False, limits=limits, **options)
    return str(refused.value)


@pytest.mark.parametrize("token", ["<IMG_CONTEXT>", "<video>"])
def test_tokens_of_images_in_text_are_refused(token, weightless):
    limits = PromptLimits.from_pretrained(weightless)
    rows = dataset(f"explain {token} here")
    assert check_dataset(rows, name="data", progress=False) == 2  # by itself the form is fine
    message = refusal(rows, limits)
    assert message.startswith(f"data [train], row 1, column 'prompt': the text contains {token!r}")
    assert "remove the token from the text" in message
    parts = [{"type": "image", "text": None}, {"type": "text", "text": f"a {token}"}]
    assert "row 0" in refusal(
        Dataset.from_list([{**dataset("x")[0], "prompt": [{"role": "user", "content": parts}]}]), limits
    )
    assert "row 0" in refusal(Dataset.from_dict({"prompt": [f"a {token}"]}), limits)
    said = {name: [{"role": "assistant", "content": f"so {token}"}] for name in ("chosen", "completion")}
    for name, response in said.items():
        assert f"row 0, column {name!r}" in refusal(dataset("x", **{name: response}), limits)


def test_other_models_name_their_own_tokens(tmp_path, text_model_path):
    limits = PromptLimits.from_pretrained(build_qwen_vl(tmp_path))
    assert "'<|image_pad|>'" in refusal(dataset("a <|image_pad|>"), limits)
    assert check_dataset(dataset("a <IMG_CONTEXT>"), name="data", progress=False, limits=limits) == 2
    text = Dataset.from_list([{"prompt": [{"role": "user", "content": "<IMG_CONTEXT> <|image_pad|>"}]}])
    assert check_dataset(text, name="data", progress=False, limits=PromptLimits.from_pretrained(text_model_path)) == 0


@pytest.mark.parametrize(("num_images", "size"), [(0, (28, 28)), (1, (112, 28)), (2, (28, 28))])
def test_prompts_are_as_long_as_the_processor_makes_them(num_images, size, weightless):
    processor = AutoProcessor.from_pretrained(weightless)
    length = 300
    rows = dataset("x" * length, num_images, size)
    messages = rows[1]["prompt"]
    total, _ = count_prompt_tokens(messages, [size] * num_images, processor)
    fits = PromptLimits.from_pretrained(weightless, completion_length=POSITIONS - total)
    assert check_dataset(rows, name="data", progress=False, limits=fits) == 2 * num_images
    tight = PromptLimits.from_pretrained(weightless, completion_length=POSITIONS - total + 1)
    message = refusal(rows, tight)
    assert f"row 1: the prompt has {total} tokens" in message
    assert f"at most {total - 1} fit: the model has {POSITIONS} positions" in message
    assert refusal(rows, tight, check_images=2) == message  # the rows that are read are the rows that are checked
    assert check_dataset(rows, name="data", progress=False, limits=tight, check_images="none") == 0
    off = PromptLimits.from_pretrained(weightless, completion_length=POSITIONS, check_length=False)
    assert check_dataset(rows, name="data", progress=False, limits=off) == 2 * num_images


def test_text_models_count_their_tokens(text_model_path):
    limits = PromptLimits.from_pretrained(text_model_path)
    rows = Dataset.from_dict({"prompt": ["x" * POSITIONS, "x" * (POSITIONS + 1)]})
    assert f"row 1: the prompt has {POSITIONS + 1} tokens" in refusal(rows, limits)


def test_adapter_folders_are_read_by_their_base(weightless, tmp_path):
    (tmp_path / "adapter_config.json").write_text(f'{{"base_model_name_or_path": "{weightless}"}}')
    assert "<IMG_CONTEXT>" in PromptLimits.from_pretrained(str(tmp_path)).visual_tokens


@pytest.mark.parametrize("command", ["grpo", "mpo", "align"])
def test_commands_refuse_such_rows_before_they_load_the_model(command, weightless, tmp_path, capsys):
    said = {name: [{"role": "assistant", "content": "yes"}] for name in ("chosen", "rejected", "completion")}
    dataset("draw <IMG_CONTEXT>", solution="1", **said).to_parquet(tmp_path / "train.parquet")
    options = [
        "--model_name_or_path",
        weightless,
        "--dataset_name",
        str(tmp_path),
        "--output_dir",
        str(tmp_path / "o"),
    ]
    options += ["--use_cpu", "true", "--bf16", "false", "--report_to", "none", "--disable_tqdm", "true"]
    if command == "grpo":
        options += ["--reward_funcs", "trl_r1v2.rewards.accuracy_reward", "--max_completion_length", "8"]
    assert main([command, *options]) == 2
    error = capsys.readouterr().err
    assert "[train], row 1, column 'prompt': the text contains '<IMG_CONTEXT>'" in error
