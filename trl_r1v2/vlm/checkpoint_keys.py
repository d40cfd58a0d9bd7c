# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Names: the published InternVL / Skywork-R1V2 checkpoint layout (remote code) and transformers' native InternVL layout.

One table serves both directions. Every name must match exactly one entry; names that match none are reported by the
caller, never passed through. Configs are `published_config.py`; bytes are `tensor_files.py`. InternLM2 language models
(`wqkv`, `tok_embeddings`) are not covered: Skywork R1V uses Qwen2.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from .errors import CheckpointError
from .tensor_files import OutputTensor, TensorInfo, copied, joined, rows_of


# published | native, below the tower's root. {n}: layer number, {i}: 1 or 2, {x}: q or k, {p}: weight or bias.
VISION_NAMES = (
    ("embeddings.class_embedding", "embeddings.cls_token"),
    ("embeddings.position_embedding", "embeddings.position_embeddings"),
    ("embeddings.patch_embedding.{p}", "embeddings.patch_embeddings.projection.{p}"),
    ("encoder.layers.{n}.attn.proj.{p}", "encoder.layer.{n}.attention.projection_layer.{p}"),
    ("encoder.layers.{n}.attn.{x}_norm.{p}", "encoder.layer.{n}.attention.{x}_norm.{p}"),
    ("encoder.layers.{n}.ls{i}", "encoder.layer.{n}.lambda_{i}"),
    ("encoder.layers.{n}.norm1.{p}", "encoder.layer.{n}.layernorm_before.{p}"),
    ("encoder.layers.{n}.norm2.{p}", "encoder.layer.{n}.layernorm_after.{p}"),
    ("encoder.layers.{n}.mlp.fc{i}.{p}", "encoder.layer.{n}.mlp.fc{i}.{p}"),
)
PUBLISHED_QKV = "encoder.layers.{n}.attn.qkv.{p}"
NATIVE_QKV = tuple(f"encoder.layer.{{n}}.attention.{x}_proj.{{p}}" for x in "qkv")

ADAPTER_NAMES = (
    ("mlp1.0.{p}", "layer_norm.{p}"),
    ("mlp1.1.{p}", "linear_1.{p}"),
    ("mlp1.3.{p}", "linear_2.{p}"),
)

VISION_ROOT = "model.vision_tower."
ADAPTER_ROOT = "model.multi_modal_projector."
LLM_ROOT = "model.language_model."
LM_HEAD = "lm_head.weight"
EMBEDDING = LLM_ROOT + "embed_tokens.weight"

# What `save_pretrained` of the native model writes, and what its modules are called.
_SAVED_ROOTS = (
    ("language_model.lm_head.", "lm_head."),
    ("language_model.model.", LLM_ROOT),
    ("language_model.", LLM_ROOT),
    ("vision_tower.", VISION_ROOT),
    ("multi_modal_projector.", ADAPTER_ROOT),
)

_FIELDS = {"n": r"\d+", "i": "[12]", "x": "[qk]", "p": "weight|bias"}


def _pattern(template: str) -> re.Pattern:
    text = re.escape(template)
    for field, values in _FIELDS.items():
        text = text.replace(rf"\{{{field}\}}", f"(?P<{field}>{values})")
    return re.compile(text)


def _translate(name: str, table: Iterable[tuple[str, str]]) -> str | None:
    for source, target in table:
        match = _pattern(source).fullmatch(name)
        if match:
            return target.format(**match.groupdict())
    return None


def _reversed(table: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple((native, published) for published, native in table)


def module_name(name: str) -> str:
    """The module's name of a tensor that `save_pretrained` of the native model stored under an older root."""
    for saved, module in _SAVED_ROOTS:
        if name.startswith(saved):
            return module + name.removeprefix(saved)
    return name


def by_module_name(tensors: dict[str, TensorInfo], folder: Path) -> dict[str, TensorInfo]:
    """
    The tensors of a native checkpoint under their modules' names.

    Raises:
        [`~vlm.errors.CheckpointError`]: listing the tensors that are stored under more than one of their names.
    """
    found: dict[str, TensorInfo] = {}
    twice = []
    for name, info in tensors.items():
        if found.setdefault(module_name(name), info) is not info:
            twice.append(f"{found[module_name(name)].name} and {name}")
    if twice:
        raise CheckpointError(
            f"{folder}: {len(twice)} tensors are given twice: {', '.join(twice[:8])}. Remove the ones not to be kept."
        )
    return found


def vision_to_native(info: TensorInfo, name: str, dtype: str | None = None) -> list[OutputTensor] | None:
    """
    The native tensors of one published vision tensor; `qkv` becomes three, split along its first dimension.

    Args:
        info (`TensorInfo`): The tensor.
        name (`str`): Its published name below `vision_model.`.
        dtype (`str`, *optional*): safetensors dtype to cast to.

    Returns:
        `list[OutputTensor]` with full native names, or `None` when the name is not in the table.
    """
    match = _pattern(PUBLISHED_QKV).fullmatch(name)
    if match:
        if not info.shape or info.shape[0] % 3:
            raise CheckpointError(f"{info.name}: {list(info.shape)} cannot be split into query, key and value.")
        rows = info.shape[0]
        return [
            rows_of(
                info, VISION_ROOT + template.format(**match.groupdict()), k * rows // 3, (k + 1) * rows // 3, dtype
            )
            for k, template in enumerate(NATIVE_QKV)
        ]
    native = _translate(name, VISION_NAMES)
    return None if native is None else [copied(info, VISION_ROOT + native, dtype)]


def adapter_to_native(name: str) -> str | None:
    """The full native name of a published adapter tensor (`mlp1.*`), or `None`."""
    native = _translate(name, ADAPTER_NAMES)
    return None if native is None else ADAPTER_ROOT + native


def published_to_native(tensors: dict[str, TensorInfo]) -> tuple[list[OutputTensor], list[str]]:
    """
    Native tensors of a published checkpoint.

    Returns:
        `tuple`: the tensors, and the names that are not in the table.
    """
    converted: list[OutputTensor] = []
    unknown: list[str] = []
    for name, info in tensors.items():
        if name.startswith("vision_model."):
            found = vision_to_native(info, name.removeprefix("vision_model."))
        elif name.startswith("language_model.model."):
            found = [copied(info, LLM_ROOT + name.removeprefix("language_model.model."))]
        elif name == "language_model.lm_head.weight":
            found = [copied(info, LM_HEAD)]
        else:
            native = adapter_to_native(name)
            found = None if native is None else [copied(info, native)]
        if found is None:
            unknown.append(name)
        else:
            converted += found
    return converted, unknown


def native_to_published(tensors: dict[str, TensorInfo]) -> tuple[list[OutputTensor], list[str]]:
    """
    Published tensors of a native checkpoint; query, key and value are joined again.

    Args:
        tensors (`dict[str, TensorInfo]`): All tensors by their modules' names, of the shapes that the model has.

    Returns:
        `tuple`: the tensors, and the names that are not in the table.

    Raises:
        [`~vlm.errors.CheckpointError`]: listing query, key and value of different dtypes.
    """
    _check_joined_dtypes(tensors)
    converted: list[OutputTensor] = []
    unknown: list[str] = []
    for name, info in tensors.items():
        if name.startswith(VISION_ROOT):
            found = _vision_to_published(name.removeprefix(VISION_ROOT), info, tensors)
        elif name.startswith(ADAPTER_ROOT):
            published = _translate(name.removeprefix(ADAPTER_ROOT), _reversed(ADAPTER_NAMES))
            found = None if published is None else [copied(info, published)]
        elif name.startswith(LLM_ROOT):
            found = [copied(info, "language_model.model." + name.removeprefix(LLM_ROOT))]
        elif name == LM_HEAD:
            found = [copied(info, "language_model.lm_head.weight")]
        else:
            found = None
        if found is None:
            unknown.append(name)
        else:
            converted += found
    return converted, unknown


def _check_joined_dtypes(by_name: dict[str, TensorInfo]) -> None:
    """Refuse query, key and value that cannot become one tensor."""
    mixed = []
    for name in by_name:
        match = _pattern(VISION_ROOT + NATIVE_QKV[0]).fullmatch(name)
        if match:
            dtypes = [by_name[VISION_ROOT + part.format(**match.groupdict())].dtype for part in NATIVE_QKV]
            if len(set(dtypes)) > 1:
                mixed.append(f"{name} {dtypes[0]}, key {dtypes[1]}, value {dtypes[2]}")
    if mixed:
        raise CheckpointError(
            f"the published layout keeps query, key and value in one tensor, and {len(mixed)} have several dtypes: "
            f"{'; '.join(mixed[:8])}. Save the tower in one dtype first."
        )


def _vision_to_published(name: str, info: TensorInfo, by_name: dict[str, TensorInfo]) -> list[OutputTensor] | None:
    for position, template in enumerate(NATIVE_QKV):
        match = _pattern(template).fullmatch(name)
        if match is None:
            continue
        if position:
            return []  # written with the query
        parts = [VISION_ROOT + other.format(**match.groupdict()) for other in NATIVE_QKV]
        return [joined([by_name[part] for part in parts], "vision_model." + PUBLISHED_QKV.format(**match.groupdict()))]
    published = _translate(name, _reversed(VISION_NAMES))
    return None if published is None else [copied(info, "vision_model." + published)]
