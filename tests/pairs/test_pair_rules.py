# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.

import math
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_r1v2.sampling.pairs import (
    NEGATIVES,
    ROLES,
    PairRules,
    Response,
    build_pairs,
    dropout_sources,
    pair_with_dropout,
    quantile,
)


scores = st.one_of(st.none(), st.just(float("nan")), st.integers(-20, 20).map(lambda n: n / 4))
answers = st.one_of(st.none(), st.sampled_from(["1", "12", "A", "a b", ""]))


@st.composite
def response_sets(draw):
    """Responses to a few prompts, some of them with the same text."""
    responses = []
    for row in range(draw(st.integers(0, 3))):
        for sample in range(draw(st.integers(0, 7))):
            responses.append(
                Response(
                    row=row,
                    sample=sample,
                    text=draw(st.sampled_from("abcdefgh")),
                    score=draw(scores),
                    right=draw(st.sampled_from([True, False, None])),
                    answer=draw(answers),
                    finished=draw(st.booleans()),
                    well_formed=draw(st.booleans()),
                )
            )
    return responses


@st.composite
def rule_sets(draw):
    chosen = draw(st.sampled_from(["none", "threshold", "quantile"]))
    margin = draw(st.sampled_from(["none", "threshold"]))
    values = {"max_pairs": draw(st.integers(0, 6)), "max_format_pairs": draw(st.integers(1, 4))}
    for name, kind in (("chosen", chosen), ("margin", margin)):
        if kind == "threshold":
            values[f"{name}_threshold"] = draw(st.integers(-8, 8)) / 2
        elif kind == "quantile":
            values[f"{name}_quantile"] = draw(st.floats(0, 1))
    return PairRules(drop_contained=draw(st.booleans()), seed=draw(st.integers(0, 3)), **values)


def distinct(responses):
    """The first response of each text, as an independent reading of what a duplicate is."""
    first = {}
    for response in sorted(responses, key=lambda r: (r.row, r.sample)):
        first.setdefault((response.row, response.text), response)
    return list(first.values())


def is_usable(response):
    return response.right is not None and response.score is not None and not math.isnan(response.score)


@settings(max_examples=100, deadline=None)
@given(response_sets(), rule_sets())
def test_every_pair_keeps_every_rule(responses, rules):
    pair_set = build_pairs(responses, rules)
    known = set(map(id, responses))
    used = Counter()
    for pair in pair_set.pairs:
        chosen, rejected = pair.chosen, pair.rejected
        assert id(chosen) in known and id(rejected) in known
        assert chosen.row == rejected.row and chosen.text != rejected.text
        assert is_usable(chosen) and is_usable(rejected)
        assert chosen.right and chosen.finished and chosen.well_formed
        if pair.kind == "format":
            assert rejected.finished and not rejected.well_formed
        else:
            assert not rejected.right and (rejected.well_formed or not rejected.finished)
            if rules.drop_contained and chosen.answer is not None and rejected.answer is not None:
                assert chosen.answer.lower() not in rejected.answer.lower()
        for limit, value in (("chosen", chosen.score), ("margin", chosen.score - rejected.score)):
            assert pair_set.thresholds[limit] is None or value >= pair_set.thresholds[limit]
        used[pair.kind, chosen.row] += 1
    assert len({(pair.chosen.row, pair.chosen.sample, pair.rejected.sample) for pair in pair_set.pairs}) == len(
        pair_set.pairs
    )
    for (kind, _), count in used.items():
        assert count <= (rules.max_pairs if kind == "correctness" else rules.max_format_pairs)


@settings(max_examples=100, deadline=None)
@given(response_sets(), rule_sets())
def test_nothing_is_lost_without_a_reason(responses, rules):
    pair_set = build_pairs(responses, rules)
    assert sum(pair_set.responses.values()) == len(responses) and tuple(pair_set.responses) == ROLES
    assert pair_set.responses["duplicate"] == len(responses) - len(distinct(responses))
    assert sum(pair_set.prompts.values()) == len({response.row for response in responses})
    assert pair_set.candidates["kept"] == len(pair_set.pairs)
    num_candidates = 0
    for row in {response.row for response in responses}:
        usable = [r for r in distinct(responses) if r.row == row and is_usable(r)]
        right = sum(r.right and r.finished and r.well_formed for r in usable)
        other = sum(
            not (r.right and r.finished and r.well_formed) and not (r.right and not r.finished) for r in usable
        )
        num_candidates += right * other
    assert sum(pair_set.candidates.values()) == num_candidates


@settings(max_examples=100, deadline=None)
@given(response_sets(), rule_sets(), st.randoms(use_true_random=False))
def test_order_and_other_prompts_do_not_matter(responses, rules, rng):
    whole = build_pairs(responses, rules)
    shuffled = list(responses)
    rng.shuffle(shuffled)
    # repr: a NaN score is not equal to itself
    assert repr(build_pairs(shuffled, rules)) == repr(whole)
    fixed = replace(
        rules,
        chosen_quantile=None,
        chosen_threshold=whole.thresholds["chosen"],
        margin_threshold=whole.thresholds["margin"],
    )
    alone = build_pairs([response for response in responses if response.row == 0], fixed)
    assert alone.pairs == [pair for pair in whole.pairs if pair.chosen.row == 0]


def group(num_right, num_wrong, row=0):
    right = [Response(row, i, f"right {i}", 1.0, True, f"R{i}") for i in range(num_right)]
    return right + [Response(row, 100 + i, f"wrong {i}", 0.0, False, f"W{i}") for i in range(num_wrong)]


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 15))
def test_responses_are_used_evenly(num_right, num_wrong, limit):
    """Until every response has been used: none twice on the larger side, evenly on the smaller one."""
    limit = min(limit, max(num_right, num_wrong))
    pairs = build_pairs(group(num_right, num_wrong), PairRules(max_pairs=limit)).pairs
    assert len(pairs) == limit
    for uses, size in (
        (Counter(pair.chosen.sample for pair in pairs), num_right),
        (Counter(pair.rejected.sample for pair in pairs), num_wrong),
    ):
        counts = [*uses.values(), *[0] * (size - len(uses))]
        assert max(counts) - min(counts) <= 1


def test_the_seed_changes_the_choice_only():
    sets = [build_pairs(group(6, 6), PairRules(max_pairs=5, seed=seed)) for seed in (0, 0, 1)]
    assert sets[0] == sets[1]
    assert sets[0].pairs != sets[2].pairs and sets[0].candidates == sets[2].candidates
    # Prompts with the same number of responses do not all get the same choice.
    both = build_pairs([*group(6, 6, row=0), *group(6, 6, row=1)], PairRules(max_pairs=5)).pairs
    chosen = [{(p.chosen.sample, p.rejected.sample) for p in both if p.chosen.row == row} for row in (0, 1)]
    assert chosen[0] != chosen[1]


def test_mmpr_example():
    """One prompt worked out by hand: what is right, what is rejected, what is dropped and why."""
    responses = [
        Response(0, 0, "... 5", 2.0, True, "5"),
        Response(0, 1, "... 15", 0.0, False, "15"),  # contains "5"
        Response(0, 2, "... 7", 0.5, False, "7"),
        Response(0, 3, "no idea", 0.0, False, None),
        Response(0, 4, "because ...", 0.0, False, None, finished=False),
        Response(0, 5, "no tags 5", 1.0, True, "5", well_formed=False),
        Response(0, 6, "5 and on", 1.0, True, "5", finished=False),
        Response(0, 7, "???", None, None),
        Response(0, 8, "... 7", 0.5, False, "7"),
    ]
    pair_set = build_pairs(responses, PairRules(max_format_pairs=1))
    assert [(pair.kind, pair.rejected.sample, pair.rejected.role) for pair in pair_set.pairs] == [
        ("correctness", 2, "wrong"),
        ("correctness", 3, "no_answer"),
        ("correctness", 4, "unfinished"),
        ("format", 5, "format"),
    ]
    assert pair_set.candidates == {
        "kept": 4,
        "answer_contained": 1,
        "below_chosen_threshold": 0,
        "below_margin_threshold": 0,
        "beyond_the_limit": 0,
    }
    assert pair_set.responses == {
        "right": 1,
        "wrong": 2,
        "no_answer": 1,
        "unfinished": 1,
        "format": 1,
        "right_unfinished": 1,
        "unscored": 1,
        "duplicate": 1,
    }
    contained = build_pairs(responses, PairRules(drop_contained=False))
    assert {pair.rejected.sample for pair in contained.pairs} == {1, 2, 3, 4}
    assert [pair.margin for pair in contained.pairs] == [2.0, 1.5, 2.0, 2.0]


def test_containment_ignores_case_and_needs_both_answers():
    right = Response(0, 0, "x", 1.0, True, "Paris")
    for answer, dropped in (("paris, france", 1), ("Par", 0), (None, 0)):
        wrong = Response(0, 1, "y", 0.0, False, answer)
        assert build_pairs([right, wrong], PairRules()).candidates["answer_contained"] == dropped


def test_thresholds_absolute_and_by_quantile():
    responses = [Response(0, i, f"r{i}", float(i), True, f"R{i}") for i in range(5)]
    responses += [Response(0, 10 + i, f"w{i}", -float(i), False, f"W{i}") for i in range(3)]
    by_score = build_pairs(responses, PairRules(max_pairs=99, chosen_threshold=3.0))
    assert {pair.chosen.score for pair in by_score.pairs} == {3.0, 4.0}
    assert by_score.candidates["below_chosen_threshold"] == 9
    by_quantile = build_pairs(responses, PairRules(max_pairs=99, chosen_quantile=0.5))
    assert by_quantile.thresholds["chosen"] == 2.0
    assert {pair.chosen.score for pair in by_quantile.pairs} == {2.0, 3.0, 4.0}
    by_margin = build_pairs(responses, PairRules(max_pairs=99, margin_threshold=5.0))
    assert sorted(pair.margin for pair in by_margin.pairs) == [5.0, 5.0, 6.0]
    both = build_pairs(responses, PairRules(max_pairs=99, margin_threshold=5.0, chosen_threshold=4.0))
    assert sorted((pair.chosen.score, pair.margin) for pair in both.pairs) == [(4.0, 5.0), (4.0, 6.0)]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(0, 1))
def test_quantile_is_numpys(values, q):
    assert quantile(values, q) == pytest.approx(np.quantile(values, q), abs=1e-6)


def test_quantile_of_equal_scores_keeps_them():
    assert quantile([], 0.5) is None
    assert all(quantile([0.1] * 7, q) == 0.1 for q in np.linspace(0, 1, 23))
    pair_set = build_pairs(group(3, 3), PairRules(chosen_quantile=0.9))
    assert pair_set.candidates["kept"] == 9


@pytest.mark.parametrize(
    ("responses", "fate"),
    [
        (group(2, 0), "all_right"),
        (group(0, 2), "all_wrong"),
        ([Response(0, 0, "a", float("inf"), True)], "unscored"),
        ([Response(0, 0, "a", 1.0, None)], "unscored"),
        ([Response(0, 0, "a", 1.0, True, finished=False), *group(0, 1)], "no_finished_right"),
        ([Response(0, 0, "a", 1.0, True, "4"), Response(0, 1, "b", 1.0, False, "42")], "no_pair_left"),
    ],
)
def test_prompts_without_pairs_say_why(responses, fate):
    pair_set = build_pairs(responses, PairRules())
    assert pair_set.pairs == [] and pair_set.prompts == {**dict.fromkeys(pair_set.prompts, 0), fate: 1}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_pairs": -1}, "`max_pairs` is -1"),
        ({"max_pairs": 0}, "no pair could be built"),
        ({"chosen_quantile": 1.5}, r"`chosen_quantile` is 1.5.*\[0, 1\]"),
        ({"margin_threshold": float("nan")}, "must be finite"),
        ({"chosen_threshold": 1.0, "chosen_quantile": 0.5}, "set one of the two"),
    ],
)
def test_rules_are_checked(values, message):
    with pytest.raises(ValueError, match=message):
        PairRules(**values)


# ---- DropoutNTP ----


@settings(max_examples=100, deadline=None)
@given(response_sets(), st.sets(st.integers(0, 3)), st.integers(0, 3), st.booleans())
def test_dropout_sources_are_good_and_few(responses, with_images, limit, unjudged):
    rules = PairRules(max_dropout_pairs=limit, dropout_unjudged=unjudged)
    found = dropout_sources(responses, with_images, rules, chosen_threshold=1.0)
    assert found == sorted(found, key=lambda r: (r.row, r.sample))
    for row in {response.row for response in responses}:
        good = [
            r
            for r in distinct(responses)
            if r.row == row
            and r.finished
            and r.well_formed
            and ((is_usable(r) and r.right and r.score >= 1.0) or (unjudged and r.right is None))
        ]
        expected = min(limit, len(good)) if row in with_images else 0
        assert sum(response.row == row for response in found) == expected
        assert all(response in good for response in found if response.row == row)


def test_dropout_pairs_and_their_counts():
    sources = [Response(row, 0, f"good {row}", 1.0, True, "1") for row in range(3)]
    again = [
        Response(0, 0, "good 0", 1.0, True, "1"),
        Response(1, 0, "still 1", 1.0, True, "1"),
        Response(2, 0, "blind", None, None, None),
    ]
    pairs, counts = pair_with_dropout(sources, again)
    assert [pair.rejected.text for pair in pairs] == ["still 1", "blind"]
    assert {pair.kind for pair in pairs} == {"dropout_ntp"} and pairs[1].margin is None
    assert counts == {"kept": 2, "same_text": 1}


def test_roles_cover_all_combinations():
    rng = random.Random(0)
    seen = set()
    for _ in range(300):
        seen.add(
            Response(
                0,
                0,
                "",
                rng.choice([None, 1.0]),
                rng.choice([True, False, None]),
                rng.choice([None, "1"]),
                rng.random() < 0.5,
                rng.random() < 0.5,
            ).role
        )
    assert seen == set(ROLES) - {"duplicate"} and set(NEGATIVES) < seen


def test_the_rules_import_without_torch():
    code = "import sys, trl_r1v2.sampling.pairs; print('torch' in sys.modules, 'trl' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]
