# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Both trainers in a copy of the installed `trl`: their own tests pass there, and nothing of this package is left in
them.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trl

from tests.support import ROOT
from tests.support.tiny_models import build_qwen2
from tests.support.tiny_qwen_vl import build_qwen_vl
from tools.lift import lift


# What TRL took for its own replay buffer: 906 lines of the trainer, 324 of tests, 56 of docs, and 46 elsewhere.
MOST_LINES = 1332
MODELS = {
    "tiny-Qwen2ForCausalLM-2.5": build_qwen2,
    "tiny-Qwen2_5_VLForConditionalGeneration": build_qwen_vl,
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The installed package alone, and the models that TRL's tests are written for in a cache of the Hub."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(Path(trl.__file__).parent, folder / "trl", ignore=shutil.ignore_patterns("__pycache__"))
    for name, build in MODELS.items():
        cached = folder / "hub" / f"models--trl-internal-testing--{name}"
        (cached / "snapshots" / "0").mkdir(parents=True)
        build(cached / "snapshots" / "0")
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text("0")
    return folder


@pytest.fixture(scope="module")
def added(checkout) -> dict[str, dict[str, int]]:
    return {feature: lift(feature, checkout) for feature in ("ssb_grpo", "mpo")}


def lifted_python(checkout) -> list[Path]:
    folders = [checkout / "trl" / "experimental" / name for name in ("ssb_grpo", "mpo")]
    return [
        *(path for folder in folders for path in folder.glob("*.py")),
        *checkout.glob("tests/experimental/test_*.py"),
    ]


@pytest.mark.slow
def test_their_tests_pass_there(checkout, added):
    environment = os.environ | {
        "PYTHONPATH": str(checkout),
        "HF_HUB_CACHE": str(checkout / "hub"),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/experimental"],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert re.search(r"^9 passed", done.stdout, re.MULTILINE), done.stdout[-300:]


def test_nothing_of_this_package_is_left(checkout, added):
    for path in [*lifted_python(checkout), *checkout.glob("docs/source/*")]:
        text = path.read_text(encoding="utf-8")
        assert "trl_r1v2" not in text and "[`~trl." not in text, path
    for path in lifted_python(checkout):
        assert path.read_text(encoding="utf-8").startswith("# Copyright 2020-2026 The HuggingFace Team.")
    names = subprocess.run(
        [sys.executable, "-c", "import sys, trl.experimental.ssb_grpo, trl.experimental.mpo; print(*sys.modules)"],
        env=os.environ | {"PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not [name for name in names.stdout.split() if name.startswith("trl_r1v2")]


def test_a_second_lift_changes_nothing(checkout, added):
    before = {path: path.read_bytes() for path in checkout.rglob("docs/source/*")}
    assert lift("ssb_grpo", checkout)["docs/source/_toctree.yml"] == 0
    assert {path: path.read_bytes() for path in checkout.rglob("docs/source/*")} == before
    assert before[checkout / "docs/source/_toctree.yml"].count(b"title: SSB-GRPO") == 1


def test_the_table_of_contents_stays_in_order(tmp_path):
    (tmp_path / "trl" / "experimental").mkdir(parents=True)
    toctree = tmp_path / "docs" / "source" / "_toctree.yml"
    toctree.parent.mkdir(parents=True)
    entries = "".join(
        f"  - local: {name.lower()}\n    title: {name}\n" for name in ("BCO", "GMPO", "SDPO", "SSD", "TPO")
    )
    head = "- sections:\n  - local: zoo\n    title: Zoo\n  title: API\n- sections:\n  - local: experimental_overview\n"
    toctree.write_text(
        f"{head}    title: Experimental Overview\n{entries}  title: Experimental\n  isExpanded: false\n"
    )
    for feature in ("ssb_grpo", "mpo"):
        lift(feature, tmp_path)
    titles = re.findall(r"    title: (.*)", toctree.read_text())
    assert titles == ["Zoo", "Experimental Overview", "BCO", "GMPO", "MPO", "SDPO", "SSB-GRPO", "SSD", "TPO"]


def test_the_buffer_adds_no_more_than_trl_took_for_its_own(added):
    assert sum(added["ssb_grpo"].values()) <= MOST_LINES
    assert (
        sum(
            (ROOT / "trl_r1v2" / "ssb_grpo" / name).read_text().count("\n")
            for name in os.listdir(ROOT / "trl_r1v2/ssb_grpo")
            if name.endswith(".py")
        )
        <= 1000
    )


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="name a checkout of TRL"):
        lift("mpo", tmp_path)
