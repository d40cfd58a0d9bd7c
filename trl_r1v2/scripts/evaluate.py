# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Measure a model: greedy accuracy, Pass@1 over k sampled runs, pass@k, majority, format and hallucination rate, by task.

    trl-r1v2 evaluate --config recipes/digits/evaluate_grpo.yaml

On a data set of one's own; public benchmarks go through their harnesses (`trl-r1v2 benchmark`). Writes `metrics.json`,
`records.parquet` (every response with its score) and `rollouts/` to `output_dir`. A run that was interrupted goes on
where it stopped. One process, one device.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers.hf_argparser import HfArg

from ..checks.rows import check_dataset, parse_check_images
from ..evaluation.records import GREEDY, SAMPLED, Scorers, score_rollouts, summarize, write_records
from ..evaluation.terminal import print_metrics
from ..hallucination.threshold_files import write_atomically
from ..rewards import AccuracyReward, FormatReward
from ..rewards.columns import reward_columns
from ..sampling.fingerprints import dataset_fingerprint
from ..sampling.rollouts import RolloutStore
from .generation import GenerationArguments, open_engine
from .loading import import_by_name, load_split


METRICS_FILE, RECORDS_FILE = "metrics.json", "records.parquet"
SCHEMA_VERSION = 1
ACCURACY_REWARD, FORMAT_REWARD = "trl_r1v2.rewards.accuracy_reward", "trl_r1v2.rewards.format_reward"


@dataclass(kw_only=True)
class EvaluateArguments(GenerationArguments):
    """Arguments of `trl-r1v2 evaluate`."""

    model_revision: str | None = HfArg(default=None, help="Branch, tag or commit of the model.")
    label: str | None = HfArg(default=None, help="Name of this evaluation in the report. Unset: the folder's.")
    dataset_split: str = HfArg(default="test", help="Split to measure on.")
    max_rows: int | None = HfArg(default=None, help="Measure on the first rows only. Unset: all.")
    check_images: str = HfArg(default="all", help="Rows whose images are decoded first: 'all', 'none' or a number.")
    num_samples: int = HfArg(default=5, help="Sampled runs, k of Pass@1 (R1V2, section 4: 5). 0: greedy only.")
    max_new_tokens: int = HfArg(default=4096, help="Longest response, in tokens.")
    think_open: bool | None = HfArg(
        default=None,
        help="Whether the chat template opens `<think>`, as QwQ's and R1V2's do: then a response without "
        "`</think>` has no answer. Unset: looks at the prompts.",
    )
    accuracy_reward: str = HfArg(default=ACCURACY_REWARD, help="Judges the answer: a dotted path, values in [0, 1].")
    format_reward: str = HfArg(default=FORMAT_REWARD, help="Judges the form: a dotted path, values in [0, 1].")
    hallucination_func: str | None = HfArg(
        default=None,
        help="Function (response, column value) → what the response claims without support: a dotted path. "
        "Measured on rows with images.",
    )
    hallucination_column: str | None = HfArg(default=None, help="What the images hold, for `hallucination_func`.")

    def __post_init__(self):
        super().__post_init__()
        parse_check_images(self.check_images)
        self.check_at_least(0, "num_samples")
        self.check_at_least(1, "max_rows")
        if (self.hallucination_func is None) != (self.hallucination_column is None):
            raise ValueError("`hallucination_func` and `hallucination_column` belong together: set both or neither.")
        if self.generation != "transformers" and self.attn_implementation is not None:
            raise ValueError("`attn_implementation` has no effect but with `generation: transformers`: leave it out.")
        own_rules = (self.accuracy_reward, self.format_reward) == (ACCURACY_REWARD, FORMAT_REWARD)
        if self.think_open is not None and not own_rules:
            raise ValueError(
                "`think_open` sets up this package's own rules, but another function is named: set it up there, and "
                "leave `think_open` out."
            )


def main(eval_args: EvaluateArguments) -> None:
    """Sample, score and write the files."""
    scorers = make_scorers(eval_args)
    dataset = load_rows(eval_args, scorers)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    with open_engine(eval_args, device, eval_args.model_revision) as engine:
        fingerprint = {**engine.fingerprint, "dataset": dataset_fingerprint(dataset)}
        rollouts, seconds = {}, {}
        for mode in (GREEDY, SAMPLED) if eval_args.num_samples else (GREEDY,):
            rollouts[mode], seconds[mode] = sample_mode(eval_args, mode, engine, dataset, fingerprint)
    records = []
    for mode in rollouts:
        start = time.perf_counter()
        records += score_rollouts(rollouts[mode], dataset, scorers, mode)
        seconds[f"scoring_{mode}"] = time.perf_counter() - start

    folder = Path(eval_args.output_dir)
    write_records(records, folder / RECORDS_FILE)
    metrics = {
        "schema_version": SCHEMA_VERSION,
        "label": eval_args.label or folder.name,
        "settings": asdict(eval_args),
        "fingerprint": fingerprint,
        "num_rows": len(dataset),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else str(device),
        "tasks": summarize(records),
        "generated_tokens": {mode: sum(r.num_tokens for r in of_mode) for mode, of_mode in rollouts.items()},
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }
    (folder / METRICS_FILE).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print_metrics(metrics, folder)


def make_scorers(eval_args: EvaluateArguments) -> Scorers:
    """Import or build what responses are scored by."""
    think_open = eval_args.think_open
    if think_open is None:
        accuracy = import_by_name(eval_args.accuracy_reward, entry="accuracy_reward")
        form = import_by_name(eval_args.format_reward, entry="format_reward")
    else:
        accuracy, form = AccuracyReward(think_open=think_open), FormatReward(think_open=think_open)
    name = eval_args.hallucination_func
    unsupported = None if name is None else import_by_name(name, entry="hallucination_func")
    return Scorers(accuracy, form, unsupported, eval_args.hallucination_column, think_open)


def load_rows(eval_args: EvaluateArguments, scorers: Scorers):
    """Load and check the rows to measure on, which need the columns of the scorers."""
    dataset = read_dataset(asdict(eval_args))
    columns = ["prompt", *reward_columns([scorers.accuracy, scorers.format])]
    if scorers.unsupported_column is not None:
        columns.append(scorers.unsupported_column)
    name = f"{eval_args.dataset_name} [{eval_args.dataset_split}]"
    check_dataset(dataset, name=name, columns=columns, check_images=eval_args.check_images)
    return dataset


def read_dataset(settings: dict):
    """The rows that an evaluation with these settings, as in `metrics.json`, measures on."""
    names = ("dataset_name", "dataset_config", "dataset_split")
    return load_split(*(settings[name] for name in names), settings.get("max_rows"))


def sample_mode(eval_args: EvaluateArguments, mode: str, engine, dataset, fingerprint: dict):
    """Sample the responses of one mode, or those that an interrupted run has left out."""
    settings = {"max_new_tokens": eval_args.max_new_tokens, "seed": eval_args.seed}
    if mode == GREEDY:
        settings |= {"num_samples": 1, "do_sample": False}
    else:
        settings |= {name: vars(eval_args)[name] for name in ("num_samples", "temperature", "top_p")}
        settings["do_sample"] = True
    folder = Path(eval_args.output_dir) / "rollouts" / mode
    store = RolloutStore(folder, {**fingerprint, **settings})
    clock_path = folder / "seconds.json"
    seconds = json.loads(clock_path.read_text(encoding="utf-8")) if clock_path.is_file() else 0.0
    rows = range(len(dataset))
    start = time.perf_counter()
    for chunk in engine.sample_chunks(dataset, rows=store.remaining(rows), **settings):
        store.append_rollouts(chunk)
        seconds += time.perf_counter() - start
        write_atomically(clock_path, json.dumps(seconds))
        start = time.perf_counter()
    return RolloutStore.merge(folder, rows, settings["num_samples"]), seconds
