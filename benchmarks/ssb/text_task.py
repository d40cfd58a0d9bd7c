# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The comparison's text task: chains of sums, and a small language model that mostly guesses their results.

    python -m benchmarks.ssb.text_task --output runs/chains
    python -m benchmarks.ssb.compare --task chains --base runs/chains/base --data runs/chains/data \
        --recipe benchmarks/ssb/chains_grpo.yaml --train_rows 240 --steps 90 --sampled

A question has two to six operands, so there are easy and hard prompts. The model learns from demonstrations of which a
part guesses and the others work step by step.
"""

import argparse
import random
from pathlib import Path

from datasets import Dataset
from transformers import set_seed

from examples.digits.models import new_language_model, train_language_model, train_tokenizer


LENGTHS = (2, 3, 4, 5, 6)
LARGEST_TOTAL = 19
GUESS_RATE = 0.6


def draw_chain(length: int, rng: random.Random) -> list[int]:
    """Signed operands, each of one digit, whose running totals stay in 0 to `LARGEST_TOTAL`."""
    chain = [rng.randrange(10)]
    while len(chain) < length:
        operand = rng.randrange(1, 10) * rng.choice((1, -1))
        if 0 <= sum(chain) + operand <= LARGEST_TOTAL:
            chain.append(operand)
    return chain


def step_text(total: int, operand: int) -> str:
    return f"{total} {'+' if operand > 0 else '-'} {abs(operand)}"


def question(chain: list[int]) -> list[dict]:
    text = str(chain[0]) + "".join(f" {'+' if operand > 0 else '-'} {abs(operand)}" for operand in chain[1:])
    return [{"role": "user", "content": f"What is {text}?"}]


def demonstration(chain: list[int], rng: random.Random, guess_rate: float) -> list[dict]:
    if rng.random() < guess_rate:
        answer = min(max(sum(chain) + rng.randint(-1, 1), 0), LARGEST_TOTAL)
        text = f"<think>Maybe {answer}.</think>\\boxed{{{answer}}}"
    else:
        totals = [sum(chain[: index + 1]) for index in range(len(chain))]
        steps = [
            f"{step_text(before, operand)} = {after}."
            for before, operand, after in zip(totals, chain[1:], totals[1:], strict=False)
        ]
        text = f"<think>{' '.join(steps)}</think>\\boxed{{{totals[-1]}}}"
    return [{"role": "assistant", "content": text}]


def task_rows(num_rows: int, rng: random.Random) -> Dataset:
    chains = [draw_chain(LENGTHS[index % len(LENGTHS)], rng) for index in range(num_rows)]
    rng.shuffle(chains)
    return Dataset.from_list([{"prompt": question(chain), "solution": str(sum(chain))} for chain in chains])


def demonstrations(num_rows: int, rng: random.Random, guess_rate: float) -> Dataset:
    chains = [draw_chain(rng.choice(LENGTHS), rng) for _ in range(num_rows)]
    return Dataset.from_list(
        [{"prompt": question(chain), "completion": demonstration(chain, rng, guess_rate)} for chain in chains]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder to write `data` and `base` in")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train_rows", type=int, default=4000)
    parser.add_argument("--test_rows", type=int, default=1000)
    parser.add_argument("--demonstrations", type=int, default=8000)
    parser.add_argument("--reasoning_steps", type=int, default=600, help="optimizer steps on careful work alone")
    parser.add_argument("--mixed_steps", type=int, default=120, help="optimizer steps with guesses among it")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    for split, num_rows in (("train", arguments.train_rows), ("test", arguments.test_rows)):
        path = arguments.output / "data" / f"{split}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        task_rows(num_rows, rng).to_parquet(path)
    careful, mixed = (demonstrations(arguments.demonstrations, rng, rate) for rate in (0.0, GUESS_RATE))
    texts = (
        text
        for rows in (careful, mixed)
        for row in rows
        for message in row["prompt"] + row["completion"]
        for text in (message["role"] + "\n", message["content"])
    )
    tokenizer = train_tokenizer(texts, vocab_size=300)
    set_seed(arguments.seed)
    model = new_language_model(tokenizer, hidden_size=96, num_layers=3)
    for rows, steps, rate in ((careful, arguments.reasoning_steps, 3e-3), (mixed, arguments.mixed_steps, 1e-3)):
        train_language_model(model, tokenizer, rows, steps, batch_size=32, learning_rate=rate, seed=arguments.seed)
    model.save_pretrained(arguments.output / "base")
    tokenizer.save_pretrained(arguments.output / "base")
    print(f"{arguments.output}: data and base, {model.num_parameters():,} parameters")


if __name__ == "__main__":
    main()
