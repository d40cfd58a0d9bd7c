# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Sampling responses from a model behind any OpenAI-compatible server, which applies the chat template; images go as data
URLs.

The API returns no token ids, so rollouts from here fill no buffer. Does not cover plain-text prompts.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any

from datasets import Dataset
from tqdm.auto import tqdm
from trl.data_utils import is_conversational

from ..images.data_urls import encode_messages
from .generation import SamplingSettings
from .prompts import fill_images, read_example
from .rollouts import EngineError, Rollout


try:
    import openai
except ImportError as error:
    raise ImportError("`generation: server` needs openai: `pip install 'trl_r1v2[serving]'`") from error


class ChatServer:
    """
    A served model to sample from.

    Args:
        url (`str`): Address up to and with the version, for example `"http://localhost:8000/v1"`.
        model (`str`): Name under which the server knows the model.
        api_key_env (`str`, *optional*): Environment variable that holds the key; without it `"none"` is sent.
        concurrency (`int`, *optional*, defaults to `16`), timeout (`float`, *optional*, defaults to `3600.0`),
            max_retries (`int`, *optional*, defaults to `10`): Requests under way at once, seconds to wait for one
            response, and times that a failed request is sent again, after at most 8 seconds.
        extra_body (`dict`, *optional*): Further fields of every request.

    Raises:
        EngineError: The address is none, or the variable is not set.
    """

    def __init__(
        self,
        url: str,
        model: str,
        api_key_env: str | None = None,
        concurrency: int = 16,
        timeout: float = 3600.0,
        max_retries: int = 10,
        extra_body: dict[str, Any] | None = None,
    ):
        if not url.startswith(("http://", "https://")):
            raise EngineError(f"{url!r} is no address: write it as http://host:port/v1.")
        if api_key_env is not None and not os.environ.get(api_key_env):
            raise EngineError(f"the environment variable {api_key_env} is not set: put the server's key into it.")
        key = "none" if api_key_env is None else os.environ[api_key_env]
        self.url, self.model, self.concurrency, self.extra_body = url, model, concurrency, extra_body or {}
        self.processing_class = None  # the server's business
        self.fingerprint = {"model": f"served as {model}", "extra_body": self.extra_body}
        self._client = openai.OpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=max_retries)

    def sample_chunks(
        self,
        dataset: Dataset,
        *,
        rows: Sequence[int] | None = None,
        progress: bool = True,
        **settings,
    ) -> Iterator[list[Rollout]]:
        """
        As [`~trl_r1v2.sampling.generation.sample_chunks`]: yields the responses of a row once all are there, without
        `completion_ids`. Each is one request with a seed of its own; whether it can be repeated is up to the server.

        Raises:
            EngineError: The server fails for good, refuses, or does not count tokens.
            ValueError: A row cannot be rendered; the message names it.
        """
        rows = range(len(dataset)) if rows is None else rows
        settings = SamplingSettings(**settings)
        num_samples, temperature = settings.num_samples, settings.temperature if settings.do_sample else 0.0
        options = {"max_tokens": settings.max_new_tokens, "temperature": temperature, "top_p": settings.top_p}

        # Read as places become free: the images of a whole dataset would not fit into memory.
        read = ((row, _messages(dataset, row)) for row in rows)
        jobs = (
            (row, sample, messages, {**options, "seed": request_seed(settings.seed, row, sample)})
            for row, messages in read
            for sample in range(num_samples)
        )
        done: dict[int, list[Rollout]] = {}
        pool, waiting = ThreadPoolExecutor(self.concurrency, thread_name_prefix="chat"), set()
        try:
            with tqdm(total=len(rows), desc="sampling", unit="prompt", disable=not progress) as bar:
                while True:
                    taken = islice(jobs, 2 * self.concurrency - len(waiting))
                    waiting |= {pool.submit(self._complete, *job) for job in taken}
                    if not waiting:
                        return
                    finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in sorted(finished, key=lambda future: future.exception() is not None):
                        rollout = future.result()
                        of_row = done.setdefault(rollout.row, [])
                        of_row.append(rollout)
                        if len(of_row) == num_samples:
                            yield sorted(done.pop(rollout.row), key=lambda rollout: rollout.sample)
                            bar.update()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _complete(self, row: int, sample: int, messages: list[dict[str, Any]], settings: dict[str, Any]) -> Rollout:
        try:
            options = {"model": self.model, "messages": messages, "extra_body": self.extra_body, **settings}
            reply = self._client.chat.completions.create(**options)
        except openai.OpenAIError as error:
            said = str(error)
            if isinstance(error, openai.APIStatusError):
                said = f"HTTP status {error.status_code}, {error.response.text}"
            raise EngineError(
                f"{self.url} gave no response of model {self.model!r}: {said[:600]}. Start the server, or "
                "correct the setting that it names; what was done before is kept, and the same command goes on."
            ) from error
        if not reply.choices or reply.usage is None:
            raise EngineError(
                f"{self.url} replies without choices or without `usage.completion_tokens`: use a server that counts "
                "tokens."
            )
        message, extra = reply.choices[0].message, reply.choices[0].message.model_extra
        text, reasoning = message.content or "", extra.get("reasoning_content") or extra.get("reasoning")
        if reasoning:  # that the server has split off
            text = f"<think>{reasoning}</think>\n{text}" if text else f"<think>{reasoning}"
        return Rollout(row, sample, text, [], reply.usage.completion_tokens, reply.choices[0].finish_reason == "stop")


def request_seed(seed: int, row: int, sample: int) -> int:
    """Seed of one request, in [0, 2³¹)."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{row}:{sample}".encode()).digest()[:4], "big") >> 1


def _messages(dataset: Dataset, row: int) -> list[dict[str, Any]]:
    example = read_example(dataset, row)
    if not is_conversational(example):
        raise ValueError(
            f"row {row}: the prompt is plain text, but a chat server takes messages: write it as such, or use "
            "transformers"
        )
    return encode_messages(fill_images(example, row))
