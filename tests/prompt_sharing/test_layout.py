# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The packed layout: who sees whom, whatever the groups."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_r1v2.prompt_sharing.layout import group_rows, pack_rows, row_bounds


# Of each group the length of its prompt and of its answers.
GROUPS = st.lists(
    st.tuples(st.integers(1, 6), st.lists(st.integers(0, 7), min_size=1, max_size=5)), min_size=1, max_size=5
)


def rows_of(groups, shuffle_seed):
    """Padded rows in random order, each token with a number of its own, but for prompts, whose rows agree."""
    rows = []
    for number, (prompt_length, answer_lengths) in enumerate(groups):
        for answer, length in enumerate(answer_lengths):
            prompt = [1000 * (number + 1) + i for i in range(prompt_length)]
            rows.append((prompt, [100_000 * (number + 1) + 100 * (answer + 1) + i for i in range(length)]))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(shuffle_seed)).tolist()
    rows = [rows[i] for i in order]
    width = max(len(prompt) for prompt, _ in rows)
    length = width + max(1, *(len(answer) for _, answer in rows))
    ids, mask = torch.zeros(len(rows), length, dtype=torch.long), torch.zeros(len(rows), length, dtype=torch.long)
    is_answer = torch.zeros_like(mask, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(rows):
        ids[row, width - len(prompt) : width + len(answer)] = torch.tensor(prompt + answer)
        mask[row, width - len(prompt) : width + len(answer)] = 1
        is_answer[row, width : width + len(answer)] = True
    return rows, ids, mask, is_answer


@settings(max_examples=60, deadline=None)
@given(groups=GROUPS, seed=st.integers(0, 9))
def test_each_token_sees_what_its_row_would_show_it(groups, seed):
    rows, ids, mask, is_answer = rows_of(groups, seed)
    bounds = row_bounds(mask, is_answer)
    found = group_rows(ids, bounds)
    assert sorted(map(len, found)) == sorted(len(answers) for _, answers in groups)
    layout = pack_rows(bounds, found, ids.size(1), ids.device)
    packed = layout.pack(ids)[0].tolist()
    num_prompt_tokens = sum(length for length, _ in groups)
    num_answer_tokens = sum(len(answer) for _, answer in rows)
    assert layout.num_tokens == num_prompt_tokens - len(groups) + len(rows) + num_answer_tokens

    seen = torch.zeros(layout.num_tokens, layout.num_tokens, dtype=torch.bool)
    outputs = []
    for call in layout.calls:
        queries, keys = call.queries.size(1), call.keys.size(1)
        call_mask = torch.ones(queries, keys, dtype=torch.bool).tril() if call.mask is None else call.mask
        call_mask = call_mask.expand(len(call.queries), 1, queries, keys)[:, 0]
        assert call_mask.any(dim=-1).all()  # else the softmax of a padded query is NaN
        outputs.append(torch.stack([call.queries.flatten()]).T)
        places = layout.places_of_calls
        for place in range(layout.num_tokens):
            start = sum(len(output) for output in outputs[:-1])
            slot = int(places[place]) - start
            if 0 <= slot < call.queries.numel():
                stream, query = divmod(slot, queries)
                assert call.queries[stream, query] == place
                seen[place, call.keys[stream][call_mask[stream, query]]] = True
    for row, (prompt, answer) in enumerate(rows):
        whole = prompt + answer
        for position, token in enumerate(answer):
            column = int((ids[row] == token).nonzero()) - 1
            slot = row * (ids.size(1) - 1) + column
            place = int(layout.answer_places[layout.answer_slots == slot])
            assert packed[place + 1] == token
            assert sorted(packed[other] for other in seen[place].nonzero().flatten()) == sorted(
                whole[: len(prompt) + position]
            )
        last = int(layout.last_places[row])
        assert sorted(packed[other] for other in seen[last].nonzero().flatten()) == sorted(whole)
    assert len(layout.answer_places) == num_answer_tokens


@settings(max_examples=40, deadline=None)
@given(groups=GROUPS, seed=st.integers(0, 9))
def test_unpacked_values_are_those_of_the_answers(groups, seed):
    _, ids, mask, is_answer = rows_of(groups, seed)
    bounds = row_bounds(mask, is_answer)
    layout = pack_rows(bounds, group_rows(ids, bounds), ids.size(1), ids.device)
    next_tokens = layout.pack(ids)[:, 1:].float()
    assert torch.equal(layout.unpack(next_tokens), (ids * is_answer)[:, 1:].float())
    assert torch.equal(layout.pack(ids)[0][layout.is_answer].sort().values, ids[is_answer].sort().values)


def test_a_long_answer_does_not_pad_the_short_ones():
    groups = [(300, [1000, *[20] * 30])]
    _, ids, mask, is_answer = rows_of(groups, 0)
    bounds = row_bounds(mask, is_answer)
    layout = pack_rows(bounds, group_rows(ids, bounds), ids.size(1), ids.device)
    answers = [call for call in layout.calls if call.mask is not None]
    assert sorted(tuple(call.queries.shape) for call in answers) == [(1, 1001), (30, 21)]
    assert all(len(call.mask) == 1 for call in answers)  # rows of one shape share a mask
