# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""One process of the sharded run of `tests/gpu`: the runs of `sharded_runs`, on the GPU where there is one."""

from tests.support import sharded_runs
from tests.support.device import ON_DEVICE
from tests.support.launch import work
from tests.support.mpo_tiny import training_args


def on_device(folder, **settings):
    return training_args(folder, **ON_DEVICE, **settings)


sharded_runs.training_args = on_device


if __name__ == "__main__":
    work(sharded_runs.SCENARIOS)
