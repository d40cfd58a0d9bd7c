# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Figures that others have published, shown beside ours and always labelled "paper".

None of them was measured here, and none enters a figure of ours. Does not cover figures of other models.
"""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class PaperFigure:
    """
    One published figure.

    Args:
        value (`float`):
            Pass@1 as a share in [0, 1].
        source (`str`):
            Where it stands.
    """

    value: float
    source: str
    model: str = "Skywork-R1V2-38B"
    label: str = "paper"

    def as_dict(self) -> dict[str, Any]:
        """Return it for `metrics.json`."""
        return asdict(self)


_PAPER = "arXiv 2504.16656"
_CARD = "model card of Skywork/Skywork-R1V2-38B"

PAPER_FIGURES = {
    "aime_2024": PaperFigure(0.789, _PAPER),
    "livecodebench": PaperFigure(0.636, _PAPER),
    "livebench": PaperFigure(0.732, _CARD),
    "ifeval": PaperFigure(0.829, _CARD),
    "bfcl": PaperFigure(0.663, _CARD),
    "mmmu": PaperFigure(0.736, _PAPER),
    "mathvista": PaperFigure(0.740, _PAPER),
    "olympiadbench": PaperFigure(0.626, _PAPER),
    "mathvision": PaperFigure(0.490, f"{_CARD}, split mini"),
    "mmmu_pro": PaperFigure(0.520, f"{_CARD}, configuration not named"),
}
