# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Rows of our own in the schemas of the public benchmarks, written as the parquet folders that the Hub would give."""

import io
from pathlib import Path

from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage


TEXT = Value("string")


def picture(shade: int) -> dict:
    """A JPEG, so that encoding it again would change its bytes."""
    image = PILImage.new("RGB", (12, 9), (shade, 255 - shade, 40))
    for x in range(12):
        image.putpixel((x, x % 9), (x * 20, shade, 0))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=60)
    return {"bytes": buffer.getvalue(), "path": None}


AIME = Features({"id": Value("int64"), **dict.fromkeys(("problem", "solution", "answer", "url", "year"), TEXT)})
AIME_ROWS = [
    {
        "id": 60 + index,
        "problem": f"Find the number {index}.",
        "solution": "…",
        "answer": answer,
        "url": "https://example.org",
        "year": "2024",
    }
    for index, answer in enumerate(("204", "025", "0"))
]

_IMAGES = {f"image_{number}": Image() for number in range(1, 8)}
MMMU = Features(
    {
        **dict.fromkeys(("id", "question", "options", "explanation"), TEXT),
        **_IMAGES,
        **dict.fromkeys(("img_type", "answer", "topic_difficulty", "question_type", "subfield"), TEXT),
    }
)


def mmmu_row(number: int, **changes) -> dict:
    return {
        "id": f"validation_Art_Theory_{number}",
        "question": "Which painting is older, <image 1> or <image 2>?",
        "options": "['<image 1>', '<image 2>', 'They\\'re of one year']",
        "explanation": "",
        **dict.fromkeys(_IMAGES),
        "image_1": picture(10 * number),
        "image_2": picture(10 * number + 5),
        "img_type": "['Paintings']",
        "answer": "B",
        "topic_difficulty": "Easy",
        "question_type": "multiple-choice",
        "subfield": "Painting",
        **changes,
    }


MMMU_ROWS = [
    mmmu_row(1),
    mmmu_row(
        2, question_type="open", options="[]", answer="['24.2', 'twenty-four point two']",
        question="How long is the line in <image 1>?", image_2=None,
    ),
    mmmu_row(3, question_type="open", options="[]", answer="Impressionism", question="Name the style.", image_2=None),
]  # fmt: skip

MMMU_PRO_STANDARD = Features(
    {
        **dict.fromkeys(("id", "question", "options", "explanation"), TEXT),
        **_IMAGES,
        **dict.fromkeys(("img_type", "answer", "topic_difficulty", "subject"), TEXT),
    }
)
MMMU_PRO_VISION = Features({"id": TEXT, "image": Image(), **dict.fromkeys(("options", "answer", "subject"), TEXT)})
TEN = str([f"{value} N" for value in range(10)])
MMMU_PRO_STANDARD_ROWS = [
    {
        "id": "test_Physics_1",
        "question": "What force acts in <image 1>?",
        "options": TEN,
        "explanation": "",
        **dict.fromkeys(_IMAGES),
        "image_1": picture(7),
        "img_type": "[]",
        "answer": "J",
        "topic_difficulty": "Hard",
        "subject": "Physics",
    }
]
MMMU_PRO_VISION_ROWS = [
    {"id": "test_Physics_1", "image": picture(8), "options": TEN, "answer": "C", "subject": "Physics"}
]

MATHVISTA = Features(
    {
        **dict.fromkeys(("pid", "question", "image"), TEXT),
        "decoded_image": Image(),
        "choices": List(TEXT),
        "unit": TEXT,
        "precision": Value("float64"),
        **dict.fromkeys(("answer", "question_type", "answer_type", "query"), TEXT),
        "metadata": {"category": TEXT, "split": TEXT},
    }
)


def mathvista_row(pid: int, **changes) -> dict:
    return {
        "pid": str(pid),
        "question": "How much?",
        "image": f"images/{pid}.jpg",
        "decoded_image": picture(pid),
        "choices": None,
        "unit": None,
        "precision": None,
        "answer": "7",
        "question_type": "free_form",
        "answer_type": "integer",
        "query": "Hint: Please answer the question.\nQuestion: How much?",
        "metadata": {"category": "general-vqa", "split": "testmini"},
        **changes,
    }


MATHVISTA_ROWS = [
    mathvista_row(1),
    mathvista_row(2, answer="1.2", answer_type="float", precision=1.0, unit="$"),
    mathvista_row(3, answer="[2007, 2008]", answer_type="list"),
    mathvista_row(4, answer="145°", answer_type="text", question_type="multi_choice", choices=["135°", "145°", "B"]),
]

MATHVISION = Features(
    {
        **dict.fromkeys(("id", "question"), TEXT),
        "options": List(TEXT),
        "image": TEXT,
        "decoded_image": Image(),
        "answer": TEXT,
        "solution": TEXT,
        "level": Value("int64"),
        "subject": TEXT,
    }
)


def mathvision_row(number: int, **changes) -> dict:
    return {
        "id": str(number),
        "question": "How many squares are there?\n<image1>",
        "options": [],
        "image": f"images/{number}.jpg",
        "decoded_image": picture(number),
        "answer": "\\frac{3}{8}",
        "solution": None,
        "level": 2,
        "subject": "counting",
        **changes,
    }


MATHVISION_ROWS = [
    mathvision_row(1),
    mathvision_row(2, options=["A", "B", "C", "D", "E"], answer="D"),
    mathvision_row(3, options=["$3\\pi$", "6", "9"], answer="A", question="Area? <image1> and <image2>"),
]

OLYMPIAD = Features(
    {
        "id": Value("int64"),
        "question": TEXT,
        "solution": List(TEXT),
        "final_answer": List(TEXT),
        "context": TEXT,
        **{f"image_{number}": Image() for number in range(1, 10)},
        "is_multiple_answer": Value("bool"),
        **dict.fromkeys(
            ("unit", "answer_type", "error", "question_type", "subfield", "subject", "language", "modality"), TEXT
        ),
    }
)


def olympiad_row(number: int, **changes) -> dict:
    return {
        "id": number,
        "question": "Look at <image_1>. Solve it.",
        "solution": ["…"],
        "final_answer": ["$\\frac{1}{2}$"],
        "context": None,
        **{f"image_{index}": picture(number) if index == 1 else None for index in range(1, 10)},
        "is_multiple_answer": False,
        "unit": None,
        "answer_type": "Numerical",
        "error": None,
        "question_type": "Open-ended",
        "subfield": "Geometry",
        "subject": "Math",
        "language": "English",
        "modality": "Multimodal",
        **changes,
    }


OLYMPIAD_ROWS = [
    olympiad_row(1),
    olympiad_row(2, is_multiple_answer=True, final_answer=["$\\pm 2$,$\\sqrt{5}$"], answer_type="Numerical"),
    olympiad_row(3, subject="Physics", context="A ball falls.", unit="m/s", final_answer=["9.8"], error="1e-1"),
    olympiad_row(4, is_multiple_answer=True, final_answer=["1.0,3.0"], error="5e-1,", answer_type="Numerical,Numerical"),
    olympiad_row(5, language="Chinese", answer_type="Need_human_evaluate", final_answer=["見圖"]),
    olympiad_row(6, answer_type="Expression", final_answer=["$x^2-1$"]),
]  # fmt: skip


def write(folder: Path, features: Features, rows: list[dict], split: str, config: str | None = None) -> str:
    """Write a split; several configurations get a page that names them, as on the Hub."""
    place = folder / ("data" if config is None else config)
    place.mkdir(parents=True, exist_ok=True)
    name = f"{split}-00000-of-00001.parquet"
    Dataset.from_list(rows, features=features).to_parquet(place / name)
    if config is not None:
        configs = sorted(path.name for path in folder.iterdir() if path.is_dir())
        entries = "".join(
            f"- config_name: {config_name}\n  data_files:\n  - split: {split}\n    path: {config_name}/{name}\n"
            for config_name in configs
        )
        (folder / "README.md").write_text(f"---\nconfigs:\n{entries}---\n")
    return str(folder)
