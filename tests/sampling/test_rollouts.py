# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.

import json
import subprocess
import sys
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_r1v2.sampling.rollouts import Rollout, RolloutStore, merge_shards, shard_path


SETTINGS = {"model": "abc", "num_samples": 2}


def rollouts_of(row, text='é\n"}'):
    return [Rollout(row, sample, f"{text}{row}", [row, sample], 2, sample == 0) for sample in range(2)]


def write_run(folder, rows, world_size=1, rank=0, chunk=2):
    """Samples what the store lacks, in chunks, as `sample_to_store` does; returns the rows it had to do."""
    store = RolloutStore(folder, SETTINGS, rank=rank, world_size=world_size)
    remaining = store.remaining(rows)
    for start in range(0, len(remaining), chunk):
        store.append_rollouts([r for row in remaining[start : start + chunk] for r in rollouts_of(row)])
    return remaining


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    write_run(folder, range(7))
    return shard_path(folder, "rollouts", 0, 1).read_bytes()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_resume_from_any_byte_gives_the_uninterrupted_file(data, finished_run, tmp_path_factory):
    """Cut anywhere, with or without garbage behind the cut: whole chunks are redone and the file ends up the same."""
    cut = data.draw(st.integers(0, len(finished_run)))
    garbage = data.draw(st.sampled_from([b"", b"\0" * 9, b'{"chunk": 3', b"\xff\xfe"]))
    folder = tmp_path_factory.mktemp("cut")
    write_run(folder, [])
    path = shard_path(folder, "rollouts", 0, 1)
    path.write_bytes(finished_run[:cut] + garbage)
    redone = write_run(folder, range(7))
    assert path.read_bytes() == finished_run
    kept = 7 - len(redone)
    assert kept % 2 == 0 or kept == 7
    whole_chunks = [len(b"".join(finished_run.splitlines(keepends=True)[: 4 * n])) for n in range(5)]
    assert kept == min(7, 2 * max(n for n, size in enumerate(whole_chunks) if size <= cut))
    assert [asdict(r) for r in RolloutStore.merge(folder, range(7), 2)] == [
        asdict(r) for row in range(7) for r in rollouts_of(row)
    ]


def test_merge_orders_shards_and_reports_what_is_missing(tmp_path):
    rows = list(range(5))
    write_run(tmp_path, rows[0::2], world_size=2, rank=0)
    with pytest.raises(ValueError, match="lacks 4 of 10 rollouts; the first is sample 0 of row 1"):
        RolloutStore.merge(tmp_path, rows, 2)
    write_run(tmp_path, rows[1::2], world_size=2, rank=1)
    assert [(r.row, r.sample) for r in RolloutStore.merge(tmp_path, rows, 2)] == [(r, s) for r in rows for s in (0, 1)]
    with pytest.raises(ValueError, match="lacks 5 of 15 rollouts; the first is sample 2 of row 0"):
        RolloutStore.merge(tmp_path, rows, 3)
    with pytest.raises(ValueError, match="2 rollouts twice or unasked for; the first is sample 0 of row 4"):
        RolloutStore.merge(tmp_path, rows[:4], 2)
    with pytest.raises(ValueError, match="holds no rollouts"):
        RolloutStore.merge(tmp_path / "elsewhere", rows, 2)


def test_a_rank_without_rows_needs_no_shard(tmp_path):
    write_run(tmp_path, [0], world_size=2, rank=0)
    write_run(tmp_path, [], world_size=2, rank=1)
    assert len(RolloutStore.merge(tmp_path, [0], 2)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_samples": 4}, "num_samples: stored 2, now 4"),
        ({"temperature": 1.0}, "temperature: stored None, now 1.0"),
    ],
)
def test_other_settings_are_refused_with_the_remedy(tmp_path, change, message):
    write_run(tmp_path, [0, 1])
    before = shard_path(tmp_path, "rollouts", 0, 1).read_bytes()
    with pytest.raises(ValueError, match=f"{message}.*choose another folder"):
        RolloutStore(tmp_path, {**SETTINGS, **change})
    with pytest.raises(ValueError, match="world_size: stored 1, now 2"):
        RolloutStore(tmp_path, SETTINGS, rank=0, world_size=2)
    assert shard_path(tmp_path, "rollouts", 0, 1).read_bytes() == before


def test_tuples_in_settings_are_no_change(tmp_path):
    RolloutStore(tmp_path, {"weights": (1.0, 2.0)})
    RolloutStore(tmp_path, {"weights": [1.0, 2.0]})


def test_damage_before_the_end_is_an_error_and_changes_nothing(tmp_path):
    write_run(tmp_path, range(4))
    path = shard_path(tmp_path, "rollouts", 0, 1)
    lines = path.read_bytes().splitlines(keepends=True)
    for damaged in (lines[:1] + [b"{broken\n"] + lines[2:], lines[4:], [b"[1]\n"] + lines):
        path.write_bytes(b"".join(damaged))
        with pytest.raises(ValueError, match=r"line \d+: .* changed after it was written"):
            RolloutStore(tmp_path, SETTINGS)
        assert path.read_bytes() == b"".join(damaged)


def test_shards_without_settings_are_refused(tmp_path):
    write_run(tmp_path, [0])
    (tmp_path / "rollouts.json").unlink()
    with pytest.raises(ValueError, match="no rollouts.json"):
        RolloutStore(tmp_path, SETTINGS)


def test_several_stores_share_a_folder(tmp_path):
    scores = RolloutStore(tmp_path, {"reward": "a.b"}, name="scores")
    scores.append([{"row": 0, "score": float("nan")}])
    scores.append([])
    write_run(tmp_path, [0])
    assert json.loads((tmp_path / "scores-00000-of-00001.jsonl").read_text())["row"] == 0
    assert len(merge_shards(tmp_path, "scores")) == 1 and scores.num_chunks == 1


def test_the_store_imports_without_torch():
    code = "import sys, trl_r1v2.sampling.rollouts; print('torch' in sys.modules, 'trl' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]
