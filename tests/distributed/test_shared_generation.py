# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Completions sampled with shared prompts are those sampled without, on each process of every backend."""

import pytest

from tests.support import shared_generation
from tests.support.launch import every_backend, launch
from tests.support.sharded_runs import build_models


pytestmark = pytest.mark.slow


@pytest.mark.parametrize("backend", every_backend)
def test_completions_are_those_without_sharing(backend, tmp_path):
    models, names = str(build_models(tmp_path / "models")), [*shared_generation.SCENARIOS]
    found = launch(backend, shared_generation.__name__, tmp_path, names, models)
    for name, of_processes in found.items():
        for (completions, num_rows), (shared, num_shared_rows) in of_processes:
            assert shared == completions, name
            assert len({tuple(ids) for ids in completions}) > 4
            assert (num_rows[0], num_shared_rows[0], num_shared_rows[1]) == (8, 2, 8), name
        first, second = of_processes
        assert first[0][0] != second[0][0]
