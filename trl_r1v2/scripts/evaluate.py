# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Measure a model: greedy accuracy, Pass@1 over k sampled runs, pass@k, majority, format and hallucination rate, by task.

    trl-r1v2 evaluate --config recipes/digits/evaluate_grpo.yaml

On a data set of one's own or on a public benchmark (`benchmark`), generating with transformers or through an OpenAI-style
server. Writes `metrics.json`, `records.parquet` (every response with its score) and `rollouts/` to `output_dir`. A run
that was interrupted goes on where it stopped. One process, one device.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ..evaluation.arguments import EvaluateArguments, JudgeArguments, ServerArguments
from ..evaluation.terminal import print_metrics


METRICS_FILE, RECORDS_FILE, VERDICTS_FILE = "metrics.json", "records.parquet", "judge.jsonl"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Source:
    """
    What generates the responses.

    Args:
        sample (`Callable`):
            Yields lists of rollouts, called with the dataset, `rows` and the settings of the sampling.
        model (`str`):
            Digest or name of the model, which stored responses have to share.
        device (`str`):
            Name for the report.
        settings (`dict`):
            Further settings on which the responses depend.
    """

    sample: Callable[..., Iterator[list]]
    model: str
    device: str
    settings: dict


def main(
    eval_args: EvaluateArguments,
    server_args: ServerArguments | None = None,
    judge_args: JudgeArguments | None = None,
):
    from ..sampling.chat_client import ServerError
    from .recipe import RecipeError

    try:
        measure(eval_args, server_args or ServerArguments(), judge_args or JudgeArguments())
    except ServerError as error:
        # one line rather than a traceback: it names the remedy
        raise RecipeError(str(error)) from error


def measure(eval_args: EvaluateArguments, server_args: ServerArguments, judge_args: JudgeArguments) -> None:
    """
    Sample, score and write the files.

    Args:
        eval_args ([`EvaluateArguments`]), server_args ([`ServerArguments`]), judge_args ([`JudgeArguments`]):
            The recipe.

    Raises:
        RecipeError: The recipe's parts do not fit together.
        DatasetError: The data cannot be used.
        ServerError: A server fails for good.
    """
    from ..evaluation.records import GREEDY, SAMPLED, score_rollouts, summarize, write_records
    from ..sampling import dataset_fingerprint

    scorers = make_scorers(eval_args, judge_args)
    dataset = load_rows(eval_args, scorers)
    source = make_source(eval_args, server_args)

    fingerprint = {"model": source.model, "dataset": dataset_fingerprint(dataset)}
    records, seconds = [], {}
    for mode in (GREEDY, SAMPLED) if eval_args.num_samples else (GREEDY,):
        rollouts, seconds[mode] = sample_mode(eval_args, mode, source, dataset, fingerprint)
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
        "device": source.device,
        "tasks": summarize(records, keep_unjudged=eval_args.benchmark is not None),
        "generated_tokens": tokens,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        **describe_benchmark(eval_args),
        **describe_judge(scorers),
    }
    (folder / METRICS_FILE).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print_metrics(metrics, folder)


def make_scorers(eval_args: EvaluateArguments, judge_args: JudgeArguments):
    """
    Import or build what responses are scored by.

    Args:
        eval_args ([`EvaluateArguments`]):
            Names of the functions, or the benchmark.
        judge_args ([`JudgeArguments`]):
            The judge, if there is one.

    Returns:
        [`~trl_r1v2.evaluation.records.Scorers`]: The scorers.

    Raises:
        RecipeError: A name cannot be imported.
        ServerError: The judge's key is not set.
    """
    from ..evaluation.benchmarks.grading import BenchmarkGrader
    from ..evaluation.judge import Judge, VerdictCache
    from ..evaluation.records import Scorers
    from ..rewards import AccuracyReward, FormatReward
    from ..sampling.chat_client import ChatClient
    from .loading import import_by_name

    think_open = eval_args.think_open
    if think_open is None:
        accuracy = import_by_name(eval_args.accuracy_reward, entry="accuracy_reward")
        form = import_by_name(eval_args.format_reward, entry="format_reward")
    else:
        accuracy, form = AccuracyReward(think_open=think_open), FormatReward(think_open=think_open)
    judge = None
    if judge_args.judge_model is not None:
        client = ChatClient(
            judge_args.judge_url,
            judge_args.judge_model,
            api_key_env=judge_args.judge_api_key_env,
            timeout=judge_args.judge_timeout,
            patience=judge_args.judge_patience,
        )
        cache = VerdictCache(Path(judge_args.judge_cache or Path(eval_args.output_dir) / VERDICTS_FILE))
        judge = Judge(client, cache, judge_args.judge_concurrency, judge_args.judge_max_tokens)
    return Scorers(
        accuracy=accuracy,
        format=form,
        unsupported=eval_args.hallucination_func
        and import_by_name(eval_args.hallucination_func, entry="hallucination_func"),
        unsupported_column=eval_args.hallucination_column,
        grader=None if eval_args.benchmark is None else BenchmarkGrader(think_open=bool(think_open)),
        judge=judge,
        think_open=think_open,
    )


def make_source(eval_args: EvaluateArguments, server_args: ServerArguments) -> Source:
    """
    Load the model, or name the server that holds it.

    Args:
        eval_args ([`EvaluateArguments`]):
            Model.
        server_args ([`ServerArguments`]):
            Server.

    Returns:
        [`Source`]: What generates.

    Raises:
        RecipeError: `generation: server` without an address, an address without it, or a setting that only transformers
            has.
    """
    import functools

    from .recipe import RecipeError

    path, revision = eval_args.model_name_or_path, eval_args.model_revision
    if (eval_args.generation == "server") != (server_args.server_url is not None):
        raise RecipeError("`generation: server` and `server_url` belong together: set both or neither.")
    if eval_args.generation == "server":
        for name in ("model_revision", "attn_implementation"):
            if vars(eval_args)[name] is not None:
                raise RecipeError(f"`{name}` has no effect on a server, which has loaded its model: leave it out.")
        from ..sampling.chat_client import ChatClient
        from ..sampling.server import sample_chunks_from_server

        client = ChatClient(
            server_args.server_url,
            path,
            api_key_env=server_args.server_api_key_env,
            timeout=server_args.server_timeout,
            patience=server_args.server_patience,
        )
        sample = functools.partial(sample_chunks_from_server, client, concurrency=server_args.server_concurrency)
        return Source(sample, f"served as {path}", server_args.server_url, {})

    import torch
    from transformers import AutoProcessor

    from ..sampling import model_fingerprint, sample_chunks
    from .loading import load_model

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    processor = AutoProcessor.from_pretrained(path, revision=revision, padding_side="left")
    model = load_model(
        path,
        revision=revision,
        dtype=eval_args.dtype,
        attn_implementation=eval_args.attn_implementation,
        device_map=None,
    ).to(device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else str(device)
    sample = functools.partial(sample_chunks, model, processor)
    return Source(sample, model_fingerprint(model), name, {"batch_size": eval_args.batch_size})


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
    from ..checks.rows import check_dataset
    from ..rewards.columns import reward_columns

    source, split = eval_args.dataset_name, eval_args.dataset_split
    dataset = read_dataset(asdict(eval_args))
    if eval_args.max_rows is not None:
        dataset = dataset.select(range(min(eval_args.max_rows, len(dataset))))
    columns = ["prompt", *reward_columns([scorers.format] if scorers.grader else [scorers.accuracy, scorers.format])]
    if scorers.unsupported_column is not None:
        columns.append(scorers.unsupported_column)
    check_dataset(dataset, name=f"{source} [{split}]", columns=columns, check_images=eval_args.check_images)
    return dataset


def read_dataset(settings: dict):
    """
    Load the rows that an evaluation with these settings measures on.

    Args:
        settings (`dict`):
            `dataset_name`, `dataset_config`, `dataset_split`, and where there are any `benchmark` and `max_rows`, as in
            `metrics.json`.

    Returns:
        `Dataset`: Rows; of a benchmark, the converted ones.

    Raises:
        DatasetError: The dataset or split does not exist.
        BenchmarkError: The benchmark's data has another schema.
    """
    source, config, split = (settings[key] for key in ("dataset_name", "dataset_config", "dataset_split"))
    if settings.get("benchmark") is not None:
        from ..evaluation.benchmarks import find_adapter
        from ..evaluation.benchmarks.loading import load_rows as load_benchmark

        adapter = find_adapter(settings["benchmark"])
        return load_benchmark(adapter, source, config, split, max_rows=settings["max_rows"])
    from .loading import load_splits, take_split

    return take_split(load_splits(source, config), split, entry="dataset_split", source=source)


def sample_mode(eval_args: EvaluateArguments, mode: str, source: Source, dataset, fingerprint: dict):
    """
    Sample the responses of one mode, or those that an interrupted run has left out.

    Args:
        eval_args ([`EvaluateArguments`]):
            Settings of the sampling.
        mode (`str`):
            `"greedy"` or `"sampled"`.
        source ([`Source`]):
            What generates.
        dataset (`Dataset`):
            Rows.
        fingerprint (`dict[str, str]`):
            Digests of model and dataset; responses of others are refused.

    Returns:
        `tuple[list[Rollout], float]`: Responses ordered by row, and the seconds of generating them.
    """
    from ..evaluation.records import GREEDY
    from ..sampling import RolloutStore

    settings = {
        "num_samples": 1 if mode == GREEDY else eval_args.num_samples,
        "max_new_tokens": eval_args.max_new_tokens,
        "do_sample": mode != GREEDY,
        "seed": eval_args.seed,
        **source.settings,
    }
    if mode != GREEDY:
        settings |= {"temperature": eval_args.temperature, "top_p": eval_args.top_p}
    folder = Path(eval_args.output_dir) / "rollouts" / mode
    store = RolloutStore(folder, {**fingerprint, **settings})
    clock_path = folder / "seconds.json"
    seconds = json.loads(clock_path.read_text(encoding="utf-8")) if clock_path.is_file() else 0.0
    rows = range(len(dataset))
    start = time.perf_counter()
    for chunk in source.sample(dataset, rows=store.remaining(rows), **settings):
        store.append_rollouts(chunk)
        seconds += time.perf_counter() - start
        temporary = clock_path.with_suffix(".tmp")
        temporary.write_text(json.dumps(seconds), encoding="utf-8")
        temporary.replace(clock_path)
        start = time.perf_counter()
    return RolloutStore.merge(folder, rows, settings["num_samples"]), seconds


def describe_benchmark(eval_args: EvaluateArguments) -> dict:
    """Entry `benchmark` of `metrics.json`: its name, and what the paper reports, labelled as that. Empty without one."""
    if eval_args.benchmark is None:
        return {}
    from ..evaluation.benchmarks import PAPER_FIGURES, find_adapter

    adapter = find_adapter(eval_args.benchmark)
    paper = PAPER_FIGURES[adapter.name].as_dict()
    return {"benchmark": {"name": adapter.name, "title": adapter.title, "paper": paper}}


def describe_judge(scorers) -> dict:
    """Entry `judge` of `metrics.json`: model, version of the prompt and counts. Empty without one."""
    if scorers.judge is None:
        return {}
    from ..evaluation.judge import PROMPT_VERSION

    judge = scorers.judge
    return {"judge": {"model": judge.client.model, "prompt_version": PROMPT_VERSION, **judge.counts}}


def make_parser(prog: str | None = None):
    from .parser import RecipeParser

    return RecipeParser((EvaluateArguments, ServerArguments, JudgeArguments), prog=prog)


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
