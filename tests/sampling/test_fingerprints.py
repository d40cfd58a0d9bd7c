# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.

import importlib
import json
import sys

import pytest

from trl_r1v2.sampling.fingerprints import reward_fingerprint
from trl_r1v2.scripts.loading import load_reward_func


MODULE = """
from trl_r1v2.rewards import Component, HybridReward
from trl_r1v2.rewards import format_reward

def letters(completions, **kwargs):
    return [{value} for _ in completions]

both = HybridReward(dict(letters=Component(letters)), rule="letters")
"""


def digest(name):
    return reward_fingerprint(name, load_reward_func(name, entry="reward_funcs"))


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def write(value):
        sys.modules.pop("digest_rewards", None)
        importlib.invalidate_caches()
        (tmp_path / "digest_rewards.py").write_text(MODULE.format(value=value))

    yield write
    sys.modules.pop("digest_rewards", None)


@pytest.mark.parametrize("name", ["letters", "both", "format_reward"])
def test_an_edited_module_has_another_digest(write_module, name):
    write_module("1.0")
    before = digest(f"digest_rewards.{name}")
    assert digest(f"digest_rewards.{name}") == before
    write_module("2.0")
    assert digest(f"digest_rewards.{name}") != before


def test_the_file_of_a_hybrid_reward_counts(tmp_path):
    digests = []
    for weight in (1.0, 2.0, 1.0):
        path = tmp_path / "reward.yaml"
        path.write_text(json.dumps({"components": {"format": {"weight": weight}}}))
        digests.append(digest(str(path)))
    assert digests[0] == digests[2] != digests[1]


def test_weights_of_a_reward_model_count(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    values = bytearray(3 * 2**20)
    (folder / "model.safetensors").write_bytes(values)
    before = reward_fingerprint(str(folder), print)
    assert reward_fingerprint(str(folder), print) == before
    values[:] = bytes([1]) * len(values)  # as training does, every value
    (folder / "model.safetensors").write_bytes(values)
    after = reward_fingerprint(str(folder), print)
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    assert len({before, after, reward_fingerprint(str(folder), print)}) == 3
