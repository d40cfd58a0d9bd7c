# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Reads the parts of a composed model from their folders: tower, language model and adapter, each as tensors under native
names that still lie in the parts' files. Nothing is loaded; whether the parts fit together is judged in `compose.py`.
"""

import hashlib
import math
from pathlib import Path

import torch
from transformers import InternVLConfig, InternVLVisionConfig, PreTrainedConfig, PreTrainedTokenizerBase

from . import checkpoint_keys as keys
from .checkpoint_files import LazyTensor, read_checkpoint, read_json_object
from .errors import CheckpointError
from .published_config import (
    PUBLISHED_CHAT_TYPES,
    PUBLISHED_VISION_TYPE,
    check_chat_config,
    check_sections,
    vision_config_to_native,
)


# Standard deviation of a fresh adapter's weights: what transformers gives linear layers.
ADAPTER_INIT_STD = 0.02
# Rows of an embedding matrix that are averaged at a time.
_ROWS_AT_ONCE = 8192


def local_folder(path: str, what: str) -> Path:
    """The folder of a checkpoint; `what` names the argument in the error."""
    folder = Path(path).expanduser().resolve()
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{what}: {folder} has no config.json. Give a local checkpoint folder.")
    return folder


def read_config(folder: Path) -> dict:
    """Contents of a checkpoint's `config.json`."""
    return read_json_object(folder / "config.json")


def read_vision(folder: Path) -> tuple[InternVLVisionConfig, list[LazyTensor]]:
    """Config and tensors of the tower in a native or published tower or whole checkpoint."""
    raw = read_config(folder)
    kind = raw.get("model_type")
    if kind in ("internvl", *PUBLISHED_CHAT_TYPES):
        if kind == "internvl":
            check_sections(raw, folder, "vision_config")
            config = InternVLVisionConfig.from_dict(raw["vision_config"])
        else:
            check_chat_config(raw, folder)
            config = vision_config_to_native(raw["vision_config"])
        return config, _part_of_whole(folder, kind, keys.VISION_ROOT, keys.PUBLISHED_VISION_ROOT)
    tensors = read_checkpoint(folder)
    if kind == "internvl_vision":
        return InternVLVisionConfig.from_dict(raw), [t.to(keys.VISION_ROOT + name) for name, t in tensors.items()]
    if kind == PUBLISHED_VISION_TYPE:
        whole = {keys.PUBLISHED_VISION_ROOT + name: tensor for name, tensor in tensors.items()}
        return vision_config_to_native(raw), keys.to_native(whole, folder)
    raise CheckpointError(
        f"vision: {folder} is a {kind!r} checkpoint; a tower is read from internvl_vision, internvl, "
        f"{PUBLISHED_VISION_TYPE}, {' or '.join(PUBLISHED_CHAT_TYPES)}."
    )


def _part_of_whole(folder: Path, kind: str, root: str, published_root: str) -> list[LazyTensor]:
    """The tensors below a root in a whole checkpoint of either layout."""
    tensors = read_checkpoint(folder)
    if kind == "internvl":
        named = keys.by_module_name(tensors, folder)
        return [tensor for name, tensor in named.items() if name.startswith(root)]
    return keys.to_native({name: t for name, t in tensors.items() if name.startswith(published_root)}, folder)


def read_llm(
    folder: Path, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, added: list[str]
) -> tuple[list[LazyTensor], list[str]]:
    """The LLM's tensors under native names, with embedding rows for the added tokens; sets `config.vocab_size`."""
    tensors = read_checkpoint(folder)
    embedding = tensors.get("model.embed_tokens.weight", tensors.get("embed_tokens.weight"))
    dropped = [name for name in tensors if name.endswith("rotary_emb.inv_freq")]
    dropped += tied_head(folder, config.tie_word_embeddings, tensors.get(keys.LM_HEAD), embedding)
    new_ids = tokenizer.convert_tokens_to_ids(added)
    num_ids = max(tokenizer.get_vocab().values()) + 1
    first_new = num_ids - len(added)
    if new_ids != list(range(first_new, num_ids)) or first_new > config.vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer has {first_new} ids for {config.vocab_size} embedding rows, and the image "
            f"tokens got the ids {new_ids}. Tokenizer and model do not belong together."
        )
    known_rows, config.vocab_size = config.vocab_size, max(config.vocab_size, num_ids)
    converted = []
    for name in [name for name in tensors if name not in dropped]:
        tensor = tensors[name].to(name if name == keys.LM_HEAD else keys.LLM_ROOT + name.removeprefix("model."))
        is_matrix = len(tensor.shape) == 2 and tensor.shape[0] == known_rows
        if added and is_matrix and tensor.name in (keys.EMBEDDING, keys.LM_HEAD):
            tensor = _with_new_rows(tensor, tensor.name, config.vocab_size, first_new, len(added))
        converted.append(tensor)
    return converted, dropped


def _with_new_rows(tensor: LazyTensor, name: str, vocab_size: int, first_new: int, num_new: int) -> LazyTensor:
    """
    An embedding matrix whose rows for new tokens are the mean of the known ones (ours), appended or in place of rows
    that the checkpoint keeps in reserve.
    """

    def load() -> torch.Tensor:
        values = tensor.load()
        total = torch.zeros(values.shape[1], dtype=torch.float64)
        for rows in values[:first_new].split(_ROWS_AT_ONCE):
            total += rows.double().sum(0)
        new = (total / first_new).to(values.dtype).expand(num_new, -1)
        return torch.cat([values[:first_new], new, values[first_new + num_new :]])

    return LazyTensor(name, tensor.dtype, (vocab_size, *tensor.shape[1:]), load, tensor.files)


def tied_head(folder: Path, tied: bool, head: LazyTensor | None, embedding: LazyTensor | None) -> list[str]:
    """The head's name when it repeats tied embeddings and is left out; missing embeddings are found later."""
    if not tied or head is None or embedding is None:
        return []
    if (head.dtype, head.shape) != (embedding.dtype, embedding.shape) or not head.load().equal(embedding.load()):
        raise CheckpointError(
            f"{folder}: config.json says the embeddings are tied, but lm_head.weight differs from the embeddings. Set "
            "tie_word_embeddings to false there (in llm_config too) if the head is the one to keep."
        )
    return [head.name]


def fresh_adapter(config: InternVLConfig, seed: int, dtype: torch.dtype) -> list[LazyTensor]:
    """A new adapter: LayerNorm at identity, weights normal, biases zero."""
    wide, hidden = _adapter_input_size(config), config.text_config.hidden_size

    def full(name: str, size: int, value: float) -> LazyTensor:
        return LazyTensor(keys.ADAPTER_ROOT + name, dtype, (size,), lambda: torch.full((size,), value, dtype=dtype))

    def normal(name: str, *shape: int) -> LazyTensor:
        name = keys.ADAPTER_ROOT + name

        def load() -> torch.Tensor:
            # Seeded by the name, so that the values do not depend on the order in which tensors are made.
            digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            values = torch.randn(math.prod(shape), generator=generator, dtype=torch.float32) * ADAPTER_INIT_STD
            return values.view(shape).to(dtype)

        return LazyTensor(name, dtype, shape, load)

    norm = [full("layer_norm.weight", wide, 1.0), full("layer_norm.bias", wide, 0.0)]
    first = [normal("linear_1.weight", hidden, wide), full("linear_1.bias", hidden, 0.0)]
    return norm + first + [normal("linear_2.weight", hidden, hidden), full("linear_2.bias", hidden, 0.0)]


def read_adapter(folder: Path, config: InternVLConfig) -> list[LazyTensor]:
    """The adapter of a whole native or published checkpoint; refused if it fits another tower's or LLM's width."""
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
    adapter = _part_of_whole(folder, kind, keys.ADAPTER_ROOT, keys.PUBLISHED_ADAPTER_ROOT)
    needed = (config.text_config.hidden_size, _adapter_input_size(config))
    shapes = {tensor.name: tensor.shape for tensor in adapter}
    found = shapes.get(f"{keys.ADAPTER_ROOT}linear_1.weight", needed)
    if len(found) == 2 and found != needed:
        raise CheckpointError(
            f"adapter: {folder} leads from {found[1]} features a token to an LLM of width {found[0]}; this tower "
            f"gives {needed[1]} and this LLM has width {needed[0]}. An adapter moves between LLMs of one width, "
            "behind the tower that it was trained with. Leave `adapter` out for a fresh one and train that with "
            "`trl-r1v2 align`."
        )
    return adapter


def _adapter_input_size(config: InternVLConfig) -> int:
    return config.vision_config.hidden_size * round(1 / config.downsample_ratio) ** 2
