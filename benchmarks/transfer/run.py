# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Does reinforcement learning on text help on images, and the other way round?

    python -m benchmarks.transfer.run --base runs/digits/base --data runs/digits/data

The article on R1V2 reports that what reinforcement learning teaches carries over between text and vision. Here the
embedded model of the digit tasks is trained by GRPO on rows of one kind and measured on both:

- `text`: the rows of `text_add`, which have no image; the tower gets no gradient;
- `images`: the rows of the four tasks with images;
- `noise`: the rows of `text`, paid by a coin instead of by what they say: training of the same kind that teaches
  nothing. What `text` gives beyond it is not the mere fact of being trained;
- `base`: not trained, sampled with the same seed.

Measured on the test split (800 rows with images, 200 without), whose scans occur in no training row: accuracy, greedy
and sampled; hallucination rate; and what the accuracy is made of, the share of answers that read ("I see") rather than
guess ("Looks like"), and the accuracy of those that read. Runs that have a result file are skipped; `summary.py` makes
tables and verdicts. Set `OMP_NUM_THREADS=1`. Not covered: the composite of SmolLM2 and DINOv2, which is too slow on a
CPU for five seeds.
"""

import argparse
import hashlib
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset, load_dataset
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmarks.environment import environment
from benchmarks.hallucination.reward_hacking import make_trainer
from benchmarks.results import write_result
from examples.digits.text import unsupported_digits
from trl_r1v2.rewards import accuracy_reward, format_reward
from trl_r1v2.sampling import sample_responses


SETTINGS = ("base", "text", "images", "noise")
KINDS = ("text", "images")
STEPS, ROWS = 60, 64  # completions a step, 8 for each prompt: half of the recipe's
NUM_SAMPLES = {"text": 4, "images": 2}
MAX_NEW_TOKENS = 32


def of_kind(rows: Dataset, kind: str) -> Dataset:
    return rows.filter(lambda row: (len(row["images"]) > 0) == (kind == "images"))


class CoinReward:
    """0 or 1 for each completion, whatever it says; the seed and the number of the call decide."""

    __name__ = "coin_reward"

    def __init__(self, seed: int):
        self.seed, self.num_calls = seed, 0

    def __call__(self, completions, **kwargs) -> list[float]:
        self.num_calls += 1
        names = (f"{self.seed}/{self.num_calls}/{row}" for row in range(len(completions)))
        return [float(hashlib.sha256(name.encode()).digest()[0] % 2) for name in names]


def shares(texts: list[str], solutions: list[str], digits: list[list[int]]) -> dict[str, float]:
    """Shares of responses, and of those that read."""
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    right = [bool(score) for score in accuracy_reward(completions=completions, solution=solutions)]
    reads = ["I see" in text for text in texts]
    claims = [bool(unsupported_digits(text, shown)) for text, shown in zip(texts, digits, strict=True)]
    return {
        "accuracy": sum(right) / len(texts),
        "hallucination_rate": sum(claims) / len(texts),
        "share_of_readings": sum(reads) / len(texts),
        "accuracy_of_readings": sum(a and b for a, b in zip(right, reads, strict=True)) / max(sum(reads), 1),
        "num_answers": len(texts),
    }


def evaluate(model, processor, test: Dataset, seed: int) -> dict[str, dict]:
    found = {}
    for kind in KINDS:
        rows = of_kind(test, kind)
        for mode, num_samples in (("sampled", NUM_SAMPLES[kind]), ("greedy", 1)):
            rollouts = sample_responses(
                model,
                processor,
                rows,
                num_samples=num_samples,
                max_new_tokens=MAX_NEW_TOKENS,
                do_sample=mode == "sampled",
                seed=seed,
                batch_size=400,
                progress=False,
            )
            asked = rows[[rollout.row for rollout in rollouts]]
            found[f"{mode}/{kind}"] = shares(
                [rollout.text for rollout in rollouts], asked["solution"], asked["digits"]
            )
    return found


def run(arguments: argparse.Namespace, setting: str, seed: int) -> dict:
    test = load_dataset(arguments.data, split="test")
    result = {"setting": setting, "seed": seed, "steps": 0, "cpu_seconds": 0.0, "environment": environment()}
    if setting == "base":
        model = AutoModelForImageTextToText.from_pretrained(arguments.base, dtype=torch.float32)
        processor = AutoProcessor.from_pretrained(arguments.base, padding_side="left")
        return {**result, "figures": evaluate(model, processor, test, seed)}
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(
            arguments.base,
            arguments.data,
            [CoinReward(seed)] if setting == "noise" else [accuracy_reward, format_reward],
            Path(folder),
            of_kind(load_dataset(arguments.data, split="train"), "images" if setting == "images" else "text"),
            max_steps=arguments.steps,
            per_device_train_batch_size=ROWS,
            seed=seed,
        )
        started = time.process_time()
        trainer.train()
        result |= {"steps": arguments.steps, "cpu_seconds": round(time.process_time() - started, 1)}
        result["rewards"] = [round(entry["reward"], 4) for entry in trainer.state.log_history if "reward" in entry]
    return {**result, "figures": evaluate(trainer.model, trainer.processing_class, test, seed)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="folder of the aligned model")
    parser.add_argument("--data", required=True, help="folder of the digit tasks")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    for seed in arguments.seeds:  # seeds outermost: an interrupted comparison still compares like with like
        for setting in arguments.settings:
            path = arguments.results / f"{setting}-{seed}.json"
            if path.exists():
                continue
            write_result(path, run(arguments, setting, seed))
            print(f"{setting}, seed {seed}: done", flush=True)


if __name__ == "__main__":
    main()
