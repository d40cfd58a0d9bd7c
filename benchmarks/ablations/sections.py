# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Tables and claims of each ablation from the result files of the comparisons, over the seeds that all its settings have.

The paper's figures stand here, each under the label "paper"; nothing is computed from them. Rendering is `page.py`.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.ablations.claims import Claim, Estimate, corrected, paired, percent
from benchmarks.activation import summary as activation_summary
from benchmarks.hallucination import reward_hacking, reward_hacking_report
from benchmarks.mpo import summary as mpo_summary
from benchmarks.rewards import factual_consistency
from benchmarks.ssb import summary as ssb_summary


BENCHMARKS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Results:
    """Folders of the comparisons' result files."""

    ssb: Path
    mpo: Path
    activation: Path
    activation_clean: Path
    reward_hacking: Path
    factual_consistency: Path
    transfer: Path

    @classmethod
    def kept(cls) -> "Results":
        return cls(
            ssb=BENCHMARKS / "ssb/results/digits",
            mpo=BENCHMARKS / "mpo/results/compare",
            activation=BENCHMARKS / "activation/results",
            activation_clean=BENCHMARKS / "activation/results_clean",
            reward_hacking=BENCHMARKS / "hallucination/results/reward_hacking",
            factual_consistency=BENCHMARKS / "rewards/results/factual_consistency",
            transfer=BENCHMARKS / "transfer/results",
        )

    @classmethod
    def under(cls, folder: Path) -> "Results":
        names = ("ssb/digits", "mpo", "activation", "activation_clean", "reward_hacking", "factual_consistency")
        names += ("transfer",)
        return cls(*(folder / name for name in names))


@dataclass
class Section:
    """
    One ablation.

    Args:
        key (`str`): Name of its plot and of its entry in `summary.json`.
        title (`str`): What is compared, and where the paper does it.
        note (`str`): What a reader of the table has to know.
        columns (`list` of `str`): Heads of the table, that of the settings first.
        rows (`dict`): Cells of each setting: an estimate, or text.
        claims (`list` of [`Claim`]): Comparisons with the paper.
        seeds (`list` of `int`): Seeds that all settings have; none: not run.
        num_runs (`int`): Runs behind the table.
        cpu_seconds (`float`): Their training time.
        source (`str`): What commit and command they are of.
        draw (`Callable`): Writes the plot to a path.
    """

    key: str
    title: str
    note: str
    columns: list[str] = field(default_factory=list)
    rows: dict[str, list[Estimate | str]] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    num_runs: int = 0
    cpu_seconds: float = 0.0
    source: str = ""
    draw: Callable[[Path], None] | None = None


def complete(runs: Iterable[dict], name: str, settings: Iterable) -> dict[object, list[dict]]:
    """Runs by the value of their field `name`, for `settings`, in the order of the seeds that all of them have."""
    by_setting: dict = {setting: {} for setting in settings}
    for run in runs:
        if run[name] in by_setting:
            by_setting[run[name]][run["seed"]] = run
    seeds = sorted(set.intersection(*(set(of_setting) for of_setting in by_setting.values())))
    return {setting: [of_setting[seed] for seed in seeds] for setting, of_setting in by_setting.items()}


def read(folder: Path, pattern: str = "*.json") -> list[dict]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(pattern))]


def finish(
    section: Section,
    runs: dict[object, list[dict]],
    cpu_seconds: Callable[[dict], float],
    seeds: list[int] | None = None,
) -> Section:
    every = [run for of_setting in runs.values() for run in of_setting]
    section.seeds = seeds or [run["seed"] for run in next(iter(runs.values()))]
    section.num_runs, section.cpu_seconds = len(every), sum(map(cpu_seconds, every))
    section.source = source(every)
    return section


def source(runs: list[dict]) -> str:
    """What commits and commands the result files name, in a sentence; of commands of one script the first."""
    sources = {(run.get("environment", {}).get("commit"), run.get("environment", {}).get("command")) for run in runs}
    known: dict[tuple[str, str], list[str]] = {}
    for commit, command in sorted(pair for pair in sources if all(pair)):
        known.setdefault((commit, command.partition(" --")[0]), []).append(command)
    parts = []
    for (commit, _), commands in known.items():
        others = f" and {len(commands) - 1} more with other options" * (len(commands) > 1)
        parts.append(f"`{commands[0]}`{others} at commit {commit}")
    lines = [f"Made by {', '.join(parts)}."] if parts else []
    if not all(map(all, sources)):
        lines.append(f"Commit and command not recorded{' of the others' if known else ''}.")
    return " ".join(lines)


SSB_LABELS = {
    "stock": "stock GRPO",
    "paper": "SSB, `paper`",
    "fresh": "SSB, `fresh`",
    "share": "SSB, `share`",
    "resample": "no buffer, `resample`",
}


def sample_buffer(folder: Path) -> Section:
    section = Section(
        "sample_buffer",
        "Selective Sample Buffer (Table 2)",
        "GRPO from the base, 150 steps; greedy accuracy on held-out rows, and the effective share of the rows of the "
        "last quarter: of those that were generated, and of those that were trained on. `paper` and `fresh` are the "
        "buffer as R1V2 uses it; `share` and `resample` are ours.",
    )
    runs = complete(read(folder, "*-*.json"), "setting", SSB_LABELS)
    if not runs["stock"]:
        return section
    final = {s: percent([run["points"][-1]["accuracy"] for run in members]) for s, members in runs.items()}
    mean = {s: percent([ssb_summary.mean_accuracy(run["points"]) for run in members]) for s, members in runs.items()}

    def effective(setting: str, name: str) -> Estimate:
        quarters = [run["steps"][-len(run["steps"]) // 4 :] for run in runs[setting]]
        return percent([float(np.mean([step[f"ssb/{name}"] for step in quarter])) for quarter in quarters])

    def tokens(setting: str) -> Estimate:
        return Estimate(tuple(run["points"][-1]["generated_tokens"] for run in runs[setting]), 0, 1e-3)

    section.columns = ["setting", "final accuracy, %", "mean over the steps, %", "effective, generated, %"]
    section.columns += ["effective, trained on, %", "generated tokens, thousands", "paper: effective late in training"]
    for setting, label in SSB_LABELS.items():
        shares = ["–", "–"]
        if setting != "stock":
            shares = [effective(setting, name) for name in ("effective_before", "effective_after")]
        paper = {"stock": "under 40 %", "paper": "above 60 %"}.get(setting, "–")
        section.rows[label] = [final[setting], mean[setting], *shares, tokens(setting), paper]
    ahead = "Table 2: the buffer is ahead on all four benchmarks, by at most 0.2 points"
    behind = "stock ahead; so small a lead cannot be shown with five seeds"
    for name, figure in (("final accuracy", final), ("mean accuracy", mean)):
        for setting in ("paper", "fresh"):
            difference = paired(figure[setting], figure["stock"], digits=2)
            what = f"`{setting}` less stock, {name}, points"
            section.claims.append(Claim(f"the {name} of `{setting}`", what, ahead, 1, difference, behind))
    section.claims.append(
        Claim(
            "the effective share",
            "`paper`: effective share of the rows trained on less that of those generated, points",
            "Table 2: the effective share rises from under 40 % to above 60 %",
            1,
            paired(effective("paper", "effective_after"), effective("paper", "effective_before")),
            "nothing but an empty buffer: rows without effect are replaced by rows with effect",
            by_construction=True,
        )
    )
    section.draw = lambda path: ssb_summary.plot(runs, path)
    return finish(section, runs, lambda run: run["points"][-1]["train_cpu_seconds"])


# R1V2, Table 3: hallucination rate in percent.
PAPER_HALLUCINATION = {"sft": "18.4", "dpo": "12.6", "mpo": "8.7", "mpo_grpo": "9.1"}


def methods(folder: Path) -> Section:
    labels = mpo_summary.LABELS
    section = Section(
        "methods",
        "SFT, DPO, MPO, MPO + GRPO (Table 3)",
        "One draw of pairs a seed, 40 steps; `MPO + GRPO` continues MPO's model by 60 steps of GRPO with the buffer, "
        "`GRPO` takes the same 60 from the base. The paper's rates are of another, unpublished measure: only their "
        "order compares. Of the base there is one run.",
    )
    files = read(folder / "methods")
    base = [run for run in files if run["setting"] == "base"]
    runs = complete(files, "setting", [name for name in labels if name != "base"])
    if not runs["mpo"] or not base:
        return section
    figures = {"base": base, **runs}
    shown = [label for label in mpo_summary.FIGURES if label != "format rate, sampled"]
    values = {
        name: {
            label: percent([run["figures"][mode][figure] for run in members])
            for label, (mode, figure) in mpo_summary.FIGURES.items()
        }
        for name, members in figures.items()
    }
    section.columns = ["method", *(f"{label}, %" for label in shown), "paper: hallucination rate, %"]
    for name in figures:
        cells = [values[name][label] for label in shown]
        section.rows[labels[name]] = [*cells, PAPER_HALLUCINATION.get(name, "–")]

    def claim(first: str, second: str, figure: str, sign: int, paper: str) -> Claim:
        """Of two methods; their order turned round refutes it."""
        short = {**labels, "sft": "SFT"}
        name = f"{short[first]} against {short[second]} in {figure.partition(' rate')[0]}"
        what = f"{short[first]} less {short[second]}, {figure}, points"
        better = {1: short[second], -1: f"fewer hallucinations of {short[second]}"}.get(sign)
        refuted = f"{better} ahead" if sign == 1 else better
        return Claim(name, what, paper, sign, paired(values[first][figure], values[second][figure]), refuted or "–")

    hallucination = "hallucination rate, sampled"
    section.claims = [
        claim("mpo", "sft", "Pass@1", 1, "Table 3: MPO ahead of SFT"),
        claim("mpo", "dpo", "Pass@1", 1, "Table 3: MPO ahead of DPO"),
        claim("mpo_grpo", "mpo", "Pass@1", 1, "Table 3: MPO + GRPO ahead of all"),
        claim("mpo_grpo", "dpo", "Pass@1", 1, "Table 3: MPO + GRPO ahead of all"),
        claim("mpo_grpo", "grpo", "Pass@1", 0, "–"),
        claim("mpo", "sft", hallucination, -1, "Table 3: hallucination rate 8.7 against 18.4 %"),
        claim("mpo", "dpo", hallucination, -1, "Table 3: hallucination rate 8.7 against 12.6 %"),
        claim("mpo", "mpo_grpo", hallucination, -1, "Table 3: hallucination rate 8.7 against 9.1 %"),
        claim("mpo_grpo", "grpo", hallucination, 0, "–"),
    ]
    section.draw = lambda path: _draw_methods(path, mpo_summary.summarise_methods([*base, *sum(runs.values(), [])]))
    return finish(section, runs, lambda run: run["train_cpu_seconds"])


def _draw_methods(path: Path, summary: dict) -> None:
    figure, axes = mpo_summary.plt.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained")
    mpo_summary.draw_methods(axes, summary["settings"])
    mpo_summary.save(figure, path)


GROUNDS = {
    "activation": (
        "Which components train, a language model that guesses (Table 4)",
        "GRPO from the base, 60 steps. The base guesses by a habit of its language model, which an adapter would have "
        "to undo: not the situation of R1V2, whose language model reasons already.",
    ),
    "activation_clean": (
        "Which components train, a weak adapter (Table 4)",
        "Closer to the situation of R1V2: tower and language model work, and the adapter between them is aligned for "
        "100 steps only, on demonstrations that never guess. GRPO for 30 steps.",
    ),
}


def activation(folder: Path, ground: str = "activation") -> Section:
    presets = activation_summary.PRESETS
    title, note = GROUNDS[ground]
    searched = (
        "The learning rate of each choice is searched on the validation split with a seed of its own; figures are "
    )
    section = Section(ground, title, f"{note} {searched}of the test split.")
    runs = complete(sum(activation_summary.load_chosen(folder).values(), []), "preset", presets)
    if not runs["adapter"]:
        return section
    section.columns = ["trained", "parameters", "learning rate", "greedy accuracy, %", "with images, %", "sampled, %"]
    section.columns += ["hallucination rate, sampled, %", "paper: MMMU / MathVista / OlympiadBench"]
    base = json.loads((folder / "base.json").read_text(encoding="utf-8"))
    figures = (("greedy", "accuracy/all"), ("greedy", "accuracy/images"))
    figures += (("sampled", "accuracy/all"), ("sampled", "hallucination"))
    section.rows["nothing (base)"] = ["0", "–", *(percent([base[mode][name]]) for mode, name in figures), "–"]
    for preset, members in runs.items():
        cells = [percent([run[mode][name] for run in members]) for mode, name in figures]
        paper = " / ".join(f"{value:.1f}" for value in presets[preset])
        counts = [f"{members[0]['trained_parameters']:,}", f"{members[0]['learning_rate']:g}"]
        section.rows[f"`{preset}`"] = [*counts, *cells, paper]
    for other, points in (("llm+adapter", "1.5, 2.0 and 1.8"), ("adapter+vision", "1.3, 2.2 and 2.4")):
        for mode, name in (("greedy", "greedy accuracy"), ("sampled", "sampled accuracy")):
            values = [percent([run[mode]["accuracy/all"] for run in runs[preset]]) for preset in ("adapter", other)]
            weak = " from a weak adapter" * (ground != "activation")
            what = f"`adapter` less `{other}`{weak}, {name}, points"
            paper = f"Table 4: the adapter alone is ahead by {points} points"
            name = f"`adapter` against `{other}` in {name}"
            section.claims.append(Claim(name, what, paper, 1, paired(*values), f"`{other}` ahead"))
    section.draw = lambda path: activation_summary.plot(runs, base, path)
    return finish(section, runs, lambda run: run["train_cpu_seconds"])


# R1V2, section 4.4, MathVista and MMMU; from the lowest threshold to the highest.
PAPER_THRESHOLDS = (
    "7: worse (70.4 / 67.8)",
    "10: peak at iteration 750, then MMMU 73.6 → 68.9 at 2420",
    "15: stable (73.3 / 72.6 at iteration 420)",
)


def thresholds(folder: Path) -> Section:
    section = Section(
        "thresholds",
        "Reward threshold against iterations (section 4.4)",
        "Iterated MPO under a reward with known faults, from the base: sample, score, choose above the threshold, "
        "train for 30 steps, and again. Pass@1 is judged by the rule. The paper's thresholds are scores of its own "
        "reward model; only their order compares.",
    )
    files = read(folder / "thresholds")
    runs = complete(files, "threshold", sorted({run["threshold"] for run in files})) if files else {}
    if len(runs) != len(PAPER_THRESHOLDS) or not next(iter(runs.values())):
        return section
    rounds = len(next(iter(runs.values()))[0]["points"]) - 1
    accuracy = {
        t: [percent([run["points"][k]["sampled"]["accuracy"] for run in of_t]) for k in range(rounds + 1)]
        for t, of_t in runs.items()
    }
    section.columns = ["threshold", *(f"Pass@1 after round {k}, %" for k in range(1, rounds + 1))]
    section.columns += ["hallucination rate at the end, %", "right among the chosen, first → last round, %"]
    section.columns += ["paper: MathVista / MMMU by threshold"]
    for (t, of_t), paper in zip(runs.items(), PAPER_THRESHOLDS, strict=True):
        hallucination = percent([run["points"][-1]["sampled"]["hallucination_rate"] for run in of_t])
        right = [percent([run["points"][k]["pairs"]["chosen_right"] for run in of_t]) for k in (1, rounds)]
        arrow = " → ".join(estimate.text() for estimate in right)
        section.rows[f"{t:g}"] = [*accuracy[t][1:], hallucination, arrow, paper]
    low, middle, high = runs
    section.claims = [
        Claim("the highest against the lowest after one round", f"{high:g} less {low:g}, Pass@1 after round 1, points",
              "section 4.4: the highest threshold is ahead of the lowest", 1,
              paired(accuracy[high][1], accuracy[low][1]), "the lowest ahead"),
        Claim("the highest against the lowest at the end",
              f"{high:g} less {low:g}, Pass@1 after round {rounds}, points",
              "section 4.4: the highest threshold is ahead of the lowest", 1,
              paired(accuracy[high][-1], accuracy[low][-1]), "the lowest ahead"),
        Claim("the highest against the middle one at the end",
              f"{high:g} less {middle:g}, Pass@1 after round {rounds}, points",
              "section 4.4: the highest threshold is ahead of the middle one at the end", 1,
              paired(accuracy[high][-1], accuracy[middle][-1]), "the middle one ahead"),
        Claim("a fall of the middle one", f"{middle:g}: round {rounds} less round {rounds - 1}, Pass@1, points",
              "section 4.4: the middle threshold falls from its peak", -1,
              paired(accuracy[middle][-1], accuracy[middle][-2]), "a further rise; the paper's fall takes 1,670 more "
              "iterations than these 30 steps"),
    ]  # fmt: skip
    section.draw = lambda path: _draw_thresholds(path, mpo_summary.summarise_thresholds(sum(runs.values(), [])))
    return finish(section, runs, lambda run: run["cpu_seconds"])


def _draw_thresholds(path: Path, summary: dict) -> None:
    figure, axes = mpo_summary.plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
    for axis, label in zip(axes, ("Pass@1", "hallucination rate, sampled"), strict=True):
        mpo_summary.draw_thresholds(axis, summary, label)
    mpo_summary.save(figure, path)


def hacking(folder: Path) -> Section:
    section = Section(
        "reward_hacking",
        "Reward hacking, with and without the controlled threshold (section 4.4)",
        "GRPO under a sum of rule, format and a reward model that likes made-up readings; 60 steps. `watched` pays it "
        "always, in `controlled` the threshold controller moves its gate, and the reward falls because it shuts. "
        "Reward and right answers: means of the first and the last 10 steps. The paper gives no figures for this; its "
        "claim is that low thresholds invite hacking and that calibrated ones hold hallucination down.",
    )
    runs = reward_hacking_report.load(folder, reward_hacking.SETTINGS)
    if not runs["watched"]:
        return section
    at_end = reward_hacking_report.LAST_PROBES

    def steps(setting: str, name: str, part: slice, scale: float, digits: int) -> Estimate:
        means = [float(np.mean([step[name] for step in run["training"][part]])) for run in runs[setting]]
        return Estimate(tuple(means), digits, scale)

    rates = {s: [[probe["rate"] for probe in run["probes"]] for run in members] for s, members in runs.items()}
    figures = {}
    for setting in runs:
        first, last = slice(None, 10), slice(-10, None)
        paid = [steps(setting, "reward", part, 1, 2) for part in (first, last)]
        right = [steps(setting, "hybrid/accuracy/mean", part, 100, 1) for part in (first, last)]
        start, end = (
            percent([r[0] for r in rates[setting]]),
            percent([float(np.mean(r[-at_end:])) for r in rates[setting]]),
        )
        figures[setting] = [*paid, *right, start, end, percent([max(r) for r in rates[setting]])]
        section.rows[f"`{setting}`"] = figures[setting]
    section.columns = ["setting", "reward, start", "reward, end", "right answers, start, %", "right answers, end, %"]
    section.columns += ["hallucination rate, start, %", f"end (last {at_end} probes), %", "largest, %"]
    watched, controlled = figures["watched"], figures["controlled"]
    hacked = "section 4.4: low thresholds invite hacking"
    held = "section 4.4: calibrated thresholds mitigate it"
    planted = "nothing but a failure to train: the flaw is planted, and pays for made-up readings"
    section.claims = [
        Claim("a rising reward", "`watched`: reward, end less start", hacked, 1, paired(watched[1], watched[0]),
              planted, by_construction=True),
        Claim("falling quality", "`watched`: right answers, end less start, points", hacked, -1,
              paired(watched[3], watched[2]), planted, by_construction=True),
        Claim("growing hallucination", "`watched`: hallucination rate, end less start, points",
              "strong reinforcement raises hallucination", 1, paired(watched[5], watched[4]), planted,
              by_construction=True),
        Claim("hallucination under the controller", "`controlled` less `watched`, hallucination rate, end, points",
              held, -1, paired(controlled[5], watched[5]), "more hallucinations with the controller"),
        Claim("quality under the controller", "`controlled` less `watched`, right answers, end, points", held, 1,
              paired(controlled[3], watched[3]), "fewer right answers with the controller"),
    ]  # fmt: skip
    section.draw = lambda path: reward_hacking_report.draw(path, runs, reward_hacking.TARGET, reward_hacking.BOUND)
    return finish(section, runs, lambda run: run["cpu_seconds"])


def consistency(folder: Path) -> Section:
    section = Section(
        "factual_consistency",
        "A rule of factual consistency with the image",
        "GRPO from the base, 60 steps, by accuracy and format, with and without the rule beside them. R1V2 names such "
        "a rule among its own without describing it or giving figures: this one is [ours]"
        "(rewards.md#consistent-with-what-is-shown). Its statements are the digits that a response says it reads. "
        "Test split, 1,000 rows; hallucinations are counted by the demonstrations' phrases, the rule reads by itself.",
    )
    runs = complete(read(folder, "*-*.json"), "setting", factual_consistency.SETTINGS)
    if not runs["with"]:
        return section
    figures = {"accuracy": "accuracy/all", "hallucination rate": "hallucination"}
    shown = {f"{label}, {mode}": (mode, name) for mode in ("greedy", "sampled") for label, name in figures.items()}
    values = {
        setting: {label: percent([run[mode][name] for run in members]) for label, (mode, name) in shown.items()}
        for setting, members in runs.items()
    }
    section.columns = ["rule", *(f"{label}, %" for label in shown)]
    section.rows = {f"`{setting}`": list(of_setting.values()) for setting, of_setting in values.items()}
    claimed = "R1V2 names the rule; that it lowers hallucination is our reading"
    for label in shown:
        difference = paired(values["with"][label], values["without"][label])
        is_claimed = label.startswith("hallucination")
        section.claims.append(
            Claim(f"the {label}", f"with the rule less without, {label}, points", claimed if is_claimed else "–",
                  -1 if is_claimed else 0, difference, "more hallucinations with the rule")
        )  # fmt: skip
    section.draw = lambda path: _draw_consistency(path, values)
    return finish(section, runs, lambda run: run["train_cpu_seconds"])


def _draw_consistency(path: Path, values: dict[str, dict[str, Estimate]]) -> None:
    figure, axis = mpo_summary.plt.subplots(figsize=(7, 3.6), layout="constrained")
    for offset, (setting, of_setting) in zip((-0.15, 0.15), values.items(), strict=True):
        places = [place + offset for place in range(len(of_setting))]
        means, halves = zip(*((value.mean, value.half_width or 0.0) for value in of_setting.values()), strict=True)
        axis.errorbar(places, means, halves, fmt="o", capsize=5, label=f"{setting} the rule")
    axis.set_xticks(range(len(of_setting)), [label.replace(", ", "\n") for label in of_setting])
    axis.set(ylabel="%", ylim=(0, 100))
    axis.legend(frameon=False)
    mpo_summary.save(figure, path)


def transfer(folder: Path) -> Section:
    """From the summary of `benchmarks.transfer`, which has the same comparisons."""
    section = Section(
        "transfer",
        "Transfer between text and images",
        "GRPO from the base on rows of one kind, 60 steps, measured on both: [transfer](transfer.md). `noise` is paid "
        "by a coin. The base guesses on rows of both kinds, so that some transfer was to be expected.",
    )
    path = folder / "summary.json"
    if not path.is_file():
        return section
    found, runs = json.loads(path.read_text(encoding="utf-8")), read(folder, "*-*.json")
    shown = {f"{figure.replace('_', ' ')} on {kind}, sampled, %": (f"sampled/{kind}", figure)
             for kind in ("text", "images") for figure in ("accuracy", "hallucination_rate")}  # fmt: skip
    section.columns = ["trained on", *shown]
    for setting, figures in found["settings"].items():
        values = [figures[part][name]["values"] for part, name in shown.values()]
        section.rows[f"`{setting}`"] = [Estimate(tuple(of_figure)) for of_figure in values]
    for what, claim in found["comparisons"].items():
        kinds = ("text", "images") if what.startswith("`text`") else ("images", "text")
        paper = "what is learnt on {} carries over to {}".format(*kinds)
        name = what.removesuffix(", points").replace(", ", " ")
        difference = Estimate(tuple(claim["difference"]["values"]))
        section.claims.append(Claim(name, what, paper, claim["sign"], difference, claim["refuted"]))
    return finish(section, {"all": runs}, lambda run: run["cpu_seconds"], found["seeds"])


def sections(results: Results) -> list[Section]:
    """All of them, their verdicts corrected for the number of comparisons."""
    found = [
        sample_buffer(results.ssb),
        methods(results.mpo),
        activation(results.activation),
        activation(results.activation_clean, "activation_clean"),
        thresholds(results.mpo),
        hacking(results.reward_hacking),
        consistency(results.factual_consistency),
        transfer(results.transfer),
    ]
    claims = iter(corrected([claim for section in found for claim in section.claims]))
    for section in found:
        section.claims = [next(claims) for _ in section.claims]
    return found
