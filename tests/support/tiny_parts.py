# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Tiny parts for the VLM tests: a byte-level tokenizer with Qwen's chat format, a vision tower, a causal LM, all written
with `save_pretrained`. No training code and no assertions.
"""

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    InternVLVisionConfig,
    InternVLVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)


CHAT_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

LLM_CLASSES = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}


def make_tokenizer(extra_tokens: tuple[str, ...] = (), chat_template: str | None = CHAT_TEMPLATE):
    """A byte-level tokenizer: 256 bytes, Qwen's control tokens and `<think>` pair, then `extra_tokens`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    )
    backend.add_tokens([AddedToken(t, normalized=False) for t in ("<think>", "</think>")])
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in extra_tokens])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>"],
        chat_template=chat_template,
        model_max_length=512,
    )


def randomise(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Give every parameter (norms, biases and layer scales too) seeded random values, so that no mix-up is hidden."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.1 * noise if "norm" in name and name.endswith("weight") else 0.2 * noise)
    return model


def save_vision(folder: Path, seed: int = 1, **overrides) -> InternVLVisionModel:
    """A tower with RMSNorm and query-key norm: 28 px images, 7 px patches, a 4x4 grid."""
    settings = dict(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=28, patch_size=7,
        norm_type="rms_norm", use_qk_norm=True, attention_bias=False,
    )  # fmt: skip
    model = randomise(InternVLVisionModel(InternVLVisionConfig(**{**settings, **overrides})), seed).eval()
    model.save_pretrained(folder)
    return model


def save_llm(
    folder: Path,
    family: str = "qwen2",
    tied: bool = False,
    vocab_size: int | None = None,
    seed: int = 2,
    tokenizer=None,
):
    """
    A causal LM with its tokenizer; the embeddings have as many rows as the tokenizer has tokens, or `vocab_size`.
    """
    tokenizer = make_tokenizer() if tokenizer is None else tokenizer
    config_class, model_class = LLM_CLASSES[family]
    config = config_class(
        vocab_size=vocab_size or len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, intermediate_size=48, max_position_embeddings=512, tie_word_embeddings=tied,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = randomise(model_class(config), seed).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model
