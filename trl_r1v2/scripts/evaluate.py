# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Measure a model: greedy accuracy, Pass@1 over k sampled runs, pass@k, majority, format and hallucination rate, by task.

    trl-r1v2 evaluate --config recipes/digits/evaluate_grpo.yaml

On a data set of one's own; public benchmarks go through their harnesses (`trl-r1v2 benchmark`). Writes `metrics.json`,
`records.parquet` (every response with its score) and `rollouts/` to `output_dir`. A run that was interrupted goes on where
it stopped. One process, one device.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers.hf_argparser import HfArg

from ..evaluation.terminal import print_metrics
from .generation import GenerationArguments


METRICS_FILE, RECORDS_FILE = "metrics.json", "records.parquet"
SCHEMA_VERSION = 1
ACCURACY_REWARD, FORMAT_REWARD = "trl_r1v2.rewards.accuracy_reward", "trl_r1v2.rewards.format_reward"


@dataclass
class EvaluateArguments(GenerationArguments):
    """Arguments of `trl-r1v2 evaluate`."""

    model_name_or_path: str = HfArg(
        help="Folder or Hub name of the model and its processor; a folder of PEFT adapters is merged into its base. "
        "With `generation: server`: the name under which the server knows the model."
    )
    output_dir: str = HfArg(help="Folder for metrics, records and rollouts.")
    dataset_name: str = HfArg(help="Folder or Hub name of the dataset, as `load_dataset` takes.")
    label: str | None = HfArg(
        default=None, help="Name of this evaluation in the report. Unset: name of the output folder."
    )
    model_revision: str | None = HfArg(default=None, help="Branch, tag or commit of the model.")
    dtype: str = HfArg(
        default="auto",
        help="Number format of the weights.",
        metadata={"choices": ["auto", "float32", "bfloat16", "float16"]},
    )
    attn_implementation: str | None = HfArg(default=None, help="Attention, as `from_pretrained` takes it.")
    dataset_config: str | None = HfArg(default=None, help="Configuration of the dataset.")
    dataset_split: str = HfArg(default="test", help="Split to measure on.")
    max_rows: int | None = HfArg(default=None, help="Measure on the first rows only. Unset: all.")
    check_images: str = HfArg(
        default="all", help="Rows whose images are decoded beforehand: 'all', 'none' or a number of rows."
    )
    num_samples: int = HfArg(default=5, help="Sampled runs, k of Pass@1 (R1V2, section 4: 5). 0: greedy only.")
    max_new_tokens: int = HfArg(default=4096, help="Longest response, in tokens.")
    temperature: float = HfArg(default=1.0, help="Temperature of the sampled runs.")
    top_p: float = HfArg(default=1.0, help="Nucleus mass of the sampled runs.")
    batch_size: int = HfArg(default=64, help="Responses generated at once.")
    seed: int = HfArg(default=0, help="Seed of the sampled runs.")
    think_open: bool | None = HfArg(
        default=None,
        help="Whether the chat template opens `<think>`, as QwQ's and R1V2's do: then a response without "
        "`</think>` has no answer. Unset: looks at the prompts.",
    )
    accuracy_reward: str = HfArg(
        default=ACCURACY_REWARD,
        help="Reward function that judges the answer: a dotted path, values in [0, 1] or None.",
    )
    format_reward: str = HfArg(
        default=FORMAT_REWARD, help="Reward function that judges the form: a dotted path, values in [0, 1]."
    )
    hallucination_func: str | None = HfArg(
        default=None,
        help="Function (response, column value) → what the response claims without support: a dotted path. "
        "Measured on rows with images.",
    )
    hallucination_column: str | None = HfArg(
        default=None, help="Column with what the images hold, for `hallucination_func`."
    )

    def __post_init__(self):
        from ..checks.rows import parse_check_images

        super().__post_init__()
        parse_check_images(self.check_images)
        for name, least in (("num_samples", 0), ("max_new_tokens", 1), ("batch_size", 1), ("max_rows", 1)):
            value = vars(self)[name]
            if value is not None and value < least:
                raise ValueError(f"`{name}` is {value}; give at least {least}.")
        if self.temperature <= 0:
            raise ValueError(
                f"`temperature` is {self.temperature}; give more than 0 (greedy decoding is always measured)."
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"`top_p` is {self.top_p}; give more than 0 and at most 1.")
        if (self.hallucination_func is None) != (self.hallucination_column is None):
            raise ValueError("`hallucination_func` and `hallucination_column` belong together: set both or neither.")
        if self.generation != "transformers" and self.attn_implementation is not None:
            raise ValueError("`attn_implementation` has no effect but with `generation: transformers`: leave it out.")
        if self.think_open is not None and (self.accuracy_reward, self.format_reward) != (
            ACCURACY_REWARD,
            FORMAT_REWARD,
        ):
            raise ValueError(
                "`think_open` sets up this package's own rules, but another function is named: set it up there, and leave "
                "`think_open` out."
            )


def main(eval_args: EvaluateArguments) -> None:
    """Sample, score and write the files."""
    import torch

    from ..evaluation.records import GREEDY, SAMPLED, score_rollouts, summarize, write_records
    from ..sampling import dataset_fingerprint
    from .generation import open_engine

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
        "generated_tokens": {
            mode: sum(rollout.num_tokens for rollout in of_mode) for mode, of_mode in rollouts.items()
        },
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }
    (folder / METRICS_FILE).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print_metrics(metrics, folder)


def make_scorers(eval_args: EvaluateArguments):
    """Import or build what responses are scored by, a [`~trl_r1v2.evaluation.records.Scorers`]."""
    from ..evaluation.records import Scorers
    from ..rewards import AccuracyReward, FormatReward
    from .loading import import_by_name

    think_open = eval_args.think_open
    if think_open is None:
        accuracy = import_by_name(eval_args.accuracy_reward, entry="accuracy_reward")
        form = import_by_name(eval_args.format_reward, entry="format_reward")
    else:
        accuracy, form = AccuracyReward(think_open=think_open), FormatReward(think_open=think_open)
    return Scorers(
        accuracy=accuracy,
        format=form,
        unsupported=eval_args.hallucination_func
        and import_by_name(eval_args.hallucination_func, entry="hallucination_func"),
        unsupported_column=eval_args.hallucination_column,
        think_open=think_open,
    )


def load_rows(eval_args: EvaluateArguments, scorers):
    """Load and check the rows to measure on, which need the columns of the scorers."""
    from ..checks.rows import check_dataset
    from ..rewards.columns import reward_columns

    dataset = read_dataset(asdict(eval_args))
    if eval_args.max_rows is not None:
        dataset = dataset.select(range(min(eval_args.max_rows, len(dataset))))
    columns = ["prompt", *reward_columns([scorers.accuracy, scorers.format])]
    if scorers.unsupported_column is not None:
        columns.append(scorers.unsupported_column)
    name = f"{eval_args.dataset_name} [{eval_args.dataset_split}]"
    check_dataset(dataset, name=name, columns=columns, check_images=eval_args.check_images)
    return dataset


def read_dataset(settings: dict):
    """The rows that an evaluation with these settings, as in `metrics.json`, measures on."""
    from .loading import load_splits, take_split

    source, split = settings["dataset_name"], settings["dataset_split"]
    return take_split(load_splits(source, settings["dataset_config"]), split, entry="dataset_split", source=source)


def sample_mode(eval_args: EvaluateArguments, mode: str, engine, dataset, fingerprint: dict):
    """Sample the responses of one mode, or those that an interrupted run has left out."""
    from ..evaluation.records import GREEDY
    from ..sampling import RolloutStore

    settings = {
        "num_samples": 1 if mode == GREEDY else eval_args.num_samples,
        "max_new_tokens": eval_args.max_new_tokens,
        "do_sample": mode != GREEDY,
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
    for chunk in engine.sample_chunks(dataset, rows=store.remaining(rows), **settings):
        store.append_rollouts(chunk)
        seconds += time.perf_counter() - start
        temporary = clock_path.with_suffix(".tmp")
        temporary.write_text(json.dumps(seconds), encoding="utf-8")
        temporary.replace(clock_path)
        start = time.perf_counter()
    return RolloutStore.merge(folder, rows, settings["num_samples"]), seconds


def make_parser(prog: str | None = None):
    from .parser import RecipeParser

    return RecipeParser((EvaluateArguments,), prog=prog)


if __name__ == "__main__":
    raise SystemExit(make_parser().run(main))
