# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
HybridReward in stock TRL: `GRPOTrainer.train()` and `trl grpo` with a dotted path. TRL's own table is compared with
sums computed here.
"""

import json
import math

import pandas
import pytest
from datasets import Dataset

from trl_r1v2.rewards import Component, HybridReward, RunningZScore, Sigmoid


NUM_GENERATIONS = 4


def rule(completions, solution, **kwargs):
    """Right, wrong or unknown by the first character; the random policy gives all three."""
    verdicts = []
    for completion, gold in zip(completions, solution, strict=True):
        first = ord(completion[0]["content"][:1] or "a") + gold
        verdicts.append([1.0, 0.0, None][first % 3])
    return verdicts


def theta(completions, **kwargs):
    return [sum(map(ord, completion[0]["content"])) % 17 - 8.0 for completion in completions]


def form(completions, **kwargs):
    return [float(len(completion[0]["content"]) % 2) for completion in completions]


@pytest.fixture(scope="module")
def prompts():
    rows = [{"prompt": [{"role": "user", "content": f"say {value}"}], "solution": value} for value in range(8)]
    return Dataset.from_list(rows)


@pytest.fixture
def run(text_model_path, prompts, tmp_path):
    from trl import GRPOConfig, GRPOTrainer

    def run(reward, max_steps=2, resume=None, **options):
        args = GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=8,
            num_generations=NUM_GENERATIONS,
            max_completion_length=6,
            max_steps=max_steps,
            logging_steps=1,
            log_completions=True,
            report_to=[],
            use_cpu=True,
            seed=3,
            disable_tqdm=True,
            **options,
        )
        trainer = GRPOTrainer(model=text_model_path, reward_funcs=reward, args=args, train_dataset=prompts)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return run


def table(folder, step):
    return pandas.read_parquet(folder / "completions" / f"completions_{step:05d}.parquet")


def known(values):
    return [value for value in values if value is not None]


def nothing_if_nan(value):
    return None if pandas.isna(value) else float(value)


def test_the_sum_reaches_the_advantages(run, tmp_path):
    reward = HybridReward(
        {
            "accuracy": Component(rule, weight=2.0),
            "theta": Component(theta, weight=0.5, when="unverified", calibration=Sigmoid(scale=4.0), min_score=-4.0),
            "format": form,
        }
    )
    trainer = run(reward, save_strategy="no")
    seen = {"rule": set(), "gated": 0}
    for step, logged in zip((1, 2), trainer.state.log_history, strict=False):
        rows = table(tmp_path, step)
        completions = [[dict(message) for message in completion] for completion in rows["completion"]]
        solution = [int(prompt[0]["content"].split()[1]) for prompt in rows["prompt"]]
        rules = rule(completions, solution)
        scores = [score if verdict is None else None for score, verdict in zip(theta(completions), rules, strict=True)]
        thetas = [None if score is None else 1 / (1 + math.exp(-max(score, -4.0) / 4)) for score in scores]
        forms = form(completions)
        totals = [
            2.0 * (verdict or 0.0) + 0.5 * (value or 0.0) + kept
            for verdict, value, kept in zip(rules, thetas, forms, strict=True)
        ]
        seen["rule"].update(rules)
        seen["gated"] += len(known(thetas))

        assert [nothing_if_nan(value) for value in rows["hybrid/accuracy"]] == rules
        assert [nothing_if_nan(value) for value in rows["hybrid/theta_score"]] == scores
        assert [nothing_if_nan(value) for value in rows["hybrid/theta"]] == pytest.approx(thetas)
        assert list(rows["hybrid/format"]) == forms
        assert list(rows["hybrid_reward"]) == pytest.approx(totals)

        groups = pandas.Series(totals).groupby([row // NUM_GENERATIONS for row in range(len(totals))])
        expected = (pandas.Series(totals) - groups.transform("mean")) / (groups.transform("std") + 1e-4)
        assert list(rows["advantage"]) == pytest.approx(list(expected), abs=1e-4)

        assert logged["rewards/hybrid_reward/mean"] == pytest.approx(sum(totals) / len(totals))
        assert logged["hybrid/accuracy/mean"] == pytest.approx(sum(known(rules)) / len(known(rules)))
        assert logged["hybrid/accuracy/applied"] == pytest.approx(len(known(rules)) / len(rules))
        assert logged["hybrid/theta/applied"] == pytest.approx(len(known(thetas)) / len(rules))
    assert seen["rule"] == {0.0, 1.0, None}
    assert seen["gated"] > 0


def test_a_resumed_run_continues_the_calibration(run, tmp_path):
    def fresh():
        return HybridReward({"theta": Component(theta, calibration=RunningZScore())}, rule="theta")

    full = fresh()
    run(full, max_steps=4, save_steps=2, gradient_accumulation_steps=1)
    state = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    saved = state["stateful_callbacks"]["hybrid_reward/hybrid"]["components"]["theta"]
    assert saved["count"] == 16

    resumed = fresh()
    run(resumed, max_steps=4, save_steps=2, resume=str(tmp_path / "checkpoint-2"))
    assert resumed.components["theta"].calibration.count == 32
    assert resumed.state_dict() == full.state_dict()


def test_stock_trl_grpo_with_a_dotted_path(text_model_path, tmp_path):
    from trl.scripts.grpo import main, make_parser

    data, output = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    rows = [{"prompt": f"{value}+1= <think>", "solution": str(value + 1)} for value in range(4)]
    (data / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arguments = {
        "--model_name_or_path": text_model_path,
        "--dataset_name": str(data),
        "--reward_funcs": "trl_r1v2.rewards.r1v2_reward",
        "--output_dir": str(output),
        "--per_device_train_batch_size": "4",
        "--num_generations": "4",
        "--max_completion_length": "4",
        "--max_steps": "1",
        "--logging_steps": "1",
        "--log_completions": "true",
        "--report_to": "none",
        "--use_cpu": "true",
        "--save_strategy": "no",
        "--dtype": "float32",
    }
    parsed = make_parser().parse_args_and_config([word for pair in arguments.items() for word in pair])
    main(*parsed)
    rows = table(output, 1)
    assert list(rows["hybrid/accuracy"]) == [0.0] * 4  # the prompt opened the reasoning; nothing closed it
    assert list(rows["hybrid/format"]) == [0.0] * 4
    assert list(rows["r1v2_reward"]) == [0.0] * 4


def test_the_same_reward_inside_and_beside_the_hybrid_reward(run, tmp_path):
    """TRL appends to columns of equal names; ours stay apart, or its table could not be built."""
    from trl_r1v2.rewards import CosineLengthReward, accuracy_reward

    hybrid = HybridReward({"accuracy": accuracy_reward, "length": CosineLengthReward(max_length=6)})
    run([accuracy_reward, hybrid], max_steps=1, save_strategy="no")
    rows = table(tmp_path, 1)
    # `equals` takes two rows without a verdict as equal.
    assert rows["accuracy_reward/answer"].equals(rows["hybrid/accuracy/answer"])
    assert rows["hybrid/accuracy"].equals(rows["accuracy_reward"])
