# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Two processes: the calibration of both is that of one process that sees all scores.
"""

import json
import subprocess
import sys

import pytest

from trl_r1v2.rewards import RunningZScore


# Rank 1 has a call in which the component applies to none of its rows: it still joins.
SCORES = {0: [[1.0, 5.0, None], [2.0, -4.0, 0.5]], 1: [[None, None, None], [7.0, None, 3.0]]}

SCRIPT = """
import json, os, sys
from accelerate import PartialState
from trl_r1v2.rewards import Component, HybridReward, RunningZScore, accuracy_reward

state = PartialState(cpu=True)
rank = state.process_index
reward = HybridReward({"theta": Component(lambda scores, **kwargs: scores, calibration=RunningZScore())}, rule="theta")
results = [reward(completions=["a"] * 3, scores=scores) for scores in json.loads(sys.argv[1])[str(rank)]]
answers = accuracy_reward(completions=[rf"\\boxed{{x+{rank + 2}}}", r"\\boxed{x}"], solution=[f"{rank + 2}+x", "y"])
with open(os.path.join(sys.argv[2], f"rank{rank}.json"), "w") as file:
    json.dump({"results": results, "state": reward.state_dict(), "answers": answers}, file)
state.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_share_one_calibration(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    subprocess.run([*command, json.dumps(SCORES), str(tmp_path)], check=True, timeout=300)
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]

    single = RunningZScore()
    for call in range(2):
        both = [SCORES[rank][call] for rank in range(2)]
        present = [score for scores in both for score in scores if score is not None]
        values = iter(single.calibrate(present, present))
        expected = [[None if score is None else next(values) for score in scores] for scores in both]
        assert [ranks[rank]["results"][call] for rank in range(2)] == expected
    for rank in ranks:
        assert rank["state"]["components"]["theta"] == single.state_dict()
        assert rank["answers"] == [1.0, 0.0]
