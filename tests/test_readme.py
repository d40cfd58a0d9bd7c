# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The README's drop-in example runs as it is printed there."""

import functools
import re
from pathlib import Path

from datasets import Dataset

from trl_r1v2 import SSBGRPOConfig


README = Path(__file__).parent.parent / "README.md"


def test_drop_in_example(text_model_path, tmp_path, monkeypatch):
    example = re.search(r"```python\n(.*?SSBGRPOTrainer\(.*?)```", README.read_text(), re.DOTALL).group(1)
    assert len(example.strip().splitlines()) <= 15

    # The names the example uses are those of folders here.
    (tmp_path / "my-model").symlink_to(text_model_path)
    (tmp_path / "my-data").mkdir()
    prompts = [[{"role": "user", "content": f"{i} + {i} ="}] for i in range(16)]
    rows = Dataset.from_dict({"prompt": prompts, "solution": [str(2 * i) for i in range(16)]})
    rows.to_parquet(tmp_path / "my-data" / "train.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))

    # The example is for a GPU; everything else about it stays as printed.
    on_cpu = functools.partialmethod(SSBGRPOConfig.__init__, use_cpu=True, per_device_train_batch_size=8)
    monkeypatch.setattr(SSBGRPOConfig, "__init__", on_cpu)

    names = {"__name__": "__main__"}
    exec(compile(example, str(README), "exec"), names)
    assert names["trainer"].state.global_step == 2
    assert "ssb/effective_after" in names["trainer"].state.log_history[0]
