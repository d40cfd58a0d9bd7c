# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""MPOTrainer in two processes, against one process with the same global batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, mpo_worker


pytestmark = pytest.mark.slow

WORKER = ROOT / "tests" / "support" / "mpo_worker.py"
FSDP2 = """
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
fsdp_config:
  fsdp_version: 2
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_reshard_after_forward: true
  fsdp_state_dict_type: FULL_STATE_DICT
  fsdp_cpu_ram_efficient_loading: false
mixed_precision: 'no'
num_machines: 1
num_processes: 2
use_cpu: true
"""
ZERO = """
compute_environment: LOCAL_MACHINE
distributed_type: DEEPSPEED
deepspeed_config:
  zero_stage: {stage}
  zero3_init_flag: false
  zero3_save_16bit_model: true
  offload_optimizer_device: none
  offload_param_device: none
  gradient_clipping: 1.0e+9
mixed_precision: 'no'
num_machines: 1
num_processes: 2
use_cpu: true
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_two(launcher: list[str], folder: Path, scenarios: list[str]) -> dict[str, list[dict]]:
    """What each of two processes found, scenario by scenario."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "CI": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", *launcher, str(WORKER), str(folder), *scenarios]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    return {
        scenario: [json.loads((folder / scenario / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
        for scenario in scenarios
    }


@pytest.fixture(scope="module")
def in_two(tmp_path_factory):
    launcher = ["torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port())]
    scenarios = ["unequal", "uneven_last_batch", "precomputed_in_memory"]
    scenarios += ["text", "interrupted", "images", "frozen_images", "precomputed"]
    return run_two(launcher, tmp_path_factory.mktemp("ddp"), scenarios)


@pytest.fixture(scope="module")
def in_shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fsdp2")
    (folder / "fsdp2.yaml").write_text(FSDP2)
    launcher = ["accelerate.commands.launch", "--config_file", str(folder / "fsdp2.yaml")]
    launcher += ["--main_process_port", str(free_port())]
    scenarios = ["text", "interrupted", "sharded_images", "sharded_frozen_images", "sharded_without_images"]
    return run_two(launcher, folder, scenarios)


@pytest.fixture(scope="module", params=[2, 3], ids=["zero2", "zero3"])
def in_zero(request, tmp_path_factory):
    """One launch a scenario: after the first ZeRO-3 trainer of a process, `transformers` shards models as they are made."""
    pytest.importorskip("deepspeed", reason="needs `pip install trl_r1v2[deepspeed]`")
    found = {}
    for scenario in ("interrupted", "sharded_images", "sharded_frozen_images", "sharded_without_images"):
        folder = tmp_path_factory.mktemp(f"zero{request.param}-{scenario}")
        (folder / "zero.yaml").write_text(ZERO.format(stage=request.param))
        launcher = ["accelerate.commands.launch", "--config_file", str(folder / "zero.yaml")]
        found |= run_two([*launcher, "--main_process_port", str(free_port())], folder, [scenario])
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Runs a scenario in this process."""
    found = {}

    def run(scenario: str) -> dict:
        if scenario not in found:
            found[scenario] = mpo_worker.SCENARIOS[scenario](tmp_path_factory.mktemp(scenario))
        return found[scenario]

    return run


def assert_same_run(processes: list[dict], single: dict) -> None:
    first, second = processes
    assert (first["world_size"], single["world_size"]) == (2, 1)
    assert first["shift"] == second["shift"], "δ must be the same on all processes"
    assert first["shift"]["num_rewards"] == single["shift"]["num_rewards"]
    assert first["shift"]["value"] == pytest.approx(single["shift"]["value"], abs=1e-6)
    for key, values in single["log"].items():
        assert first["log"][key] == pytest.approx(values, rel=1e-5, abs=1e-6), key
    assert first["parameters"].keys() == single["parameters"].keys()
    for name, values in single["parameters"].items():
        assert first["parameters"][name] == pytest.approx(values, rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize("scenario", ["text", "interrupted", "images", "frozen_images", "precomputed"])
def test_two_processes_are_one(scenario, in_two, alone):
    assert_same_run(in_two[scenario], alone(scenario))


def test_unequal_numbers_of_pairs_weigh_by_pair(in_two):
    """Rewards 0, ½, 1, 1½, 2, 2½ here and 10, 10½ there; the second round is −2 times the first."""
    for found in in_two["unequal"]:
        assert found["shifts"] == [pytest.approx(28 / 8), pytest.approx((28 - 56) / 16)]
        assert found["num_rewards"] == 16
        assert found["metrics"] == {
            "mpo/a": pytest.approx((3 * 1 + 1 * 10) / 4),
            "mpo/b": pytest.approx(-(3 * 1 + 1 * 10) / 4),
            "mpo/reward_shift": pytest.approx(-28 / 16),
        }


def test_what_would_hang_or_fail_late_is_refused(in_two):
    for found in in_two["uneven_last_batch"]:
        assert "even_batches" in found["error"] and "Set it to True" in found["error"]
    for found in in_two["precomputed_in_memory"]:
        assert "lies in memory" in found["error"] and "save_to_disk" in found["error"]


def test_frozen_tower_encodes_once_in_two_processes(in_two, alone):
    """Together the two processes encode as many tiles as one does; the policy's tower stays idle."""
    tiles = sum(sum(found["tiles"]) for found in in_two["frozen_images"])
    assert tiles == sum(alone("frozen_images")["tiles"])
    assert 2 * tiles == sum(alone("images")["tiles"])


@pytest.mark.parametrize("scenario", ["text", "interrupted", "sharded_images", "sharded_frozen_images"])
def test_fsdp2_is_one_process(scenario, in_shards, alone):
    """The head of the vision-language model included, which stock TRL trains on each process's own rows."""
    assert in_shards[scenario][0]["distributed_type"] == "FSDP"
    assert_same_run(in_shards[scenario], alone(scenario))


def test_fsdp2_refuses_a_micro_batch_that_skips_the_tower(in_shards):
    for found in in_shards["sharded_without_images"]:
        assert "a micro-batch of rows without images" in found["error"]


def test_fsdp2_recognizes_equal_towers_in_their_shards(in_shards, alone):
    shared = sum(sum(found["tiles"]) for found in in_shards["sharded_frozen_images"])
    separate = sum(sum(found["tiles"]) for found in in_shards["sharded_images"])
    assert shared == sum(alone("sharded_frozen_images")["tiles"])
    assert separate == sum(alone("sharded_images")["tiles"]) == 2 * shared


@pytest.mark.timeout(1500)
def test_zero_is_one_process(in_zero, alone):
    for scenario in ("interrupted", "sharded_images", "sharded_frozen_images"):
        assert in_zero[scenario][0]["distributed_type"] == "DEEPSPEED"
        assert_same_run(in_zero[scenario], alone(scenario))
    tiles = {
        scenario: sum(sum(rank["tiles"]) for rank in in_zero[scenario])
        for scenario in ("sharded_images", "sharded_frozen_images")
    }
    assert tiles["sharded_images"] == 2 * tiles["sharded_frozen_images"], "equal towers must be recognized"


def test_zero_refuses_a_micro_batch_that_skips_the_tower(in_zero):
    """ZeRO-2 as well: a process without the tower's gradients would fill its buckets with others."""
    for found in in_zero["sharded_without_images"]:
        assert "a micro-batch of rows without images" in found["error"]
