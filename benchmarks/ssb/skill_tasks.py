# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Tasks on which reinforcement learning adds skill, and their bases: small models trained on right demonstrations of
short problems alone, nothing else shown. The prompts of reinforcement learning mix lengths that the base masters with
lengths that it was never shown, where not even 32 samples get there. The reward is 1 for exactly the right answer.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from datasets import Image as ImageColumn
from PIL import Image, ImageDraw
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    GotOcr2ImageProcessor,
    InternVLVisionConfig,
    InternVLVisionModel,
    ProcessorMixin,
    set_seed,
)

from examples.digits.models import fit, new_language_model, train_tokenizer
from trl_r1v2.sampling.prompts import encode_prompts, read_prompt, tokenizer_of
from trl_r1v2.vlm.compose import compose_vlm


LETTERS = "abcdefghijklmnopqrstuvwxyz"
CELLS, CELL_SIZE = 4, 8  # cells a side, pixels a side
COLOURS = [(red, green, blue) for red in (0, 128, 255) for green in (0, 128, 255) for blue in (0, 128, 255)][:-1]


# ---- Text: letters to put in order ----


def draw_letters(rng: random.Random, length: int) -> tuple[str, ...]:
    return tuple(rng.sample(LETTERS, length))


# ---- Images: which colours a chequered picture shows, in alphabetical order of their names ----


def draw_cells(rng: random.Random, length: int) -> tuple[tuple[int, str], ...]:
    """Distinct colours, each in a cell of its own."""
    places, names = sorted(rng.sample(range(CELLS**2), length)), rng.sample(LETTERS[: len(COLOURS)], length)
    return tuple(zip(places, names, strict=True))


def picture(cells: tuple[tuple[int, str], ...]) -> Image.Image:
    image = Image.new("RGB", (CELLS * CELL_SIZE, CELLS * CELL_SIZE), "white")
    for place, name in cells:
        left, top = place % CELLS * CELL_SIZE, place // CELLS * CELL_SIZE
        box = (left, top, left + CELL_SIZE - 1, top + CELL_SIZE - 1)
        ImageDraw.Draw(image).rectangle(box, fill=COLOURS[LETTERS.index(name)])
    return image


@dataclass(frozen=True)
class Task:
    """
    What is asked, and what the base is shown.

    Args:
        draw: A problem of a length.
        question, answer: Its texts.
        shown, asked: Lengths in the demonstrations, and in the prompts of training and of tests.
        max_tokens: Longest completion.
        picture: Its image, if it has one.
        base_steps, base_rate: Batches of 64 demonstrations, and the peak learning rate.
    """

    draw: Callable[[random.Random, int], tuple]
    question: Callable[[tuple], str]
    answer: Callable[[tuple], str]
    shown: range
    asked: range
    max_tokens: int
    base_steps: int
    base_rate: float = 4e-3
    hidden_size: int = 64
    num_layers: int = 2
    picture: Callable[[tuple], Image.Image] | None = None
    steps: int = 150

    def row(self, problem: tuple) -> dict:
        answer = self.answer(problem)
        row = {"prompt": [{"role": "user", "content": self.question(problem)}], "solution": answer}
        row |= {"completion": [{"role": "assistant", "content": answer}], "length": len(answer)}
        return row if self.picture is None else row | {"image": self.picture(problem)}

    def rows(self, problems: list[tuple]) -> Dataset:
        rows = Dataset.from_list([self.row(problem) for problem in problems])
        return rows if self.picture is None else rows.cast_column("image", ImageColumn())

    def problems(self, lengths: range, count: int, seed: int, without: set[tuple]) -> list[tuple]:
        """Distinct problems, lengths in turn, none of `without`; fewer of a length that has no more."""
        rng, found = random.Random(seed), {}
        for index in range(20 * count):
            problem = self.draw(rng, lengths[index % len(lengths)])
            if problem not in without:
                found[problem] = None
            if len(found) == count:
                break
        found = list(found)
        rng.shuffle(found)
        return found


TASKS = {
    "sort": Task(
        draw=draw_letters,
        question="".join,
        answer=lambda problem: "".join(sorted(problem)),
        shown=range(2, 5),
        asked=range(2, 11),
        max_tokens=12,
        base_steps=400,
    ),
    "colours": Task(
        draw=draw_cells,
        question=lambda problem: "",
        answer=lambda problem: "".join(sorted(name for _, name in problem)),
        shown=range(2, 5),
        asked=range(2, 11),
        max_tokens=12,
        base_steps=350,
        picture=picture,
    ),
}


def answer_reward(completions, solution, **kwargs) -> list[float]:
    return [float(messages[0]["content"] == right) for messages, right in zip(completions, solution, strict=True)]


# ---- Bases ----


def load_model(folder: Path):
    """Model in float32 and processing class of a folder."""
    processing_class = AutoProcessor.from_pretrained(folder)
    with_images = isinstance(processing_class, ProcessorMixin)
    kind = AutoModelForImageTextToText if with_images else AutoModelForCausalLM
    return kind.from_pretrained(folder, dtype=torch.float32), processing_class


def new_model(task: Task, folder: Path, texts: list[str]) -> None:
    """Write a model with random weights and its processing class."""
    set_seed(0)
    tokenizer = train_tokenizer(iter(texts), vocab_size=259)  # a token a character
    model = new_language_model(tokenizer, task.hidden_size, task.num_layers)
    parts = folder if task.picture is None else folder.parent / "parts" / "llm"
    model.save_pretrained(parts)
    tokenizer.save_pretrained(parts)
    if task.picture is not None:
        config = InternVLVisionConfig(
            hidden_size=64,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=CELLS * CELL_SIZE,
            patch_size=CELL_SIZE // 2,
            initializer_range=0.1,
            layer_scale_init_value=1.0,
        )
        vision = folder.parent / "parts" / "vision"
        InternVLVisionModel(config).save_pretrained(vision)
        side = CELLS * CELL_SIZE
        GotOcr2ImageProcessor(size={"height": side, "width": side}, crop_to_patches=True).save_pretrained(vision)
        compose_vlm(str(vision), str(parts), str(folder), max_patches=1, dtype="float32", progress=False)


def train_base(model, processing_class, shown: Dataset, num_steps: int, rate: float) -> None:
    """Train on the completions of demonstrations, 64 a step."""
    tokenizer = tokenizer_of(processing_class)
    answers = [tokenizer(row["completion"][0]["content"] + tokenizer.eos_token)["input_ids"] for row in shown]
    prompts = [read_prompt(shown, row, processing_class) for row in range(len(shown))]
    inputs = encode_prompts(processing_class, prompts, answers)
    inputs["labels"] = torch.full_like(inputs["input_ids"], -100)
    for row, answer in enumerate(answers):
        inputs["labels"][row, -len(answer) :] = inputs["input_ids"][row, -len(answer) :]
    generator = torch.Generator().manual_seed(0)

    def loss() -> torch.Tensor:
        index = torch.randint(len(answers), (64,), generator=generator)
        return model(**{name: value[index] for name, value in inputs.items()}).loss

    model.train()
    fit(list(model.parameters()), loss, num_steps, rate, "base")


def make_base(task: Task, folder: Path) -> None:
    """Data of training, validation and test, which share no problem, and the base."""
    used: set[tuple] = set()
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for seed, (split, count) in enumerate({"test": 500, "validation": 300, "train": 3000}.items()):
        problems = task.problems(task.asked, count, seed, used)
        used |= set(problems)
        task.rows(problems).remove_columns("completion").to_parquet(folder / "data" / f"{split}.parquet")
    shown = task.rows(task.problems(task.shown, 4000, 3, used))
    texts = [f"{part['role']}\n{part['content']}" for row in shown for part in row["prompt"] + row["completion"]]
    new_model(task, folder / "base", texts)
    model, processing_class = load_model(folder / "base")
    train_base(model, processing_class, shown, task.base_steps, task.base_rate)
    model.save_pretrained(folder / "base")
