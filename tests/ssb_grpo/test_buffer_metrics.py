# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The figures of a generation against plain loops over rows and processes."""

import math

import pytest
import torch

from tests.support.ssb_probes import fated
from tests.support.ssb_runs import SSBGRPOTrainer, make_trainer, text_dataset
from trl_r1v2.ssb_grpo.judge import ratio_counts, ratio_metrics, reduce_counts, replay_metrics


SUMMED = ("fresh_rows", "resampled_rows", "skipped/masked", "size", "bytes", "evicted/age")
PROCESSES = [
    dict(
        rows=8,
        fresh_rows=8,
        dead_rows=4,
        effective_before=3,
        effective_after=7,
        ages=[1, 2, 6],
        drawn=[-2.5, 0.4, -1.0],
    ),
    dict(rows=8, fresh_rows=4, dead_rows=0, effective_before=4, effective_after=8, ages=[], drawn=[]),
    dict(rows=8, fresh_rows=4, dead_rows=4, effective_before=0, effective_after=1, ages=[3], drawn=[1.5]),
]


def counts_of(process, index):
    ages, drawn = process["ages"], process["drawn"]
    counts = {name: process[name] for name in ("rows", "dead_rows", "effective_before", "effective_after")}
    counts |= {name: 100 * index + place for place, name in enumerate(SUMMED)}
    counts |= {"fresh_rows": process["fresh_rows"], "size": len(ages)}
    counts |= {"age_sum": sum(ages), "age_max": max(ages, default=0), "replayed_rows": len(drawn)}
    return counts | {"replayed_negative": sum(value < 0 for value in drawn), "replayed_advantage": sum(drawn)}


def test_replay_metrics_equal_figures_over_all_rows():
    local = [counts_of(process, index) for index, process in enumerate(PROCESSES)]
    gathered = torch.tensor([list(counts.values()) for counts in local], dtype=torch.float64)
    metrics = replay_metrics(reduce_counts(list(local[0]), gathered))
    ages = [age for process in PROCESSES for age in process["ages"]]
    drawn = [value for process in PROCESSES for value in process["drawn"]]
    assert metrics["age_mean"] == pytest.approx(sum(ages) / len(ages)) and metrics["age_max"] == max(ages)
    assert metrics["replayed_rows"] == 4 and metrics["replayed_negative"] == 2 / 4
    assert metrics["replayed_advantage"] == pytest.approx(sum(drawn) / 4)
    assert metrics["dead_groups"] == 8 / 16
    assert metrics["effective_before"] == 7 / 16
    assert metrics["effective_after"] == 16 / 24
    for name in SUMMED:
        assert metrics[name] == sum(counts[name] for counts in local)


def test_replay_metrics_of_an_empty_buffer():
    local = counts_of(PROCESSES[1], 0)
    metrics = replay_metrics(local)
    assert metrics["age_mean"] == metrics["age_max"] == metrics["replayed_advantage"] == 0.0
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("delta", [math.inf, 1.6])
def test_ratio_metrics_equal_a_loop_over_tokens(delta):
    generator = torch.Generator().manual_seed(0)
    processes = []
    for num_rows in (3, 5):
        log_ratio = torch.randn(num_rows, 7, generator=generator)
        advantages = torch.randn(num_rows, generator=generator)
        mask = torch.rand(num_rows, 7, generator=generator) < 0.6
        processes.append((log_ratio, advantages, mask))
    low, high = 0.2, 0.3
    ratios, clipped = [], 0
    for log_ratio, advantages, mask in processes:
        for row in range(len(advantages)):
            for token in range(7):
                if not mask[row, token]:
                    continue
                ratio, advantage = math.exp(log_ratio[row, token]), advantages[row].item()
                ratios.append(ratio)
                # Clipped means that eq. 8's minimum takes a term that is constant: no gradient.
                objective = min(min(ratio, delta) * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)
                clipped += objective != ratio * advantage
    counts = [ratio_counts(*process, (1 - low, 1 + high, delta)) for process in processes]
    gathered = torch.tensor([list(process.values()) for process in counts], dtype=torch.float64)
    metrics = ratio_metrics(reduce_counts(list(counts[0]), gathered))
    assert metrics["ratio_mean"] == pytest.approx(sum(ratios) / len(ratios), rel=1e-6)
    assert metrics["ratio_max"] == pytest.approx(max(ratios), rel=1e-6)
    assert metrics["ratio_clipped"] == clipped / len(ratios) and 0 < clipped < len(ratios)


def test_nothing_replayed_gives_no_ratio():
    counts = ratio_counts(torch.zeros(2, 3), torch.ones(2), torch.zeros(2, 3, dtype=torch.bool), (0.8, 1.2, math.inf))
    assert ratio_metrics(counts) == {}


def test_masked_tokens_do_not_count_however_large():
    log_ratio, mask = torch.tensor([[0.0, 90.0]]), torch.tensor([[True, False]])
    metrics = ratio_metrics(ratio_counts(log_ratio, torch.ones(1), mask, (0.8, 1.2, math.inf)))
    assert metrics == {"ratio_mean": 1.0, "ratio_max": 1.0, "ratio_clipped": 0.0}


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"loss_type": "grpo"}, "clip_ratio/region_mean"),
        ({"importance_sampling_level": "sequence", "epsilon": 0.1}, "clip_ratio/region_mean"),
        ({"loss_type": "cispo", "epsilon_high": 1.0}, "cispo_clip_ratio"),
        ({"loss_type": "cispo", "epsilon_high": 5.0}, "cispo_clip_ratio"),
        ({"loss_type": "vespo"}, None),
        ({"loss_type": "sapo"}, None),
    ],
)
def test_the_clipped_share_is_that_of_the_loss(settings, name, text_model_path, tmp_path):
    """The third generation is all dead and all replayed, so TRL's own figure, of all rows, is of the replayed ones."""
    fates = {2: 0.0, 3: 1.0, 4: 0.0, 5: 1.0}
    settings = {"epsilon": 0.02, "max_steps": 3, "shuffle_dataset": False, "learning_rate": 3e-3} | settings
    trainer = make_trainer(SSBGRPOTrainer, text_model_path, tmp_path, text_dataset(), fated(fates), **settings)
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [step["ssb/replayed_rows"] for step in steps] == [0, 8, 8]
    for step in steps[1:]:
        if name is None:
            assert step["ssb/ratio_clipped"] == 0.0 and "ssb/ratio_mean" in step
        else:
            assert step["ssb/ratio_clipped"] == pytest.approx(step[name], abs=1e-6)
    if settings.get("epsilon_high") != 5.0 and name is not None:
        assert 0 < steps[-1]["ssb/ratio_clipped"] < 1
