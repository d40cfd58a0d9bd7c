# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Which components of a vision-language model train: the vision tower, the adapter, the language model, or any of them
together (R1V2 Table 4, R1V3).

Sets `requires_grad` by component and reports what came of it, for plain models and for PEFT models. Call it after the
trainer was built (TRL wraps the model in PEFT there) and before `train()`, which creates the optimizer.
"""

from dataclasses import dataclass, field

import torch
from transformers.hf_argparser import HfArg
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.utils import is_peft_available


COMPONENTS = ("vision", "adapter", "llm")

# Name segments that decide a parameter's component, in transformers' InternVL, LLaVA-like and Qwen-VL models.
_SEGMENTS = {
    "vision_tower": "vision",
    "visual": "vision",
    "multi_modal_projector": "adapter",
    "language_model": "llm",
    "lm_head": "llm",
}
# Qwen-VL keeps its adapter inside the vision module.
_ADAPTERS_IN_VISUAL = ("merger", "merger_list", "deepstack_merger_list")


@dataclass
class TrainableArguments:
    """
    Fields for a script or config that lets its user choose what [`set_trainable`] trains; their meanings are in their
    help.
    """

    trainable: str | None = HfArg(
        default=None,
        help="Components to train, joined with '+': vision, adapter, llm (for example 'llm+adapter'), or "
        "'all'. By default the model is left as it is.",
    )
    allow_frozen_adapter: bool = HfArg(
        default=False, help="Run reinforcement learning with a frozen adapter, which R1V3 saw collapse."
    )

    def __post_init__(self):
        if self.trainable is not None:
            parse_trainable(self.trainable)


@dataclass(frozen=True)
class ActivationReport:
    """What trains and what does not; printed, a table."""

    trainable: str  # the components, in the form that `set_trainable` takes
    trained: dict[str, int]  # trained parameters (elements) of each component
    frozen: dict[str, int]  # frozen ones
    trained_names: tuple[str, ...] = field(repr=False)  # of the trained tensors

    def __str__(self) -> str:
        lines = [f"trainable: {self.trainable}", f"  {'component':<10}{'trained':>16}{'frozen':>16}"]
        lines += [f"  {name:<10}{self.trained[name]:>16,}{self.frozen[name]:>16,}" for name in COMPONENTS]
        lines.append(f"  {'total':<10}{sum(self.trained.values()):>16,}{sum(self.frozen.values()):>16,}")
        return "\n".join(lines)


def parse_trainable(trainable: str) -> frozenset[str]:
    """Components of `"llm+adapter"`, `"all"`, …; a `ValueError` when a name is unknown or given twice."""
    if trainable == "all":
        return frozenset(COMPONENTS)
    names = trainable.split("+")
    unknown = [name for name in names if name not in COMPONENTS]
    if unknown or len(set(names)) < len(names):
        raise ValueError(
            f"trainable is {trainable!r}; give each of {', '.join(COMPONENTS)} at most once, joined with '+' "
            "(for example 'llm+adapter'), or 'all'."
        )
    return frozenset(names)


def component_of(name: str) -> str:
    """The component of a parameter by its name, PEFT's wrappers included; a `ValueError` if it holds no known one."""
    return _known_place(name)[0]


def _place(name: str) -> tuple[str, str] | None:
    """The component of a parameter and the name of that component's module in the model, if it is known."""
    segments = name.split(".")
    for segment, inner in zip(segments, [*segments[1:], ""], strict=True):
        if segment == "visual" and inner in _ADAPTERS_IN_VISUAL:
            return "adapter", inner
        if segment in _SEGMENTS:
            return _SEGMENTS[segment], segment
    return None


def _known_place(name: str) -> tuple[str, str]:
    place = _place(name)
    if place is not None:
        return place
    raise ValueError(
        f"parameter {name!r} belongs to no known component: set_trainable knows models with a vision_tower, a "
        "multi_modal_projector and a language_model (InternVL and LLaVA-like ones in transformers), and Qwen-VL's."
    )


def set_trainable(model: torch.nn.Module, trainable: str, *, unsaved_ok: bool = False) -> ActivationReport:
    """
    Make exactly the parameters of the chosen components (joined with `+`, or `"all"`) trainable; what comes back
    prints as a table.

    In a PEFT model, a component that carries LoRA (or another tuner) trains its active tuner weights and leaves its
    base weights frozen; a component listed in `modules_to_save` trains the saved copy; any other chosen component
    trains in full, which `save_pretrained` of a PEFT model would leave out of its checkpoints.

    Raises:
        `ValueError`: when a name is unknown, or a PEFT checkpoint would not hold what was trained, unless
            `unsaved_ok`.
    """
    chosen = parse_trainable(trainable)
    names = dict(model.named_parameters())
    components = {name: component_of(name) for name in names}
    active, resting = _peft_names(model)
    has_tuner = {components[name] for name in active}
    outside = sorted(chosen - has_tuner) if active else []
    if outside and not unsaved_ok:
        modules = dict(map(_known_place, reversed(names)))
        raise ValueError(
            f"the PEFT model has no trainable copy of {' and '.join(outside)}: it would train, but PEFT checkpoints "
            f"would not hold it. Add modules_to_save={[modules[component] for component in outside]} to the PEFT "
            "config, or pass unsaved_ok=True and save the whole model yourself."
        )
    trained_names = []
    for name, parameter in names.items():
        component = components[name]
        belongs = name in active if component in has_tuner else name not in resting
        parameter.requires_grad_(component in chosen and belongs)
        if parameter.requires_grad:
            trained_names.append(name)
    trained, frozen = dict.fromkeys(COMPONENTS, 0), dict.fromkeys(COMPONENTS, 0)
    for name, parameter in names.items():
        (trained if parameter.requires_grad else frozen)[components[name]] += num_elements(parameter)
    empty = sorted(name for name in chosen if not trained[name])
    if empty:
        raise ValueError(f"the model has no {' and no '.join(empty)} to train.")
    in_order = "+".join(name for name in COMPONENTS if name in chosen)
    return ActivationReport(in_order, trained, frozen, tuple(trained_names))


def refuse_frozen_adapter(model: torch.nn.Module) -> None:
    """
    Refuse reinforcement learning (`ValueError`) of a model, PEFT applied, that has an adapter of which nothing trains,
    LoRA weights and copies included: R1V3 measured a collapse. Models without an adapter of a known name pass.
    """
    places = {name: _place(name) for name, _ in model.named_parameters()}
    adapter = {name: place[1] for name, place in places.items() if place is not None and place[0] == "adapter"}
    if not adapter or any(p.requires_grad for name, p in model.named_parameters() if name in adapter):
        return
    module = next(iter(adapter.values()))
    raise ValueError(
        f"none of the {len(adapter)} weight tensors of the adapter ({module}) trains: reinforcement learning with a "
        f"frozen adapter collapses (Skywork R1V3). Let it train (with LoRA: `lora_modules_to_save: [{module}]`, or "
        "targets that match it), or set `allow_frozen_adapter: true` to go on all the same."
    )


def num_elements(parameter: torch.nn.Parameter) -> int:
    """Elements of a whole parameter; where ZeRO-3 shards it, the tensor at hand is empty."""
    if is_deepspeed_zero3_enabled():
        from deepspeed.runtime.zero.partition_parameters import is_zero_param

        if is_zero_param(parameter):
            return parameter.ds_numel
    return parameter.numel()


def _peft_names(model: torch.nn.Module) -> tuple[set[str], set[str]]:
    """Names of the tuner weights and saved copies that belong to PEFT's active adapters, and of those that do not."""
    active: set[str] = set()
    resting: set[str] = set()
    if not is_peft_available():
        return active, resting
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    if not isinstance(model, PeftModel):
        return active, resting
    in_use = set(model.active_adapters)
    for root, module in model.named_modules():
        if not isinstance(module, (BaseTunerLayer, ModulesToSaveWrapper)):
            continue
        for name, _ in module.named_parameters():
            # such as lora_A.default.weight and modules_to_save.default.linear_1.bias
            holder, _, rest = name.partition(".")
            if holder in module.adapter_layer_names:
                (active if rest.split(".")[0] in in_use else resting).add(f"{root}.{name}")
    return active, resting
