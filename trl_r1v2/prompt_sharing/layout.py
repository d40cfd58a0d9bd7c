# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
One packed sequence for the rows of a micro-batch, in which rows with the same prompt share it.

A group of rows becomes its prompt without the last token, and then for each row that last token again, the *opener*,
followed by the row's answer: the shift of the labels stays inside each answer. Groups follow each other without
padding. Which keys a token attends to is a list of streams, attended to in a few padded calls. Does not cover what the
model makes of it: attention is `attention.py`, images are `images.py`.

Shapes: B rows, S padded length of a row, T tokens of the packed sequence.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn.utils.rnn import pad_sequence


# A padded attention call may waste this part of its query-key pairs, and as many as a call of its own costs.
_WASTE, _CALL = 0.25, 2**16


@dataclass(frozen=True)
class Segment:
    """Tokens `[start, end)` of row `row` of the micro-batch, which lie from `place` on in the packed sequence."""

    row: int
    start: int
    end: int
    place: int

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Stream:
    """Queries and keys at places of the packed sequence; the last query sees all keys, each earlier one a key less."""

    queries: torch.Tensor  # (q,)
    keys: torch.Tensor  # (k,), k >= q

    @property
    def offset(self) -> int:
        """Keys that the first query sees beside itself."""
        return len(self.keys) - len(self.queries)


@dataclass(frozen=True)
class AttentionCall:
    """Streams padded to one shape, for one call of an attention function."""

    queries: torch.Tensor  # (n, q) places
    keys: torch.Tensor  # (n, k) places
    mask: torch.Tensor | None  # (1 or n, 1, q, k) bool, or None where q = k and the causal mask says it all


@dataclass(frozen=True)
class PackedLayout:
    """
    Where the tokens of a micro-batch lie in its packed sequence, and what they attend to.

    Args:
        source (`torch.Tensor` of shape `(T,)`): For each packed token its place in the rows, flattened to `(B * S,)`.
        is_answer (`torch.Tensor` of shape `(T,)`): Whether the token belongs to an answer.
        segments (`list[Segment]`): The prompts and answers in packed order, openers left out.
        answer_places (`torch.Tensor` of shape `(N,)`): Where the packed sequence predicts the N tokens of all answers.
        answer_slots (`torch.Tensor` of shape `(N,)`): Where the rows do, flattened from `(B, S - 1)`.
        last_places (`torch.Tensor` of shape `(B,)`): Where the last token of each row lies.
        streams (`list[Stream]`): On the CPU, their queries in packed order.
        row_length (`int`): S.
    """

    source: torch.Tensor
    is_answer: torch.Tensor
    segments: list[Segment]
    answer_places: torch.Tensor
    answer_slots: torch.Tensor
    last_places: torch.Tensor
    streams: list[Stream]
    row_length: int

    @property
    def num_tokens(self) -> int:
        return len(self.source)

    @cached_property
    def chunks(self) -> list[list[Stream]]:
        """The streams, those together that share an attention call."""
        return _chunks(self.streams)

    @cached_property
    def calls(self) -> list[AttentionCall]:
        """A call for each chunk, on the device of the tokens."""
        calls, device = [], self.source.device
        for chunk in self.chunks:
            queries = pad_sequence([stream.queries for stream in chunk], batch_first=True)
            keys = pad_sequence([stream.keys for stream in chunk], batch_first=True)
            offsets = torch.tensor(sorted({stream.offset for stream in chunk}))
            mask = None
            if offsets.any():
                # Padding needs no mask of its own: no query reaches padded keys, and nobody reads padded queries.
                if len(offsets) > 1:
                    offsets = torch.tensor([stream.offset for stream in chunk])
                reach = torch.arange(queries.size(1)) + offsets[:, None]
                mask = (torch.arange(keys.size(1)) <= reach[..., None])[:, None].to(device)
            calls.append(AttentionCall(queries.to(device), keys.to(device), mask))
        return calls

    @cached_property
    def varlen(self) -> dict[str, torch.Tensor | int]:
        """The streams end to end, as FlashAttention takes them, and the places of their keys; queries are in order."""
        query_lengths = torch.tensor([0, *(len(stream.queries) for stream in self.streams)], dtype=torch.int32)
        key_lengths = torch.tensor([0, *(len(stream.keys) for stream in self.streams)], dtype=torch.int32)
        return {
            "keys": torch.cat([stream.keys for stream in self.streams]).to(self.source.device),
            "cu_seq_lens_q": query_lengths.cumsum(0, dtype=torch.int32).to(self.source.device),
            "cu_seq_lens_k": key_lengths.cumsum(0, dtype=torch.int32).to(self.source.device),
            "max_length_q": int(query_lengths.max()),
            "max_length_k": int(key_lengths.max()),
        }

    @cached_property
    def places_of_calls(self) -> torch.Tensor:
        """For each packed token its place among the padded queries of all calls, `(T,)`."""
        places, start = torch.empty(self.num_tokens, dtype=torch.long), 0
        for chunk in self.chunks:
            width = max(len(stream.queries) for stream in chunk)
            for stream in chunk:
                places[stream.queries] = torch.arange(start, start + len(stream.queries))
                start += width
        return places.to(self.source.device)

    def pack(self, rows: torch.Tensor) -> torch.Tensor:
        """Values of shape `(..., B, S)` as `(..., 1, T)`."""
        return rows.flatten(-2)[..., self.source].unsqueeze(-2)

    def unpack(self, predictions: torch.Tensor) -> torch.Tensor:
        """Values at the packed sequence's next tokens, `(1, T - 1)`, as `(B, S - 1)`; zero outside of the answers."""
        num_rows = len(self.last_places)
        rows = predictions.new_zeros(num_rows * (self.row_length - 1))
        rows = rows.index_copy(0, self.answer_slots, predictions[0].index_select(0, self.answer_places))
        return rows.view(num_rows, -1)


def group_rows(input_ids: torch.Tensor, bounds: Sequence[tuple[int, int, int]]) -> list[list[int]]:
    """
    Rows with the same prompt tokens.

    Args:
        input_ids (`torch.Tensor` of shape `(B, S)`): Padded rows, on the CPU.
        bounds (`Sequence[tuple[int, int, int]]`): Of each row, the first token, the first of the answer, and the end.

    Returns:
        `list[list[int]]`: Rows of each group, in the order in which the groups first appear.
    """
    groups: dict[bytes, list[int]] = {}
    for row, (start, boundary, _) in enumerate(bounds):
        groups.setdefault(input_ids[row, start:boundary].numpy().tobytes(), []).append(row)
    return list(groups.values())


def split_groups(groups: Sequence[Sequence[int]], are_equal: Callable[[int, int], bool]) -> list[list[int]]:
    """Groups taken apart so that `are_equal` holds between the first row of each and its others."""
    parts: list[list[int]] = []
    for group in groups:
        start = len(parts)
        for row in group:
            part = next((part for part in parts[start:] if are_equal(part[0], row)), None)
            if part is None:
                parts.append([row])
            else:
                part.append(row)
    return parts


def packed_length(groups: Sequence[Sequence[int]], prompts: Sequence[int], answers: Sequence[int]) -> int:
    """Tokens of the packed sequence of groups, from the numbers of tokens of all rows' prompts and answers."""
    return sum(prompts[group[0]] - 1 + sum(answers[row] + 1 for row in group) for group in groups)


def row_bounds(attention_mask: torch.Tensor, is_answer: torch.Tensor) -> list[tuple[int, int, int]]:
    """
    Where each row starts, where its answer starts, and where it ends; without an answer the last two are the same.

    Args:
        attention_mask (`torch.Tensor` of shape `(B, S)`): 1 for tokens, padding on one side or both.
        is_answer (`torch.Tensor` of shape `(B, S)`): Whether a token is to be predicted. A first token never is.
    """
    tokens = attention_mask.bool()
    length = tokens.size(1)
    starts = tokens.int().argmax(dim=1)
    ends = length - tokens.flip(1).int().argmax(dim=1)
    assert (ends - starts == tokens.sum(dim=1)).all(), "padding inside a row"
    boundaries = torch.where(is_answer.any(dim=1), is_answer.int().argmax(dim=1), ends)
    boundaries = torch.maximum(boundaries, starts + 1)
    return list(zip(starts.tolist(), boundaries.tolist(), ends.tolist(), strict=True))


def pack_rows(
    bounds: Sequence[tuple[int, int, int]], groups: Sequence[Sequence[int]], length: int, device: torch.device
) -> PackedLayout:
    """
    Lay out rows.

    Args:
        bounds (`Sequence[tuple[int, int, int]]`): From [`row_bounds`].
        groups (`Sequence[Sequence[int]]`): Rows that share a prompt; each row is in one group.
        length (`int`): S.
        device (`torch.device`): Of the tokens.

    Returns:
        [`PackedLayout`]
    """
    source, is_answer, segments, streams = [], [], [], []
    answer_places, answer_slots = [], []
    last_places = torch.empty(len(bounds), dtype=torch.long)
    place = 0
    for group in groups:
        first, boundary, _ = bounds[group[0]]
        prompt = torch.arange(place, place + boundary - 1 - first)
        segments.append(Segment(group[0], first, boundary, place))
        source.append(torch.arange(first, boundary - 1) + group[0] * length)
        is_answer.append(torch.zeros(len(prompt), dtype=torch.bool))
        place += len(prompt)
        answers = []
        for row in group:
            _, boundary, end = bounds[row]
            answer = torch.arange(place, place + end - boundary + 1)  # with its opener
            segments.append(Segment(row, boundary, end, place + 1))
            source.append(torch.arange(boundary - 1, end) + row * length)
            is_answer.append(torch.arange(len(answer)) > 0)
            answer_places.append(answer[:-1])
            answer_slots.append(torch.arange(boundary - 1, end - 1) + row * (length - 1))
            last_places[row] = answer[-1]
            place += len(answer)
            answers.append(answer)
        if len(group) == 1:
            whole = torch.cat([prompt, answers[0]])
            streams.append(Stream(whole, whole))
        else:
            streams += [Stream(prompt, prompt)] if len(prompt) else []
            streams += [Stream(answer, torch.cat([prompt, answer])) for answer in answers]
    return PackedLayout(
        source=torch.cat(source).to(device),
        is_answer=torch.cat(is_answer).to(device),
        segments=segments,
        answer_places=torch.cat(answer_places).to(device),
        answer_slots=torch.cat(answer_slots).to(device),
        last_places=last_places.to(device),
        streams=streams,
        row_length=length,
    )


def _chunks(streams: Sequence[Stream]) -> list[list[Stream]]:
    """Streams that may share a padded call: causal ones apart from answers, longest first, without much waste."""
    chunks: list[list[Stream]] = []
    needed = 0  # query-key pairs of the last chunk without padding
    for stream in sorted(streams, key=lambda stream: (stream.offset > 0, -len(stream.keys), -len(stream.queries))):
        pairs = len(stream.queries) * len(stream.keys)
        if chunks and (stream.offset > 0) == (chunks[-1][0].offset > 0):
            members = [*chunks[-1], stream]
            padded = len(members) * max(len(member.queries) for member in members) * len(members[0].keys)
            if padded - needed - pairs <= max(_WASTE * (needed + pairs), _CALL):
                chunks[-1], needed = members, needed + pairs
                continue
        chunks.append([stream])
        needed = pairs
    return chunks
