# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
Start the adapter of a composed model from labelled scans: what it makes of a scan shall lie where the language model
keeps the digit's token.

    python -m examples.smollm2_dinov2.name_scans --model_name_or_path runs/smollm2_dinov2/composed \
        --dataset_name runs/smollm2_dinov2/data --output_dir runs/smollm2_dinov2/started

A fresh adapter tells a frozen language model nothing, and each step that changes this passes 30 layers. Here neither
the language model nor, after one pass over the scans, the tower runs: the mean of a scan's image tokens is classified
by its distances to the embeddings of the ten digits, and a small weight draws every token to its digit's embedding
(supervised alignment of embeddings, arXiv 2408.11813, in its simplest form; the loss is ours). Writes the whole model
to `output_dir`, ready for `trl-r1v2 align`, and `name_scans.json` with what was measured. Not covered: images of more
than one tile.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from datasets import Dataset, load_dataset
from transformers import AutoModelForImageTextToText, AutoProcessor, set_seed

from examples.digits.models import fit


@dataclass
class NameScansArguments:
    """
    Arguments of the command.
    """

    model_name_or_path: str = field(metadata={"help": "Folder of the composed model."})
    dataset_name: str = field(metadata={"help": "Folder of `examples.digits.data`, whose `scans` are read."})
    output_dir: str = field(metadata={"help": "Folder to write the model to."})
    seed: int = field(default=0, metadata={"help": "Seed of the batches."})
    num_steps: int = field(default=450, metadata={"help": "Optimiser steps."})
    batch_size: int = field(default=64, metadata={"help": "Scans in each of them."})
    learning_rate: float = field(default=3e-3, metadata={"help": "Their peak learning rate."})
    temperature: float = field(default=0.3, metadata={"help": "Divides the squared distances to the embeddings."})
    embedding_weight: float = field(
        default=0.05,
        metadata={"help": "Weight of the squared distance of every token, in variances of the digits' embeddings."},
    )


def main(script_args: NameScansArguments):
    set_seed(script_args.seed)
    model = AutoModelForImageTextToText.from_pretrained(script_args.model_name_or_path, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(script_args.model_name_or_path)
    embeddings = digit_embeddings(model, processor.tokenizer)
    splits = load_dataset(script_args.dataset_name, "scans")
    train, validation = (encode(model, processor, splits[name]) for name in ("train", "validation"))
    loss = train_adapter(model.model.multi_modal_projector, embeddings, *train, script_args)
    accuracy = named(model.model.multi_modal_projector, embeddings, *validation)
    folder = Path(script_args.output_dir)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    measured = {"loss": round(loss, 4), "validation_accuracy": round(accuracy, 4), "settings": vars(script_args)}
    (folder / "name_scans.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    print(f"{folder}: {accuracy:.1%} of the validation scans lie nearest to their digit's embedding.")


def digit_embeddings(model, tokenizer) -> torch.Tensor:
    """The input embeddings of the tokens `0` to `9`, `(10, hidden_size)`."""
    ids = [tokenizer(str(digit), add_special_tokens=False).input_ids[-1] for digit in range(10)]
    return model.get_input_embeddings().weight[ids].detach()


@torch.no_grad()
def encode(model, processor, scans: Dataset, batch_size: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    """What the adapter is given for each scan, `(num_scans, tokens, channels)`, and the labels `(num_scans,)`."""
    features = []
    hook = model.model.multi_modal_projector.register_forward_pre_hook(lambda _, args: features.append(args[0]))
    for start in range(0, len(scans), batch_size):
        images = [image.convert("RGB") for image in scans[start : start + batch_size]["image"]]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model.get_image_features(**processor.image_processor(images, return_tensors="pt"))
    hook.remove()
    return torch.cat(features).float(), torch.tensor(scans["label"])


def train_adapter(adapter, embeddings, features, labels, script_args: NameScansArguments) -> float:
    """Train in place on features and labels of [`encode`]; returns the last step's loss."""

    def loss() -> torch.Tensor:
        rows = torch.randint(len(labels), (script_args.batch_size,))
        tokens = adapter(features[rows])
        distances = torch.cdist(tokens.mean(1), embeddings).square()
        naming = F.cross_entropy(-distances / script_args.temperature, labels[rows])
        wanted = embeddings[labels[rows]].unsqueeze(1).expand_as(tokens)
        return naming + script_args.embedding_weight * F.mse_loss(tokens, wanted) / embeddings.var()

    parameters = list(adapter.parameters())
    return fit(parameters, loss, script_args.num_steps, script_args.learning_rate, "adapter")


@torch.no_grad()
def named(adapter, embeddings: torch.Tensor, features: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of scans whose mean token lies nearest to their digit's embedding."""
    nearest = torch.cdist(adapter(features).mean(1), embeddings).argmin(-1)
    return (nearest == labels).float().mean().item()


def make_parser(prog: str | None = None):
    from trl_r1v2.scripts.parser import RecipeParser

    return RecipeParser((NameScansArguments,), prog=prog)


if __name__ == "__main__":
    raise SystemExit(make_parser().run(main))
