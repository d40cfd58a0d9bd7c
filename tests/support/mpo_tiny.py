# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Tiny policies, processors and preference data for the MPO tests, all made on the spot."""

import copy
from pathlib import Path

import torch
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)


SPECIAL_TOKENS = ["<pad>", "<eos>", "<unk>", "<img>", "</img>", "<image>", "<video>", "<user>", "<assistant>"]
WORDS = [f"w{i}" for i in range(40)]
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<' + m['role'] + '> ' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image> ' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ ' ' }}{% if m['role'] == 'assistant' %}{{ '<eos>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant> ' }}{% endif %}"
)
TILE, PATCH = 16, 4
TOKENS_PER_TILE = (TILE // PATCH) ** 2 // 4


def make_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=SPECIAL_TOKENS[3:],
        extra_special_tokens={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<image>",
            "video_token": "<video>",
        },
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_processor() -> InternVLProcessor:
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(
            size={"height": TILE, "width": TILE}, crop_to_patches=True, min_patches=1, max_patches=4
        ),
        tokenizer=make_tokenizer(),
        video_processor=InternVLVideoProcessor(),
        image_seq_length=TOKENS_PER_TILE,
        chat_template=CHAT_TEMPLATE,
    )


def _text_config(tokenizer: PreTrainedTokenizerFast) -> dict:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 256,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": False,
    }


def _spread(model: torch.nn.Module) -> None:
    """Larger weights than at initialization, so that outputs depend visibly on prompt and image."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)


def make_text_model(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(Qwen2Config(**_text_config(tokenizer)))
    _spread(model)
    return model


def make_moe_model(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> Qwen3MoeForCausalLM:
    torch.manual_seed(seed)
    config = Qwen3MoeConfig(
        **_text_config(tokenizer),
        moe_intermediate_size=16,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        router_aux_loss_coef=0.5,
    )
    return Qwen3MoeForCausalLM(config)


def make_vlm(processor: InternVLProcessor, seed: int = 0) -> InternVLForConditionalGeneration:
    torch.manual_seed(seed)
    config = InternVLConfig(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": [TILE, TILE],
            "patch_size": [PATCH, PATCH],
        },
        text_config={"model_type": "qwen2", **_text_config(processor.tokenizer)},
        image_token_id=processor.image_token_id,
        image_seq_length=TOKENS_PER_TILE,
        tie_word_embeddings=False,
    )
    model = InternVLForConditionalGeneration(config)
    _spread(model)
    return model


def moved_copy(model: torch.nn.Module, seed: int = 7, scale: float = 0.2) -> torch.nn.Module:
    """A reference that differs from the policy, so that rewards are not zero at the first step."""
    reference = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in reference.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            parameter.add_(noise.to(parameter.dtype), alpha=scale * float(parameter.abs().mean()))
    return reference


def _sentence(generator: torch.Generator, shortest: int, longest: int) -> str:
    length = int(torch.randint(shortest, longest + 1, (), generator=generator))
    return " ".join(WORDS[i] for i in torch.randint(0, len(WORDS), (length,), generator=generator))


def text_pairs(num_rows: int, seed: int = 0) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    rows = [
        {
            "prompt": [{"role": "user", "content": _sentence(generator, 2, 6)}],
            "chosen": [{"role": "assistant", "content": _sentence(generator, 1, 9)}],
            "rejected": [{"role": "assistant", "content": _sentence(generator, 1, 9)}],
        }
        for _ in range(num_rows)
    ]
    return Dataset.from_list(rows)


def make_image(seed: int, width: int = TILE, height: int = TILE, mode: str = "RGB") -> PILImage.Image:
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return PILImage.fromarray(pixels.to(torch.uint8).numpy()).convert(mode)


def image_rows(num_images: list[int], seed: int = 0) -> list[dict]:
    """Rows with the given numbers of images; every second image is twice as wide and is cut into tiles."""
    rows = text_pairs(len(num_images), seed).to_list()
    next_image = 100 * seed
    for row, count in zip(rows, num_images, strict=True):
        row["images"] = []
        for _ in range(count):
            row["images"].append(make_image(next_image, width=TILE * (1 + next_image % 2)))
            next_image += 1
    return rows


def image_pairs(num_images: list[int], seed: int = 0) -> Dataset:
    message = List({"role": Value("string"), "content": Value("string")})
    features = Features({"prompt": message, "chosen": message, "rejected": message, "images": List(Image())})
    return Dataset.from_list(image_rows(num_images, seed), features=features)


def training_args(output_dir: Path, **kwargs) -> dict:
    """Arguments of a short, quiet run in float32 on the CPU, whose step sizes are proportional to the gradient."""
    return {
        "output_dir": str(output_dir),
        "use_cpu": True,
        "bf16": False,
        "optim": "sgd",
        "learning_rate": 0.05,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": 2,
        "max_steps": 3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **kwargs,
    }


def logged(trainer, key: str) -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]
