# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Client of an OpenAI-style chat server (`POST <url>/chat/completions`): retries, back-off, many requests at once.

A reply that is no chat completion counts as a failure of the server and is asked for again; what the server refuses (4xx
other than 429) is reported at once. Does not cover streaming, tools, nor the meaning of a reply.
"""

import base64
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from PIL import Image

from .http_client import SHOWN_CHARS, HTTPClient, InvalidReply, NoReply, Refusal


Job = TypeVar("Job")
Result = TypeVar("Result")


class ServerError(RuntimeError):
    """A chat server that stays out of reach, or refuses a request. The message names the address and the remedy."""


@dataclass(frozen=True)
class ChatReply:
    """
    One reply.

    Args:
        text (`str`):
            Text of the message; reasoning that the server has split off is put back into `<think>` tags.
        finish_reason (`str`):
            `"stop"` where the reply ended by itself.
        num_tokens (`int` or `None`):
            Generated tokens, where the server counts them.
    """

    text: str
    finish_reason: str
    num_tokens: int | None


class ChatClient:
    """
    An OpenAI-style chat server.

    Args:
        url (`str`):
            Address up to and with the version, for example `"http://localhost:8000/v1"`.
        model (`str`):
            Name under which the server knows the model.
        api_key_env (`str`, *optional*):
            Environment variable that holds the key. No key is sent by default.
        timeout (`float`, *optional*, defaults to `600.0`):
            Seconds to wait for one reply.
        patience (`float`, *optional*, defaults to `120.0`):
            Seconds after the first failure of a request in which it is sent again, with growing pauses.
        first_pause (`float`, *optional*, defaults to `0.5`):
            Seconds before the first repetition; each further pause is twice as long, up to 30 seconds.

    Raises:
        ServerError: The address is none, the variable is not set, or a number is out of bounds.
    """

    def __init__(
        self,
        url: str,
        model: str,
        api_key_env: str | None = None,
        timeout: float = 600.0,
        patience: float = 120.0,
        first_pause: float = 0.5,
    ):
        if not url.startswith(("http://", "https://")):
            raise ServerError(f"{url!r} is no address: write it as http://host:port/v1.")
        self.url = url.rstrip("/")
        self.model = model
        try:
            self._http = HTTPClient(api_key_env, timeout, patience, first_pause)
        except ValueError as error:
            raise ServerError(str(error)) from error

    @property
    def num_retries(self) -> int:
        """Requests that were sent again."""
        return self._http.num_retries

    def complete(self, messages: list[dict[str, Any]], **settings) -> ChatReply:
        """
        Ask for one reply.

        Args:
            messages (`list[dict]`):
                Messages in the API's form; see [`encode_messages`].
            **settings:
                Further fields of the request, for example `max_tokens`, `temperature`, `seed`.

        Returns:
            [`ChatReply`]: The reply.

        Raises:
            ServerError: The server refuses the request, or no reply came in `patience` seconds after the first failure.
        """
        address = f"{self.url}/chat/completions"
        try:
            return self._http.ask(address, {"model": self.model, "messages": messages, **settings}, read_reply)
        except Refusal as refusal:
            raise ServerError(
                f"{address} refused the request for model {self.model!r} ({refusal.status}): "
                f"{refusal.body[:SHOWN_CHARS]}. Correct the server's address, the model's name, or the setting that it "
                "names."
            ) from refusal
        except NoReply as failure:
            raise ServerError(
                f"{address} gave no reply of model {self.model!r} for {self._http.patience:.0f} s (last: {failure}). "
                "Start the server, or raise the patience; what was done before is kept, and the same command goes on."
            ) from failure


def read_reply(body: bytes) -> ChatReply:
    """
    Read the body of a chat completion.

    Raises:
        InvalidReply: It is none.
    """
    try:
        reply = json.loads(body)
        choice = reply["choices"][0]
        message = choice["message"]
        text = message["content"] or ""
        # vLLM and SGLang name it differently
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        usage = reply.get("usage") or {}
        finish_reason = choice["finish_reason"]
        valid = isinstance(text, str) and isinstance(reasoning, str | None) and isinstance(finish_reason, str | None)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        shown = body[:SHOWN_CHARS].decode("utf-8", "replace")
        raise InvalidReply(f"the reply is no chat completion: {shown!r}") from error
    if not valid:
        raise InvalidReply(f"the reply is no chat completion: {body[:SHOWN_CHARS].decode('utf-8', 'replace')!r}")
    if reasoning:
        text = f"<think>{reasoning}</think>\n{text}" if text else f"<think>{reasoning}"
    return ChatReply(text, finish_reason or "unknown", usage.get("completion_tokens"))


def encode_messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """
    Write messages as the API takes them: images as PNG data addresses, which keep every pixel of the picture that
    [`~trl_r1v2.images.processing.load_image`] makes.

    Args:
        messages (`list[dict]`):
            Messages whose content is text, or parts of type `text` and `image` with PIL images inside.

    Returns:
        `list[dict]`: Messages; a content of text alone is a plain string.
    """
    encoded = []
    for message in messages:
        content = message["content"]
        if not isinstance(content, str):
            if all(part["type"] == "text" for part in content):
                content = "".join(part["text"] for part in content)
            else:
                content = [_encode_part(part) for part in content]
        encoded.append({"role": message["role"], "content": content})
    return encoded


def _encode_part(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "text":
        return {"type": "text", "text": part["text"]}
    if part["type"] == "image" and isinstance(part.get("image"), Image.Image):
        from ..images.processing import load_image  # imports transformers

        buffer = io.BytesIO()
        load_image(part["image"]).save(buffer, format="PNG")
        url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
        return {"type": "image_url", "image_url": {"url": url}}
    raise ValueError(f"a message part of type {part['type']!r} cannot be sent; text and PIL images can")


def run_bounded(work: Callable[[Job], Result], jobs: Iterable[Job], concurrency: int) -> Iterator[tuple[Job, Result]]:
    """
    Do jobs in threads, a bounded number at a time, and yield each as it is done.

    Jobs are taken from `jobs` only as places become free, at most `2 * concurrency` ahead. The first error ends it, after
    what was done beside it; jobs that have not begun are dropped.

    Args:
        work (`Callable`):
            Called with each job.
        jobs (`Iterable`):
            Jobs.
        concurrency (`int`):
            Threads.

    Yields:
        `tuple`: Job and result.
    """
    jobs = iter(jobs)
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="chat")
    waiting: dict[Future, Job] = {}
    try:
        while True:
            for job in itertools.islice(jobs, 2 * concurrency - len(waiting)):
                waiting[pool.submit(work, job)] = job
            if not waiting:
                return
            done = wait(waiting, return_when=FIRST_COMPLETED).done
            for future in sorted(done, key=lambda future: future.exception() is not None):
                job = waiting.pop(future)
                yield job, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
