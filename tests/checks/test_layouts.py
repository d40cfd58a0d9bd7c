# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Ten layouts of data sets as people have them: each works, or is refused with two lines that convert it, which then
work.
"""

import io
import json

import pytest
from datasets import Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as PILImage

from trl_r1v2.checks.rows import DatasetError, check_dataset
from trl_r1v2.scripts.check_data import main, unread_golds
from trl_r1v2.scripts.loading import load_splits
from trl_r1v2.scripts.parser import parser_of


PICTURE = PILImage.new("RGB", (32, 24), "red")
QUESTION = "<image>\nWhat is shown?"
PROMPT = [{"role": "user", "content": QUESTION}]
REPLY = [{"role": "assistant", "content": "A square."}]
OTHER = [{"role": "assistant", "content": "A circle."}]


def png() -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, "png")
    return buffer.getvalue()


CONVERTED = {
    "MMPR": {"image": PICTURE, "question": QUESTION, "chosen": "A square.", "rejected": "A circle."},
    "RLHF-V": {"image": PICTURE, "text": json.dumps({"question": QUESTION, "chosen": "A square.", "rejected": "No."})},
    "Geometry3K": {"images": [PICTURE], "problem": QUESTION, "answer": "3 \\sqrt { 2 }"},
    "MMK12": {"image": PICTURE, "question": QUESTION, "answer": "B"},
    "LLaVA": {
        "image": PICTURE,
        "conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": "A square."}],
    },
    "messages": {"images": [PICTURE], "messages": PROMPT + REPLY},
    "numbered": {
        "image_1": PICTURE,
        "image_2": PICTURE,
        "prompt": [{"role": "user", "content": QUESTION + "<image>"}],
    },
}


@pytest.mark.parametrize("name", CONVERTED)
def test_a_known_layout_is_refused_with_the_lines_that_convert_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = Dataset.from_list([CONVERTED[name]] * 2)
    with pytest.raises(DatasetError) as refusal:
        check_dataset(dataset, name=name, progress=False)
    lines = str(refusal.value).splitlines()[-2:]
    exec("\n".join(lines), {"dataset": DatasetDict(train=dataset)})
    assert check_dataset(load_splits("converted")["train"], name=name, progress=False) == (
        4 if name == "numbered" else 2
    )


@pytest.mark.parametrize("column", ["image", "images"])
@pytest.mark.parametrize("form", ["bytes", "path", "list", "picture"])
def test_images_are_read_however_they_are_kept(column, form, tmp_path):
    PICTURE.save(tmp_path / "a.png")
    picture = {
        "bytes": {"bytes": png(), "path": None},
        "path": str(tmp_path / "a.png"),
        "list": [str(tmp_path / "a.png")],
        "picture": PICTURE,
    }[form]
    dataset = Dataset.from_list([{"prompt": PROMPT, column: picture}])
    assert check_dataset(dataset, name=form, progress=False) == 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"chosen": None}, "row 1, column 'chosen': no response"),
        ({"chosen": "A square."}, "row 0, column 'chosen': a str beside a prompt of messages"),
        ({"chosen": REPLY[0]}, "row 0, column 'chosen': a dict beside a prompt of messages"),
        (
            {"chosen": PROMPT + REPLY},
            "row 0, column 'chosen': begins with a message of 'user', so the prompt would be",
        ),
        ({"prompt": "What?", "image": None}, "row 0, column 'chosen': messages beside a prompt of plain text"),
    ],
)
def test_responses_that_do_not_fit_their_prompt_are_refused_with_the_row(columns, message):
    row = {"prompt": PROMPT, "image": PICTURE, "chosen": REPLY, "rejected": OTHER, **columns}
    first = {**row, "chosen": REPLY} if columns == {"chosen": None} else row
    with pytest.raises(DatasetError, match=message):
        check_dataset(Dataset.from_list([first, row]), name="pairs", progress=False)


def test_golds_that_cannot_be_read_are_listed_by_row(tmp_path, capsys):
    golds = ["5", r"\sum_k k", ["x+1", r"\foo"], "", "B", "a cat", r"1-\frac{1}{\mathrm{e}}"]
    assert [row for row, _ in unread_golds(golds)] == [1, 3]
    dataset = Dataset.from_list([{"prompt": "Q", "solution": gold} for gold in ("5", r"\sum_k k")])
    DatasetDict(train=dataset).save_to_disk(tmp_path / "data")
    parser = parser_of(main)
    assert parser.run(main, ["--dataset_name", str(tmp_path / "data")]) == 0
    printed = capsys.readouterr().out
    assert "1 of 2 gold answers cannot be read" in printed and r"row 1: \sum_k k" in printed


def test_an_image_column_of_another_name_is_not_passed_over():
    features = Features({"prompt": Value("string"), "decoded": Image(), "several": List(Image())})
    dataset = Dataset.from_list([{"prompt": "Q", "decoded": PICTURE, "several": [PICTURE]}], features=features)
    with pytest.raises(DatasetError, match="no trainer reads images in 'decoded', 'several'"):
        check_dataset(dataset, name="named", progress=False)
