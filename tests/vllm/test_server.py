# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""A vLLM server that samples for the trainer. It keeps the weights it started with (`tests.support.cpu_engine`)."""

import pytest
import torch

from tests.support.cpu_engine import KV_CACHE, Server, bring_no_weights
from tests.support.ssb_probes import fated, probed, row_visual
from tests.support.ssb_runs import image_dataset, text_dataset
from tests.vllm.test_colocate import FATES, assert_correction, assert_losses


pytestmark = pytest.mark.vllm

ENGINE = ["--dtype", "float32", "--kv-cache-memory-bytes", str(KV_CACHE)]
COMMANDS = {
    "trl": (["trl", "vllm-serve"], [*ENGINE, "--max_model_len", "256", "--enforce_eager", "true"]),
    "vllm": (
        ["vllm", "serve"],
        # fmt: off
        [
            *ENGINE,
            "--max-model-len",
            "256",
            "--enforce-eager",
            "--logprobs-mode",
            "processed_logprobs",
            "--enable-scale-out",
        ],
        # fmt: on
    ),
}


def engine_logps(model, batch, index) -> torch.Tensor:
    """Log-probabilities of a row over the tokens that the engine may sample, from a forward over the row alone."""
    prompt = batch["prompt_ids"][index][batch["prompt_mask"][index].bool()]
    completion = batch["completion_ids"][index][batch["completion_mask"][index].bool()]
    ids = torch.cat([prompt, completion]).unsqueeze(0)
    visual = row_visual(batch, index)
    if "mm_token_type_ids" in visual:
        types = visual["mm_token_type_ids"]
        visual["mm_token_type_ids"] = torch.cat([types, types.new_zeros(len(completion))]).unsqueeze(0)
    with torch.no_grad():
        logits = model(input_ids=ids, **visual).logits[0, len(prompt) - 1 : -1]
    if visual:
        logits[:, model.config.image_token_id] = -torch.inf
    return torch.log_softmax(logits, dim=-1).gather(1, completion.unsqueeze(1)).squeeze(1)


@pytest.mark.parametrize(("command", "kind"), [("trl", "text"), ("vllm", "internvl"), ("vllm", "qwen_vl")])
def test_generation(command, kind, model_paths, tmp_path, monkeypatch):
    updates = bring_no_weights(monkeypatch)
    words, options = COMMANDS[command]
    dataset = text_dataset() if kind == "text" else image_dataset(layouts=((1, 1), (4,), (2,)))
    with Server(words, model_paths[kind], tmp_path / "server.log", *options) as server:
        trainer, probe = probed(
            monkeypatch,
            model_paths[kind],
            tmp_path,
            dataset,
            fated(FATES),
            use_vllm=True,
            vllm_mode="server",
            vllm_server_base_url=server.url,
            learning_rate=0.0,
        )
        trainer.train()
    assert probe.num_replayed == [0, 4, 8]
    assert_correction(trainer, probe, tolerance=5e-5)  # it draws other rows each time, some less smooth than others
    assert_losses(trainer, probe)
    probe.assert_gradients(3)
    probe.assert_buffer()
    assert updates == [len(list(trainer.model.parameters()))] * 3
    for batches in probe.fresh:
        for index in range(8):
            expected = engine_logps(trainer.model, batches[0], index)
            actual = batches[0]["sampling_per_token_logps"][index, : len(expected)]
            torch.testing.assert_close(actual, expected, atol=2e-4, rtol=0)
