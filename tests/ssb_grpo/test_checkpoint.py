# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Buffer files: bit for bit, damaged in every way a disk or a kill can damage them, and dealt out anew."""

import json
import random

import hypothesis.strategies as st
import pytest
import torch
from datasets import Dataset, Features, Image, List, Value
from hypothesis import given, settings

from tests.support.ssb_runs import image
from trl_r1v2.images.prompt_images import PromptImages
from trl_r1v2.ssb_grpo import checkpoint as checkpoint_module
from trl_r1v2.ssb_grpo.checkpoint import BufferCheckpoint, BufferStateError, run_fingerprint
from trl_r1v2.ssb_grpo.sample_buffer import Sample, SelectiveSampleBuffer


FINGERPRINT = {
    "vocab_size": 99,
    "reference_logps": True,
    "importance_sampling_mode": None,
    "dataset_rows": 4,
    "dataset_prompts": "ab",
}
OPTIONAL = ("ref_per_token_logps", "tool_mask", "importance_sampling_ratio", "token_type_ids")


def random_sample(rng, index) -> Sample:
    length, prompt_length = rng.randint(1, 6), rng.randint(1, 5)
    generator = torch.Generator().manual_seed(rng.randint(0, 10**9))
    tokens = {
        "prompt_ids": torch.randint(0, 2**40, (prompt_length,), generator=generator),
        "completion_ids": torch.randint(0, 99, (length,), generator=generator),
        "old_per_token_logps": -torch.rand(length, generator=generator),
    }
    values = {
        "ref_per_token_logps": torch.rand(length, generator=generator),
        "tool_mask": torch.randint(0, 2, (length,), generator=generator),
        "importance_sampling_ratio": torch.rand(1, generator=generator),
        "token_type_ids": torch.randint(0, 2, (prompt_length + length,), generator=generator),
    }
    tokens |= {name: values[name] for name in OPTIONAL if rng.random() < 0.7}
    # Not a short decimal: the advantage must survive to the last bit.
    advantage = torch.randn((), generator=generator, dtype=torch.float64).item() / 3 or 1.0
    return Sample(tokens, advantage, rng.randint(0, 50), None, rng.randint(0, 3), rng.randint(0, 4))


def visual(seed, dtype=torch.bfloat16):
    pixels = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, 2, seed]])}


def filled(num_samples, seed=0, rank=0, world_size=1, fingerprint=FINGERPRINT) -> BufferCheckpoint:
    """A buffer of which every third sample has a row number as source and every third stored images."""
    rng, images = random.Random(seed), PromptImages(10**6)
    buffer = SelectiveSampleBuffer(100, age_decay=3.0, seed=seed)
    samples = [random_sample(rng, i) for i in range(num_samples)]
    for index, sample in enumerate(samples):
        sample.source = [None, index, images.remember(visual(seed + index), None)][index % 3]
    buffer.extend(samples)
    buffer.draw(num_samples // 2, 50)
    images.keep_only({sample.source for sample in samples})
    return BufferCheckpoint(buffer, images, fingerprint, rank, world_size)


def empty(rank=0, world_size=1, fingerprint=FINGERPRINT) -> BufferCheckpoint:
    buffer = SelectiveSampleBuffer(100, age_decay=3.0, seed=12345)
    return BufferCheckpoint(buffer, PromptImages(10**6), dict(fingerprint), rank, world_size)


def identity(sample):
    tokens = tuple((name, str(t.dtype), tuple(t.tolist())) for name, t in sorted(sample.tokens.items()))
    return sample.advantage.hex(), sample.step, sample.uses, sample.source, sample.num_images, tokens


# ---- Round trip ----


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 12), st.integers(0, 2**32))
def test_round_trip_is_bit_for_bit(tmp_path_factory, num_samples, seed):
    folder = tmp_path_factory.mktemp("ssb")
    saved, loaded = filled(num_samples, seed), empty()
    saved.save(folder)
    loaded.load(folder)
    before, after = saved.buffer, loaded.buffer
    assert list(before.samples) == list(after.samples)
    assert list(map(identity, before.samples.values())) == list(map(identity, after.samples.values()))
    # In order, too: what the store drops next is its first entry.
    assert list(saved.images.entries) == list(loaded.images.entries)
    for key, fields in saved.images.entries.items():
        assert all(torch.equal(fields[name], tensor) for name, tensor in loaded.images.entries[key].items())
    for step in range(50, 54):
        assert [s.uid for s in before.draw(3, step)] == [s.uid for s in after.draw(3, step)]
    new = random_sample(random.Random(1), 0), random_sample(random.Random(1), 0)
    assert before.extend([new[0]]) == after.extend([new[1]])


def test_pending_samples_are_left_out(tmp_path):
    saved, loaded = filled(3), empty()
    waiting = random_sample(random.Random(5), 9)
    del waiting.tokens["old_per_token_logps"]
    saved.buffer.extend([waiting])
    saved.save(tmp_path)
    loaded.load(tmp_path)
    assert list(loaded.buffer.samples) == [0, 1, 2] and loaded.buffer.state_dict()["next_uid"] == 4


def test_nothing_is_pickled(tmp_path):
    """Every byte of the file belongs to its JSON header or to a tensor that the header names."""
    filled(6).save(tmp_path)
    [path] = tmp_path.iterdir()
    content = path.read_bytes()
    header_length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + header_length])
    end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    assert 8 + header_length + end == len(content)


# ---- Damage ----


@pytest.fixture
def path(tmp_path):
    saved = filled(5)
    saved.save(tmp_path)
    return tmp_path / saved.file_name


@pytest.mark.parametrize("place", ["empty", "header", "first_half", "second_half", "last_byte"])
def test_truncated_files_are_refused(path, place):
    content = path.read_bytes()
    lengths = dict(empty=0, header=6, first_half=len(content) // 3, second_half=len(content) * 3 // 4)
    path.write_bytes(content[: lengths.get(place, len(content) - 1)])
    with pytest.raises(BufferStateError, match=path.name.replace(".", r"\.")):
        empty().load(path.parent)


def test_any_altered_byte_is_refused(path):
    content = path.read_bytes()
    rng = random.Random(0)
    for place in {0, 7, 8, len(content) - 1, *(rng.randrange(len(content)) for _ in range(200))}:
        altered = bytearray(content)
        altered[place] ^= 1 << rng.randrange(8)
        path.write_bytes(altered)
        with pytest.raises(BufferStateError):
            empty().load(path.parent)
    path.write_bytes(content)
    empty().load(path.parent)


def test_missing_files_are_named(path):
    with pytest.raises(BufferStateError, match=r"process 1 of 2 in .*ssb-00000-of-00001.*'reshard'.*'empty'"):
        empty(1, 2).load(path.parent)
    with pytest.raises(BufferStateError, match="found: nothing"):
        empty().load(path.parent / "nowhere")


@pytest.mark.parametrize("name", FINGERPRINT)
def test_every_entry_of_another_run_is_named(path, name):
    now = FINGERPRINT | {name: "something else"}
    with pytest.raises(BufferStateError, match=f"{name}: {FINGERPRINT[name]!r} in the file, 'something else' now"):
        empty(fingerprint=now).load(path.parent)
    with pytest.raises(BufferStateError, match=f"{name}: "):
        empty(fingerprint=now).load_share(path.parent)


def test_a_kill_inside_a_file_leaves_the_old_one(path, monkeypatch):
    def no_replace(source, target):
        raise KeyboardInterrupt

    before = path.read_bytes()
    monkeypatch.setattr(checkpoint_module.os, "replace", no_replace)
    with pytest.raises(KeyboardInterrupt):
        filled(2, seed=8).save(path.parent)
    assert path.read_bytes() == before
    empty().load(path.parent)


# ---- Fingerprint ----


def test_fingerprint_tells_runs_apart():
    prompts = [[{"role": "user", "content": f"question {i}"}] for i in range(5)]
    dataset = Dataset.from_dict({"prompt": prompts, "answer": list(range(5))})
    base = run_fingerprint(99, dataset, True, None)
    same = Dataset.from_dict({"prompt": prompts, "answer": [7] * 5})
    assert run_fingerprint(99, same, True, None) == base
    changed = [*prompts[:4], [{"role": "user", "content": "question 5"}]]
    for differing, other in (
        ({"vocab_size"}, run_fingerprint(98, dataset, True, None)),
        ({"reference_logps"}, run_fingerprint(99, dataset, False, None)),
        ({"importance_sampling_mode"}, run_fingerprint(99, dataset, True, "token_mask")),
        ({"dataset_rows", "dataset_prompts"}, run_fingerprint(99, dataset.select(range(4)), True, None)),
        ({"dataset_prompts"}, run_fingerprint(99, Dataset.from_dict({"prompt": changed}), True, None)),
        ({"dataset_prompts"}, run_fingerprint(99, dataset.select([1, 0, 2, 3, 4]), True, None)),
        ({"dataset_rows", "dataset_prompts"}, run_fingerprint(99, None, True, None)),
    ):
        assert {name for name in base if base[name] != other.get(name)} == differing
    assert json.loads(json.dumps(base)) == base


def test_fingerprint_of_images_inside_prompts_is_the_same_in_every_process():
    """PIL's `repr` is a memory address: two loads of the same rows must still agree, other pixels not."""
    part = {"type": Value("string"), "image": Image(), "text": Value("string")}
    features = Features({"prompt": List({"role": Value("string"), "content": List(part)})})

    def fingerprint(seed):
        content = [
            {"type": "image", "image": image(seed), "text": None},
            {"type": "text", "image": None, "text": "add"},
        ]
        dataset = Dataset.from_list([{"prompt": [{"role": "user", "content": content}]}], features=features)
        return run_fingerprint(9, dataset, False, None)

    assert fingerprint(1) == fingerprint(1)
    assert fingerprint(1) != fingerprint(2)


# ---- Other numbers of processes ----


@pytest.mark.parametrize(("old", "new"), [(2, 1), (1, 2), (3, 2), (2, 5), (4, 4), (4, 2)])
def test_reshard_loses_and_duplicates_nothing(tmp_path, old, new, monkeypatch):
    saved = [filled(4 + 3 * rank, seed=10 * rank, rank=rank, world_size=old) for rank in range(old)]
    # One prompt's images that two processes hold.
    for checkpoint in saved[1:2]:
        sample = saved[0].buffer.samples[2]
        checkpoint.buffer.samples[0].source = sample.source
        checkpoint.images.put(sample.source, saved[0].images.entries[sample.source])
    for checkpoint in saved:
        checkpoint.save(tmp_path)
    before = sorted(repr(identity(s)) for checkpoint in saved for s in checkpoint.buffer.samples.values())
    shares, num_read, read = [empty(rank, new) for rank in range(new)], [], BufferCheckpoint._read
    for share in shares:
        paths = []
        monkeypatch.setattr(
            BufferCheckpoint, "_read", lambda self, path, paths=paths: (paths.append(path), read(self, path))[1]
        )
        share.load_share(tmp_path)
        num_read.append(len(paths))
    held = [list(share.buffer.samples.values()) for share in shares]
    assert sorted(repr(identity(sample)) for samples in held for sample in samples) == before
    sizes = [len(samples) for samples in held]
    assert max(sizes) - min(sizes) <= 1
    # Shares are consecutive, so that together they read a file once, and once more for each cut inside one.
    assert sum(num_read) <= old + new - 1
    everything = {key: fields for checkpoint in saved for key, fields in checkpoint.images.entries.items()}
    for share, samples in zip(shares, held, strict=True):
        assert set(share.images.entries) == {s.source for s in samples if isinstance(s.source, str)}
        for key, fields in share.images.entries.items():
            assert all(torch.equal(fields[name], tensor) for name, tensor in everything[key].items())


def test_incomplete_and_mixed_sets_are_refused(tmp_path):
    with pytest.raises(BufferStateError, match="nowhere does not hold one complete set"):
        empty().load_share(tmp_path / "nowhere")
    with pytest.raises(BufferStateError, match="found: none"):
        empty().load_share(tmp_path)
    filled(1, rank=0, world_size=2).save(tmp_path)
    with pytest.raises(BufferStateError, match="one complete set"):
        empty().load_share(tmp_path)
    filled(1, rank=1, world_size=2).save(tmp_path)
    empty().load_share(tmp_path)
    filled(1).save(tmp_path)  # which clears away what two processes left behind
    assert [path.name for path in tmp_path.iterdir()] == ["ssb-00000-of-00001.safetensors"]
    filled(1, rank=1, world_size=3).save(tmp_path / "other")
    (tmp_path / "other" / "ssb-00001-of-00003.safetensors").rename(tmp_path / "ssb-00001-of-00003.safetensors")
    with pytest.raises(BufferStateError, match="ssb-00000-of-00001.safetensors, ssb-00001-of-00003"):
        empty().load_share(tmp_path)
