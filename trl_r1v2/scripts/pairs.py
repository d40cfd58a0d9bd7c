# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
`trl-r1v2 pairs`: preference pairs for MPO from scored responses. Samples responses (or reads those of an earlier
command), scores them, and writes pairs in TRL's preference format with where they come from. The rules are in
`trl_r1v2.sampling.pairs`.
"""

import contextlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from datasets import Dataset, Value
from transformers.hf_argparser import HfArg

from ..hallucination.threshold_files import KINDS, read_threshold_file
from ..rewards.answers import final_answer, prompt_opens_think
from ..sampling.fingerprints import content_fingerprint
from ..sampling.histograms import histogram
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
from ..sampling.prompts import count_images, tokenizer_of
from ..sampling.rollouts import Rollout, RolloutStore
from ..sampling.tables import read_rollouts
from .generation import open_engine
from .recipe import refusals_of
from .sample_and_score import SamplingArguments, SamplingRun, ScoredRollout, markdown_table


logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class PairsArguments(SamplingArguments, PairRules):
    """Arguments of `trl-r1v2 pairs`."""

    num_samples: int = HfArg(default=32, help="Responses to sample for each prompt (MMPR: up to 32).")
    rollouts: str | None = HfArg(
        default=None,
        help="Pair these responses instead of sampling: the output folder of `filter-prompts` or `pairs`, or a "
        "`.jsonl` or `.parquet` file with columns `row` and `text`.",
    )
    threshold_file: str | None = HfArg(
        default=None,
        help="File that holds `chosen_threshold` or `margin_threshold`: thresholds.json of `calibrate`, or "
        "hallucination/threshold.json of a training run.",
    )
    format_func: str | None = HfArg(default=None, help="Dotted path; below 0.5 the format is broken. Unset: no check.")
    think_open: bool | None = HfArg(default=None, help="Whether prompts open `<think>`; unset: look at them.")

    def __post_init__(self):
        super().__post_init__()
        PairRules.__post_init__(self)
        cuts = [name for name in (*KINDS, "chosen_quantile") if vars(self)[name] is not None]
        if self.threshold_file is not None and cuts:
            raise ValueError(f"`threshold_file` and `{cuts[0]}` both give a threshold: set one of the two")
        if self.max_format_pairs > 0 and self.format_func is None:
            raise ValueError(
                f"`max_format_pairs` is {self.max_format_pairs}, but nothing judges the format: set `format_func`, "
                "e.g. trl_r1v2.rewards.format_reward"
            )
        if self.model_name_or_path is None and (self.rollouts is None or self.max_dropout_pairs > 0):
            raise ValueError("`model_name_or_path` is unset, but sampling and DropoutNTP need a policy")
        if self.generation == "server" and self.max_dropout_pairs > 0:
            raise ValueError(
                "DropoutNTP goes on within a response, which no chat server does: use vllm or transformers"
            )


def read_rules(args: PairsArguments) -> PairRules:
    """The rules, with the threshold of the file if one is named; its score has to be the one computed here."""
    rules = PairRules(**{rule.name: vars(args)[rule.name] for rule in fields(PairRules)})
    if args.threshold_file is None:
        return rules
    with refusals_of("threshold_file"):
        content = read_threshold_file(args.threshold_file, args.weights)
    return replace(rules, **{kind: content[kind] for kind in KINDS if kind in content})


def main(args: PairsArguments) -> None:
    rules = read_rules(args)
    run = SamplingRun(args, "pairs", args.format_func)
    with contextlib.ExitStack() as stack:
        engine = None
        if args.rollouts is None or args.max_dropout_pairs > 0:
            engine = stack.enter_context(open_engine(args, run.state.device))
        if args.rollouts is not None:
            scored = run.score(read_rollouts(args.rollouts, run.dataset))
        else:
            scored = run.sample_and_score(engine)
        responses = to_responses(args, run.dataset, scored)
        pair_set = build_pairs(responses, rules)
        dropout_counts = {}
        if args.max_dropout_pairs > 0:
            good = [item.rollout for item in scored]
            threshold = pair_set.thresholds["chosen"]
            found, dropout_counts = build_dropout_pairs(run, rules, good, responses, threshold, engine)
            pair_set.pairs = sorted([*pair_set.pairs, *found], key=lambda pair: pair.chosen.row)

    if run.state.is_main_process:
        write_summary(run, pair_set, responses, scored, dropout_counts)
    if not pair_set.pairs:
        advice = ADVICE[max(ADVICE, key=lambda fate: pair_set.prompts.get(fate, 0))]
        raise ValueError(
            f"no pair could be built. Prompts: {pair_set.prompts}; responses: {pair_set.responses}; candidate pairs: "
            f"{pair_set.candidates}. Rollouts and scores are kept in {args.output_dir}: {advice}"
        )
    if run.state.is_main_process:
        write_pairs(run, pair_set)
        print(f"{len(pair_set.pairs)} pairs are in {args.output_dir}: load_dataset({args.output_dir!r})")


# What helps where most prompts end without a pair, by how they end.
ADVICE = {
    "no_pair_left": "relax the thresholds and run again, or sample more responses",
    "no_finished_right": "right responses are cut off before their end; raise `max_new_tokens`",
    "all_right": "take harder prompts, or sample more responses",
    "all_wrong": "take easier prompts or sample more responses; the scores show whether answers are read as meant",
    "unscored": "the reward functions score no response; see whether they read the gold answers",
}


def to_responses(args: PairsArguments, dataset: Dataset, scored: Sequence[ScoredRollout]) -> list[Response]:
    """Scored rollouts as the pair rules see them."""
    prompts = dataset.select_columns("prompt")
    opens_think = {
        row: prompt_opens_think(prompts[row]["prompt"]) if args.think_open is None else args.think_open
        for row in {item.rollout.row for item in scored}
    }
    responses = []
    for item in scored:
        rollout, score, right = item.rollout, item.score, item.right
        answer = final_answer(rollout.text, opens_think[rollout.row])
        answer = None if answer is None else answer.text
        form = None if args.format_func is None else item.scores[args.format_func]
        of_text = rollout.row, rollout.sample, rollout.text
        responses.append(Response(*of_text, score, right, answer, rollout.finished, form is None or form >= 0.5))
    scores = {response.score for response in responses}
    if len(scores) == 1:
        logger.warning(f"every response scored {scores.pop()}: these reward functions cannot tell the responses apart")
    return responses


def build_dropout_pairs(
    run: SamplingRun, rules: PairRules, rollouts: Sequence[Rollout], responses: Sequence[Response], threshold, engine
) -> tuple[list[Pair], dict[str, int]]:
    """Regenerates the second halves of good responses without the image and pairs the two."""
    rollout_of = {(rollout.row, rollout.sample): rollout for rollout in rollouts}
    with_images = [row for row in {r.row for r in rollouts} if count_images(run.dataset, row)]
    good = dropout_sources(responses, with_images, rules, threshold)
    processing_class = engine.processing_class
    tokenizer = tokenizer_of(processing_class)
    halves = [first_half(rollout_of[response.row, response.sample], tokenizer) for response in good]
    kept = [index for index, half in enumerate(halves) if half]
    sources, prefixes = [good[index] for index in kept], [halves[index] for index in kept]
    counts = {"too_short": len(good) - len(kept)}
    if not sources:
        return [], counts

    whole = [rollout_of[response.row, response.sample] for response in sources]
    starts = content_fingerprint([(r.row, r.sample, ids) for r, ids in zip(whole, prefixes, strict=True)])
    blind = blind_prompts(run.dataset, [rollout.row for rollout in whole])
    prefix_ids = dict(enumerate(prefixes))
    for _ in run.sample(blind, engine, "dropout", {"prefixes": starts}, num_samples=1, prefix_ids=prefix_ids):
        pass  # stored as they come
    run.state.wait_for_everyone()
    continuations = RolloutStore.merge(run.rollout_folder, range(len(whole)), 1, name="dropout")
    scored = run.score(join_halves(whole, prefixes, continuations, processing_class), "dropout_scores")
    pairs, drops = pair_with_dropout(sources, to_responses(run.args, run.dataset, scored))
    return pairs, counts | drops


def write_summary(
    run: SamplingRun, pair_set: PairSet, responses: Sequence[Response], scored: Sequence[ScoredRollout], dropout: dict
) -> None:
    """Writes `summary.json` and the histograms of scores and margins."""
    roles = {"right": ("right",), "negative": NEGATIVES, "format": ("format",)}
    scores = {name: histogram([r.score for r in responses if r.role in members]) for name, members in roles.items()}
    margins = histogram([pair.margin for pair in pair_set.pairs if pair.margin is not None])
    num_unanswered = len(run.dataset) - len({response.row for response in responses})
    result = {
        **vars(pair_set),
        "num_pairs": len(pair_set.pairs),
        "pairs": dict(sorted(Counter(pair.kind for pair in pair_set.pairs).items())),
        "prompts": {**pair_set.prompts, "no_responses": num_unanswered},
        "dropout_ntp": dropout,
        "score_histograms": scores,
        "margin_histogram": margins,
    }
    lines = {name: {} if value is None else {"threshold": value} for name, value in pair_set.thresholds.items()}
    panels = [
        {"title": "Responses", "xlabel": "score", "series": scores, "lines": lines["chosen"]},
        {"title": "Pairs", "xlabel": "margin", "series": {"pairs": margins}, "lines": lines["margin"]},
    ]
    run.write_summary(result, scored, "scores.png", panels)


def write_pairs(run: SamplingRun, pair_set: PairSet) -> None:
    """Writes the pairs in TRL's preference format, with the columns that say where each comes from."""
    args, dataset, pairs = run.args, run.dataset, pair_set.pairs
    kept_columns = [name for name in ("prompt", "images", "image") if name in dataset.column_names]
    table = dataset.select_columns(kept_columns).select([pair.chosen.row for pair in pairs])
    conversational = not isinstance(dataset[0]["prompt"], str)

    def completion(response: Response) -> Any:
        return [{"role": "assistant", "content": response.text}] if conversational else response.text

    both = {"chosen": [pair.chosen for pair in pairs], "rejected": [pair.rejected for pair in pairs]}
    columns = {
        **{side: [completion(response) for response in members] for side, members in both.items()},
        "pair_kind": [pair.kind for pair in pairs],
        "rejected_role": [pair.rejected.role for pair in pairs],
        "source_row": [pair.chosen.row for pair in pairs],
        **{f"{side}_sample": [response.sample for response in members] for side, members in both.items()},
        **{f"{side}_score": [response.score for response in members] for side, members in both.items()},
        **{f"{name}_threshold": [value] * len(pairs) for name, value in pair_set.thresholds.items()},
    }
    for name, values in columns.items():
        # A threshold that was not set is a column of nulls, whose type cannot be inferred.
        feature = Value("float64") if name.endswith(("_score", "_threshold")) else None
        table = table.add_column(name, values, feature=feature)
    text = (
        f"{len(pairs)} preference pairs for prompts of `{args.dataset_name}`, responses from "
        f"`{args.rollouts or args.model_name_or_path}`, judged by `{args.judge}`. `source_row` is the row in that "
        "dataset, `*_sample` the number of the response."
    )
    counted = {"prompt": pair_set.prompts, "response": pair_set.responses, "candidate pair": pair_set.candidates}
    rows = [(what, fate, count) for what, counts in counted.items() for fate, count in counts.items()]
    run.write_dataset(table, "Preference pairs", text, markdown_table(("what", "became", "count"), rows), "scores.png")
