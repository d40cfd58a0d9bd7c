# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Commands that sample with vLLM's offline engine in a process of its own: prompts, tokens, and a buffer for a vLLM run.
"""

import os

import numpy as np
import pytest
import torch
from datasets import Dataset, load_dataset
from PIL import Image
from transformers import AutoProcessor

from tests.support.cpu_engine import KV_CACHE
from tests.support.tiny_models import build_internvl
from trl_r1v2 import SSBGRPOConfig, SSBGRPOTrainer
from trl_r1v2.sampling.generation import image_token_bias
from trl_r1v2.sampling.prefill import completion_logps
from trl_r1v2.sampling.rollouts import EngineError
from trl_r1v2.sampling.vllm_engine import VLLMEngine
from trl_r1v2.scripts import filter_prompts, pairs
from trl_r1v2.scripts.filter_prompts import FilterPromptsArguments
from trl_r1v2.scripts.generation import load_policy
from trl_r1v2.scripts.pairs import PairsArguments


pytestmark = pytest.mark.vllm

ENGINE = {"dtype": "float32", "enforce_eager": True, "kv_cache_memory_bytes": KV_CACHE, "max_model_len": 512}


def even_reward(completions, **kwargs):
    return [float(sum(map(ord, completion[0]["content"])) % 2 == 0) for completion in completions]


def rows(with_images: bool) -> Dataset:
    """Prompts with no image, one, two and one of four tiles."""
    rng = np.random.default_rng(0)
    widths = ([], [28], [56, 28], [112])
    pictures = [
        [Image.fromarray(rng.integers(0, 256, (28, width, 3), dtype=np.uint8)) for width in row] for row in widths
    ]
    prompts = [[{"role": "user", "content": f"what is {row}?"}] for row in range(4)]
    return Dataset.from_dict({"prompt": prompts, "images": pictures} if with_images else {"prompt": prompts})


@pytest.mark.parametrize("kind", ["text", "internvl", "qwen_vl"])
def test_log_probabilities_are_the_models_own_and_no_image_token_is_sampled(kind, model_paths):
    """One prompt that is not the model's would move them by 0.4 and more."""
    path = model_paths[kind]
    dataset = rows(with_images=kind != "text")
    engine = VLLMEngine(path, AutoProcessor.from_pretrained(path), kwargs=ENGINE, batch_size=16, with_logps=True)
    settings = {"num_samples": 8, "max_new_tokens": 24, "seed": 3, "progress": False}
    rollouts = [rollout for chunk in engine.sample_chunks(dataset, **settings) for rollout in chunk]
    prefixed = [
        rollout
        for chunk in engine.sample_chunks(
            dataset.select([0]), **settings, prefix_ids={0: rollouts[0].completion_ids[:3]}
        )
        for rollout in chunk
    ]
    engine.close()
    assert [(rollout.row, rollout.sample) for rollout in rollouts] == [(row, k) for row in range(4) for k in range(8)]
    assert any(rollout.finished for rollout in rollouts) and not all(rollout.finished for rollout in rollouts)
    assert len({tuple(rollout.completion_ids) for rollout in prefixed}) > 4

    policy, processing_class = load_policy(path, torch.device("cpu"), dtype="float32")
    eos = policy.generation_config.eos_token_id
    assert all((rollout.completion_ids[-1] == eos) == rollout.finished for rollout in rollouts)
    assert not set(image_token_bias(path)) & {token for rollout in rollouts for token in rollout.completion_ids}
    found = completion_logps(
        policy.eval(), processing_class, dataset, rollouts, temperature=1.0, batch_size=8, progress=False
    )
    gaps = torch.cat([torch.tensor(r.logps) - tokens["old_per_token_logps"] for r, tokens in found]).abs()
    print(f"{kind}: mean {gaps.mean():.4f}, largest {gaps.max():.4f}")
    assert gaps.mean() < 0.01 and gaps.max() < 0.1


def test_an_engine_that_cannot_start_says_what_to_do(model_paths, tmp_path):
    path = model_paths["text"]
    broken = VLLMEngine(path, AutoProcessor.from_pretrained(path), kwargs={"no_such_argument": 1})
    with pytest.raises(EngineError, match="vLLM ended with exit code 1; what it printed stands above"):
        next(broken.sample_chunks(rows(False), num_samples=1, max_new_tokens=4, progress=False))


@pytest.mark.parametrize("mode", ["sequence_mask", "token_truncate"])
def test_a_prefilled_buffer_starts_a_run_with_vllm(mode, tmp_path, model_paths):
    """The run, all of whose groups are dead, trains on nothing else: its ratios are 1 in the first step."""
    path = model_paths["internvl"]
    rows(True).to_parquet(tmp_path / "prompts.parquet")
    out = tmp_path / "pool"
    filter_prompts.main(
        FilterPromptsArguments(
            dataset_name=str(tmp_path / "prompts.parquet"),
            output_dir=str(out),
            model_name_or_path=path,
            dtype="float32",
            num_samples=6,
            max_new_tokens=5,
            reward_funcs=[f"{__name__}.even_reward"],
            use_cpu=True,
            plots=False,
            generation="vllm",
            vllm_kwargs=ENGINE,
            prefill=True,
            vllm_importance_sampling_mode=mode,
        )
    )
    config = SSBGRPOConfig(
        output_dir=str(tmp_path / "run"),
        per_device_train_batch_size=6,
        num_generations=6,
        max_completion_length=5,
        max_steps=2,
        learning_rate=1e-3,
        use_vllm=True,
        vllm_mode="colocate",
        vllm_gpu_memory_utilization=0.3,
        vllm_max_model_length=256,
        vllm_importance_sampling_mode=mode,
        ssb_prefill=str(out / "ssb"),
        report_to=[],
        logging_steps=1,
        use_cpu=True,
        bf16=False,
        save_strategy="no",
    )

    def all_wrong(completions, **kwargs):
        return [0.0] * len(completions)

    trainer = SSBGRPOTrainer(path, all_wrong, config, train_dataset=load_dataset(str(out), split="train"))
    ratios = [sample.tokens["importance_sampling_ratio"] for sample in trainer.buffer.samples.values()]
    assert ratios and all(len(ratio) == (1 if mode == "sequence_mask" else 5) or ratio.dim() for ratio in ratios)
    assert all((ratio - 1).abs().max() < 0.1 for ratio in ratios)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "ssb/replayed_rows" in entry]
    assert [entry["ssb/replayed_rows"] for entry in logs] == [6.0, 6.0]
    assert logs[0]["ssb/ratio_mean"] == pytest.approx(1.0, abs=1e-4)


def test_pairs_with_dropout_by_vllm(tmp_path, model_paths):
    """Half a response is continued without its image, in the same process as the sampling."""
    rows(True).to_parquet(tmp_path / "prompts.parquet")
    pairs.main(
        PairsArguments(
            dataset_name=str(tmp_path / "prompts.parquet"),
            output_dir=str(tmp_path / "pairs"),
            model_name_or_path=model_paths["internvl"],
            dtype="float32",
            num_samples=8,
            max_new_tokens=24,
            reward_funcs=[f"{__name__}.even_reward"],
            use_cpu=True,
            plots=False,
            generation="vllm",
            vllm_kwargs=ENGINE,
            max_dropout_pairs=1,
        )
    )
    table = load_dataset(str(tmp_path / "pairs"), split="train")
    assert {"correctness", "dropout_ntp"} == set(table["pair_kind"])
    for pair in table:
        assert even_reward([pair["chosen"]]) == [1.0]
        if pair["pair_kind"] == "dropout_ntp":
            shared = os.path.commonprefix([pair["chosen"][0]["content"], pair["rejected"][0]["content"]])
            assert pair["images"] and shared


def test_a_model_with_other_image_settings_is_refused(tmp_path, model_paths):
    """vLLM reads the tiling from the folder; a processor of another one would make other prompts."""
    other = AutoProcessor.from_pretrained(build_internvl(tmp_path / "other", max_patches=1, hidden_size=64))
    engine = VLLMEngine(model_paths["internvl"], other, kwargs=ENGINE)
    try:
        with pytest.raises(EngineError, match="row 0: vLLM makes .* tokens of the prompt, and the processor"):
            list(engine.sample_chunks(rows(True).select([3]).add_column("row", [3]), num_samples=1, max_new_tokens=2))
    finally:
        engine.close()
