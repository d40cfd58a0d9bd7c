# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
How far a colocated vLLM's log-probabilities are from the trainer's, with TRL's trainer and with ours.

    make test_vllm                                              # makes the environment
    .venv-vllm/bin/python -m benchmarks.vllm.logprob_gap

For text, and for InternVL and Qwen2.5-VL with one image, two, and one of many tiles: tiny models with random weights,
4 steps of 8 completions with weight updates in between. In float32 what is left is what the two see differently;
bfloat16 is what vLLM makes of these checkpoints by itself. Both trainers run on the same prompts; TRL's is kept from
sampling image tokens (`logit_bias`), since its next forward would fail.
"""

import argparse
import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from _pytest.monkeypatch import MonkeyPatch
from transformers import AutoConfig
from trl import GRPOTrainer

from benchmarks.environment import environment
from benchmarks.results import write_result
from tests.support.cpu_engine import WIDE_ENOUGH, WIDE_ENOUGH_QWEN_VL, use_cpu_engine
from tests.support.ssb_runs import image_dataset, make_trainer, text_dataset
from tests.support.tiny_models import build_internvl, build_qwen2
from tests.support.tiny_qwen_vl import build_qwen_vl
from trl_r1v2.patches.grpo import GRPOTrainer as MendedGRPOTrainer


LAYOUTS = {"one image": ((1,),), "two images": ((1, 1),), "many tiles": ((4,),)}
TRAINERS = {"trl": GRPOTrainer, "trl_r1v2": MendedGRPOTrainer}


def measure(trainer_class, path: Path, dataset, dtype: str, folder: Path) -> dict[str, float]:
    """Gaps of all sampled tokens of a run: mean and largest absolute difference (nats), and the mean ratio."""
    gaps = []

    class Measured(trainer_class):
        def _generate_and_score_completions(self, inputs):
            batch = super()._generate_and_score_completions(inputs)
            gap = batch["old_per_token_logps"] - batch["sampling_per_token_logps"]
            gaps.append(gap[batch["completion_mask"].bool()])
            return batch

    settings = {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.3}
    if "images" in dataset.column_names and trainer_class is GRPOTrainer:
        settings["generation_kwargs"] = {"logit_bias": {AutoConfig.from_pretrained(path).image_token_id: -100.0}}
    patch = MonkeyPatch()
    try:
        use_cpu_engine(patch, dtype)
        trainer = make_trainer(
            Measured, str(path), folder, dataset, vllm_max_model_length=256, learning_rate=1e-3, **settings
        )
        trainer.train()
    finally:
        patch.undo()
    gap = torch.cat(gaps)
    return {
        "num_tokens": len(gap),
        "mean_difference": gap.abs().mean().item(),
        "largest_difference": gap.abs().max().item(),
        "mean_ratio": gap.exp().mean().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        build_qwen2(folder / "text", **WIDE_ENOUGH)
        build_internvl(folder / "InternVL", **WIDE_ENOUGH)
        build_qwen_vl(folder / "Qwen2.5-VL", **WIDE_ENOUGH_QWEN_VL)
        data = {("text", "none"): text_dataset()}
        for kind in ("InternVL", "Qwen2.5-VL"):
            data |= {(kind, layout): image_dataset(layouts=tiles) for layout, tiles in LAYOUTS.items()}
        for (kind, layout), dataset in data.items():
            for dtype in ("float32", "bfloat16"):
                for name, trainer_class in TRAINERS.items():
                    measured = measure(trainer_class, folder / kind, dataset, dtype, folder / "run")
                    rows.append({"model": kind, "images": layout, "dtype": dtype, "trainer": name, **measured})
                    print(json.dumps(rows[-1]), flush=True)
    write_result(args.output, {"environment": environment() | {"vllm": version("vllm")}, "rows": rows})


if __name__ == "__main__":
    main()
