# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""What `make bench` and `make ablations` run needs no more than the extra `demo` installs."""

import re
import subprocess
import sys

from tests.support import ROOT


# What the other extras bring; `None` in `sys.modules` is how Python knows a module as absent.
OTHERS = ("peft", "sklearn", "openai", "fastapi", "uvicorn", "tenacity", "vllm", "deepspeed", "gguf", "onnx")
OTHERS += ("onnxruntime", "bitsandbytes", "pytest", "hypothesis")
SCRIPT = """
import importlib, json, sys
others, modules = sys.argv[1].split(), sys.argv[2].split()
sys.modules.update(dict.fromkeys(others))
for module in modules:
    importlib.import_module(module)
from benchmarks.ablations import page, sections
from benchmarks.environment import environment
print(json.dumps(environment()), len(page.render(sections.sections(sections.Results.kept()), "")))
"""


def target(name: str) -> str:
    return re.search(rf"^{name}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]


def test_bench_and_ablations_import_nothing_of_other_extras():
    lines = target("bench") + target("ablations")
    modules = re.findall(r"-m (benchmarks[.\w]+)", lines)
    modules += [name.replace("/", ".") for name in re.findall(r"python (benchmarks/[/\w]+)\.py", lines)]
    assert len(modules) > 10
    line = [sys.executable, "-c", SCRIPT, " ".join(OTHERS), " ".join(modules)]
    ended = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
