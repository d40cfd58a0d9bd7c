# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Tiny models built from configs: no test needs a network, and every model trains in milliseconds."""

import atexit
import os
import shutil
import tempfile


# Before torch is imported: two cores are shared by the main and the data-loading threads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CI", "1")  # keeps TRL's telemetry silent
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"  # where the tests' servers are

# Never the user's own cache of data sets.
_DATASETS_CACHE = tempfile.mkdtemp(prefix="trl_r1v2-datasets-")
os.environ["HF_DATASETS_CACHE"] = _DATASETS_CACHE
atexit.register(shutil.rmtree, _DATASETS_CACHE, ignore_errors=True)

import pytest  # noqa: E402

from tests.support.tiny_models import build_internvl, build_qwen2  # noqa: E402


@pytest.fixture(scope="session")
def text_model_path(tmp_path_factory) -> str:
    """Folder of a two-layer Qwen2 with a character-level tokenizer and a ChatML template."""
    return build_qwen2(tmp_path_factory.mktemp("qwen2"))


@pytest.fixture(scope="session")
def internvl_path(tmp_path_factory) -> str:
    """Folder of a native InternVL (28 px, 4 tokens a tile, up to 4 tiles and a thumbnail) with its processor."""
    return build_internvl(tmp_path_factory.mktemp("internvl"))
