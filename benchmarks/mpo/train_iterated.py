# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Iterated MPO under a reward with faults and one reward threshold: sample, score, cut, train, and again.

Every iteration starts from the last one's weights, which are also its reference. Called by `compare.py`.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import yaml
from datasets import Dataset, load_dataset

from benchmarks.environment import environment
from benchmarks.mpo.digits import MAX_NEW_TOKENS, load_model, load_processor, measure
from benchmarks.mpo.noisy_reward import NoisyReward
from benchmarks.mpo.train_one import settings_of
from examples.digits.text import unsupported_digits
from trl_r1v2 import MPOConfig, MPOTrainer
from trl_r1v2.rewards import accuracy_reward
from trl_r1v2.sampling import sample_responses
from trl_r1v2.sampling.pairs import Pair, PairRules, Response, build_pairs
from trl_r1v2.vlm.activation import set_trainable


# The reward takes a response for right from the middle between its scores of wrong (0) and right (1).
JUDGE_THRESHOLD = 0.5


@dataclass
class IteratedRun:
    """
    What to train.

    Args:
        threshold (`float`): Smallest score of a chosen response, in the units of [`NoisyReward`].
        seed (`int`): Seed of the reward's faults, the prompts, sampling and training.
        learning_rate (`float`): Peak learning rate of each iteration.
        base (`str`): Folder of the model to start from.
        data (`str`): Folder of the digit data.
        recipe (`str`): MPO recipe whose other settings are used.
        output_dir (`str`): Folder for the trainer.
        iterations (`int`): Rounds of sampling and training.
        steps (`int`): Optimizer steps in each.
        num_prompts (`int`): Prompts in each, new ones every time.
        num_rollouts (`int`): Responses to a prompt.
        num_rows (`int`): Test rows to measure on at most, from the start of the split.
        num_samples (`int`): Sampled answers to a test row.
    """

    threshold: float
    seed: int
    learning_rate: float
    base: str
    data: str
    recipe: str
    output_dir: str
    iterations: int
    steps: int
    num_prompts: int = 400
    num_rollouts: int = 8
    num_rows: int = 600
    num_samples: int = 1


def sample_and_score(
    model, processor, prompts: Dataset, reward: NoisyReward, run: IteratedRun, seed: int
) -> list[Response]:
    rollouts = sample_responses(
        model,
        processor,
        prompts,
        num_samples=run.num_rollouts,
        max_new_tokens=MAX_NEW_TOKENS,
        batch_size=512,
        seed=seed,
        progress=False,
    )
    solutions = prompts["solution"]
    scores = reward.scores(
        [rollout.row for rollout in rollouts],
        [rollout.text for rollout in rollouts],
        [solutions[rollout.row] for rollout in rollouts],
    )
    return [
        Response(
            row=rollout.row,
            sample=rollout.sample,
            text=rollout.text,
            score=score,
            right=score >= JUDGE_THRESHOLD,
            # Only the rule against contained answers reads it, and the reward here knows no rules.
            answer="",
            finished=rollout.finished,
        )
        for rollout, score in zip(rollouts, scores, strict=True)
    ]


def to_dataset(prompts: Dataset, pairs: list[Pair]) -> Dataset:
    table = prompts.select_columns(["prompt", "images"]).select([pair.chosen.row for pair in pairs])
    for side in ("chosen", "rejected"):
        table = table.add_column(side, [[{"role": "assistant", "content": vars(pair)[side].text}] for pair in pairs])
    return table


def describe(prompts: Dataset, pairs: list[Pair], responses: list[Response]) -> dict[str, float]:
    """How good the pairs are, by the rules that the reward of this experiment does not know."""
    solutions, digits, tasks = prompts["solution"], prompts["digits"], prompts["task"]

    def right(members: list[Response]) -> float:
        texts = [member.text for member in members]
        scores = accuracy_reward(completions=texts, solution=[solutions[member.row] for member in members])
        return float(np.mean([score or 0.0 for score in scores]))

    chosen = [pair.chosen for pair in pairs]
    on_images = [member for member in chosen if tasks[member.row] != "text_add"]
    return {
        "num_pairs": len(pairs),
        "num_prompts": len({member.row for member in chosen}),
        "chosen_right": right(chosen),
        "rejected_right": right([pair.rejected for pair in pairs]),
        "chosen_hallucinated": float(
            np.mean([bool(unsupported_digits(member.text, digits[member.row])) for member in on_images])
        ),
        "mean_score_of_responses": float(np.mean([response.score for response in responses])),
    }


def train(run: IteratedRun, recipe: dict, weights: dict, pairs: Dataset, processor, seed: int) -> MPOTrainer:
    """The trainer after one iteration, whose policy and reference both started from `weights`."""
    policy, reference = load_model(run.base), load_model(run.base)
    policy.load_state_dict(weights)
    reference.load_state_dict(weights)
    settings = settings_of(recipe, MPOConfig) | {
        "output_dir": run.output_dir,
        "max_steps": run.steps,
        "learning_rate": run.learning_rate,
        "seed": seed,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": run.steps,
        "disable_tqdm": True,
    }
    trainer = MPOTrainer(policy, reference, MPOConfig(**settings), train_dataset=pairs, processing_class=processor)
    if "trainable" in recipe:
        set_trainable(trainer.model, recipe["trainable"])
    trainer.train()
    return trainer


def train_and_measure(run: IteratedRun) -> dict:
    recipe = yaml.safe_load(Path(run.recipe).read_text())
    test = load_dataset(run.data, split=f"test[:{run.num_rows}]")
    train_prompts = load_dataset(run.data, split="train").shuffle(seed=run.seed)
    processor, model = load_processor(run.base), load_model(run.base)
    reward = NoisyReward(run.seed)
    rules = PairRules(chosen_threshold=run.threshold, max_pairs=4, drop_contained=False, seed=run.seed)
    points = [{"iteration": 0, **measure(model, processor, test, run.num_samples, run.seed)}]
    cpu = time.process_time()
    for iteration in range(1, run.iterations + 1):
        first = (iteration - 1) * run.num_prompts
        prompts = train_prompts.select(range(first, first + run.num_prompts))
        seed = 1000 * run.seed + iteration
        responses = sample_and_score(model, processor, prompts, reward, run, seed)
        pairs = build_pairs(responses, rules).pairs
        trainer = train(run, recipe, model.state_dict(), to_dataset(prompts, pairs), processor, seed)
        model = trainer.model
        log = next(entry for entry in trainer.state.log_history if "loss" in entry)
        points.append(
            {
                "iteration": iteration,
                **measure(model, processor, test, run.num_samples, run.seed),
                "pairs": describe(prompts, pairs, responses),
                "log": {name: value for name, value in log.items() if name.startswith("mpo/")},
            }
        )
    return {
        **asdict(run),
        "reward": {"answer_error": reward.answer_error, "response_error": reward.response_error},
        "settings": recipe,
        "environment": environment(),
        "points": points,
        "cpu_seconds": time.process_time() - cpu,
    }
