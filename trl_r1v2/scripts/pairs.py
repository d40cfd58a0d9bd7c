# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
`trl-r1v2 pairs`: preference pairs for MPO from scored responses.

Samples responses (or reads those of an earlier command), scores them, and writes pairs in TRL's preference format with
where they come from. The rules are in `trl_r1v2.sampling.pairs`; training is not covered.
"""

import contextlib
import functools
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset, Value
from transformers import ProcessorMixin
from transformers.hf_argparser import HfArg

from ..hallucination.threshold_files import KINDS, read_threshold_file
from ..rewards.answers import final_answer, prompt_opens_think
from ..sampling.dataset_folder import write_dataset_folder
from ..sampling.fingerprints import content_fingerprint
from ..sampling.histograms import check_plotting, draw_histograms, histogram
from ..sampling.pairs import (
    NEGATIVES,
    Pair,
    PairRules,
    PairSet,
    Response,
    build_pairs,
    dropout_sources,
    pair_with_dropout,
)
from ..sampling.pairs_dropout_ntp import blind_prompts, first_half, join_halves
from ..sampling.prompts import count_images
from ..sampling.rollouts import Rollout, RolloutStore
from ..sampling.tables import read_rollouts
from .generation import open_engine
from .parser import RecipeParser
from .recipe import refusals_of
from .sample_and_score import (
    ROLLOUT_FOLDER,
    SamplingArguments,
    ScoredRollout,
    check_output_dir,
    collect_scores,
    load_dataset_of,
    reward_functions_of,
    sample_and_score,
    sample_over_processes,
    score_over_processes,
    score_statistics,
    start_processes,
)


logger = logging.getLogger(__name__)


@dataclass
class PairsArguments(SamplingArguments):
    """Arguments of `trl-r1v2 pairs`."""

    num_samples: int = HfArg(default=32, help="Responses to sample for each prompt (MMPR: up to 32).")
    rollouts: str | None = HfArg(
        default=None,
        help="Pair these responses instead of sampling: the output folder of `filter-prompts` or `pairs`, or a "
        "`.jsonl` or `.parquet` file with columns `row` and `text`.",
    )
    max_pairs: int = HfArg(default=15, help="Correctness pairs for each prompt (MMPR: up to 15).")
    max_format_pairs: int = HfArg(
        default=0, help="Pairs for each prompt whose rejected response breaks the format; needs `format_func`."
    )
    drop_contained: bool = HfArg(
        default=True, help="Drop pairs whose right answer is contained, as a string, in the wrong one (MMPR)."
    )
    chosen_threshold: float | None = HfArg(
        default=None, help="Smallest score of a chosen response (R1V2, section 4.4, uses 15, 10 and 7)."
    )
    chosen_quantile: float | None = HfArg(
        default=None, help="The same as a quantile of the scores of all right responses (ours)."
    )
    margin_threshold: float | None = HfArg(
        default=None, help="Smallest difference of the scores of chosen and rejected (R1V2 leaves it open)."
    )
    margin_quantile: float | None = HfArg(
        default=None, help="The same as a quantile of the differences of all candidate pairs (ours)."
    )
    threshold_file: str | None = HfArg(
        default=None,
        help="File that holds `chosen_threshold` or `margin_threshold`: thresholds.json of `calibrate`, or "
        "hallucination/threshold.json of a training run.",
    )
    max_dropout_pairs: int = HfArg(
        default=0, help="DropoutNTP pairs for each prompt with images: the second half regenerated without them."
    )
    dropout_unjudged: bool = HfArg(
        default=False, help="Use finished responses that could not be judged for DropoutNTP too (MMPR's open prompts)."
    )
    dropout_drop_right: bool = HfArg(
        default=False, help="Drop DropoutNTP pairs whose regenerated response is judged right all the same (ours)."
    )
    format_func: str | None = HfArg(
        default=None,
        help="Dotted path of the function that tells kept from broken format (below 0.5); unset: no check.",
    )
    think_open: bool | None = HfArg(
        default=None, help="Whether the chat template opens `<think>`; unset: look at the prompts, as the rewards do."
    )

    def __post_init__(self):
        super().__post_init__()
        cuts = [name for name in ("chosen_threshold", "chosen_quantile", "margin_threshold", "margin_quantile")
                if vars(self)[name] is not None]  # fmt: skip
        if self.threshold_file is not None and cuts:
            raise ValueError(f"`threshold_file` and `{cuts[0]}` both give a threshold: set one of the two")
        rules = self.rules
        if rules.max_format_pairs > 0 and self.format_func is None:
            raise ValueError(
                f"`max_format_pairs` is {rules.max_format_pairs}, but nothing judges the format: set `format_func`, "
                "e.g. trl_r1v2.rewards.format_reward"
            )
        if self.model_name_or_path is None and (self.rollouts is None or self.max_dropout_pairs > 0):
            raise ValueError("`model_name_or_path` is unset, but sampling and DropoutNTP need a policy")
        if self.generation == "server" and self.max_dropout_pairs > 0:
            raise ValueError(
                "DropoutNTP goes on within a response, which no chat server does: use vllm or transformers"
            )

    @property
    def rules(self) -> PairRules:
        """The rules among the arguments; the threshold of `threshold_file` is added by [`read_rules`]."""
        return PairRules(**{rule.name: vars(self)[rule.name] for rule in fields(PairRules)})


def read_rules(args: PairsArguments) -> PairRules:
    """The rules, with the threshold of the file if one is named; its score has to be the one computed here."""
    if args.threshold_file is None:
        return args.rules
    with refusals_of("threshold_file"):
        content = read_threshold_file(args.threshold_file, args.weights)
    return replace(args.rules, **{kind: content[kind] for kind in KINDS if kind in content})


def main(args: PairsArguments) -> None:
    # What can be wrong without a model is found before one is loaded.
    state = start_processes(args)
    check_output_dir(args, "pairs")
    if args.plots:
        check_plotting()
    extra_funcs = [args.format_func] if args.format_func is not None else []
    reward_functions_of(args, extra_funcs)
    rules = read_rules(args)
    dataset = load_dataset_of(args)
    with contextlib.ExitStack() as stack:

        @functools.cache
        def engine():
            return stack.enter_context(open_engine(args, state.device))

        if args.rollouts is not None:
            rollouts = read_rollouts(args.rollouts, dataset)
            own = [rollout for rollout in rollouts if rollout.row % state.num_processes == state.process_index]
            score_over_processes(args, dataset, [own], state, extra_funcs)
            scored = collect_scores(args, rollouts)
        else:
            scored = sample_and_score(args, dataset, engine(), state, extra_funcs)
            rollouts = [item.rollout for item in scored]
        responses = to_responses(args, dataset, scored)
        pair_set = build_pairs(responses, rules)

        dropout_counts = {}
        if args.max_dropout_pairs > 0:
            found, dropout_counts = build_dropout_pairs(args, dataset, rollouts, responses, pair_set, engine, state)
            pair_set.pairs = sorted([*pair_set.pairs, *found], key=lambda pair: pair.chosen.row)

    if state.is_main_process:
        num_unanswered = len(dataset) - len({rollout.row for rollout in rollouts})
        write_summary(args, pair_set, responses, scored, dropout_counts, num_unanswered)
    if not pair_set.pairs:
        raise ValueError(
            f"no pair could be built. Prompts: {pair_set.prompts}; responses: {pair_set.responses}; candidate pairs: "
            f"{pair_set.candidates}. Rollouts and scores are kept in {args.output_dir}: relax the thresholds and run "
            "again, or sample more responses"
        )
    if state.is_main_process:
        write_pairs(args, dataset, pair_set)
        print(f"{len(pair_set.pairs)} pairs are in {args.output_dir}: load_dataset({args.output_dir!r})")


def to_responses(args: PairsArguments, dataset: Dataset, scored: Sequence[ScoredRollout]) -> list[Response]:
    """Scored rollouts as the pair rules see them."""
    prompts = dataset.select_columns("prompt")
    opens_think = {
        row: prompt_opens_think(prompts[row]["prompt"]) if args.think_open is None else args.think_open
        for row in {item.rollout.row for item in scored}
    }
    responses = []
    for item in scored:
        rollout = item.rollout
        answer = final_answer(rollout.text, opens_think[rollout.row])
        form = None if args.format_func is None else item.scores[args.format_func]
        responses.append(
            Response(
                row=rollout.row,
                sample=rollout.sample,
                text=rollout.text,
                score=item.score,
                right=item.right,
                answer=None if answer is None else answer.text,
                finished=rollout.finished,
                well_formed=form is None or form >= 0.5,
            )
        )
    scores = {response.score for response in responses}
    if len(scores) == 1:
        logger.warning(f"every response scored {scores.pop()}: these reward functions cannot tell the responses apart")
    return responses


def build_dropout_pairs(
    args: PairsArguments,
    dataset: Dataset,
    rollouts: Sequence[Rollout],
    responses: Sequence[Response],
    pair_set: PairSet,
    get_engine: Callable,
    state: PartialState,
) -> tuple[list[Pair], dict[str, int]]:
    """Regenerates the second halves of good responses without the image and pairs the two."""
    rollout_of = {(rollout.row, rollout.sample): rollout for rollout in rollouts}
    with_images = [row for row in {r.row for r in rollouts} if count_images(dataset, row)]
    good = dropout_sources(responses, with_images, args.rules, pair_set.thresholds["chosen"])
    engine = get_engine()
    processing_class = engine.processing_class
    tokenizer = processing_class.tokenizer if isinstance(processing_class, ProcessorMixin) else processing_class
    halves = [first_half(rollout_of[response.row, response.sample], tokenizer) for response in good]
    kept = [index for index, half in enumerate(halves) if half]
    sources, prefixes = [good[index] for index in kept], [halves[index] for index in kept]
    counts = {"too_short": len(good) - len(kept)}
    if not sources:
        return [], counts

    whole = [rollout_of[response.row, response.sample] for response in sources]
    starts = content_fingerprint([(r.row, r.sample, ids) for r, ids in zip(whole, prefixes, strict=True)])
    blind = blind_prompts(dataset, [rollout.row for rollout in whole])
    chunks = sample_over_processes(
        args,
        blind,
        engine,
        state,
        "dropout",
        {"prefixes": starts},
        num_samples=1,
        prefix_ids=dict(enumerate(prefixes)),
    )
    for _ in chunks:  # stored as they come
        pass
    state.wait_for_everyone()
    folder = Path(args.output_dir) / ROLLOUT_FOLDER
    continuations = RolloutStore.merge(folder, range(len(whole)), 1, name="dropout")
    joined = join_halves(whole, prefixes, continuations, processing_class)
    extra_funcs = [args.format_func] if args.format_func is not None else []
    own = [rollout for rollout in joined if rollout.row % state.num_processes == state.process_index]
    score_over_processes(args, dataset, [own], state, extra_funcs, "dropout_scores")
    scored = collect_scores(args, joined, "dropout_scores")
    pairs, drops = pair_with_dropout(sources, to_responses(args, dataset, scored), args.dropout_drop_right)
    return pairs, counts | drops


def write_summary(
    args: PairsArguments,
    pair_set: PairSet,
    responses: Sequence[Response],
    scored: Sequence[ScoredRollout],
    dropout_counts: dict[str, int],
    num_unanswered: int,
) -> None:
    """Writes `summary.json` and the histograms of scores and margins."""
    by_role = {"right": [], "negative": [], "format": []}
    for response in responses:
        role = "negative" if response.role in NEGATIVES else response.role
        if role in by_role:
            by_role[role].append(response.score)
    scores = {role: histogram(values) for role, values in by_role.items()}
    margins = histogram([pair.margin for pair in pair_set.pairs if pair.margin is not None])
    kinds = sorted({pair.kind for pair in pair_set.pairs})
    summary = {
        "command": "pairs",
        "num_pairs": len(pair_set.pairs),
        "pairs": {kind: sum(pair.kind == kind for pair in pair_set.pairs) for kind in kinds},
        "prompts": {**pair_set.prompts, "no_responses": num_unanswered},
        "responses": pair_set.responses,
        "candidates": pair_set.candidates,
        "dropout_ntp": dropout_counts,
        "thresholds": pair_set.thresholds,
        "score_histograms": scores,
        "margin_histogram": margins,
        **score_statistics(scored),
        "settings": asdict(args),
    }
    folder = Path(args.output_dir)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    if args.plots:
        lines = {name: {} if value is None else {"threshold": value} for name, value in pair_set.thresholds.items()}
        panels = [
            {"title": "Responses", "xlabel": "score", "series": scores, "lines": lines["chosen"]},
            {"title": "Pairs", "xlabel": "margin", "series": {"pairs": margins}, "lines": lines["margin"]},
        ]
        draw_histograms(folder / "scores.png", panels)


def write_pairs(args: PairsArguments, dataset: Dataset, pair_set: PairSet) -> None:
    """Writes the pairs in TRL's preference format, with the columns that say where each comes from."""
    pairs, thresholds = pair_set.pairs, pair_set.thresholds
    kept_columns = [name for name in ("prompt", "images", "image") if name in dataset.column_names]
    table = dataset.select_columns(kept_columns).select([pair.chosen.row for pair in pairs])
    conversational = not isinstance(dataset[0]["prompt"], str)

    def completion(response: Response) -> Any:
        return [{"role": "assistant", "content": response.text}] if conversational else response.text

    columns = {
        "chosen": [completion(pair.chosen) for pair in pairs],
        "rejected": [completion(pair.rejected) for pair in pairs],
        "pair_kind": [pair.kind for pair in pairs],
        "rejected_role": [pair.rejected.role for pair in pairs],
        "source_row": [pair.chosen.row for pair in pairs],
        "chosen_sample": [pair.chosen.sample for pair in pairs],
        "rejected_sample": [pair.rejected.sample for pair in pairs],
        "chosen_score": [pair.chosen.score for pair in pairs],
        "rejected_score": [pair.rejected.score for pair in pairs],
        "chosen_threshold": [thresholds["chosen"]] * len(pairs),
        "margin_threshold": [thresholds["margin"]] * len(pairs),
    }
    for name, values in columns.items():
        # A threshold that was not set is a column of nulls, whose type cannot be inferred.
        feature = Value("float64") if name.endswith(("_score", "_threshold")) else None
        table = table.add_column(name, values, feature=feature)
    source = args.rollouts or args.model_name_or_path
    counted = {"prompt": pair_set.prompts, "response": pair_set.responses, "candidate pair": pair_set.candidates}
    lines = [f"| {what} | {name} | {count} |" for what, counts in counted.items() for name, count in counts.items()]
    text = (
        f"{len(pairs)} preference pairs for prompts of `{args.dataset_name}`, responses from `{source}`, judged by "
        f"`{args.judge}`. `source_row` is the row in that dataset, `*_sample` the number of the response.\n\n"
        "| what | became | count |\n|---|---|---|\n" + "\n".join(lines)
    )
    if args.plots:
        text += "\n\n![Scores and margins](scores.png)"
    write_dataset_folder(table, args.output_dir, "Preference pairs", text)


def make_parser(prog: str | None = None) -> RecipeParser:
    return RecipeParser((PairsArguments,), prog=prog)


if __name__ == "__main__":
    raise SystemExit(make_parser().run(main))
