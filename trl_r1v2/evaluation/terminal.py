# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The figures of an evaluation on the terminal. Does not cover the figures themselves (`records.py`)."""

from pathlib import Path


def print_metrics(metrics: dict, folder: Path) -> None:
    """Print what `metrics.json` holds, one line a task, without cutting a figure where the terminal is narrow."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{metrics['label']}: {metrics['num_rows']} rows of {metrics['settings']['dataset_split']}")
    # the only column that may break
    table.add_column("task", overflow="fold")
    for heading in ("rows", "greedy", "Pass@1", "(95 %)", "format", "halluc.", "tokens"):
        table.add_column(heading, justify="right", no_wrap=True)
    for task, modes in metrics["tasks"].items():
        main_mode = modes.get("sampled", modes["greedy"])
        cells = [_percent(modes["greedy"]["accuracy"]), _percent(modes.get("sampled", {}).get("accuracy"))]
        accuracy = main_mode["accuracy"]
        cells.append(f"{100 * accuracy['low']:.1f}–{100 * accuracy['high']:.1f}" if accuracy else "")
        cells += [_percent(main_mode["format_rate"]), _percent(main_mode["hallucination_rate"])]
        table.add_row(task, str(main_mode["num_rows"]), *cells, f"{main_mode['mean_tokens']:.0f}")
    console = Console()
    console.print(table)
    sampled = metrics["tasks"]["all"].get("sampled", {})
    if "majority" in sampled:
        chances = ", ".join(f"pass@{k} {_percent(estimate)}" for k, estimate in sampled["pass_at_k"].items())
        console.print(f"All tasks: majority {_percent(sampled['majority'])}, {chances}.", highlight=False)
    num_unjudged = sum(mode["num_unjudged"] for mode in metrics["tasks"]["all"].values())
    if num_unjudged:
        console.print(f"{num_unjudged} responses could not be judged; rows without any judged response are left out.")
    console.print(f"Metrics and records are in {folder}.")


def _percent(estimate: dict | None) -> str:
    return f"{100 * estimate['value']:.1f} %" if estimate else "–"
