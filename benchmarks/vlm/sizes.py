# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Parameters and bytes of an R1V2-sized model, counted on the meta device from the sizes of its parts: InternViT-6B (45
layers, 448 px) and QwQ-32B. Nothing is loaded or run.

```shell
python -m benchmarks.vlm.sizes --output benchmarks/vlm/sizes.json
```
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLVisionConfig, Qwen2Config

from trl_r1v2.vlm.activation import COMPONENTS, component_of


VISION = InternVLVisionConfig(
    hidden_size=3200, num_hidden_layers=45, num_attention_heads=25, intermediate_size=12800, norm_type="rms_norm",
    use_qk_norm=True, attention_bias=False, image_size=448, patch_size=14,
)  # fmt: skip
LLM = Qwen2Config(
    hidden_size=5120, num_hidden_layers=64, num_attention_heads=40, num_key_value_heads=8, intermediate_size=27648,
    vocab_size=152064, tie_word_embeddings=False,
)  # fmt: skip
BYTES = 2  # bfloat16


def main() -> None:
    parser = argparse.ArgumentParser(description="Count parameters and bytes of an R1V2-sized model.")
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the results.")
    args = parser.parse_args()
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(
            InternVLConfig(vision_config=VISION, text_config=LLM, tie_word_embeddings=False)
        )
    parameters = dict.fromkeys(COMPONENTS, 0)
    largest = 0
    for name, parameter in model.named_parameters():
        parameters[component_of(name)] += parameter.numel()
        largest = max(largest, parameter.numel())
    tokens = (448 // 14) ** 2 + 1
    result = {
        "parameters": parameters,
        "checkpoint_bytes": BYTES * sum(parameters.values()),
        "largest_tensor_bytes": BYTES * largest,
        "features_of_a_tile_bytes": BYTES * tokens * VISION.hidden_size,
        "tiles_in_2GB": 2 * 10**9 // (BYTES * tokens * VISION.hidden_size),
    }
    args.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
