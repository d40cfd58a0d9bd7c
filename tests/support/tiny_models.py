# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Builders of the tiny checkpoints that tests train."""

import string
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)


SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
IMAGE_TOKENS = ["<img>", "</img>", "<IMG_CONTEXT>", "<video>"]
CHAT_TEMPLATE = (
    "{%- for message in messages -%}{{ '<|im_start|>' + message.role + '\n' }}"
    "{%- if message.content is string -%}{{ message.content }}"
    "{%- else -%}{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}{{ '<IMG_CONTEXT>\n' }}{%- else -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{{ '<|im_end|>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)


def build_tokenizer(extra_tokens: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """One token a printable character, so that every string survives encoding and decoding."""
    characters = sorted(set(string.printable) - set("\r\x0b\x0c"))
    vocabulary = {token: i for i, token in enumerate([*SPECIAL_TOKENS, *extra_tokens, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([*SPECIAL_TOKENS[:3], *extra_tokens])
    tokenizer.add_tokens(SPECIAL_TOKENS[3:])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        extra_special_tokens=dict(
            zip(
                ("start_image_token", "end_image_token", "context_image_token", "video_token"),
                extra_tokens,
                strict=False,
            )
        ),
    )


def text_config(tokenizer: PreTrainedTokenizerFast, **overrides) -> Qwen2Config:
    values = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        # Large enough for the tiny model to prefer some tokens over others.
        "initializer_range": 0.3,
    }
    return Qwen2Config(**(values | overrides))


def build_qwen2(folder: Path, seed: int = 0, **overrides) -> str:
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(text_config(tokenizer, **overrides))
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def build_internvl(folder: Path, seed: int = 0, max_patches: int = 4, **overrides) -> str:
    tokenizer = build_tokenizer(tuple(IMAGE_TOKENS))
    config = InternVLConfig(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 7,
            "norm_type": "rms_norm",
            "use_qk_norm": True,
            "initializer_range": 0.3,
        },
        text_config=text_config(tokenizer, **overrides).to_dict(),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = InternVLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    size = {"height": 28, "width": 28}
    mean_std = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(
            size=size, crop_to_patches=True, min_patches=1, max_patches=max_patches, **mean_std
        ),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size=size, **mean_std),
        image_seq_length=4,
        chat_template=CHAT_TEMPLATE,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)
