# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
From the values of a recipe to a monitor on a trainer: the probe set and what the dotted paths name, loaded before a
model is, and the controller's connection to the run's HybridReward. Does not cover the measuring (`hallucination/`).
"""

import functools
from collections.abc import Callable, Sequence

from ..checks.rows import check_dataset
from ..hallucination.monitor_config import ControllerConfig, MonitorConfig
from ..hallucination.threshold import RewardThresholdController
from ..hallucination.threshold_files import read_threshold_file
from ..rewards.hybrid import HybridReward
from .loading import import_by_name, load_split
from .recipe import RecipeError, refusals_of


def load_monitor_parts(
    config: MonitorConfig, controller_config: ControllerConfig, reward_funcs: Sequence = ()
) -> dict | None:
    """Load what a recipe's monitor is made of, besides the trainer; `None` without a `monitor_dataset`."""
    if config.monitor_dataset is None:
        if controller_config.controller_target is not None:
            raise RecipeError("`controller_target` is set, but nothing measures: set `monitor_dataset`.")
        return None
    from ..hallucination.probe import Probe, ProbeFunctions

    source, split = config.monitor_dataset, config.monitor_split
    dataset = load_split(source, config.monitor_dataset_config, split, config.monitor_max_rows, entry="monitor_split")
    check_dataset(dataset, name=f"{source} [{split}]", columns=["prompt"], check_images="all", progress=False)
    names = ["claims", "named"] + ["rule", "reward"] * ("reward_disagreement" in config.signals)
    paths = {name: vars(config)[f"monitor_{name}_func"] for name in names}
    named = {name: path for name, path in paths.items() if path is not None}
    functions = ProbeFunctions(**{n: import_by_name(path, entry=f"monitor_{n}_func") for n, path in named.items()})
    with refusals_of():
        Probe(dataset, config, functions)
        controller = _build_controller(config, controller_config)
    component = controller_config.controller_component
    set_threshold = None if None in (controller, component) else _gate(component, reward_funcs)
    parts = {"dataset": dataset, "config": config, "functions": functions}
    return {**parts, "controller": controller, "set_threshold": set_threshold}


def add_monitor(trainer, parts: dict | None) -> None:
    """Add a recipe's monitor to a trainer."""
    if parts is None:
        return
    from trl import GRPOTrainer

    from ..hallucination.monitor import HallucinationMonitor

    template = {"chat_template_kwargs": trainer.chat_template_kwargs} if isinstance(trainer, GRPOTrainer) else {}
    monitor = HallucinationMonitor(trainer, **parts, **template)
    trainer.add_callback(monitor)
    trainer.accelerator.print(f"The hallucination monitor writes to {monitor.folder}.")


def _build_controller(config: MonitorConfig, settings: ControllerConfig) -> RewardThresholdController | None:
    controller = settings.build()
    if controller is None:
        return None
    config.check_watched("`controller_target` has to")
    if settings.controller_file is not None:
        content = read_threshold_file(settings.controller_file)
        if "controller" not in content:
            raise ValueError(
                f"`controller_file` {settings.controller_file} was written by {content['source']} and holds no "
                "controller: set `controller_initial` to its threshold instead."
            )
        gated = settings.controller_component is not None
        if content.get("gated", gated) != gated:
            units = ("the gated component's score", "the score of `pairs`")
            theirs, ours = units if content["gated"] else units[::-1]
            raise ValueError(
                f"`controller_file` {settings.controller_file} holds a threshold in units of {theirs}, but this run "
                f"moves one in units of {ours}: {'unset' if gated else 'set'} `controller_component`, or set "
                "`controller_initial` instead of the file."
            )
        controller.load_state_dict(content["controller"])
    return controller


def _gate(component: str, reward_funcs: Sequence) -> Callable[[float], None]:
    """The setter of a HybridReward component's `min_score`."""
    found = [func for func in reward_funcs if isinstance(func, HybridReward) and component in func.components]
    if len(found) != 1:
        names = sorted({name for func in reward_funcs if isinstance(func, HybridReward) for name in func.components})
        raise RecipeError(
            f"`controller_component: {component}` is in {len(found)} of the run's HybridRewards, but must be in one; "
            f"their components are {', '.join(names) or 'none'}. For a threshold file alone, leave it unset."
        )
    return functools.partial(found[0].set_min_score, component)
