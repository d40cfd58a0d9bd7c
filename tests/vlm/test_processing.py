# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Images of every kind, rows of every shape: counted as the processor makes them, or refused with a remedy."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from tokenizers import processors
from transformers import AutoProcessor
from trl.data_utils import prepare_multimodal_messages

from tests.support import tiny_parts
from trl_r1v2.images.processing import (
    MAX_PIXELS,
    RowError,
    check_row,
    count_prompt_tokens,
    count_tiles,
    find_bad_rows,
    load_image,
)
from trl_r1v2.vlm.compose import compose_vlm


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    root = tmp_path_factory.mktemp("processing")
    tiny_parts.save_vision(root / "vision")
    tiny_parts.save_llm(root / "llm")
    compose_vlm(str(root / "vision"), str(root / "llm"), str(root / "out"), progress=False)
    return AutoProcessor.from_pretrained(root / "out")


def png_bytes(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A valid PNG header for a picture of any size, with hardly any data behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def pixel(image: Image.Image, x: int = 0, y: int = 0) -> tuple[int, ...]:
    assert image.mode == "RGB"
    return image.getpixel((x, y))


def test_transparency_lies_over_white():
    assert pixel(load_image(Image.new("RGBA", (4, 4), (200, 0, 0, 0)))) == (255, 255, 255)
    assert pixel(load_image(Image.new("RGBA", (4, 4), (200, 0, 100, 255)))) == (200, 0, 100)
    half = pixel(load_image(Image.new("RGBA", (4, 4), (200, 0, 100, 128))))
    assert half == pytest.approx([200 * 128 / 255 + 255 * 127 / 255, 127, 100 * 128 / 255 + 127], abs=1)
    assert pixel(load_image(Image.new("LA", (4, 4), (10, 0)))) == (255, 255, 255)


def test_palettes_grey_and_print_colours():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert [pixel(load_image(palette), x) for x in (0, 1)] == [(10, 20, 30), (40, 50, 60)]
    transparent = load_image(png_bytes(palette, transparency=1))
    assert [pixel(transparent, x) for x in (0, 1)] == [(10, 20, 30), (255, 255, 255)]
    assert pixel(load_image(Image.new("L", (2, 2), 77))) == (77, 77, 77)
    assert pixel(load_image(Image.new("1", (2, 2), 1))) == (255, 255, 255)
    assert pixel(load_image(Image.new("CMYK", (2, 2), (0, 0, 0, 255)))) == (0, 0, 0)


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (65535, 255), (32896, 128), (257, 1), (256, 0)])
@pytest.mark.parametrize(("mode", "order"), [("I;16", "<u2"), ("I;16B", ">u2")])
def test_sixteen_bit_grey_is_scaled(mode, order, value, expected):
    grey = Image.frombytes(mode, (3, 2), np.full((2, 3), value, dtype=order).tobytes())
    tiff = io.BytesIO()
    grey.save(tiff, "TIFF")
    assert Image.open(tiff).mode == mode
    sources = [grey, tiff.getvalue(), png_bytes(Image.fromarray(np.full((2, 3), value, dtype=np.uint16)))]
    for image in map(load_image, sources):
        assert image.size == (3, 2) and pixel(image, 2, 1) == (expected,) * 3


def test_exif_orientation_is_applied():
    picture = Image.new("RGB", (6, 2), "black")
    picture.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = load_image(png_bytes(picture, exif=exif))
    assert turned.size == (2, 6) and pixel(turned, 1, 0) == (255, 0, 0)


def test_sources(tmp_path):
    picture = Image.new("RGB", (5, 4), (1, 2, 3))
    picture.save(tmp_path / "a.png")
    data = png_bytes(picture)
    sources = [picture, tmp_path / "a.png", str(tmp_path / "a.png"), data]
    sources += [{"bytes": data, "path": None}, {"bytes": None, "path": str(tmp_path / "a.png")}]
    assert {(load_image(source).size, pixel(load_image(source))) for source in sources} == {((5, 4), (1, 2, 3))}
    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "b.gif", save_all=True, append_images=frames[1:])
    assert pixel(load_image(tmp_path / "b.gif")) == (255, 0, 0)


def test_broken_images_are_refused(tmp_path):
    with pytest.raises(RowError, match="does not exist"):
        load_image(tmp_path / "none.png")
    with pytest.raises(RowError, match="no image that Pillow reads"):
        load_image(b"<html>not found</html>")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    with pytest.raises(RowError, match="cannot be decoded"):
        load_image(png_bytes(noise)[:2000])
    with pytest.raises(RowError, match="mode 'F'"):
        load_image(Image.new("F", (2, 2)))


def encoded(format: str) -> bytes:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, format)
    return buffer.getvalue()


def test_no_decoders_error_escapes(processor, monkeypatch):
    """Damage behind a sound header ends in errors of any type, by the decoder; each row is listed with its reason."""
    good, dds = encoded("AVIF"), encoded("DDS")
    data = good.index(b"mdat") + 4
    damaged = [good[:data] + bytes(len(good) - data), dds[:80] + b"\4\0\0\0DX99" + dds[88:]]  # an unknown pixel format
    rows = [{"prompt": "<IMG_CONTEXT>", "images": [image]} for image in (*damaged, good, dds)]
    problems = find_bad_rows(rows, processor)
    assert sorted(problems) == [0, 1] and all("image 1 of 1: the image of" in text for text in problems.values())
    for error in (RuntimeError("x"), NotImplementedError("x"), TypeError("x"), KeyError("x"), RecursionError("x")):

        def failing(*arguments, error=error, **options):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(Image.Image, "convert", failing)
            with pytest.raises(RowError, match="cannot be decoded"):
                load_image(dds)
        with monkeypatch.context() as patch:
            patch.setattr(Image, "open", failing)
            with pytest.raises(RowError, match="no image that Pillow reads"):
                load_image(b"data")


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["open", "load"])
def test_what_is_no_fault_of_the_file_is_not_blamed_on_it(monkeypatch, place, error):
    def failing(*arguments, **options):
        raise error

    monkeypatch.setattr(*((Image, "open") if place == "open" else (ImageFile.ImageFile, "load")), failing)
    with pytest.raises(error):
        load_image(encoded("PNG"))


@pytest.mark.parametrize(("width", "height"), [(10_000, 9_000), (60_000, 60_000), (2**31 - 1, 2)])
@pytest.mark.filterwarnings("error")
def test_decompression_bombs_are_refused_unopened(width, height, tmp_path):
    (tmp_path / "bomb.png").write_bytes(bomb(width, height))
    with pytest.raises(RowError, match="pixels"):
        load_image(tmp_path / "bomb.png")
    assert width * height > MAX_PIXELS


def test_pixel_limit_is_the_callers():
    with pytest.raises(RowError, match=r"10x10 = 100 pixels; at most 99 are decoded"):
        load_image(Image.new("RGB", (10, 10)), max_pixels=99)
    assert load_image(Image.new("RGB", (10, 10)), max_pixels=100).size == (10, 10)


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
    check_row(messages, images, processor, max_length=total)
    with pytest.raises(RowError, match="tokens"):
        check_row(messages, images, processor, max_length=total - 1)


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
    for text, row in zip(texts, images, strict=True):
        check_row(text, row, processor)
    made = processor(images=images, text=texts, padding=True, return_tensors="pt")
    counts = (made["input_ids"] == processor.image_token_id).sum(dim=1).tolist()
    assert counts == [processor.image_seq_length * sum(count_tiles(s, processor) for s in row) for row in sizes]
    assert made["pixel_values"].shape[0] == 1 + 4 + 1
    lengths = made["attention_mask"].sum(dim=1).tolist()
    expected = [count_prompt_tokens(t, row, processor)[0] for t, row in zip(texts, sizes, strict=True)]
    assert lengths == expected


IMAGE = {"type": "image"}


@pytest.mark.parametrize(
    ("prompt", "num_images", "message"),
    [
        ("look: <IMG_CONTEXT>", 0, "1 image placeholders and the row 0 images"),
        ("look", 1, "0 image placeholders and the row 1 images. Put one <IMG_CONTEXT>"),
        ("a <video> b", 0, "stands for a video"),
        ([{"role": "user", "content": [IMAGE, {"type": "text", "text": "a"}]}], 2, "1 image placeholders"),
        ([{"role": "user", "content": [IMAGE, IMAGE]}], 1, "2 image placeholders"),
        ([{"role": "user", "content": "see <IMG_CONTEXT>"}], 1, "Give images as"),
        ([{"role": "user", "content": [IMAGE, {"type": "text", "text": "<IMG_CONTEXT>"}]}], 1, "remove the token"),
        ([{"role": "system", "content": "only this"}], 1, "0 image placeholders"),
        ([{"role": "user", "content": "a <video>"}], 0, "stands for a video"),
    ],
)
def test_placeholders_are_checked(processor, prompt, num_images, message):
    with pytest.raises(RowError, match=message):
        check_row(prompt, [Image.new("RGB", (28, 28))] * num_images, processor)


def test_good_rows_pass(processor):
    image = Image.new("RGB", (28, 28))
    check_row("text", None, processor)
    check_row("text", [], processor)
    check_row([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], [image, image], processor)
    check_row([{"role": "user", "content": [IMAGE, {"type": "text", "text": "a"}, IMAGE]}], [image, image], processor)


def test_messages_the_template_cannot_render(processor):
    with pytest.raises(RowError, match="chat template cannot render"):
        check_row([{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": []}], None, processor)
    with pytest.raises(RowError, match="image, video or text, not audio"):
        check_row([{"role": "user", "content": [{"type": "audio"}]}], None, processor)


def test_long_prompts_name_text_and_tiles(processor):
    with pytest.raises(RowError, match=r"for 1 images in 13 tiles; at most 50 fit.*max_patches"):
        check_row("<IMG_CONTEXT>", [Image.new("RGB", (112, 84))], processor, max_length=50)
    with pytest.raises(RowError, match="600 tokens, 0 of them for 0 images in 0 tiles; at most 512 fit"):
        check_row("x" * 600, None, processor)


def test_bad_rows_are_collected_by_number(processor):
    rows = [
        {"prompt": "fine", "images": []},
        {"prompt": "<IMG_CONTEXT>", "images": [b"junk"]},
        {"prompt": "fine too"},
        {"prompt": "x" * 30, "images": None},
    ]
    problems = find_bad_rows(rows, processor, max_length=20)
    assert sorted(problems) == [1, 3]
    assert problems[1].startswith("image 1 of 1: the image of 4 bytes") and "30 tokens" in problems[3]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "the image is None. Give a PIL image"),
        ({"bytes": None, "path": None}, "neither `bytes` nor `path`"),
        ({}, "neither `bytes` nor `path`"),
        ({"bytes": 3}, "of type 'int'"),
        (np.zeros((4, 4, 3), dtype=np.uint8), "of type 'ndarray'"),
        (7, "of type 'int'"),
        ("", "does not exist"),
    ],
)
def test_images_of_other_types_are_refused(processor, source, message):
    with pytest.raises(RowError, match=message):
        load_image(source)
    with pytest.raises(RowError, match=f"image 2 of 2: .*{message}"):
        check_row("<IMG_CONTEXT><IMG_CONTEXT>", [Image.new("RGB", (28, 28)), source], processor)


USER = {"role": "user", "content": "a"}
MISSHAPEN = [
    (None, "the prompt is of type 'NoneType'"),
    (b"text", "the prompt is of type 'bytes'"),
    ({"role": "user", "content": "a"}, "the prompt is of type 'dict'"),
    ([], "the prompt is an empty list"),
    ([USER, None], "message 2 of 2 is of type 'NoneType'"),
    (["a"], "message 1 of 1 is of type 'str'"),
    ([{"content": "a"}], "message 1 of 1 has no `role`"),
    ([USER, {"role": None, "content": "a"}], "message 2 of 2 has no `role`"),
    ([{"role": "user", "content": 3}], "message 1 of 1: its content is of type 'int'"),
    ([{"role": "user", "content": IMAGE}], "message 1 of 1: its content is of type 'dict'"),
    ([{"role": "user", "content": [IMAGE, "a"]}], "message 1 of 1, part 2 is no dict with a `type`"),
    ([{"role": "user", "content": [{"text": "a"}]}], "message 1 of 1, part 1 is no dict with a `type`"),
    ([{"role": "user", "content": [{"type": "text"}]}], "part 1 has the type 'text' and no `text`"),
    ([{"role": "user", "content": [{"type": "text", "text": None}]}], "part 1 has the type 'text' and no `text`"),
    ([{"role": "user", "content": None}], "chat template cannot render"),
]


@pytest.mark.parametrize(("prompt", "message"), MISSHAPEN)
def test_misshapen_prompts_are_refused_by_place(processor, prompt, message):
    with pytest.raises(RowError, match=message):
        check_row(prompt, None, processor)


@pytest.mark.parametrize("images", [Image.new("RGB", (28, 28)), "a.png", b"data", {"bytes": b""}, 1])
def test_images_that_are_no_list_are_refused(processor, images):
    with pytest.raises(RowError, match=f"images are of type '{type(images).__name__}'. Give a list"):
        check_row("<IMG_CONTEXT>", images, processor)


def test_no_bad_row_hides_the_others(processor):
    rows = [{"prompt": prompt} for prompt, _ in MISSHAPEN] + [
        {"text": "a"},
        {"prompt": "x", "images": [None]},
        {"prompt": "fine"},
    ]
    problems = find_bad_rows(rows, processor)
    assert sorted(problems) == list(range(len(rows) - 1))
    assert "no 'prompt' among the row's columns ['text']" in problems[len(rows) - 3]
