# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Tiles and tokens are counted as the processor makes them, and sizes that it refuses are found."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import processors
from transformers import AutoProcessor
from trl.data_utils import prepare_multimodal_messages

from tests.support import tiny_parts
from tests.support.tiny_qwen_vl import build_qwen_vl
from trl_r1v2.images.counts import check_size, count_prompt_tokens, count_tiles
from trl_r1v2.images.processing import RowError
from trl_r1v2.vlm.compose import compose_vlm


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    root = tmp_path_factory.mktemp("processing")
    tiny_parts.save_vision(root / "vision")
    tiny_parts.save_llm(root / "llm")
    compose_vlm(str(root / "vision"), str(root / "llm"), str(root / "out"), progress=False)
    return AutoProcessor.from_pretrained(root / "out")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), max_size=3), st.text("ab <>\n", max_size=20))
def test_counts_are_those_of_the_processor(processor, sizes, text):
    images = [Image.new("RGB", size) for size in sizes]
    messages = [{"role": "user", "content": text}]
    rendered = processor.apply_chat_template(
        prepare_multimodal_messages(messages, images=images), tokenize=False, add_generation_prompt=True
    )
    made = processor(images=images or None, text=[rendered], return_tensors="pt")
    total, of_images = count_prompt_tokens(messages, sizes, processor)
    assert total == made["input_ids"].shape[1] == count_prompt_tokens(rendered, sizes, processor)[0]
    if images:
        assert sum(count_tiles(size, processor) for size in sizes) == made["pixel_values"].shape[0]
        image_ids = torch.isin(made["input_ids"], torch.tensor(processor.image_token_ids))
        assert of_images == image_ids.sum()


def test_counts_of_a_tokenizer_that_begins_every_text(tmp_path):
    """As Llama's: the chat template writes the beginning already; plain text gets it from the tokenizer, once more."""
    tokenizer = tiny_parts.make_tokenizer(("<s>",), "{{ bos_token }}" + tiny_parts.CHAT_TEMPLATE)
    tokenizer.bos_token = "<s>"
    start = [("<s>", tokenizer.bos_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", start)
    tiny_parts.save_vision(tmp_path / "vision")
    tiny_parts.save_llm(tmp_path / "llm", family="llama", tokenizer=tokenizer)
    compose_vlm(str(tmp_path / "vision"), str(tmp_path / "llm"), str(tmp_path / "out"), progress=False)
    begun = AutoProcessor.from_pretrained(tmp_path / "out")
    image = Image.new("RGB", (84, 28))
    messages = prepare_multimodal_messages([{"role": "user", "content": "So?"}], images=[image])
    made = begun.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)[
        "input_ids"
    ]
    assert made[0].count(tokenizer.bos_token_id) == 1
    assert count_prompt_tokens([{"role": "user", "content": "So?"}], [image.size], begun)[0] == len(made[0])
    for text in ("<IMG_CONTEXT>\nSo?", "<s><IMG_CONTEXT>\nSo?"):
        made = begun(images=[image], text=[text])["input_ids"]
        assert count_prompt_tokens(text, [image.size], begun)[0] == len(made[0])


@pytest.mark.parametrize(
    ("size", "tiles"),
    [((28, 28), 1), ((1, 1), 1), ((112, 84), 13), ((1, 5000), 13), ((84, 28), 4), ((2000, 1990), 1 + 9)],
)
def test_tiles_and_thumbnail(processor, size, tiles):
    made = processor(images=[Image.new("RGB", size)], text=["<IMG_CONTEXT>"], return_tensors="pt")
    assert count_tiles(size, processor) == made["pixel_values"].shape[0] == tiles


def test_mixed_rows_and_several_images_go_through_the_processor_together(processor):
    """Rows with none, one and two images in one batch: each row holds exactly its own image tokens."""
    sizes = [[], [(28, 28)], [(84, 28), (28, 28)]]
    images = [[Image.new("RGB", size) for size in row] for row in sizes]
    texts = ["no picture", "<IMG_CONTEXT>\none", "<IMG_CONTEXT> and <IMG_CONTEXT>"]
    made = processor(images=images, text=texts, padding=True, return_tensors="pt")
    counts = (made["input_ids"] == processor.image_token_id).sum(dim=1).tolist()
    assert counts == [processor.image_seq_length * sum(count_tiles(s, processor) for s in row) for row in sizes]
    assert made["pixel_values"].shape[0] == 1 + 4 + 1
    lengths = made["attention_mask"].sum(dim=1).tolist()
    expected = [count_prompt_tokens(t, row, processor)[0] for t, row in zip(texts, sizes, strict=True)]
    assert lengths == expected


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": []}], "chat template cannot render"),
        ([{"role": "user", "content": [{"type": "audio"}]}], "image, video or text, not audio"),
        ([{"role": "user", "content": None}], "chat template cannot render"),
    ],
)
def test_messages_the_template_cannot_render(processor, messages, message):
    with pytest.raises(RowError, match=message):
        count_prompt_tokens(messages, [], processor)


@pytest.mark.parametrize(
    ("size", "is_taken"), [((3000, 10), False), ((10, 3000), False), ((2000, 10), True), ((1, 1), True)]
)
def test_sizes_a_processor_refuses_are_found_before_it_does(processor, size, is_taken, tmp_path):
    qwen = AutoProcessor.from_pretrained(build_qwen_vl(tmp_path))
    check_size(size, processor)  # InternVL's takes all
    if is_taken:
        check_size(size, qwen)
        return
    with pytest.raises(ValueError, match="aspect ratio"):
        qwen(images=[Image.new("RGB", size)], text=["<|image_pad|>"])
    with pytest.raises(RowError, match=f"Qwen2_5_VLProcessor does not take an image of {size[0]}x{size[1]} pixels"):
        check_size(size, qwen)
