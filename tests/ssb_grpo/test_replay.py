# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""What the buffer does to a training run, driven through `trainer.train()` and checked against `reference.py`."""

import pytest
import torch
from datasets import Dataset
from trl import GRPOTrainer

from tests.support.ssb_reference import BeforeStep, grpo_loss, row_logps
from tests.support.ssb_runs import (
    SSBGRPOTrainer,
    image_dataset,
    make_trainer,
    mixed_dataset,
    spread_reward,
    text_dataset,
)


def with_fates(dataset: Dataset, fates: dict[int, str]) -> Dataset:
    return dataset.remove_columns("fate").add_column("fate", [fates.get(row, "spread") for row in range(len(dataset))])


def fated_spread_reward(completion_ids, fate, **kwargs):
    spread = spread_reward(completion_ids)
    return [{"right": 1.0, "wrong": 0.0}.get(row_fate, value) for row_fate, value in zip(fate, spread, strict=True)]


class Recorder:
    """Keeps what TRL generated and what the trainer made of it, for every generation of a run."""

    def __init__(self, trainer, monkeypatch):
        self.fresh, self.used, self.drawn, self.held = [], [], [], []
        stock = GRPOTrainer._generate_and_score_completions
        ours, draw = trainer._generate_and_score_completions, trainer.buffer.draw

        def recording_stock(inner_self, inputs):
            output = stock(inner_self, inputs)
            self.fresh.append({key: copy(value) for key, value in output.items()})
            return output

        def recording_ours(inputs):
            self.held.append({uid: (s.tokens, s.advantage, s.source) for uid, s in trainer.buffer.samples.items()})
            output = ours(inputs)
            self.used.append({key: copy(value) for key, value in output.items()})
            return output

        def recording_draw(num_samples, step):
            self.drawn.append(draw(num_samples, step))
            return self.drawn[-1]

        monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", recording_stock)
        monkeypatch.setattr(trainer, "_generate_and_score_completions", recording_ours)
        monkeypatch.setattr(trainer.buffer, "draw", recording_draw)


def copy(value):
    return value.clone() if isinstance(value, torch.Tensor) else list(value)


def unpadded(batch, index):
    prompt = batch["prompt_ids"][index][batch["prompt_mask"][index].bool()]
    return prompt, batch["completion_ids"][index][batch["completion_mask"][index].bool()]


def tiles_of(batch, index):
    """Pixel rows of one batch row, counted independently of `rows.py`."""
    if "pixel_values" not in batch:
        return None
    counts = batch.get("num_tiles", batch["num_images"])
    start = sum(counts[:index])
    return batch["pixel_values"][start : start + counts[index]]


DATASETS = {"text": text_dataset, "images": image_dataset, "mixed": mixed_dataset}


@pytest.fixture(params=DATASETS)
def run(request, text_model_path, internvl_path, tmp_path, monkeypatch):
    """A run in which the second group of the second step is all wrong, and both groups of the third all right."""
    dataset = with_fates(DATASETS[request.param](), {3: "wrong", 4: "right", 5: "right"})
    path = text_model_path if request.param == "text" else internvl_path
    checks = []
    trainer = make_trainer(
        SSBGRPOTrainer,
        path,
        tmp_path,
        dataset,
        fated_spread_reward,
        max_steps=3,
        shuffle_dataset=False,
        callbacks=[BeforeStep(lambda step: [check(step) for check in checks])],
    )
    return trainer, Recorder(trainer, monkeypatch), dataset, checks


def test_exactly_the_dead_rows_are_replaced(run):
    trainer, recorder, dataset, _ = run
    trainer.train()
    dead_rows = [[], [4, 5, 6, 7], list(range(8))]
    for fresh, used, drawn, held, dead in zip(
        recorder.fresh, recorder.used, recorder.drawn, recorder.held, dead_rows, strict=True
    ):
        assert used["ssb_is_replayed"].nonzero().flatten().tolist() == dead
        assert len(drawn) == len(dead) == len({sample.uid for sample in drawn})
        for index in range(8):
            prompt, completion = unpadded(used, index)
            tiles = tiles_of(used, index)
            if index not in dead:
                expected_prompt, expected_completion = unpadded(fresh, index)
                expected_advantage, expected_tiles = fresh["advantages"][index].item(), tiles_of(fresh, index)
            else:
                sample = drawn[dead.index(index)]
                tokens, expected_advantage, source = held[sample.uid]
                expected_prompt, expected_completion = tokens["prompt_ids"], tokens["completion_ids"]
                expected_tiles = pixels_of_row(trainer, dataset, source)
                stored = used["ssb_stored_logps"][index][: len(completion)]
                assert torch.equal(stored, tokens["old_per_token_logps"])
            assert prompt.tolist() == expected_prompt.tolist()
            assert completion.tolist() == expected_completion.tolist()
            assert used["advantages"][index].item() == pytest.approx(expected_advantage, abs=0)
            if tiles is not None and len(tiles) > 0:
                assert torch.equal(tiles, expected_tiles)
            else:
                assert expected_tiles is None or len(expected_tiles) == 0
        # Padding: prompts on the left, completions on the right, nothing wider than the widest row.
        assert used["prompt_mask"].sum(1).max() == used["prompt_ids"].size(1)
        assert used["completion_mask"].sum(1).max() == used["completion_ids"].size(1)
        assert (used["prompt_mask"].diff(dim=1) >= 0).all() and (used["completion_mask"].diff(dim=1) <= 0).all()
        assert (used["prompt_ids"][used["prompt_mask"] == 0] == trainer._tokenizer.pad_token_id).all()
        assert used["num_items_in_batch"] == used["completion_mask"].sum()


def pixels_of_row(trainer, dataset, source):
    if source is None:
        return None
    example = dataset[source]
    content = [{"type": "image", "image": picture} for picture in example["images"]]
    message = {"role": "user", "content": [*content, {"type": "text", "text": "x"}]}
    processor = trainer.processing_class
    text = processor.apply_chat_template([message], tokenize=False)
    return processor(images=example["images"], text=[text], return_tensors="pt")["pixel_values"]


def test_gradient_equals_reference(run):
    """The gradient of the whole step is that of eq. 8 on the same rows, replayed ones with their stored ratios."""
    trainer, recorder, _, checks = run
    compared = []

    def check(step):
        used = recorder.used[step]
        rows = []
        for index in range(8):
            prompt, completion = unpadded(used, index)
            is_replayed = bool(used["ssb_is_replayed"][index])
            rows.append(
                {
                    "prompt_ids": prompt,
                    "completion_ids": completion,
                    "advantage": used["advantages"][index],
                    "behaviour": used["ssb_stored_logps"][index][: len(completion)] if is_replayed else None,
                    "pixel_values": tiles_of(used, index),
                }
            )
        model = trainer.model
        names, weights = zip(*[(n, p) for n, p in model.named_parameters() if p.grad is not None], strict=True)
        actual = [weight.grad.clone() for weight in weights]
        expected = torch.autograd.grad(grpo_loss(model, rows), weights, allow_unused=True)
        # The trainer clips gradients to norm 1 before this callback.
        norm = torch.sqrt(sum((gradient**2).sum() for gradient in expected if gradient is not None))
        scale = min(1.0, 1.0 / (norm.item() + 1e-6))
        for name, mine, reference in zip(names, actual, expected, strict=True):
            reference = torch.zeros_like(mine) if reference is None else reference * scale
            torch.testing.assert_close(mine, reference, atol=2e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
        compared.append(int(used["ssb_is_replayed"].sum()))

    checks.append(check)
    trainer.train()
    assert compared == [0, 4, 8]


def test_captured_logps_equal_an_extra_forward(run):
    """In float64, so that the padding of a batch, which the extra forward lacks, does not show in the last digits."""
    trainer, recorder, dataset, checks = run
    trainer.model.double()
    largest_difference = []

    def check(step):
        waiting = [s for s in trainer.buffer.samples.values() if s.step == step]
        for sample in waiting:
            assert sample.is_ready
            tiles = pixels_of_row(trainer, dataset, sample.source)
            with torch.no_grad():
                expected = row_logps(
                    trainer.model, sample.tokens["prompt_ids"], sample.tokens["completion_ids"], tiles
                )
            largest_difference.append((sample.tokens["old_per_token_logps"] - expected).abs().max().item())

    checks.append(check)
    trainer.train()
    assert len(largest_difference) == 12
    # Stored in float32, as TRL computes them: a few units of the last place, which depend on the processor.
    assert max(largest_difference) < 1e-5


def test_stored_ratio_differs_from_one(run):
    """If replayed rows looked on-policy, this ratio would be exactly 1."""
    trainer, _, _, _ = run
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "ssb/ratio_mean" in entry]
    assert [entry["step"] for entry in logged] == [2, 3]
    assert all(abs(entry["ssb/ratio_mean"] - 1) > 1e-3 for entry in logged)


def test_metrics_of_the_run(run):
    trainer, _, _, _ = run
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "ssb/size" in entry]
    assert [entry["ssb/dead_groups"] for entry in logs] == [0.0, 0.5, 1.0]
    assert [entry["ssb/effective_before"] for entry in logs] == [1.0, 0.5, 0.0]
    assert [entry["ssb/effective_after"] for entry in logs] == [1.0, 1.0, 1.0]
    assert [entry["ssb/replayed_rows"] for entry in logs] == [0, 4, 8]
    assert [entry["ssb/size"] for entry in logs] == [8, 12, 12]
    assert [entry["ssb/age_max"] for entry in logs] == [0, 1, 2]
