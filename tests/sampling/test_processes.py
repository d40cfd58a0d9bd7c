# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.

"""Both commands in two processes: each samples its own rows, one result is written."""

import json
import os
import subprocess
import sys

import pytest
from datasets import Dataset, load_dataset

from tests.support import ROOT
from trl_r1v2.sampling import RolloutStore


def odd_reward(completions, **kwargs):
    return [float(sum(map(ord, completion[0]["content"])) % 2) for completion in completions]


def launch(module, *arguments):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    command = [*command, "--standalone", "-m", module, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_two_processes_share_the_rows(tmp_path, text_model_path):
    prompts = tmp_path / "prompts.parquet"
    texts = [f"question {index}" for index in range(7)]
    Dataset.from_dict({"prompt": [[{"role": "user", "content": text}] for text in texts]}).to_parquet(prompts)
    shared = ["--dataset_name", str(prompts), "--model_name_or_path", text_model_path, "--use_cpu", "true"]
    shared += ["--num_samples", "4", "--max_new_tokens", "64", "--plots", "false"]
    shared += ["--reward_funcs", "tests.sampling.test_processes.odd_reward"]

    pool = tmp_path / "pool"
    run = launch("trl_r1v2.scripts.main", "filter-prompts", *shared, "--output_dir", str(pool), "--prefill", "true")
    assert run.returncode == 0, run.stderr
    rows = [{record["row"] for record in read_jsonl(path)} for path in sorted(pool.glob("rollouts/rollouts-*.jsonl"))]
    assert rows == [{0, 2, 4, 6}, {1, 3, 5}]
    kept = []
    rollouts = RolloutStore.merge(pool / "rollouts", range(7), 4)
    for row in range(7):
        verdicts = {sum(map(ord, r.text)) % 2 for r in rollouts if r.row == row}
        kept += [row] if len(verdicts) == 2 else []
    assert kept and load_dataset(str(pool), split="train")["source_row"][:] == kept
    assert sorted(path.name for path in (pool / "ssb").glob("*.safetensors")) == [
        "ssb-00000-of-00002.safetensors",
        "ssb-00001-of-00002.safetensors",
    ]

    pairs = tmp_path / "pairs"
    run = launch("trl_r1v2.scripts.main", "pairs", *shared, "--output_dir", str(pairs), "--rollouts", str(pool))
    assert run.returncode == 0, run.stderr
    assert sorted(path.name for path in pairs.glob("rollouts/scores-*.jsonl")) == [
        "scores-00000-of-00002.jsonl",
        "scores-00001-of-00002.jsonl",
    ]
    for pair in load_dataset(str(pairs), split="train"):
        assert odd_reward([pair["chosen"], pair["rejected"]]) == [1.0, 0.0]


def read_jsonl(path):
    return [json.loads(line) for line in path.read_text().splitlines()]
