# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Composing 3 GB: memory holds the largest shard at most, a killed run is finished by the next, byte for byte."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import safe_open

from benchmarks.vlm.synthetic_parts import make_parts


NUM_BYTES = 3 * 10**9
COMPOSE = r"""
import re, sys
from trl_r1v2.vlm.compose import compose_vlm

def peak_rss():  # of this program alone; getrusage would count its parent's until exec
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1])

before = peak_rss()
parts, output = sys.argv[1:]
report = compose_vlm(parts + "/vision", parts + "/llm", output, max_shard_size="700MB", progress=False)
print("RESULT", before, peak_rss(), max(report.shards.shards.values()), report.shards.num_shards_kept)
"""


def start(parts: Path, output: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", COMPOSE, str(parts), str(output)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> list[int]:
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err[-3000:]
    return [int(word) for word in out.splitlines()[-1].split()[1:]]


def digests(folder: Path) -> dict[str, str]:
    found = {}
    for path in folder.iterdir():
        with open(path, "rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_three_gigabytes(tmp_path):
    try:
        assert make_parts(tmp_path / "parts", NUM_BYTES) >= NUM_BYTES
        before, peak, largest, kept = finish(start(tmp_path / "parts", tmp_path / "whole"))
        assert kept == 0 and largest > 500e6
        assert peak - before < largest + 100e6

        killed = start(tmp_path / "parts", tmp_path / "killed")
        deadline = time.monotonic() + 400
        while time.monotonic() < deadline and killed.poll() is None:
            if len(list((tmp_path / "killed").glob("*.safetensors"))) >= 2:
                break
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL
        assert not (tmp_path / "killed" / "config.json").exists()
        *_, kept = finish(start(tmp_path / "parts", tmp_path / "killed"))
        assert kept >= 2
        assert digests(tmp_path / "killed") == digests(tmp_path / "whole")
        compare_tensor(tmp_path, "layers.3.mlp.down_proj.weight")
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)  # pytest keeps temporary folders, and these hold 9 GB


def compare_tensor(root: Path, name: str) -> None:
    """One tensor read back through safetensors equals the part's."""
    values = []
    for folder, prefix in ((root / "parts" / "llm", "model."), (root / "whole", "model.language_model.")):
        index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
        with safe_open(folder / index[prefix + name], framework="pt") as file:
            values.append(file.get_tensor(prefix + name))
    assert values[0].equal(values[1])
