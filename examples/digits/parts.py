# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Train the digit tasks' language model and vision tower from scratch, on a CPU, in about a minute.

    python -m examples.digits.parts --config recipes/digits/parts.yaml

Reads the folder of `data.py`; writes `<output_dir>/llm` (model and tokenizer) and `<output_dir>/vision` (tower and
image processor), which `trl-r1v2 compose` joins. A part that is there already, made from the same data and settings,
is kept. Not covered: the models and their training (`models.py`).
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path


PART_FILE = "part.json"


@dataclass
class DigitsPartsArguments:
    """
    Arguments of the command.
    """

    dataset_name: str = field(
        default="runs/digits/data", metadata={"help": "Folder that `examples.digits.data` wrote."}
    )
    output_dir: str = field(default="runs/digits/parts", metadata={"help": "Folder to write `llm` and `vision` in."})
    seed: int = field(default=0, metadata={"help": "Seed of the weights and batches."})
    llm_vocab_size: int = field(
        default=448, metadata={"help": "Largest vocabulary of the tokenizer, 256 bytes included."}
    )
    llm_hidden_size: int = field(default=96, metadata={"help": "Width of the language model, a multiple of 32."})
    llm_num_layers: int = field(default=2, metadata={"help": "Depth of the language model."})
    llm_steps: int = field(default=600, metadata={"help": "Optimiser steps of the language model."})
    llm_batch_size: int = field(default=32, metadata={"help": "Sequences in each of them."})
    llm_learning_rate: float = field(default=5e-3, metadata={"help": "Their peak learning rate."})
    vision_hidden_size: int = field(default=64, metadata={"help": "Width of the vision tower, a multiple of 32."})
    vision_num_layers: int = field(default=2, metadata={"help": "Depth of the vision tower."})
    vision_steps: int = field(default=1200, metadata={"help": "Optimiser steps of the vision tower."})
    vision_batch_size: int = field(default=64, metadata={"help": "Scans in each of them."})
    vision_learning_rate: float = field(default=1e-2, metadata={"help": "Their peak learning rate."})

    def __post_init__(self):
        for name in ("llm_hidden_size", "vision_hidden_size"):
            if vars(self)[name] < 32 or vars(self)[name] % 32:
                raise ValueError(f"`{name}` is {vars(self)[name]}; heads are 32 wide: give a positive multiple of 32.")
        if self.llm_vocab_size < 261:
            raise ValueError(
                f"`llm_vocab_size` is {self.llm_vocab_size}; 256 bytes and 3 special tokens come before any merge: "
                "give more than 260."
            )
        for name, value in vars(self).items():
            if name.endswith(("_steps", "_batch_size", "_num_layers")) and value < 1:
                raise ValueError(f"`{name}` is {value}; give at least 1.")

    def part_settings(self, prefix: str) -> dict:
        """The settings that the part `prefix` depends on."""
        return {name: value for name, value in asdict(self).items() if name == "seed" or name.startswith(prefix + "_")}


def main(script_args: DigitsPartsArguments):
    from trl_r1v2.checks.rows import DatasetError

    card = Path(script_args.dataset_name) / "README.md"
    if not card.is_file():
        raise DatasetError(
            f"{card}: there is no such file. `dataset_name` is the folder of `examples.digits.data`: run that first."
        )
    data_digest = hashlib.sha256(card.read_bytes()).hexdigest()
    for prefix, train in (("llm", train_llm), ("vision", train_vision)):
        folder = Path(script_args.output_dir) / prefix
        source = {"data": data_digest, "settings": script_args.part_settings(prefix)}
        if is_made_from(folder, source):
            print(f"{folder}: kept, it was made from the same data and settings.")
            continue
        measured = train(script_args, folder)
        # last, so that a part without it is made again
        (folder / PART_FILE).write_text(json.dumps({**source, "measured": measured}, indent=2), encoding="utf-8")
        print(f"{folder}: " + ", ".join(f"{name} {value:,}" for name, value in measured.items()))
    print(
        f"Join the parts: trl-r1v2 compose --vision {script_args.output_dir}/vision --llm {script_args.output_dir}/llm"
    )


def is_made_from(folder: Path, source: dict) -> bool:
    """Whether `folder` holds a finished part made from `source` (data digest and settings)."""
    path = folder / PART_FILE
    if not path.is_file():
        return False
    made_from = json.loads(path.read_text(encoding="utf-8"))
    return {name: made_from[name] for name in source} == source


def train_llm(script_args: DigitsPartsArguments, folder: Path) -> dict[str, float]:
    """Train tokenizer and language model, save both in `folder`, and return what was measured."""
    from datasets import load_dataset
    from transformers import set_seed

    from .models import new_language_model, train_language_model, train_tokenizer

    # The demonstrations' text as well: the tokenizer has to know the words of guesses, which the model learns later.
    rows = [
        row["prompt"] + row["completion"]
        for config in ("text", "align")
        for row in load_dataset(script_args.dataset_name, config, split="train").select_columns(
            ["prompt", "completion"]
        )
    ]
    texts = (
        text for messages in rows for message in messages for text in (message["role"] + "\n", message["content"])
    )
    tokenizer = train_tokenizer(texts, script_args.llm_vocab_size)
    set_seed(script_args.seed)
    model = new_language_model(tokenizer, script_args.llm_hidden_size, script_args.llm_num_layers)
    loss = train_language_model(
        model,
        tokenizer,
        load_dataset(script_args.dataset_name, "text", split="train"),
        num_steps=script_args.llm_steps,
        batch_size=script_args.llm_batch_size,
        learning_rate=script_args.llm_learning_rate,
        seed=script_args.seed,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"parameters": model.num_parameters(), "vocabulary": len(tokenizer), "loss": round(loss, 4)}


def train_vision(script_args: DigitsPartsArguments, folder: Path) -> dict[str, float]:
    """Train the vision tower, save it with its image processor in `folder`, and return what was measured."""
    from datasets import load_dataset
    from transformers import set_seed

    from .models import (
        classification_accuracy,
        new_image_processor,
        new_vision_tower,
        train_vision_tower,
    )

    scans = load_dataset(script_args.dataset_name, "scans")
    image_processor = new_image_processor()
    set_seed(script_args.seed)
    tower = new_vision_tower(script_args.vision_hidden_size, script_args.vision_num_layers)
    head = train_vision_tower(
        tower,
        image_processor,
        scans["train"],
        num_steps=script_args.vision_steps,
        batch_size=script_args.vision_batch_size,
        learning_rate=script_args.vision_learning_rate,
        seed=script_args.seed,
    )
    accuracy = classification_accuracy(tower, head, image_processor, scans["validation"])
    tower.save_pretrained(folder)
    image_processor.save_pretrained(folder)
    return {"parameters": tower.num_parameters(), "validation_accuracy": round(accuracy, 4)}


def make_parser(prog: str | None = None):
    from trl_r1v2.scripts.parser import RecipeParser

    return RecipeParser((DigitsPartsArguments,), prog=prog)


if __name__ == "__main__":
    raise SystemExit(make_parser().run(main))
