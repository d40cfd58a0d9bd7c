# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What `filter-prompts` and `pairs` share: their common arguments, and sampling and scoring over all processes.

Every process holds the whole model and answers its own rows; the processes meet at files. What an engine outside this
process samples is scored while it samples on. Nothing here decides what becomes of the scored responses.
"""

import itertools
import json
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from transformers.hf_argparser import HfArg

from ..sampling.dataset_folder import load_prompts
from ..sampling.fingerprints import content_fingerprint, dataset_fingerprint, reward_fingerprint
from ..sampling.generation import TransformersEngine
from ..sampling.prompts import encode_prompts, read_prompt
from ..sampling.rollouts import Rollout, RolloutStore, merge_shards
from ..sampling.scoring import score_rollouts, total_score
from .generation import GenerationArguments
from .loading import load_reward_func


ROLLOUT_FOLDER = "rollouts"
# Processes wait for the slowest one, whose last prompts may take long; the default would end the run.
WAIT_LIMIT = timedelta(days=7)


@dataclass
class SamplingArguments(GenerationArguments):
    """Arguments of commands that sample responses and score them."""

    dataset_name: str = HfArg(help="Prompts: a folder or file that `datasets` can load, or a name on the Hub.")
    output_dir: str = HfArg(help="Folder for the result, the rollouts and the scores.")
    model_name_or_path: str | None = HfArg(
        default=None,
        help="Policy to sample from: a `save_pretrained` folder or a name on the Hub. With `generation: server`: the "
        "name under which the server knows it.",
    )
    dataset_config: str | None = HfArg(default=None, help="Configuration of the dataset.")
    dataset_split: str = HfArg(default="train", help="Split of the dataset.")
    max_prompts: int | None = HfArg(default=None, help="Use this many prompts from the start.")
    dtype: str = HfArg(
        default="auto",
        help="Type of the weights; `auto` takes the checkpoint's.",
        metadata={"choices": ["auto", "bfloat16", "float16", "float32"]},
    )
    attn_implementation: str | None = HfArg(
        default=None, help="Attention of transformers, e.g. `sdpa` or `flash_attention_2`."
    )
    use_cpu: bool = HfArg(default=False, help="Stay on the CPU where there is an accelerator.")
    num_samples: int = HfArg(default=8, help="Responses to sample for each prompt.")
    max_new_tokens: int = HfArg(default=1024, help="Longest response, in tokens.")
    temperature: float = HfArg(default=1.0, help="Sampling temperature.")
    top_p: float = HfArg(default=1.0, help="Nucleus mass of the sampling, in (0, 1].")
    batch_size: int = HfArg(default=64, help="Responses that a process generates and scores at once.")
    seed: int = HfArg(default=0, help="Seed of the sampling and of every later choice.")
    reward_funcs: list[str] = HfArg(
        default_factory=lambda: ["trl_r1v2.rewards.accuracy_reward"],
        help="Dotted paths of the reward functions, or folders of reward models that `reward` wrote.",
    )
    reward_weights: list[float] | None = HfArg(
        default=None, help="Weight of each reward function in the score; 1 by default."
    )
    judge_func: str | None = HfArg(
        default=None,
        help="Dotted path of the reward function that tells right from wrong; the first of `reward_funcs` by "
        "default. One that is not among them is called for the verdict and stays out of the score.",
    )
    judge_threshold: float = HfArg(
        default=0.5, help="A response is right if the judge's score is at least this (ours)."
    )
    plots: bool = HfArg(default=True, help="Draw the histograms (needs matplotlib).")

    def __post_init__(self):
        super().__post_init__()
        for name in ("num_samples", "max_new_tokens", "batch_size", "max_prompts"):
            value = vars(self)[name]
            if value is not None and value < 1:
                raise ValueError(f"`{name}` is {value}, but must be at least 1")
        if self.temperature <= 0:
            raise ValueError(f"`temperature` is {self.temperature}, but must be above 0")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"`top_p` is {self.top_p}, but must be in (0, 1]")
        if not self.reward_funcs:
            raise ValueError("`reward_funcs` is empty: name at least one reward function")
        if self.reward_weights is not None and len(self.reward_weights) != len(self.reward_funcs):
            raise ValueError(
                f"`reward_weights` has {len(self.reward_weights)} entries for {len(self.reward_funcs)} reward "
                "functions: give one weight a function"
            )

    @property
    def judge(self) -> str:
        """Path of the function that tells right from wrong."""
        return self.judge_func or self.reward_funcs[0]

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each reward function in the score."""
        return dict(zip(self.reward_funcs, self.reward_weights or [1.0] * len(self.reward_funcs), strict=True))


@dataclass(frozen=True)
class ScoredRollout:
    """
    A rollout with its score by reward function (`None` where one gave none), their weighted sum, and the judge's verdict.
    """

    rollout: Rollout
    scores: dict[str, float | None]
    score: float | None
    right: bool | None


def start_processes(args: SamplingArguments) -> PartialState:
    """This process's place among all; processes wait for each other up to a week."""
    state = PartialState(cpu=args.use_cpu, timeout=WAIT_LIMIT)
    if args.generation != "transformers" and state.num_processes > 1:
        raise ValueError(
            f"`generation: {args.generation}` uses several accelerators by itself, but {state.num_processes} processes were "
            "started: start one"
        )
    return state


def check_output_dir(args: SamplingArguments, command: str) -> None:
    """Keeps one command from overwriting the result of another."""
    summary = Path(args.output_dir) / "summary.json"
    if summary.is_file():
        written_by = json.loads(summary.read_text(encoding="utf-8"))["command"]
        if written_by != command:
            raise ValueError(
                f"`output_dir` {args.output_dir} holds the result of `{written_by}`: choose another folder"
            )


def load_dataset_of(args: SamplingArguments) -> Dataset:
    """The prompts that the arguments name."""
    return load_prompts(args.dataset_name, args.dataset_config, args.dataset_split, args.max_prompts)


def sampling_settings(args: SamplingArguments) -> dict[str, Any]:
    """The arguments of an engine's `sample_chunks` among the arguments."""
    names = ("num_samples", "max_new_tokens", "temperature", "top_p", "seed")
    return {name: vars(args)[name] for name in names}


def sample_over_processes(
    args: SamplingArguments,
    dataset: Dataset,
    engine,
    state: PartialState,
    name: str = "rollouts",
    extra: dict[str, Any] | None = None,
    **settings,
) -> Iterator[list[Rollout]]:
    """Samples what is not yet in `<output_dir>/rollouts/<name>-*`, each process its own rows."""
    fingerprint = {
        **engine.fingerprint,
        "dataset": dataset_fingerprint(dataset),
        "num_rows": len(dataset),
        **sampling_settings(args),
        "num_samples": settings.get("num_samples", args.num_samples),
        **(extra or {}),
    }
    if engine.processing_class is not None:
        first = encode_prompts(engine.processing_class, [read_prompt(dataset, 0, engine.processing_class)])
        fingerprint["first_prompt"] = content_fingerprint(first["input_ids"].tolist())
    folder = Path(args.output_dir) / ROLLOUT_FOLDER
    store = RolloutStore(folder, fingerprint, state.process_index, state.num_processes, name)
    rows = range(state.process_index, len(dataset), state.num_processes)

    def sample() -> Iterator[list[Rollout]]:
        chosen = {**sampling_settings(args), **settings, "progress": state.is_local_main_process}
        for chunk in engine.sample_chunks(dataset, rows=store.remaining(rows), **chosen):
            store.append_rollouts(chunk)
            yield chunk

    done = [Rollout(**record) for record in store.records]
    return itertools.chain([done], sample() if isinstance(engine, TransformersEngine) else _ahead(sample()))


def _ahead(chunks: Iterator[list[Rollout]]) -> Iterator[list[Rollout]]:
    """The same, taken by a thread while the caller works: what has come meanwhile in one list."""
    taken: queue.SimpleQueue = queue.SimpleQueue()

    def take() -> None:
        try:
            for chunk in chunks:
                taken.put(chunk)
            taken.put(None)
        except BaseException as error:
            taken.put(error)

    threading.Thread(target=take, name="sampling", daemon=True).start()
    while True:
        found = [taken.get()]
        while not taken.empty():
            found.append(taken.get())
        arrived = [rollout for chunk in found if isinstance(chunk, list) for rollout in chunk]
        if arrived:
            yield arrived
        if isinstance(found[-1], BaseException):
            raise found[-1]
        if found[-1] is None:
            return


def sample_and_score(
    args: SamplingArguments, dataset: Dataset, engine, state: PartialState, extra_funcs: Sequence[str] = ()
) -> list[ScoredRollout]:
    """[`sample_over_processes`], then the scores of all processes, ordered by row and sample."""
    score_over_processes(args, dataset, sample_over_processes(args, dataset, engine, state), state, extra_funcs)
    folder = Path(args.output_dir) / ROLLOUT_FOLDER
    return collect_scores(args, RolloutStore.merge(folder, range(len(dataset)), args.num_samples))


def score_over_processes(
    args: SamplingArguments,
    dataset: Dataset,
    chunks: Iterable[Sequence[Rollout]],
    state: PartialState,
    extra_funcs: Sequence[str] = (),
    name: str = "scores",
) -> None:
    """
    Scores the rollouts of this process as they come, if they are not yet in `<output_dir>/rollouts/<name>-*`, and
    waits for the other processes.
    """
    functions = reward_functions_of(args, extra_funcs)
    # A reward function may read any column.
    columns = [column for column in dataset.column_names if column not in ("images", "image")]
    fingerprint = {
        "dataset": dataset_fingerprint(dataset, columns),
        "reward_funcs": {path: reward_fingerprint(path, function) for path, function in functions.items()},
    }
    folder = Path(args.output_dir) / ROLLOUT_FOLDER
    store = RolloutStore(folder, fingerprint, state.process_index, state.num_processes, name)
    for chunk in chunks:
        remaining = set(store.remaining(rollout.row for rollout in chunk))
        todo = [rollout for rollout in chunk if rollout.row in remaining]
        for records in score_rollouts(todo, dataset, functions, batch_size=args.batch_size):
            store.append(records)
    state.wait_for_everyone()


def collect_scores(args: SamplingArguments, rollouts: Sequence[Rollout], name: str = "scores") -> list[ScoredRollout]:
    """Reads the scores that all processes have given to `rollouts`, whose order it keeps."""
    folder = Path(args.output_dir) / ROLLOUT_FOLDER
    found = {(record["row"], record["sample"]): record for record in merge_shards(folder, name)}
    scored = []
    for rollout in rollouts:
        record = found.get((rollout.row, rollout.sample))
        if record is None or record["response"] != content_fingerprint(rollout.text):
            raise ValueError(
                f"{folder} holds {name} of other responses than these (row {rollout.row}): delete {folder / name}* to score "
                "again"
            )
        scores = record["scores"]
        verdict = scores[args.judge]
        right = None if verdict is None else verdict >= args.judge_threshold
        scored.append(ScoredRollout(rollout, scores, total_score(scores, args.weights), right))
    return scored


def reward_functions_of(args: SamplingArguments, extra_funcs: Sequence[str] = ()) -> dict[str, Callable]:
    """All functions to call, by name: those of the score, the judge, and `extra_funcs`."""
    names = dict.fromkeys([*args.reward_funcs, args.judge, *extra_funcs])
    return {name: load_reward_func(name, entry="reward function") for name in names}


def score_statistics(scored: Sequence[ScoredRollout]) -> dict[str, Any]:
    """Counts and means of rollouts and of each reward function, for a JSON summary."""
    statistics = {
        "num_responses": len(scored),
        "num_finished": sum(item.rollout.finished for item in scored),
        "num_right": sum(item.right is True for item in scored),
        "num_unjudged": sum(item.right is None for item in scored),
        "mean_tokens": sum(item.rollout.num_tokens for item in scored) / max(len(scored), 1),
        "reward_funcs": {},
    }
    for path in scored[0].scores if scored else ():
        values = [item.scores[path] for item in scored if item.scores[path] is not None]
        statistics["reward_funcs"][path] = {
            "mean": sum(values) / len(values) if values else None,
            "num_scored": len(values),
            "num_unscored": len(scored) - len(values),
        }
    return statistics
