# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The page of a report: one HTML file that holds its plots and example images, with no figure that is not in the summary.

Covers the texts of figures and the images of examples. Does not cover where figures come from (`summary.py`), the
plots (`plots.py`) nor the layout (`report.html.jinja`).
"""

import base64
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .plots import Plot
from .records import question_of


if TYPE_CHECKING:
    import PIL.Image

_IMAGES_AN_EXAMPLE = 4
_THUMBNAIL = 320
_CELLS = {
    "percent": lambda value: f"{100 * value:.1f} %",
    "points": lambda value: f"{100 * value:+.1f}".replace("-", "−"),
    "integer": lambda value: f"{value:,.0f}".replace(",", "\u202f"),
    "number": lambda value: f"{value:.3g}",
    "seconds": lambda value: _duration(value),
}
_OUTCOMES = {
    "gained": ("Wrong before, right after", "✗ → ✓"),
    "kept": ("Right before and after", "✓ → ✓"),
    "lost": ("Right before, wrong after", "✓ → ✗"),
    "missed": ("Wrong before and after", "✗ → ✗"),
}


def render_report(summary: dict[str, Any], plots: Sequence[Plot], example_rows: dict[int, dict[str, Any]]) -> str:
    """
    The page, as HTML without references to other files. Every figure on it is an entry of `summary` and names it in
    `data-path`; `example_rows` are the dataset rows of the summary's examples.
    """
    environment = Environment(
        loader=PackageLoader("trl_r1v2", "evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("report.html.jinja")
    return template.render(
        summary=summary,
        figure=lambda style, *path: figure(summary, style, *path),
        first=summary["evaluations"][0],
        last=summary["evaluations"][-1],
        mode="sampled" if all("sampled" in e["tasks"]["all"] for e in summary["evaluations"]) else "greedy",
        plots=[{"plot": plot, "uri": data_uri(plot.png, "png")} for plot in plots],
        examples=[describe_example(example, example_rows[example["row"]]) for example in summary["examples"]],
        outcomes=_OUTCOMES,
    )


def figure(summary: dict[str, Any], style: str, *path: str | int) -> Markup:
    """
    The figure at `path` of the summary as HTML that also carries its exact value and its place, written in one of the
    styles of `_CELLS`; a dash where the summary holds `None` or has no such entry.
    """
    value: Any = summary
    for key in path:
        absent = value is None or (isinstance(value, dict) and key not in value)
        value = None if absent else value[key]
    if value is None:
        return Markup('<span class="none">–</span>')
    return Markup('<data value="{}" data-path="{}">{}</data>').format(
        json.dumps(value), json.dumps(list(path)), _CELLS[style](value)
    )


def describe_example(example: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of an entry of the summary's `examples`, whose dataset row is `row`."""
    images = row.get("images") or ([row["image"]] if row.get("image") is not None else [])
    return {
        "example": example,
        "question": question_of(row["prompt"]),
        "answer": str(row["solution"]) if row.get("solution") is not None else None,
        "images": [picture(image) for image in images[:_IMAGES_AN_EXAMPLE]],
        "num_more": max(0, len(images) - _IMAGES_AN_EXAMPLE),
    }


def picture(image: "PIL.Image.Image") -> dict[str, Any]:
    """Return an image as a data address, not larger than the page shows it."""
    small = max(image.size) < 100
    shown = image.convert("RGB")
    shown.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    shown.save(buffer, format="PNG" if small else "JPEG")
    return {"uri": data_uri(buffer.getvalue(), "png" if small else "jpeg"), "size": shown.size, "small": small}


def data_uri(content: bytes, kind: str) -> str:
    """Return an image file as a `data:` address."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
