# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""A tiny model that learns in seconds to say what it sees, and the same made blind."""

import random

import numpy as np
import torch
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage
from transformers import AutoModelForImageTextToText, AutoProcessor

from trl_r1v2.sampling.prompts import encode_prompts, read_prompt


COLOURS = {"red": (230, 20, 20), "green": (20, 230, 20), "blue": (20, 20, 230)}
FEATURES = Features(
    {
        "prompt": [{"role": Value("string"), "content": Value("string")}],
        "images": List(Image()),
        "shown": List(Value("string")),
        "present": Value("string"),
        "solution": Value("string"),
    }
)


def colour_rows(num_rows: int, seed: int) -> Dataset:
    """Half the rows ask what is shown, half whether a colour is; yes and no are equally frequent."""
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    rows = []
    for index in range(num_rows):
        name = rng.choice(list(COLOURS))
        pixels = np.clip(np.array(COLOURS[name]) + noise.integers(-20, 20, (28, 28, 3)), 0, 255).astype(np.uint8)
        asked = name if index % 4 == 1 else rng.choice([colour for colour in COLOURS if colour != name])
        probing = index % 2 == 1
        present = ("yes" if asked == name else "no") if probing else None
        rows.append(
            {
                "prompt": [{"role": "user", "content": f"{asked}?" if probing else "what?"}],
                "images": [PILImage.fromarray(pixels)],
                "shown": [name],
                "present": present,
                "solution": present or name,
            }
        )
    return Dataset.from_list(rows, features=FEATURES)


def named_colours(text: str) -> list[str]:
    """Claims of a response to "what?"."""
    return [name for name in COLOURS if name in text]


def unsupported_colours(text: str, shown: list[str]) -> list[str]:
    return [name for name in named_colours(text) if name not in shown]


def train_to_see(folder: str, num_steps: int = 150) -> tuple:
    """Model and processor after plain supervised steps; checked by the tests that use them."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(folder, padding_side="left")
    rows = colour_rows(48, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, num_steps)
    end = processor.tokenizer.eos_token_id
    answers = [[*processor.tokenizer(row["solution"])["input_ids"], end] for row in rows]
    longest = max(map(len, answers))
    batches = []
    for start in range(0, len(rows), 24):
        part = range(start, start + 24)
        prompts = [read_prompt(rows, row, processor) for row in part]
        batches.append(
            (encode_prompts(processor, prompts, [answers[row] for row in part]), [answers[r] for r in part])
        )
    for step in range(num_steps):
        inputs, targets = batches[step % len(batches)]
        logps = model(**inputs).logits[:, -longest - 1 : -1].log_softmax(-1)
        taken = logps.gather(2, inputs["input_ids"][:, -longest:, None])[..., 0]
        mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in targets])
        loss = -(taken * mask).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval(), processor


def blinded(model):
    """Zero the tower's output; returns the hook's handle."""

    def zero(module, args, output):
        output.last_hidden_state = torch.zeros_like(output.last_hidden_state)
        return output

    return model.model.vision_tower.register_forward_hook(zero)
