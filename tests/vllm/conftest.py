# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Tests with a real vLLM, run by `make test_vllm` in an environment of their own; skipped where vLLM is not there."""

import gc
import os
import socket

import pytest

from tests.support.cpu_engine import ENVIRONMENT, WIDE_ENOUGH, WIDE_ENOUGH_QWEN_VL, use_cpu_engine
from tests.support.tiny_models import build_internvl, build_qwen2
from tests.support.tiny_qwen_vl import build_qwen_vl


os.environ.update(ENVIRONMENT)  # before vLLM is imported
# A port for each process that runs tests: TRL would give all of them the same one.
with socket.socket() as _free:
    _free.bind(("127.0.0.1", 0))
    os.environ["MASTER_PORT"] = str(_free.getsockname()[1])


@pytest.fixture(autouse=True)
def engine(monkeypatch):
    pytest.importorskip("vllm")
    use_cpu_engine(monkeypatch)
    yield
    gc.collect()  # a trainer and its engine hold each other


@pytest.fixture(scope="session")
def model_paths(tmp_path_factory) -> dict[str, str]:
    """Folders of tiny models that vLLM runs on CPUs, by kind."""
    return {
        "text": build_qwen2(tmp_path_factory.mktemp("qwen2"), **WIDE_ENOUGH),
        "internvl": build_internvl(tmp_path_factory.mktemp("internvl"), **WIDE_ENOUGH),
        "qwen_vl": build_qwen_vl(tmp_path_factory.mktemp("qwen_vl"), **WIDE_ENOUGH_QWEN_VL),
    }
