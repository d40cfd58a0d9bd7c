# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The buffer where a colocated vLLM samples: what is stored, corrected and trained on, against an own computation."""

import pytest
import torch
from peft import LoraConfig

from tests.support.cpu_engine import use_cpu_engine
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


pytestmark = pytest.mark.vllm

# The second batch has one dead group, the third two, which earlier samples of age 1 and 2 replace.
FATES = {3: 0.0, 4: 1.0, 5: 1.0}
ENGINE = {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.3, "vllm_max_model_length": 256}
MODES = ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]


def run(monkeypatch, path, folder, dataset, fates=FATES, **settings):
    trainer, probe = probed(monkeypatch, path, folder, dataset, fated(fates), **(ENGINE | settings))
    trainer.train()
    return trainer, probe


def expected_ratio(mode, difference, bounds):
    """The correction from trainer-to-engine log-probability differences of one row, shape `(C,)`."""
    low, high = bounds
    ratio = (difference.sum().unsqueeze(0) if mode.startswith("sequence") else difference).exp()
    if mode.endswith("truncate"):
        return ratio.clamp(min=low, max=high)
    is_kept = torch.ones_like(ratio, dtype=torch.bool)
    is_kept &= ratio <= high if high is not None else True
    is_kept &= ratio >= low if low is not None else True
    return torch.where(is_kept, ratio, 0.0)


def assert_correction(trainer, probe, tolerance=1e-5):
    """Ratios of all rows trained on, by the probe's forwards when they were sampled; `tolerance` a log-probability."""
    args, num_rows = trainer.args, 0
    bounds = args.vllm_importance_sampling_clip_min, args.vllm_importance_sampling_clip_max
    for rows, used in zip(probe.rows, probe.used, strict=True):
        for index, row in enumerate(rows):
            length = len(row.completion_ids)
            engine = used["sampling_per_token_logps"][index, :length]
            expected = expected_ratio(args.vllm_importance_sampling_mode, row.behaviour - engine, bounds)
            actual = used["importance_sampling_ratio"][index, : len(expected)]
            num_summed = length if args.vllm_importance_sampling_mode.startswith("sequence") else 1
            torch.testing.assert_close(actual, expected, atol=tolerance * num_summed, rtol=0)
            num_rows += 1
    assert num_rows == 8 * len(probe.rows)


def assert_losses(trainer, probe):
    assert losses(trainer) == pytest.approx(probe.losses, abs=1e-5, rel=1e-5)


DATA = {"text": text_dataset, "internvl": image_dataset, "qwen_vl": image_dataset}


@pytest.mark.parametrize("kind", DATA)
def test_fresh_and_replayed_rows(kind, model_paths, tmp_path, monkeypatch):
    """
    Ratio, stored log-probabilities, loss and gradient; with images, two in a row and one of two tiles among them.
    """
    trainer, probe = run(monkeypatch, model_paths[kind], tmp_path, DATA[kind]())
    assert probe.num_replayed == [0, 4, 8]
    assert {number - probe.born[uid] for number, uids in enumerate(probe.drawn, 1) for uid in uids} == {1, 2}
    assert_correction(trainer, probe)
    assert_losses(trainer, probe)
    probe.assert_gradients(3)
    probe.assert_buffer()
    # Engine and trainer agree in float32, so what is stored is what the engine sampled from, too.
    for sample in trainer.buffer.samples.values():
        tokens = sample.tokens
        torch.testing.assert_close(
            tokens["old_per_token_logps"], tokens["sampling_per_token_logps"], atol=2e-4, rtol=0
        )


@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
@pytest.mark.parametrize("mode", MODES)
def test_modes_of_the_correction(mode, loss_type, model_paths, tmp_path, monkeypatch):
    """In bfloat16 the engine differs from the trainer, so that narrow bounds cut off on both sides."""
    use_cpu_engine(monkeypatch, "bfloat16")
    trainer, probe = run(
        monkeypatch,
        model_paths["text"],
        tmp_path,
        text_dataset(),
        loss_type=loss_type,
        vllm_importance_sampling_mode=mode,
        vllm_importance_sampling_clip_min=0.98,
        vllm_importance_sampling_clip_max=1.02,
        max_steps=4,
    )
    assert_correction(trainer, probe)
    assert_losses(trainer, probe)
    probe.assert_gradients(4)
    probe.assert_buffer()
    assert sum(probe.num_replayed) > 0
    cut = {"truncate": (0.98, 1.02), "mask": (0.0, 0.0)}[mode.split("_")[1]]
    ratios = torch.cat([row.engine_ratio.flatten() for rows in probe.rows for row in rows])
    assert all(torch.isclose(ratios, torch.tensor(bound)).any() for bound in cut)


def test_masked_rows(model_paths, tmp_path, monkeypatch):
    """A row that the correction masks out teaches nothing: it is not effective, not kept, and never comes back."""
    use_cpu_engine(monkeypatch, "bfloat16")
    bounds = {"vllm_importance_sampling_clip_min": 0.95, "vllm_importance_sampling_clip_max": 1.05}
    trainer, probe = run(monkeypatch, model_paths["text"], tmp_path, text_dataset(), max_steps=4, **bounds)
    masked = [(fresh[0]["importance_sampling_ratio"] == 0).flatten() for fresh in probe.fresh]
    live = [
        torch.tensor([row not in FATES for row in rows for _ in range(4)]) for rows in ((0, 1), (2, 3), (4, 5), (6, 7))
    ]
    informative = [
        is_live & (fresh[0]["advantages"].abs() > 1e-6) for is_live, fresh in zip(live, probe.fresh, strict=True)
    ]
    assert any((mask & rows).any() for mask, rows in zip(masked, informative, strict=True))
    num_effective = [int((rows & ~mask).sum()) for mask, rows in zip(masked, informative, strict=True)]
    assert logged(trainer, "ssb/effective_before") == [number / 8 for number in num_effective]
    assert all((sample.tokens["importance_sampling_ratio"] != 0).all() for sample in trainer.buffer.samples.values())
    for used in probe.used:
        assert (used["importance_sampling_ratio"][used["ssb_is_replayed"]] != 0).all()


@pytest.mark.parametrize("kind", DATA)
def test_several_iterations_of_a_batch(kind, model_paths, tmp_path, monkeypatch):
    """`num_iterations: 2` in micro-batches: the behaviour policy stays the one that sampled."""
    trainer, probe = run(
        monkeypatch,
        model_paths[kind],
        tmp_path,
        DATA[kind](),
        num_iterations=2,
        per_device_train_batch_size=4,
        steps_per_generation=2,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        max_steps=6,
    )
    assert probe.num_replayed == [0, 4, 8]
    assert_correction(trainer, probe)
    assert_losses(trainer, probe)
    probe.assert_gradients(6)


@pytest.mark.parametrize("kind", DATA)
def test_lora(kind, model_paths, tmp_path, monkeypatch):
    """The adapter is merged into what the engine is brought, with trained modules beside it, and taken out again."""
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    trainer, probe = run(
        monkeypatch, model_paths[kind], tmp_path, DATA[kind](), peft_config=config, learning_rate=1e-3
    )
    assert probe.num_replayed == [0, 4, 8]
    assert_correction(trainer, probe)
    probe.assert_gradients(3)
    for fresh in probe.fresh:
        mask = fresh[0]["completion_mask"].bool()
        ours, engines = fresh[0]["old_per_token_logps"], fresh[0]["sampling_per_token_logps"]
        torch.testing.assert_close(ours[mask], engines[mask], atol=2e-4, rtol=0)


@pytest.mark.parametrize("kind", ["text", "internvl"])
def test_resume(kind, model_paths, tmp_path, monkeypatch):
    """The engine on this CPU draws from the generator that the checkpoint restores, so the resumed run is the same."""
    data = mixed_dataset if kind == "internvl" else text_dataset
    settings = ENGINE | {"save_strategy": "steps", "save_steps": 1, "max_steps": 4}
    whole = make_trainer(SSBGRPOTrainer, model_paths[kind], tmp_path, data(), fated(FATES), **settings)
    whole.train()
    resumed = make_trainer(SSBGRPOTrainer, model_paths[kind], tmp_path / "new", data(), fated(FATES), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert_identical(whole, resumed)
    assert whole.buffer.samples.keys() == resumed.buffer.samples.keys()
