# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The reproduction in `docs/upstream.md` shows TRL's defect; when it does not, the mend can go."""

import re
import subprocess
import sys

import pytest

from tests.support import ROOT


@pytest.mark.slow
def test_stock_trl_trains_the_head_on_each_processs_own_rows(tmp_path):
    page = (ROOT / "docs" / "upstream.md").read_text()
    script = next(code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "fully_shard" in code)
    # Not through the interpreter's end, which a thread of the process group can abort.
    (tmp_path / "head.py").write_text(f"{script}\nimport os, sys\n\nsys.stdout.flush()\nos._exit(0)\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "head.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    errors = {name: float(value) for name, value in re.findall(r"(\S+) off by (\S+)", done.stdout)}
    assert errors["model.embed_tokens.weight"] < 1e-5 and errors["lm_head.weight"] > 0.9
