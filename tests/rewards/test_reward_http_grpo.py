# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Rewards over HTTP inside `GRPOTrainer.train()`: the scores arrive, failures end the run, several servers work at once.
"""

import threading

import pandas
import pytest
import tenacity
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from tests.support.pooling_server import DROP, PoolingServer, refusal, serving
from trl_r1v2.rewards import AsyncRewardModelReward, HTTPRewardModel, HybridReward, reward_http


def points(text: str) -> float:
    return sum(map(ord, text)) % 17 - 8.0


def by_response(request, number):
    return [points(request["messages"][-1]["content"])]


@pytest.fixture
def train(text_model_path, tmp_path):
    def train(reward):
        args = GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=6,
            max_steps=1,
            logging_steps=1,
            log_completions=True,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            seed=3,
            disable_tqdm=True,
        )
        rows = [{"prompt": [{"role": "user", "content": f"say {value}"}]} for value in range(4)]
        trainer = GRPOTrainer(
            model=text_model_path, reward_funcs=reward, args=args, train_dataset=Dataset.from_list(rows)
        )
        trainer.train()
        return trainer.state.log_history[0], pandas.read_parquet(
            tmp_path / "completions" / "completions_00001.parquet"
        )

    return train


def hybrid(server, **options) -> HybridReward:
    component = {"type": "http_reward_model", "url": server.url, "weight": 0.5, "concurrency": 4, **options}
    return HybridReward.from_config({"rule": "theta", "components": {"theta": component}})


def test_scores_reach_the_advantages_through_a_server_that_stumbles(train, monkeypatch):
    monkeypatch.setattr(reward_http, "_PAUSES", tenacity.wait_none())
    stumbles = {1: DROP, 3: (200, b"<html>"), 4: (503, b""), 6: [float("inf")]}

    with serving(
        PoolingServer(lambda request, number: stumbles.get(number) or by_response(request, number))
    ) as server:
        log, rows = train(hybrid(server))
        assert len(server.requests) == 8 + len(stumbles)
    texts = [completion[0]["content"] for completion in rows["completion"]]
    expected = pandas.Series([0.5 * points(text) for text in texts])
    assert expected.nunique() > 3
    assert list(rows["hybrid_reward"]) == pytest.approx(list(expected))
    groups = expected.groupby([row // 4 for row in range(8)])
    advantages = (expected - groups.transform("mean")) / (groups.transform("std") + 1e-4)
    assert list(rows["advantage"]) == pytest.approx(list(advantages), abs=1e-4)
    assert log["hybrid/theta/mean"] == pytest.approx(2 * expected.mean()) and log["hybrid/theta/applied"] == 1
    assert log["grad_norm"] > 0


def test_conversations_that_are_too_long_are_left_out(train):
    long = (400, refusal("This model's maximum context length is 9 tokens."))
    with serving(
        PoolingServer(lambda request, number: long if number < 2 else by_response(request, number))
    ) as server:
        log, rows = train(hybrid(server))
    assert rows["hybrid/theta"].isna().sum() == 2
    assert log["hybrid/theta/applied"] == pytest.approx(0.75)


def test_a_server_that_fails_for_good_ends_the_training_with_the_cause(train):
    with serving(PoolingServer(lambda request, number: DROP if number else by_response(request, number))) as server:
        with pytest.raises(RuntimeError, match="gave no usable answer for 0 s.*serve-reward"):
            train(hybrid(server, patience=0.0))


def test_asynchronous_rewards_of_two_servers_are_asked_at_the_same_time(train):
    """Neither server answers its first request before the other has one."""
    meeting = threading.Barrier(2)

    def meet(request, number):
        if number == 0:
            meeting.wait(60)
        return by_response(request, number)

    with serving(PoolingServer(meet)) as one, serving(PoolingServer(meet)) as other:
        rewards = [
            AsyncRewardModelReward(HTTPRewardModel(server.url, sees_images=False), name=name)
            for name, server in (("one", one), ("other", other))
        ]
        log, rows = train(rewards)
    texts = [completion[0]["content"] for completion in rows["completion"]]
    assert list(rows["one"]) == list(rows["other"]) == [points(text) for text in texts]
    assert log["one/not_scored"] == log["other/not_scored"] == 0
