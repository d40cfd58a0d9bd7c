# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Answers to problems in the public schemas get the score that a reader would give, and doubt is marked as doubt."""

from fractions import Fraction

import pytest

from tests.support.public_rows import (
    AIME_ROWS,
    MATHVISION_ROWS,
    MATHVISTA_ROWS,
    MMMU_PRO_STANDARD_ROWS,
    MMMU_ROWS,
    OLYMPIAD_ROWS,
)
from trl_r1v2.evaluation.benchmarks import ADAPTERS
from trl_r1v2.evaluation.benchmarks.grading import BenchmarkGrader, can_pair
from trl_r1v2.evaluation.benchmarks.loading import as_row
from trl_r1v2.evaluation.benchmarks.numbers import parse_list, pieces, read_number, split_unit
from trl_r1v2.evaluation.records import counted_answer
from trl_r1v2.rewards.quantities import read_unit


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

MATH = {"kind": "math", "accepted": ["7"], "choices": [], "unit": ""}
LENGTHS = {"kind": "choice", "accepted": ["B"], "choices": ["3 cm", "4 cm", "5 cm", "6 cm"], "unit": ""}
PRICES = LENGTHS | {"choices": ["$1 million", "$1.5 million", "$2 million", "$1.5 billion"]}
PLANCK, TINY = MATH | {"accepted": [r"6.63 \times 10^{-34}"]}, MATH | {"accepted": [r"\frac{1}{10000000}"]}
SMALL = OPEN_NO | {"accepted": ["0.0012"], "decimals": 2}
NAMED = MATH | {"kind": "several", "accepted": ["x=1,y=2"]}
UNITS = [
    "nm", r"\mu m", r"\mu\mathrm{m}", "kJ", "eV", "kW", "mV", "mA", "C", "F", r"\mu F", "H", "T", "Wb", r"\Omega", "K", r"^{\circ} C",
    "rad/s", "J/K", "N s", "kg m/s", "dB", r"\AA", "pc", "AU", r"\pi", r"h\nu", "light years", r"\mathrm{m} / \mathrm{s}^{2}", r"\%",
]  # fmt: skip
CASES += [
    # small numbers are not alike, a decimal may stand for a fraction
    (PLANCK, r"\boxed{9.11 \times 10^{-31}}", 0.0, False),
    (PLANCK, r"\boxed{6.63\cdot10^{-34}\,\mathrm{J\cdot s}}", 1.0, False),
    (MATH | {"accepted": ["5e-7"]}, r"\boxed{3e-7}", 0.0, False),
    (TINY, r"\boxed{\frac{1}{9000000}}", 0.0, False),
    (TINY, r"\boxed{10^{-7}}", 1.0, False),
    (MATH | {"accepted": [r"\frac{1}{3}"]}, r"\boxed{0.333333}", 1.0, False),
    (SMALL, r"\boxed{0.0021}", 0.0, False),
    (SMALL, r"\boxed{0.00120}", 1.0, False),
    # the unit that the row declares, however it is written, with and without a tolerance
    *((MATH | {"unit": unit, "tolerances": tolerances}, text, score, False)
        for unit in UNITS for tolerances in ([], [0.1])
        for form, score in ((r"7\,\mathrm{%s}", 1.0), (r"7 \text{ %s}", 1.0), ("7 %s", 1.0), ("7", 1.0), ("8 %s", 0.0))
        for text in [rf"\boxed{{{form.replace('%s', unit)}}}"]),
    (MATH | {"unit": r"\Omega"}, r"\boxed{R = 7\text{ ohms}}", 1.0, False),
    (MATH | {"unit": r"$\mathrm{m} / \mathrm{s}^{2}$"}, r"\boxed{7\ \text{m}\cdot\text{s}^{-2}}", 1.0, False),
    (CIRCLE | {"unit": "nm"}, r"\boxed{9\pi\,\mathrm{nm}}", 1.0, False),
    *((MATH | {"unit": unit}, rf"\boxed{{{text}}}", 0.0, True) for unit, text in (
        ("m", "7 km"), ("m", r"7\,\mu m"), ("K", "7 J/K"), ("s", "7 N s"), ("nm", "7 m"), ("C", r"7^\circ\mathrm{C}"), ("m", "7 zorkmid"),
    )),
    (MATH, r"\boxed{7\text{ zork}}", 1.0, False),
    (MATH, r"\boxed{7kT}", 0.0, True),
    (MATH, r"\boxed{7\pi}", 0.0, False),
    (MATH, r"\boxed{7\text{ dozen}}", 0.0, True),
    (MATH, r"\boxed{7 \text{ squared}}", 0.0, True),
    (MATH, r"\boxed{\geq 7}", 0.0, False),
    (MATH | {"accepted": ["$(1,2)$"]}, r"\boxed{\{1,2\}}", 0.0, False),
    # nothing is dropped behind a currency
    *((MATH | {"kind": kind}, rf"\boxed{{{text}}}", 0.0, True) for kind in ("integer", "open") for text in (
        r"\$7 + 5", r"\$7 \times 5", r"\$7\text{ billion}", r"\$7x+1", r"\$7 - \$5 = \$2", r"\$7 \text{ to } \$9",
    )),
    (MATH | {"kind": "integer"}, r"\boxed{\$7.00}", 1.0, False),
    (MATH | {"kind": "integer"}, r"\boxed{\$7\text{ dollars}}", 1.0, False),
    (OPEN_NO | {"accepted": ["$1.5 million"]}, r"\boxed{\$1.5\text{ billion}}", 0.0, False),
    (OPEN_NO | {"accepted": ["$1.5 million"]}, r"\boxed{1500000}", 1.0, False),
    (PRICES, r"\boxed{1.5\text{ million}}", 1.0, False),
    (PRICES, r"\boxed{\$1.5\text{ thousand}}", 0.0, True),
    # several letters, or one that is rejected: for a judge
    *((LENGTHS | {"accepted": [gold]}, text, 0.0, True) for gold in "ABCD" for text in (
        r"\boxed{A, B, C, D}", r"\boxed{B, C}", r"\boxed{A \text{ or } D}", r"\boxed{(A), (B)}", r"\boxed{A: 3 cm, B: 4 cm}", "Not (A).",
        "The answer is A, B and C.", "Answer: A) or B)", "The answer is not option A.", "The answer is anything but (D).", "We can rule out (A).",
        "It cannot be option A, so it is the third one.", "The answer is not (A) but the second one.", "Everything except **D** is possible.",
        "The choice that fits best is C, since option A is too short.", "**C** is right, and option B is wrong.",
    )),
    *((LENGTHS, text, 1.0, False) for text in (
        r"\boxed{\textbf{(B)}\ 4 cm}", "The answer is (B) because 3+1=4.", "Option B is correct.", "The length is 4 cm, so (B).", "**B** is right.",
        "The answer is B since the side is not too long.", "It is neither (A) nor (C); the answer is (B).",
    )),
    (LENGTHS | {"accepted": ["C"]}, "**C** is right because option B is wrong.", 1.0, False),
    # names hold answers apart
    (NAMED, r"\boxed{x=1,y=2}", 1.0, False),
    (NAMED, r"\boxed{y=2,x=1}", 1.0, False),
    (NAMED, r"\boxed{1,2}", 1.0, False),
    (NAMED, r"\boxed{x=2,y=1}", 0.0, True),
    (NAMED, r"\boxed{2,1}", 0.0, True),
    (NAMED | {"tolerances": [0.1]}, r"\boxed{x=2.0,y=1.0}", 0.0, True),
    (NAMED | {"tolerances": [0.1]}, r"\boxed{y=2.05,x=1}", 1.0, False),
    (NAMED | {"accepted": ["1,2"]}, r"\boxed{x_1=2, x_2=1}", 1.0, False),
    # a list in a sentence
    (LIST, "The years are 2007 and 2008.", 0.0, True),
    (LIST, r"\boxed{2007–2008}", 0.0, True),
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
    assert (
        by_text[r"\boxed{x=1,y=2}"].answer == by_text[r"\boxed{y=2,x=1}"].answer != by_text[r"\boxed{x=2,y=1}"].answer
    )


@pytest.mark.parametrize(
    ("changes", "alike", "other"),
    [
        ({"unit": "cm"}, ["7", r"7\text{ cm}", "x = 7.0 cm"], "7 m"),
        ({}, ["7", "7 cm", r"\frac{14}{2}"], "8"),
        ({"unit": "pc"}, ["7", "7 pc"], "7 AU"),
        ({"kind": "several", "accepted": ["1,2"]}, ["1,2", "2, 1", r"1 \text{ and } 2", "x=2, x=1"], "1, 3"),
        ({"kind": "decimal", "accepted": ["1.4"], "decimals": 1}, ["1.4", "1.41", "1.40"], "1.5"),
    ],
)
def test_equal_answers_have_one_vote(changes, alike, other):
    texts = [rf"\boxed{{{text}}}" for text in (*alike, other)]
    counted = [grade.answer for grade in BenchmarkGrader()(texts, [MATH | changes] * len(texts))]
    assert len(set(counted[:-1])) == 1 and counted[-1] != counted[0]


def test_equal_answers_to_own_data_have_one_vote():
    assert {counted_answer(text) for text in ("B", "(B)", "b", "B. 4 cm", r"\text{Option B}")} == {"B"}
    assert {counted_answer(text) for text in ("5", "5 cm", "x=5", r"\$5", r"5\text{ cm}", r"\frac{10}{2}")} == {"5"}
    assert {counted_answer(text) for text in ("1/2", "0.5", r"50\%")} == {"1/2"}
    assert counted_answer("-x") != counted_answer("x") and counted_answer("5") != counted_answer("6 cm")


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
    assert number is not None and (number.value, number.unit.name) == (value, unit)


@pytest.mark.parametrize("text", ["", "x", "12 + x", "2, 3", "between 1 and 2", r"3\pi", "1/0", "9" * 200, "10^{999}"])
def test_what_is_no_number_is_not_read_as_one(text):
    assert read_number(text) is None


def test_units_lists_and_pieces():
    assert (
        read_unit("metres") == read_unit("m")
        and read_unit("").agrees(read_unit("kg"))
        and read_unit("dollars").name == "$"
    )
    assert (
        not read_unit("km").agrees(read_unit("m"))
        and read_unit(r"m\cdot s^{-2}").name == read_unit("m/s²").name == "m/s2"
    )
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
