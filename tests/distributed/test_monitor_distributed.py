# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The hallucination monitor in two processes: the figures of one, the same on both, and restored on resume."""

import json

import pyarrow.parquet as pq
import pytest
import torch

from tests.support import monitor_worker
from tests.support.launch import launch


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two(tmp_path_factory, internvl_path):
    folder = tmp_path_factory.mktemp("two")
    found = launch("ddp", monitor_worker.__name__, folder, ["monitor"], internvl_path)
    return folder / "monitor", found["monitor"]


@pytest.fixture
def one_thread():
    """As in the two processes: rounding depends on how many threads share a sum."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def test_two_processes_log_the_figures_of_one(two, one_thread, tmp_path, internvl_path):
    trainer, monitor, reward = monitor_worker.monitored(tmp_path, internvl_path, local_batch=8, learning_rate=0.0)
    trainer.train()
    one = json.loads(json.dumps(monitor_worker.seen(trainer, monitor, reward)))
    assert [entry["step"] for entry in one["logged"]] == [0, 1, 2, 3, 4]
    assert one["logged"][0]["hallucination/num_responses"] == 13
    assert 0 < one["logged"][0]["hallucination/rate"] < 1 and "hallucination/reward_auc" in one["logged"][0]
    for process in two[1]:
        assert process["still"]["logged"] == one["logged"]  # to the last bit
        assert process["still"]["state"] == one["state"] and process["still"]["gate"] == one["gate"]
    folders = two[0] / "still" / "hallucination", tmp_path / "hallucination"
    flagged = [
        {path.name: pq.read_table(path).to_pylist() for path in folder.glob("flagged-*.parquet")} for folder in folders
    ]
    assert flagged[0] == flagged[1] and len(flagged[0]) == 5


def test_both_processes_agree_and_resume_exactly(two):
    first, second = two[1]
    for name in ("logged", "state", "gate"):
        assert first["whole"][name] == second["whole"][name]
        for process in (first, second):
            assert process["resumed"][name] == process["whole"][name]
    assert first["resumed"]["losses"] == first["whole"]["losses"]
    assert len(first["whole"]["state"]["controller"]["moves"]) > 1
    rates = [entry["hallucination/rate"] for entry in first["whole"]["logged"]]
    assert len(set(rates)) > 1
