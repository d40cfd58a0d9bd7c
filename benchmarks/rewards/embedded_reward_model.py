# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The reward model of the digit tasks: does it rank held-out answers, and does it look at the image?

    python -m benchmarks.rewards.embedded_reward_model --work runs/reward_benchmark

For each seed: pairs from the training rows (`recipes/digits/reward_pairs.yaml`), a reward model trained on them
(`recipes/digits/reward.yaml`), pairs from the rows of another split, whose scans occur in no training row, and what
the model makes of those:

- pair accuracy: share of pairs whose chosen response scores higher; by task, and by whether the responses claim a
  reading ("I see") or a guess ("Looks like");
- the same pairs with the images of another row of the same task that shows other digits: what the text alone gives;
- the score of right answers with their own image, less that with the other image, and how often it falls.

Each for two kinds of held-out pairs from the same responses: `as_trained`, by the recipe's rule (a chosen response
names only digits that are shown), and `by_answer`, right above wrong, in which lucky guesses are chosen as well: about
those a reader of image and text can say little.

The intervals are over seeds (Student's t). Stages that are there are kept. Settings were chosen without the test
split. Not covered: what the reward does in training.
"""

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path


ROOT = Path(__file__).parents[2]
ANSWER_ALONE = ["--reward_funcs", "trl_r1v2.rewards.accuracy_reward", "--max_pairs", "4", "--plots", "false"]


def run(command: list[str], done: Path) -> float | None:
    """CPU seconds of a command, or `None` if its folder was there, finished or to be gone on with."""
    if done.exists():
        return None
    began = done.parent.exists()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "trl_r1v2.scripts.main", *command], check=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return None if began else after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def other_rows(tasks: list[str], digits: list[list[int]], wanted: list[int], seed: int) -> list[int]:
    """For each wanted row one of the same task that shows other digits."""
    rng = random.Random(seed)
    by_task = defaultdict(list)
    for row, task in enumerate(tasks):
        by_task[task].append(row)
    return [
        rng.choice([other for other in by_task[tasks[row]] if sorted(digits[other]) != sorted(digits[row])])
        for row in wanted
    ]


def share(flags: list[bool]) -> dict:
    return {"accuracy": statistics.fmean(flags), "num_pairs": len(flags)}


def measure(reward_folder: Path, pairs_folder: Path, data: str, split: str, num_pairs: int, seed: int) -> dict:
    from datasets import load_dataset

    from trl_r1v2.rewards import RewardModelReward

    pairs = load_dataset(str(pairs_folder))["train"]
    pairs = pairs.shuffle(seed=seed).select(range(min(num_pairs, len(pairs))))
    rows = load_dataset(data)[split]
    tasks, digits, sources = rows["task"][:], rows["digits"][:], pairs["source_row"][:]
    others = other_rows(tasks, digits, sources, seed)
    reward = RewardModelReward.from_pretrained(str(reward_folder), batch_size=64)
    prompts, images, other_images = pairs["prompt"][:], pairs["images"][:], rows[others]["images"]
    scores = {
        (side, place): reward(prompts=prompts, completions=pairs[side][:], images=shown)
        for side in ("chosen", "rejected")
        for place, shown in (("own", images), ("other", other_images))
    }
    groups, falls = defaultdict(list), []
    for index, source in enumerate(sources):
        right = {
            place: scores["chosen", place][index] > scores["rejected", place][index] for place in ("own", "other")
        }
        groups["all"].append(right["own"])
        groups[f"task/{tasks[source]}"].append(right["own"])
        claims = [
            "reading" if "I see" in pairs[side][index][0]["content"] else "guess" for side in ("chosen", "rejected")
        ]
        groups[f"claims/{claims[0]} over {claims[1]}"].append(right["own"])
        if images[index]:
            groups["with images"].append(right["own"])
            groups["with images of another row"].append(right["other"])
            falls.append(scores["chosen", "own"][index] - scores["chosen", "other"][index])
            groups[f"score falls/{claims[0]}"].append(falls[-1] > 0)
            groups["score falls/all"].append(falls[-1] > 0)
    return {
        "pairs": {name: share(flags) for name, flags in sorted(groups.items())},
        "mean_fall": statistics.fmean(falls),
        "std_of_scores": statistics.pstdev(scores["chosen", "own"] + scores["rejected", "own"]),
    }


def interval(values: list[float]) -> dict:
    from scipy import stats

    found = {"mean": statistics.fmean(values), "min": min(values), "max": max(values)}
    if len(values) > 1:
        found["half_width_95"] = float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1))
    return found


def summarize(runs: list[dict]) -> dict:
    names = [name for name in runs[0]["pairs"] if all(name in found["pairs"] for found in runs)]
    summary = {name: interval([found["pairs"][name]["accuracy"] for found in runs]) for name in names}
    return {**summary, "mean_fall": interval([found["mean_fall"] for found in runs])}


def main(arguments):
    from benchmarks.environment import environment

    work, split = Path(arguments.work).resolve(), arguments.split
    result = {"environment": environment(), "split": split, "seeds": arguments.seeds, "runs": []}
    for seed in arguments.seeds:
        base = ["--model_name_or_path", arguments.base, "--seed", str(seed)]
        folders = {name: work / f"{name}-{seed}" for name in ("pairs", f"{split}_pairs", "reward")}
        recipe = ["pairs", "--config", "recipes/digits/reward_pairs.yaml", *base, "--dataset_name", arguments.data]
        recipe += ["--plots", "false"]
        cpu = {"pairs": run([*recipe, "--output_dir", str(folders["pairs"])], folders["pairs"] / "summary.json")}
        held_out = folders[f"{split}_pairs"]
        sampled = ["--output_dir", str(held_out), "--dataset_split", split]
        sampled += ["--max_prompts", str(arguments.num_prompts)]
        run([*recipe, *sampled], held_out / "summary.json")
        by_answer = work / f"{split}_pairs_by_answer-{seed}"
        again = ["pairs", "--rollouts", str(held_out), "--dataset_name", arguments.data, *sampled[2:], *ANSWER_ALONE]
        run([*again, "--seed", str(seed), "--output_dir", str(by_answer)], by_answer / "summary.json")
        train = ["reward", "--config", "recipes/digits/reward.yaml", *base, "--dataset_name", str(folders["pairs"])]
        train += ["--output_dir", str(folders["reward"])]
        cpu["reward"] = run(train, folders["reward"] / "trainer_state.json")
        found = {
            kind: measure(folders["reward"], folder, arguments.data, split, arguments.num_pairs, seed)
            for kind, folder in (("as_trained", held_out), ("by_answer", by_answer))
        }
        result["runs"].append({"seed": seed, "cpu_seconds": cpu, **found})
        print(json.dumps(result["runs"][-1]), flush=True)
    runs = result["runs"]
    result["summary"] = {kind: summarize([found[kind] for found in runs]) for kind in ("as_trained", "by_answer")}
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"Results are in {arguments.output}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--base", default="runs/digits/base", help="aligned model: samples, and start of the reward model"
    )
    parser.add_argument("--data", default="runs/digits/data")
    parser.add_argument("--split", default="test", choices=["validation", "test"])
    parser.add_argument("--num_prompts", type=int, default=500, help="held-out rows to sample answers for")
    parser.add_argument("--num_pairs", type=int, default=600, help="held-out pairs of each kind to score")
    parser.add_argument("--work", default="runs/reward_benchmark", help="folder for pairs and models")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    main(parser.parse_args())
