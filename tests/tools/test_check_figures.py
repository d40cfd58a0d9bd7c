# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The check of the documentation's figures: what it lets pass, what it finds."""

import json
import subprocess
import sys

import pytest

from tests.support import ROOT
from tools.check_figures import check_page, is_among


PAGE = """
<!-- figures: raw.json -->
| setting | accuracy | tokens, k | paper |
|---|---|---|---|
| stock | {accuracy} ± 2.1 % | 341 | 12.3 |
| share | 88.0 % | {tokens} | 45.6 |
"""
RAW = {
    "stock": {"accuracy": {"mean": 0.8886, "half_width_95": 0.0212}, "tokens": 340752.8},
    "share": {"accuracy": 0.88, "tokens": 171000},
}


def problems(folder, raw=RAW, **numbers):
    (folder / "raw.json").write_text(json.dumps(raw))
    page = folder / "page.md"
    page.write_text(PAGE.format(**{"accuracy": "88.9", "tokens": "171", **numbers}))
    return check_page(page, folder)


def test_figures_of_the_raw_file_pass(tmp_path):
    assert problems(tmp_path) == (1, [])


@pytest.mark.parametrize(
    "numbers, found",
    [
        ({"accuracy": "88.8"}, "88.8 in the row 'stock'"),
        ({"tokens": "341"}, "341 in the row 'share'"),  # another row's
        ({"accuracy": "+88.9", "tokens": "−171"}, "−171 in the row 'share'"),
    ],
)
def test_a_wrong_figure_is_named(tmp_path, numbers, found):
    (problem,) = problems(tmp_path, **numbers)[1]
    assert found in problem and "raw.json" in problem


def test_a_missing_file_and_a_missing_table_are_problems(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- figures: absent.json -->\n| a | b |\n|---|---|\n| c | 1 |\n")
    assert "absent.json" in check_page(page, tmp_path)[1][0]
    (tmp_path / "absent.json").write_text("{}")
    page.write_text("<!-- figures: absent.json -->\n\ntext\n")
    assert "no table" in check_page(page, tmp_path)[1][0]


def test_rounding_goes_by_the_digits_shown():
    assert is_among("0.85", [0.854]) and not is_among("0.85", [0.856])
    assert is_among("1,234", [1234.4]) and not is_among("1,234", [1235.0])


def test_the_documentation_passes():
    run = subprocess.run([sys.executable, ROOT / "tools" / "check_figures.py"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
