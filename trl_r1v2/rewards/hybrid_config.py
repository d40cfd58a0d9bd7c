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

from .calibration import CALIBRATIONS
from .hybrid import Component, HybridReward
from .rules import AccuracyReward, FormatReward
from .rules_text import (
    CosineLengthReward,
    LanguageConsistencyReward,
    StepCompletenessReward,
    ThinkAnswerConsistencyReward,
    WordRepetitionReward,
)


_KINDS = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "text",
    dict: "a mapping",
    NoneType: "null",
}
_COMPONENT_KEYS = ("type", "weight", "when", "min_score", "calibration")


def _accuracy(solution_column: str = "solution", think_open: bool | None = None):
    return AccuracyReward(solution_column=solution_column, think_open=think_open)


def _cosine_length(solution_column: str = "solution", think_open: bool | None = None, **options):
    accuracy = _accuracy(solution_column, think_open)
    return _call(CosineLengthReward, {"accuracy": accuracy, **options}, "cosine_length")


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


def _code(**options):
    from .code.reward import CodeReward

    return _call(CodeReward, options, "code")


def _reward_model(**options):
    from .reward_model import RewardModelReward

    return _call(RewardModelReward.from_pretrained, options, "reward_model")


def _http_reward_model(part: str = "full", drop_images: bool = False, **options):
    from .reward_http import HTTPRewardModel
    from .reward_model import RewardModelReward

    return RewardModelReward(_call(HTTPRewardModel, options, "http_reward_model"), part, drop_images)


_FACTORIES = {
    "accuracy": _accuracy,
    "format": FormatReward,
    "step_completeness": StepCompletenessReward,
    "word_repetition": WordRepetitionReward,
    "repetition": _repetition,
    "soft_overlong": _soft_overlong,
    "cosine_length": _cosine_length,
    "language_consistency": LanguageConsistencyReward,
    "think_answer_consistency": ThinkAnswerConsistencyReward,
    "code": _code,
    "reward_model": _reward_model,
    "http_reward_model": _http_reward_model,
}


def _unknown(key: str, known, place: str) -> ValueError:
    close = difflib.get_close_matches(key, list(known), n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(sorted(known))}."
    return ValueError(f"{place}: unknown {key!r}. {hint}")


def _typed(value, annotation, place: str):
    """
    The value, if it is of a kind that the annotation allows. YAML reads `1e-1` as text, so text that is a number
    becomes one where a number is wanted. Annotations other than numbers, truth values, text and mappings are not
    checked.
    """
    kinds = typing.get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    if not set(kinds) <= set(_KINDS):
        return value
    if isinstance(value, str) and str not in kinds:
        for kind in (int, float):
            if kind in kinds:
                try:
                    return kind(value)
                except ValueError:
                    continue
    given = type(value)
    if given in kinds or (given is int and float in kinds):
        return value
    wanted = " or ".join(words for kind, words in _KINDS.items() if kind in kinds)
    raise ValueError(f"{place} is {value!r}; it must be {wanted}.")


def _mapping(value, place: str, example: str) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{place} is {value!r}; it must be a mapping of options, such as {example}.")
    for key in value:
        if not isinstance(key, str):
            raise ValueError(f"{place} has the key {key!r}; keys are text, so put it in quotes.")
    return dict(value)


def _call(factory, options: dict, place: str):
    """`factory(**options)`, with unknown, missing and unfitting options reported by name and place."""
    signature = inspect.signature(factory)
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    for key in options:
        if key not in signature.parameters and not open_ended:
            raise _unknown(key, signature.parameters, place)
    missing = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD and name not in options
    ]
    if missing:
        raise ValueError(f"{place}: {', '.join(missing)} must be given.")
    options = {
        key: _typed(value, signature.parameters[key].annotation, f"{place}.{key}")
        if key in signature.parameters
        else value
        for key, value in options.items()
    }
    try:
        return factory(**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: {error}") from error


def _imported(path: str, options: dict, place: str):
    """A reward by dotted path: called with its options if there are any or if it is a class, else taken as it is."""
    module_name, _, name = path.rpartition(".")
    try:
        target = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{place}: cannot import {path!r} ({error}). Give a name that `python -c 'import {module_name}'` finds."
        ) from error
    return _call(target, options, place) if options or inspect.isclass(target) else target


def _calibration(config: dict | str | None, place: str):
    if config is None:
        return CALIBRATIONS["raw"]()
    options = {"type": config} if isinstance(config, str) else _mapping(config, place, "{type: zscore}")
    kind = options.pop("type", None)
    if kind not in CALIBRATIONS:
        raise _unknown(str(kind), CALIBRATIONS, f"{place}.type")
    return _call(CALIBRATIONS[kind], options, place)


def _component(name: str, config: dict, place: str) -> Component:
    config = _mapping(config, place, "{weight: 1.0}")
    own = {key: config.pop(key) for key in _COMPONENT_KEYS if key in config}
    kind = _typed(own.pop("type", name), str, f"{place}.type")
    if kind in _FACTORIES:
        reward = _call(_FACTORIES[kind], config, place)
    elif "." in kind:
        reward = _imported(kind, config, place)
    else:
        raise _unknown(kind, _FACTORIES, f"{place}.type")
    own["calibration"] = _calibration(own.get("calibration"), f"{place}.calibration")
    return _call(Component, {"reward": reward, **own}, place)


def build_hybrid_reward(config: dict) -> HybridReward:
    r"""
    Build a [`HybridReward`].

    Args:
        config (`dict`):
            `components`: mapping from name to options; optional `rule`, `prefix`, `name`. Options of a component are
            `type` (by default its name: `accuracy`, `format`, `step_completeness`, `word_repetition`, `repetition`,
            `soft_overlong`, `cosine_length`, `language_consistency`, `think_answer_consistency`, `code`,
            `reward_model`, `http_reward_model`, or a dotted path), `weight`, `when`, `min_score`, `calibration` (a
            name, or a mapping with `type` and its options), and those of the reward itself. `cosine_length`
            takes the options of `accuracy` too.

    Raises:
        `ValueError`: For an unknown or missing key or a value out of bounds, with the place in the mapping.

    Example:
    ```python
    >>> from trl_r1v2.rewards import HybridReward

    >>> reward = HybridReward.from_config(
    ...     {"components": {"accuracy": {"think_open": True}, "format": {"think_open": True, "weight": 0.5}}}
    ... )
    >>> reward(completions=[r"1+1</think> \boxed{2}"], solution=["2"])
    [1.5]
    ```
    """
    known = ("components", "rule", "prefix", "name")
    for key in _mapping(config, "reward", "{components: {accuracy: {}}}"):
        if key not in known:
            raise _unknown(key, known, "reward")
    components = config.get("components")
    if not isinstance(components, dict) or not components:
        raise ValueError("reward.components must be a mapping from component names to their options.")
    built = {
        name: _component(name, {} if options is None else options, f"reward.components.{name}")
        for name, options in _mapping(components, "reward.components", "{accuracy: {}}").items()
    }
    return _call(
        HybridReward, {"components": built, **{key: config[key] for key in known[1:] if key in config}}, "reward"
    )
