# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Generation by transformers with prompts that pass once, against `generate` alone: CPU seconds of the same completions.

    python -m benchmarks.prompt_sharing.generation --model runs/smollm2_dinov2/aligned --data runs/smollm2_dinov2/data

Batches of `--prompts` prompts with 8 completions each, in bfloat16, sampled with the same seed by both in turn; one
batch goes first that does not count.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from datasets import load_dataset
from transformers import AutoModelForImageTextToText, AutoProcessor, BatchFeature

from benchmarks.environment import environment
from benchmarks.results import write_result
from trl_r1v2.prompt_sharing.model import PromptSharing
from trl_r1v2.sampling.prompts import encode_prompts, read_prompt


NUM_GENERATIONS = 8


def timed(model, inputs, max_new_tokens: int) -> tuple[float, torch.Tensor]:
    torch.manual_seed(0)
    start = time.process_time()
    sequences = model.generate(**inputs, do_sample=True, top_k=0, max_new_tokens=max_new_tokens)
    return time.process_time() - start, sequences[:, inputs["input_ids"].size(1) :]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--max_new_tokens", type=int, default=40)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "generation.json")
    arguments = parser.parse_args()
    model = AutoModelForImageTextToText.from_pretrained(arguments.model, dtype=torch.bfloat16).eval()
    processor = AutoProcessor.from_pretrained(arguments.model, padding_side="left")
    rows = load_dataset(arguments.data, split="test").filter(bool, input_columns="images")
    sharing = PromptSharing(model)
    seconds: dict[str, list[float]] = {"alone": [], "shared": []}
    tokens, equal = [], []
    for batch in range(arguments.batches + 1):
        chosen = range(batch * arguments.prompts, (batch + 1) * arguments.prompts)
        prompts = [read_prompt(rows, row, processor) for row in chosen for _ in range(NUM_GENERATIONS)]
        inputs = BatchFeature(encode_prompts(processor, prompts)).to(torch.bfloat16)
        alone, completions = timed(model, inputs, arguments.max_new_tokens)
        with sharing.in_generate():
            shared, others = timed(model, inputs, arguments.max_new_tokens)
        if batch > 0:
            seconds["alone"].append(alone)
            seconds["shared"].append(shared)
            tokens.append([inputs["input_ids"].size(1), completions.size(1)])
            width = min(completions.size(1), others.size(1))
            same = (completions[:, :width] == others[:, :width]).all(dim=1)
            equal.append(float(same.float().mean()))
        print(f"batch {batch}: {alone:.1f} s alone, {shared:.1f} s shared", flush=True)
    result = {"rows": arguments.prompts * NUM_GENERATIONS, "prompt_and_completion_tokens": tokens}
    result |= {"cpu_seconds": seconds, "share_of_equal_completions": equal}
    result["ratio"] = float(np.median(np.divide(seconds["alone"], seconds["shared"])))
    write_result(arguments.output, result | {"environment": environment()})


if __name__ == "__main__":
    main()
