# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What a score costs over HTTP: the model in this process, and behind `trl-r1v2 serve-reward`, 1 and 16 requests at a
time.

    python -m benchmarks.rewards.http_scores_per_second --model runs/digits/reward --pairs runs/digits/reward_pairs

The ways take turns. CPU seconds are those of client and server together. A tiny model makes the overhead visible.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.environment import environment
from benchmarks.rewards.scores_per_second import conversations_of


def main(arguments):
    import psutil

    from trl_r1v2.rewards import HTTPRewardModel, RewardModel

    command = [sys.executable, "-m", "trl_r1v2.scripts.main", "serve-reward", "--port", "0", "--batch_size", "16"]
    command += ["--reward_model_name_or_path", arguments.model]
    conversations = conversations_of(arguments.pairs, arguments.num_conversations, seed=0)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        url = server.stdout.readline().split()[-1]
        ways = {"local": RewardModel.from_pretrained(arguments.model, batch_size=16)}
        ways |= {f"http, concurrency {number}": HTTPRewardModel(url, concurrency=number) for number in (1, 16)}
        times = psutil.Process(server.pid).cpu_times
        expected = ways["local"].score(conversations)
        seconds = {way: {"wall": [], "cpu": []} for way in ways}
        for turn in range(arguments.turns + 1):
            for way, model in ways.items():
                wall, cpu = time.perf_counter(), time.process_time() + sum(times()[:2])
                found = model.score(conversations)
                if max(abs(a - b) for a, b in zip(found, expected, strict=True)) > 1e-3:
                    raise RuntimeError(f"{way}: other scores than those of the local model")
                if turn > 0:  # the first one warms up
                    seconds[way]["wall"].append(time.perf_counter() - wall)
                    seconds[way]["cpu"].append(time.process_time() + sum(times()[:2]) - cpu)
        server.send_signal(signal.SIGINT)
        server.communicate()
    milliseconds = {
        way: {clock: 1000 * statistics.median(values) / len(conversations) for clock, values in clocks.items()}
        for way, clocks in seconds.items()
    }
    result = {"environment": environment(), "num_conversations": len(conversations), "seconds": seconds}
    arguments.output.write_text(json.dumps(result | {"median_milliseconds_a_score": milliseconds}, indent=1) + "\n")
    print(json.dumps(milliseconds, indent=1), f"\nResults are in {arguments.output}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="runs/digits/reward")
    parser.add_argument("--pairs", default="runs/digits/reward_pairs")
    parser.add_argument("--num_conversations", type=int, default=128)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    main(parser.parse_args())
