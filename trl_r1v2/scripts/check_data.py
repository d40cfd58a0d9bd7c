# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Check a data set as training would, before any model is loaded: columns, prompts, images, responses, gold answers.

    trl-r1v2 check-data --dataset_name data/geometry --model_name_or_path runs/composed

Ends with exit code 2 at the first row that training cannot use, naming the row and the remedy. Gold answers that the
accuracy reward cannot read, which training leaves unscored, are listed by row.
"""

from dataclasses import dataclass

from transformers.hf_argparser import HfArg

from ..checks.prompt_limits import PromptLimits
from ..checks.rows import check_dataset, parse_check_images
from ..rewards.answers import Answer, gold_text
from ..rewards.comparison import Verdict, compare
from .loading import load_split


@dataclass
class CheckDataArguments:
    """Arguments of `trl-r1v2 check-data`."""

    dataset_name: str = HfArg(help="Folder, file or Hub name of the data set.")
    dataset_config: str | None = HfArg(default=None, help="Configuration of a Hub data set.")
    dataset_train_split: str = HfArg(default="train", help="Split to check.")
    model_name_or_path: str | None = HfArg(default=None, help="Model by whose tokens and positions texts are judged.")
    solution_column: str = HfArg(default="solution", help="Column with the gold answers, if there is one.")
    check_images: str = HfArg(default="all", help="Rows to read: 'all', or a number of them.")

    def __post_init__(self):
        parse_check_images(self.check_images)


def unread_golds(golds) -> list[tuple[int, str]]:
    """Row and text of each gold answer that the accuracy reward cannot score, whatever the answer is."""
    found = []
    for row, gold in enumerate(golds):
        texts = [gold_text(item) for item in (gold if isinstance(gold, (list, tuple)) else [gold])]
        if not any(text and compare(Answer("", anchored=True), text) is Verdict.WRONG for text in texts):
            found.append((row, " | ".join(str(text) for text in texts)))
    return found


def main(args: CheckDataArguments):
    source, split = args.dataset_name, args.dataset_train_split
    dataset = load_split(source, args.dataset_config, split, entry="dataset_train_split")
    name = f"{source} [{split}]"
    limits = PromptLimits.from_pretrained(args.model_name_or_path) if args.model_name_or_path else None
    num_images = check_dataset(dataset, name=name, check_images=args.check_images, limits=limits)
    print(f"{name}: {len(dataset):,} rows, {num_images:,} images decoded, columns {', '.join(dataset.column_names)}.")
    if args.solution_column in dataset.column_names:
        unread = unread_golds(dataset[args.solution_column])
        print(f"{len(unread):,} of {len(dataset):,} gold answers cannot be read; no answer to them gets a verdict.")
        for row, text in unread[:20]:
            print(f"  row {row}: {text[:100]}")
