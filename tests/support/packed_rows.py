# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Tiny models of the architectures that share prompts, and micro-batches of rows that have some."""

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    InternVLConfig,
    InternVLForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)
from trl.trainer.utils import add_fused_lm_head


VOCABULARY, IMAGE_TOKEN = 64, 60
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
    "tie_word_embeddings": False,
}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
OVERRIDES = {"qwen3": {"head_dim": 8}, "qwen3_moe": MOE, "mistral": {"sliding_window": None}}
TEXT_MODELS = ("llama", "mistral", "qwen2", "qwen3", "qwen3_moe")
IMAGE_MODELS = ("internvl", "qwen2_vl", "qwen2_5_vl")
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}}


def make_model(kind: str, attention: str = "sdpa", **overrides):
    """A model with TRL's fused head, in training mode; the same weights each time."""
    torch.manual_seed(0)
    if kind in TEXT_MODELS:
        config = CONFIG_MAPPING[kind](**{**TEXT, **OVERRIDES.get(kind, {}), **overrides})
        model = AutoModelForCausalLM.from_config(config)
    elif kind == "internvl":
        model = InternVLForConditionalGeneration(
            InternVLConfig(
                vision_config={
                    "hidden_size": 16,
                    "intermediate_size": 32,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 2,
                    "image_size": [16, 16],
                    "patch_size": [4, 4],
                    "initializer_range": 0.3,
                },
                text_config={"model_type": "qwen2", **TEXT, **overrides},
                image_token_id=IMAGE_TOKEN,
                image_seq_length=4,
                tie_word_embeddings=False,
            )
        )
    else:
        config_class, model_class = {
            "qwen2_vl": (Qwen2VLConfig, Qwen2VLForConditionalGeneration),
            "qwen2_5_vl": (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration),
        }[kind]
        vision = {"depth": 1, "num_heads": 2, "patch_size": 4, "initializer_range": 0.3}
        if kind == "qwen2_vl":
            vision |= {"embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2}
        else:
            vision |= {"hidden_size": 16, "out_hidden_size": 32, "intermediate_size": 32, "window_size": 16}
            vision |= {"fullatt_block_indexes": [0]}
        ids = {"image_token_id": IMAGE_TOKEN, "video_token_id": 61, "vision_start_token_id": 62}
        model = model_class(
            config_class(
                text_config={**TEXT, **MROPE, **overrides},
                vision_config=vision,
                vision_end_token_id=63,
                tie_word_embeddings=False,
                **ids,
            )
        )
    model.set_attn_implementation(attention)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1"))
    return model.train()


def make_rows(
    kind: str, groups: list[list[int]], images: list[int] | None = None, masked: tuple[int, ...] = (), seed: int = 0
) -> dict[str, torch.Tensor]:
    """
    Padded rows as `GRPOTrainer` makes them, and their labels.

    Args:
        kind (`str`): Of the model.
        groups (`list[list[int]]`): Answer lengths of each prompt's rows.
        images (`list[int]`, *optional*): Number of images of each prompt.
        masked (`tuple[int, ...]`): Rows whose answer is masked out, as `mask_truncated_completions` does it.
        seed (`int`): Of the tokens.
    """
    generator = torch.Generator().manual_seed(seed)
    prompts, answers, pixels, grids = [], [], [], []
    for number, lengths in enumerate(groups):
        parts = [torch.randint(2, 50, (3 + 2 * number,), generator=generator)]
        prompt_pixels, prompt_grids = [], []
        for image in range(images[number] if images else 0):
            if kind == "internvl":
                tiles = 1 + image % 2
                prompt_pixels.append(torch.randn(tiles, 3, 16, 16, generator=generator))
                num_tokens = 4 * tiles
            else:
                grid = [1, 2, 4] if image % 2 else [1, 4, 4]
                prompt_grids.append(torch.tensor([grid]))
                size = grid[1] * grid[2]
                prompt_pixels.append(torch.randn(size, 3 * 2 * 4 * 4, generator=generator))
                num_tokens = size // 4
            parts += [torch.tensor([62]), torch.full((num_tokens,), IMAGE_TOKEN), torch.tensor([63])]
            parts.append(torch.randint(2, 50, (2,), generator=generator))
        prompt = torch.cat(parts)
        for length in lengths:
            prompts.append(prompt)
            answers.append(torch.randint(2, 50, (length,), generator=generator))
            pixels += prompt_pixels
            grids += prompt_grids
    width, answer_width = max(map(len, prompts)), max(map(len, answers))
    ids = torch.zeros(len(prompts), width + answer_width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids[row, width - len(prompt) : width] = prompt
        mask[row, width - len(prompt) : width] = 1
        ids[row, width : width + len(answer)] = answer
        mask[row, width : width + len(answer)] = 0 if row in masked else 1
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :width] = -100
    rows = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    if images and sum(images):
        rows["pixel_values"] = torch.cat(pixels)
        if grids:
            rows["image_grid_thw"] = torch.cat(grids)
            rows["mm_token_type_ids"] = (ids == IMAGE_TOKEN).int()
    return rows
