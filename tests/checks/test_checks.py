# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Datasets that cannot be trained on: what is found, and where the message says it is."""

import io
import struct
import warnings
import zlib

import pytest
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage

from trl_r1v2.checks.rows import DatasetError, check_dataset, parse_check_images
from trl_r1v2.rewards.columns import reward_columns


TEXT = [{"role": "user", "content": "What is it?"}]
MESSAGES = [{"role": Value("string"), "content": Value("string")}]


def encoded(colour: int = 0) -> bytes:
    buffer = io.BytesIO()
    PILImage.new("RGB", (40, 40), (colour, 2, 3)).save(buffer, format="PNG")
    return buffer.getvalue()


def vision_dataset(images: list, prompts: list | None = None) -> Dataset:
    """Rows whose `images` are given as bytes or paths, in a column that decodes them."""
    stored = [
        None
        if row is None
        else [{"bytes": image, "path": None} if isinstance(image, bytes) else image for image in row]
        for row in images
    ]
    dataset = Dataset.from_dict({"prompt": prompts or [TEXT] * len(images)})
    undecoded = List(Image(decode=False))
    column = Dataset.from_dict({"images": stored}, features=Features({"images": undecoded}))
    return dataset.add_column("images", column["images"][:], feature=undecoded).cast_column("images", List(Image()))


def parts(num_images: int) -> list:
    content = [{"type": "image", "text": None}] * num_images + [{"type": "text", "text": "What is it?"}]
    return [{"role": "user", "content": content}]


def refusal(dataset, **options) -> str:
    with pytest.raises(DatasetError) as refused:
        check_dataset(dataset, name="folder [train]", progress=False, **options)
    return str(refused.value)


def test_good_rows_pass_and_every_image_is_decoded():
    # a mixed dataset: text only rows with an empty list and with nothing, one image, two images
    dataset = vision_dataset([[], None, [encoded()], [encoded(), encoded()]])
    assert check_dataset(dataset, name="x", progress=False) == 3
    dataset = vision_dataset([[encoded()], [encoded(), encoded()], []], [parts(1), parts(2), parts(0)])
    assert check_dataset(dataset, name="x", progress=False) == 3


def test_text_dataset_passes():
    assert check_dataset(Dataset.from_dict({"prompt": ["a", "b"]}), name="x", progress=False) == 0
    assert check_dataset(Dataset.from_dict({"prompt": [TEXT]}), name="x", progress=False) == 0


def test_missing_column():
    message = refusal(Dataset.from_dict({"prompt": [TEXT], "answer": ["1"]}), columns=["prompt", "solution"])
    assert message.startswith("folder [train]: there is no column 'solution'")
    assert "prompt, answer" in message and "rename_column" in message


def test_empty_dataset():
    assert "has no rows" in refusal(Dataset.from_dict({"prompt": []}))


@pytest.mark.parametrize("images", [None, []])
def test_row_without_its_image(images):
    message = refusal(vision_dataset([[encoded()], images], [parts(1), parts(1)]))
    assert (
        "folder [train], row 1: the prompt has 1 image placeholder(s), but column 'images' holds no image" in message
    )
    assert "leave the row out" in message


def test_empty_image_among_others():
    dataset = Dataset.from_dict({"prompt": [TEXT], "images": [[{"bytes": encoded(), "path": None}, None]]})
    assert "row 0, column 'images': image 1 is empty" in refusal(dataset)


@pytest.mark.parametrize(("num_images", "num_placeholders"), [(1, 2), (2, 1), (1, 0)])
def test_number_of_images_and_placeholders(num_images, num_placeholders):
    message = refusal(vision_dataset([[encoded()] * num_images], [parts(num_placeholders)]))
    assert f"row 0: {num_images} image(s) in column 'images', but {num_placeholders} image placeholder(s)" in message


def test_plain_text_message_takes_all_images():
    # TRL puts the images in front of the first plain user message, which leaves none for a placeholder elsewhere
    prompt = [{"role": "user", "content": [{"type": "image"}]}, {"role": "user", "content": "And?"}]
    dataset = [{"prompt": prompt, "images": [PILImage.new("L", (4, 4))]}]
    from trl import prepare_multimodal_messages

    from trl_r1v2.checks.rows import check_row

    with pytest.raises(ValueError, match="does not match number of image placeholders"):
        prepare_multimodal_messages(prompt, dataset[0]["images"])
    with pytest.raises(DatasetError, match="already takes all images"):
        check_row(dataset[0], place="row 0")


@pytest.mark.parametrize("column", ["image", "images"])
def test_truncated_image_file_is_named(tmp_path, column):
    path = tmp_path / "broken.png"
    path.write_bytes(encoded()[:-30])
    good = tmp_path / "good.png"
    good.write_bytes(encoded())
    values = [str(good), str(path)]
    feature = Image() if column == "image" else List(Image())
    values = values if column == "image" else [[value] for value in values]
    dataset = Dataset.from_dict(
        {"prompt": [TEXT, TEXT], column: values}, features=Features({"prompt": MESSAGES, column: feature})
    )
    message = refusal(dataset)
    assert f"row 1, column {column!r}, image 0 ({path}) cannot be decoded" in message and "Replace the file" in message


def test_bytes_that_are_no_image_and_missing_files(tmp_path):
    assert "image 0 cannot be decoded" in refusal(vision_dataset([[b"no image"]]))
    dataset = Dataset.from_dict({"prompt": [TEXT], "image": [str(tmp_path / "absent.png")]})
    assert "absent.png) cannot be decoded" in refusal(dataset)
    assert "a int is no image" in refusal(Dataset.from_dict({"prompt": [TEXT], "image": [3]}))


def test_plain_text_prompt_with_images():
    message = refusal(vision_dataset([[encoded()]], ["<image> What is it?"]))
    assert "row 0: the prompt is plain text, but the row has 1 image(s)" in message


def test_prompt_that_is_no_list_of_messages():
    assert "row 0, column 'prompt'" in refusal(Dataset.from_dict({"prompt": [["a", "b"]]}))


@pytest.mark.parametrize(("setting", "found"), [("all", True), ("none", False), (2, False), ("4", True), (99, True)])
def test_how_many_rows_are_read(setting, found):
    # the broken row is the last of four; two rows, spread evenly, are rows 0 and 2
    dataset = vision_dataset([[encoded()], [encoded()], [encoded()], [b"broken"]])
    if found:
        assert "row 3" in refusal(dataset, check_images=setting)
    else:
        assert check_dataset(dataset, name="x", check_images=setting, progress=False) == (
            0 if setting == "none" else 2
        )


def test_processes_share_the_rows():
    dataset = vision_dataset([[encoded()], [encoded()] * 10, [encoded()] * 100])
    shares = [check_dataset(dataset, name="x", shard=(rank, 2), progress=False) for rank in range(2)]
    assert shares == [101, 10]


def test_streaming_dataset_is_checked_at_its_start():
    rows = vision_dataset([[encoded()], [encoded()], [b"broken"]]).to_iterable_dataset()
    assert check_dataset(rows, name="x", check_images=2, progress=False) == 2
    assert "row 2" in refusal(rows)


@pytest.mark.parametrize("value", ["some", "0", "-1", "1.5"])
def test_refused_settings(value):
    with pytest.raises(ValueError, match="must be 'all', 'none' or a number of rows"):
        parse_check_images(value)


def test_reward_columns_are_what_the_trainer_does_not_provide():
    def first(completions, solution, log_metric, weight=1.0, **kwargs):
        return []

    class Second:
        def __call__(self, prompts, completions, solution, *, level, **kwargs):
            return []

    assert reward_columns([first, "some/model", Second()]) == ["solution", "level"]


def test_columns_of_our_own_rewards():
    """They take columns from keyword arguments, which no signature shows."""
    from trl_r1v2.rewards import AccuracyReward, HybridReward, accuracy_reward, format_reward, r1v2_reward

    assert reward_columns([accuracy_reward, format_reward]) == ["solution"]
    assert reward_columns([AccuracyReward(solution_column="gold")]) == ["gold"]
    assert reward_columns([r1v2_reward]) == ["solution"]
    hybrid = HybridReward({"accuracy": AccuracyReward("a"), "other": AccuracyReward("b")})
    assert reward_columns([hybrid]) == ["a", "b"]


def test_prompt_that_is_nothing():
    rows = Dataset.from_dict({"prompt": [[{"role": "user", "content": "x"}], None]})
    with pytest.raises(DatasetError, match="row 1, column 'prompt': NoneType where text"):
        check_dataset(rows, name="data", progress=False)


def png_of(width: int, height: int) -> bytes:
    """A valid header with hardly any data behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_500, 12_000, 20_000])
def test_pictures_beyond_the_limit_of_training_are_refused_by_their_header(side):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = refusal(vision_dataset([[png_of(side, side)]]))
    assert "row 0, column 'images', image 0 cannot be decoded" in message and "pixels" in message


def test_pictures_without_a_known_range_are_refused():
    dataset = [{"prompt": TEXT, "images": [PILImage.new("F", (4, 4))]}]
    from trl_r1v2.checks.rows import check_row, decode_image

    ((place, image),) = check_row(dataset[0], place="row 0")
    with pytest.raises(DatasetError, match="row 0, column 'images', image 0 cannot be decoded: .*mode 'F'"):
        decode_image(image, place=place)
