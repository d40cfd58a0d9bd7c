# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Answers to problems in the public schemas get the score that a reader would give, and doubt is marked as doubt."""

from fractions import Fraction

import pytest
from public_rows import AIME_ROWS, MATHVISION_ROWS, MATHVISTA_ROWS, MMMU_PRO_STANDARD_ROWS, MMMU_ROWS, OLYMPIAD_ROWS

from trl_r1v2.evaluation.benchmarks import ADAPTERS
from trl_r1v2.evaluation.benchmarks.grading import BenchmarkGrader, can_pair
from trl_r1v2.evaluation.benchmarks.loading import as_row
from trl_r1v2.evaluation.benchmarks.numbers import parse_list, pieces, read_number, same_unit, split_unit


def row(name: str, public: dict) -> dict:
    return as_row(ADAPTERS[name].read(public, "row"), with_images=bool(ADAPTERS[name].image_columns))


AIME = row("aime_2024", AIME_ROWS[1])  # 25
CHOICE = row("mmmu", MMMU_ROWS[0])  # B of three, the third a text
OPEN_NUMBER, OPEN_TEXT = row("mmmu", MMMU_ROWS[1]), row("mmmu", MMMU_ROWS[2])  # 24.2; Impressionism
TEN = row("mmmu_pro", MMMU_PRO_STANDARD_ROWS[0])  # J: 9 N
INTEGER, DECIMAL, LIST, ANGLE = (row("mathvista", public) for public in MATHVISTA_ROWS)
FRACTION, DRAWN, AREA = (row("mathvision", public) for public in MATHVISION_ROWS)
HALF, SEVERAL, SPEED, ROUGH, PROSE, EXPRESSION = (row("olympiadbench", public) for public in OLYMPIAD_ROWS)

# problem, response, score, whether a judge should see it
CASES = [
    # the last of several boxes counts, boxes in the reasoning do not
    (AIME, r"<think>maybe \boxed{25}</think> So \boxed{26}", 0.0, False),
    (AIME, r"First \boxed{24}, no: \boxed{025}.", 1.0, False),
    (AIME, r"The answer is $25$.", 1.0, False),
    (AIME, r"\boxed{24.9}", 0.0, False),
    (AIME, r"\boxed{m+n}", 0.0, True),
    # reasoning that never ends, an empty response and refusals are wrong, and no judge is asked
    (AIME, r"<think>it must be \boxed{25}", 0.0, False),
    (AIME, "", 0.0, False),
    (AIME, "I cannot determine the answer.", 0.0, False),
    # multiple choice: letter, text, value; a letter that the options lack
    (CHOICE, r"\boxed{B}", 1.0, False),
    (CHOICE, r"\boxed{\text{(B)}}", 1.0, False),
    (CHOICE, "**Answer: (b)**", 1.0, False),
    (CHOICE, r"\boxed{A} or \boxed{C}", 0.0, False),
    (CHOICE, "The answer is They're of one year", 0.0, False),
    (CHOICE, r"\boxed{E}", 0.0, False),
    (CHOICE, "The correct option is B because the paint has cracks.", 1.0, False),
    (CHOICE, "Of both, I would pick the second picture.", 0.0, True),
    (CHOICE, "I'm unable to see the image.", 0.0, False),
    (TEN, r"\boxed{J}", 1.0, False),
    (TEN, r"\boxed{9 N}", 1.0, False),
    (TEN, r"\boxed{9\,\mathrm{newtons}}", 1.0, False),
    (TEN, r"\boxed{I}", 0.0, False),
    # open answers: any of several, numbers to two decimals, other words for a judge
    (OPEN_NUMBER, r"\boxed{24.204}", 1.0, False),
    (OPEN_NUMBER, r"\boxed{24.21}", 0.0, True),
    (OPEN_NUMBER, r"\boxed{twenty-four point two}", 1.0, False),
    (OPEN_TEXT, r"\boxed{impressionism}", 1.0, False),
    (OPEN_TEXT, r"\boxed{French Impressionism}", 0.0, True),
    # MathVista: an integer is not truncated to, a decimal is rounded, units have to agree
    (INTEGER, r"\boxed{7.0}", 1.0, False),
    (INTEGER, r"\boxed{7.4}", 0.0, False),
    (DECIMAL, r"\boxed{\$1.24}", 1.0, False),
    (DECIMAL, r"\boxed{1.3}", 0.0, False),
    (DECIMAL, r"\boxed{1.2 dollars}", 1.0, False),
    (DECIMAL, r"\boxed{1.2 cm}", 0.0, True),
    (LIST, r"\boxed{[2007, 2008]}", 1.0, False),
    (LIST, "The answer is 2007 and 2008.", 1.0, False),
    (LIST, r"\boxed{2008, 2007}", 0.0, False),
    # a letter is a letter, also where another option has it as its text
    (ANGLE, r"\boxed{B}", 1.0, False),
    (ANGLE, r"\boxed{145^\circ}", 1.0, False),
    (ANGLE, r"\boxed{A}", 0.0, False),
    (FRACTION, r"\boxed{\dfrac38}", 1.0, False),
    (FRACTION, r"\boxed{0.375}", 1.0, False),
    (FRACTION, r"\boxed{\frac{6}{16}}", 1.0, False),
    (FRACTION, r"\boxed{\frac{3}{7}}", 0.0, False),
    (DRAWN, "(D)", 1.0, False),
    (AREA, r"\boxed{3\pi}", 1.0, False),
    (AREA, r"\boxed{9}", 0.0, False),
    # OlympiadBench: algebra, plus-minus, any order, tolerance, units
    (HALF, r"\boxed{0.5}", 1.0, False),
    (HALF, r"\boxed{50}", 0.0, False),
    (HALF, r"\boxed{50\%}", 1.0, False),
    (SEVERAL, r"\boxed{\sqrt5, -2, 2}", 1.0, False),
    (SEVERAL, r"\boxed{\pm 2} and \boxed{\sqrt{5}}", 1.0, False),
    (SEVERAL, r"\boxed{2, \sqrt{5}}", 0.0, True),
    (SEVERAL, r"\boxed{2, 2, \sqrt{5}}", 0.0, False),
    (SPEED, r"\boxed{9.81}", 1.0, False),
    (SPEED, r"\boxed{9.75\ \mathrm{m/s}}", 1.0, False),
    (SPEED, r"\boxed{9.9}", 1.0, False),  # at the tolerance itself
    (SPEED, r"\boxed{9.6}", 0.0, False),
    (SPEED, r"\boxed{35.3\ \mathrm{km/h}}", 0.0, True),
    (ROUGH, r"\boxed{3, 1.4}", 1.0, False),
    (ROUGH, r"\boxed{3.2, 1}", 0.0, False),
    (EXPRESSION, r"\boxed{(x-1)(x+1)}", 1.0, False),
    (EXPRESSION, r"\boxed{x^2+1}", 0.0, False),
    (PROSE, r"\boxed{a triangle}", None, True),
]  # fmt: skip

YES_NO = {"kind": "choice", "accepted": ["B"], "choices": ["Yes", "No"], "unit": ""}
UNDECIDED = YES_NO | {"accepted": ["C"], "choices": ["Yes", "No", "Cannot be determined"]}
OPEN_NO = {"kind": "open", "accepted": ["No"], "choices": [], "unit": ""}
CIRCLE = {"kind": "math", "accepted": [r"9\pi"], "choices": [], "unit": ""}
SQUARED = CIRCLE | {"unit": r"$\mathrm{cm}^2$"}
RADII = CIRCLE | {"kind": "several", "accepted": [r"2\pi, 3"], "unit": "m"}
PRODUCT = CIRCLE | {"accepted": ["2a"]}
RAY = CIRCLE | {"accepted": [r"$[2, \infty)$"]}
OUTSIDE = CIRCLE | {"accepted": [r"$(-\infty, 1) \cup (3, \infty)$"]}

DECLINED = [
    "No image was provided.", "No image is available, so I cannot answer.", "No, I cannot see the image.",
    r"\boxed{No image provided}", r"\boxed{\text{No image}}", "No figure is given.", "Yes, but I cannot see the image",
    "No, I can’t view any image.", "No, the diagram is not visible.", "The answer is no, since no picture was attached to it.",
    "No answer can be given.", "No, I cannot answer this.", "No information is provided.", "Option B, but I cannot see the image.",
]  # fmt: skip
ANSWERED_NO = [
    "No.", r"\boxed{No}", r"\boxed{\text{No}}", "The answer is no", "No, the angle is not right.",
    "No, I cannot see dogs in the image.", "No, it cannot be determined from the sides.", "No graph passes through the origin.",
    "No, the figure is missing a side.", "No figure shown is a square.", "No, there is no image of a dog.",
    "I cannot see the image well, but \\boxed{No}",
]  # fmt: skip
CASES += [
    *((YES_NO, text, 0.0, False) for text in DECLINED),
    *((YES_NO | {"accepted": ["A"]}, text, 0.0, False) for text in DECLINED),
    *((YES_NO, text, 1.0, False) for text in ANSWERED_NO),
    *((YES_NO | {"accepted": ["A"]}, text, 0.0, False) for text in ANSWERED_NO),
    (YES_NO, "No, I cannot tell.", 0.0, True),
    (UNDECIDED, r"\boxed{Cannot be determined}", 1.0, False),
    (UNDECIDED, "C. Cannot be determined", 1.0, False),
    (UNDECIDED, "No, I cannot see the image.", 0.0, True),
    (UNDECIDED, "No, the angle is not right.", 0.0, False),
    (OPEN_NO, "No figure is given.", 0.0, False),
    (OPEN_NO, "No, it cannot be determined.", 1.0, False),
    (OPEN_NO, "No, I cannot tell.", 0.0, True),
    # a unit behind an expression counts as one behind a number does
    *((CIRCLE, rf"\boxed{{9\pi{unit}}}", 1.0, False) for unit in (
        "", r"\text{ cm}", r"\text{ cm}^2", r" \mathrm{cm}^2", " cm^2", r"\ \text{cm}^{2}", r"\mathrm{~m}/\mathrm{s}", " m",
    )),
    (CIRCLE, r"\boxed{9\pi\,\mathrm{N\cdot m}}", 0.0, True),
    (CIRCLE, r"\boxed{9\pi x}", 0.0, False),
    (CIRCLE, r"\boxed{8\pi\text{ cm}^2}", 0.0, False),
    *((SQUARED, rf"\boxed{{9\pi{unit}}}", 1.0, False) for unit in ("", r"\text{ cm}^2", " cm^{2}")),
    *((SQUARED, rf"\boxed{{9\pi{unit}}}", 0.0, True) for unit in (r"\text{ cm}", " m^2", r"\text{ square units}")),
    (CIRCLE | {"accepted": [r"9\pi\text{ cm}^2"]}, r"\boxed{9\pi}", 1.0, False),
    (CIRCLE | {"accepted": [r"9\pi\text{ cm}^2"]}, r"\boxed{9\pi\text{ m}^2}", 0.0, True),
    (PRODUCT, r"\boxed{2a\text{ m}}", 1.0, False),
    (PRODUCT, r"\boxed{2am}", 0.0, False),  # beside a variable a letter is another one
    (RADII, r"\boxed{3\text{ m}, 2\pi\text{ m}}", 1.0, False),
    (RADII, r"\boxed{3\text{ cm}, 2\pi\text{ cm}}", 0.0, True),
    # an inequality is its interval
    *((RAY, rf"\boxed{{{text}}}", 1.0, False) for text in (r"x\ge 2", r"2 \leq x", "x ≥ 2", r"x \in [2, \infty)")),
    (RAY, r"\boxed{x > 2}", 0.0, True),
    (RAY, r"\boxed{(2, \infty)}", 0.0, False),
    (OUTSIDE, r"\boxed{x < 1 \text{ or } x > 3}", 0.0, True),
    (CIRCLE | {"accepted": [r"x \ge 2"]}, r"\boxed{[2, \infty)}", 1.0, False),
]  # fmt: skip


@pytest.fixture(scope="module")
def grades():
    # one call, so that the verifier's processes start once
    return BenchmarkGrader()([text for _, text, _, _ in CASES], [problem for problem, _, _, _ in CASES])


@pytest.mark.parametrize("index", range(len(CASES)), ids=[f"{c[0]['kind']}-{c[1][-24:]}" for c in CASES])
def test_score_and_doubt(index, grades):
    _, _, score, ask = CASES[index]
    assert (grades[index].score, grades[index].ask) == (score, ask)


def test_answers_are_counted_alike_and_a_judge_sees_the_statement(grades):
    by_text = {text: grade for (_, text, _, _), grade in zip(CASES, grades, strict=True)}
    assert by_text[r"\boxed{9 N}"].answer == by_text[r"\boxed{J}"].answer == "J"
    assert by_text["**Answer: (b)**"].answer == "B" and by_text["I'm unable to see the image."].answer is None
    assert by_text["Of both, I would pick the second picture."].statement.endswith("second picture.")
    assert by_text[r"\boxed{m+n}"].statement == "m+n"
    assert by_text[r"\boxed{7.0}"].answer == "7" and by_text[r"\boxed{0.5}"].answer == "1/2"


def test_a_template_that_opens_the_reasoning():
    texts = [r"so it is \boxed{25}", r"so it is 3</think> \boxed{25}"]
    assert [grade.score for grade in BenchmarkGrader(think_open=True)(texts, [AIME, AIME])] == [0.0, 1.0]
    with pytest.raises(ValueError, match="`kind` is 'essay'"):
        BenchmarkGrader()([""], [{"kind": "essay"}])


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("-12", -12, ""), ("1,250.5 kg", Fraction(2501, 2), "kg"), (r"\frac{1}{2}", Fraction(1, 2), ""),
        ("$1.45", Fraction(29, 20), "$"), ("$1.45$", Fraction(29, 20), ""), (r"3.0 \times 10^{8}\ \mathrm{m/s}", 3 * 10**8, "m/s"),
        (r"v \approx 2.5e-3", Fraction(1, 400), ""), ("x = 5 cm", 5, "cm"), (r"50\%", 50, "%"), (r"2 \cdot 10^{-2}", Fraction(1, 50), ""),
    ],
)  # fmt: skip
def test_numbers_are_read_exactly(text, value, unit):
    number = read_number(text)
    assert number is not None and (number.value, number.unit) == (value, unit)


@pytest.mark.parametrize("text", ["", "x", "12 + x", "2, 3", "between 1 and 2", r"3\pi", "1/0", "9" * 200, "10^{999}"])
def test_what_is_no_number_is_not_read_as_one(text):
    assert read_number(text) is None


def test_units_lists_and_pieces():
    assert same_unit("metres", "m") and same_unit("", "kg") and not same_unit("km", "m") and same_unit("dollars", "$")
    assert parse_list("[1.50, 'a']") == [Fraction(3, 2), "a"] and parse_list("2007 and 2008") == [2007, 2008]
    assert parse_list("") is None
    assert pieces(r"$(1,2)$, $f(x,y)$; 1 \pm \sqrt{2}") == ["(1,2)", "f(x,y)", r"1 +\sqrt{2}", r"1 -\sqrt{2}"]


@pytest.mark.parametrize(
    ("text", "expression", "unit"),
    [
        (r"9\pi\text{cm}^2", r"9\pi", "cm^2"), (r"$\sqrt{2}\ \mathrm{m}$", r"\sqrt{2}", "m"), (r"\sqrt{2} m/s", r"\sqrt{2}", "m/s"),
        (r"V = 9\pi cm^3", r"9\pi", "cm^3"), (r"2a\text{ m}", "2a", "m"),
    ],
)  # fmt: skip
def test_units_behind_expressions(text, expression, unit):
    split = split_unit(text)
    assert split is not None and (split.expression, split.unit) == (expression, unit)


@pytest.mark.parametrize(
    "text",
    ["", "cm", "2am", r"9\pi", r"x_{\text{max}}", r"\frac{1}{\mathrm{m}}", r"2\theta m", r"\text{cm}", "m" * 2000],
)
def test_what_is_no_expression_with_a_unit_stays_whole(text):
    assert split_unit(text) is None


def test_pairing_finds_the_only_way():
    # the first row would take the column that the second needs
    assert can_pair([[True, True], [True, False]])
    assert not can_pair([[True, False], [True, False]])
    assert can_pair([])
