# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Sampling responses from a model behind an OpenAI-style server (vLLM, SGLang, …), as rollouts like those of `generation`.

The server applies the chat template; images go as data addresses. Token ids are not returned by the API, so rollouts
from here measure a model but do not train one. Does not cover plain-text prompts nor starting the server.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from tqdm.auto import tqdm
from trl.data_utils import is_conversational

from .chat_client import ChatClient, ChatReply, ServerError, encode_messages, run_bounded
from .prompts import fill_images, read_example
from .rollouts import Rollout


@dataclass(frozen=True)
class _Request:
    row: int
    sample: int
    messages: list[dict[str, Any]]


def sample_chunks_from_server(
    client: ChatClient,
    dataset: Dataset,
    *,
    num_samples: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    do_sample: bool = True,
    seed: int = 0,
    rows: Sequence[int] | None = None,
    concurrency: int = 16,
    progress: bool = True,
) -> Iterator[list[Rollout]]:
    """
    Sample `num_samples` responses to every prompt, one request each, yielding the responses of a row when all are there.

    Each request has a seed of its own, made from `seed`, row and sample; whether a reply can be repeated is up to the
    server.

    Args:
        client ([`ChatClient`]):
            Server.
        dataset (`Dataset`):
            Conversational prompts in column `prompt`, images in `images` or `image`.
        num_samples (`int`):
            Responses a prompt.
        max_new_tokens (`int`):
            Longest response, in tokens.
        temperature (`float`, *optional*, defaults to `1.0`), top_p (`float`, *optional*, defaults to `1.0`):
            Temperature and nucleus mass of the sampling.
        do_sample (`bool`, *optional*, defaults to `True`):
            `False`: temperature 0.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the sampling.
        rows (`Sequence[int]`, *optional*):
            Rows to answer. All by default.
        concurrency (`int`, *optional*, defaults to `16`):
            Requests under way at once.
        progress (`bool`, *optional*, defaults to `True`):
            Whether to show a progress bar.

    Yields:
        `list[Rollout]`: The responses of one row, by sample; rows come as they are finished. `completion_ids` is empty.

    Raises:
        ServerError: The server fails for good, refuses, or does not count tokens.
        ValueError: A row cannot be rendered; the message names it.
    """
    rows = range(len(dataset)) if rows is None else rows
    settings = {"max_tokens": max_new_tokens, "temperature": temperature if do_sample else 0.0}
    if do_sample:
        settings["top_p"] = top_p

    def requests() -> Iterator[_Request]:
        for row in rows:
            messages = _messages(dataset, row)
            for sample in range(num_samples):
                yield _Request(row, sample, messages)

    def ask(request: _Request) -> ChatReply:
        return client.complete(request.messages, seed=request_seed(seed, request.row, request.sample), **settings)

    done: dict[int, dict[int, Rollout]] = {}
    with tqdm(total=len(rows), desc="sampling", unit="prompt", disable=not progress) as bar:
        for request, reply in run_bounded(ask, requests(), concurrency):
            of_row = done.setdefault(request.row, {})
            of_row[request.sample] = _to_rollout(request, reply, client)
            if len(of_row) == num_samples:
                yield [of_row[sample] for sample in range(num_samples)]
                del done[request.row]
                bar.update()


def request_seed(seed: int, row: int, sample: int) -> int:
    """Seed of one request, in [0, 2³¹)."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{row}:{sample}".encode()).digest()[:4], "big") >> 1


def _messages(dataset: Dataset, row: int) -> list[dict[str, Any]]:
    example = read_example(dataset, row)
    if not is_conversational(example):
        raise ValueError(
            f"row {row}: the prompt is plain text, but a chat server takes messages. Write it as "
            '[{"role": "user", "content": ...}], or generate with transformers'
        )
    return encode_messages(fill_images(example, row))


def _to_rollout(request: _Request, reply: ChatReply, client: ChatClient) -> Rollout:
    if not isinstance(reply.num_tokens, int):
        raise ServerError(
            f"{client.url} does not say how many tokens a reply has (`usage.completion_tokens`), so lengths cannot be "
            "reported: serve the model with a server that does, for example vLLM."
        )
    return Rollout(
        row=request.row,
        sample=request.sample,
        text=reply.text,
        completion_ids=[],
        num_tokens=reply.num_tokens,
        finished=reply.finish_reason == "stop",
    )
