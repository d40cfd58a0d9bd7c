# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Building a [`HybridReward`] from the mapping that a YAML recipe holds.

Scope: names of components and calibrations, their options, and errors that name the wrong key. Does not cover: reading
the file.
"""

import difflib
import importlib
import inspect
import typing
from types import NoneType, UnionType

from pydantic import TypeAdapter, ValidationError

from .calibration import CALIBRATIONS
from .hybrid import Component, HybridReward


_COMPONENT_KEYS = ("type", "weight", "when", "min_score", "calibration")


def _repetition(ngram_size: int = 3, max_penalty: float = -1.0):
    from trl.rewards import get_repetition_penalty_reward

    return get_repetition_penalty_reward(ngram_size=ngram_size, max_penalty=max_penalty)


def _soft_overlong(max_completion_len: int, soft_punish_cache: int):
    if not 0 <= soft_punish_cache <= max_completion_len:
        raise ValueError(
            f"soft_punish_cache is {soft_punish_cache}; it must lie in [0, max_completion_len = {max_completion_len}]."
        )
    from trl.rewards import get_soft_overlong_punishment

    return get_soft_overlong_punishment(max_completion_len=max_completion_len, soft_punish_cache=soft_punish_cache)


def _http_reward_model(part: str = "full", drop_images: bool = False, **options):
    from .reward_http import HTTPRewardModel
    from .reward_model import RewardModelReward

    return RewardModelReward(_call(HTTPRewardModel, options, "http_reward_model"), part, drop_images)


# What builds the components of each type: a function, or what a name of `trl_r1v2.rewards` stands for.
_FACTORIES = {
    "accuracy": "AccuracyReward",
    "format": "FormatReward",
    "step_completeness": "StepCompletenessReward",
    "repetition": _repetition,
    "soft_overlong": _soft_overlong,
    "cosine_length": "CosineLengthReward",
    "language_consistency": "LanguageConsistencyReward",
    "think_answer_consistency": "ThinkAnswerConsistencyReward",
    "factual_consistency": "FactualConsistencyReward",
    "code": "CodeReward",
    "reward_model": "RewardModelReward.from_pretrained",
    "http_reward_model": _http_reward_model,
}


def _unknown(key: str, known, place: str) -> ValueError:
    close = difflib.get_close_matches(key, list(known), n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(sorted(known))}."
    return ValueError(f"{place}: unknown {key!r}. {hint}")


def _typed(value, annotation, place: str):
    """
    The value as its annotation says. YAML reads `1e-1` as text, so text becomes a number where one is wanted.
    Annotations other than numbers, truth values, text and mappings are left to what takes the value.
    """
    kinds = set(typing.get_args(annotation) if isinstance(annotation, UnionType) else (annotation,))
    if not kinds <= {float, int, bool, str, dict, NoneType}:
        return value
    try:
        strict = bool in kinds or not isinstance(value, str)
        return TypeAdapter(annotation).validate_python(value, strict=strict)
    except ValidationError as error:
        problems = dict.fromkeys(detail["msg"].removeprefix("Input ") for detail in error.errors())
        raise ValueError(f"{place} is {value!r}; it {' or '.join(problems)}.") from None


def _mapping(value, place: str, example: str) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{place} is {value!r}; it must be a mapping of options, such as {example}.")
    for key in value:
        if not isinstance(key, str):
            raise ValueError(f"{place} has the key {key!r}; keys are text, so put it in quotes.")
    return dict(value)


def _call(factory, options: dict, place: str):
    """`factory(**options)`, with unknown, missing and unfitting options reported by name and place."""
    parameters = inspect.signature(factory).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    for key, value in options.items():
        if key in parameters:
            options = {**options, key: _typed(value, parameters[key].annotation, f"{place}.{key}")}
        elif inspect.Parameter.VAR_KEYWORD not in kinds:
            raise _unknown(key, parameters, place)
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD and name not in options
    ]
    if missing:
        raise ValueError(f"{place}: {', '.join(missing)} must be given.")
    try:
        return factory(**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: {error}") from error


def _reward(kind: str, options: dict, place: str):
    """
    A reward by its type, or by a dotted path: that is called with its options if there are any or if it is a class,
    else taken as it is.
    """
    if kind in _FACTORIES:
        factory = _FACTORIES[kind]
        if isinstance(factory, str):
            name, _, method = factory.partition(".")
            factory = getattr(importlib.import_module(__package__), name)
            factory = getattr(factory, method) if method else factory
        return _call(factory, options, place)
    module_name, _, name = kind.rpartition(".")
    if not module_name:
        raise _unknown(kind, _FACTORIES, f"{place}.type")
    try:
        target = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{place}: cannot import {kind!r} ({error}). Give a name that `python -c 'import {module_name}'` finds."
        ) from error
    return _call(target, options, place) if options or inspect.isclass(target) else target


def _calibration(config: dict | str | None, place: str):
    options = {"type": config or "raw"} if config is None or isinstance(config, str) else config
    options = _mapping(options, place, "{type: zscore}")
    kind = options.pop("type", None)
    if kind not in CALIBRATIONS:
        raise _unknown(str(kind), CALIBRATIONS, f"{place}.type")
    return _call(CALIBRATIONS[kind], options, place)


def _component(name: str, config: dict | None, place: str) -> Component:
    config = _mapping({} if config is None else config, place, "{weight: 1.0}")
    own = {key: config.pop(key) for key in _COMPONENT_KEYS if key in config}
    kind = _typed(own.pop("type", name), str, f"{place}.type")
    own["calibration"] = _calibration(own.get("calibration"), f"{place}.calibration")
    return _call(Component, {"reward": _reward(kind, config, place), **own}, place)


def build_hybrid_reward(config: dict) -> HybridReward:
    r"""
    Build a [`HybridReward`].

    Args:
        config (`dict`): `components`: mapping from name to options; optional `rule`, `prefix`, `name`. Options of a
            component are `type` (by default its name: `accuracy`, `format`, `step_completeness`, `repetition`,
            `soft_overlong`, `cosine_length`, `language_consistency`, `think_answer_consistency`,
            `factual_consistency`, `code`, `reward_model`, `http_reward_model`, or a dotted path), `weight`, `when`,
            `min_score`, `calibration` (a name, or a mapping with `type` and its options), and those of the reward
            itself.

    Raises:
        `ValueError`: For an unknown or missing key or a value out of bounds, with the place in the mapping.
    """
    config = _mapping(config, "reward", "{components: {accuracy: {}}}")
    components = config.pop("components", None)
    for key in config:
        if key not in ("rule", "prefix", "name"):
            raise _unknown(key, ("components", "rule", "prefix", "name"), "reward")
    components = _mapping(components or [], "reward.components", "{accuracy: {}}")
    built = {name: _component(name, options, f"reward.components.{name}") for name, options in components.items()}
    return _call(HybridReward, {"components": built, **config}, "reward")
