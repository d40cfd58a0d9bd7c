# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""MPOTrainer in two processes, against one process with the same global batch; see also `tests/distributed`."""

import pytest
import torch

from tests.support import mpo_worker
from tests.support.launch import every_backend, launch


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def in_two(tmp_path_factory):
    scenarios = ["unequal", "uneven_last_batch", "precomputed_in_memory"]
    scenarios += ["interrupted", "images", "shared_images", "precomputed"]
    return launch("ddp", mpo_worker.__name__, tmp_path_factory.mktemp("ddp"), scenarios)


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
    assert first["shift"] == second["shift"], "δ must be the same on all processes"
    assert first["shift"]["num_rewards"] == single["shift"]["num_rewards"]
    assert first["shift"]["value"] == pytest.approx(single["shift"]["value"], abs=1e-6)
    for key, values in single["log"].items():
        assert first["log"][key] == pytest.approx(values, rel=1e-5, abs=1e-6), key
    assert first["parameters"].keys() == single["parameters"].keys()
    for name, values in single["parameters"].items():
        torch.testing.assert_close(first["parameters"][name], values, rtol=1e-5, atol=1e-6)
    for found in (first, second, single):  # whatever shards the checkpoints, what training ends with is whole
        assert all(torch.equal(found["parameters"][name], values) for name, values in found.get("saved", {}).items())
        assert ("saved" in found) == ("saved" in single) and found.get("saved") != {}


@pytest.mark.parametrize("scenario", ["interrupted", "images", "shared_images", "precomputed"])
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


def test_shared_prompts_encode_once_in_two_processes(in_two, alone):
    """Together the two processes encode as many tiles as one does, half of what passes without sharing."""
    tiles = sum(sum(found["tiles"]) for found in in_two["shared_images"])
    assert tiles == sum(alone("shared_images")["tiles"])
    assert 2 * tiles == sum(alone("images")["tiles"])


@pytest.mark.parametrize("backend", every_backend[1:])
def test_shards_are_one_process(backend, alone, tmp_path_factory):
    """After a resume, and with shared prompts and a frozen tower, which encode a blank image for a batch of text."""
    scenarios = ["interrupted", "shared_images"]
    # After the first ZeRO-3 trainer of a process, `transformers` shards models as they are made.
    for names in [[name] for name in scenarios] if backend == "zero3" else [scenarios]:
        folder = tmp_path_factory.mktemp(backend)
        found = launch(backend, mpo_worker.__name__, folder, names, zero3_init_flag=False)
        for name in names:
            assert_same_run(found[name], alone(name))
    tiles, alone_tiles = (sum(map(sum, (run["tiles"] for run in runs))) for runs in (found[name], [alone(name)]))
    assert alone_tiles <= tiles < 2 * alone_tiles
