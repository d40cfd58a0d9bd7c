# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Buffer files: bit for bit, damaged in every way a disk or a kill can damage them, and dealt out anew."""

import json
import random

import hypothesis.strategies as st
import pytest
import torch
from datasets import Dataset, Features, Image, List, Value
from hypothesis import given, settings
from safetensors import safe_open

from tests.support.ssb_runs import image
from trl_r1v2.ssb_grpo import state as state_module
from trl_r1v2.ssb_grpo.sample_buffer import Sample, SelectiveSampleBuffer
from trl_r1v2.ssb_grpo.state import (
    BufferStateError,
    Shard,
    find_shards,
    load_resharded,
    load_shard,
    read_manifest,
    remove_shards_of_other_world_sizes,
    run_fingerprint,
    save_shard,
)


FINGERPRINT = {
    "vocab_size": 99,
    "reference_logps": True,
    "sampling_ratio": False,
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
    source = rng.choice([None, index, f"{index:064x}"])
    # Not a short decimal: the advantage must survive to the last bit.
    advantage = torch.randn((), generator=generator, dtype=torch.float64).item() / 3 or 1.0
    return Sample(tokens, advantage, rng.randint(0, 50), source, rng.randint(0, 3), rng.randint(0, 4))


def filled_buffer(num_samples, seed=0, capacity=100) -> SelectiveSampleBuffer:
    rng = random.Random(seed)
    buffer = SelectiveSampleBuffer(capacity, age_decay=3.0, seed=seed)
    buffer.extend([random_sample(rng, i) for i in range(num_samples)])
    buffer.draw(num_samples // 2, 50)
    buffer.num_evicted["age"] = 17
    return buffer


def trainer_tensors(seed):
    return {"prompt_generator": torch.Generator().manual_seed(seed).get_state(), "sampler.decided": torch.arange(0)}


def pixels(num, seed=0):
    generator = torch.Generator().manual_seed(seed)
    keys = [f"{random.Random(f'{seed}{i}').getrandbits(256):064x}" for i in range(num)]
    return {
        key: {
            "pixel_values": torch.rand(2, 3, 4, generator=generator).to(torch.bfloat16 if i % 2 else torch.float32),
            "image_grid_thw": torch.tensor([[1, 2, i]]),
        }
        for i, key in enumerate(keys)
    }


def save(folder, buffer, rank=0, world_size=1, stored_pixels=None) -> Shard:
    shard = Shard(folder, rank, world_size)
    save_shard(shard, buffer.state_dict() | {"trainer": trainer_tensors(3)}, FINGERPRINT, stored_pixels)
    return shard


def assert_samples_identical(first, second):
    assert len(first) == len(second)
    for ours, theirs in zip(first, second, strict=True):
        plain = [(s.uid, s.step, s.source, s.num_images, s.uses, s.advantage.hex()) for s in (ours, theirs)]
        assert plain[0] == plain[1]
        assert ours.tokens.keys() == theirs.tokens.keys()
        for name, tensor in ours.tokens.items():
            assert tensor.dtype == theirs.tokens[name].dtype and torch.equal(tensor, theirs.tokens[name])


# ---- Round trip ----


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 12), st.integers(0, 2**32), st.integers(0, 4))
def test_round_trip_is_bit_for_bit(tmp_path_factory, num_samples, seed, num_pixels):
    folder = tmp_path_factory.mktemp("ssb")
    buffer = filled_buffer(num_samples, seed)
    before = buffer.state_dict()
    stored = pixels(num_pixels, seed)
    state, loaded_pixels = load_shard(save(folder, buffer, stored_pixels=stored), dict(FINGERPRINT))
    trainer = state.pop("trainer")
    assert trainer.keys() == trainer_tensors(3).keys()
    assert all(torch.equal(trainer[name], tensor) for name, tensor in trainer_tensors(3).items())
    assert_samples_identical(before["samples"], state["samples"])
    assert torch.equal(before["generator"], state["generator"])
    assert (before["next_uid"], before["num_evicted"]) == (state["next_uid"], state["num_evicted"])
    # In order, too: what the store drops next is its first entry.
    assert list(loaded_pixels) == list(stored)
    for key, fields in stored.items():
        assert loaded_pixels[key].keys() == fields.keys()
        for name, tensor in fields.items():
            other = loaded_pixels[key][name]
            assert tensor.dtype == other.dtype and torch.equal(tensor, other)

    restored = SelectiveSampleBuffer(100, age_decay=3.0, seed=12345)
    restored.load_state_dict(state)
    for step in range(50, 54):
        assert [s.uid for s in buffer.draw(3, step)] == [s.uid for s in restored.draw(3, step)]
    new = random_sample(random.Random(1), 0), random_sample(random.Random(1), 0)
    assert buffer.extend([new[0]]) == restored.extend([new[1]])


def test_pending_samples_are_left_out(tmp_path):
    buffer = filled_buffer(3)
    waiting = random_sample(random.Random(5), 9)
    del waiting.tokens["old_per_token_logps"]
    buffer.extend([waiting])
    state, _ = load_shard(save(tmp_path, buffer), FINGERPRINT)
    assert [s.uid for s in state["samples"]] == [0, 1, 2] and state["next_uid"] == 4


def test_nothing_is_pickled(tmp_path):
    """Only safetensors and JSON: every byte of the tensor file belongs to its header or to a tensor the header names."""
    shard = save(tmp_path, filled_buffer(6), stored_pixels=pixels(2))
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".safetensors"]
    content = shard.tensors.read_bytes()
    header_length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + header_length])
    end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    assert 8 + header_length + end == len(content)
    with safe_open(shard.tensors, "pt") as file:
        names = set(file.keys())
    manifest = json.loads(shard.manifest.read_bytes())
    known = {f"tokens.{name}" for record in manifest["samples"] for name in record["lengths"]}
    known |= {f"trainer.{name}" for name in trainer_tensors(3)} | {"generator"}
    known |= {f"pixels.{key}.{name}" for key in manifest["pixels"] for name in ("pixel_values", "image_grid_thw")}
    assert names == known


# ---- Damage ----


@pytest.fixture
def shard(tmp_path):
    return save(tmp_path, filled_buffer(5), stored_pixels=pixels(2))


@pytest.mark.parametrize("part", ["tensors", "manifest"])
@pytest.mark.parametrize("place", ["empty", "header", "first_half", "second_half", "last_byte"])
def test_truncated_files_are_refused(shard, part, place):
    path = getattr(shard, part)
    content = path.read_bytes()
    lengths = dict(empty=0, header=6, first_half=len(content) // 3, second_half=len(content) * 3 // 4)
    path.write_bytes(content[: lengths.get(place, len(content) - 1)])
    with pytest.raises(BufferStateError, match=path.name.replace(".", r"\.")):
        load_shard(shard, FINGERPRINT)


@pytest.mark.parametrize("part", ["tensors", "manifest"])
def test_any_altered_byte_is_refused(shard, part):
    path = getattr(shard, part)
    content = path.read_bytes()
    rng = random.Random(0)
    for place in {0, 7, 8, len(content) - 1, *(rng.randrange(len(content)) for _ in range(60))}:
        altered = bytearray(content)
        altered[place] ^= 1 << rng.randrange(8)
        path.write_bytes(altered)
        with pytest.raises(BufferStateError):
            load_shard(shard, FINGERPRINT)
    path.write_bytes(content)
    load_shard(shard, FINGERPRINT)


def test_an_altered_number_in_the_manifest_is_refused(shard):
    """Valid JSON, valid fields, another advantage: only a checksum can tell."""
    manifest = json.loads(shard.manifest.read_bytes())
    manifest["samples"][2]["advantage"] = (2.5).hex()
    shard.manifest.write_text(json.dumps(manifest))
    with pytest.raises(BufferStateError, match="altered.*ssb_resume='empty'"):
        load_shard(shard, FINGERPRINT)


@pytest.mark.parametrize("content", ["[1, 2]", '"text"', "null", "{}", '{"schema_version": 1}'])
def test_a_manifest_that_is_something_else_is_refused(shard, content):
    shard.manifest.write_text(content)
    with pytest.raises(BufferStateError, match=shard.manifest.name):
        read_manifest(shard)


def test_missing_files_are_named(shard):
    with pytest.raises(BufferStateError, match=r"process 1 of 2 in .*ssb-00000-of-00001\.json.*'reshard'.*'empty'"):
        load_shard(Shard(shard.folder, 1, 2), FINGERPRINT)
    with pytest.raises(BufferStateError, match="found: nothing"):
        load_shard(Shard(shard.folder / "nowhere", 0, 1), FINGERPRINT)
    shard.tensors.unlink()
    with pytest.raises(BufferStateError, match=r"safetensors is missing beside its manifest"):
        load_shard(shard, FINGERPRINT)


@pytest.mark.parametrize("name", FINGERPRINT)
def test_every_entry_of_another_run_is_named(shard, name):
    now = FINGERPRINT | {name: "something else"}
    with pytest.raises(BufferStateError, match=f"{name}: {FINGERPRINT[name]!r} in the file, 'something else' now"):
        load_shard(shard, now)


def test_all_differences_are_named_at_once(shard):
    now = {name: value for name, value in FINGERPRINT.items() if name != "dataset_rows"} | {"vocab_size": 5, "new": 1}
    with pytest.raises(BufferStateError) as error:
        load_shard(shard, now)
    for part in (
        "dataset_rows: 4 in the file, None now",
        "vocab_size: 99 in the file, 5 now",
        "new: None in the file",
    ):
        assert part in str(error.value)


def test_another_schema_is_refused(shard, monkeypatch):
    monkeypatch.setattr(state_module, "SCHEMA_VERSION", 2)
    with pytest.raises(BufferStateError, match="has schema version 1, this version reads 2"):
        load_shard(shard, FINGERPRINT)


@pytest.mark.parametrize("part", ["tensors", "manifest"])
def test_a_kill_before_either_file_leaves_no_whole_shard(part, shard, monkeypatch):
    """The old manifest is taken away before the tensors change, and the new one comes last."""
    write = state_module._write_atomically

    def killed(path, content):
        if path == getattr(shard, part):
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(state_module, "_write_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        save(shard.folder, filled_buffer(2, seed=8))
    assert not shard.manifest.exists()
    with pytest.raises(BufferStateError):
        find_shards(shard.folder)


def test_a_kill_inside_a_file_leaves_the_old_one(shard, monkeypatch):
    def no_replace(source, target):
        raise KeyboardInterrupt

    before = shard.tensors.read_bytes()
    monkeypatch.setattr(state_module.os, "replace", no_replace)
    with pytest.raises(KeyboardInterrupt):
        state_module._write_atomically(shard.tensors, b"new")
    assert shard.tensors.read_bytes() == before


# ---- Fingerprint ----


def test_fingerprint_tells_runs_apart():
    prompts = [[{"role": "user", "content": f"question {i}"}] for i in range(5)]
    dataset = Dataset.from_dict({"prompt": prompts, "answer": list(range(5))})
    base = run_fingerprint(99, dataset, True, False)
    same = Dataset.from_dict({"prompt": prompts, "answer": [7] * 5})
    assert run_fingerprint(99, same, True, False) == base
    changed = [*prompts[:4], [{"role": "user", "content": "question 5"}]]
    for differing, other in (
        ({"vocab_size"}, run_fingerprint(98, dataset, True, False)),
        ({"reference_logps"}, run_fingerprint(99, dataset, False, False)),
        ({"sampling_ratio"}, run_fingerprint(99, dataset, True, True)),
        ({"dataset_rows", "dataset_prompts"}, run_fingerprint(99, dataset.select(range(4)), True, False)),
        ({"dataset_prompts"}, run_fingerprint(99, Dataset.from_dict({"prompt": changed}), True, False)),
        ({"dataset_prompts"}, run_fingerprint(99, dataset.select([1, 0, 2, 3, 4]), True, False)),
        ({"dataset_rows", "dataset_prompts"}, run_fingerprint(99, None, True, False)),
    ):
        assert {name for name in base if base[name] != other[name]} == differing
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
        return run_fingerprint(9, dataset, False, False)

    assert fingerprint(1) == fingerprint(1)
    assert fingerprint(1) != fingerprint(2)


# ---- Other numbers of processes ----


@pytest.mark.parametrize(("old", "new"), [(2, 1), (1, 2), (3, 2), (2, 5), (4, 4)])
def test_reshard_loses_and_duplicates_nothing(tmp_path, old, new):
    buffers = [filled_buffer(4 + 3 * rank, seed=rank) for rank in range(old)]
    stored = [
        {
            s.source: pixels(1, seed=100 * rank + s.uid).popitem()[1]
            for s in b.samples.values()
            if isinstance(s.source, str)
        }
        for rank, b in enumerate(buffers)
    ]
    # One prompt's images that two processes hold.
    if old > 1:
        shared = next(iter(stored[0]), None)
        if shared is not None:
            stored[1][shared] = stored[0][shared]
            next(iter(buffers[1].samples.values())).source = shared
    for rank, buffer in enumerate(buffers):
        save(tmp_path, buffer, rank, old, stored[rank])

    def identity(sample):
        tokens = tuple((name, tuple(tensor.tolist())) for name, tensor in sorted(sample.tokens.items()))
        return sample.advantage.hex(), sample.step, sample.uses, sample.source, sample.num_images, tokens

    before = sorted(map(repr, (identity(s) for buffer in buffers for s in buffer.samples.values())))
    shares = [load_resharded(tmp_path, rank, new, FINGERPRINT) for rank in range(new)]
    assert sorted(map(repr, (identity(s) for samples, _ in shares for s in samples))) == before
    sizes = [len(samples) for samples, _ in shares]
    assert max(sizes) - min(sizes) <= 1
    everything = {key: fields for share in stored for key, fields in share.items()}
    for samples, loaded in shares:
        assert set(loaded) == {s.source for s in samples if s.source in everything}
        for key, fields in loaded.items():
            assert all(torch.equal(fields[name], tensor) for name, tensor in everything[key].items())


def test_incomplete_and_mixed_sets_are_refused(tmp_path):
    with pytest.raises(BufferStateError, match="nowhere: there is no such folder"):
        find_shards(tmp_path / "nowhere")
    with pytest.raises(BufferStateError, match="found: none"):
        find_shards(tmp_path)
    save(tmp_path, filled_buffer(1), 0, 2)
    with pytest.raises(BufferStateError, match="one complete set"):
        find_shards(tmp_path)
    save(tmp_path, filled_buffer(1), 1, 2)
    assert [(s.rank, s.world_size) for s in find_shards(tmp_path)] == [(0, 2), (1, 2)]
    save(tmp_path, filled_buffer(1), 0, 1)
    with pytest.raises(BufferStateError, match="ssb-00000-of-00001.json.*ssb-00000-of-00002.json"):
        find_shards(tmp_path)
    remove_shards_of_other_world_sizes(tmp_path, 1)
    assert [(s.rank, s.world_size) for s in find_shards(tmp_path)] == [(0, 1)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ssb-00000-of-00001.json", "ssb-00000-of-00001.safetensors"]
    remove_shards_of_other_world_sizes(tmp_path / "nowhere", 1)
