# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Scored responses to preference pairs: by correctness as in MMPR (arXiv 2411.10442), above a reward threshold (R1V2,
section 4.4), and by dropping the image (DropoutNTP). Pure: no model, no files. What the sources leave open is marked
"ours".
"""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np


# What a response is to its prompt. The three in NEGATIVES can be rejected in a correctness pair.
NEGATIVES = ("wrong", "no_answer", "unfinished")
ROLES = ("right", *NEGATIVES, "format", "right_unfinished", "unscored", "duplicate")


@dataclass(frozen=True)
class Response:
    """
    A scored response to the prompt `row`: its number among those, its text, its total reward (in the units of the
    reward functions; `None` where there is none), whether the answer is right (`None` where it could not be judged),
    the final answer (`None` where it gives none), whether it ended by itself, and whether it keeps the required
    format.
    """

    row: int
    sample: int
    text: str
    score: float | None
    right: bool | None
    answer: str | None = None
    finished: bool = True
    well_formed: bool = True

    @property
    def role(self) -> str:
        """
        One of `ROLES` other than `duplicate`. A response that broke off is judged by that before its format: it could
        not complete it.
        """
        if self.right is None or self.score is None or not math.isfinite(self.score):
            return "unscored"
        if not self.finished:
            return "right_unfinished" if self.right else "unfinished"
        if not self.well_formed:
            return "format"
        if self.right:
            return "right"
        return "wrong" if self.answer is not None else "no_answer"


def _option(default, text: str):
    return field(default=default, metadata={"help": text})


@dataclass
class PairRules:
    """
    Which pairs to build. How many format pairs to mix in is ours: MMPR keeps them apart, and so does the pair's kind.
    """

    max_pairs: int = _option(15, "Correctness pairs for each prompt (MMPR: up to 15).")
    max_format_pairs: int = _option(
        0, "Pairs for each prompt with a rejected response of broken format; `format_func`."
    )
    drop_contained: bool = _option(True, "Drop pairs whose right answer is contained in the wrong one (MMPR).")
    chosen_threshold: float | None = _option(None, "Smallest score of a chosen response (R1V2, 4.4: 15, 10 and 7).")
    chosen_quantile: float | None = _option(None, "The same as a quantile of all right responses' scores (ours).")
    margin_threshold: float | None = _option(
        None, "Smallest difference of the scores of chosen and rejected (R1V2 leaves open which of the two is cut)."
    )
    max_dropout_pairs: int = _option(
        0, "DropoutNTP pairs for each prompt with images: the second half regenerated without them."
    )
    dropout_unjudged: bool = _option(
        False, "Use finished responses that could not be judged for DropoutNTP too (MMPR's open prompts)."
    )
    seed: int = _option(0, "Seed of the choice among candidates; each prompt's depends on it and on the row alone.")

    def __post_init__(self):
        for name in ("max_pairs", "max_format_pairs", "max_dropout_pairs"):
            if vars(self)[name] < 0:
                raise ValueError(f"`{name}` is {vars(self)[name]}, but must be at least 0")
        if self.max_pairs + self.max_format_pairs + self.max_dropout_pairs == 0:
            raise ValueError("`max_pairs`, `max_format_pairs` and `max_dropout_pairs` are 0: no pair could be built")
        for name in ("chosen_threshold", "margin_threshold"):
            threshold = vars(self)[name]
            if threshold is not None and not math.isfinite(threshold):
                raise ValueError(f"`{name}` is {threshold}, but must be finite; unset it for no threshold")
        if self.chosen_quantile is not None:
            if self.chosen_threshold is not None:
                raise ValueError(
                    f"`chosen_threshold` is {self.chosen_threshold} and `chosen_quantile` {self.chosen_quantile}: set "
                    "one of the two"
                )
            if not 0 <= self.chosen_quantile <= 1:
                raise ValueError(f"`chosen_quantile` is {self.chosen_quantile}, but must be in [0, 1]")


@dataclass(frozen=True)
class Pair:
    """
    A preference pair to one prompt, the better response first; its kind is `correctness`, `format` or `dropout_ntp`.
    """

    kind: str
    chosen: Response
    rejected: Response

    @property
    def margin(self) -> float | None:
        """Difference of the scores; `None` where one is missing."""
        if self.chosen.score is None or self.rejected.score is None:
            return None
        return self.chosen.score - self.rejected.score


@dataclass
class PairSet:
    """
    Pairs ordered by row, and what became of everything else: how many responses had each of `ROLES`, how many prompts
    have pairs or have none for each reason, how many candidate pairs were kept or dropped for each reason, and the
    score and the margin actually required (`thresholds`).
    """

    pairs: list[Pair] = field(default_factory=list)
    responses: dict[str, int] = field(default_factory=dict)
    prompts: dict[str, int] = field(default_factory=dict)
    candidates: dict[str, int] = field(default_factory=dict)
    thresholds: dict[str, float | None] = field(default_factory=dict)


def build_pairs(responses: Iterable[Response], rules: PairRules) -> PairSet:
    """
    Pairs right responses with wrong ones. Of the candidates that pass the thresholds, a prompt's `max_pairs` are drawn
    one by one, those of the least used responses first and at random among them (MMPR draws at random; the order is
    ours). `sum(candidates.values())` is the number of all pairs of a right and a negative (or ill-formed) response.
    """
    prompts = _by_role(responses)
    chosen_threshold, margin_threshold = rules.chosen_threshold, rules.margin_threshold
    if rules.chosen_quantile is not None:
        scores = [response.score for by_role in prompts.values() for response in by_role["right"]]
        chosen_threshold = quantile(scores, rules.chosen_quantile)
    roles, fates, drops = Counter(), Counter(), Counter()
    pairs = []
    for row, by_role in prompts.items():
        roles.update({role: len(members) for role, members in by_role.items()})
        found = []
        negatives = [response for role in NEGATIVES for response in by_role[role]]
        kinds = {"correctness": (negatives, rules.max_pairs), "format": (by_role["format"], rules.max_format_pairs)}
        for kind, (rejected, limit) in kinds.items():
            built = [Pair(kind, chosen, other) for chosen in by_role["right"] for other in rejected]
            reasons = [_objection(pair, rules, chosen_threshold, margin_threshold) for pair in built]
            drops.update(filter(None, reasons))
            candidates = [pair for pair, reason in zip(built, reasons, strict=True) if reason is None]
            num_candidates = len(candidates)
            picked = _spread(candidates, limit, random.Random(f"{rules.seed}/{kind}/{row}"))
            drops["beyond_the_limit"] += num_candidates - len(picked)
            drops["kept"] += len(picked)
            found += picked
        fates[_prompt_fate(by_role, found)] += 1
        pairs += found
    reasons = ("kept", "answer_contained", "below_chosen_threshold", "below_margin_threshold", "beyond_the_limit")
    prompt_fates = ("paired", "no_pair_left", "all_right", "all_wrong", "no_finished_right", "unscored")
    return PairSet(
        pairs=pairs,
        responses={role: roles[role] for role in ROLES},
        prompts={fate: fates[fate] for fate in prompt_fates},
        candidates={reason: drops[reason] for reason in reasons},
        thresholds={"chosen": chosen_threshold, "margin": margin_threshold},
    )


def dropout_sources(
    responses: Iterable[Response], rows_with_images: Iterable[int], rules: PairRules, chosen_threshold: float | None
) -> list[Response]:
    """
    The good responses, at most `max_dropout_pairs` a prompt with images, whose second half is to be regenerated
    without the image; `chosen_threshold` is the smallest score of a judged one, from `PairSet.thresholds`.
    """
    with_images = set(rows_with_images)
    sources = []
    for row, by_role in _by_role(responses).items():
        if row not in with_images:
            continue
        good = [r for r in by_role["right"] if chosen_threshold is None or r.score >= chosen_threshold]
        if rules.dropout_unjudged:
            good += [r for r in by_role["unscored"] if r.right is None and r.finished and r.well_formed]
        random.Random(f"{rules.seed}/dropout_ntp/{row}").shuffle(good)
        sources += sorted(good[: rules.max_dropout_pairs], key=lambda response: response.sample)
    return sources


def pair_with_dropout(
    sources: Sequence[Response], regenerated: Sequence[Response]
) -> tuple[list[Pair], dict[str, int]]:
    """
    Pairs good responses with what became of them without the image (one judged right all the same stays, as in MMPR),
    and the number of candidates kept and dropped for the same text.
    """
    pairs = [
        Pair("dropout_ntp", chosen, rejected)
        for chosen, rejected in zip(sources, regenerated, strict=True)
        if rejected.text != chosen.text
    ]
    return pairs, {"kept": len(pairs), "same_text": len(sources) - len(pairs)}


def quantile(values: Sequence[float], q: float) -> float | None:
    """The `q`-quantile of `values`, linear between neighbours; `None` without values."""
    return float(np.quantile(values, q)) if len(values) else None


def _by_role(responses: Iterable[Response]) -> dict[int, dict[str, list[Response]]]:
    """For each row, in order, its distinct responses by role, in the order of their numbers."""
    prompts, seen = {}, set()
    for response in sorted(responses, key=lambda response: (response.row, response.sample)):
        role = "duplicate" if (response.row, response.text) in seen else response.role
        seen.add((response.row, response.text))
        prompts.setdefault(response.row, defaultdict(list))[role].append(response)
    return prompts


def _is_contained(chosen: Response, rejected: Response) -> bool:
    """Whether the right answer is a part of the wrong one, in which case neither is clearly wrong (MMPR)."""
    if chosen.answer is None or rejected.answer is None:
        return False
    return chosen.answer.lower() in rejected.answer.lower()


def _objection(
    pair: Pair, rules: PairRules, chosen_threshold: float | None, margin_threshold: float | None
) -> str | None:
    # A response that breaks the format is rejected for that, whatever its answer.
    if pair.kind == "correctness" and rules.drop_contained and _is_contained(pair.chosen, pair.rejected):
        return "answer_contained"
    if chosen_threshold is not None and pair.chosen.score < chosen_threshold:
        return "below_chosen_threshold"
    if margin_threshold is not None and pair.margin < margin_threshold:
        return "below_margin_threshold"
    return None


def _spread(candidates: list[Pair], limit: int, rng: random.Random) -> list[Pair]:
    """Up to `limit` candidates, each time one whose responses have been used least."""
    rng.shuffle(candidates)
    uses, picked = Counter(), []
    while candidates and len(picked) < limit:
        best = min(
            range(len(candidates)),
            key=lambda i: (
                uses["chosen", candidates[i].chosen.sample] + uses["rejected", candidates[i].rejected.sample]
            ),
        )
        pair = candidates[best]
        uses["chosen", pair.chosen.sample] += 1
        uses["rejected", pair.rejected.sample] += 1
        picked.append(pair)
        del candidates[best]
    return sorted(picked, key=lambda pair: (pair.chosen.sample, pair.rejected.sample))


def _prompt_fate(by_role: dict[str, list[Response]], pairs: Sequence[Pair]) -> str:
    wrong = any(by_role[role] for role in (*NEGATIVES, "format"))
    if pairs:
        return "paired"
    if by_role["right"]:
        return "no_pair_left" if wrong else "all_right"
    if by_role["right_unfinished"]:
        return "no_finished_right"
    return "all_wrong" if wrong else "unscored"
