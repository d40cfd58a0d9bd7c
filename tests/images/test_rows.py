# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Where a row keeps its images, and where they belong in its prompt, however the data set says so."""

import base64
import io

import pytest
import torch
from datasets import Dataset
from PIL import Image
from trl.data_utils import prepare_multimodal_messages

from tests.support.mpo_tiny import image_rows, make_processor, make_vlm, moved_copy, training_args
from tests.support.ssb_runs import SSBGRPOTrainer, assert_identical, image, make_trainer
from trl_r1v2 import MPOConfig, MPOTrainer
from trl_r1v2.images.rows import images_of, place_images, unread_image_columns, with_image_column, with_image_list
from trl_r1v2.sampling.prompts import count_images, fill_images


def user(content) -> list[dict]:
    return [{"role": "user", "content": content}]


def text(words: str) -> dict:
    return {"type": "text", "text": words}


IMAGE = {"type": "image"}


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def file_of(picture: Image.Image, folder):
    path = folder / f"{hash(picture.tobytes())}.png"
    picture.save(path)
    return path


def data_url(picture: Image.Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(picture)).decode()}"


# How data sets keep the one picture of a row.
SPELLINGS = {
    "one image under images": lambda picture, folder: {"images": picture},
    "a list under image": lambda picture, folder: {"image": [picture]},
    "image": lambda picture, folder: {"image": picture},
    "path": lambda picture, folder: {"image": str(file_of(picture, folder))},
    "path under images": lambda picture, folder: {"images": str(file_of(picture, folder))},
    "file address": lambda picture, folder: {"image": file_of(picture, folder).as_uri()},
    "data URL": lambda picture, folder: {"images": [data_url(picture)]},
    "base64": lambda picture, folder: {"image": base64.b64encode(png(picture)).decode()},
    "bytes": lambda picture, folder: {"image": png(picture)},
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_is_one_picture(name, tmp_path):
    example = {"prompt": user("What is it?"), **SPELLINGS[name](image(0), tmp_path)}
    for row in (with_image_list(example), with_image_column(example)):
        (found,) = row["images"]
        assert found.mode == "RGB" and found.tobytes() == image(0).tobytes()
    (message,) = fill_images(example, 0)
    assert message["content"][0]["image"].tobytes() == image(0).tobytes()
    assert count_images(Dataset.from_list([example]), 0) == 1


@pytest.mark.parametrize("name", SPELLINGS)
def test_grpo_trains_alike_on_every_spelling(name, internvl_path, tmp_path):
    def run(folder, rows):
        data = Dataset.from_list(rows)
        trainer = make_trainer(SSBGRPOTrainer, internvl_path, folder, data, max_steps=2, ssb_enabled=True)
        trainer.train()
        return trainer

    prompts = [user("What is it?"[: 4 + row]) for row in range(4)]
    listed = [{"prompt": prompt, "images": [image(row)]} for row, prompt in enumerate(prompts)]
    spelled = [{"prompt": prompt, **SPELLINGS[name](image(row), tmp_path)} for row, prompt in enumerate(prompts)]
    assert_identical(run(tmp_path / "a", listed), run(tmp_path / "b", spelled))


@pytest.mark.parametrize("column", ["images", "image"])
def test_mpo_trains_alike_on_markers(column, tmp_path):
    """`<image>` in the text is the image's place, not a second placeholder; the picture may lie under `image`."""
    processor = make_processor()

    def run(folder, rows):
        model = make_vlm(processor)
        config = MPOConfig(**training_args(folder))
        data = Dataset.from_list(rows)
        trainer = MPOTrainer(model, moved_copy(model), config, train_dataset=data, processing_class=processor)
        trainer.train()
        return trainer.model.state_dict()

    plain, marked = image_rows([1] * 4), image_rows([1] * 4)
    for row in marked:
        row["prompt"][0]["content"] = "<image>\n" + row["prompt"][0]["content"]
        if column == "image":
            row["image"] = row.pop("images")[0]
    first, second = run(tmp_path / "plain", plain), run(tmp_path / "marked", marked)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("prompt", "num_images", "expected"),
    [
        (user("<image>\nWhat?"), 1, [IMAGE, text("What?")]),
        (user("First <image> then <image>?"), 2, [text("First "), IMAGE, text(" then "), IMAGE, text("?")]),
        (user([text("a <image>\nb"), text("c")]), 1, [text("a "), IMAGE, text("b"), text("c")]),
        (user([IMAGE, text("<image>\nWhat?")]), 1, [IMAGE, text("What?")]),
        (user([IMAGE, text("<image>")]), 1, [IMAGE]),
    ],
)
def test_markers_become_parts(prompt, num_images, expected):
    (message,) = place_images(prompt, num_images)
    assert message == {"role": "user", "content": expected}
    filled = prepare_multimodal_messages([message], images=list(range(num_images)))
    assert [part["image"] for part in filled[0]["content"] if part["type"] == "image"] == list(range(num_images))


def test_markers_of_several_turns_keep_their_places():
    prompt = [{"role": "system", "content": "s"}, *user("<image>\na"), {"role": "assistant", "content": "b"}]
    prompt += user("and <image>?")
    found = place_images(prompt, 2)
    assert [message["content"] for message in found] == [
        [text("s")], [IMAGE, text("a")], [text("b")], [text("and "), IMAGE, text("?")],
    ]  # fmt: skip
    assert [message["role"] for message in found] == ["system", "user", "assistant", "user"]
    assert prompt[1]["content"] == "<image>\na"  # the row keeps what it had


@pytest.mark.parametrize(
    ("prompt", "num_images"),
    [
        (user("What does <image> do in SVG?"), 0),
        (user("What?"), 2),
        (user([IMAGE, text("Is <image> or <image> the tag?")]), 1),
        ("<image> text", 1),
    ],
)
def test_other_text_is_left_as_it_is(prompt, num_images):
    assert place_images(prompt, num_images) is prompt


def test_too_many_markers_are_refused_with_the_row():
    with pytest.raises(ValueError, match=r"row with prompt .*: the prompt holds '<image>' 2 times for 1 images"):
        with_image_list({"prompt": user("<image> and <image>"), "images": [image(0)]})


def test_numbered_columns_are_named():
    row = {"prompt": user("a"), "image_1": image(0), "image_2": image(1), "image_count": 2}
    with pytest.raises(ValueError, match="images in 'image_1', 'image_2', which no trainer reads. Move them"):
        images_of(row)
    assert unread_image_columns(row) == ["image_1", "image_2"]
    assert images_of({**row, "image_1": None, "image_2": None}) == []
    assert images_of({**row, "images": [image(0), image(1)]})  # moved, and the old columns left
