# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The page of tables: `summary.json`, `tables.md` and a plot for each ablation; and its copy in `docs/ablations.md`.
"""

import json
from pathlib import Path

from benchmarks.ablations.claims import Estimate, sentence
from benchmarks.ablations.sections import Section


BEGIN = "<!-- Written by `python -m benchmarks.ablations --kept`: begin -->"
END = "<!-- Written by `python -m benchmarks.ablations --kept`: end -->"
NOT_RUN = "Not run."
RAW = "<!-- figures: benchmarks/ablations/summary.json -->"  # what `tools/check_figures.py` looks for


def markdown_table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]


def cell(value: Estimate | str) -> str:
    return value if isinstance(value, str) else value.text()


def p_text(p_value: float | None) -> str:
    if p_value is None:
        return "–"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def claims_table(sections: list[Section]) -> list[str]:
    """Every comparison with a claim, in the order of the sections."""
    rows = [
        [claim.paper, claim.what, claim.difference.text(True), p_text(claim.p_corrected), claim.verdict, claim.refuted]
        for section in sections
        for claim in section.claims
        if claim.verdict is not None
    ]
    head = ["claim of the paper", "what we measured", "95 % interval", "p", "verdict", "what would have refuted it"]
    return markdown_table(head, rows)


def render_section(section: Section, plots: str) -> list[str]:
    lines = [f"### {section.title}", "", section.note, ""]
    if not section.seeds:
        return [*lines, NOT_RUN, ""]
    lines.append(RAW)
    lines += markdown_table(section.columns, [[name, *map(cell, cells)] for name, cells in section.rows.items()])
    others = [claim for claim in section.claims if claim.verdict is None]
    if others:
        lines += ["", "Without a claim of the paper:", "", RAW]
        lines += markdown_table(
            ["difference", "ours"], [[claim.what, claim.difference.text(True)] for claim in others]
        )
    lines += ["", f"**{sentence(section.claims)}**", ""]
    seeds = f"{len(section.seeds)} seed" + "s" * (len(section.seeds) > 1)
    lines += [f"{seeds}; {section.num_runs} runs, {section.cpu_seconds / 60:.0f} CPU minutes of training. "
              f"{section.source}", ""]  # fmt: skip
    return [*lines, f"![{section.title}]({plots}{section.key}.png)", ""] if section.draw else lines


def render(sections: list[Section], plots: str) -> str:
    """The page; `plots` is put before the plots' names."""
    not_run = [section.title for section in sections if not section.seeds]
    lines = ["## Claims", "", RAW, *claims_table(sections), ""]
    lines += [f"{NOT_RUN} {'; '.join(not_run)}.", ""] if not_run else []
    lines += ["## Details", ""]
    for section in sections:
        lines += render_section(section, plots)
    return "\n".join(lines)


def summary(sections: list[Section]) -> dict:
    """Every figure of the page, in the units it shows."""

    def of_cell(value: Estimate | str) -> dict | str:
        return value if isinstance(value, str) else value.as_dict()

    return {
        section.key: {
            "title": section.title,
            "seeds": section.seeds,
            "num_runs": section.num_runs,
            "train_cpu_seconds": section.cpu_seconds,
            "columns": section.columns,
            "rows": {name: list(map(of_cell, cells)) for name, cells in section.rows.items()},
            "claims": [claim.as_dict() for claim in section.claims],
            "source": section.source,
            "sentence": sentence(section.claims) if section.seeds else NOT_RUN,
        }
        for section in sections
    }


def write(sections: list[Section], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(summary(sections), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    title = "# Ablations on the digit tasks\n\n"
    (folder / "tables.md").write_text(title + render(sections, ""), encoding="utf-8")
    for section in sections:
        if section.draw:
            section.draw(folder / f"{section.key}.png")


def insert(document: Path, sections: list[Section], plots: str) -> None:
    """
    Put the page between the two marker lines of a document.

    Raises:
        ValueError: If the document does not have each marker once, in order.
    """
    text = document.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in tail:
        raise ValueError(f"{document} must hold the lines {BEGIN!r} and {END!r} once each, in this order.")
    document.write_text(f"{head}{BEGIN}\n\n{render(sections, plots)}\n{END}{tail}", encoding="utf-8")
