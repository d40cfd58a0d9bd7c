# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""What stays off the GPU, what never has room there, and how often the host waits for it."""

import warnings

import pytest
import torch
from transformers import Qwen2ForCausalLM, TrainerCallback
from trl import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from tests.support.device import DEVICE, ON_DEVICE, needs_gpu
from tests.support.ssb_probes import fated
from tests.support.ssb_runs import SSBGRPOTrainer, image_dataset, make_trainer, text_dataset
from tests.support.tiny_models import build_tokenizer, text_config


pytestmark = pytest.mark.gpu


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


class Synchronisations(TrainerCallback):
    """Counts how often the host waited for the GPU, from the second step on: the first fills caches."""

    def __init__(self):
        self.count, self.shown = 0, warnings.showwarning

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 1:
            torch.cuda.set_sync_debug_mode("warn")
            warnings.simplefilter("always")
            warnings.showwarning = self.see

    def on_train_end(self, args, state, control, **kwargs):
        torch.cuda.set_sync_debug_mode("default")
        warnings.showwarning = self.shown

    def see(self, message, *args, **kwargs):
        self.count += "synchronizing CUDA operation" in str(message)


@needs_gpu
@pytest.mark.parametrize("kind", ["text", "images"])
def test_host_synchronisations(kind, text_model_path, internvl_path, tmp_path):
    """At most four a micro-batch more than stock TRL, with replay in every second batch."""
    path, data = (text_model_path, text_dataset) if kind == "text" else (internvl_path, image_dataset)
    num_steps, num_micro_batches = 7, 4
    counts = {}
    for cls in (GRPOTrainer, SSBGRPOTrainer):
        syncs = Synchronisations()
        with warnings.catch_warnings():
            make_trainer(
                cls,
                path,
                tmp_path / cls.__name__,
                data(),
                fated(dict.fromkeys(range(2, 12, 4), 0.0)),
                per_device_train_batch_size=4,
                gradient_accumulation_steps=num_micro_batches,
                max_steps=num_steps,
                callbacks=[syncs],
                **ON_DEVICE,
            ).train()
        counts[cls] = syncs.count
    assert counts[GRPOTrainer] > 0
    more = (counts[SSBGRPOTrainer] - counts[GRPOTrainer]) / ((num_steps - 1) * num_micro_batches)
    assert more <= 4, f"{more:.1f} a micro-batch more than stock"
