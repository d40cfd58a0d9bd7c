# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Histograms as numbers (for JSON) and as one PNG, which alone needs matplotlib.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def check_plotting() -> None:
    """Fails before the long work, rather than after it, where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "the plots need matplotlib: `pip install 'trl_r1v2[demo]'`, or `plots: false` where there is that key"
        ) from error


def histogram(values: Sequence[float], num_bins: int = 20) -> dict[str, list]:
    """`num_bins` equal bins of finite values: their `edges` and `counts`; both empty without values."""
    if not values:
        return {"edges": [], "counts": []}
    counts, edges = np.histogram(np.asarray(values, dtype=float), bins=num_bins)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def new_figure(num_panels: int):
    """A figure of matplotlib, which opens no window, and its panels, side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * num_panels, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, num_panels, squeeze=False)[0]


def draw_histograms(path: str | Path, panels: Sequence[dict[str, Any]]) -> None:
    """
    Draws histograms side by side into a PNG. Of each panel: `title`, `xlabel`, `series` (label → `{"edges",
    "counts"}`) and, optionally, `lines` (label → x).
    """
    figure, all_axes = new_figure(len(panels))
    for axes, panel in zip(all_axes, panels, strict=True):
        for label, series in panel["series"].items():
            if series["counts"]:
                axes.stairs(series["counts"], series["edges"], fill=True, alpha=0.5, label=label)
        for label, x in panel.get("lines", {}).items():
            axes.axvline(x, color="black", linestyle="--", label=label)
        axes.set(title=panel["title"], xlabel=panel["xlabel"], ylabel="count")
        if len(panel["series"]) > 1 or panel.get("lines"):
            axes.legend()
    figure.savefig(path, dpi=120)
