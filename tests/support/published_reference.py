# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
A tiny checkpoint in the published InternVL layout and its forward pass, written out in float64 with plain torch from
the architecture's description: InternViT (RMSNorm, norm of query and key over all heads, layer scale), pixel shuffle
v2, the MLP adapter, and Qwen2 with rotary positions and grouped heads. Uses neither transformers' models nor the
package under test.
"""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file


VISION = dict(
    hidden_size=24, num_attention_heads=3, intermediate_size=40, num_hidden_layers=3, image_size=28, patch_size=7
)
LLM = dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, intermediate_size=44, num_hidden_layers=2)
ROPE_THETA, LLM_EPS, VISION_EPS = 50000.0, 1e-5, 1e-6


def published_config(vocab_size: int, **changes) -> dict:
    """The `config.json` of the tiny checkpoint, with the fields that published ones have."""
    config = {
        "architectures": ["SkyworkR1VChatModel"],
        "auto_map": {"AutoModel": "modeling_skywork_chat.SkyworkR1VChatModel"},
        "model_type": "skywork_chat",
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": VISION["image_size"],
        "max_dynamic_patch": 6,
        "min_dynamic_patch": 1,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "skywork-r1v2-chat",
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "use_thumbnail": True,
        "llm_config": {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "hidden_act": "silu",
            "max_position_embeddings": 512,
            "rms_norm_eps": LLM_EPS,
            "rope_theta": ROPE_THETA,
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
            "vocab_size": vocab_size,
            **LLM,
        },
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            "drop_path_rate": 0.4,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "hidden_act": "gelu",
            "initializer_factor": 0.1,
            "layer_norm_eps": VISION_EPS,
            "norm_type": "rms_norm",
            "num_channels": 3,
            "qk_normalization": True,
            "qkv_bias": False,
            "use_flash_attn": True,
            **VISION,
        },
    }
    return {**config, **changes}


def published_tensors(vocab_size: int, seed: int = 5) -> dict[str, torch.Tensor]:
    """Seeded random tensors under their published names, float32."""
    generator = torch.Generator().manual_seed(seed)

    def weight(*shape):
        return torch.randn(*shape, generator=generator) / math.sqrt(shape[-1])

    def norm(size):
        return 1 + 0.2 * torch.randn(size, generator=generator)

    width, mlp, patch = VISION["hidden_size"], VISION["intermediate_size"], VISION["patch_size"]
    positions = (VISION["image_size"] // patch) ** 2 + 1
    tensors = {
        "vision_model.embeddings.class_embedding": weight(1, 1, width),
        "vision_model.embeddings.position_embedding": weight(1, positions, width),
        "vision_model.embeddings.patch_embedding.weight": weight(width, 3, patch, patch),
        "vision_model.embeddings.patch_embedding.bias": weight(width),
    }
    for n in range(VISION["num_hidden_layers"]):
        root = f"vision_model.encoder.layers.{n}."
        tensors |= {
            root + "attn.qkv.weight": weight(3 * width, width),
            root + "attn.q_norm.weight": norm(width),
            root + "attn.k_norm.weight": norm(width),
            root + "attn.proj.weight": weight(width, width),
            root + "attn.proj.bias": weight(width),
            root + "ls1": norm(width),
            root + "ls2": norm(width),
            root + "norm1.weight": norm(width),
            root + "norm2.weight": norm(width),
            root + "mlp.fc1.weight": weight(mlp, width),
            root + "mlp.fc1.bias": weight(mlp),
            root + "mlp.fc2.weight": weight(width, mlp),
            root + "mlp.fc2.bias": weight(width),
        }
    hidden, inner, head = (
        LLM["hidden_size"],
        LLM["intermediate_size"],
        LLM["hidden_size"] // LLM["num_attention_heads"],
    )
    tensors |= {
        "mlp1.0.weight": norm(4 * width),
        "mlp1.0.bias": weight(4 * width),
        "mlp1.1.weight": weight(hidden, 4 * width),
        "mlp1.1.bias": weight(hidden),
        "mlp1.3.weight": weight(hidden, hidden),
        "mlp1.3.bias": weight(hidden),
        "language_model.model.embed_tokens.weight": weight(vocab_size, hidden),
        "language_model.model.norm.weight": norm(hidden),
        "language_model.lm_head.weight": weight(vocab_size, hidden),
    }
    for n in range(LLM["num_hidden_layers"]):
        root = f"language_model.model.layers.{n}."
        for name, heads in (
            ("q", LLM["num_attention_heads"]),
            ("k", LLM["num_key_value_heads"]),
            ("v", LLM["num_key_value_heads"]),
        ):
            tensors[root + f"self_attn.{name}_proj.weight"] = weight(heads * head, hidden)
            tensors[root + f"self_attn.{name}_proj.bias"] = weight(heads * head)
        tensors |= {
            root + "self_attn.o_proj.weight": weight(hidden, hidden),
            root + "input_layernorm.weight": norm(hidden),
            root + "post_attention_layernorm.weight": norm(hidden),
            root + "mlp.gate_proj.weight": weight(inner, hidden),
            root + "mlp.up_proj.weight": weight(inner, hidden),
            root + "mlp.down_proj.weight": weight(hidden, inner),
        }
    return tensors


def save_published(folder: Path, tokenizer, tensors: dict | None = None, **changes) -> dict[str, torch.Tensor]:
    """Write the tiny checkpoint as two shards with an index, its config and the tokenizer."""
    tensors = published_tensors(len(tokenizer)) if tensors is None else tensors
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(published_config(len(tokenizer), **changes)))
    names, weight_map = sorted(tensors), {}
    for k, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        file = f"model-{k:05d}-of-00002.safetensors"
        save_file({name: tensors[name].contiguous() for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return tensors


def rms(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    """Softmax attention; `q`, `k`, `v` of shape `(batch, heads, length, head_dim)`."""
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -math.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def vision_hidden_states(tensors: dict[str, torch.Tensor], pixel_values: torch.Tensor) -> list[torch.Tensor]:
    """Hidden states after the embeddings and after every layer, float64."""
    t = {
        name.removeprefix("vision_model."): x.double()
        for name, x in tensors.items()
        if name.startswith("vision_model.")
    }
    patch, heads = VISION["patch_size"], VISION["num_attention_heads"]
    # A stride-`patch` convolution is one product per patch.
    patches = pixel_values.double().unfold(2, patch, patch).unfold(3, patch, patch).permute(0, 2, 3, 1, 4, 5)
    x = patches.flatten(3).flatten(1, 2) @ t["embeddings.patch_embedding.weight"].flatten(1).T
    x = x + t["embeddings.patch_embedding.bias"]
    x = (
        torch.cat([t["embeddings.class_embedding"].expand(len(x), -1, -1), x], dim=1)
        + t["embeddings.position_embedding"]
    )
    states = [x]
    for n in range(VISION["num_hidden_layers"]):
        layer = {
            k.removeprefix(f"encoder.layers.{n}."): v for k, v in t.items() if k.startswith(f"encoder.layers.{n}.")
        }
        q, k, v = (rms(x, layer["norm1.weight"], VISION_EPS) @ layer["attn.qkv.weight"].T).chunk(3, dim=-1)
        q, k = rms(q, layer["attn.q_norm.weight"], VISION_EPS), rms(k, layer["attn.k_norm.weight"], VISION_EPS)
        mixed = attend(*(split_heads(y, heads) for y in (q, k, v)), causal=False)
        x = x + layer["ls1"] * (mixed @ layer["attn.proj.weight"].T + layer["attn.proj.bias"])
        inner = rms(x, layer["norm2.weight"], VISION_EPS) @ layer["mlp.fc1.weight"].T + layer["mlp.fc1.bias"]
        x = x + layer["ls2"] * (F.gelu(inner) @ layer["mlp.fc2.weight"].T + layer["mlp.fc2.bias"])
        states.append(x)
    return states


def image_features(tensors: dict[str, torch.Tensor], pixel_values: torch.Tensor) -> torch.Tensor:
    """Pixel shuffle v2 and `mlp1`: float64 of shape `(num_tiles * tokens_a_tile, hidden)`."""
    t = {name: x.double() for name, x in tensors.items() if name.startswith("mlp1.")}
    x = vision_hidden_states(tensors, pixel_values)[-1][:, 1:]
    side = VISION["image_size"] // VISION["patch_size"]
    x = x.unflatten(1, (side, side))
    # Two rows, then two columns go into the channels: each token is one 2x2 block of patches.
    x = torch.cat([x[:, row::2, column::2] for row in (0, 1) for column in (0, 1)], dim=-1).flatten(0, 2)
    x = F.layer_norm(x, (x.shape[-1],), t["mlp1.0.weight"], t["mlp1.0.bias"], eps=1e-5)
    x = F.gelu(x @ t["mlp1.1.weight"].T + t["mlp1.1.bias"])
    return x @ t["mlp1.3.weight"].T + t["mlp1.3.bias"]


def rotate(x: torch.Tensor) -> torch.Tensor:
    """Rotary positions 0, 1, … with halves paired; `x` of shape `(batch, heads, length, head_dim)`."""
    half = x.shape[-1] // 2
    frequencies = ROPE_THETA ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(x.shape[-2], dtype=torch.float64)[:, None] * frequencies
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], dim=-1)


def logits(
    tensors: dict[str, torch.Tensor], input_ids: torch.Tensor, pixel_values: torch.Tensor | None, image_token_id: int
) -> torch.Tensor:
    """Logits of one sequence, float64 of shape `(1, length, vocab_size)`."""
    t = {
        name.removeprefix("language_model."): x.double()
        for name, x in tensors.items()
        if name.startswith("language_model.")
    }
    x = t["model.embed_tokens.weight"][input_ids]
    if pixel_values is not None:
        x[input_ids == image_token_id] = image_features(tensors, pixel_values)
    heads, groups = LLM["num_attention_heads"], LLM["num_attention_heads"] // LLM["num_key_value_heads"]
    for n in range(LLM["num_hidden_layers"]):
        layer = {k.removeprefix(f"model.layers.{n}."): v for k, v in t.items() if k.startswith(f"model.layers.{n}.")}
        h = rms(x, layer["input_layernorm.weight"], LLM_EPS)
        q, k, v = (h @ layer[f"self_attn.{p}_proj.weight"].T + layer[f"self_attn.{p}_proj.bias"] for p in "qkv")
        q, k, v = split_heads(q, heads), split_heads(k, heads // groups), split_heads(v, heads // groups)
        k, v = (y.repeat_interleave(groups, dim=1) for y in (rotate(k), v))
        x = x + attend(rotate(q), k, v, causal=True) @ layer["self_attn.o_proj.weight"].T
        h = rms(x, layer["post_attention_layernorm.weight"], LLM_EPS)
        inner = F.silu(h @ layer["mlp.gate_proj.weight"].T) * (h @ layer["mlp.up_proj.weight"].T)
        x = x + inner @ layer["mlp.down_proj.weight"].T
    return rms(x, t["model.norm.weight"], LLM_EPS) @ t["lm_head.weight"].T
