# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Every trainer and sampler shows the model one and the same picture of a row, and ordinary pictures unchanged."""

import io

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image, ImageDraw
from transformers import AutoProcessor, Trainer
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from trl_r1v2 import SSBGRPOConfig, SSBGRPOTrainer
from trl_r1v2.images.processing import load_image
from trl_r1v2.images.prompt_images import process_row
from trl_r1v2.images.rows import RGBImageCollator
from trl_r1v2.mpo.collator import MPOVisionDataCollator
from trl_r1v2.patches.text_among_images import rows_with_images
from trl_r1v2.rewards import VisionRewardDataCollator
from trl_r1v2.sampling.prompts import encode_prompts, fill_images
from trl_r1v2.scripts import align, grpo, mpo, reward
from trl_r1v2.scripts.parser import parser_of


SIZE = 28


def line_on_transparency() -> Image.Image:
    image = Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 0))
    ImageDraw.Draw(image).line((3, 3, 24, 24), fill=(0, 0, 0, 255), width=3)
    return image


def turned_photo() -> Image.Image:
    """Black at the top as stored; its orientation says that the top is on the right."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.full((SIZE, SIZE, 3), 255, dtype=np.uint8)
    pixels[:10] = 0
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", exif=exif)
    return Image.open(io.BytesIO(buffer.getvalue()))


def noise(mode: str) -> Image.Image:
    shape = (SIZE, SIZE, 3) if mode == "RGB" else (SIZE, SIZE)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


PICTURES = {
    "transparent": line_on_transparency,
    "grey16": lambda: Image.fromarray(np.linspace(0, 65535, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)),
    "turned": turned_photo,
    "grey": lambda: noise("L"),
    "rgb": lambda: noise("RGB"),
}


@pytest.fixture(scope="module")
def processor(internvl_path):
    return AutoProcessor.from_pretrained(internvl_path)


def row(image: Image.Image) -> dict:
    said = {name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected", "completion")}
    return {"prompt": [{"role": "user", "content": "What is it?"}], "images": [image], **said}


def pixels(processor, image: Image.Image) -> torch.Tensor:
    return processor(images=[[image]], text=["<IMG_CONTEXT>"], return_tensors="pt")["pixel_values"]


@pytest.mark.parametrize("name", PICTURES)
def test_every_path_gives_the_picture_of_load_image(name, processor):
    expected = pixels(processor, load_image(PICTURES[name]()))
    assert expected.unique().numel() > 3  # black and white, in three channels, at least

    def without(example, *columns):
        return [{name: value for name, value in example.items() if name not in columns}]

    collate = RGBImageCollator(DataCollatorForVisionLanguageModeling(processor))
    make = {
        "mpo": lambda r: MPOVisionDataCollator(processor)(without(r, "completion")),
        "reward": lambda r: VisionRewardDataCollator(processor)([r]),
        "align": lambda r: collate(without(r, "chosen", "rejected")),
        "replay": lambda r: process_row(
            rows_with_images(without(r, "chosen", "rejected", "completion"))[0], processor, {}
        ),
        "sampling": lambda r: encode_prompts(processor, [fill_images(r, 0)]),
    }
    for path, batch in make.items():
        made = batch(row(PICTURES[name]()))["pixel_values"]
        assert len(made) in (1, 2) and all(torch.equal(tile, expected[0]) for tile in made), path
    single = row(PICTURES[name]())
    single["image"] = single.pop("images")[0]
    assert torch.equal(make["align"](single)["pixel_values"], expected)


@pytest.mark.parametrize("name", ["grey", "rgb"])
def test_ordinary_pictures_keep_every_bit(name, processor):
    """What the processor makes of them by itself, as stock TRL hands them on, and as plain conversion to RGB does."""
    image = PICTURES[name]()
    assert torch.equal(pixels(processor, load_image(image)), pixels(processor, image))
    assert load_image(image).tobytes() == image.convert("RGB").tobytes()


@pytest.mark.parametrize("ssb_enabled", [False, True])
def test_grpo_trains_and_rewards_on_that_picture(ssb_enabled, internvl_path, processor, tmp_path):
    names = ["transparent", "grey16", "turned", "grey"]
    rows = [row(PICTURES[name]()) for name in names]
    rewarded, seen = [], []

    def score(completions, prompts, **columns):
        rewarded.extend(image for images in columns["images"] for image in images)
        return [float(index % 2) for index in range(len(completions))]

    config = SSBGRPOConfig(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, max_steps=1, per_device_train_batch_size=8,
        num_generations=2, max_completion_length=4, report_to="none", save_strategy="no", ssb_enabled=ssb_enabled,
        disable_tqdm=True,
    )  # fmt: skip
    trainer = SSBGRPOTrainer(internvl_path, score, config, train_dataset=Dataset.from_list(rows))
    # In a fixed order, and with the orientation that `datasets` applies when it decodes an image.
    collate = trainer.data_collator

    def with_raw_images(examples):
        return collate(
            [{**example, "images": [PICTURES[names[index // 2]]()]} for index, example in enumerate(examples)]
        )

    trainer.data_collator = with_raw_images
    embeddings = trainer.model.model.vision_tower.embeddings
    embeddings.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    trainer.train()

    expected = torch.stack([pixels(processor, load_image(PICTURES[name]()))[0] for name in names for _ in range(2)])
    assert torch.equal(seen[0], expected)  # generation
    assert torch.equal(seen[-1].unique(dim=0), expected.unique(dim=0))  # training, whose rows are shuffled
    assert [image.tobytes() for image in rewarded] == [
        load_image(PICTURES[name]()).tobytes() for name in names for _ in range(2)
    ]


@pytest.mark.parametrize("script", [align, mpo, reward, grpo], ids=lambda script: script.__name__.rpartition(".")[2])
def test_commands_give_that_picture_to_the_model(script, internvl_path, processor, tmp_path, monkeypatch):
    """The whole way from a PNG in a dataset folder to what the vision tower is given."""
    columns = {
        align: ("prompt", "completion"),
        mpo: ("prompt", "chosen", "rejected"),
        reward: ("prompt", "chosen", "rejected"),
        grpo: ("prompt",),
    }[script]
    images = [PICTURES[name]() for name in ("transparent", "grey16")]
    example = {**row(images[0]), "images": images}
    rows = [{name: value for name, value in example.items() if name in ("images", *columns)}] * 2
    Dataset.from_list(rows).to_parquet(tmp_path / "train.parquet")
    arguments = {
        "model_name_or_path": internvl_path,
        "dataset_name": str(tmp_path),
        "output_dir": str(tmp_path / "out"),
        "use_cpu": True,
        "bf16": False,
        "dtype": "float32",
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "max_steps": 1,
        "per_device_train_batch_size": 2,
    }
    if script is grpo:
        arguments |= {"num_generations": 2, "max_completion_length": 4, "reward_funcs": ["accuracy_reward"]}
        rows = [one_row | {"solution": "1"} for one_row in rows]
        Dataset.from_list(rows).to_parquet(tmp_path / "train.parquet")
    seen, train = [], Trainer.train

    def watched(self, *args, **kwargs):
        for name, module in self.model.named_modules():
            if name.endswith("vision_tower.embeddings"):
                module.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
        return train(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "train", watched)
    script.main(*parser_of(script.main).parse_recipe(arguments, "recipe.yaml"))
    expected = torch.cat([pixels(processor, load_image(image)) for image in images])
    assert seen and all(torch.equal(tiles.unique(dim=0), expected.unique(dim=0)) for tiles in seen)
