# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
vLLM on a CPU. Everything that tests change about vLLM or about TRL's use of it stands here, and nothing else is
stubbed:

- vLLM's CPU backend packs a linear layer's weight after loading and drops it, so that no new weight can be written
  into it. Here the weight stays, and the layer is `torch.nn.functional.linear`.
- TRL's engine is made in float32, or the `dtype` a test asks for, and without compilation.
- TRL brings weights to a server over NCCL, which needs CUDA. Here nothing is brought: the server keeps the weights it
  was started with, so what is tested of a server is generation.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request

import torch


ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_SERVER_DEV_MODE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # two engines at a time would be bound to the same core
}
KV_CACHE = 2**26  # bytes; far more than these models need, and several engines live in one process
# The width of a head is 32, the least for which vLLM has an attention on CPUs.
WIDE_ENOUGH = {"hidden_size": 64}
WIDE_ENOUGH_QWEN_VL = WIDE_ENOUGH | {
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
}


def keep_weight(layer: torch.nn.Module, remove_weight: bool) -> None:
    layer.cpu_linear = torch.nn.functional.linear


def use_cpu_engine(monkeypatch, dtype: str = "float32") -> None:
    """For the length of a test: engines that TRL makes run on this CPU and take new weights."""
    import vllm.model_executor.layers.utils
    from trl.generation import vllm_generation

    monkeypatch.setattr(vllm.model_executor.layers.utils, "dispatch_cpu_unquantized_gemm", keep_weight)
    make_engine = vllm_generation.LLM
    settings = {"dtype": dtype, "enforce_eager": True, "kv_cache_memory_bytes": KV_CACHE}
    monkeypatch.setattr(vllm_generation, "LLM", lambda **kwargs: make_engine(**(settings | kwargs)))


def bring_no_weights(monkeypatch) -> list[int]:
    """
    For the length of a test: a server's weights stay as they are. Returns a list that grows by one for each update.
    """
    from trl.generation.vllm_client import VLLMClient

    updates = []

    def read_through(client, metadata, named_params):
        updates.append(sum(1 for _ in named_params))

    monkeypatch.setattr(VLLMClient, "init_communicator", lambda client, device=0: None)
    monkeypatch.setattr(VLLMClient, "update_named_params", read_through)
    return updates


class Server:
    """`vllm serve` or `trl vllm-serve` in a process of its own, for the length of a `with` block."""

    def __init__(self, command: list[str], model_path: str, log_path, *options: str):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        model = [model_path] if command[0] == "vllm" else ["--model", model_path]
        self.command = [os.path.join(os.path.dirname(sys.executable), command[0]), *command[1:], *model]
        self.command += ["--host", "127.0.0.1", "--port", str(self.port), *options]
        self.log_path = log_path

    def __enter__(self):
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                self.command, env={**os.environ, **ENVIRONMENT}, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 500  # on a busy machine; idle it takes half a minute
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return self
            except OSError:
                time.sleep(0.5)
        self.__exit__()
        raise RuntimeError(f"{' '.join(self.command)} did not come up:\n" + self.log_path.read_text()[-4000:])

    def __exit__(self, *exception):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
