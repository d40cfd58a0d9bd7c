# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Conversations that a reward model scores in a second: one by one, in batches as they come, in batches by length.

    python -m benchmarks.rewards.scores_per_second --model runs/digits/reward --pairs runs/digits/reward_pairs

`RewardModel.score` groups by length whatever it is given. To batch as they come it is given one batch at a time. The
three take turns, so that the ratios stand on a machine whose speed drifts; CPU seconds are given beside wall-clock
seconds. Responses of one length alone gain from batching, not from grouping: how far lengths differ is in the result.
"""

import argparse
import json
import statistics
import time
from pathlib import Path


WAYS = ("one_by_one", "as_they_come", "by_length")


def conversations_of(folder: str, num_conversations: int, seed: int) -> list[list[dict]]:
    from datasets import load_dataset
    from trl import prepare_multimodal_messages

    pairs = load_dataset(folder)["train"].shuffle(seed=seed).select(range(num_conversations))
    sides = ("chosen", "rejected")
    return [
        prepare_multimodal_messages([*row["prompt"], *row[sides[index % 2]]], row["images"])
        for index, row in enumerate(pairs)
    ]


def score(model, conversations: list, way: str, batch_size: int) -> list[float]:
    model.batch_size = 1 if way == "one_by_one" else batch_size
    step = len(conversations) if way != "as_they_come" else batch_size
    scores = []
    for start in range(0, len(conversations), step):
        scores += model.score(conversations[start : start + step])
    return scores


def main(arguments):
    from scipy import stats

    from benchmarks.environment import environment
    from trl_r1v2.rewards import RewardModel

    model = RewardModel.from_pretrained(arguments.model)
    conversations = conversations_of(arguments.pairs, arguments.num_conversations, arguments.seed)
    lengths = sorted(int(model._tokenize([messages])["attention_mask"].sum()) for messages in conversations)
    expected = score(model, conversations[:32], "one_by_one", arguments.batch_size)  # warms up as well
    seconds = {way: {"wall": [], "cpu": []} for way in WAYS}
    for turn in range(arguments.turns):
        for way in WAYS[turn % 3 :] + WAYS[: turn % 3]:
            wall, cpu = time.perf_counter(), time.process_time()
            found = score(model, conversations, way, arguments.batch_size)
            seconds[way]["cpu"].append(time.process_time() - cpu)
            seconds[way]["wall"].append(time.perf_counter() - wall)
            difference = max(abs(a - b) for a, b in zip(found, expected, strict=False))
            if difference > 1e-3:
                raise RuntimeError(
                    f"scores differ by {difference} from those taken one by one: not the same computation"
                )
    summary = {}
    for way in WAYS:
        for clock in ("wall", "cpu"):
            ratios = [
                slow / fast for slow, fast in zip(seconds["one_by_one"][clock], seconds[way][clock], strict=True)
            ]
            summary[f"{way}/{clock}"] = {
                "scores_per_second": len(conversations) / statistics.median(seconds[way][clock]),
                "speedup": statistics.fmean(ratios),
                "speedup_half_width_95": float(stats.sem(ratios) * stats.t.ppf(0.975, len(ratios) - 1)),
            }
    result = {
        "environment": environment(),
        "model": {
            "type": model.model.config.model_type,
            "parameters": sum(parameter.numel() for parameter in model.model.parameters()),
        },
        "num_conversations": len(conversations),
        "batch_size": arguments.batch_size,
        "seed": arguments.seed,
        "tokens": {"min": lengths[0], "median": statistics.median(lengths), "max": lengths[-1]},
        "summary": summary,
        "seconds": seconds,
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(summary, indent=1))
    print(f"Results are in {arguments.output}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="runs/digits/reward")
    parser.add_argument("--pairs", default="runs/digits/reward_pairs")
    parser.add_argument("--num_conversations", type=int, default=256)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    main(parser.parse_args())
