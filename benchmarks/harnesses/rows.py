# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Ten rows of our own for each harness, in the public data sets' schemas and under their names, so that the harnesses'
own tasks read them from the working directory in place of the Hub.

    python -m benchmarks.harnesses.rows FOLDER

BFCL's rows come with the harness: the ten to run are named. Does not cover serving nor running (`trl-r1v2 benchmark`).
"""

import base64
import json
import pickle
import sys
import zlib
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage


NUM_ROWS = 10
TEXT = Value("string")


def pictures(*names: str) -> Features:
    return Features({name: Image() for name in names})


def picture(number: int) -> PILImage.Image:
    return PILImage.fromarray(np.random.default_rng(number).integers(0, 256, (28, 28, 3), dtype=np.uint8))


def texts(*names: str) -> Features:
    return Features(dict.fromkeys(names, TEXT))


MMMU_IMAGES = [f"image_{number}" for number in range(1, 8)]
OLYMPIAD_IMAGES = [f"image_{number}" for number in range(1, 10)]


def write(folder: Path, features: dict, row: dict, split: str, configs: tuple[str, ...] = ("default",)) -> None:
    """
    Ten rows: those keys of `row` that are functions are called with the row's number; images that are not there are
    None.
    """
    rows = [
        {name: row[name](k) if callable(row.get(name)) else row.get(name) for name in features}
        for k in range(NUM_ROWS)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows, features=Features(features)).to_parquet(folder / f"{split}.parquet")
    entries = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: {split}\n    path: {split}.parquet\n" for name in configs
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{entries}---\n", encoding="utf-8")


def write_lmms_eval(folder: Path) -> None:
    mmmu = texts("id", "question", "options", "explanation", "img_type", "answer", "topic_difficulty", "question_type")
    question = {
        "id": lambda k: f"validation_Art_Theory_{k}",
        "question": "Which is older, <image 1> or <image 2>?",
        "options": "['<image 1>', '<image 2>']",
        "answer": lambda k: "AB"[k % 2],
        "question_type": "multiple-choice",
        "subfield": "Painting",
        "image_1": picture,
        "image_2": lambda k: picture(k + 100),
    }
    write(
        folder / "lmms-lab-encoder/MMMU", {**mmmu, "subfield": TEXT, **pictures(*MMMU_IMAGES)}, question, "validation"
    )
    pro = {**texts("id", "question", "options", "explanation", "answer", "subject"), **pictures("image", *MMMU_IMAGES)}
    choices = {**question, "options": str([f"{k} N" for k in range(10)]), "subject": "Physics", "image": picture}
    write(folder / "MMMU/MMMU_Pro", pro, choices, "test", ("standard (10 options)", "vision"))
    vista = {
        **texts("pid", "question", "image", "unit", "answer", "question_type", "answer_type", "query"),
        **pictures("decoded_image"),
        "choices": List(TEXT),
        "precision": Value("float64"),
        "metadata": {
            **texts("category", "context", "grade", "language", "source", "split", "task"),
            "skills": List(TEXT),
        },
    }
    metadata = dict.fromkeys(vista["metadata"], "x") | {"skills": ["arithmetic reasoning"]}
    integer = {"question_type": "free_form", "answer_type": "integer", "answer": str, "decoded_image": picture}
    integer |= {"pid": str, "question": "How much?", "query": "How much?", "metadata": metadata}
    write(folder / "AI4Math/MathVista", vista, integer, "testmini")
    vision = {**texts("id", "question", "image", "answer", "solution", "subject"), "options": List(TEXT)}
    squares = {
        "id": str,
        "question": "How many squares?\n<image1>",
        "options": [],
        "answer": str,
        "decoded_image": picture,
    }
    level = {"level": Value("int64"), **pictures("decoded_image")}
    write(
        folder / "MathLLMs/MathVision", {**vision, **level}, {**squares, "subject": "counting", "level": 1}, "testmini"
    )
    olympiad = {
        **texts(
            "question", "context", "unit", "answer_type", "error", "question_type", "subfield", "subject", "language"
        ),
        "id": Value("int64"),
        "is_multiple_answer": Value("bool"),
        "final_answer": List(TEXT),
        "solution": List(TEXT),
        **pictures(*OLYMPIAD_IMAGES),
    }
    problem = {
        "id": lambda k: k,
        "question": "Look at <image_1>. Solve it.",
        "final_answer": lambda k: [f"${k}$"],
        "solution": ["…"],
        "is_multiple_answer": False,
        "answer_type": "Numerical",
        "subfield": "Geometry",
        "subject": "Math",
        "image_1": picture,
    }
    configs = ("OE_MM_maths_en_COMP", "OE_MM_physics_en_COMP")
    write(folder / "Hothan/OlympiadBench", olympiad, problem, "train", configs)


def write_lighteval(folder: Path) -> None:
    aime = {"id": Value("int64"), **texts("problem", "solution", "answer", "url", "year")}
    problem = {
        "id": lambda k: k,
        "problem": lambda k: f"Find the number {k}.",
        "answer": str,
        "solution": "…",
        "year": "2024",
    }
    write(folder / "HuggingFaceH4/aime_2024", aime, problem, "train")
    code = texts(
        "question_title", "question_content", "platform", "question_id", "contest_id", "contest_date", "starter_code",
        "difficulty", "public_test_cases", "private_test_cases", "metadata",
    )  # fmt: skip
    tests = [{"input": "1\n", "output": "2\n", "testtype": "stdin"}]
    packed = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()  # the data set's own form
    double = {
        "question_title": "Double",
        "question_content": lambda k: f"Read a number and print it times {k}.",
        "question_id": str,
        "starter_code": "",
        "public_test_cases": json.dumps(tests),
        "private_test_cases": packed,
        "metadata": "{}",
    }
    write(folder / "lighteval/code_generation_lite", code, double, "test", ("v4_v5",))


def write_lm_eval(folder: Path) -> None:
    options = {"num_words": Value("int64"), "relation": TEXT}
    ifeval = {"key": Value("int64"), "prompt": TEXT, "instruction_id_list": List(TEXT), "kwargs": List(options)}
    row = {
        "key": lambda k: k,
        "prompt": "Write at least five words.",
        "instruction_id_list": ["length_constraints:number_words"],
        "kwargs": [{"num_words": 5, "relation": "at least"}],
    }
    write(folder / "google/IFEval", ifeval, row, "train")


def write_livebench(folder: Path) -> None:
    """Spatial reasoning: `data/` belongs into the harness's own folder."""
    rows = [
        {
            "question_id": f"ours-{k}",
            "category": "reasoning",
            "task": "spatial",
            "turns": [f"How many sides has a polygon with {k + 3} corners? Put the number in **bold**."],
            "ground_truth": str(k + 3),
            "livebench_release_date": "2024-07-26",
            "livebench_removal_date": "",
        }
        for k in range(NUM_ROWS)
    ]
    place = folder / "data/live_bench/reasoning/spatial"
    place.mkdir(parents=True, exist_ok=True)
    (place / "question.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_bfcl(folder: Path) -> None:
    """The harness's own rows; the file belongs into `BFCL_PROJECT_ROOT`."""
    chosen = {"simple_python": [f"simple_python_{k}" for k in range(NUM_ROWS)]}
    (folder / "test_case_ids_to_generate.json").write_text(json.dumps(chosen) + "\n", encoding="utf-8")


def main(folder: Path) -> None:
    for part in (write_lmms_eval, write_lighteval, write_lm_eval, write_livebench, write_bfcl):
        part(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
