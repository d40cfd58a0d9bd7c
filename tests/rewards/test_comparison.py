# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Short answers against golds: hand-written verdicts, and math-verify as the second opinion on numbers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_r1v2.rewards.answers import Answer
from trl_r1v2.rewards.comparison import Verdict, compare


RIGHT, WRONG, UNVERIFIABLE = Verdict.RIGHT, Verdict.WRONG, Verdict.UNVERIFIABLE
UNREAD = Verdict.ANSWER_UNREAD


@pytest.mark.parametrize(
    ("given_text", "gold", "expected"),
    [
        # strings
        (r"$\dfrac{x}{2}$", r"\frac{x}{2}", RIGHT),
        (r"\text{cat}", "cat", RIGHT),
        ("CAT", "cat", RIGHT),
        ("a cat", "the cat", RIGHT),
        ("dog", "cat", WRONG),
        # numbers
        ("12.0", "12", RIGHT),
        ("1,234.50", "1234.5", RIGHT),
        ("\u22127", "-7", RIGHT),
        ("1e3", "1000", RIGHT),
        ("12.01", "12", WRONG),
        (r"\frac{2}{4}", "0.5", RIGHT),
        (r"-\frac12", "-1/2", RIGHT),
        ("0.333333", "1/3", RIGHT),
        ("0.333", "1/3", WRONG),
        ("1000001", "1000000", WRONG),
        ("0", "1/9999999", WRONG),
        ("0.083333", "1/12", RIGHT),
        ("0.001667", "1/600", RIGHT),
        (r"\frac{1}{9000000}", r"\frac{1}{10000000}", WRONG),
        ("0.0000003", "1/3000000", WRONG),
        (r"9.11 \times 10^{-31}", r"6.63 \times 10^{-34}", WRONG),
        (r"6.63 \cdot 10^{-34}", "6.63e-34", RIGHT),
        (r"10^{-5}", "1e-05", RIGHT),
        (r"10^{-6}", "1e-05", WRONG),
        (r"10^{12}", r"10^{9}", WRONG),
        ("1 1/2", "3/2", RIGHT),
        ("1 1/2", "11/2", WRONG),
        ("\u20135", "-5", RIGHT),
        (r"\lambda = 500", "500", RIGHT),
        (r"\geq 3", "3", WRONG),
        (r"\neq 3", "3", WRONG),
        ("x > 5", "5", WRONG),
        (r"x > 5", r"(5, \infty)", RIGHT),
        (r"\{1,2\}", "(1,2)", WRONG),
        (r"\{1,2\}", "1,2", RIGHT),
        ("x = 5", "5", RIGHT),
        ("seven", "7", RIGHT),
        ("banana", "7", WRONG),
        (r"\sqrt{144}", "12", RIGHT),
        ("3+4", "7", RIGHT),
        ("12x", "12", WRONG),
        ("12 or 13", "12", WRONG),
        # units
        ("12 cm", "12", RIGHT),
        (r"12\text{ cm}", "12 centimeters", RIGHT),
        ("12cm", "12 cm", RIGHT),
        ("12 m", "12 cm", WRONG),
        ("12 wrong", "12", WRONG),
        ("13 cm", "12 cm", WRONG),
        (r"90^\circ", "90", RIGHT),
        (r"\$5", "5", RIGHT),
        ("50%", "0.5", RIGHT),
        (r"50\%", "50", RIGHT),
        ("5%", "0.5", WRONG),
        ("5 m/s", r"5 \text{ m/s}", RIGHT),
        ("5 m^2", "5 square meters", RIGHT),
        ("5 m^2", "5 m", WRONG),
        ("12 apples", "12 apple", RIGHT),
        ("12 million", "12", WRONG),
        (r"\$1.5\text{ million}", "1500000", RIGHT),
        ("$1.5 billion", "$1.5 million", WRONG),
        ("5 dozen", "5", WRONG),
        ("$12 + 5", "12", UNREAD),
        *((f"5 {word}", "5", WRONG) for word in ("squared", "factorial", "thirds", "halves")),
        # symbols are a unit where they are set off from the number, and may be algebra where they are not
        *(
            (f"20.5 {unit}", "20.5", RIGHT)
            for unit in (
                r"\Omega",
                r"\mathrm{k\Omega}",
                "mA",
                "K",
                "eV",
                "rad/s",
                "nm",
                "kW",
                "dB",
                "mol/L",
                r"\mu m",
                "s^{-1}",
                "€",
                r"\text{J/(kg K)}",
                r"\mathrm{N\cdot m}",
            )
        ),
        (r"20.5\mathrm{K}", "20.5", RIGHT),
        ("3kT", "3", WRONG),
        ("3 m g", "3", WRONG),
        ("12m-1", "12", WRONG),
        ("7 nm", "7 mm", WRONG),
        ("25 degrees Celsius", r"25^\circ C", RIGHT),
        ("20 mph", "20 miles per hour", RIGHT),
        ("9.8 m/s/s", r"9.8\,\mathrm{m\cdot s^{-2}}", RIGHT),
        ("3 ohms", r"3\,\Omega", RIGHT),
        # choices
        ("(B)", "B", RIGHT),
        ("B.", "B", RIGHT),
        ("B) 12 cm", "B", RIGHT),
        ("b", "B", RIGHT),
        (r"\textbf{(B)}", "B", RIGHT),
        ("option B", "(B)", RIGHT),
        ("B", "(B) a red car", RIGHT),
        ("a red car", "(B) a red car", RIGHT),
        ("C", "B", WRONG),
        ("Because it is", "B", WRONG),
        ("B because A is wrong.", "B", RIGHT),
        ("Therefore, option B is correct.", "B", RIGHT),
        ("B - two cars", "B", RIGHT),
        ("C. The graph is not symmetric", "C", RIGHT),
        ("(D) cannot be determined", "D", RIGHT),
        ("(D) Both A and B", "D", RIGHT),
        # several letters and rejected ones
        *(
            (text, "A", WRONG)
            for text in (
                "A, B",
                r"A \text{ and } B",
                "A, B, C, D",
                "(A), (B)",
                "A) or B)",
                "A: 3 cm, B: 4 cm",
                "option A or B",
                "A - B",
                "(A) is too short",
                "Option A is not correct",
                "The answer is a square",
            )
        ),
        # words
        ("Yes, there is one.", "yes", RIGHT),
        ("No", "yes", WRONG),
        ("No, it is open.", "no", RIGHT),
        ("No it is not", "no", RIGHT),
        ("No image was provided.", "no", WRONG),
        ("No, I cannot see the image.", "no", WRONG),
        ("Yes, but I cannot see the image", "yes", WRONG),
        ("No line passes through the origin.", "no", RIGHT),
        ("blue car", "blue", WRONG),
        ("Yes or no", "yes", WRONG),
        ("Yes, No", "yes", WRONG),
        ("No. No line passes through it", "no", RIGHT),
        ("Yes, true for all x", "yes", RIGHT),
        ("No positive root exists.", "no", RIGHT),
        ("Yes!", "yes", RIGHT),
        ("(Cat)", "cat", RIGHT),
        ("Blue-Green", "blue-green", RIGHT),
        ("False negative", "False positive", WRONG),
        ("False Positive", "false positive", RIGHT),
        ("No reaction", "No change", WRONG),
        ("no solution", "No solutions", RIGHT),
        ("True north", "true", RIGHT),
        ("True negative", "true", WRONG),
        # algebra and prose
        ("1+x", "x+1", RIGHT),
        ("x", "y", WRONG),
        *(
            (given_text, wanted, WRONG)
            for given_text, wanted in (
                ("-x", "x"),
                ("n", "n!"),
                ("b-a", "a-b"),
                ("x", "x-a"),
                ("(-x,y)", "(x,-y)"),
                (r"\infty", r"-\infty"),
                ("sin(x)", "-sin(x)"),
                ("x ≤ y", "x ≥ y"),
                ("A∩B", "A∪B"),
                ("x", "√x"),
            )
        ),
        ("Rmg", "mgR", RIGHT),
        ("hgm", "mgh", RIGHT),
        ("b→a", "a→b", Verdict.GOLD_UNREAD),
        ("f(x)", "f'(x)", WRONG),
        ("cat", "The picture shows a cat that sits on a mat near the window", UNVERIFIABLE),
    ],
)
def test_compare(given_text, gold, expected):
    assert compare(Answer(given_text, anchored=True), gold) is expected


@pytest.mark.parametrize(
    ("sentence", "gold", "expected"),
    [
        ("So after 3 days there are 12 cats.", "12", RIGHT),
        ("So there are 3 dogs and 12 cats.", "12", WRONG),
        ("So there are 12 cats and 3 dogs.", "12", WRONG),
        ("There are many cats.", "12", WRONG),
        ("It costs v2 dollars", "2", WRONG),
        ("It was the 22nd of them.", "22", WRONG),
    ],
)
def test_a_sentence_counts_by_its_last_number(sentence, gold, expected):
    assert compare(Answer(sentence, anchored=False), gold) is expected


def test_a_number_that_is_denied_or_beside_is_not_the_last_of_a_sentence():
    for sentence in ("It is 5, not 12.", "There are 5 or 12.", "There are more than 12.", "See step 12."):
        assert compare(Answer(sentence, anchored=False), "12") is not RIGHT


numbers = st.one_of(
    st.integers(-2000, 2000).map(str),
    st.tuples(st.integers(-50, 50), st.integers(1, 99)).map(lambda pair: f"{pair[0]}.{pair[1]:02d}"),
    st.tuples(st.integers(-12, 12), st.integers(1, 12)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
    st.tuples(st.integers(0, 12), st.integers(1, 12)).map(lambda pair: rf"\frac{{{pair[0]}}}{{{pair[1]}}}"),
)


@settings(max_examples=80, deadline=None)
@given(left=numbers, right=numbers, same=st.booleans())
def test_numbers_agree_with_math_verify(left, right, same):
    from math_verify import parse, verify

    if same:
        right = left
    expected = verify(
        parse(f"${left}$", parsing_timeout=None),
        parse(rf"\boxed{{{right}}}", parsing_timeout=None),
        timeout_seconds=None,
    )
    assert compare(Answer(right, anchored=True), left) is (RIGHT if expected else WRONG)
