# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Rows in each public schema become prompts, images and answers, and every other schema is refused by name."""

import math

import pytest
from datasets import Dataset, Features, Value

from tests.support.public_rows import (
    AIME,
    AIME_ROWS,
    MATHVISION,
    MATHVISION_ROWS,
    MATHVISTA,
    MATHVISTA_ROWS,
    MMMU,
    MMMU_PRO_STANDARD,
    MMMU_PRO_STANDARD_ROWS,
    MMMU_PRO_VISION,
    MMMU_PRO_VISION_ROWS,
    MMMU_ROWS,
    OLYMPIAD,
    OLYMPIAD_ROWS,
    mathvision_row,
    mathvista_row,
    mmmu_row,
    olympiad_row,
    write,
)
from trl_r1v2.checks.rows import check_dataset
from trl_r1v2.evaluation.benchmarks import ADAPTERS, HARNESSES, PAPER_FIGURES, BenchmarkError, find_adapter
from trl_r1v2.evaluation.benchmarks.grading import KINDS
from trl_r1v2.evaluation.benchmarks.loading import check_schema, load_rows
from trl_r1v2.sampling.prompts import fill_images, read_example


SINGLE = {
    "aime_2024": (AIME, AIME_ROWS, "train"),
    "mmmu": (MMMU, MMMU_ROWS, "validation"),
    "mathvista": (MATHVISTA, MATHVISTA_ROWS, "testmini"),
    "mathvision": (MATHVISION, MATHVISION_ROWS, "testmini"),
    "olympiadbench": (OLYMPIAD, OLYMPIAD_ROWS, "train"),
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Each benchmark's rows as they are evaluated, read from a folder in the public schema."""
    folder = tmp_path_factory.mktemp("public")
    return {
        name: load_rows(find_adapter(name), write(folder / name, features, rows, split))
        for name, (features, rows, split) in SINGLE.items()
    }


def parts(row: dict) -> list[str]:
    return [part["text"] if part["type"] == "text" else "IMAGE" for part in row["prompt"][0]["content"]]


@pytest.mark.parametrize("name", SINGLE)
def test_rows_pass_the_check_and_hold_the_images_unchanged(name, loaded):
    rows = loaded[name]
    _, public, _ = SINGLE[name]
    assert len(rows) == len(public) and set(rows["kind"]) <= set(KINDS)
    check_dataset(rows, name=name, columns=["prompt", "solution"])
    if not ADAPTERS[name].image_columns:
        assert "images" not in rows.column_names
        return
    stored = rows.with_format("arrow")[:]["images"].to_pylist()
    for row, images in zip(public, stored, strict=True):
        wanted = [row[column] for column in ADAPTERS[name].image_columns if row.get(column) is not None]
        assert [image["bytes"] for image in images] == [image["bytes"] for image in wanted]
    example = read_example(rows, 0)
    shown = [part["image"].size for part in fill_images(example, 0)[0]["content"] if part["type"] == "image"]
    assert shown == [(12, 9)] * len(stored[0])


def test_aime_answers_are_numbers(loaded):
    rows = loaded["aime_2024"]
    assert [list(accepted) for accepted in rows["accepted"]] == [["204"], ["25"], ["0"]]
    assert rows[1]["prompt"][0]["content"].startswith("Find the number 1.\n\nPlease reason step by step")
    assert rows[2]["item_id"] == "62"


def test_mmmu_places_images_once_and_reads_lists(loaded):
    rows = loaded["mmmu"]
    first, open_number, open_text = (rows[index] for index in range(3))
    assert parts(first)[:4] == ["Which painting is older, ", "IMAGE", " or ", "IMAGE"]
    assert "A. [image 1]\nB. [image 2]\nC. They're of one year" in parts(first)[4]
    assert first["question"].endswith("A. [image 1]\nB. [image 2]\nC. They're of one year")
    assert (first["kind"], first["accepted"], first["task"]) == ("choice", ["B"], "Art_Theory")
    assert open_number["accepted"] == ["24.2", "twenty-four point two"] and open_number["decimals"] == 2
    # an image that the text does not name stands in front of it
    assert parts(open_text)[0] == "IMAGE" and parts(open_text)[1].startswith("Name the style.")


def test_mmmu_pro_is_both_configurations(tmp_path):
    folder = tmp_path / "pro"
    write(folder, MMMU_PRO_STANDARD, MMMU_PRO_STANDARD_ROWS, "test", "standard (10 options)")
    source = write(folder, MMMU_PRO_VISION, MMMU_PRO_VISION_ROWS, "test", "vision")
    rows = load_rows(find_adapter("mmmu_pro"), source)
    assert list(rows["task"]) == ["standard, Physics", "vision, Physics"]
    assert list(rows["solution"]) == ["J", "C"] and len(rows[1]["choices"]) == 10
    assert parts(rows[1])[0] == "IMAGE" and "9 N" not in parts(rows[1])[1]
    assert "J. 9 N" in rows[1]["question"]
    only = load_rows(find_adapter("mmmu_pro"), source, config="vision")
    assert list(only["task"]) == ["vision, Physics"]
    assert len(load_rows(find_adapter("mmmu_pro"), source, max_rows=1)) == 1
    with pytest.raises(BenchmarkError, match="no configuration 'standard', only .*'vision'.*dataset_config"):
        load_rows(find_adapter("mmmu_pro"), source, config="standard")
    with pytest.raises(BenchmarkError, match="no split 'validation'.*Correct `dataset_split`"):
        load_rows(find_adapter("mmmu_pro"), source, split="validation")


def test_mathvista_turns_a_choice_into_its_letter(loaded):
    rows = loaded["mathvista"]
    assert list(rows["kind"]) == ["integer", "decimal", "list", "choice"]
    assert rows[3]["accepted"] == ["B"] and rows[1]["decimals"] == 1 and rows[1]["solution"] == "1.2 $"
    assert parts(rows[0])[1].startswith("Hint: Please answer the question.\nQuestion: How much?\n\n")


def test_mathvista_reads_a_precision_in_either_type():
    rows = [mathvista_row(1, answer_type="float", answer="1.5", precision=precision) for precision in (1.0, "1.0", 1)]
    assert [ADAPTERS["mathvista"].read(row, "row").decimals for row in rows] == [1, 1, 1]


def test_a_split_without_rows_is_named(tmp_path):
    data = tmp_path / "empty" / "data"
    data.mkdir(parents=True)
    Dataset.from_dict({name: [] for name in AIME}, features=AIME).to_parquet(data / "train-00000-of-00001.parquet")
    with pytest.raises(BenchmarkError, match=r"empty \[default, train\] has no rows: choose another split"):
        load_rows(find_adapter("aime_2024"), str(tmp_path / "empty"))
    # rows that are there, and none of them taken
    with pytest.raises(BenchmarkError, match="has no rows"):
        load_rows(find_adapter("aime_2024"), write(tmp_path / "full", AIME, AIME_ROWS, "train"), max_rows=0)


def test_mathvision_lists_options_only_when_they_say_something(loaded):
    rows = loaded["mathvision"]
    assert list(rows["kind"]) == ["math", "choice", "choice"]
    assert parts(rows[0])[:2] == ["How many squares are there?\n", "IMAGE"]
    assert "A. A" not in rows[1]["question"]
    assert rows[2]["question"] == "Area? [image 1] and [image 2]\nA. $3\\pi$\nB. 6\nC. 9"


def test_olympiadbench_tells_what_is_wanted(loaded):
    rows = loaded["olympiadbench"]
    assert list(rows["kind"]) == ["math", "several", "math", "several", "prose", "math"]
    assert "joined by commas" in parts(rows[1])[-1] and "Give it in m/s" in parts(rows[2])[-1]
    assert parts(rows[2])[0].startswith("A ball falls.\n\nLook at ")
    assert rows[3]["tolerances"] == [0.5, 0.0] and rows[2]["task"] == "Physics, English"
    assert "最终答案" in parts(rows[4])[-1]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("aime_2024", "answer", "answers"),
        ("mmmu", "question_type", "question_types"),
        ("mmmu", "image_3", "image3"),
        ("mathvista", "decoded_image", "picture_decoded_image"),
        ("mathvision", "options", "option_list"),
        ("olympiadbench", "final_answer", "final_answers"),
    ],
)
def test_a_renamed_column_is_refused_by_name(name, old, new):
    features, _, _ = SINGLE[name]
    changed = Features({new if column == old else column: value for column, value in features.items()})
    with pytest.raises(BenchmarkError) as error:
        check_schema(ADAPTERS[name], Dataset.from_dict({column: [] for column in changed}, changed), "rows")
    message = str(error.value)
    assert f"rows: there is no column '{old}' (is it '{new}' now?)" in message
    assert ADAPTERS[name].title in message and "rename the column in a copy" in message


def test_images_of_another_type_are_refused():
    features = Features({**MATHVISION, "decoded_image": Value("string")})
    rows = Dataset.from_dict({column: [] for column in features}, features)
    with pytest.raises(BenchmarkError, match=r"'decoded_image' is of type .*string.*cast_column"):
        check_schema(ADAPTERS["mathvision"], rows, "rows")


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        ("aime_2024", {**AIME_ROWS[0], "answer": "1000"}, "'answer' is '1000', not an integer from 0 to 999"),
        ("aime_2024", {**AIME_ROWS[0], "answer": "a half"}, "'answer' is 'a half'"),
        ("mmmu", mmmu_row(1, question_type="fill-in"), "'question_type' is 'fill-in', but this adapter knows"),
        ("mmmu", mmmu_row(1, answer="?"), "no public answers, `validation` has"),
        ("mmmu", mmmu_row(1, answer="D"), "'answer' is 'D', but the options have the letters 'ABC'"),
        ("mmmu", mmmu_row(1, options="A or B"), "'options' is 'A or B', which is no list"),
        ("mmmu", mmmu_row(1, image_2=None), "the text names image 2, but the row holds the images [1]"),
        ("mmmu", mmmu_row(1, id="Art_1"), "not of the form validation_<subject>_<number>"),
        ("mathvista", mathvista_row(1, answer_type="date"), "'answer_type' is 'date', but this adapter knows"),
        ("mathvista", mathvista_row(1, answer=""), "no public answers, `testmini` has"),
        ("mathvista", mathvista_row(1, answer_type="float", answer="1.5"), "'precision' is empty"),
        *(
            (
                "mathvista",
                mathvista_row(1, answer_type="float", answer="1.5", precision=precision),
                f"'precision' is {precision!r}",
            )
            for precision in (math.nan, "one", 1.5, -1.0)
        ),
        ("mathvista", mathvista_row(1, question_type="multi_choice", choices=["1"]), "not one of the choices ['1']"),
        ("mathvision", mathvision_row(1, decoded_image=None), "'decoded_image' is empty"),
        ("mathvision", mathvision_row(1, options=["1", "2"], answer="3"), "options have the letters 'AB'"),
        ("olympiadbench", olympiad_row(1, answer_type="Essay"), "'answer_type' is 'Essay', but this adapter knows"),
        ("olympiadbench", olympiad_row(1, final_answer=None), "'final_answer' is None; a row with a proof"),
        ("olympiadbench", olympiad_row(1, error="small"), "'error' is 'small', not a tolerance"),
        ("olympiadbench", olympiad_row(1, language="German"), "'language' is 'German'"),
    ],
)
def test_a_row_of_another_schema_is_refused_by_place(name, row, expected):
    with pytest.raises(BenchmarkError) as error:
        ADAPTERS[name].read(row, "rows [default, test], row 1")
    assert expected in str(error.value) and str(error.value).startswith("rows [default, test], row 1: ")


def test_names_of_benchmarks():
    assert len({*ADAPTERS, *HARNESSES}) == 10 and PAPER_FIGURES.keys() == {*ADAPTERS, *HARNESSES}
    with pytest.raises(BenchmarkError, match="no benchmark 'mmu'.*did you mean 'mmmu'"):
        find_adapter("mmu")
    for name, harness in HARNESSES.items():
        with pytest.raises(BenchmarkError) as error:
            find_adapter(name, "my/model")
        message = str(error.value)
        assert "my/model" in message and harness.harness in message and "{" not in message.split("\n")[-1]


def test_paper_figures_are_those_of_the_sources():
    shares = {name: round(100 * figure.value, 1) for name, figure in PAPER_FIGURES.items()}
    assert shares == {
        "aime_2024": 78.9, "livecodebench": 63.6, "livebench": 73.2, "ifeval": 82.9, "bfcl": 66.3, "mmmu": 73.6,
        "mathvista": 74.0, "olympiadbench": 62.6, "mathvision": 49.0, "mmmu_pro": 52.0,
    }  # fmt: skip
    assert {figure.label for figure in PAPER_FIGURES.values()} == {"paper"}
