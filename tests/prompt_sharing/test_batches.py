# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Which rows go into which micro-batch, for any groups, and what of their padding stays."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_r1v2.prompt_sharing.batches import by_group, by_length, groups_of, lengths, merge, take
from trl_r1v2.prompt_sharing.layout import packed_length


def make_batch(prompts: list[list[int]], completions: list[list[int]], **fields):
    def pad(rows, left):
        width = max(map(len, rows))
        padded = [[0] * (width - len(row)) + row if left else row + [0] * (width - len(row)) for row in rows]
        return torch.tensor(padded)

    ones = ([[1] * len(row) for row in rows] for rows in (prompts, completions))
    masks = [pad(rows, left) for rows, left in zip(ones, (True, False), strict=True)]
    return {
        "prompt_ids": pad(prompts, True),
        "prompt_mask": masks[0],
        "completion_ids": pad(completions, False),
        "completion_mask": masks[1],
        "advantages": torch.arange(len(prompts)).float(),
        "num_items_in_batch": torch.tensor(7),
        **fields,
    }


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=9),
    num_batches=st.integers(1, 6),
    window_index=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_each_row_once_in_micro_batches_of_one_size(sizes, num_batches, window_index, seed):
    sizes[-1] += -sum(sizes) % num_batches
    windows = [window for window in range(1, num_batches + 1) if num_batches % window == 0]
    window = windows[window_index % len(windows)]
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(sum(sizes), generator=generator).tolist()
    groups = [rows[sum(sizes[:i]) : sum(sizes[: i + 1])] for i in range(len(sizes))]
    batch_lengths = tuple(torch.randint(1, 50, (2, len(rows)), generator=generator).tolist())
    batches = by_group(groups, num_batches, window, *batch_lengths)
    size = len(rows) // num_batches
    assert [len(batch) for batch in batches] == [size] * num_batches
    assert sorted(row for batch in batches for row in batch) == sorted(rows)
    # A divided group is one that was too large, or one for which no place was left.
    parts = sum(sum(bool(set(group) & set(batch)) for batch in batches) for group in groups)
    needed = sum(-(-len(group) // size) for group in groups)
    assert parts <= needed + 2 * num_batches
    row_lengths = torch.randint(1, 50, (len(rows),), generator=generator).tolist()
    ordered = by_length(row_lengths, num_batches, window)
    for start in range(0, num_batches, window):
        step = [row for batch in ordered[start : start + window] for row in batch]
        assert sorted(step) == list(range(start * size, (start + window) * size))
        if window > 1:
            assert [row_lengths[row] for row in step] == sorted((row_lengths[row] for row in step), reverse=True)


def test_groups_that_fit_are_whole_and_balanced():
    groups = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]
    prompts = [100] * 4 + [10] * 4 + [90] * 4 + [20] * 4
    batches = by_group(groups, 2, 2, prompts, [5] * 16)
    assert [sum(prompts[row] for row in batch) for batch in batches] == [440, 440]
    assert all(sum(set(group) <= set(batch) for group in groups) == 2 for batch in batches)


def test_padding_goes_and_tokens_stay():
    prompts, completions = [[5, 6, 7], [8], [9, 4]], [[1], [2, 3], [1, 2, 3, 4]]
    sequence = torch.arange(21).view(3, 7)
    batch = make_batch(
        prompts,
        completions,
        old_per_token_logps=torch.rand(3, 4),
        importance_sampling_ratio=torch.rand(3, 1),
        mm_token_type_ids=sequence,
        pixel_values=[torch.rand(2, 3), torch.rand(1, 3), torch.rand(0, 3)],
        num_images=[2, 1, 0],
    )
    taken = take(batch, [1, 0])
    assert taken["prompt_ids"].tolist() == [[0, 0, 8], [5, 6, 7]]
    assert taken["completion_ids"].tolist() == [[2, 3], [1, 0]]
    assert torch.equal(taken["old_per_token_logps"], batch["old_per_token_logps"][[1, 0], :2])
    assert taken["importance_sampling_ratio"].shape == (2, 1)
    assert torch.equal(taken["mm_token_type_ids"], sequence[[1, 0], :5])
    assert taken["num_images"] == [1, 2]
    assert torch.equal(taken["pixel_values"][0], batch["pixel_values"][1])
    assert taken["num_items_in_batch"] == 7
    assert take(batch, [1])["prompt_ids"].tolist() == [[8]]
    assert take(batch, [1], multiple=2)["prompt_ids"].tolist() == [[0, 8]]
    whole = merge([take(batch, [0], multiple=8), take(batch, [1], multiple=8), take(batch, [2], multiple=8)])
    for name, value in batch.items():
        assert str(whole[name]) == str(value), name


def test_a_masked_out_batch_keeps_a_column():
    batch = make_batch([[5], [6]], [[1, 2], [3]])
    batch["completion_mask"].zero_()
    assert take(batch, [0])["completion_ids"].shape == (1, 1)


def test_rows_group_by_prompt_and_images():
    tiles = [torch.ones(1, 3), torch.ones(1, 3), torch.zeros(1, 3), torch.ones(1, 3)]
    batch = make_batch([[5, 6], [5, 6], [5, 6], [6]], [[1], [2], [3], [4]], pixel_values=tiles, num_images=[1] * 4)
    assert groups_of(batch) == [[0, 1], [2], [3]]
    assert packed_length(groups_of(batch), *lengths(batch)) == (1 + 4) + (1 + 2) + (0 + 2)
