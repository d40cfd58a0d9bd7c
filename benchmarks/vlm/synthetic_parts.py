# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
A vision tower and a causal LM of a chosen size in bytes, filled with pseudo-random bits: material for timing and for
memory tests of `compose`. The models compute nothing sensible.
"""

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    InternVLVisionConfig,
    InternVLVisionModel,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)


HIDDEN, INNER, VOCABULARY = 2048, 11008, 32000


def write_checkpoint(folder: Path, model_class: type, config: PreTrainedConfig, seed: int, shard_bytes: int) -> int:
    """Write a bfloat16 checkpoint of `model_class` in shards, one tensor in memory at a time; returns its bytes."""
    folder.mkdir(parents=True)
    config.architectures = [model_class.__name__]
    config.dtype = "bfloat16"
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in model_class(config).state_dict().items()}
    groups: list[dict[str, tuple[int, ...]]] = [{}]
    filled = 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        if groups[-1] and filled + size > shard_bytes:
            groups.append({})
            filled = 0
        groups[-1][name] = shape
        filled += size
    rng, weight_map, total = np.random.default_rng(seed), {}, 0
    for number, group in enumerate(groups, start=1):
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        header, offset = {}, 0
        for name, shape in group.items():
            end = offset + 2 * int(np.prod(shape))
            header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, end]}
            weight_map[name] = file
            offset = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / file, "wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for shape in group.values():
                # Finite bfloat16 values: the exponent's top bit stays clear.
                words = rng.integers(0, 2**16, int(np.prod(shape)), dtype=np.uint16) & 0xBFFF
                out.write(words.tobytes())
        total += offset
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def make_parts(root: Path, num_bytes: int, shard_bytes: int = 10**9) -> int:
    """Write `root/vision` and `root/llm`, together at least `num_bytes` of tensors; returns their bytes."""
    vision = InternVLVisionConfig(
        hidden_size=1024, num_hidden_layers=4, num_attention_heads=16, intermediate_size=4096, norm_type="rms_norm",
        use_qk_norm=True, image_size=448, patch_size=14,
    )  # fmt: skip
    total = write_checkpoint(root / "vision", InternVLVisionModel, vision, 1, shard_bytes)
    layer_bytes = 2 * (3 * HIDDEN * INNER + 2 * HIDDEN * HIDDEN + 2 * HIDDEN * 512)
    rest = num_bytes - total - 2 * 2 * VOCABULARY * HIDDEN
    llm = Qwen2Config(
        hidden_size=HIDDEN, intermediate_size=INNER, num_attention_heads=16, num_key_value_heads=4,
        num_hidden_layers=max(1, -(-rest // layer_bytes)), vocab_size=VOCABULARY, tie_word_embeddings=False,
    )  # fmt: skip
    total += write_checkpoint(root / "llm", Qwen2ForCausalLM, llm, 2, shard_bytes)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<|end|>", special=True, normalized=False)])
    template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '<|end|>' }}{% endfor %}"
    PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", pad_token="<|end|>", chat_template=template
    ).save_pretrained(root / "llm")
    return total
