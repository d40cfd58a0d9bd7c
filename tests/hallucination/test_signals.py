# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Every signal against a case worked out by hand; AUC also against scipy's Mann-Whitney statistic."""

import math
import random
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from examples.digits.text import TASKS, ask, demonstration
from trl_r1v2.hallucination.signals import (
    blind_phrase_figures,
    blind_phrases,
    critical_figures,
    critical_positions,
    disagreement_figures,
    grounding_figures,
    grounding_gaps,
    named_object_figures,
    object_answer,
    object_probe_figures,
    yes_no,
)


@pytest.mark.parametrize(
    "text",
    [
        "Since I can't see the image, I will guess.",
        "I cannot view the picture directly.",
        "We are unable to access the actual figure here.",
        "Unfortunately no image was provided, so assume a triangle.",
        "Without seeing the diagram it is hard to say.",
        "The image is not provided.",
        "The figure isn't visible to me.",
        "I don't have access to the image.",
        "I do not see any image.",
        "The image cannot be seen.",
        "The picture can't be viewed here.",
        "It seems the image did not load.",
        "The diagram is missing.",
        "The image hasn't been provided.",
        "Without the image I must guess.",
        "I cannot\nsee  the **image**, so B.",
        "I was not given an image.",
        "I wasn't provided with an image.",
        "You haven't provided an image.",
        "The question does not include the figure.",
        "I wasn't able to see the picture.",
        "Unfortunately I have no access to the image.",
        "There's no way for me to see the picture.",
        "The image could not be displayed.",
        "The image couldn’t be loaded.",
        "It seems that the image did not come through.",
        "Because the image is unavailable, I'll guess.",
        "Without the figure it is impossible to tell, so I'd guess 12.",
        "I cannot process images.",
        "I can't see what is in the picture.",
        "The screenshot is not visible, so I'm guessing.",
        "I cannot see the table, so I will estimate.",
        "I cannot see the map in the question.",
        "Since we can't see the diagram, let's assume.",
        "<think>Unable to view the attached image.</think>5",
    ],
)
def test_claims_of_blindness_are_found(text):
    assert len(blind_phrases(text)) >= 1


@pytest.mark.parametrize(
    "text",
    [
        "I see 3 and 5 in the image.",
        "The image shows that the ball cannot move.",
        "The picture is not symmetric.",
        "We can see the image of a cat; no dog is shown.",
        "From the diagram, angle A is not given in degrees.",
        "The image is not shown to scale.",
        "The chart is not given in percent.",
        "The missing angle can be read from the figure.",
        "I can't see any cat in the image.",
        "No, I don't see a table.",
        "No, there is no map on the wall.",
        "The man can't see the picture behind him.",
        "We can't see the graph cross the x-axis anywhere.",
        "We do not have an image of 3 under f, so f is not total.",
        "No figure was given for Q3 revenue, so the sum excludes it.",
        "There is no figure available for 2019 in the table.",
        "The table has no chart included.",
        "A virtual image cannot be displayed on a screen.",
        "The image is not visible on a screen since the rays diverge.",
        "When u = f no image is present at finite distance.",
        "An employee cannot access the chart of accounts without approval.",
        "The sign in the picture says 'No photos are available'.",
        "Which figure is missing?",
        "Without the graph we could also solve it algebraically.",
        "The image height is not given, but the magnification is 2.",
        "The chart doesn't show the year 2015.",
        "His face is not visible in the photo.",
    ],
)
def test_talk_about_an_image_is_not(text):
    assert blind_phrases(text) == []


@pytest.mark.parametrize("word", ["attached ", "I really ", "no image ", "is not ", "the actual image "])
def test_a_response_that_repeats_itself_is_read_in_time(word):
    started = time.perf_counter()
    assert blind_phrases(word * 5000) == []
    assert time.perf_counter() - started < 5


def test_chains_of_the_digits_claim_no_blindness():
    """Whatever the demonstrations say, right or made up; "I cannot see the image" is a policy's own invention."""
    rng = random.Random(0)
    for task in TASKS:
        for _ in range(50):
            digits = [rng.randrange(10) for _ in range(1 if task == "yes_no" else 2)]
            target = rng.randrange(10) if task == "yes_no" else None
            row = {"prompt": [{"content": ask(task, digits, target, rng)}], "digits": digits, "task": task}
            for mode in ("reason", "guess"):
                text = demonstration(row, rng, mode)
                said = re.search(r"boxed\{(\w+)\}", text).group(1)
                assert blind_phrases(text) == [] and critical_positions(list(text)) == []
                assert object_answer(text) is {"yes": True, "no": False}.get(said)


def test_blind_phrase_rate():
    assert blind_phrase_figures(
        ["I can't see the image.", "3", "No image is attached. I can't see the image.", ""]
    ) == {"blind_phrase_rate": 0.5}
    assert blind_phrase_figures([]) == {}


def test_grounding_gap_by_hand():
    nan = math.nan
    with_image = np.array([[-1.0, -0.5, nan], [-2.0, nan, nan], [nan, nan, nan]])
    without = np.array([[-3.0, -1.5, 7.0], [-2.5, 7.0, nan], [nan, nan, nan]])
    gaps = grounding_gaps(with_image, without, np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]]))
    assert gaps[:2].tolist() == [1.5, 0.5]  # ((3 - 1) + (1.5 - .5)) / 2 and 2.5 - 2
    assert math.isnan(gaps[2])
    assert grounding_figures(gaps[:2].tolist(), min_gap=1.0) == {"grounding_gap": 1.0, "ungrounded_rate": 0.5}
    assert grounding_figures([], min_gap=1.0) == {}


def test_object_probes_by_hand():
    answers = [True, True, True, False, False, None, None]
    truths = [True, True, False, False, True, True, False]
    # TP 2, FP 1, FN 2 (one answered no, one neither); right: two yes, one no
    assert object_probe_figures(answers, truths) == {
        "object_accuracy": 3 / 7, "object_precision": 2 / 3, "object_recall": 2 / 4, "object_f1": 4 / 7,
        "object_yes_rate": 3 / 7, "object_unparsed": 2 / 7, "object_error": 1 - 3 / 7,
    }  # fmt: skip
    assert object_probe_figures([], []) == {}


def test_object_probes_of_a_model_that_says_no_to_all():
    assert object_probe_figures([False, False], [True, False]) == {
        "object_accuracy": 0.5, "object_recall": 0.0, "object_f1": 0.0, "object_yes_rate": 0.0, "object_unparsed": 0.0,
        "object_error": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    "answer, expected",
    [("yes", True), ("No.", False), ("**Yes**, it is", True), ("none", None), ("maybe yes", None), (None, None)]
    + [
        (r"\text{Yes}", True),
        (r"\textbf{no}", False),
        (r"\mathrm{yes}", True),
        ("Answer: Yes", True),
        ("nothing", None),
    ],
)
def test_yes_no(answer, expected):
    assert yes_no(answer) is expected


@pytest.mark.parametrize(
    "response, expected",
    [
        ("Yes.\nThe dog is on the sofa.", True),
        ("No.\nThere are only two cats here.", False),
        ("Answer: Yes\nReason: there is a dog.", True),
        ("There isn't a dog. No.", False),
        ("There is a dog in the image: yes", True),
        ("Is there a dog? Yes, it is on the left.", True),
        ("Let me look. Yes, there is a dog next to the door. It is brown.", True),
        ("I would say yes.", True),
        ("Therefore, no.", False),
        ("A. Yes", True),
        ("The answer to the question is no.", False),
        ("No doubt: yes, a dog.", True),
        ("Yeah, there is.", True),
        ("No dog is in the image.", False),
        ("No, I don't see a table.", False),
        ("No, there is no table.", False),
        ("Yes, but there is no cat.", True),
        ("<think>No... wait</think>Yes, there is.", True),
        (r"Yes, I think. But \boxed{\text{No}}", False),
        # neither, or both
        ("No image was provided, so I cannot answer.", None),
        ("Yes, but I cannot see the image.", None),
        ("No, I cannot tell.", None),
        ("No idea.", None),
        ("No-one is there.", None),
        ("Yes/No", None),
        ("Yes or no? I cannot tell.", None),
        ("Yes. Actually, no.", None),
        ("Not yes.", None),
        ("There are two cats. No people are around. A dog lies on the rug.", None),
        ("Player no. 5 holds the ball.", None),
        ("Nothing.", None),
        ("<think>Yes, I think so", None),
        ("", None),
    ],
)
def test_object_answer(response, expected):
    assert object_answer(response) is expected


def test_reasoning_that_the_prompt_opened_is_no_answer():
    assert object_answer("I see a dog. Yes", think_open=True) is None
    assert object_answer("I see no dog. Yes?</think>No", think_open=True) is False


def test_named_objects_by_hand():
    named, unsupported = [["dog", "cat", "dog"], ["tree"], [], ["cat"]], [["dog", "dog"], [], [], ["cat"]]
    assert named_object_figures(unsupported, named) == {"rate": 0.5, "chair_i": 3 / 5}
    assert named_object_figures(unsupported) == {"rate": 0.5}


def test_disagreement_by_hand():
    scores = [5.0, 1.0, 3.0, 4.0, 0.0, None, 9.0]
    right = [True, True, True, False, False, True, None]
    # right 1, 3, 5 (median 3); wrong 0, 4. Pairs won by the right: 1>0, 3>0, 5>0, 5>4 of 6.
    found = {"wrong_above_threshold": 0.5, "wrong_above_median": 0.5, "reward_auc": 4 / 6}
    assert disagreement_figures(scores, right, threshold=4.0) == found
    assert disagreement_figures([1.0], [True]) == {}


def test_auc_is_the_mann_whitney_statistic_with_ties():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, 80).astype(float)
    right = rng.random(80) < 0.4
    expected = mannwhitneyu(scores[right], scores[~right]).statistic / (right.sum() * (~right).sum())
    assert disagreement_figures(scores.tolist(), right.tolist())["reward_auc"] == pytest.approx(expected, abs=1e-12)


def test_critical_positions_in_any_tokenisation():
    text = "So 4. Wait, no. But wait, waiting. Alternatively 5"
    assert critical_positions(list(text)) == [text.index("Wait"), text.index("But"), text.index("Alt")]
    pieces = ["So 4.", " Wa", "it, no. But", " wait, waiting. ", "Alternatively", " 5"]
    assert critical_positions(pieces) == [1, 2, 4]
    assert critical_positions(["Wait", "Waiting"], ["Wait"]) == []  # one word "WaitWaiting"
    assert critical_positions([]) == []


def test_critical_entropy_by_hand():
    found = {"critical_entropy": 2.5, "other_entropy": 0.75, "critical_tokens": 2.0}
    assert critical_figures([[1.0, 3.0, 0.5], [2.0], []], [[1], [0], []]) == found
    assert critical_figures([[1.0]], [[]]) == {"other_entropy": 1.0, "critical_tokens": 0.0}


def test_signals_import_neither_torch_nor_trl():
    code = "import sys, trl_r1v2.hallucination.signals; print({'torch', 'trl', 'transformers'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
