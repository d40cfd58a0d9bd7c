# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Every parameter's update in two processes is that of one process: DDP, FSDP2, ZeRO-2 and ZeRO-3, with images, text,
text among images, and with images in one process alone (`benchmarks/sharding/matrix.py` writes the table).
"""

import pytest
import torch

from tests.support import sharded_runs
from tests.support.launch import every_backend, launch


pytestmark = pytest.mark.slow

RUNS = [*sharded_runs.MATRIX, *sharded_runs.OTHERS]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return str(sharded_runs.build_models(tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="module")
def alone(models, tmp_path_factory):
    """Updates in this process."""
    found = {}

    def run(name: str) -> dict[str, dict[str, torch.Tensor]]:
        if name not in found:
            found[name] = sharded_runs.run(name, tmp_path_factory.mktemp(name), models)
        return found[name]

    return run


@pytest.fixture(scope="module", params=every_backend)
def in_two(request, models, tmp_path_factory):
    return launch(request.param, sharded_runs.__name__, tmp_path_factory.mktemp(request.param), RUNS, models)


@pytest.mark.parametrize("name", RUNS)
def test_every_update_is_that_of_one_process(name, in_two, alone):
    first, second = in_two[name]
    assert all(torch.equal(update, second["updates"][key]) for key, update in first["updates"].items())
    errors = sharded_runs.relative_errors(first, alone(name))
    assert max(errors.values()) < 1e-4, sorted(errors.items(), key=lambda item: -item[1])[:5]
