# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
Kinds of answers that verifiers are known to misjudge, each with right and wrong ones: parts of the gold, tiny numbers,
several boxes, hedges, Unicode, Chinese, intervals, roots, ±, repeating decimals, sentences in `<answer>`.

No wrong answer may be paid. Where the gold is not read to its end there is no verdict, which is also allowed for wrong
answers; see `test_what_is_not_read_is_counted`.
"""

import time

import pytest

from trl_r1v2.rewards import accuracy_reward


# (gold, right answers, wrong answers); each answer stands in a box.
BOXED = {
    "partial": [
        (r"2-\frac{1}{\mathrm{e}^2}", ["2-e^{-2}"], ["2"]),
        ("$x=1$ or $x=4$", ["x = 4 or x = 1", "1, 4"], ["4"]),
        (r"$\{x \mid x > 3\}$", [r"(3,\infty)"], ["3"]),
        (r"$\{x | -1 \le x < 3\}$", ["[-1,3)"], []),
        (r"$x \neq 2$", [], ["2"]),
        (r"3+\vec{a}", [], ["3"]),
        (r"7+y_{\min}", [r"7+y_{\text{min}}"], ["7"]),
        (r"2, 4, \ldots, 2n", [r"2, 4, 6, \ldots, 2n"], ["2, 4", r"2, 4, 8, \ldots, 2^n"]),
        (r"\operatorname{arcsin} \frac{1}{3}", [r"\arcsin(1/3)"], []),
        (r"5\big(x+1\big)", ["5x+5"], ["5"]),
        (r"1+\text{const}", [], ["1"]),
        (r"\sum_{k=1}^{n} k", [], ["1"]),
        (r"\int_0^1 x dx", [], ["0"]),
        (r"\lim_{x \to 0} x", [], ["0"]),
        (r"3 \mid n", [], ["3"]),
        (r"n \equiv 1 \pmod{3}", [r"n\equiv 1 \pmod{3}"], ["1"]),
        (r"4\sqrt{3}+\overline{AB}", [], [r"4\sqrt{3}"]),
        (r"x^2+\hat{y}", [], ["x^2"]),
        ("a_{n}=2n+1", ["2n+1"], []),
        ("a_n = 2n+1", [], ["2"]),
        ("f(x)=x^2+1", ["x^2+1"], ["1"]),
        ("10 - x_{1}", [], ["10"]),
        (r"\frac{5}{\mathbf{v}}", [], ["5"]),
        (r"5 \times \mathrm{max}", [], ["5"]),
        (r"6 \mathrm{~cm}", ["6"], []),
        (r"(2,\infty)", [], ["2"]),
        ("|x|>2", [], ["2"]),
        ("5 + O(x)", [], ["5"]),
        ("2^{n+1}-1", ["2*2^n-1"], ["2^n+1-1"]),
        ("C_{5}^{2}", [], ["10"]),
    ],
    "tiny": [
        (r"\frac{1}{3^{80}}", ["3^{-80}"], ["3^{-81}", "0"]),
        (r"\frac{1}{10^{20}}", ["10^{-20}"], ["10^{-21}"]),
        (r"\left(\frac{1}{2}\right)^{50}", [r"\frac{1}{2^{50}}"], [r"\frac{1}{2^{49}}"]),
        (r"1-\frac{1}{2^{100}}", [], ["1"]),
        (r"\frac{2^{2020}-1}{2^{2020}}", [], ["1"]),
        ("e^{-100}", ["1/e^{100}"], ["0"]),
        (r"\frac{1}{100!}", [], ["0"]),
        ("2^{100}+1", [], ["2^{100}"]),
        ("2^{1000}", ["4^{500}"], []),
        ("10^{-9}", ["0.000000001"], ["0.000000002"]),
        (r"6.02 \times 10^{23}", ["6.02e23"], []),
        (r"\frac{1}{2^{2005}}", [r"\frac{2}{2^{2006}}"], []),
        (r"1.6\times10^{-19}", [r"1.6 \cdot 10^{-19}"], [r"1.6 \cdot 10^{-18}"]),
    ],
    "plain": [
        (r"\frac{\pi}{3}", ["π/3"], []),
        (r"\frac{2\pi}{3}", ["2pi/3", "(2/3)π"], []),
        (r"3\sqrt{2}", ["3√2", "3*sqrt(2)"], ["2√3"]),
        ("x^3-2x", ["x³ − 2x"], []),
        (r"\frac{1}{x^2}", ["x⁻²"], []),
        ("e^{2}", ["exp(2)"], []),
        ("e^2+1", ["exp(2) + 1"], []),
        (r"6.02\times 10^{23}", ["6.02×10²³"], []),
        (r"(2,\infty)", ["(2, ∞)"], []),
        (r"(-\infty, \infty)", ["(-∞, +∞)"], []),
        (r"\frac{3}{4}", ["¾"], []),
        (r"\frac{7}{2}", ["3½"], []),
        (r"\ln 3", ["ln 3"], []),
        (r"\log_2 3", ["log_2(3)"], []),
        (r"\sin x", ["sin(x)"], []),
        (r"2\sin x\cos x", ["sin(2x)"], []),
        (r"\theta", ["θ"], []),
        (r"\alpha+\beta", ["β+α"], []),
        (r"x \le 5", ["x ≤ 5"], []),
        (r"\sqrt[3]{5}", ["∛5", "5^(1/3)"], []),
        (r"\frac{a+b}{2}", ["(a+b)/2"], []),
        (r"\frac{a}{b+c}", [], ["a/b+c"]),
        ("2^{10}", ["2**10"], []),
        ("14-i", ["14.0 + -1.0i"], []),
        (r"\frac{1}{2}", ["1÷2"], []),
        (r"60^\circ", ["60°", "60 degrees"], []),
        (r"\frac{\sqrt{3}}{2}", ["√3/2", "sqrt(3)/2"], []),
        (r"\sqrt{\frac{3}{2}}", ["√(3/2)"], ["√3/2"]),
        ("x_1+x_2", ["x₁+x₂"], []),
        ("-3", ["−3"], []),
        (r"\frac{5\pi}{6}", ["5π/6"], []),
        (r"\pi r^2", ["πr²"], []),
        ("e^{x^2}", ["e^(x^2)"], []),
        (r"\cos^2 x", ["cos²x", "cos(x)^2"], []),
        ("a^2b^3", ["a²b³"], []),
        ("1000000", ["10^6"], []),
        (r"\binom{5}{2}", ["10"], []),
        ("120", ["5!"], []),
        (r"\arctan 2", ["arctan(2)"], []),
        (r"\tan^{-1} 2", [r"\arctan 2"], []),
        ("|x-1|", ["|1-x|"], []),
        (r"\lfloor \pi \rfloor", ["3"], []),
    ],
    "interval": [
        ("[1,4]", [r"1 \le x \le 4"], ["1 < x < 4"]),
        ("(1,4)", ["1 < x < 4"], []),
        (r"(-\infty,2)", ["x<2"], []),
        (r"[2,\infty)", [r"x \geq 2"], ["x > 2"]),
        ("x > 2", [r"(2, \infty)"], []),
        ("x>2", [], ["x>=2"]),
        (r"(-\infty,-1]\cup[1,\infty)", [r"x \le -1 or x \ge 1"], [r"x \le -1"]),
        (r"(-\infty,0)\cup(0,\infty)", [r"x \ne 0"], []),
        (r"\mathbb{R}", [r"(-\infty,\infty)"], []),
        (r"0<a\le 1", ["(0,1]"], ["(0,1)"]),
        (r"\left[\frac{1}{2},2\right]", ["[0.5, 2]"], []),
        ("(2,3)", [], ["(3,2)"]),
        (r"[0,1) \cup (1,2]", [r"[0,2] \setminus \{1\}"], ["[0,2]"]),
        (r"x \in [0,5)", [r"0 \le x < 5"], []),
        (r"-2 \le x \le 7", [r"x\in[-2,7]"], []),
        ("3<x<5", ["5>x>3"], []),
        ("(3,5)", ["x>3 and x<5"], []),
        (r"m \ge 3", [r"[3,+\infty)"], []),
        (r"(1,2)\cup(2,3)", ["1<x<3, x≠2"], []),
        ("k<4", ["4>k"], []),
        (r"\{x|x<1 \text{ or } x>2\}", [r"(-\infty,1)\cup(2,\infty)"], []),
        (r"(0,+\infty)", ["x>0"], []),
        ("x<1", [], ["x>1"]),
    ],
    "root": [
        (r"\sqrt{\frac{a}{b}}", [r"\frac{\sqrt{a}}{\sqrt{b}}"], []),
        (r"\frac{2}{\sqrt{x}}", [r"\sqrt{4/x}"], []),
        (r"2\pi\sqrt{\frac{m}{k}}", [r"2\pi \frac{\sqrt{m}}{\sqrt{k}}"], [r"2\pi\sqrt{\frac{k}{m}}"]),
        (r"\sqrt{a}\sqrt{b}", [r"\sqrt{ab}"], []),
        (r"\sqrt{x^2+1}", [], ["x+1"]),
        (r"\sqrt{8}", [r"2\sqrt2"], []),
        (r"\frac{1}{\sqrt{3}}", [r"\frac{\sqrt{3}}{3}"], []),
        (r"\sqrt{x^4}", ["x^2"], []),
        ("x^{1/2}", [r"\sqrt{x}"], []),
        (r"\sqrt{2gh}", [r"\sqrt{2}\sqrt{gh}"], [r"2\sqrt{gh}"]),
        ("(ab)^{1/2}", [r"\sqrt{a}\sqrt{b}"], []),
        (r"\sqrt{x^2}", [], ["x"]),
        (r"\sqrt{3-2\sqrt2}", [r"\sqrt2-1"], []),
        (r"\ln\sqrt{x}", [r"\frac12\ln x"], []),
        (r"\sqrt{\frac{2E}{m}}", ["(2E/m)^{0.5}"], []),
    ],
    "cjk": [
        ("7", ["7个", "7米", "7千克"], ["8米", "7万"]),
        ("7000", ["7千"], []),
        ("70000", ["7万"], []),
        ("广州", ["广州"], ["深圳"]),
        ("9", ["９", "9。"], []),
        ("30%", ["30％"], []),
        ("(1,2)", ["（1，2）"], []),
        ("1, 2", ["1，2", "1和2"], []),
        ("1", [], ["1或2"]),
        ("x>2", ["x＞2"], []),
        ("正确", ["正确"], ["错误"]),
        ("25", ["25平方厘米"], []),
        ("25 cm^2", ["25平方厘米"], ["25厘米"]),
        ("5", [], ["5个半"]),
        ("B", ["选项B", "B选项"], []),
        ("三角形", ["三角形"], []),
        ("60", ["60度", "60千米/时"], []),
        ("0.5", ["½"], []),
        ("3", ["三"], []),
    ],
    "plusminus": [
        (r"2\pm\sqrt{3}", [r"2+\sqrt3, 2-\sqrt3", r"2-\sqrt3 \text{ and } 2+\sqrt3"], [r"2+\sqrt3"]),
        (r"\pm 4", ["4, -4", "±4"], ["4"]),
        ("4, -4", [r"\pm4"], []),
        (r"x=\pm 4", ["x=4 or x=-4"], []),
        (r"\frac{-1\pm i\sqrt3}{2}", [r"\frac{-1+i\sqrt3}{2},\frac{-1-i\sqrt3}{2}"], []),
        ("4", [], [r"\pm 4"]),
        (r"\pm\frac{1}{2}", ["±0.5"], []),
        (r"-1 \pm 2", ["1, -3"], []),
        (r"\{3\pm\sqrt2\}", [r"3+\sqrt2, 3-\sqrt2"], []),
        (r"(1, \pm 2)", ["(1,2), (1,-2)"], []),
        (r"\mp 4", [r"\pm 4"], []),
    ],
    "repeating": [
        (r"0.\overline{6}", [r"\frac23"], ["0.6"]),
        (r"\frac{1}{3}", [r"0.\overline{3}", "0.333..."], ["0.3"]),
        (r"0.1\overline{6}", ["1/6"], []),
        (r"0.\dot{3}", ["1/3"], []),
        (r"0.\overline{142857}", ["1/7"], []),
        (r"1.\overline{3}", ["4/3"], []),
        (r"0.\overline{12}", [r"\frac{4}{33}"], ["0.12"]),
        (r"\frac{5}{11}", ["0.454545..."], []),
        (r"0.\bar{9}", ["1"], []),
        ("0.(3)", ["1/3"], []),
        (r"\frac{1}{6}", [r"0.1\dot{6}"], []),
    ],
    "letters": [
        ("A, C", ["A, C", "AC"], []),
        ("AC", ["A and C"], ["A"]),
        ("ABD", ["A, B, D"], ["A, B"]),
        ("(B) 12 cm", ["B"], []),
        ("B", ["(B) 12 cm", r"\text{(B)}", r"\textbf{(B)}\ 12", "b", "Option B", "B. 3 m/s"], ["B or C", "D"]),
    ],
}  # fmt: skip

# The same for whole completions.
WHOLE = {
    "boxes": [
        ("2, 7", [r"The roots are \boxed{2} and \boxed{7}.", r"The roots are \boxed{7} and \boxed{2}."], []),
        (
            "7",
            [r"First \boxed{2}. Then we get \boxed{7}."],
            [r"\boxed{2} or \boxed{7}", r"I get \boxed{7}. So \boxed{", r"Either \boxed{6} or \boxed{7}."],
        ),
        ("C", ["Answer: C (80%)"], [r"\boxed{B} or \boxed{C}", r"\boxed{C} or maybe \boxed{D}"]),
        ("x=2, y=7", [r"$x = \boxed{2}$, $y = \boxed{7}$"], []),
        (r"\boxed{4} cats and \boxed{9} dogs", [r"\boxed{4} cats and \boxed{9} dogs"], [r"\boxed{9}"]),
        ("B", ["\\boxed{\\text{area}} is what we want.\n\n**Answer: B**"], []),
        ("A", ["**Answer: A** (confidence 0.9)", r"Final answer: \boxed{A}"], []),
        ("3", [], [r"\boxed{3} is incorrect. The answer is 8."]),
        ("8", [r"\boxed{3} is incorrect. The answer is 8."], []),
        (
            "12",
            [r"\boxed{12}. This answer is correct since 3*4=12.", r"So \boxed{12}. The answer is verified above."],
            [],
        ),
        ("2.5", [r"\boxed{\frac{10}{4}} = \boxed{2.5}"], []),
        ("5", ["\\boxed{5}\n\n\\boxed{5}", r"\fbox{5}", r"\boxed5"], [r"\boxed{}"]),
        ("D", [r"\boxed{D}. The other options are wrong: option A is too small, option B is negative."], []),
        ("1, 2, 3", [r"\boxed{1}, \boxed{2}, and \boxed{3}"], []),
        ("6", [r"Since $\boxed{2}\cdot\boxed{3}=\boxed{6}$"], []),
        ("4", [r"\boxed{4} or \boxed{4.0}"], []),
        ("x=0 or x=2", [r"$x=\boxed{0}$ or $x=\boxed{2}$"], []),
    ],
    "cjk": [
        ("C", ["答案：C", "故选C", "故选：C。", "因此，正确答案是C。", "选C"], ["故选D。", "答案是C或D"]),
        ("12", ["所以答案是12。", "答：12个", "最终答案为12"], ["最终答案为 13"]),
        ("是", ["<answer>是</answer>"], []),
        ("A", ["【答案】A", "答案选A", "应选 A"], []),
    ],
    "tag": [
        ("0.25", ["<answer>The answer is 0.25</answer>", "<answer>0.25.</answer>"], []),
        (
            "C",
            ["<answer>I pick C</answer>", "<answer>The correct option is C.</answer>", "<answer>Option C</answer>",
             "<answer>C. dog</answer>", "<answer>(C)</answer>", "<answer>C, definitely not D</answer>",
             "<answer>I choose option C because it is larger than B.</answer>"],
            ["<answer>A or C</answer>", "<answer>B and C</answer>", "<answer>Not C</answer>",
             "<answer>A B C D</answer>"],
        ),
        (
            "dog",
            ["<answer>It is a dog.</answer>", "<answer>This is a dog</answer>"],
            ["<answer>It is a cat.</answer>", "<answer>It is not a dog.</answer>"],
        ),
        (
            "12",
            ["<answer>The area is 12 cm</answer>", "<answer>$12$</answer>", r"<answer>\boxed{12}</answer>",
             "<answer>There are 12 apples.</answer>"],
            ["<answer>The area is 13 cm</answer>", "<answer>12 or 13</answer>"],
        ),
        ("yes", ["<answer>Yes, it is.</answer>"], ["<answer>No</answer>"]),
        ("red", ["<answer>The answer is red.</answer>"], []),
        ("two dogs", ["<answer>There are two dogs</answer>"], []),
        ("3", ["<answer>three</answer>"], []),
        ("1/2", ["<answer>The probability is 1/2.</answer>"], []),
    ],
}  # fmt: skip
# What may stand where a number is expected: each must count when it stands inside a larger expression.
NOTATIONS = [
    *(rf"\{name}" for name in "alpha beta gamma delta epsilon varepsilon zeta eta theta lambda mu nu xi rho".split()),
    *(rf"\{name}" for name in "sigma tau phi varphi chi psi omega Gamma Delta Lambda Omega".split()),
    *(rf"\{name}" for name in "ell hbar infty aleph nabla partial".split()),
    *(rf"\{font}{{x}}"
      for font in "mathrm mathbf mathit mathsf mathcal mathfrak mathbb text textbf boldsymbol operatorname".split()),
    *(rf"\{mark}{{x}}"
      for mark in "vec hat bar tilde dot ddot overline underline widehat overrightarrow acute breve".split()),
    *(f"x_{below}"
      for below in ("1", "{12}", "{max}", r"{\max}", r"{\text{min}}", "n", "{n+1}", r"\infty", "{i,j}", "{(2)}")),
    *(f"x^{above}"
      for above in ("2", "{10}", "*", r"\prime", r"\dagger", r"{\circ}", r"{(2)}", "T", r"\star", "{-1}")),
    *(rf"\{name} x"
      for name in "sin cos tan cot sec csc arcsin arctan ln log exp sinh det dim ker arg deg Re Im lg".split()),
    r"\sqrt{x}", r"\sqrt[3]{x}", r"\frac{x}{y}", r"\binom{x}{y}", r"\lfloor x \rfloor", r"\lceil x \rceil", "|x|",
    "x!", r"\|x\|", r"\langle x \rangle", r"\big(x+y\big)", r"\Bigl[x+y\Bigr]", r"\{x\}", "x'", "x''", r"\dfrac{x}{y}",
    "f(x)", r"\sum_{k=1}^n k", r"\int_0^1 x\,dx", r"\lim_{t\to 0} t", r"\prod_{k=1}^n k", r"\max(x,y)", r"\gcd(x,y)",
    "xyz", "1.5x", r"\mathrm{e}", "e^{x}", r"\pi", "i", r"\mathrm{i}", r"\log_2 x", r"x \bmod y", r"\stackrel{a}{x}",
    r"\overset{a}{x}", "O(x)", r"\mathrm{const}", r"\text{area}", r"\operatorname{sgn} x", r"\operatorname{arctan} x",
    r"x\cdots y", r"\pm x", "¾", "√x", "x²",
]  # fmt: skip


def reward(gold: str, completion: str) -> float | None:
    return accuracy_reward(completions=[completion], solution=[gold])[0]


CASES = [
    pytest.param(gold, text, is_right, id=f"{kind}: {gold} <- {text}")
    for table, wrap in ((BOXED, r"The answer is \boxed{%s}."), (WHOLE, "%s"))
    for kind, golds in table.items()
    for gold, right, wrong in golds
    for answers, is_right in ((right, True), (wrong, False))
    for text in (wrap.replace("%s", answer) for answer in answers)
]


@pytest.mark.parametrize(("gold", "completion", "is_right"), CASES)
def test_kinds(gold, completion, is_right):
    assert (reward(gold, completion) == 1.0) is is_right


@pytest.mark.parametrize("notation", NOTATIONS)
def test_no_part_of_an_expression_is_paid(notation):
    """A gold that is read only in part would pay 5, 1 or 0 here; the gold itself is right, however it is spelled."""
    for gold, wrong in (
        (f"5 + {notation}", ("5", "6", "0", "x", "5 + z")),
        (f"1 - \\frac{{1}}{{{notation}}}", ("1", "0", "-1", r"1-\frac{1}{z}")),
        (f"{notation} - 3", ("-3", "3", "0")),
    ):
        assert reward(gold, rf"\boxed{{{gold}}}") == 1.0
        for answer in wrong:
            assert reward(gold, rf"\boxed{{{answer}}}") != 1.0, (gold, answer)
            assert reward(answer, rf"\boxed{{{gold}}}") != 1.0, (answer, gold)


def test_there_are_a_hundred_notations():
    assert len(set(NOTATIONS)) >= 100


def test_what_is_not_read_is_counted():
    metrics = {}
    rewards = accuracy_reward(
        completions=[r"\boxed{1}", r"\boxed{\foo{1}}", r"\boxed{1}", r"\boxed{1}"],
        solution=[r"\sum_{k=1}^n k", "1", "", "1"],
        log_metric=metrics.__setitem__,
    )
    assert rewards == [None, None, None, 1.0]
    assert metrics == {
        "accuracy_reward/gold_unread": 0.25,
        "accuracy_reward/answer_unread": 0.25,
        "accuracy_reward/unverifiable": 0.25,
    }


@pytest.mark.parametrize("gold", ["x = 1 or x = 2", r"(0,1) \cup (2,3)", "x > 3", "2"])
def test_an_answer_without_a_value_is_wrong(gold):
    assert reward(gold, r"\boxed{\frac{1}{0}}") == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        "9^{9^{9^9}}",
        "2^{3000000000}",
        r"\sin(10^{10^{8}})",
        "(10^{9})!!",
        r"\binom{10^{12}}{10^{11}}",
        "(" * 400 + "x" + ")" * 400,
        "-" * 900 + "1",
        "x^" * 450 + "x",
        "(x+1)" * 190,
        r"\sqrt{" * 140 + "2" + "}" * 140,
        "1" * 900,
        "(1+1/" * 160 + "1" + ")" * 160,
        r"\frac{1}{" * 90 + "x" + "}" * 90,
    ],
)
def test_no_answer_takes_long(answer):
    """Nothing has to be interrupted, so no verdict depends on the load of the machine."""
    start = time.process_time()
    assert reward("12", rf"\boxed{{{answer}}}") != 1.0
    assert reward("x^2+1", rf"\boxed{{{answer}}}") != 1.0
    assert time.process_time() - start < 1.0
