# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
`trl-r1v2 filter-prompts`: the offline phase of the Selective Sample Buffer (R1V2). Samples responses to every prompt
with the policy, scores them with the reward functions of the coming GRPO run, and writes the prompts with mixed
outcomes as a `datasets` folder; optionally also a buffer for the run to start from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from datasets import load_dataset
from transformers.hf_argparser import HfArg

from ..sampling.prefill import EngineCorrection, group_advantages, write_prefill
from ..sampling.prompt_pool import PoolRules, PromptOutcome, count_fates, pass_rate_histogram
from ..ssb_grpo.checkpoint import SSB_FOLDER
from .generation import load_policy, open_engine
from .sample_and_score import SamplingArguments, SamplingRun, ScoredRollout, markdown_table


@dataclass(kw_only=True)
class FilterPromptsArguments(SamplingArguments, PoolRules):
    """Arguments of `trl-r1v2 filter-prompts`."""

    prefill: bool = HfArg(default=False, help="Also write a buffer that `grpo` starts from (`ssb_prefill`).")
    prefill_capacity: int = HfArg(default=1024, help="Samples a process keeps, those of largest |advantage|.")
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
        PoolRules.__post_init__(self)
        self.check_at_least(1, "prefill_capacity")
        if self.num_samples < 2:
            raise ValueError(f"`num_samples` is {self.num_samples}, but mixed outcomes need at least 2")
        if self.prefill and self.generation == "server":
            raise ValueError(
                "`prefill` needs the tokens of the responses, which no server gives: use vllm or transformers"
            )


def main(args: FilterPromptsArguments) -> None:
    run = SamplingRun(args, "filter-prompts")
    with open_engine(args, run.state.device, with_logps=args.prefill) as engine:
        scored = run.sample_and_score(engine)

    groups = [list(group) for _, group in groupby(scored, key=lambda item: item.rollout.row)]
    outcomes = [PromptOutcome.from_verdicts(group[0].rollout.row, [item.right for item in group]) for group in groups]
    fates = count_fates(outcomes, args)
    kept = [outcome for outcome in outcomes if args.fate(outcome) == "kept"]
    if run.state.is_main_process:
        write_summary(run, fates, outcomes, scored)
    if not kept:
        raise ValueError(
            f"no prompt is left of {len(outcomes)}: {fates}. Rollouts and scores are in "
            f"{args.output_dir}; widen the pass rates, sample more responses, or use other prompts"
        )
    if run.state.is_main_process:
        write_pool(run, fates, kept)
    run.state.wait_for_everyone()
    if args.prefill:
        if args.generation == "transformers":
            policy = engine.model, engine.processing_class
        else:
            policy = load_policy(args.model_name_or_path, run.state.device, dtype=args.dtype)
        fill_buffer(run, *policy, groups, kept)
    if run.state.is_main_process:
        print(f"{len(kept)} of {len(outcomes)} prompts are in {args.output_dir}: load_dataset({args.output_dir!r})")
        if args.prefill:
            print(f"Start from their rollouts with `ssb_prefill: {run.folder / SSB_FOLDER}`")


def write_summary(
    run: SamplingRun, fates: dict[str, int], outcomes: Sequence[PromptOutcome], scored: Sequence[ScoredRollout]
) -> None:
    """Writes `summary.json` and the histogram of pass rates."""
    num_bins = min(run.args.num_samples + 1, 21)
    counts = pass_rate_histogram(outcomes, num_bins)
    histogram = {"edges": [index / num_bins for index in range(num_bins + 1)], "counts": counts}
    mixed_share = sum(0 < outcome.num_right < outcome.num_scored for outcome in outcomes) / len(outcomes)
    result = {"num_prompts": len(outcomes), "prompts": fates, "mixed_share": mixed_share}
    result["pass_rate_histogram"] = histogram
    title = f"{len(outcomes)} prompts, {run.args.num_samples} responses each"
    panel = {"title": title, "xlabel": "pass rate", "series": {"prompts": histogram}}
    run.write_summary(result, scored, "pass_rates.png", [panel])


def write_pool(run: SamplingRun, fates: dict[str, int], kept: Sequence[PromptOutcome]) -> None:
    """Writes the kept prompts with their pass rates."""
    columns = {name: [getattr(o, name) for o in kept] for name in ("pass_rate", "num_right", "num_scored")}
    columns["source_row"] = [outcome.row for outcome in kept]
    pool = run.dataset.select(columns["source_row"])
    # A pool that is filtered again gets the new rates.
    pool = pool.remove_columns([name for name in columns if name in pool.column_names])
    for name, values in columns.items():
        pool = pool.add_column(name, values)
    args = run.args
    text = (
        f"Prompts of `{args.dataset_name}` to which `{args.model_name_or_path}` gave right and wrong responses "
        f"({args.num_samples} each, judged by `{args.judge}`). `source_row` is the row in that dataset."
    )
    counts = markdown_table(("fate", "prompts"), fates.items())
    run.write_dataset(pool, "Prompts with mixed outcomes", text, counts, "pass_rates.png")


def fill_buffer(run: SamplingRun, model, processing_class, groups: Sequence[Sequence[ScoredRollout]], kept) -> None:
    """Writes the buffer; its samples refer to the rows of the pool, the training set of the coming run."""
    args, state = run.args, run.state
    pool = load_dataset(args.output_dir, split="train")
    row_in_pool = {outcome.row: index for index, outcome in enumerate(kept)}
    groups = [group for group in groups if group[0].rollout.row in row_in_pool]
    rewards = [[float("nan") if item.score is None else item.score for item in group] for group in groups]
    advantages = group_advantages(torch.tensor(rewards))
    rollouts = [replace(item.rollout, row=row_in_pool[item.rollout.row]) for group in groups for item in group]
    samples = list(zip(rollouts, advantages.flatten().tolist(), strict=True))
    mode = args.vllm_importance_sampling_mode
    bounds = args.vllm_importance_sampling_clip_max, args.vllm_importance_sampling_clip_min
    write_prefill(
        run.folder / SSB_FOLDER,
        model.eval(),
        processing_class,
        pool,
        samples[state.process_index :: state.num_processes],
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
