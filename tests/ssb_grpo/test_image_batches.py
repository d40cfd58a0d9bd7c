# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Where images of replayed rows come from: dataset rows, stored pixels, and stores that are too small."""

import pytest
import torch

from tests.support.ssb_probes import fated, logged, probed
from tests.support.ssb_runs import assert_identical, image_dataset, mixed_dataset
from tests.support.tiny_qwen_vl import build_qwen_vl


FATES = {3: 0.0, 4: 1.0, 5: 1.0}
TILE = 3 * 28 * 28 * 4  # bytes
# Rows of `image_dataset` hold two tiles, three (two and a thumbnail), and one, in turn.


@pytest.fixture(scope="session")
def qwen_vl_path(tmp_path_factory):
    return build_qwen_vl(tmp_path_factory.mktemp("qwen_vl"))


def run(monkeypatch, path, folder, dataset, fates=FATES, **settings):
    with monkeypatch.context() as patch:
        trainer, probe = probed(patch, path, folder, dataset, fated(fates), **settings)
        trainer.train()
    return trainer, probe


@pytest.mark.parametrize("build", [image_dataset, mixed_dataset], ids=["images", "mixed"])
def test_stream_equals_map_style(build, internvl_path, tmp_path, monkeypatch):
    """Pixels stored by content are those read again by row number: same losses, same parameters."""
    rows, _ = run(monkeypatch, internvl_path, tmp_path / "rows", build())
    stream, probe = run(monkeypatch, internvl_path, tmp_path / "stream", build().to_iterable_dataset())
    assert probe.num_replayed == [0, 4, 8]
    probe.assert_gradients(3)
    assert_identical(rows, stream)
    sources = [sample.source for sample in stream.buffer.samples.values() if sample.num_images]
    assert sources and all(len(source) == 64 for source in sources)
    assert set(sources) == set(stream.images.entries)


def test_small_cache_reads_rows_again(internvl_path, tmp_path, monkeypatch):
    """With a map-style dataset the store is only a cache: its size changes nothing but work."""
    large, _ = run(monkeypatch, internvl_path, tmp_path / "large", image_dataset())
    small, probe = run(monkeypatch, internvl_path, tmp_path / "small", image_dataset(), ssb_pixel_bytes=1)
    assert probe.num_replayed == [0, 4, 8] and len(small.images.entries) == 0
    probe.assert_gradients(3)
    assert_identical(large, small)


def test_small_store_of_a_stream_gives_samples_up(internvl_path, tmp_path, monkeypatch):
    """
    Four and a half tiles: row 1 pushes out row 0, and row 4 pushes out images of samples that were drawn for its own
    batch, which must be trained on all the same.
    """
    trainer, probe = run(
        monkeypatch,
        internvl_path,
        tmp_path,
        image_dataset().to_iterable_dataset(),
        {3: 0.0, 5: 0.0},
        ssb_pixel_bytes=int(4.5 * TILE),
    )
    assert probe.num_replayed == [0, 4, 4]
    probe.assert_gradients(3)
    assert logged(trainer, "ssb/evicted/pixels")[:2] == [4, 0]
    assert logged(trainer, "ssb/evicted/pixels")[2] >= 4
    assert all(value <= 4.5 * TILE for value in logged(trainer, "ssb/pixel_bytes"))
    assert {s.source for s in trainer.buffer.samples.values()} == set(trainer.images.entries)


def test_images_larger_than_the_store_are_not_kept(internvl_path, tmp_path, monkeypatch):
    trainer, probe = run(
        monkeypatch,
        internvl_path,
        tmp_path,
        image_dataset().to_iterable_dataset(),
        {2: 0.0, 3: 0.0},
        max_steps=2,
        ssb_pixel_bytes=int(2.5 * TILE),
    )
    assert logged(trainer, "ssb/evicted/pixels") == [4, 0]
    assert probe.num_replayed == [0, 4]
    probe.assert_gradients(2)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("build", [image_dataset, mixed_dataset], ids=["images", "mixed"])
def test_grid_layout(build, accumulation, qwen_vl_path, tmp_path, monkeypatch):
    """Qwen2.5-VL: pixels by grid, token types for its positions, and text rows among image rows."""
    trainer, probe = run(
        monkeypatch,
        qwen_vl_path,
        tmp_path,
        build(),
        per_device_train_batch_size=8 // accumulation,
        gradient_accumulation_steps=accumulation,
    )
    assert probe.num_replayed == [0, 4, 8]
    assert any("image_grid_thw" in used for used in probe.used)
    probe.assert_gradients(3)
    probe.assert_buffer()


def test_grid_layout_in_a_stream_with_old_rollouts(qwen_vl_path, tmp_path, monkeypatch):
    trainer, probe = run(
        monkeypatch,
        qwen_vl_path,
        tmp_path,
        mixed_dataset().to_iterable_dataset(),
        num_iterations=2,
        max_steps=6,
        beta=0.1,
    )
    assert probe.num_replayed == [0, 4, 8]
    probe.assert_gradients(6)
    probe.assert_buffer()
    assert any(torch.is_tensor(f["image_grid_thw"]) for f in trainer.images.entries.values())
