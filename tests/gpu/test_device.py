# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What depends on the device. Runs on a GPU where there is one and on the CPU otherwise, where memory is not asserted.

Not covered: bfloat16 against a reference, host synchronisations, FSDP2, compilation, colocated engines with sleep
mode.
"""

import pytest
import torch
from transformers import TrainerCallback
from trl.trainer.utils import add_fused_lm_head

from tests.support.ssb_probes import fated, probed
from tests.support.ssb_runs import SSBGRPOTrainer, image_dataset, make_trainer, text_dataset
from tests.support.tiny_models import build_tokenizer, text_config


pytestmark = pytest.mark.gpu

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ON_DEVICE = {"use_cpu": DEVICE == "cpu"}


@pytest.mark.parametrize("kind", ["text", "images"])
def test_gradients_row_by_row(kind, text_model_path, internvl_path, tmp_path, monkeypatch):
    """Fresh and replayed rows in float32, against a computation without padding."""
    path, data = (text_model_path, text_dataset) if kind == "text" else (internvl_path, image_dataset)
    trainer, probe = probed(monkeypatch, path, tmp_path, data(), fated({3: 0.0, 4: 1.0, 5: 1.0}), **ON_DEVICE)
    trainer.train()
    assert trainer.model.device.type == DEVICE
    assert probe.num_replayed == [0, 4, 8]
    probe.assert_gradients(3)


class Allocated(TrainerCallback):
    """Bytes of the GPU in use at the end of each step; zeros without one."""

    def __init__(self):
        self.num_bytes = []

    def on_step_end(self, args, state, control, **kwargs):
        self.num_bytes.append(torch.cuda.memory_allocated() if DEVICE == "cuda" else 0)


def test_buffer_and_pixels_stay_on_the_cpu(internvl_path, tmp_path):
    """A stream cannot be read again, so pixels are stored; 50 steps leave nothing behind on the GPU."""
    allocated = Allocated()
    trainer = make_trainer(
        SSBGRPOTrainer,
        internvl_path,
        tmp_path,
        image_dataset().to_iterable_dataset(),
        max_steps=50,
        callbacks=[allocated],
        **ON_DEVICE,
    )
    trainer.train()
    samples = trainer.buffer.samples.values()
    assert samples and all(tensor.device.type == "cpu" for sample in samples for tensor in sample.tokens.values())
    visual = [trainer.images.visual(sample.source) for sample in samples]
    assert all(tensor.device.type == "cpu" for fields in visual for tensor in fields.values())
    assert max(allocated.num_bytes[40:]) <= max(allocated.num_bytes[5:15]) + 2**20


def test_the_head_over_a_large_vocabulary():
    """TRL's fused head: the log-probabilities of full logits, without room for them (2.5 GB here on a GPU)."""
    from transformers import Qwen2ForCausalLM

    vocabulary, num_tokens = 151_936, 4096 if DEVICE == "cuda" else 64
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(text_config(build_tokenizer(), vocab_size=vocabulary, max_position_embeddings=num_tokens))
    model = model.to(DEVICE)
    ids = torch.randint(vocabulary, (1, num_tokens), device=DEVICE)
    few = slice(0, 32)
    with torch.no_grad():
        expected = torch.log_softmax(model(ids[:, few]).logits[0, :-1].float(), dim=-1)
    expected = expected.gather(1, ids[0, few][1:].unsqueeze(1)).squeeze(1)
    add_fused_lm_head(model)
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    logps = model(ids, labels=ids, fused_lm_head=True).log_probs[0]
    logps.sum().backward()
    torch.testing.assert_close(logps.detach()[: len(expected)], expected, atol=1e-4, rtol=1e-4)
    if DEVICE == "cuda":
        assert torch.cuda.max_memory_allocated() - before < 2**30
