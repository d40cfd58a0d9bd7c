# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Memory of training an R1V2-sized model (InternViT-6B and QwQ-32B) under ZeRO-3 or FSDP2: arithmetic, nothing is run.

    python -m benchmarks.sizes.memory

Parameters are counted on the meta device; what each costs in training is in `BYTES_PER_PARAMETER`, what each token
costs follows from the configs. Lengths and batch are those of `recipes/r1v2_38b`. Left out: fragmentation, the
framework's own buffers, the forward of a frozen tower, chunks of logits (TRL's fused head never holds them whole).
"""

import argparse
import json
from pathlib import Path

import torch
import yaml
from transformers import InternVLConfig, InternVLForConditionalGeneration, Qwen2Config

from benchmarks.vlm.sizes import LLM, VISION
from trl_r1v2.vlm.activation import COMPONENTS, component_of, parse_trainable


BF16, FP32 = 2, 4
# A weight in bfloat16; if it trains also, in float32, its gradient, a copy and AdamW's two moments.
BYTES_PER_PARAMETER = {"frozen": BF16, "trained": BF16 + 4 * FP32}
PRESETS = ("adapter", "llm+adapter", "adapter+vision")
NUM_GPUS = (8, 16, 32, 64)
# Longest prompt text that the arithmetic allows for, and tiles of an image with its thumbnail.
TEXT_TOKENS, TILES = 1024, 13


def count_parameters() -> tuple[dict[str, int], int]:
    """
    Parameters of each component, and of the largest module that ZeRO-3 gathers at once (an LLM layer or the head).
    """
    with torch.device("meta"):
        config = InternVLConfig(vision_config=VISION, text_config=LLM, tie_word_embeddings=False)
        model = InternVLForConditionalGeneration(config)
    counts = dict.fromkeys(COMPONENTS, 0)
    for name, parameter in model.named_parameters():
        counts[component_of(name)] += parameter.numel()
    units = [*model.model.language_model.layers, *model.model.vision_tower.encoder.layer, model.lm_head]
    return counts, max(sum(p.numel() for p in unit.parameters()) for unit in units)


def state_bytes(counts: dict[str, int], trainable: str) -> int:
    """Weights, gradients and optimizer state of the whole model, to be shared out over all GPUs."""
    chosen = parse_trainable(trainable)
    return sum(n * BYTES_PER_PARAMETER["trained" if name in chosen else "frozen"] for name, n in counts.items())


def kept_bytes_per_token() -> int:
    """With checkpointing, a layer keeps its input."""
    return BF16 * LLM.hidden_size * LLM.num_hidden_layers


def recomputed_bytes_per_token() -> int:
    """
    What one layer holds while it is recomputed: input, both norms, queries, keys, values, attention, and the MLP's
    four.
    """
    head = LLM.hidden_size // LLM.num_attention_heads
    attention = 2 * LLM.num_attention_heads * head + 2 * LLM.num_key_value_heads * head
    return BF16 * (4 * LLM.hidden_size + attention + 4 * LLM.intermediate_size)


def tower_bytes_per_image() -> int:
    """What a trained tower keeps of one image's tiles: each layer's input, and one layer while it is recomputed."""
    inner = 4 * VISION.hidden_size + 4 * VISION.hidden_size + 2 * VISION.intermediate_size
    return (
        feature_bytes_per_tile()
        // VISION.hidden_size
        * TILES
        * (VISION.hidden_size * VISION.num_hidden_layers + inner)
    )


def key_value_bytes_per_token() -> int:
    head = LLM.hidden_size // LLM.num_attention_heads
    return 2 * BF16 * LLM.num_hidden_layers * LLM.num_key_value_heads * head


def feature_bytes_per_tile() -> int:
    """What the vision cache keeps of a tile: every patch and the class token."""
    side = VISION.image_size[0] // VISION.patch_size[0]
    return BF16 * VISION.hidden_size * (side**2 + 1)


def image_tokens() -> int:
    side = VISION.image_size[0] // VISION.patch_size[0] // 2  # pixel shuffle by half a side
    return TILES * side**2


def stage_bytes(recipe: dict, counts: dict[str, int], largest: int, stage: str) -> dict:
    """Bytes for each number of GPUs and preset, and what does not depend on the preset."""
    prompt = TEXT_TOKENS + image_tokens()
    if stage == "grpo":
        tokens = recipe["per_device_train_batch_size"] * (prompt + recipe["max_completion_length"])
    else:  # chosen and rejected; `max_length` holds prompt and response
        tokens = 2 * recipe["per_device_train_batch_size"] * recipe["max_length"]
    activations = tokens * (kept_bytes_per_token() + recomputed_bytes_per_token())
    gathered = 2 * BF16 * largest  # this layer and the one that is fetched ahead
    reference = 0 if stage == "grpo" and recipe["beta"] == 0 else BF16 * sum(counts.values())
    return {
        "tokens_of_a_micro_batch": tokens,
        "activations": activations,
        "gathered_layers": gathered,
        "reference": reference,
        "per_gpu": {
            preset: {
                str(n): (state_bytes(counts, preset) + reference) // n
                + activations
                + gathered
                + ("vision" in parse_trainable(preset))
                * recipe["per_device_train_batch_size"]
                * tower_bytes_per_image()
                for n in NUM_GPUS
            }
            for preset in PRESETS
        },
    }


def checkpoint_bytes(counts: dict[str, int], trainable: str) -> int:
    """On disk: all weights in bfloat16, and what trains as a float32 copy with AdamW's two moments."""
    return sum(n * (BF16 + (name in parse_trainable(trainable)) * 3 * FP32) for name, n in counts.items())


def sampling_bytes(recipe: dict, counts: dict[str, int]) -> dict[str, int]:
    """
    Of a process that samples: the whole model, and keys and values of a batch with the longest prompts and responses.
    """
    tokens = recipe["batch_size"] * (TEXT_TOKENS + image_tokens() + recipe["max_new_tokens"])
    weights, key_values = BF16 * sum(counts.values()), tokens * key_value_bytes_per_token()
    return {
        "batch_size": recipe["batch_size"],
        "key_values": key_values,
        "weights_and_key_values": weights + key_values,
    }


def float32_bytes() -> dict[str, int]:
    """
    Of a process that trains InternVL3-1B (InternViT-300M, Qwen2.5-0.5B with a head of its own) in float32 under DDP.
    """
    llm = Qwen2Config(
        hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
        vocab_size=151674, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        # the vision tower is the configuration's default
        model = InternVLForConditionalGeneration(InternVLConfig(text_config=llm, tie_word_embeddings=False))
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for name, p in model.named_parameters() if component_of(name) != "vision")
    # weights, and for what trains its gradient, AdamW's two moments, and DDP's buckets of gradients
    grpo = FP32 * (total + 4 * trained)
    return {"parameters": total, "trained": trained, "grpo": grpo, "mpo": grpo + FP32 * total}


def compute(recipes: Path) -> dict:
    counts, largest = count_parameters()
    loaded = {
        stage: yaml.safe_load((recipes / f"{stage}.yaml").read_text())
        for stage in ("mpo", "grpo", "pairs", "filter_prompts")
    }
    sampling = {stage: sampling_bytes(loaded.pop(stage), counts) for stage in ("pairs", "filter_prompts")}
    grpo = loaded["grpo"]
    prompts = grpo["per_device_train_batch_size"] * grpo["gradient_accumulation_steps"] // grpo["num_generations"]
    length = TEXT_TOKENS + image_tokens() + grpo["max_completion_length"]
    parts = {"vision tower": counts["vision"], "adapter": counts["adapter"], "language model": counts["llm"]}
    parts["whole"] = sum(parts.values())
    return {
        "parameters": counts,
        "parts": {
            name: {"parameters": n, "weights": BF16 * n, "if it trains": BYTES_PER_PARAMETER["trained"] * n}
            for name, n in parts.items()
        },
        "bytes_per_parameter": BYTES_PER_PARAMETER,
        "weights": BF16 * sum(counts.values()),
        "state": {preset: state_bytes(counts, preset) for preset in PRESETS},
        "stages": {stage: stage_bytes(recipe, counts, largest, stage) for stage, recipe in loaded.items()},
        "sampling": sampling,
        "checkpoint": {stage: checkpoint_bytes(counts, recipe["trainable"]) for stage, recipe in loaded.items()},
        "checkpoints_on_disk": {
            # the oldest is deleted when the newest is written
            stage: checkpoint_bytes(counts, recipe["trainable"]) * (recipe["save_total_limit"] + 1)
            for stage, recipe in loaded.items()
        },
        "internvl3_1b": float32_bytes(),
        "image_tokens": image_tokens(),
        "completion_tokens": grpo["max_completion_length"],
        "key_values_of_a_token": key_value_bytes_per_token(),
        "key_values_of_a_group": key_value_bytes_per_token() * length * grpo["num_generations"],
        "features_of_a_tile": feature_bytes_per_tile(),
        "features_of_a_step": feature_bytes_per_tile() * TILES * prompts,
        "features_of_an_image": feature_bytes_per_tile() * TILES,
        "images_in_2GB": 2 * 10**9 // (feature_bytes_per_tile() * TILES),
    }


def table(result: dict) -> str:
    def show(value):
        return f"{value / 1e9:,.1f}"

    lines = [
        "| GB on each GPU | " + " | ".join(f"{n} GPUs" for n in NUM_GPUS) + " |",
        "|---|" + "---:|" * len(NUM_GPUS),
    ]
    for stage, figures in result["stages"].items():
        for preset, per_gpu in figures["per_gpu"].items():
            lines.append(f"| {stage}, `{preset}` | " + " | ".join(show(per_gpu[str(n)]) for n in NUM_GPUS) + " |")
    for stage, figures in result["stages"].items():
        lines.append(
            f"\n{stage}: {figures['tokens_of_a_micro_batch']:,} tokens a micro-batch, activations "
            f"{show(figures['activations'])} GB, gathered layers {show(figures['gathered_layers'])} GB."
        )
    for name in ("weights", "key_values_of_a_group", "features_of_a_step"):
        lines.append(f"{name}: {show(result[name])} GB")
    lines += [f"state, {preset}: {show(value)} GB" for preset, value in result["state"].items()]
    for stage, figures in result["sampling"].items():
        lines.append(
            f"{stage}: {figures['batch_size']} responses at once, keys and values {show(figures['key_values'])} GB, "
            f"with weights {show(figures['weights_and_key_values'])} GB a process"
        )
    for stage, size in result["checkpoint"].items():
        lines.append(f"{stage}: checkpoint {show(size)} GB, on disk {show(result['checkpoints_on_disk'][stage])} GB")
    small = result["internvl3_1b"]
    lines.append(f"InternVL3-1B in float32: grpo {show(small['grpo'])} GB, mpo {show(small['mpo'])} GB a process")
    lines.append(f"keys and values of a token: {result['key_values_of_a_token']:,} bytes")
    lines.append(
        f"features of a tile: {result['features_of_a_tile']:,} bytes; images in 2 GB: {result['images_in_2GB']}"
    )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", type=Path, default=Path("recipes/r1v2_38b"))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "memory.json")
    arguments = parser.parse_args()
    result = compute(arguments.recipes)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
