# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Measure a model: greedy accuracy, Pass@1 over k sampled runs, format rate and hallucination rate, for each task.

    trl-r1v2 evaluate --config recipes/digits/evaluate_grpo.yaml

Writes `metrics.json`, `records.parquet` (every response with its score) and `rollouts/` to `output_dir`. A run that was
interrupted goes on where it stopped. One process, one device.
"""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path


METRICS_FILE, RECORDS_FILE = "metrics.json", "records.parquet"
SCHEMA_VERSION = 1


@dataclass
class EvaluateArguments:
    """
    Arguments of `trl-r1v2 evaluate`.
    """

    model_name_or_path: str = field(
        metadata={
            "help": "Folder or Hub name of the model and its processor; a folder of PEFT adapters is merged into its base."
        }
    )
    dataset_name: str = field(
        metadata={"help": "Folder or Hub name of the dataset, as `datasets.load_dataset` takes."}
    )
    output_dir: str = field(metadata={"help": "Folder for metrics, records and rollouts."})
    label: str | None = field(
        default=None, metadata={"help": "Name of this evaluation in the report. Unset: name of the output folder."}
    )
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the model."})
    dtype: str = field(
        default="auto",
        metadata={"help": "Number format of the weights.", "choices": ["auto", "float32", "bfloat16", "float16"]},
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "Attention, as `from_pretrained` takes it."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of the dataset."})
    dataset_split: str = field(default="test", metadata={"help": "Split to measure on."})
    max_rows: int | None = field(default=None, metadata={"help": "Measure on the first rows only. Unset: all."})
    check_images: str = field(
        default="all",
        metadata={"help": "Rows whose images are decoded beforehand: 'all', 'none' or a number of rows."},
    )
    num_samples: int = field(
        default=5, metadata={"help": "Sampled runs, k of Pass@1 (R1V2, section 4: 5). 0: greedy only."}
    )
    max_new_tokens: int = field(default=4096, metadata={"help": "Longest response, in tokens."})
    temperature: float = field(default=1.0, metadata={"help": "Temperature of the sampled runs."})
    top_p: float = field(default=1.0, metadata={"help": "Nucleus mass of the sampled runs."})
    batch_size: int = field(default=64, metadata={"help": "Responses generated at once."})
    seed: int = field(default=0, metadata={"help": "Seed of the sampled runs."})
    accuracy_reward: str = field(
        default="trl_r1v2.rewards.accuracy_reward",
        metadata={"help": "Reward function that judges the answer: a dotted path, values in [0, 1] or None."},
    )
    format_reward: str = field(
        default="trl_r1v2.rewards.format_reward",
        metadata={"help": "Reward function that judges the form: a dotted path, values in [0, 1]."},
    )
    hallucination_func: str | None = field(
        default=None,
        metadata={
            "help": "Function (response, column value) → what the response claims without support: a dotted path. "
            "Measured on rows with images."
        },
    )
    hallucination_column: str | None = field(
        default=None, metadata={"help": "Column with what the images hold, for `hallucination_func`."}
    )

    def __post_init__(self):
        from ..datasets.checks import parse_check_images

        parse_check_images(self.check_images)
        for name, least in (("num_samples", 0), ("max_new_tokens", 1), ("batch_size", 1)):
            if vars(self)[name] < least:
                raise ValueError(f"`{name}` is {vars(self)[name]}; give at least {least}.")
        if self.max_rows is not None and self.max_rows < 1:
            raise ValueError(f"`max_rows` is {self.max_rows}; give at least 1, or leave it out for all rows.")
        if self.temperature <= 0:
            raise ValueError(
                f"`temperature` is {self.temperature}; give more than 0 (greedy decoding is always measured)."
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"`top_p` is {self.top_p}; give more than 0 and at most 1.")
        if (self.hallucination_func is None) != (self.hallucination_column is None):
            raise ValueError("`hallucination_func` and `hallucination_column` belong together: set both or neither.")


def main(eval_args: EvaluateArguments):
    import torch
    from transformers import AutoProcessor

    from ..cli.loading import import_by_name, load_model
    from ..evaluation.records import GREEDY, SAMPLED, Scorers, score_rollouts, summarize, write_records
    from ..sampling import dataset_fingerprint, model_fingerprint

    unsupported = eval_args.hallucination_func and import_by_name(
        eval_args.hallucination_func, entry="hallucination_func"
    )
    scorers = Scorers(
        accuracy=import_by_name(eval_args.accuracy_reward, entry="accuracy_reward"),
        format=import_by_name(eval_args.format_reward, entry="format_reward"),
        unsupported=unsupported,
        unsupported_column=eval_args.hallucination_column,
    )
    dataset = load_rows(eval_args, scorers)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    path, revision = eval_args.model_name_or_path, eval_args.model_revision
    processor = AutoProcessor.from_pretrained(path, revision=revision, padding_side="left")
    model = load_model(
        path,
        revision=revision,
        dtype=eval_args.dtype,
        attn_implementation=eval_args.attn_implementation,
        device_map=None,
    ).to(device)

    fingerprint = {"model": model_fingerprint(model), "dataset": dataset_fingerprint(dataset)}
    records, seconds = [], {}
    for mode in (GREEDY, SAMPLED) if eval_args.num_samples else (GREEDY,):
        rollouts, seconds[mode] = sample_mode(eval_args, mode, model, processor, dataset, fingerprint)
        start = time.perf_counter()
        records += score_rollouts(rollouts, dataset, scorers, mode)
        seconds[f"scoring_{mode}"] = time.perf_counter() - start

    folder = Path(eval_args.output_dir)
    write_records(records, folder / RECORDS_FILE)
    tokens = {
        mode: sum(record.num_tokens for record in records if record.mode == mode)
        for mode in dict.fromkeys(record.mode for record in records)
    }
    metrics = {
        "schema_version": SCHEMA_VERSION,
        "label": eval_args.label or folder.name,
        "settings": asdict(eval_args),
        "fingerprint": fingerprint,
        "num_rows": len(dataset),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else str(device),
        "tasks": summarize(records),
        "generated_tokens": tokens,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }
    (folder / METRICS_FILE).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print_metrics(metrics, folder)


def load_rows(eval_args: EvaluateArguments, scorers):
    """
    Load and check the rows to measure on.

    Args:
        eval_args ([`EvaluateArguments`]):
            Names of dataset and split, and how much to check.
        scorers ([`~trl_r1v2.evaluation.records.Scorers`]):
            Reward functions, whose columns have to exist.

    Returns:
        `Dataset`: Rows.

    Raises:
        DatasetError: The dataset cannot be used.
    """
    from ..cli.loading import load_splits, take_split
    from ..datasets.checks import check_dataset
    from ..rewards.columns import reward_columns

    source, split = eval_args.dataset_name, eval_args.dataset_split
    dataset = take_split(load_splits(source, eval_args.dataset_config), split, entry="dataset_split", source=source)
    if eval_args.max_rows is not None:
        dataset = dataset.select(range(min(eval_args.max_rows, len(dataset))))
    columns = ["prompt", *reward_columns([scorers.accuracy, scorers.format])]
    if scorers.unsupported_column is not None:
        columns.append(scorers.unsupported_column)
    check_dataset(dataset, name=f"{source} [{split}]", columns=columns, check_images=eval_args.check_images)
    return dataset


def sample_mode(eval_args: EvaluateArguments, mode: str, model, processor, dataset, fingerprint: dict):
    """
    Sample the responses of one mode, or those that an interrupted run has left out.

    Args:
        eval_args ([`EvaluateArguments`]):
            Settings of the sampling.
        mode (`str`):
            `"greedy"` or `"sampled"`.
        model, processor, dataset:
            As for [`~trl_r1v2.sampling.sample_responses`].
        fingerprint (`dict[str, str]`):
            Digests of model and dataset; responses of others are refused.

    Returns:
        `tuple[list[Rollout], float]`: Responses ordered by row, and the seconds of generating them.
    """
    from ..evaluation.records import GREEDY
    from ..sampling import RolloutStore, sample_chunks

    settings = {
        "num_samples": 1 if mode == GREEDY else eval_args.num_samples,
        "max_new_tokens": eval_args.max_new_tokens,
        "do_sample": mode != GREEDY,
        "batch_size": eval_args.batch_size,
        "seed": eval_args.seed,
    }
    if mode != GREEDY:
        settings |= {"temperature": eval_args.temperature, "top_p": eval_args.top_p}
    folder = Path(eval_args.output_dir) / "rollouts" / mode
    store = RolloutStore(folder, {**fingerprint, **settings})
    clock_path = folder / "seconds.json"
    seconds = json.loads(clock_path.read_text(encoding="utf-8")) if clock_path.is_file() else 0.0
    rows = range(len(dataset))
    start = time.perf_counter()
    for chunk in sample_chunks(model, processor, dataset, rows=store.remaining(rows), **settings):
        store.append_rollouts(chunk)
        seconds += time.perf_counter() - start
        temporary = clock_path.with_suffix(".tmp")
        temporary.write_text(json.dumps(seconds), encoding="utf-8")
        temporary.replace(clock_path)
        start = time.perf_counter()
    return RolloutStore.merge(folder, rows, settings["num_samples"]), seconds


def print_metrics(metrics: dict, folder: Path) -> None:
    """Print the figures as a table, one line a task."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{metrics['label']}: {metrics['num_rows']} rows of {metrics['settings']['dataset_split']}")
    table.add_column("task", no_wrap=True)
    for heading in ("rows", "greedy", "Pass@1", "(95 %)", "format", "halluc.", "tokens"):
        table.add_column(heading, justify="right", no_wrap=True)
    for task, modes in metrics["tasks"].items():
        main_mode = modes.get("sampled", modes["greedy"])
        cells = [_percent(modes["greedy"]["accuracy"]), _percent(modes.get("sampled", {}).get("accuracy"))]
        accuracy = main_mode["accuracy"]
        cells.append(f"{100 * accuracy['low']:.1f}–{100 * accuracy['high']:.1f}" if accuracy else "")
        cells += [_percent(main_mode["format_rate"]), _percent(main_mode["hallucination_rate"])]
        table.add_row(task, str(main_mode["num_rows"]), *cells, f"{main_mode['mean_tokens']:.0f}")
    console = Console()
    console.print(table)
    num_unjudged = sum(mode["num_unjudged"] for mode in metrics["tasks"]["all"].values())
    if num_unjudged:
        console.print(f"{num_unjudged} responses could not be judged; rows without any judged response are left out.")
    console.print(f"Metrics and records are in {folder}.")


def _percent(estimate: dict | None) -> str:
    return f"{100 * estimate['value']:.1f} %" if estimate else "–"


def make_parser(prog: str | None = None):
    from ..cli.parser import RecipeParser

    return RecipeParser((EvaluateArguments,), prog=prog)


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
