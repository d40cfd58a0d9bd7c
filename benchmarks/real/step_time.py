# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Forward and backward of one alignment step of the composite, with and without bf16 autocast, in seconds of CPU time.

    python -m benchmarks.real.step_time --model runs/smollm2_dinov2/composed --data runs/smollm2_dinov2/data

The adapter alone trains. CPU time rather than wall-clock time, so that other programs disturb little; optimiser and
data loading are left out. Writes `benchmarks/real/step_time.json`.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from datasets import load_dataset
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmarks.environment import environment
from trl_r1v2.vlm.activation import set_trainable


def one_step(model, batch: dict[str, torch.Tensor], bf16: bool) -> dict[str, float]:
    """CPU seconds of forward and backward, and the loss."""
    start = time.process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        loss = model(**batch, labels=batch["input_ids"]).loss
    middle = time.process_time()
    loss.backward()
    end = time.process_time()
    return {"forward": round(middle - start, 3), "backward": round(end - middle, 3), "loss": round(loss.item(), 4)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Folder of the composed model.")
    parser.add_argument("--data", required=True, help="Folder of `examples.digits.data`.")
    parser.add_argument("--num_rows", type=int, default=4, help="Rows of the batch.")
    parser.add_argument("--output", default="benchmarks/real/step_time.json", help="File to write.")
    args = parser.parse_args()
    processor = AutoProcessor.from_pretrained(args.model)
    model = AutoModelForImageTextToText.from_pretrained(args.model, dtype=torch.float32)
    set_trainable(model, "adapter")
    rows = list(load_dataset(args.data, "align", split="train").select(range(args.num_rows)))
    texts = [
        processor.apply_chat_template(
            [
                {
                    "role": "user",
                    "content": [{"type": "image"} for _ in row["images"]]
                    + [{"type": "text", "text": row["prompt"][0]["content"]}],
                },
                {"role": "assistant", "content": [{"type": "text", "text": row["completion"][0]["content"]}]},
            ],
            tokenize=False,
        )
        for row in rows
    ]
    images = [[image.convert("RGB") for image in row["images"]] for row in rows]
    batch = dict(processor(text=texts, images=images, padding=True, return_tensors="pt"))
    # the first step of each kind also allocates and packs weights: the second counts
    measured = {
        name: [one_step(model, batch, bf16) for _ in range(2)][-1]
        for name, bf16 in (("float32", False), ("bf16", True))
    }
    result = {
        "rows": args.num_rows,
        "tokens_a_row": batch["input_ids"].shape[1],
        "cpu_seconds": measured,
        "environment": environment(),
    }
    Path(args.output).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in result.items() if name != "environment"}))


if __name__ == "__main__":
    main()
