# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The store of image tensors against an obvious list, and reprocessed rows against what TRL fed the model."""

import hypothesis.strategies as st
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from transformers import AutoProcessor
from trl.data_utils import apply_chat_template, prepare_multimodal_messages

from tests.support.ssb_runs import image, image_dataset
from trl_r1v2.images.prompt_images import PromptImages, content_key, process_row


def fields(num_floats):
    return {"pixel_values": torch.zeros(num_floats), "image_sizes": torch.zeros(1, 2, dtype=torch.int64)}


keys = st.integers(0, 5)
puts = st.tuples(st.just("put"), keys, st.integers(0, 8))  # 16 to 48 bytes
gets = st.tuples(st.just("get"), keys, st.none())
removals = st.tuples(st.just("keep_only"), st.sets(keys, min_size=4), st.none())
operations = st.lists(st.one_of(puts, puts, puts, gets, gets, removals), min_size=5, max_size=30)


@settings(max_examples=200, deadline=None)
@given(operations, st.integers(40, 200))
def test_store_equals_a_list(script, max_bytes):
    store, model = PromptImages(max_bytes), []  # the list holds (key, bytes), least recently used first
    for operation, key, size in script:
        if operation == "put":
            num_bytes = 4 * size + 16
            store.put(key, fields(size))
            if num_bytes > max_bytes:
                continue
            model = [entry for entry in model if entry[0] != key]
            while sum(b for _, b in model) + num_bytes > max_bytes:
                model.pop(0)
            model.append((key, num_bytes))
        elif operation == "get":
            held = [entry for entry in model if entry[0] == key]
            assert (key in store.entries) == bool(held)
            if held:
                assert 4 * len(store.visual(key)["pixel_values"]) + 16 == held[0][1]
            model = [entry for entry in model if entry[0] != key] + held
        else:
            store.keep_only(key)
            model = [entry for entry in model if entry[0] in key]
        assert list(store.entries) == [entry[0] for entry in model]
        assert store.num_bytes == sum(b for _, b in model) <= max_bytes


def test_what_fell_out_is_read_again():
    """By row number with a reader, by content without one."""
    images = PromptImages(40, read_row=lambda number: fields(number))
    assert images.remember(fields(4), 4) == 4 and images.remember(fields(5), 5) == 5  # 32 and 36 bytes
    assert list(images.entries) == [5]
    assert len(images.visual(4)["pixel_values"]) == 4 and list(images.entries) == [4]
    stream = PromptImages(40)
    assert stream.remember(fields(4), None) == content_key(fields(4))
    assert list(stream.entries) == [content_key(fields(4))]


def test_content_key_tells_contents_apart():
    base = {"pixel_values": torch.arange(12.0).view(3, 4), "image_grid_thw": torch.tensor([[1, 3, 4]])}
    assert content_key(base) == content_key({name: base[name].clone() for name in reversed(base)})
    one_bit = base["pixel_values"].clone()
    one_bit.view(torch.int32)[1, 1] ^= 1
    others = [
        base | {"pixel_values": one_bit},
        base | {"pixel_values": base["pixel_values"].view(4, 3)},
        base | {"pixel_values": base["pixel_values"].view(torch.int32)},
        base | {"image_grid_thw": torch.tensor([[1, 4, 3]])},
        {"pixel_values": base["pixel_values"]},
        {"image_sizes": base["pixel_values"], "image_grid_thw": base["image_grid_thw"]},
        base | {"pixel_values": base["pixel_values"][:0]},
    ]
    assert len({content_key(fields) for fields in [base, *others]}) == len(others) + 1


def messages_with_images(num_images):
    parts = [{"type": "image", "image": image(7 + i, 1 + i)} for i in range(num_images)]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "add"}]}]


@pytest.mark.parametrize(
    "row",
    [
        *(image_dataset(3)[i] for i in range(3)),
        {"prompt": [{"role": "user", "content": "one"}], "image": image(1, 2)},
        {"prompt": messages_with_images(2)},
        {
            "prompt": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "x"}]},
            ],
            "images": [image(3)],
        },
    ],
    ids=["two_images", "tiles", "one_image", "image_column", "inside_messages", "placeholders"],
)
def test_reprocessed_row_equals_what_the_batch_held(row, internvl_path):
    """Alone or in the middle of a batch, a row's pixels are the same bits."""
    processor = AutoProcessor.from_pretrained(internvl_path, padding_side="left")
    alone = process_row(row, processor, {})
    assert set(alone) == {"pixel_values"}
    images = row.get("images") or ([row["image"]] if "image" in row else None)
    prompt = prepare_multimodal_messages(row["prompt"], images=images)
    pictures = [part["image"] for message in prompt for part in message["content"] if part["type"] == "image"]
    neighbour = prepare_multimodal_messages([{"role": "user", "content": "n"}], images=[image(99, 3)])
    texts = [apply_chat_template({"prompt": p}, processor)["prompt"] for p in (neighbour, prompt, neighbour)]
    others = [neighbour[0]["content"][0]["image"]]
    batch = processor(images=[others, pictures, others], text=texts, padding=True, return_tensors="pt")["pixel_values"]
    around = (len(batch) - len(alone["pixel_values"])) // 2
    assert around == 4  # three tiles and a thumbnail
    assert torch.equal(batch[around:-around], alone["pixel_values"])


def test_reprocessing_survives_storage(internvl_path, tmp_path):
    """Written to parquet and read again, the same row gives the same pixels."""
    processor = AutoProcessor.from_pretrained(internvl_path, padding_side="left")
    dataset = image_dataset(3)
    dataset.to_parquet(tmp_path / "rows.parquet")
    again = Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path / "cache"))
    for before, after in zip(dataset, again, strict=True):
        ours, theirs = (process_row(row, processor, {})["pixel_values"] for row in (before, after))
        assert torch.equal(ours, theirs)
