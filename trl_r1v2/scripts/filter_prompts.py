# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
`trl-r1v2 filter-prompts`: the offline phase of the Selective Sample Buffer (R1V2).

Samples responses to every prompt with the policy, scores them with the reward functions of the coming GRPO run, and
writes the prompts with mixed outcomes as a `datasets` folder; optionally also a buffer for the run to start from.
Training is not covered.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset, load_dataset
from transformers import ProcessorMixin
from transformers.hf_argparser import HfArg

from ..sampling.dataset_folder import write_dataset_folder
from ..sampling.histograms import check_plotting, draw_histograms
from ..sampling.prefill import EngineCorrection, group_advantages, write_prefill
from ..sampling.prompt_pool import PoolRules, PromptOutcome, count_fates, pass_rate_histogram
from ..ssb_grpo.checkpoint import SSB_FOLDER
from .generation import load_policy, open_engine
from .parser import RecipeParser
from .sample_and_score import (
    SamplingArguments,
    ScoredRollout,
    check_output_dir,
    load_dataset_of,
    reward_functions_of,
    sample_and_score,
    score_statistics,
    start_processes,
)


ADDED_COLUMNS = ("pass_rate", "num_right", "num_scored", "source_row")


@dataclass
class FilterPromptsArguments(SamplingArguments):
    """Arguments of `trl-r1v2 filter-prompts`."""

    min_pass_rate: float = HfArg(
        default=0.0, help="Smallest pass rate kept, inclusive (ours). Prompts without a right response never stay."
    )
    max_pass_rate: float = HfArg(
        default=1.0, help="Largest pass rate kept, inclusive (ours). Prompts without a wrong response never stay."
    )
    prefill: bool = HfArg(default=False, help="Also write a buffer that `grpo` starts from (`ssb_prefill`).")
    prefill_capacity: int = HfArg(
        default=1024, help="Samples a process keeps in that buffer, those of largest |advantage|."
    )
    prefill_reference: bool = HfArg(
        default=False,
        help="Store reference log-probabilities too: for a run with `beta` > 0 that starts from this policy.",
    )

    vllm_importance_sampling_mode: str | None = HfArg(
        default=None,
        help="That of the run to which the buffer goes, if it generates with vLLM (`sequence_mask` is TRL's); unset: "
        "a run without vLLM, or without its correction.",
        metadata={"choices": ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]},
    )
    vllm_importance_sampling_clip_max: float | None = HfArg(default=3.0, help="The same run's (TRL's: 3).")
    vllm_importance_sampling_clip_min: float | None = HfArg(default=None, help="The same run's.")

    def __post_init__(self):
        super().__post_init__()
        PoolRules(self.min_pass_rate, self.max_pass_rate)
        if self.num_samples < 2:
            raise ValueError(f"`num_samples` is {self.num_samples}, but mixed outcomes need at least 2")
        if self.prefill_capacity < 1:
            raise ValueError(f"`prefill_capacity` is {self.prefill_capacity}, but must be at least 1")
        if self.prefill and self.generation == "server":
            raise ValueError(
                "`prefill` needs the tokens of the responses, which no server gives: use vllm or transformers"
            )


def main(args: FilterPromptsArguments) -> None:
    # What can be wrong without a model is found before one is loaded.
    state = start_processes(args)
    check_output_dir(args, "filter-prompts")
    if args.plots:
        check_plotting()
    reward_functions_of(args)
    dataset = load_dataset_of(args)

    with open_engine(args, state.device, with_logps=args.prefill) as engine:
        scored = sample_and_score(args, dataset, engine, state)

    rules = PoolRules(args.min_pass_rate, args.max_pass_rate)
    groups = [list(group) for _, group in groupby(scored, key=lambda item: item.rollout.row)]
    outcomes = [PromptOutcome.from_verdicts(group[0].rollout.row, [item.right for item in group]) for group in groups]
    kept = [outcome for outcome in outcomes if rules.fate(outcome) == "kept"]
    if state.is_main_process:
        write_summary(args, rules, outcomes, scored)
    if not kept:
        raise ValueError(
            f"no prompt is left of {len(outcomes)}: {count_fates(outcomes, rules)}. Rollouts and scores are in "
            f"{args.output_dir}; widen the pass rates, sample more responses, or use other prompts"
        )
    if state.is_main_process:
        write_pool(args, dataset, rules, outcomes, kept)
    state.wait_for_everyone()
    if args.prefill:
        if args.generation == "transformers":
            policy = engine.model, engine.processing_class
        else:
            policy = load_policy(args.model_name_or_path, state.device, dtype=args.dtype)
        fill_buffer(args, *policy, groups, kept, state)
    if state.is_main_process:
        print(f"{len(kept)} of {len(outcomes)} prompts are in {args.output_dir}: load_dataset({args.output_dir!r})")
        if args.prefill:
            print(f"Start from their rollouts with `ssb_prefill: {Path(args.output_dir) / SSB_FOLDER}`")


def write_summary(
    args: FilterPromptsArguments,
    rules: PoolRules,
    outcomes: Sequence[PromptOutcome],
    scored: Sequence[ScoredRollout],
) -> None:
    """Writes `summary.json` and the histogram of pass rates."""
    num_bins = min(args.num_samples + 1, 21)
    counts = pass_rate_histogram(outcomes, num_bins)
    histogram = {"edges": [index / num_bins for index in range(num_bins + 1)], "counts": counts}
    num_mixed = sum(0 < outcome.num_right < outcome.num_scored for outcome in outcomes)
    summary = {
        "command": "filter-prompts",
        "num_prompts": len(outcomes),
        "prompts": count_fates(outcomes, rules),
        "mixed_share": num_mixed / len(outcomes),
        "pass_rate_histogram": histogram,
        **score_statistics(scored),
        "settings": asdict(args),
    }
    folder = Path(args.output_dir)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    if args.plots:
        panel = {
            "title": f"{len(outcomes)} prompts, {args.num_samples} responses each",
            "xlabel": "pass rate",
            "series": {"prompts": histogram},
        }
        draw_histograms(folder / "pass_rates.png", [panel])


def write_pool(
    args: FilterPromptsArguments,
    dataset: Dataset,
    rules: PoolRules,
    outcomes: Sequence[PromptOutcome],
    kept: Sequence[PromptOutcome],
) -> None:
    """Writes the kept prompts with their pass rates."""
    pool = dataset.select([outcome.row for outcome in kept])
    # A pool that is filtered again gets the new rates.
    pool = pool.remove_columns([name for name in ADDED_COLUMNS if name in pool.column_names])
    pool = pool.add_column("pass_rate", [outcome.pass_rate for outcome in kept])
    pool = pool.add_column("num_right", [outcome.num_right for outcome in kept])
    pool = pool.add_column("num_scored", [outcome.num_scored for outcome in kept])
    pool = pool.add_column("source_row", [outcome.row for outcome in kept])
    lines = [f"| {fate} | {count} |" for fate, count in count_fates(outcomes, rules).items()]
    text = (
        f"Prompts of `{args.dataset_name}` to which `{args.model_name_or_path}` gave right and wrong responses "
        f"({args.num_samples} each, judged by `{args.judge}`). `source_row` is the row in that dataset.\n\n"
        "| fate | prompts |\n|---|---|\n" + "\n".join(lines)
    )
    if args.plots:
        text += "\n\n![Pass rates](pass_rates.png)"
    write_dataset_folder(pool, args.output_dir, "Prompts with mixed outcomes", text)


def fill_buffer(
    args: FilterPromptsArguments,
    model,
    processing_class,
    groups: Sequence[Sequence[ScoredRollout]],
    kept: Sequence[PromptOutcome],
    state: PartialState,
) -> None:
    """Writes the buffer; its samples refer to the rows of the pool, the training set of the coming run."""
    pool = load_dataset(args.output_dir, split="train")
    row_in_pool = {outcome.row: index for index, outcome in enumerate(kept)}
    groups = [group for group in groups if group[0].rollout.row in row_in_pool]
    rewards = [[float("nan") if item.score is None else item.score for item in group] for group in groups]
    advantages = group_advantages(torch.tensor(rewards))
    samples = [
        (replace(item.rollout, row=row_in_pool[item.rollout.row]), advantage)
        for group, values in zip(groups, advantages.tolist(), strict=True)
        for item, advantage in zip(group, values, strict=True)
    ][state.process_index :: state.num_processes]
    tokenizer = processing_class.tokenizer if isinstance(processing_class, ProcessorMixin) else processing_class
    mode = args.vllm_importance_sampling_mode
    bounds = args.vllm_importance_sampling_clip_max, args.vllm_importance_sampling_clip_min
    write_prefill(
        Path(args.output_dir) / SSB_FOLDER,
        model.eval(),
        processing_class,
        pool,
        [rollout for rollout, _ in samples],
        [advantage for _, advantage in samples],
        vocab_size=len(tokenizer),
        temperature=args.temperature,
        capacity=args.prefill_capacity,
        batch_size=args.batch_size,
        with_reference=args.prefill_reference,
        correction=None if mode is None else EngineCorrection(mode, *bounds),
        seed=args.seed,
        rank=state.process_index,
        world_size=state.num_processes,
        progress=state.is_local_main_process,
    )
    state.wait_for_everyone()


def make_parser(prog: str | None = None) -> RecipeParser:
    return RecipeParser((FilterPromptsArguments,), prog=prog)


if __name__ == "__main__":
    raise SystemExit(make_parser().run(main))
