# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.

"""
Histograms as numbers (for JSON) and as one PNG, which alone needs matplotlib.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def check_plotting() -> None:
    """Fails before the long work, rather than after it, where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "the plots need matplotlib: `pip install trl_r1v2[demo]`, or `plots: false` where there is that key"
        ) from error


def histogram(values: Sequence[float], num_bins: int = 20) -> dict[str, list]:
    """`num_bins` equal bins of finite values: their `edges` (one more) and `counts`; both empty without values."""
    import numpy as np

    if not values:
        return {"edges": [], "counts": []}
    counts, edges = np.histogram(np.asarray(values, dtype=float), bins=num_bins)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def draw_histograms(path: str | Path, panels: Sequence[dict[str, Any]]) -> None:
    """
    Draws histograms side by side.

    Args:
        path (`str` or `Path`):
            PNG to write.
        panels (`Sequence[dict[str, Any]]`):
            For each: `title`, `xlabel`, `series` (label → `{"edges", "counts"}`) and, optionally, `lines` (label → x).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(panels), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for label, series in panel["series"].items():
            if series["counts"]:
                axes.stairs(series["counts"], series["edges"], fill=True, alpha=0.5, label=label)
        for label, x in panel.get("lines", {}).items():
            axes.axvline(x, color="black", linestyle="--", label=label)
        axes.set(title=panel["title"], xlabel=panel["xlabel"], ylabel="count")
        if len(panel["series"]) > 1 or panel.get("lines"):
            axes.legend()
    figure.savefig(path, dpi=120)
