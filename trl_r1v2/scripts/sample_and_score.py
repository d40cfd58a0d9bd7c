# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What `filter-prompts` and `pairs` share: arguments, sampling and scoring over all processes, and the files of a result.
Every process holds the whole model and answers its own rows; the processes meet at files. What an engine outside this
process samples is scored while it samples on.
"""

import itertools
import json
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from transformers.hf_argparser import HfArg

from ..checks.rows import check_columns
from ..sampling.dataset_folder import write_dataset_folder
from ..sampling.fingerprints import content_fingerprint, dataset_fingerprint, reward_fingerprint
from ..sampling.generation import TransformersEngine
from ..sampling.histograms import check_plotting, draw_histograms
from ..sampling.prompts import encode_prompts, read_prompt
from ..sampling.rollouts import Rollout, RolloutStore, merge_shards
from ..sampling.scoring import score_rollouts, total_score
from .generation import GenerationArguments
from .loading import load_reward_func, load_split


ROLLOUT_FOLDER = "rollouts"
# Processes wait for the slowest one, whose last prompts may take long; the default would end the run.
WAIT_LIMIT = timedelta(days=7)


@dataclass(kw_only=True)
class SamplingArguments(GenerationArguments):
    """Arguments of commands that sample responses and score them."""

    max_prompts: int | None = HfArg(default=None, help="Use this many prompts from the start.")
    use_cpu: bool = HfArg(default=False, help="Stay on the CPU where there is an accelerator.")
    reward_funcs: list[str] = HfArg(
        default_factory=lambda: ["trl_r1v2.rewards.accuracy_reward"],
        help="Dotted paths of the reward functions, or folders of reward models that `reward` wrote.",
    )
    reward_weights: list[float] | None = HfArg(default=None, help="Weight of each in the score; 1 by default.")
    judge_func: str | None = HfArg(
        default=None,
        help="Dotted path of the reward function that tells right from wrong; the first of `reward_funcs` by "
        "default. One that is not among them is called for the verdict and stays out of the score.",
    )
    judge_threshold: float = HfArg(default=0.5, help="From this score of the judge on, a response is right (ours).")
    plots: bool = HfArg(default=True, help="Draw the histograms (needs matplotlib).")

    def __post_init__(self):
        super().__post_init__()
        self.check_at_least(1, "num_samples", "max_prompts")
        if not self.reward_funcs:
            raise ValueError("`reward_funcs` is empty: name at least one reward function")
        num, num_weights = len(self.reward_funcs), len(self.reward_weights or self.reward_funcs)
        if num_weights != num:
            raise ValueError(f"`reward_weights` has {num_weights} entries for {num} reward functions: give one each")

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
    A rollout with its score by reward function (`None` where one gave none), their weighted sum, and the judge's
    verdict.
    """

    rollout: Rollout
    scores: dict[str, float | None]
    score: float | None
    right: bool | None


class SamplingRun:
    """
    One command's processes, prompts, reward functions and output folder, in which another command's result is refused.
    What can be wrong without a model is found here, before one is loaded. `extra_func` names a reward function to call
    besides those of the score and the judge.
    """

    def __init__(self, args: SamplingArguments, command: str, extra_func: str | None = None):
        self.args, self.command, self.folder = args, command, Path(args.output_dir)
        self.rollout_folder = self.folder / ROLLOUT_FOLDER
        self.state = PartialState(cpu=args.use_cpu, timeout=WAIT_LIMIT)
        if args.generation != "transformers" and self.state.num_processes > 1:
            raise ValueError(f"`generation: {args.generation}` uses several accelerators by itself: start one process")
        summary = self.folder / "summary.json"
        written_by = json.loads(summary.read_text(encoding="utf-8"))["command"] if summary.is_file() else command
        if written_by != command:
            raise ValueError(f"`output_dir` {args.output_dir} holds the result of `{written_by}`: choose another one")
        if args.plots:
            check_plotting()
        names = dict.fromkeys([*args.reward_funcs, args.judge, *([] if extra_func is None else [extra_func])])
        self.functions = {name: load_reward_func(name, entry="reward function") for name in names}
        self.dataset = load_split(args.dataset_name, args.dataset_config, args.dataset_split, args.max_prompts)
        check_columns(self.dataset, name=f"{args.dataset_name} [{args.dataset_split}]", columns=["prompt"])

    def store(self, fingerprint: dict[str, Any], name: str) -> RolloutStore:
        """This process's shard `<output_dir>/rollouts/<name>-*`."""
        return RolloutStore(self.rollout_folder, fingerprint, self.state.process_index, self.state.num_processes, name)

    def sample(
        self, dataset: Dataset, engine, name: str = "rollouts", extra_fingerprint: dict | None = None, **settings
    ) -> Iterator[list[Rollout]]:
        """Samples what is not yet in the shards called `name`, each process its own rows."""
        names = ("num_samples", "max_new_tokens", "temperature", "top_p", "seed")
        settings = {name: vars(self.args)[name] for name in names} | settings
        fingerprint = {**engine.fingerprint, "dataset": dataset_fingerprint(dataset), "num_rows": len(dataset)}
        fingerprint |= {name: settings[name] for name in names} | (extra_fingerprint or {})
        if engine.processing_class is not None:
            first = encode_prompts(engine.processing_class, [read_prompt(dataset, 0, engine.processing_class)])
            fingerprint["first_prompt"] = content_fingerprint(first["input_ids"].tolist())
        store = self.store(fingerprint, name)
        rows = range(self.state.process_index, len(dataset), self.state.num_processes)

        def sample() -> Iterator[list[Rollout]]:
            settings["progress"] = self.state.is_local_main_process
            for chunk in engine.sample_chunks(dataset, rows=store.remaining(rows), **settings):
                store.append_rollouts(chunk)
                yield chunk

        done = [Rollout(**record) for record in store.records]
        return itertools.chain([done], sample() if isinstance(engine, TransformersEngine) else _ahead(sample()))

    def sample_and_score(self, engine) -> list[ScoredRollout]:
        """Responses to all prompts with the scores of all processes, ordered by row and sample."""
        self._score(self.sample(self.dataset, engine), "scores")
        rows = range(len(self.dataset))
        return self._collect(RolloutStore.merge(self.rollout_folder, rows, self.args.num_samples), "scores")

    def score(self, rollouts: Sequence[Rollout], name: str = "scores") -> list[ScoredRollout]:
        """Scores rollouts at hand over all processes; their order is kept."""
        processes = self.state.num_processes
        self._score([[r for r in rollouts if r.row % processes == self.state.process_index]], name)
        return self._collect(rollouts, name)

    def _score(self, chunks: Iterable[Sequence[Rollout]], name: str) -> None:
        """Scores this process's rollouts as they come, if they are not in the shards yet; waits for the others."""
        # A reward function may read any column.
        columns = [column for column in self.dataset.column_names if column not in ("images", "image")]
        fingerprint = {
            "dataset": dataset_fingerprint(self.dataset, columns),
            "reward_funcs": {path: reward_fingerprint(path, function) for path, function in self.functions.items()},
        }
        store = self.store(fingerprint, name)
        for chunk in chunks:
            remaining = set(store.remaining(rollout.row for rollout in chunk))
            todo = [rollout for rollout in chunk if rollout.row in remaining]
            for records in score_rollouts(todo, self.dataset, self.functions, batch_size=self.args.batch_size):
                store.append(records)
        self.state.wait_for_everyone()

    def _collect(self, rollouts: Sequence[Rollout], name: str) -> list[ScoredRollout]:
        """Reads the scores that all processes have given to `rollouts`."""
        found = {(record["row"], record["sample"]): record for record in merge_shards(self.rollout_folder, name)}
        scored = []
        for rollout in rollouts:
            record = found.get((rollout.row, rollout.sample))
            if record is None or record["response"] != content_fingerprint(rollout.text):
                raise ValueError(
                    f"{self.rollout_folder} holds {name} of other responses than these (row {rollout.row}): delete "
                    f"{self.rollout_folder / name}* to score again"
                )
            scores = record["scores"]
            verdict = scores[self.args.judge]
            right = None if verdict is None else verdict >= self.args.judge_threshold
            scored.append(ScoredRollout(rollout, scores, total_score(scores, self.args.weights), right))
        return scored

    def write_summary(
        self, result: dict[str, Any], scored: Sequence[ScoredRollout], plot: str, panels: Sequence[dict[str, Any]]
    ) -> None:
        """Writes `summary.json`, with counts and means of rollouts and reward functions, and the file `plot`."""
        summary = {"command": self.command, **result, **_statistics(scored), "settings": asdict(self.args)}
        (self.folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        if self.args.plots:
            draw_histograms(self.folder / plot, panels)

    def write_dataset(self, table: Dataset, title: str, text: str, counts: str, plot: str) -> None:
        """Writes the rows that came of it, with a page of a text, a table of counts and the plot."""
        image = f"\n\n![{title}]({plot})" if self.args.plots else ""
        write_dataset_folder(table, self.folder, title, f"{text}\n\n{counts}{image}")


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


def _statistics(scored: Sequence[ScoredRollout]) -> dict[str, Any]:
    reward_funcs = {}
    for path in scored[0].scores if scored else ():
        values = [item.scores[path] for item in scored if item.scores[path] is not None]
        mean = sum(values) / len(values) if values else None
        reward_funcs[path] = {"mean": mean, "num_scored": len(values), "num_unscored": len(scored) - len(values)}
    return {
        "num_responses": len(scored),
        "num_finished": sum(item.rollout.finished for item in scored),
        "num_right": sum(item.right is True for item in scored),
        "num_unjudged": sum(item.right is None for item in scored),
        "mean_tokens": sum(item.rollout.num_tokens for item in scored) / max(len(scored), 1),
        "reward_funcs": reward_funcs,
    }


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (header, ["---"] * len(header), *rows))
