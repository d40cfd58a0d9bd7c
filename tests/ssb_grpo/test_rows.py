# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Batch surgery against plain Python lists, on ragged batches of every visual layout that TRL knows."""

import random

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from trl.trainer.utils import (
    shuffle_sequence_dict,
    split_pixel_values_by_grid,
    split_tensor_dict,
    unsplit_pixel_values_by_grid,
)

from trl_r1v2.ssb_grpo.rows import Row, collate_rows, take_rows


PAD, EOS = 0, 2
LOGP_FIELDS = ("old_per_token_logps", "ref_per_token_logps", "sampling_per_token_logps")
TYPE_FIELDS = ("token_type_ids", "mm_token_type_ids")
LAYOUTS = ("text", "tiles", "flat", "padded_flat", "grid", "positions", "spatial")
VISUAL = {
    "tiles": ("pixel_values",),
    "flat": ("pixel_values",),
    "padded_flat": ("pixel_values", "image_sizes"),
    "grid": ("pixel_values", "image_grid_thw"),
    "positions": ("pixel_values", "image_position_ids"),
    "spatial": ("pixel_values", "pixel_attention_mask", "spatial_shapes"),
}


# ---- Rows as plain lists ----


def random_row(rng, layout, fields, has_images, masked_out, eos):
    prompt = [rng.randint(1, 50) for _ in range(rng.randint(1, 6))]
    completion = [rng.randint(3, 50) for _ in range(rng.randint(1, 6))]
    if not masked_out and rng.random() < 0.5:
        completion[-1] = eos
    row = {"prompt": prompt, "completion": completion, "advantage": rng.choice([-1.5, 0.25, 2.0])}
    row["is_masked_out"] = masked_out
    for name in LOGP_FIELDS:
        if name in fields:
            row[name] = [-rng.random() for _ in completion]
    if "importance_sampling_ratio" in fields:
        row["importance_sampling_ratio"] = [
            rng.random() for _ in range(1 if "sequence_ratio" in fields else len(completion))
        ]
    if "tool_mask" in fields:
        row["tool_mask"] = [0 if masked_out else rng.randint(0, 1) for _ in completion]
    for name in TYPE_FIELDS:
        if name in fields:
            row[name] = [rng.randint(0, 1) for _ in prompt] + [0] * len(completion)
    row["images"] = random_images(rng, layout) if has_images else []
    return row


def random_images(rng, layout):
    images = []
    for _ in range(rng.randint(1, 3)):
        height, width = rng.randint(1, 3), rng.randint(1, 3)
        num_tiles = rng.choice([1, 1, 3])
        generator = torch.Generator().manual_seed(rng.randint(0, 10**6))
        if layout == "tiles":
            fields = {"pixel_values": torch.rand(num_tiles, 2, 2, 2, generator=generator)}
        elif layout == "flat":
            fields = {"pixel_values": torch.rand(1, 2, 2, 2, generator=generator)}
        elif layout == "padded_flat":
            fields = {
                "pixel_values": torch.rand(1, 2, height, width, generator=generator) + 1,
                "image_sizes": torch.tensor([[height, width]]),
            }
        elif layout == "grid":
            fields = {
                "pixel_values": torch.rand(height * width, 5, generator=generator),
                "image_grid_thw": torch.tensor([[1, height, width]]),
            }
        elif layout == "positions":
            fields = {
                "pixel_values": torch.rand(1, 4, 5, generator=generator),
                "image_position_ids": torch.randint(9, (1, 4, 2), generator=generator),
            }
        else:
            fields = {
                "pixel_values": torch.rand(num_tiles, 4, 3, generator=generator),
                "pixel_attention_mask": torch.randint(2, (num_tiles, 4), generator=generator),
                "spatial_shapes": torch.randint(9, (num_tiles, 2), generator=generator),
            }
        images.append(fields)
    return images


def pad_trailing(tensors):
    """Zeros at the end of every dimension but the first, as the image processors pad."""
    shape = [max(sizes) for sizes in zip(*(t.shape[1:] for t in tensors), strict=True)]
    padded = []
    for tensor in tensors:
        block = tensor.new_zeros(len(tensor), *shape)
        block[(slice(None), *(slice(size) for size in tensor.shape[1:]))] = tensor
        padded.append(block)
    return padded


def collate(rows, layout, rng):
    """The batch TRL would return for `rows`, with junk where TRL leaves junk: log-probabilities of padding."""
    prompt_width = max(len(row["prompt"]) for row in rows)
    completion_width = max(len(row["completion"]) for row in rows)

    def block(name, padding, dtype):
        return torch.tensor(
            [row[name] + [padding() for _ in range(completion_width - len(row[name]))] for row in rows], dtype=dtype
        )

    batch = {
        "prompt_ids": torch.tensor([[PAD] * (prompt_width - len(r["prompt"])) + r["prompt"] for r in rows]),
        "prompt_mask": torch.tensor([[0] * (prompt_width - len(r["prompt"])) + [1] * len(r["prompt"]) for r in rows]),
        "completion_ids": block("completion", lambda: PAD, torch.int64),
        "completion_mask": torch.tensor(
            [
                [0 if row["is_masked_out"] or i >= len(row["completion"]) else 1 for i in range(completion_width)]
                for row in rows
            ]
        ),
        "advantages": torch.tensor([row["advantage"] for row in rows]),
        "num_items_in_batch": torch.tensor(7),
    }
    for name in LOGP_FIELDS:
        if name in rows[0]:
            batch[name] = block(name, lambda: -rng.random(), torch.float32)
    if "importance_sampling_ratio" in rows[0]:
        ratios = [row["importance_sampling_ratio"] for row in rows]
        is_sequence = any(len(r) != len(row["completion"]) for r, row in zip(ratios, rows, strict=True))
        per_token = not is_sequence and completion_width > 1
        batch["importance_sampling_ratio"] = (
            block("importance_sampling_ratio", lambda: 1.0, torch.float32) if per_token else torch.tensor(ratios)
        )
    if "tool_mask" in rows[0]:
        batch["tool_mask"] = block("tool_mask", lambda: 1, torch.int64)
    for name in TYPE_FIELDS:
        if name in rows[0]:
            batch[name] = torch.tensor(
                [
                    [0] * (prompt_width - len(r["prompt"])) + r[name] + [0] * (completion_width - len(r["completion"]))
                    for r in rows
                ]
            )
    images = [image for row in rows for image in row["images"]]
    if images:
        for name in VISUAL[layout]:
            batch[name] = torch.cat(pad_trailing([image[name] for image in images]))
        batch["num_images"] = [len(row["images"]) for row in rows]
        num_tiles = [sum(len(image["pixel_values"]) for image in row["images"]) for row in rows]
        if layout == "spatial" or (layout == "tiles" and sum(num_tiles) != len(images)):  # upstream's condition
            batch["num_tiles"] = num_tiles
    return batch


@st.composite
def scenarios(draw):
    rng = random.Random(draw(st.integers(0, 2**32)))
    layout = draw(st.sampled_from(LAYOUTS))
    eos = draw(st.sampled_from([EOS, PAD]))  # upstream pads with the end token when there is no padding token
    fields = {name for name in (*LOGP_FIELDS, *TYPE_FIELDS) if draw(st.booleans())}
    fields |= draw(
        st.sampled_from([set(), {"importance_sampling_ratio"}, {"importance_sampling_ratio", "sequence_ratio"}])
    )

    def rows(count, own_fields):
        if layout == "text":
            own_fields = own_fields - set(TYPE_FIELDS)
        kind = rng.choice(["text", "images", "mixed"]) if layout != "text" else "text"
        if kind == "text":
            own_fields = own_fields - set(TYPE_FIELDS)  # upstream calls no processor for a batch without images
        return [
            random_row(
                rng,
                layout,
                own_fields,
                has_images=kind == "images" or (kind == "mixed" and rng.random() < 0.5),
                masked_out=may_be_masked_out and rng.random() < 0.3,
                eos=eos,
            )
            for _ in range(count)
        ]

    def with_tools(own_fields):
        return own_fields | {"tool_mask"} if draw(st.booleans()) else own_fields

    may_be_masked_out = draw(st.booleans())
    base = rows(draw(st.integers(1, 5)), with_tools(fields))
    may_be_masked_out = False  # a masked-out row is never stored
    donors = rows(draw(st.integers(1, 5)), with_tools(fields))
    targets = draw(st.lists(st.integers(0, len(base) - 1), max_size=len(donors), unique=True))
    return rng, layout, base, donors, targets, draw(st.sampled_from([None, 4]))


# ---- Put and take ----


def take_all(batch):
    return take_rows(split_pixel_values_by_grid(batch), PAD)


def assert_row_equals(row: Row, expected):
    assert row.tokens["prompt_ids"].tolist() == expected["prompt"]
    assert row.tokens["completion_ids"].tolist() == expected["completion"]
    assert row.advantage == expected["advantage"] and row.num_images == len(expected["images"])
    for name in (*LOGP_FIELDS, *TYPE_FIELDS, "importance_sampling_ratio", "tool_mask"):
        assert (name in row.tokens) == (name in expected)
        if name in expected:
            dtype = row.tokens[name].dtype
            assert row.tokens[name].tolist() == torch.tensor(expected[name], dtype=dtype).tolist(), name
    assert "completion_mask" not in row.tokens


def expected_pixels(rows, name, layout):
    """Per row, what TRL's split has to give back; `None` for rows without images."""
    images = [image[name] for row in rows for image in row["images"]]
    if not images:
        return [None] * len(rows)
    padded = iter(pad_trailing(images))
    return [torch.cat([next(padded) for _ in row["images"]]) if row["images"] else None for row in rows]


def assert_visual(batch, rows, layout):
    """`batch` as the trainer hands it over: flat pixels that TRL splits again by `num_images` and `num_tiles`."""
    if not any(row["images"] for row in rows):
        assert "pixel_values" not in batch or len(batch["pixel_values"]) == 0
        return
    assert batch["num_images"] == [len(row["images"]) for row in rows]
    split = split_pixel_values_by_grid(batch)
    for name in VISUAL[layout]:
        for actual, wanted in zip(split[name], expected_pixels(rows, name, layout), strict=True):
            # A stored row may have been padded for larger images of the batch it comes from: those zeros stay.
            if wanted is None:
                assert len(actual) == 0
            elif layout == "padded_flat" and name == "pixel_values":
                size = [slice(None), *(slice(s) for s in wanted.shape[1:])]
                assert torch.equal(actual[tuple(size)], wanted)
                assert actual.count_nonzero() == wanted.count_nonzero()
            else:
                assert torch.equal(actual, wanted), name


def round_up(length, multiple):
    return length if multiple is None else (length + multiple - 1) // multiple * multiple


def check(scenario):
    rng, layout, base, donors, targets, multiple = scenario
    batch = collate(base, layout, rng)
    before = {k: v.clone() if isinstance(v, torch.Tensor) else list(v) for k, v in batch.items()}
    donor_batch = collate(donors, layout, rng)
    taken = take_all(donor_batch)
    for row, donor in zip(taken, donors, strict=True):
        assert_row_equals(row, donor)

    donors_of = dict(zip(targets, range(len(targets)), strict=True))
    placed = [taken[donors_of[i]] if i in donors_of else row for i, row in enumerate(take_all(batch))]
    new = collate_rows(placed, PAD, multiple)
    for name, value in before.items():  # the input is left alone
        assert torch.equal(batch[name], value) if isinstance(value, torch.Tensor) else batch[name] == value

    rows = [donors[donors_of[i]] if i in donors_of else row for i, row in enumerate(base)]
    width = round_up(max(len(row["prompt"]) for row in rows), multiple)
    assert new["prompt_ids"].tolist() == [[PAD] * (width - len(r["prompt"])) + r["prompt"] for r in rows]
    assert new["prompt_mask"].tolist() == [[0] * (width - len(r["prompt"])) + [1] * len(r["prompt"]) for r in rows]
    completion_width = round_up(max(len(row["completion"]) for row in rows), multiple)

    def right(values, padding):
        return (list(values) + [padding] * completion_width)[:completion_width]

    assert new["completion_ids"].tolist() == [right(row["completion"], PAD) for row in rows]
    assert new["completion_mask"].tolist() == [
        right([0 if row["is_masked_out"] else 1] * len(row["completion"]), 0) for row in rows
    ]
    assert new["advantages"].tolist() == [row["advantage"] for row in rows]
    for name, padding in (*((n, 0.0) for n in LOGP_FIELDS), ("importance_sampling_ratio", 1.0)):
        if name not in batch:
            continue
        values = [torch.tensor(row[name]).tolist() for row in rows]
        if name == "importance_sampling_ratio" and all(len(v) == 1 for v in values):
            assert new[name].tolist() == values
        else:
            assert new[name].tolist() == [right(v, padding) for v in values], name
    if any("tool_mask" in row for row in rows):
        masks = [right(row.get("tool_mask", [1] * len(row["completion"])), 1) for row in rows]
        assert new["tool_mask"].tolist() == masks
    else:
        assert "tool_mask" not in new
    for name in TYPE_FIELDS:
        if any(name in row for row in rows):
            prompts = [r.get(name, [0] * len(r["prompt"]))[: len(r["prompt"])] for r in rows]
            assert new[name].tolist() == [[0] * (width - len(p)) + p + [0] * completion_width for p in prompts]
        else:
            assert name not in new

    assert "num_items_in_batch" not in new
    flat = unsplit_pixel_values_by_grid(new)
    assert_visual(flat, rows, layout)
    out = take_all(flat)
    for index, donor in donors_of.items():  # what was put comes out again
        given, got = taken[donor], out[index]
        assert (got.advantage, got.num_images) == (given.advantage, given.num_images)
        for name in given.tokens.keys() & got.tokens.keys():
            assert torch.equal(got.tokens[name], given.tokens[name]), name
    # What the trainer does next with it: shuffle and split without losing or mixing anything.
    torch.manual_seed(0)
    shuffled = shuffle_sequence_dict(split_pixel_values_by_grid(flat))
    torch.manual_seed(0)
    order = torch.randperm(len(rows)).tolist()
    chunks = [unsplit_pixel_values_by_grid(chunk) for chunk in split_tensor_dict(shuffled, len(rows))]
    for chunk, index in zip(chunks, order, strict=True):
        assert_visual(chunk, [rows[index]], layout)
        assert [t for t in chunk["prompt_ids"][0].tolist() if t != PAD] == rows[index]["prompt"]


QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]


@settings(max_examples=300, deadline=None, suppress_health_check=QUIET)
@given(scenarios())
def test_rows_equal_lists(scenario):
    check(scenario)


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None, suppress_health_check=QUIET)
@given(scenarios())
def test_rows_equal_lists_deep(scenario):
    check(scenario)


# ---- Named corners, each of which went wrong in some replay implementation ----


def plain(completions, **extra):
    rng = random.Random(0)
    rows = [
        {"prompt": [5, 6], "completion": c, "advantage": 1.0, "is_masked_out": False, "images": [], **extra}
        for c in completions
    ]
    return collate(rows, "text", rng), rows


def put(batch, replacements):
    rows = take_rows(batch, PAD)
    return collate_rows([replacements.get(index, row) for index, row in enumerate(rows)], PAD)


def test_sequence_ratio_among_one_token_completions_is_not_padded():
    """A `(B, 1)` ratio beside `(B, 1)` ids can be of either kind; a ratio of 0.5 must reach every new token."""
    batch, _ = plain([[7], [8]], importance_sampling_ratio=[0.25])
    tokens = {"prompt_ids": torch.tensor([5]), "completion_ids": torch.tensor([7, 8, 9])}
    sequence = Row(tokens | {"importance_sampling_ratio": torch.tensor([0.5])}, 1.0, {})
    assert put(batch, {0: sequence})["importance_sampling_ratio"].tolist() == [[0.5], [0.25]]
    token = Row(tokens | {"importance_sampling_ratio": torch.tensor([0.5, 2.0, 3.0])}, 1.0, {})
    expected = [[0.5, 2.0, 3.0], [0.25, 1.0, 1.0]]
    assert put(batch, {0: token})["importance_sampling_ratio"].tolist() == expected


def test_completion_of_one_token_stays_per_token():
    """Log-probabilities of one-token completions grow with the batch like any others."""
    batch, _ = plain([[7], [8]], old_per_token_logps=[-0.25])
    tokens = {"prompt_ids": torch.tensor([5]), "completion_ids": torch.tensor([7, 8])}
    row = Row(tokens | {"old_per_token_logps": torch.tensor([-0.5, -1.0])}, 1.0, {})
    assert put(batch, {1: row})["old_per_token_logps"].tolist() == [[-0.25, 0.0], [-0.5, -1.0]]


def test_single_tile_rows_of_a_tile_indexed_model_enter_a_text_batch():
    """`spatial_shapes` makes TRL read `num_tiles` even where every image is one tile."""
    batch, _ = plain([[7], [8]])
    visual = {
        "pixel_values": torch.rand(1, 4, 3),
        "pixel_attention_mask": torch.ones(1, 4),
        "spatial_shapes": torch.tensor([[2, 2]]),
    }
    tokens = {"prompt_ids": torch.tensor([5]), "completion_ids": torch.tensor([7])}
    new = unsplit_pixel_values_by_grid(put(batch, {0: Row(tokens, 1.0, visual, num_images=1)}))
    assert [len(pixels) for pixels in split_pixel_values_by_grid(new)["pixel_values"]] == [1, 0]


def test_a_row_without_what_the_loss_reads_is_refused():
    batch, _ = plain([[7], [8]], ref_per_token_logps=[-1.0])
    row = Row({"prompt_ids": torch.tensor([5]), "completion_ids": torch.tensor([7])}, 1.0, {})
    with pytest.raises(ValueError, match="no `ref_per_token_logps`.*ssb_resume='empty'"):
        put(batch, {0: row})


def test_unknown_and_padded_fields_are_refused():
    batch, _ = plain([[7]])
    with pytest.raises(ValueError, match=r"\['hearing'\].*ssb_enabled=False"):
        take_rows(batch | {"hearing": torch.zeros(1)}, PAD)
    with pytest.raises(ValueError, match=r"\['pixel_values'\].*one block a row"):
        take_rows(batch | {"pixel_values": torch.zeros(1, 2, 3, 4, 4), "num_images": [2]}, PAD)
