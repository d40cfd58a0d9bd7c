# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The parts of the digit tasks' vision-language model: a reasoning language model with its tokenizer, a vision tower.

Scope: native `transformers` classes trained from scratch in seconds on a CPU, each in the layout of its large
counterpart (ChatML and `<think>` as QwQ, RMS norm and normalised queries and keys as InternViT-6B).
Not covered: joining the parts (`trl_r1v2.vlm.compose`), alignment (`trl_r1v2/scripts/align.py`).
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from datasets import Dataset
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import (
    GotOcr2ImageProcessor,
    InternVLVisionConfig,
    InternVLVisionModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from .data import SCAN_SIZE


END_OF_TEXT, START_OF_TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# ChatML
CHAT_TEMPLATE = """\
{%- for message in messages -%}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
# What BPE may merge: LaTeX's box, a word, one digit, a run of punctuation, each with the space before it; white space.
PIECES = r"\\boxed\{| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}\\]+|\s+|\\"
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def train_tokenizer(texts: Iterator[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """
    Train a byte-level BPE tokenizer that never merges two digits.

    `<think>` and `</think>` are one token each and are kept when special tokens are skipped, so rewards see them.

    Args:
        texts (`Iterator[str]`): Training text.
        vocab_size (`int`): Upper bound of the vocabulary, special tokens and 256 bytes included.

    Returns:
        [`~transformers.PreTrainedTokenizerFast`]: With ChatML template, `<|im_end|>` as end of sequence and
        `<|endoftext|>` as padding.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, START_OF_TURN, END_OF_TURN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in ("<think>", "</think>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        chat_template=CHAT_TEMPLATE,
        model_max_length=512,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def new_language_model(tokenizer: PreTrainedTokenizerFast, hidden_size: int, num_layers: int) -> Qwen2ForCausalLM:
    """
    A Qwen2 model with random weights and untied embeddings, as QwQ has them, that stops at the end of a turn.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerFast`]): Gives the vocabulary and the special ids.
        hidden_size (`int`): Width; a multiple of 32, the width of a head.
        num_layers (`int`): Depth.

    Returns:
        [`~transformers.Qwen2ForCausalLM`]: In training mode.
    """
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 32,
        num_key_value_heads=hidden_size // 32,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        initializer_range=0.06,  # about 1/sqrt(fan in) at this width
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


def new_vision_tower(hidden_size: int, num_layers: int) -> InternVLVisionModel:
    """
    An InternViT with random weights for 28×28 tiles, in the variant of InternViT-6B: RMS norm, normalised queries and
    keys, no query bias. Its 4×4 patches give 2×2 tokens a tile after pixel shuffle.

    Args:
        hidden_size (`int`): Width; a multiple of 32, the width of a head.
        num_layers (`int`): Depth.

    Returns:
        [`~transformers.InternVLVisionModel`]: In training mode.
    """
    config = InternVLVisionConfig(
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 32,
        attention_bias=False,
        use_qk_norm=True,
        norm_type="rms_norm",
        image_size=SCAN_SIZE,
        patch_size=SCAN_SIZE // 4,
        initializer_range=0.1,
        layer_scale_init_value=1.0,  # two layers need no damping; InternViT-6B's 45 start from 0.1
    )
    return InternVLVisionModel(config)


def new_image_processor() -> GotOcr2ImageProcessor:
    """The tiling image processor of InternVL for 28×28 tiles."""
    return GotOcr2ImageProcessor(
        size={"height": SCAN_SIZE, "width": SCAN_SIZE},
        image_mean=IMAGENET_MEAN,
        image_std=IMAGENET_STD,
        crop_to_patches=True,
    )


def fit(
    parameters: list[torch.nn.Parameter],
    loss: Callable[[], torch.Tensor],
    num_steps: int,
    learning_rate: float,
    description: str,
) -> float:
    """
    Minimise `loss` with AdamW: one call a step, 5 % warm-up, linear decay to zero.

    Args:
        parameters (`list[torch.nn.Parameter]`): What is trained.
        loss (`Callable[[], torch.Tensor]`): Draws a batch and returns its scalar loss.
        num_steps (`int`): Optimiser steps.
        learning_rate (`float`): Peak learning rate.
        description (`str`): Label of the progress bar.

    Returns:
        `float`: The last step's loss.
    """
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    warmup = max(1, num_steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (num_steps - step) / max(1, num_steps - warmup))
    )
    progress = tqdm(range(num_steps), desc=description, mininterval=2.0)
    for step in progress:
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            progress.set_postfix(loss=f"{value.item():.3f}")
    return value.item()


def train_language_model(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    dataset: Dataset,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> float:
    """
    Train on prompts and completions; only the completion counts.

    Args:
        model ([`~transformers.Qwen2ForCausalLM`]): Trained in place.
        tokenizer ([`~transformers.PreTrainedTokenizerFast`]): Renders the turns.
        dataset ([`~datasets.Dataset`]): Columns `prompt` and `completion`, as messages.
        num_steps, batch_size (`int`): Optimiser steps, and sequences in each.
        learning_rate (`float`): Peak learning rate.
        seed (`int`): Seed of the batches.

    Returns:
        `float`: The last step's loss (nats a token).
    """
    rows = list(dataset)
    prompts = tokenizer.apply_chat_template(
        [row["prompt"] for row in rows], add_generation_prompt=True, tokenize=False
    )
    whole = tokenizer.apply_chat_template([row["prompt"] + row["completion"] for row in rows], tokenize=False)
    encoded = tokenizer(whole, padding=True, padding_side="right", return_tensors="pt")
    prompt_lengths = torch.tensor([len(ids) for ids in tokenizer(prompts)["input_ids"]])
    in_prompt = torch.arange(encoded["input_ids"].size(1)) < prompt_lengths[:, None]
    labels = encoded["input_ids"].masked_fill(in_prompt | (encoded["attention_mask"] == 0), -100)
    generator = torch.Generator().manual_seed(seed)

    def loss() -> torch.Tensor:
        index = torch.randint(len(rows), (batch_size,), generator=generator)
        length = int(encoded["attention_mask"][index].sum(dim=1).max())
        return model(
            input_ids=encoded["input_ids"][index, :length],
            attention_mask=encoded["attention_mask"][index, :length],
            labels=labels[index, :length],
        ).loss

    model.train()
    return fit(list(model.parameters()), loss, num_steps, learning_rate, "language model")


def train_vision_tower(
    model: InternVLVisionModel,
    image_processor: GotOcr2ImageProcessor,
    dataset: Dataset,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> torch.nn.Linear:
    """
    Train on digit classification from the mean of the patch tokens, each scan shifted by up to two pixels.

    Args:
        model ([`~transformers.InternVLVisionModel`]): Trained in place.
        image_processor ([`~transformers.GotOcr2ImageProcessor`]): Makes the pixel values.
        dataset ([`~datasets.Dataset`]): Columns `image` and `label`.
        num_steps, batch_size (`int`): Optimiser steps, and scans in each.
        learning_rate (`float`): Peak learning rate.
        seed (`int`): Seed of the batches and shifts.

    Returns:
        `torch.nn.Linear`: The classification head, which the composed model does not need.
    """
    margin = 2
    pixels = image_processor(images=list(dataset["image"]), return_tensors="pt")["pixel_values"]
    padded = F.pad(pixels, [margin] * 4, mode="replicate")
    labels = torch.tensor(dataset["label"])
    head = torch.nn.Linear(model.config.hidden_size, 10)
    generator = torch.Generator().manual_seed(seed)

    def loss() -> torch.Tensor:
        index = torch.randint(len(labels), (batch_size,), generator=generator)
        shifts = torch.randint(2 * margin + 1, (batch_size, 2), generator=generator).tolist()
        batch = torch.stack(
            [padded[i, :, y : y + SCAN_SIZE, x : x + SCAN_SIZE] for i, (y, x) in zip(index, shifts, strict=True)]
        )
        return F.cross_entropy(classify(model, head, batch), labels[index])

    model.train()
    fit([*model.parameters(), *head.parameters()], loss, num_steps, learning_rate, "vision tower")
    return head


def classify(model: InternVLVisionModel, head: torch.nn.Linear, pixel_values: torch.Tensor) -> torch.Tensor:
    """Class logits `(batch_size, 10)` of tiles `(batch_size, 3, 28, 28)`, from the mean of the patch tokens."""
    return head(model(pixel_values=pixel_values).last_hidden_state[:, 1:].mean(dim=1))


@torch.no_grad()
def classification_accuracy(
    model: InternVLVisionModel, head: torch.nn.Linear, image_processor: GotOcr2ImageProcessor, dataset: Dataset
) -> float:
    """Share of the scans in `dataset` (columns `image`, `label`) that are classified right."""
    model.eval()
    pixels = image_processor(images=list(dataset["image"]), return_tensors="pt")["pixel_values"]
    predictions = classify(model, head, pixels).argmax(dim=1)
    return (predictions == torch.tensor(dataset["label"])).float().mean().item()
