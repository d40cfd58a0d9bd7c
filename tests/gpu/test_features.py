# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Features whose code depends on the device: vision cache, compilation, resuming, shards, a colocated engine."""

import pytest

from tests.support import gpu_worker, sharded_runs
from tests.support.device import DEVICE, ON_DEVICE, needs_gpu
from tests.support.launch import launch
from tests.support.ssb_probes import fated, logged, probed
from tests.support.ssb_runs import (
    SSBGRPOTrainer,
    assert_identical,
    image_dataset,
    losses,
    make_trainer,
    mixed_dataset,
    text_dataset,
)
from tests.support.tiny_models import build_qwen2
from trl_r1v2 import set_trainable
from trl_r1v2.vlm.vision_cache import VisionCache
from trl_r1v2.vlm.vision_cache_callback import VisionCacheCallback


pytestmark = pytest.mark.gpu

FATES = {3: 0.0, 4: 1.0, 5: 1.0}
# Sums on a GPU come in no fixed order.
CLOSE = {"abs": 0.0 if DEVICE == "cpu" else 1e-4}


def test_vision_cache(internvl_path, tmp_path):
    """With a frozen tower each tile is encoded once, and training is the same."""
    runs = []
    for cache in (None, VisionCache()):
        trainer = make_trainer(
            SSBGRPOTrainer,
            internvl_path,
            tmp_path / str(cache is None),
            image_dataset(),
            fated(FATES),
            shuffle_dataset=False,
            **ON_DEVICE,
        )
        set_trainable(trainer.model, "llm+adapter")
        if cache is not None:
            trainer.add_callback(VisionCacheCallback(cache, trainer))
        trainer.train()
        runs.append(trainer)
    assert losses(runs[1]) == pytest.approx(losses(runs[0]), abs=1e-4)
    assert 0 < sum(logged(runs[1], "vision_cache/encoded")) < sum(logged(runs[1], "vision_cache/tiles")) / 2


def test_compiled(text_model_path, tmp_path):
    """By inductor on a GPU; on a CPU, where that takes minutes, traced alone."""
    runs = []
    for compiled in (False, True):
        trainer = make_trainer(
            SSBGRPOTrainer,
            text_model_path,
            tmp_path / str(compiled),
            text_dataset(),
            fated(FATES),
            shuffle_dataset=False,
            max_steps=3,
            torch_compile=compiled,
            **({"torch_compile_backend": "inductor" if DEVICE == "cuda" else "aot_eager"} if compiled else {}),
            **ON_DEVICE,
        )
        trainer.train()
        runs.append((losses(trainer), logged(trainer, "ssb/replayed_rows")))
    assert runs[0][1] == runs[1][1] == [0, 4, 8]
    assert runs[1][0] == pytest.approx(runs[0][0], abs=1e-3)


def test_resume(internvl_path, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4} | ON_DEVICE
    whole = make_trainer(SSBGRPOTrainer, internvl_path, tmp_path, mixed_dataset(), fated(FATES), **settings)
    whole.train()
    resumed = make_trainer(SSBGRPOTrainer, internvl_path, tmp_path / "new", mixed_dataset(), fated(FATES), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert whole.buffer.samples.keys() == resumed.buffer.samples.keys()
    assert losses(resumed) == pytest.approx(losses(whole), **CLOSE)
    if DEVICE == "cpu":
        assert_identical(whole, resumed)


def test_fsdp2(tmp_path):
    """
    Every update is that of the whole model: of one process on a GPU, of two on a CPU, which accelerate does not shard
    for one.
    """
    models, name = str(sharded_runs.build_models(tmp_path / "models")), "grpo-mixed"
    expected = gpu_worker.sharded_runs.run(name, tmp_path / "alone", models)
    processes = 1 if DEVICE == "cuda" else 2
    found = launch(
        "fsdp2",
        gpu_worker.__name__,
        tmp_path / "sharded",
        [name],
        models,
        num_processes=processes,
        **ON_DEVICE,
    )
    errors = sharded_runs.relative_errors(found[name][0], expected)
    # cuDNN's convolutions, those of the tower's patches, round to TF32.
    assert max(errors.values()) < (3e-4 if DEVICE == "cpu" else 1e-3), errors


@needs_gpu
def test_a_colocated_engine_that_sleeps(tmp_path, monkeypatch):
    """vLLM gives its memory back while the trainer trains, and samples by the new weights when it wakes."""
    pytest.importorskip("vllm")
    path = build_qwen2(tmp_path / "model", hidden_size=64)
    engine = {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_enable_sleep_mode": True,
        "vllm_gpu_memory_utilization": 0.2,
        "vllm_max_model_length": 256,
    }
    trainer, probe = probed(monkeypatch, path, tmp_path, text_dataset(), fated(FATES), **engine, **ON_DEVICE)
    trainer.train()
    assert probe.num_replayed == [0, 4, 8]
    probe.assert_gradients(3)
    difference = logged(trainer, "sampling/sampling_logp_difference/mean")
    assert max(difference) < 0.1  # the engine's bfloat16; weights a step old leave more
