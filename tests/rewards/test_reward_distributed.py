# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""VisionRewardTrainer in two processes against one with the same global batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoProcessor

from tests.support import ROOT, reward_worker
from tests.support.reward_tiny import conversation, pair
from trl_r1v2.rewards import RewardModel, load_trainable


WORKER = Path(reward_worker.__file__)


@pytest.mark.slow
def test_two_processes_train_as_one(internvl_path, tmp_path):
    start = tmp_path / "start"
    load_trainable(internvl_path).save_pretrained(start)
    AutoProcessor.from_pretrained(internvl_path).save_pretrained(start)
    (tmp_path / "two").mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "CI": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(WORKER), str(tmp_path / "two"), str(start)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    both = [json.loads((tmp_path / "two" / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    one = reward_worker.run(tmp_path / "one", str(start))

    assert both[0]["parameters"] == both[1]["parameters"]
    assert both[0]["swapping_parameters"] == both[1]["swapping_parameters"] != both[0]["parameters"]
    assert len(both[0]["image_accuracy"]) == 2
    for name, value in one["parameters"].items():
        assert both[0]["parameters"][name] == pytest.approx(value, abs=1e-4), name
    for key, values in one["log"].items():
        assert both[0]["log"][key] == pytest.approx(values, abs=1e-4), key
    for key, value in one["evaluated"].items():
        assert both[0]["evaluated"][key] == pytest.approx(value, abs=1e-4), key
    conversations = [conversation(pair(seed, 1), "chosen") for seed in (1, 2)]
    scores = [RewardModel.from_pretrained(str(tmp_path / name)).score(conversations) for name in ("one", "two")]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
