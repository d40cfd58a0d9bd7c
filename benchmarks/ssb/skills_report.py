# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Best learning rates, paired differences with Holm's correction, table and plot of the runs of `skills.py`."""

import json
from pathlib import Path

import matplotlib
import numpy as np
from scipy import stats

from benchmarks.results import write_result
from benchmarks.ssb.summary import interval


matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


BASELINES = ("stock", "half", "twice", "dynamic")
# Drawn where two seeds were run: as many curves as one can tell apart.
DRAWN = (*BASELINES, "dead", "half, dead, combined", *(f"share {share}, combined" for share in (0.25, 0.5, 0.75)))
DRAWN += ("append 0.5",)
COSTS = ("generated_tokens", "train_cpu_seconds")
PASSES = ("pass@1", "pass@32")
LAST = 3  # evaluations at the end of a run whose mean is its final accuracy


def load(folder: Path) -> dict[str, list[dict]]:
    """Runs by setting, those without replay first, in the order of their seeds."""
    runs: dict[str, list[dict]] = {}
    for path in sorted(folder.glob("*.json")):
        run = json.loads(path.read_text())
        runs.setdefault(run["setting"], []).append(run)
    names = [*(name for name in BASELINES if name in runs), *(name for name in runs if name not in BASELINES)]
    return {name: sorted(runs[name], key=lambda run: run["seed"]) for name in names}


def final_accuracy(run: dict) -> float:
    return float(np.mean([point["accuracy"] for point in run["points"][-LAST:]]))


def best_rates(results: Path) -> dict[str, float]:
    """Of each setting the learning rate with the highest final accuracy on validation rows."""
    return {s: max(runs, key=final_accuracy)["learning_rate"] for s, runs in load(results / "validation").items()}


def cost_to_reach(run: dict, accuracy: float, cost: str) -> float:
    """What a run has spent when the mean of three evaluations first reaches `accuracy`; infinite if it never does."""
    values, spent = ([point[name] for point in run["points"]] for name in ("accuracy", cost))
    smooth = np.convolve(values, np.ones(LAST) / LAST, "valid")  # place i is the mean of i to i + 2
    reached = np.flatnonzero(smooth >= accuracy - 1e-9)
    if len(reached) == 0:
        return float("inf")
    if reached[0] == 0:
        return float(spent[LAST - 1])
    first = reached[0]
    share = (accuracy - smooth[first - 1]) / (smooth[first] - smooth[first - 1])
    return float(spent[first + 1] + share * (spent[first + 2] - spent[first + 1]))


def spent_until(run: dict, accuracy: float, cost: str) -> float:
    """The same for a run that is compared with: if it never gets there, all that it spent, which is too little."""
    return min(cost_to_reach(run, accuracy, cost), run["points"][-1][cost])


def holm(p_values: list[float]) -> list[float]:
    """Holm's (1979) adjusted p-values."""
    order, adjusted, largest = np.argsort(p_values), [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def estimate(values: list[float]) -> dict:
    mean, half_width = interval(values)
    return {"mean": mean, "half_width_95": half_width, "values": values}


def accuracy_at(run: dict, cost: str, amount: float) -> float:
    """Mean of three evaluations when a run has spent `amount`, or at its end if that is less."""
    values, spent = ([point[name] for point in run["points"]] for name in ("accuracy", cost))
    return float(np.interp(amount, spent[LAST - 1 :], np.convolve(values, np.ones(LAST) / LAST, "valid")))


def ratio_estimate(mine: list[float], theirs: list[float]) -> dict:
    """Costs as a part of others', paired; an interval only if all of `mine` got there. `p` is of the logarithms."""
    values = [a / b if np.isfinite(a) else None for a, b in zip(mine, theirs, strict=True)]
    reached = [value for value in values if value is not None]
    result = {"values": values, "num_reached": len(reached), "num_pairs": len(values)}
    if len(reached) == len(values):
        result |= estimate(values)
        if len(values) > 1 and not np.allclose(values, 1.0):
            result["p"] = float(stats.ttest_1samp(np.log(values), 0.0).pvalue)
    return result


def difference(members: list[dict], others: dict[int, dict]) -> dict:
    """What runs end above those of another setting, paired by seed."""
    values = [final_accuracy(run) - final_accuracy(others[run["seed"]]) for run in members]
    found = estimate(values)
    if any(values):
        found["p"] = float(stats.ttest_1samp(values, 0.0).pvalue)
    return found


def summarise_setting(members: list[dict], others: dict[str, dict[int, dict]]) -> dict:
    stock = others["stock"]
    bases = [stock[run["seed"]] for run in members]
    first = members[0]
    entry = {"setting": first["setting"], "learning_rate": first["learning_rate"], "num_seeds": len(members)}
    entry["num_steps"] = first["num_steps"]
    entry["final_accuracy"] = estimate([final_accuracy(run) for run in members])
    seeds = {run["seed"] for run in members}
    for name, other in (("minus_stock", "stock"), ("minus_dead", "dead")):
        if seeds <= others[other].keys():
            entry[name] = difference(members, others[other])
    for name, key in zip(("pass_1", "pass_32"), PASSES, strict=True):
        entry[name] = estimate([run["passes"][key] for run in members if "passes" in run])
    for cost in COSTS:
        entry[cost] = estimate([run["points"][-1][cost] for run in members])
        halves = [base["points"][-1][cost] / 2 for base in bases]
        at_half = [accuracy_at(run, cost, amount) for run, amount in zip(members, halves, strict=True)]
        entry[f"accuracy_at_half_of_stocks_{cost}"] = estimate(at_half)
        # To stock's own final accuracy with the same seed.
        targets = [final_accuracy(base) for base in bases]
        mine = [cost_to_reach(run, target, cost) for run, target in zip(members, targets, strict=True)]
        for other in ("stock", "half"):
            if seeds <= others[other].keys():
                rivals = [others[other][run["seed"]] for run in members]
                theirs = [spent_until(run, target, cost) for run, target in zip(rivals, targets, strict=True)]
                entry[f"{cost}_to_{other}"] = ratio_estimate(mine, theirs)
    for name in ("effective_before", "effective_after", "replayed_negative", "replayed_advantage", "ratio_max"):
        if first["steps"][name]:
            entry[name] = float(np.mean([np.mean(run["steps"][name]) for run in members]))
    return entry


def summarise(results: Path) -> dict:
    """Settings that were run with two seeds or more."""
    runs = load(results / "test")
    others = {name: {run["seed"]: run for run in runs.get(name, [])} for name in ("stock", "half", "dead")}
    stock, settings = others["stock"], {}
    for setting, members in runs.items():
        members = [run for run in members if run["seed"] in stock]
        if len(members) > 1:
            settings[setting] = summarise_setting(members, others)
    # Each question is asked of every setting: Holm's correction over the settings.
    for question in (
        "minus_stock",
        "minus_dead",
        *(f"{cost}_to_{other}" for cost in COSTS for other in ("stock", "half")),
    ):
        asked = [entry[question] for entry in settings.values() if "p" in entry.get(question, {})]
        for answer, adjusted in zip(asked, holm([answer["p"] for answer in asked]), strict=True):
            answer["p_holm"] = adjusted
    base = json.loads((results / "base.json").read_text())
    summary = {"settings": settings, "base": base}
    if (results / "filter.json").exists():
        summary["pool"] = summarise_pool(results, stock)
    return summary


def summarise_pool(results: Path, stock: dict[int, dict]) -> dict:
    """Tokens to a quarter and to half of what stock gains, without and with those of the filter."""
    filtered = json.loads((results / "filter.json").read_text())
    settings = {}
    for setting, members in load(results / "pool").items():
        members = [run for run in members if run["seed"] in stock]
        if len(members) < 2:
            continue
        entry = {"setting": setting, "num_seeds": len(members), "learning_rate": members[0]["learning_rate"]}
        for name, part in (("quarter", 0.25), ("half", 0.5)):
            pairs = []
            for run in members:
                base = stock[run["seed"]]
                start = np.mean([other["points"][0]["accuracy"] for other in stock.values()])
                target = start + part * (final_accuracy(base) - start)
                cost = "generated_tokens"
                pairs.append([cost_to_reach(run, target, cost), spent_until(base, target, cost)])
            mine, theirs = ([pair[place] for pair in pairs] for place in (0, 1))
            entry[f"tokens_to_{name}"] = ratio_estimate(mine, theirs)
            with_filter = [value + filtered["generated_tokens"] for value in mine]
            entry[f"tokens_to_{name}_with_filter"] = ratio_estimate(with_filter, theirs)
        for name in ("effective_before", "effective_after"):
            if members[0]["steps"][name]:
                entry[name] = float(np.mean([np.mean(run["steps"][name]) for run in members]))
        settings[setting] = entry
    return {"settings": settings, "filter": filtered}


def show(figure: dict, scale: float = 1.0, digits: int = 1, sign: str = "") -> str:
    return f"{figure['mean'] * scale:{sign}.{digits}f} ± {figure['half_width_95'] * scale:.{digits}f}"


def show_ratio(figure: dict | None) -> str:
    if figure is None:
        return "–"
    if "mean" not in figure:
        return f"{figure['num_reached']} of {figure['num_pairs']}"
    p_value = f" (p {figure['p_holm']:.3f})" if "p_holm" in figure else ""
    return show(figure, digits=2) + p_value


def show_difference(figure: dict | None) -> str:
    if figure is None or "p_holm" not in figure:
        return "–"
    return f"{show(figure, 100, sign='+')} (p {figure['p_holm']:.3f})"


def search_table(runs: dict[str, list[dict]]) -> str:
    """Final accuracy on validation rows by setting and learning rate, the best of a setting in bold."""
    rates = sorted({run["learning_rate"] for members in runs.values() for run in members})
    lines = [f"| setting | {' | '.join(f'{rate:g}' for rate in rates)} |", "|" + "---|" * (len(rates) + 1)]
    for setting, members in runs.items():
        found = {run["learning_rate"]: final_accuracy(run) for run in members}
        best = max(found, key=found.get)
        cells = [f"{100 * found[rate]:.1f}" if rate in found else "–" for rate in rates]
        cells[rates.index(best)] = f"**{cells[rates.index(best)]}**"
        lines.append(f"| {' | '.join([setting, *cells])} |")
    return "\n".join(lines) + "\n"


def table(summary: dict) -> str:
    head = ["setting", "learning rate", "steps", "final accuracy, %", "minus stock's", "minus that of `dead`"]
    head += ["pass@1, %", "pass@32, %"]
    head += ["tokens, k", "CPU seconds", "accuracy at half of stock's tokens, %"]
    head += ["tokens to stock's final accuracy: of stock's", "of half-batch stock's", "CPU seconds to it: of stock's"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for setting, entry in summary["settings"].items():
        cells = [setting, f"{entry['learning_rate']:g}", str(entry["num_steps"]), show(entry["final_accuracy"], 100)]
        cells += [show_difference(entry.get(name)) for name in ("minus_stock", "minus_dead")]
        cells += [show(entry["pass_1"], 100), show(entry["pass_32"], 100)]
        cells += [show(entry["generated_tokens"], 1e-3, 0), show(entry["train_cpu_seconds"], digits=0)]
        cells += [show(entry["accuracy_at_half_of_stocks_generated_tokens"], 100)]
        names = ("generated_tokens_to_stock", "generated_tokens_to_half", "train_cpu_seconds_to_stock")
        cells += [show_ratio(entry.get(name)) for name in names]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def pool_table(summary: dict) -> str:
    head = ["setting", "effective rows, %", "tokens to a quarter of stock's gain: of stock's", "with the filter's"]
    head += ["to half of it", "with the filter's"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for setting, entry in summary["settings"].items():
        effective = f"{100 * entry['effective_before']:.0f}" if "effective_before" in entry else "–"
        names = [f"tokens_to_{part}{end}" for part in ("quarter", "half") for end in ("", "_with_filter")]
        lines.append(f"| {' | '.join([setting, effective, *(show_ratio(entry[name]) for name in names)])} |")
    return "\n".join(lines) + "\n"


def plot(runs: dict[str, list[dict]], path: Path) -> None:
    """Means over the seeds (two at least); the band, with three, is stock's 95 % interval."""
    figure, axes = plt.subplots(1, 2, figsize=(13, 5), sharey=True)
    for place, (setting, members) in enumerate(runs.items()):
        accuracy = np.array([[point["accuracy"] for point in run["points"]] for run in members]) * 100
        mean, is_replay = accuracy.mean(axis=0), setting not in BASELINES
        style = {"color": plt.get_cmap("tab10")(place), "ls": "-" if is_replay else "--"}
        for axis, cost, scale in ((axes[0], COSTS[0], 1e-3), (axes[1], COSTS[1], 1.0)):
            spent = np.mean([[point[cost] for point in run["points"]] for run in members], axis=0) * scale
            axis.plot(spent, mean, label=setting, lw=2.5 if setting == "stock" else 1.5, **style)
            if setting == "stock" and len(members) > 2:
                half_width = np.array([interval(column)[1] for column in accuracy.T])
                axis.fill_between(spent, mean - half_width, mean + half_width, color=style["color"], alpha=0.12)
    axes[0].set(xlabel="generated tokens (thousands)", ylabel="sampled accuracy on test rows (%)")
    axes[1].set(xlabel="CPU seconds of training")
    axes[1].legend(frameon=False, fontsize=9, loc="lower right")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def run_table(runs: dict[str, list[dict]]) -> list[dict]:
    """What every run came to, an entry each."""
    rows = []
    for run in (run for members in runs.values() for run in members):
        last = run["points"][-1]
        rows.append({"setting": f"{run['setting']}, {run['learning_rate']:g}", "num_steps": run["num_steps"]})
        rows[-1] |= {"seed": run["seed"]} | {key: run["passes"][key] for key in PASSES if "passes" in run}
        rows[-1] |= {"accuracy_before": run["points"][0]["accuracy"], "accuracy_after": final_accuracy(run)}
        rows[-1] |= {name: last[name] for name in ("generated_tokens", "train_cpu_seconds")}
        for name in ("replayed_negative", "replayed_advantage", "ratio_max"):
            if run["steps"][name]:
                rows[-1][name] = float(np.mean(run["steps"][name]))
    return rows


def report(results: Path) -> None:
    """
    Write `search.json` and `runs.json`, the runs on validation and test rows, and once two seeds are compared
    `summary.json`, `table.md` and `comparison.png`.
    """
    searched = load(results / "validation")
    write_result(results / "search.json", run_table(searched))
    runs = load(results / "test")
    write_result(results / "runs.json", run_table(runs))
    if len(runs.get("stock", [])) > 1:
        summary = summarise(results)
        write_result(results / "summary.json", summary)
        tables = table(summary) + ("\n" + pool_table(summary["pool"]) if "pool" in summary else "")
        (results / "table.md").write_text(f"{search_table(searched)}\n{tables}")
        plot({name: runs[name] for name in DRAWN if len(runs.get(name, [])) > 1}, results / "comparison.png")
        print(tables)
