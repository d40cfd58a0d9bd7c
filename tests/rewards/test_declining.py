# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Answers that decline, and answers that speak of what an image lacks."""

import pytest

from trl_r1v2.rewards.declining import declines, is_unsure


@pytest.mark.parametrize(
    "text",
    [
        "No image was provided.",
        "No image",
        "No, I can’t view any image.",
        "I was not given an image.",
        "You did not attach the image.",
        "The image could not be displayed.",
        "I cannot\nsee the table.",
        "I have no way to see the image.",
        "The table was not provided.",
        "No idea.",
        "No information is provided.",
        "I'm sorry, but I cannot help with that.",
        "Please upload the image.",
        "As an AI, I cannot say.",
    ],
)
def test_declines(text):
    assert declines(text)


@pytest.mark.parametrize(
    "text",
    [
        "No, the angle is not right.",
        "No, I cannot see dogs in the image.",
        "No, there is no table.",
        "No, I don't see a table in the image.",
        "No, the man cannot see the picture behind him.",
        "The table has no chart included.",
        "The sign says 'No photos are available'.",
        "No, a virtual image cannot be displayed on a screen.",
        "We can't see the graph cross the x-axis anywhere.",
        "No figure shown is a square.",
        "Pattern B is missing from the sequence.",
    ],
)
def test_answers_about_what_is_not_there(text):
    assert not declines(text)


def test_doubt_is_no_declining():
    assert is_unsure("No, I cannot tell.")
    assert not declines("No, I cannot tell.") and not is_unsure("No, there is none.")
