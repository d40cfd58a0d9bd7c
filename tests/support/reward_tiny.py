# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Tiny vision-language models, pairs with images, and the reward loss written out a second time."""

import math
from pathlib import Path

import torch
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.support.tiny_models import CHAT_TEMPLATE, build_tokenizer, text_config
from trl_r1v2.rewards import VisionRewardConfig, VisionRewardTrainer, load_trainable


def picture(seed: int, width: int = 28, height: int = 28) -> PILImage.Image:
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return PILImage.fromarray(pixels.to(torch.uint8).numpy())


def pair(seed: int, num_images: int, margin: float | None = None) -> dict:
    """A pair whose responses differ in length; every second image is cut into tiles."""
    parts = [{"type": "image", "text": None}] * num_images + [{"type": "text", "text": f"question {seed}?"}]
    row = {
        "prompt": [{"role": "user", "content": parts}],
        "chosen": [{"role": "assistant", "content": f"<think>I see {seed}</think>yes, number {seed}"}],
        "rejected": [{"role": "assistant", "content": f"no {seed * 7 % 10}"}],
        "images": [picture(10 * seed + i, width=28 * (1 + i % 2)) for i in range(num_images)],
    }
    return row if margin is None else {**row, "margin": margin}


def pairs(num_images: list[int], margins: list[float] | None = None) -> Dataset:
    rows = [pair(i + 1, count, margins and margins[i]) for i, count in enumerate(num_images)]
    part = {"type": Value("string"), "text": Value("string")}
    answer = List({"role": Value("string"), "content": Value("string")})
    features = {
        "prompt": List({"role": Value("string"), "content": List(part)}),
        "chosen": answer,
        "rejected": answer,
        "images": List(Image()),
    }
    if margins:
        features["margin"] = Value("float64")
    return Dataset.from_list(rows, features=Features(features))


def conversation(row: dict, side: str) -> list[dict]:
    images = iter(row["images"])
    content = [
        {"type": "image", "image": next(images)} if part["type"] == "image" else {"type": "text", "text": part["text"]}
        for part in row["prompt"][0]["content"]
    ]
    response = {"role": "assistant", "content": [{"type": "text", "text": row[side][0]["content"]}]}
    return [{"role": "user", "content": content}, response]


class PlainReward:
    """The language model of a folder in float64 with a linear layer beside it; one unpadded conversation at a time."""

    def __init__(self, path: str, weight: torch.Tensor, bias: torch.Tensor):
        self.model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float64).train()
        self.processor = AutoProcessor.from_pretrained(path)
        self.weight = weight.double().reshape(-1).clone().requires_grad_()
        self.bias = bias.double().reshape(()).clone().requires_grad_()

    @classmethod
    def from_reward_folder(cls, path: str) -> "PlainReward":
        head = load_file(Path(path) / "value_head.safetensors")
        return cls(path, head["language_model.score.weight"], head["language_model.score.bias"])

    def score(self, messages: list[dict]) -> torch.Tensor:
        images = [part["image"] for part in messages[0]["content"] if part["type"] == "image"]
        text = self.processor.apply_chat_template(messages, add_generation_prompt=False)
        inputs = self.processor(text=[text], images=images or None, return_tensors="pt")
        hidden = self.model(**inputs, output_hidden_states=True).hidden_states[-1][0, -1]
        return (self.weight * hidden).sum() + self.bias

    def loss(self, rows: list[dict], center: float = 0.0) -> tuple[torch.Tensor, list[float], list[float]]:
        """Mean over pairs of `log(1 + exp(-(s⁺ - s⁻ - m))) + c (s⁺ + s⁻)²`, and the scores."""
        total, chosen_scores, rejected_scores = 0.0, [], []
        for row in rows:
            chosen, rejected = (self.score(conversation(row, side)) for side in ("chosen", "rejected"))
            gap = chosen - rejected - row.get("margin", 0.0)
            total = total + torch.log1p(torch.exp(-gap)) + center * (chosen + rejected) ** 2
            chosen_scores.append(chosen.item())
            rejected_scores.append(rejected.item())
        return total / len(rows), chosen_scores, rejected_scores

    def image_loss(self, rows: list[dict], partners: dict[int, int]) -> torch.Tensor:
        """Mean over the rows with a partner of `log(1 + exp(-(s(x, y⁺) - s(x', y⁺))))`."""
        total = 0.0
        for row, other in partners.items():
            swapped = {**rows[row], "images": rows[other]["images"]}
            own, elsewhere = (self.score(conversation(item, "chosen")) for item in (rows[row], swapped))
            total = total + torch.log1p(torch.exp(elsewhere - own))
        return total / len(partners)

    def gradients(self) -> dict[str, torch.Tensor]:
        found = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        found["value_head.summary.weight"] = self.weight.grad.reshape(1, -1)
        found["value_head.summary.bias"] = self.bias.grad.reshape(1)
        return found


def settings(folder, **changes) -> dict:
    """Arguments of a short, quiet run on the CPU whose steps are the negative gradients."""
    return {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "optim": "sgd",
        "learning_rate": 1.0,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "per_device_train_batch_size": 4,
        "max_steps": 1,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **changes,
    }


def train(folder, model, dataset, **changes) -> VisionRewardTrainer:
    trainer = VisionRewardTrainer(model, VisionRewardConfig(**settings(folder, **changes)), train_dataset=dataset)
    trainer.train()
    return trainer


def build_reward_model(path: str, folder: Path) -> str:
    """A reward model with a head large enough for scores to differ."""
    model = load_trainable(path)
    torch.nn.init.normal_(model.value_head.summary.weight, generator=torch.Generator().manual_seed(3))
    model.value_head.summary.bias.data.fill_(0.25)
    model.save_pretrained(folder)
    AutoProcessor.from_pretrained(path).save_pretrained(folder)
    return str(folder)


def logged(trainer, key: str) -> list[float]:
    return [float(entry[key]) for entry in trainer.state.log_history if key in entry]


def is_close(values, expected, tolerance: float) -> bool:
    return len(values) == len(expected) and all(
        math.isclose(a, b, rel_tol=0, abs_tol=tolerance) for a, b in zip(values, expected, strict=True)
    )


def build_qwen_vl(folder: Path) -> str:
    """A tiny Qwen2.5-VL, the family of the published reward model."""
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    vision = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tokenizer = build_tokenizer(vision)
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    text = text_config(tokenizer).to_dict()
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    text.pop("model_type")
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 16,
            "patch_size": 14,
            "window_size": 56,
            "fullatt_block_indexes": [0],
        },
        tie_word_embeddings=False,
        **dict(zip(names, tokenizer.convert_tokens_to_ids(list(vision)), strict=True)),
    )
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
    template = CHAT_TEMPLATE.replace("<IMG_CONTEXT>", "<|vision_start|><|image_pad|><|vision_end|>")
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=28 * 28 * 6),
        tokenizer,
        Qwen2VLVideoProcessor(),
        chat_template=template,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)
