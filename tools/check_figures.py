# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Checks that the numbers in the documentation's tables stand in the raw results they are said to come from.

    python tools/check_figures.py [FILE.md ...]

A table is checked where the line above it names its raw files, from the root of the repository:

    <!-- figures: benchmarks/ssb/results/digits/summary.json -->

Every number in such a table, its first column and its header aside, must be a value of these files, rounded to the
digits shown; as it is, in percent, or in thousands, millions or billions. Where a file has entries named like a row,
only they count for the row. Columns headed `paper` hold what others measured and are left out. Does not check
sentences, nor that a number stands in the right column.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path


ROOT = Path(__file__).parents[1]
MARK = re.compile(r"^<!-- figures: (.+?) -->$")
NUMBER = re.compile(r"(?<![\w.])[-+−]?\d+(?:,\d{3})*(?:\.\d+)?(?!\w)")
SCALES = (1.0, 100.0, 1e-3, 1e3, 1e-6, 1e-9)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9+]+", " ", name.lower()).strip()


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def numbers_of(content, under: str = "") -> Iterator[tuple[str, float]]:
    """All numbers of a JSON value and of its texts, each with the names that lead to it, joined by `/`."""
    if isinstance(content, bool):
        return
    if isinstance(content, int | float):
        yield under, float(content)
    elif isinstance(content, dict):
        label = next((content[key] for key in ("name", "setting", "label") if isinstance(content.get(key), str)), None)
        under = under if label is None else f"{under}/{_plain(label)}"
        for name, value in content.items():
            yield from numbers_of(value, f"{under}/{_plain(name)}")
    elif isinstance(content, list):
        for value in content:
            yield from numbers_of(value, under)
    elif isinstance(content, str):
        for match in NUMBER.finditer(content):
            yield under, float(match[0].replace("−", "-").replace(",", ""))


def is_among(text: str, values: list[float]) -> bool:
    """Whether a number as written, such as `-0.90` or `341`, is one of `values` rounded to its digits."""
    text = text.replace("−", "-").replace(",", "")
    step = 10.0 ** -len(text.partition(".")[2])
    shown = float(text)
    return any(abs(value * scale - shown) <= 0.5 * step + 1e-9 for value in values for scale in SCALES)


def check_table(lines: list[str], values: list[tuple[str, float]]) -> Iterator[str]:
    """The numbers of a table's body that are not among `values`, each with its row."""
    heads = _cells(lines[0])[1:]
    for line in lines[2:]:
        label, *cells = _cells(line)
        cells = [cell for head, cell in zip(heads, cells, strict=True) if not head.startswith("paper")]
        named = [value for path, value in values if _plain(label) in path.split("/")]
        among = named or [value for _, value in values]
        for text in (match[0] for cell in cells for match in NUMBER.finditer(cell)):
            if not is_among(text, among):
                yield f"{text} in the row {label!r}"


def check_page(path: Path, root: Path = ROOT) -> tuple[int, list[str]]:
    """Number of marked tables of a page, and what is wrong in them."""
    lines, problems, num_tables = path.read_text(encoding="utf-8").splitlines(), [], 0
    for index, line in enumerate(lines):
        if (mark := MARK.match(line)) is None:
            continue
        num_tables += 1
        missing = [name for name in mark[1].split() if not (root / name).is_file()]
        table = []
        for row in lines[index + 1 :]:
            if not row.startswith("|"):
                break
            table.append(row)
        if missing or len(table) < 3:
            problems.append(f"{path}:{index + 1}: {'no such file: ' + ', '.join(missing) if missing else 'no table'}")
            continue
        values = [pair for name in mark[1].split() for pair in numbers_of(json.loads((root / name).read_text()))]
        problems += [f"{path}:{index + 1}: {problem} is not in {mark[1]}" for problem in check_table(table, values)]
    return num_tables, problems


def main() -> int:
    pages = [Path(name) for name in sys.argv[1:]] or [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    results = [check_page(page) for page in pages]
    problems = [problem for _, found in results for problem in found]
    print(
        "\n".join(problems) or f"The numbers of {sum(count for count, _ in results)} tables stand in their raw files."
    )
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
