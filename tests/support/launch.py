# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Two processes on one CPU machine, under a backend that is stated and checked.

The test calls [`launch`]; the worker's `__main__` calls [`work`]. A worker fails if what trained was not sharded as
the backend says: on CPUs accelerate reads a configuration for FSDP and trains with DDP.
"""

import argparse
import importlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor

from tests.support import ROOT


BACKENDS = ("ddp", "fsdp2", "zero2", "zero3")
TIMEOUT = 560
MACHINE = {
    "compute_environment": "LOCAL_MACHINE",
    "num_machines": 1,
    "num_processes": 2,
    "use_cpu": True,
}
FSDP2 = {
    "fsdp_version": 2,
    "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "fsdp_reshard_after_forward": True,
    "fsdp_state_dict_type": "SHARDED_STATE_DICT",
    "fsdp_cpu_ram_efficient_loading": False,
}
ZERO = dict.fromkeys(
    ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"), "auto"
)
# DeepSpeed's own prefetch bucket holds the tiny models whole, so that parameters are there before their turn; nearly
# none stays gathered for its size.
ZERO3 = {
    "stage3_prefetch_bucket_size": 50_000_000,
    "stage3_param_persistence_threshold": 10,
    "stage3_gather_16bit_weights_on_model_save": True,
}
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="needs `pip install 'trl_r1v2[deepspeed]'`"
)
every_backend = [pytest.param(name, marks=needs_deepspeed) if name.startswith("zero") else name for name in BACKENDS]


def launch(
    backend: str, worker: str, folder: Path, scenarios: list[str], *args: str, **options: Any
) -> dict[str, list]:
    """
    Run scenarios of a worker, in two processes unless told otherwise.

    Args:
        backend (`str`):
            One of `BACKENDS`.
        worker (`str`):
            Module whose `__main__` calls [`work`].
        folder (`Path`):
            Where the worker writes; a hang ends in a time limit.
        scenarios (`list[str]`):
            Names of the worker's scenarios.
        args (`str`):
            Further arguments of every scenario.
        options:
            `zero3_init_flag` (`bool`, *optional*, defaults to `True`): whether ZeRO-3 shards models as they are
                loaded. Others are of accelerate's machine, such as `num_processes`.

    Returns:
        `dict[str, list]`: What the scenario returned on each process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    if backend == "ddp":
        launcher = ["torch.distributed.run", "--nproc_per_node", "2", "--master_port", port]
    else:
        launcher = ["accelerate.commands.launch", "--main_process_port", port]
        launcher += ["--config_file", str(_accelerate_config(backend, folder, **options))]
    command = [sys.executable, "-m", *launcher, "-m", worker, "--backend", backend, "--folder", str(folder)]
    command += ["--scenarios", *scenarios, "--args", *args]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TORCH_GLOO_TIMEOUT": "120"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return {
        name: [
            torch.load(folder / name / f"rank-{rank}.pt", weights_only=True)
            for rank in range(options.get("num_processes", 2))
        ]
        for name in scenarios
    }


def _accelerate_config(backend: str, folder: Path, zero3_init_flag: bool = True, **machine) -> Path:
    machine = MACHINE | machine
    if backend == "fsdp2":
        config = {**machine, "mixed_precision": "no", "distributed_type": "FSDP", "fsdp_config": FSDP2}
    else:
        stage = int(backend[-1])
        settings = {**ZERO, "zero_optimization": {"stage": stage, **(ZERO3 if stage == 3 else {})}}
        (folder / "zero.json").write_text(json.dumps(settings))
        plugin = {
            "deepspeed_config_file": str(folder / "zero.json"),
            "zero3_init_flag": stage == 3 and zero3_init_flag,
        }
        config = {**machine, "distributed_type": "DEEPSPEED", "deepspeed_config": plugin}
    (folder / "accelerate.yaml").write_text(json.dumps(config))
    return folder / "accelerate.yaml"


def work(scenarios: dict[str, Callable]) -> None:
    """
    One process of a worker: run the scenarios that the command line names, each as `scenario(folder, *args)`, write
    what they return to `FOLDER/SCENARIO/rank-N.pt`, and leave.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", choices=BACKENDS, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--scenarios", nargs="+", required=True)
    parser.add_argument("--args", nargs="*", default=[])
    options = parser.parse_args()
    if options.backend == "fsdp2":
        _allow_fsdp_on_cpu()
    _check_every_run(options.backend)
    for name in options.scenarios:
        folder = options.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        found = scenarios[name](folder, *options.args)
        torch.save(found, folder / f"rank-{os.environ['RANK']}.pt")
    _leave()


def _allow_fsdp_on_cpu() -> None:
    """Make accelerate do what its configuration says."""
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    initialize = AcceleratorState.__init__

    def with_fsdp(self, *args, **kwargs):
        initialize(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU and self.__dict__.get("fsdp_plugin") is None:
            self.fsdp_plugin = kwargs.get("fsdp_plugin")
        if self.__dict__.get("fsdp_plugin") is not None:
            self.distributed_type = DistributedType.FSDP

    AcceleratorState.__init__ = with_fsdp


def _check_every_run(backend: str) -> None:
    """Have `train` of every trainer end in a check of what it trained on."""
    from transformers import Trainer

    train = Trainer.train

    def train_and_check(self, *args, **kwargs):
        result = train(self, *args, **kwargs)
        check_backend(self, backend)
        return result

    Trainer.train = train_and_check


def check_backend(trainer, backend: str) -> None:
    """Assert that a trainer's model was spread over the processes as the backend says, by one of its parameters."""
    num_processes = trainer.accelerator.num_processes
    assert num_processes == int(os.environ["WORLD_SIZE"])
    kind = {"ddp": "MULTI_CPU", "fsdp2": "FSDP"}.get(backend, "DEEPSPEED")
    assert trainer.accelerator.distributed_type.value == kind, trainer.accelerator.distributed_type
    name, parameter = next(item for item in trainer.model.named_parameters() if "layers.0.self_attn.q_proj" in item[0])
    if backend == "ddp":
        assert isinstance(trainer.model_wrapped, torch.nn.parallel.DistributedDataParallel)
        assert type(parameter) is torch.nn.Parameter, name
    elif backend == "fsdp2":
        assert isinstance(parameter, DTensor), name
        assert parameter.to_local().numel() < parameter.numel() or num_processes == 1, name
    else:
        stage = int(backend[-1])
        assert trainer.model_wrapped.zero_optimization_stage() == stage
        is_sharded = stage == 3
        assert (name, is_sharded) == (name, "ds_id" in vars(parameter))
        assert not is_sharded or parameter.ds_tensor.numel() < parameter.ds_numel, name


def whole_parameters(trainer) -> dict[str, torch.Tensor]:
    """Every parameter by name, gathered from whatever shards it; the same on all processes."""
    from transformers.integrations import is_deepspeed_zero3_enabled

    model = trainer.accelerator.unwrap_model(trainer.model)
    gathered = nullcontext()
    if is_deepspeed_zero3_enabled():
        import deepspeed

        gathered = deepspeed.zero.GatheredParameters(list(model.parameters()))
    with gathered, torch.no_grad():
        return {
            name: (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()
            for name, value in model.named_parameters()
        }


def _leave() -> None:
    """
    End this process with success, without taking the interpreter down: a thread of the process group that asks for
    Python's lock at that moment aborts the process ("terminate called without an active exception").
    """
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
