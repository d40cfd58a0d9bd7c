# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Reads the parts of a composed model from their folders: tower, language model and adapter, each as tensors under native
names that still lie in the parts' files. Nothing is loaded; whether the parts fit together is judged in `compose.py`.
"""

from pathlib import Path

from transformers import InternVLConfig, InternVLVisionConfig, PreTrainedConfig, PreTrainedTokenizerBase

from . import checkpoint_keys as keys
from .errors import CheckpointError
from .json_file import read_json_object
from .published_config import (
    PUBLISHED_CHAT_TYPES,
    PUBLISHED_VISION_TYPE,
    check_chat_config,
    check_sections,
    vision_config_to_native,
)
from .tensor_files import (
    Constant,
    MeanRow,
    Normal,
    OutputTensor,
    TensorInfo,
    copied,
    read_checkpoint,
    row_piece,
)


# Standard deviation of a fresh adapter's weights: what transformers gives linear layers.
ADAPTER_INIT_STD = 0.02


def local_folder(path: str, what: str) -> Path:
    """The folder of a checkpoint; `what` names the argument in the error."""
    folder = Path(path).expanduser().resolve()
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{what}: {folder} has no config.json. Give a local checkpoint folder.")
    return folder


def read_config(folder: Path) -> dict:
    """Contents of a checkpoint's `config.json`."""
    return read_json_object(folder / "config.json")


def read_vision(folder: Path, cast: str | None) -> tuple[InternVLVisionConfig, list[OutputTensor]]:
    """Config and tensors of the tower in a native or published tower or whole checkpoint."""
    raw = read_config(folder)
    kind = raw.get("model_type")
    tensors = read_checkpoint(folder)
    if kind in ("internvl_vision", "internvl"):
        if kind == "internvl":
            check_sections(raw, folder, "vision_config")
            tensors = keys.by_module_name(tensors, folder)
        values = raw if kind == "internvl_vision" else raw["vision_config"]
        root = "" if kind == "internvl_vision" else keys.VISION_ROOT
        return InternVLVisionConfig.from_dict(values), [
            copied(info, keys.VISION_ROOT + name.removeprefix(root), cast)
            for name, info in tensors.items()
            if name.startswith(root)
        ]
    if kind not in (PUBLISHED_VISION_TYPE, *PUBLISHED_CHAT_TYPES):
        raise CheckpointError(
            f"vision: {folder} is a {kind!r} checkpoint; a tower is read from internvl_vision, internvl, "
            f"{PUBLISHED_VISION_TYPE}, {' or '.join(PUBLISHED_CHAT_TYPES)}."
        )
    if kind in PUBLISHED_CHAT_TYPES:
        check_chat_config(raw, folder)
    config = vision_config_to_native(raw if kind == PUBLISHED_VISION_TYPE else raw["vision_config"])
    root = "" if kind == PUBLISHED_VISION_TYPE else "vision_model."
    converted: list[OutputTensor] = []
    for name, info in tensors.items():
        if name.startswith(root):
            found = keys.vision_to_native(info, name.removeprefix(root), cast)
            if found is None:
                raise CheckpointError(f"vision: {folder} holds {name!r}, which is no InternViT tensor.")
            converted += found
    return config, converted


def read_llm(
    folder: Path,
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    added: list[str],
    cast: str | None,
) -> tuple[list[OutputTensor], list[str]]:
    """The LLM's tensors under native names, with embedding rows for the added tokens; sets `config.vocab_size`."""
    tensors = read_checkpoint(folder)
    dropped = [name for name in tensors if name.endswith("rotary_emb.inv_freq")]
    if config.tie_word_embeddings and keys.LM_HEAD in tensors:
        embedding = tensors.get("model.embed_tokens.weight", tensors.get("embed_tokens.weight"))
        if embedding is not None and not same_bytes(tensors[keys.LM_HEAD], embedding):
            raise CheckpointError(
                f"{folder}: tie_word_embeddings is true, but lm_head.weight differs from the embeddings. Set "
                "tie_word_embeddings to false in its config.json if the head is the one to keep."
            )
        dropped.append(keys.LM_HEAD)
    new_ids = tokenizer.convert_tokens_to_ids(added)
    num_ids = max(tokenizer.get_vocab().values()) + 1
    first_new = num_ids - len(added)
    if new_ids != list(range(first_new, num_ids)) or first_new > config.vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer has {first_new} ids for {config.vocab_size} embedding rows, and the image tokens "
            f"got the ids {new_ids}. Tokenizer and model do not belong together."
        )
    vocab_size = max(config.vocab_size, num_ids)
    converted = []
    for name, info in tensors.items():
        if name in dropped:
            continue
        native = name if name == keys.LM_HEAD else keys.LLM_ROOT + name.removeprefix("model.")
        if native in (keys.EMBEDDING, keys.LM_HEAD) and len(info.shape) == 2 and info.shape[0] == config.vocab_size:
            converted.append(_with_new_rows(info, native, vocab_size, first_new, len(added), cast))
        else:
            converted.append(copied(info, native, cast))
    config.vocab_size = vocab_size
    return converted, dropped


def _with_new_rows(
    info: TensorInfo, name: str, vocab_size: int, first_new: int, num_new: int, cast: str | None
) -> OutputTensor:
    """
    An embedding matrix whose rows for new tokens are the mean of the known ones (ours), appended or in place of rows
    that the checkpoint keeps in reserve.
    """
    if not num_new:
        return copied(info, name, cast)
    before, dtype = row_piece(info, 0, first_new, cast)
    pieces = [before, MeanRow(info, first_new, num_new, dtype)]
    if first_new + num_new < info.shape[0]:
        pieces.append(row_piece(info, first_new + num_new, info.shape[0], cast)[0])
    return OutputTensor(name, dtype, (vocab_size, *info.shape[1:]), tuple(pieces))


def same_bytes(a: TensorInfo, b: TensorInfo) -> bool:
    """Whether two stored tensors hold the same bytes; read chunk by chunk."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    pairs = zip(row_piece(a, 0, a.shape[0])[0].chunks(), row_piece(b, 0, b.shape[0])[0].chunks(), strict=True)
    return all(bytes(x) == bytes(y) for x, y in pairs)  # bytes compare at once, memoryviews item by item


def fresh_adapter(config: InternVLConfig, seed: int, dtype: str) -> list[OutputTensor]:
    """A new adapter: LayerNorm at identity, weights normal, biases zero."""
    wide = config.vision_config.hidden_size * round(1 / config.downsample_ratio) ** 2
    hidden = config.text_config.hidden_size
    root = keys.ADAPTER_ROOT
    tensors = [
        OutputTensor(root + "layer_norm.weight", dtype, (wide,), (Constant(1.0, wide, dtype),)),
        OutputTensor(root + "layer_norm.bias", dtype, (wide,), (Constant(0.0, wide, dtype),)),
    ]
    for name, shape in (("linear_1", (hidden, wide)), ("linear_2", (hidden, hidden))):
        weight = Normal(f"{root}{name}.weight", seed, ADAPTER_INIT_STD, shape[0] * shape[1], dtype)
        tensors.append(OutputTensor(f"{root}{name}.weight", dtype, shape, (weight,)))
        tensors.append(OutputTensor(f"{root}{name}.bias", dtype, (hidden,), (Constant(0.0, hidden, dtype),)))
    return tensors


def read_adapter(folder: Path, config: InternVLConfig, cast: str | None) -> list[OutputTensor]:
    """The adapter of a whole native or published checkpoint; its sizes are checked with all others."""
    raw = read_config(folder)
    kind = raw.get("model_type")
    if kind not in ("internvl", *PUBLISHED_CHAT_TYPES):
        raise CheckpointError(f"adapter: {folder} is a {kind!r} checkpoint; give a native or published InternVL one.")
    if kind in PUBLISHED_CHAT_TYPES:
        check_chat_config(raw, folder)
    ratio = raw.get("downsample_ratio", 0.5)
    activation = raw.get("projector_hidden_act", "gelu")
    if ratio != config.downsample_ratio or activation != config.projector_hidden_act:
        raise CheckpointError(
            f"adapter: {folder} was made for downsample_ratio={ratio} and {activation!r}, the composed model has "
            f"{config.downsample_ratio} and {config.projector_hidden_act!r}."
        )
    tensors = read_checkpoint(folder)
    if kind in PUBLISHED_CHAT_TYPES:
        published = [name for name in tensors if name.startswith("mlp1.")]
        unknown = [name for name in published if keys.adapter_to_native(name) is None]
        if unknown:
            raise CheckpointError(
                f"adapter: {folder}: {len(unknown)} tensors are in no table: {', '.join(unknown[:8])}."
            )
        found = [copied(tensors[name], keys.adapter_to_native(name), cast) for name in published]
    else:
        named = keys.by_module_name(tensors, folder).items()
        found = [copied(info, name, cast) for name, info in named if name.startswith(keys.ADAPTER_ROOT)]
    _check_widths(folder, found, config)
    return found


def _check_widths(folder: Path, adapter: list[OutputTensor], config: InternVLConfig) -> None:
    """Refuse an adapter that leads from another tower's width or to another LLM's."""
    shapes = {tensor.name: tensor.shape for tensor in adapter}
    wide = config.vision_config.hidden_size * round(1 / config.downsample_ratio) ** 2
    needed = (config.text_config.hidden_size, wide)
    found = shapes.get(f"{keys.ADAPTER_ROOT}linear_1.weight", needed)
    if len(found) == 2 and tuple(found) != needed:
        raise CheckpointError(
            f"adapter: {folder} leads from {found[1]} features a token to an LLM of width {found[0]}; this tower gives "
            f"{needed[1]} and this LLM has width {needed[0]}. An adapter moves between LLMs of one width, behind the tower "
            "that it was trained with. Leave `adapter` out for a fresh one and train that with `trl-r1v2 align`."
        )
