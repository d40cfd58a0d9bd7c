# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The perception term: what is masked, what is measured, and what it does to training."""

import pytest
import torch

from benchmarks.perception.compare import summarise
from benchmarks.perception.term import mask_patches, perception_divergence, trainer_with
from tests.support.ssb_runs import SSBGRPOTrainer, image_dataset, losses, make_trainer, parameters
from trl_r1v2.vlm.activation import set_trainable


def test_equal_tiles_lose_the_same_patches():
    tiles = torch.randn(3, 3, 32, 32)[[0, 1, 0, 2]]
    masked = mask_patches(tiles, 0.6, 4, torch.Generator().manual_seed(0))
    assert torch.equal(masked[0], masked[2]) and not torch.equal(masked[0] == 0, masked[1] == 0)
    patches = (masked == 0).unfold(2, 4, 4).unfold(3, 4, 4).flatten(-2)
    assert torch.equal(patches.all(dim=-1), patches.any(dim=-1))  # whole patches, in all channels or in none
    assert torch.equal(patches[:, 0], patches[:, 1])
    assert 0.5 < patches.float().mean() < 0.7
    assert torch.equal(masked[masked != 0], tiles[masked != 0])


def test_divergence_is_that_of_its_definition():
    logps, masked = -torch.rand(2, 3), -torch.rand(2, 3)
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    ratio = logps.double().exp() / masked.double().exp()
    terms = ratio - ratio.log() - 1
    expected = (terms[0].mean() + terms[1, 0]) / 2
    assert float(perception_divergence(logps, masked, mask)) == pytest.approx(float(expected), rel=1e-5)
    assert float(perception_divergence(logps, logps, mask)) == 0


@pytest.mark.parametrize("share_prompts", [False, True])
def test_the_term_makes_answers_depend_on_the_image(share_prompts, internvl_path, tmp_path):
    # Two steps on one batch and one mask, the first so small that its gradient tells what the second finds.
    settings = {"optim": "sgd", "learning_rate": 1e-6, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    settings |= {"num_iterations": 2, "max_steps": 2, "share_prompts": share_prompts, "ssb_enabled": False}
    trainers = {}
    for coef in (None, 0.0, 5.0):
        cls = SSBGRPOTrainer if coef is None else trainer_with(coef, 1.0)
        trainer = make_trainer(cls, internvl_path, tmp_path / str(coef), image_dataset(), **settings)
        set_trainable(trainer.model, "llm+adapter")
        trainer.train()
        trainers[coef] = trainer
    torch.testing.assert_close(losses(trainers[0.0]), losses(trainers[None]), atol=1e-6, rtol=0)
    for name, value in parameters(trainers[None]).items():
        torch.testing.assert_close(parameters(trainers[0.0])[name], value, atol=1e-6, rtol=0)
    found = {
        coef: [entry["perception"] for entry in trainers[coef].state.log_history if "perception" in entry]
        for coef in (0.0, 5.0)
    }
    assert found[5.0][0] == pytest.approx(found[0.0][0], rel=1e-5)
    assert found[5.0][1] > found[0.0][1] * 1.0001
    first_loss = {coef: losses(trainer)[0] for coef, trainer in trainers.items()}
    assert float(first_loss[5.0]) == pytest.approx(float(first_loss[0.0]) - 5.0 * found[5.0][0], abs=2e-4)


def test_settings_are_compared_seed_by_seed():
    def runs(*shares):
        figures = [{"accuracy/images": share, "hallucination": 1 - share} for share in shares]
        return [{"greedy": figure, "sampled": {**figure, "hallucination": 0.5}} for figure in figures]

    summary, table = summarise({"neither": runs(0.5, 0.6, 0.7), "rule": runs(0.52, 0.62, 0.73)})
    change = summary["rule"]["greedy/accuracy/images"]["change"]
    assert change["values"] == pytest.approx([2, 2, 3]) and change["p"] == pytest.approx(0.0198, abs=1e-4)
    assert change["p_corrected"] == pytest.approx(4 * change["p"])
    assert summary["rule"]["greedy/hallucination"]["change"]["mean"] == pytest.approx(-7 / 3)
    assert table.splitlines()[2].startswith("| neither | 60.0 ± 24.8 | 40.0 ± 24.8 |")
    assert "| 62.3 ± 26.1, +2.3 ± 1.4 (p 0.079) |" in table
