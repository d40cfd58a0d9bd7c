# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Which static gate and which controller are compared, and whether the controller is better: `summary.json`, `tables.md`
and plots from the result files of `gates.py`.

    python -m benchmarks.hallucination.gates_report

The best of either kind has the largest share of right and grounded answers on the selection seed's validation rows.
Differences on the test rows are paired by seed; their p-values are Holm's over all comparisons of both reward models.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.ablations.claims import (
    AGREES,
    OPPOSITE,
    UNDECIDED,
    Claim,
    Estimate,
    corrected,
    paired,
    percent,
)
from benchmarks.ablations.page import p_text
from benchmarks.hallucination.gates import (
    CONTROLLERS,
    RANGES,
    REWARDS,
    SELECTION_SEED,
    STATIC,
    settings_of,
)


RESULTS = Path(__file__).parent / "results" / "gates"
RAW = "<!-- figures: benchmarks/hallucination/results/gates/summary.json -->"
FIGURES = ("right_and_grounded", "accuracy", "hallucination_rate", "mean_score")
COLOURS = {"none": "tab:red", "shut": "tab:green", "controller": "tab:blue", "static": "tab:orange",
           "undamped": "tab:purple"}  # fmt: skip


def load(results: Path) -> dict[str, dict[str, dict[int, dict]]]:
    """The runs by reward model, setting and seed."""
    found: dict = {reward: {} for reward in REWARDS}
    for reward in REWARDS:
        for setting in settings_of(reward):
            runs = [json.loads(path.read_text()) for path in sorted((results / reward).glob(f"{setting}-*.json"))]
            if runs:
                found[reward][setting] = {run["seed"]: run for run in runs}
    return found


def best(runs: dict[str, dict[int, dict]], names: Sequence[str], default: str) -> str:
    """The setting of `names` that did best with the selection seed; `default` where none was run with it."""
    tried = [name for name in names if SELECTION_SEED in runs.get(name, {})]
    figures = {name: runs[name][SELECTION_SEED]["validation"]["right_and_grounded"] for name in tried}
    return max(tried, key=figures.__getitem__, default=default)


def chosen(reward: str, runs: dict[str, dict[int, dict]]) -> tuple[str, str]:
    """Best static gate, open and shut ones among them, and best controller."""
    static = ["none", *(f"static_{place}" for place in STATIC[reward]), "shut"]
    return best(runs, static, "shut"), best(runs, list(CONTROLLERS), "quick")


def estimate(runs: dict[int, dict], seeds: Sequence[int], figure: str) -> Estimate:
    values = [runs[seed]["test"][figure] for seed in seeds]
    return Estimate(tuple(values), 2) if figure == "mean_score" else percent(values)


def trace(run: dict) -> dict:
    """What the gate did: how often it rose and fell, the falls' sizes in order, and how long it stood open."""
    places = [probe["threshold"] for probe in run["probes"]]
    sizes = [move["after"] - move["before"] for move in run["moves"]]
    lowest = RANGES[run["reward"]][0]
    return {
        "rises": sum(size > 0 for size in sizes),
        "falls": [round(-size, 4) for size in sizes if size < 0],
        "share_of_probes_open": sum(place == lowest for place in places) / len(places),
    }


def summarise_reward(reward: str, runs: dict[str, dict[int, dict]]) -> tuple[dict, list[Claim]]:
    static, controller = chosen(reward, runs)
    claims, seeds_of = [], {}
    for other in dict.fromkeys(["none", "shut", static]):
        seeds = sorted((set(runs.get(controller, {})) & set(runs.get(other, {}))) - {SELECTION_SEED})
        seeds_of[other] = seeds
        if len(seeds) < 2:
            continue
        for figure, sign in (("right_and_grounded", 1), ("hallucination_rate", -1)):
            difference = paired(*(estimate(runs[name], seeds, figure) for name in (controller, other)))
            what = f"{reward}: `{controller}` less `{other}`, {figure.replace('_', ' ')}, points"
            claims.append(Claim(f"{reward}/{other}/{figure}", what, "–", sign, difference))
    shown = {name: [seed for seed in sorted(of_seed) if seed != SELECTION_SEED] for name, of_seed in runs.items()}
    summary = {
        "selection": {
            name: {figure: of_seed[SELECTION_SEED]["validation"][figure] for figure in FIGURES}
            for name, of_seed in runs.items()
            if SELECTION_SEED in of_seed
        },
        "best_static": static,
        "best_controller": controller,
        "compared_seeds": seeds_of,
        "settings": {
            name: {
                **{figure: estimate(runs[name], shown[name], figure).as_dict() for figure in FIGURES},
                "largest_rate": percent(
                    [max(probe["rate"] for probe in runs[name][seed]["probes"]) for seed in shown[name]]
                ).as_dict(),
                "num_seeds": len(shown[name]),
                "cpu_seconds": [runs[name][seed]["cpu_seconds"] for seed in shown[name]],
            }
            for name in runs
            if shown[name]
        },
        "traces": {
            name: {str(seed): trace(run) for seed, run in of_seed.items() if run["moves"]}
            for name, of_seed in runs.items()
            if name in CONTROLLERS or name == "undamped"
        },
    }
    return summary, claims


def summarise(results: Path) -> dict:
    runs = load(results)
    parts = {reward: summarise_reward(reward, of_reward) for reward, of_reward in runs.items() if of_reward}
    claims = corrected([claim for _, found in parts.values() for claim in found])
    verdicts = {AGREES: "the controller is better", OPPOSITE: "the controller is worse", UNDECIDED: UNDECIDED}
    return {
        "controllers": {
            name: dict(zip(("watches", "target", "dead_band"), settings, strict=True))
            for name, settings in CONTROLLERS.items()
        },
        "rewards": {reward: part for reward, (part, _) in parts.items()},
        "comparisons": {
            claim.name: {
                "what": claim.what,
                "difference": claim.difference.as_dict(),
                "p_value": claim.p_value,
                "p_corrected": claim.p_corrected,
                "verdict": verdicts[claim.verdict],
            }
            for claim in claims
        },
    }


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [RAW, *("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)), ""]


def _cell(figure: dict, digits: int = 1) -> str:
    half = figure["half_width_95"]
    return f"{figure['mean']:.{digits}f}" + (f" ± {half:.{digits}f}" if len(figure["values"]) > 1 else "")


def tables(summary: dict) -> str:
    """Markdown: for each reward model what the settings gave, and every comparison."""
    lines = []
    for reward, part in summary["rewards"].items():
        head = [f"`{reward}`", "seeds", "selection seed: right and grounded, %", "right and grounded, %", "right, %"]
        head += ["hallucination rate, %", "largest rate of a probe, %", "mean score"]
        rows = []
        for name in {**part["selection"], **part["settings"]}:
            tried = part["selection"].get(name)
            cells = [f"`{name}`", "–", "–" if tried is None else f"{100 * tried['right_and_grounded']:.1f}"]
            found = part["settings"].get(name)
            if found is not None:
                cells[1] = str(found["num_seeds"])
                cells += [_cell(found[figure]) for figure in (*FIGURES[:3], "largest_rate")]
                cells.append(_cell(found["mean_score"], 2))
            rows.append(cells + ["–"] * (len(head) - len(cells)))
        lines += _table(head, rows)
    head = ["difference", "ours, points", "p (Holm)", "verdict"]
    rows = []
    for found in summary["comparisons"].values():
        difference = found["difference"]
        ours = f"{difference['mean']:+.1f} ± {difference['half_width_95']:.1f}"
        rows.append([found["what"].removesuffix(", points"), ours, p_text(found["p_corrected"]), found["verdict"]])
    return "\n".join([*lines, *(_table(head, rows) if rows else [])])


def draw(path: Path, reward: str, runs: dict[str, dict[int, dict]]) -> None:
    """
    Three panels against the step: hallucination rate of the probes, right answers in training, place of the gate.

    Thin lines are seeds, thick ones their mean; the selection seed is in the last panel only.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    static, controller = chosen(reward, runs)
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    rates, right, gate = figure.subplots(1, 3)
    kinds = {"none": "none", "shut": "shut", static: "static", controller: "controller", "undamped": "undamped"}
    kinds |= {"shut": "shut", "none": "none"}
    for setting, kind in kinds.items():
        members = [run for seed, run in runs.get(setting, {}).items() if seed != SELECTION_SEED]
        if not members:
            continue
        colour, label = COLOURS[kind], setting if kind == setting else f"{setting} ({kind})"
        steps = [probe["step"] for probe in members[0]["probes"]]
        curves = [[probe["rate"] for probe in run["probes"]] for run in members]
        _lines(rates, steps, curves, colour, label)
        accuracy = [np.convolve(run["training"]["accuracy"], np.ones(20) / 20, mode="valid") for run in members]
        _lines(right, range(20, 20 + len(accuracy[0])), accuracy, colour, label)
        if kind in ("controller", "undamped"):
            for seed, run in runs[setting].items():
                places = [probe["threshold"] for probe in run["probes"]]
                style, name = ("--", "selection seed") if seed == SELECTION_SEED else ("-", f"seed {seed}")
                gate.step(steps, places, style, where="post", color=colour, alpha=0.3 + 0.2 * (seed % 4),
                          label=f"{setting}, {name}")  # fmt: skip
    _, target, dead_band = CONTROLLERS["quick"]
    rates.axhspan(target - dead_band, target + dead_band, color="grey", alpha=0.2, label="target and dead band")
    rates.set(ylabel="share of responses", ylim=(-0.02, 1.02), title="Hallucination rate of the probes")
    right.set(ylabel="share of sampled answers", ylim=(-0.02, 1.02), title="Right answers in training (20 steps)")
    gate.set(ylabel="score", title="Place of the gate")
    for axes in (rates, right, gate):
        axes.set_xlabel("optimizer step")
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def _lines(axes, steps, curves, colour: str, label: str) -> None:
    for curve in curves:
        axes.plot(steps, curve, color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(steps, np.mean(curves, axis=0), color=colour, linewidth=2, label=label)


def main():
    summary = summarise(RESULTS)
    (RESULTS / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "tables.md").write_text(tables(summary), encoding="utf-8")
    for reward, runs in load(RESULTS).items():
        if runs:
            draw(RESULTS / f"{reward}.png", reward, runs)
    print(tables(summary))


if __name__ == "__main__":
    main()
