# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Short training runs on tiny models, shared by the trainer's tests."""

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from trl_r1v2 import SSBGRPOConfig, SSBGRPOTrainer


def text_dataset(num_rows: int = 12) -> Dataset:
    """Prompts of different lengths; `fate` says what the test rewards do with the row's group."""
    return Dataset.from_list(
        [
            {"prompt": [{"role": "user", "content": "n" * (1 + row % 4) + str(row)}], "row": row, "fate": "mixed"}
            for row in range(num_rows)
        ]
    )


def image(seed: int, tiles: int = 1) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (28, 28 * tiles, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def image_dataset(num_rows: int = 12, layouts=((1, 1), (2,), (1,))) -> Dataset:
    """Rows with two images, one image of two tiles and a thumbnail, and one image, in turn."""
    rows = []
    for row in range(num_rows):
        layout = layouts[row % len(layouts)]
        rows.append(
            {
                "prompt": [{"role": "user", "content": "n" * (1 + row % 3) + str(row)}],
                "images": [image(100 * row + i, tiles) for i, tiles in enumerate(layout)],
                "row": row,
                "fate": "mixed",
            }
        )
    return Dataset.from_list(rows)


def mixed_dataset(num_rows: int = 12) -> Dataset:
    """Rows with images, and rows with none."""
    return image_dataset(num_rows, layouts=((2,), (), (1, 1), (), (1,)))


class TextAmongImagesGRPOTrainer(GRPOTrainer):
    """
    Stock TRL with its two defects on text rows among image rows mended: image processors refuse `None`, and vision
    towers refuse zero tiles.
    """

    def _generate(self, prompts):
        *output, images, tool_images = super()._generate(prompts)
        return *output, images if images is None else [row or [] for row in images], tool_images

    def _get_per_token_logps_and_entropies(self, model, *args, **kwargs):
        forward = model.forward

        def without_empty_pixels(*forward_args, pixel_values=None, **forward_kwargs):
            if pixel_values is not None and len(pixel_values) > 0:
                forward_kwargs["pixel_values"] = pixel_values
            return forward(*forward_args, **forward_kwargs)

        model.forward = without_empty_pixels
        try:
            return super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        finally:
            model.forward = forward


class CorrectedLossGRPOTrainer(GRPOTrainer):
    """Computes its loss as with vLLM, whose importance ratios the batch holds."""

    def _compute_loss(self, model, inputs):
        self.use_vllm = True
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self.use_vllm = False


def mixed_reward(completion_ids, **kwargs):
    """Depends on the completion only, and spreads within nearly every group."""
    return [float(sum(ids) % 5) for ids in completion_ids]


def spread_reward(completion_ids, **kwargs):
    """Never flat within a group of four."""
    return [float(index % 4) for index, _ in enumerate(completion_ids)]


def make_trainer(cls, model_path, output_dir, dataset, reward_funcs=mixed_reward, model=None, **settings):
    """A trainer of class `cls` over a freshly loaded model."""
    is_vlm = bool({"images", "image"} & set(dataset.column_names or dataset.features))
    auto = AutoModelForImageTextToText if is_vlm else AutoModelForCausalLM
    processing_class = (AutoProcessor if is_vlm else AutoTokenizer).from_pretrained(model_path, padding_side="left")
    config = SSBGRPOConfig if issubclass(cls, SSBGRPOTrainer) else GRPOConfig
    defaults = {
        "output_dir": str(output_dir),
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 6,
        "max_steps": 4,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "loss_type": "grpo",
        "seed": 3,
    }
    names = set(config.__dataclass_fields__)
    settings = {
        name: value for name, value in (defaults | settings).items() if name in names or not name.startswith("ssb_")
    }
    names = ("peft_config", "quantization_config", "callbacks", "tools")
    trainer_only = {name: settings.pop(name) for name in names if name in settings}
    return cls(
        model=auto.from_pretrained(model_path, dtype=torch.float32) if model is None else model,
        reward_funcs=reward_funcs,
        args=config(**settings),
        train_dataset=dataset,
        processing_class=processing_class,
        **trainer_only,
    )


def losses(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def parameters(trainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}


def assert_identical(first, second) -> None:
    """Same losses and same parameters, to the last bit."""
    assert losses(first) == losses(second)
    ours, theirs = parameters(first), parameters(second)
    assert ours.keys() == theirs.keys()
    differing = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not differing


__all__ = [
    "GRPOTrainer",
    "SSBGRPOTrainer",
    "CorrectedLossGRPOTrainer",
    "TextAmongImagesGRPOTrainer",
    "assert_identical",
    "image_dataset",
    "losses",
    "make_trainer",
    "mixed_dataset",
    "mixed_reward",
    "parameters",
    "spread_reward",
    "text_dataset",
]
