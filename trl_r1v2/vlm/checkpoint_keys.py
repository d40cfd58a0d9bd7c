# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Names: the published InternVL / Skywork-R1V2 checkpoint layout (remote code) and transformers' native InternVL layout.
One table serves both directions; names that match no entry are refused, never passed through. InternLM2 language
models (`wqkv`, `tok_embeddings`) are not covered: Skywork R1V uses Qwen2.
"""

import re
from pathlib import Path

from .checkpoint_files import LazyTensor, joined
from .errors import CheckpointError


# Native roots.
VISION_ROOT = "model.vision_tower."
ADAPTER_ROOT = "model.multi_modal_projector."
LLM_ROOT = "model.language_model."
LM_HEAD = "lm_head.weight"
EMBEDDING = LLM_ROOT + "embed_tokens.weight"
# Published roots and names.
PUBLISHED_VISION_ROOT = "vision_model."
PUBLISHED_ADAPTER_ROOT = "mlp1."
PUBLISHED_LM_HEAD = "language_model.lm_head.weight"
PUBLISHED_EMBEDDING = "language_model.model.embed_tokens.weight"

# published | native. {n}: layer number, {i}: 1 or 2, {x}: q or k, {p}: weight or bias, {rest}: anything.
NAMES = (
    *(
        (PUBLISHED_VISION_ROOT + published, VISION_ROOT + native)
        for published, native in (
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
    ),
    ("mlp1.0.{p}", ADAPTER_ROOT + "layer_norm.{p}"),
    ("mlp1.1.{p}", ADAPTER_ROOT + "linear_1.{p}"),
    ("mlp1.3.{p}", ADAPTER_ROOT + "linear_2.{p}"),
    ("language_model.model.{rest}", LLM_ROOT + "{rest}"),
    (PUBLISHED_LM_HEAD, LM_HEAD),
)
PUBLISHED_QKV = PUBLISHED_VISION_ROOT + "encoder.layers.{n}.attn.qkv.{p}"
NATIVE_QKV = tuple(f"{VISION_ROOT}encoder.layer.{{n}}.attention.{x}_proj.{{p}}" for x in "qkv")

# What `save_pretrained` of the native model writes, and what its modules are called.
_SAVED_ROOTS = (
    ("language_model.lm_head.", "lm_head."),
    ("language_model.model.", LLM_ROOT),
    ("language_model.", LLM_ROOT),
    ("vision_tower.", VISION_ROOT),
    ("multi_modal_projector.", ADAPTER_ROOT),
)

_FIELDS = {"n": r"\d+", "i": "[12]", "x": "[qk]", "p": "weight|bias", "rest": ".+"}


def _match(template: str, name: str) -> dict[str, str] | None:
    text = re.escape(template)
    for field, values in _FIELDS.items():
        text = text.replace(rf"\{{{field}\}}", f"(?P<{field}>{values})")
    match = re.fullmatch(text, name)
    return None if match is None else match.groupdict()


def module_name(name: str) -> str:
    """The module's name of a tensor that `save_pretrained` of the native model stored under an older root."""
    for saved, module in _SAVED_ROOTS:
        if name.startswith(saved):
            return module + name.removeprefix(saved)
    return name


def by_module_name(tensors: dict[str, LazyTensor], folder: Path) -> dict[str, LazyTensor]:
    """The tensors of a native checkpoint under their modules' names; those stored under more than one are refused."""
    found: dict[str, LazyTensor] = {}
    kept = {name: found.setdefault(module_name(name), tensor).name for name, tensor in tensors.items()}
    twice = [f"{first} and {name}" for name, first in kept.items() if first != name]
    if twice:
        raise CheckpointError(
            f"{folder}: {len(twice)} tensors are given twice: {', '.join(twice[:8])}. Remove the ones not to be kept."
        )
    return {name: tensor.to(name) for name, tensor in found.items()}


def to_native(tensors: dict[str, LazyTensor], folder: Path) -> list[LazyTensor]:
    """
    Native tensors of published ones, `qkv` split into three along its first dimension; unknown names are refused.
    """
    converted: list[LazyTensor] = []
    others: dict[str, LazyTensor] = {}
    for name, tensor in tensors.items():
        fields = _match(PUBLISHED_QKV, name)
        if fields is None:
            others[name] = tensor
            continue
        if not tensor.shape or tensor.shape[0] % 3:
            raise CheckpointError(f"{name}: {list(tensor.shape)} cannot be split into query, key and value.")
        rows = tensor.shape[0] // 3
        converted += [tensor.rows(t.format(**fields), k * rows, (k + 1) * rows) for k, t in enumerate(NATIVE_QKV)]
    return converted + _translated(others, NAMES, folder)


def to_published(tensors: dict[str, LazyTensor], folder: Path) -> list[LazyTensor]:
    """
    Published tensors of native ones, by their modules' names and of the model's shapes; query, key and value are
    joined again. Refuses, listing them, query, key and value of different dtypes, and names that are in no table.
    """
    parts_joined: dict[str, LazyTensor] = {}
    others: dict[str, LazyTensor] = {}
    mixed: list[str] = []
    for name, tensor in tensors.items():
        fields = _match(NATIVE_QKV[0], name)
        if fields is not None:
            parts = [tensors[template.format(**fields)] for template in NATIVE_QKV]
            dtypes = [str(part.dtype).removeprefix("torch.") for part in parts]
            if len(set(dtypes)) > 1:
                mixed.append(f"{name} {dtypes[0]}, key {dtypes[1]}, value {dtypes[2]}")
            parts_joined[name] = joined(parts, PUBLISHED_QKV.format(**fields))
        elif not any(_match(template, name) for template in NATIVE_QKV[1:]):
            others[name] = tensor
    if mixed:
        raise CheckpointError(
            f"the published layout keeps query, key and value in one tensor, and {len(mixed)} have several dtypes: "
            f"{'; '.join(mixed[:8])}. Save the tower in one dtype first."
        )
    renamed = _translated(others, [(native, published) for published, native in NAMES], folder)
    written = parts_joined | dict(zip(others, renamed, strict=True))
    return [written[name] for name in tensors if name in written]


def _translated(tensors: dict[str, LazyTensor], table, folder: Path) -> list[LazyTensor]:
    """The tensors under their other names."""
    fitting = {
        name: [(target, fields) for source, target in table if (fields := _match(source, name)) is not None]
        for name in tensors
    }
    unknown = [name for name, found in fitting.items() if not found]
    if unknown:
        raise CheckpointError(f"{folder}: {len(unknown)} tensors are in no table: {', '.join(unknown[:8])}.")
    return [tensors[name].to(target.format(**fields)) for name, ((target, fields), *_) in fitting.items()]
