# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
A reward model behind HTTP: one that needs its own GPU, or training under ZeRO-3.

Scope: the client of vLLM's pooling server (`POST /pooling`), which `trl-r1v2 serve-reward` speaks as well. Does not
cover batches, which the server makes of requests that arrive together.
"""

import asyncio
import itertools
import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

from ..images.data_urls import encode_messages
from .reward_model import RewardModelReward


try:
    import httpx
    import tenacity
except ImportError as error:
    raise ImportError("rewards over HTTP need httpx and tenacity: `pip install 'trl_r1v2[serving]'`") from error

_LARGEST = 3.4028234e38  # of float32, in which TRL holds rewards
_TOO_LONG = re.compile(r"(context|model|input) length (is |of )?(only )?\d")
_PAUSES = tenacity.wait_random_exponential(max=30.0)  # uneven: what failed together comes back apart
_SHOWN_CHARS = 300


class BadReply(Exception):
    """A reply after which the server is asked again."""


_FAILURES = (httpx.TransportError, httpx.DecodingError, BadReply)


class HTTPRewardModel:
    r"""
    A reward model of `vllm serve --runner pooling` or `trl-r1v2 serve-reward`, seen as a
    [`~trl_r1v2.rewards.reward_model.RewardModel`]: give it to [`~trl_r1v2.rewards.reward_model.RewardModelReward`].

    A conversation is one request; scores come back in order. A server that is out of reach, fails (5xx, 408, 429) or
    answers anything but one finite number is asked again, or the next of several, until `patience` ends. No score is
    made up.

    Args:
        url (`str` or `list[str]`): Root of the server, e.g. `"http://10.0.0.7:8000"`, or of several with the same
            model, which take turns.
        model (`str`, *optional*): Name under which the servers know the model; by default the first is asked for its
            only one.
        concurrency (`int`, *optional*, defaults to `16`): Requests under way at once for each URL, in threads.
        timeout (`float`, *optional*, defaults to `600.0`), patience (`float`, *optional*, defaults to `120.0`):
            Seconds without a byte after which a request has failed; and from a request's beginning in which it is sent
            again, with growing pauses (once in any case).
        api_key_env (`str`, *optional*): Environment variable that holds the servers' key.
        extra_body (`dict`, *optional*): Further fields of every request, which win over `task: classify`,
            `use_activation: false` and `add_generation_prompt: false`.
        sees_images (`bool`, *optional*, defaults to `True`): Whether images are sent. No server says what its model
            sees; a text-only one refuses them.

    Raises:
        `ValueError`: If an option is out of bounds or the server refuses a request, with its words.
        `RuntimeError`: If the server gives no usable reply while `patience` lasts.
    """

    def __init__(
        self,
        url: str | list[str],
        model: str | None = None,
        concurrency: int = 16,
        timeout: float = 600.0,
        patience: float = 120.0,
        api_key_env: str | None = None,
        extra_body: dict[str, Any] | None = None,
        sees_images: bool = True,
    ):
        urls = [url] if isinstance(url, str) else list(url)
        if not urls or not all(one.startswith(("http://", "https://")) for one in urls):
            raise ValueError(f"url is {url!r}; write it as http://host:port, or a list of such.")
        if concurrency < 1 or timeout <= 0 or patience < 0:
            raise ValueError(
                f"concurrency is {concurrency}, timeout {timeout} and patience {patience}; they must be at least 1, "
                "above 0 and at least 0."
            )
        if api_key_env is not None and not os.environ.get(api_key_env):
            raise ValueError(f"the environment variable {api_key_env} is not set: put the server's key into it.")
        self.urls = [one.rstrip("/").removesuffix("/v1") for one in urls]
        self.num_workers, self.patience, self.sees_images = concurrency * len(urls), patience, sees_images
        self._fields = {"task": "classify", "use_activation": False, "add_generation_prompt": False}
        self._fields |= extra_body or {}
        headers = {} if api_key_env is None else {"Authorization": f"Bearer {os.environ[api_key_env]}"}
        limits = httpx.Limits(max_connections=self.num_workers)
        self._client = httpx.Client(headers=headers, timeout=httpx.Timeout(timeout, pool=None), limits=limits)
        self.model = self._ask("/v1/models", None, read_only_model) if model is None else model

    def score(self, conversations: list[list[dict]]) -> list[float | None]:
        """As [`~trl_r1v2.rewards.reward_model.RewardModel.score`]; `None` where the server finds one too long."""
        stop = threading.Event()

        def ask(row: int) -> float | None:
            request = {**self._fields, "model": self.model, "messages": encode_messages(conversations[row])}
            return self._ask("/pooling", request, read_score, row, stop)

        pool = ThreadPoolExecutor(self.num_workers, thread_name_prefix="reward")
        try:
            asked = [pool.submit(ask, row) for row in range(len(conversations))]
            for future in wait(asked, return_when=FIRST_EXCEPTION).done:
                future.result()
            return [future.result() for future in asked]
        finally:
            stop.set()  # after an error, the other requests are not sent again
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, path: str, message: dict | None, read, row: int = 0, stop: threading.Event | None = None):
        """What `read` makes of the reply; `None` where the server says that the conversation is too long."""
        stop = threading.Event() if stop is None else stop

        def pause(seconds: float) -> None:  # tenacity decides before a pause whether another attempt follows it
            if stop.wait(seconds):
                raise BadReply("another request has failed")

        late = tenacity.stop_all(tenacity.stop_after_delay(self.patience), tenacity.stop_after_attempt(2))
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_FAILURES), wait=_PAUSES, stop=late, sleep=pause, reraise=True
        )
        urls = itertools.islice(itertools.cycle(self.urls), row % len(self.urls), None)
        try:
            return retrying(self._send, urls, path, message, read)
        except _FAILURES as failure:
            raise RuntimeError(
                f"The reward model at {' and '.join(self.urls)} gave no usable answer for {self.patience:.0f} s "
                f"({failure or type(failure).__name__}). Start it with `trl-r1v2 serve-reward` or `vllm serve "
                "--runner pooling`, correct what it names, or raise the patience; "
                "training goes on from the last checkpoint."
            ) from failure

    def _send(self, urls: Iterator[str], path: str, message: dict | None, read):
        address = next(urls) + path
        reply = self._client.get(address) if message is None else self._client.post(address, json=message)
        shown = reply.text[:_SHOWN_CHARS]
        if reply.status_code >= 500 or reply.status_code in (408, 429):
            raise BadReply(f"{reply.status_code}: {shown or reply.reason_phrase}")
        if not reply.is_success:
            if reply.status_code == 400 and is_too_long(reply):
                return None
            raise ValueError(
                f"{address} refused the request ({reply.status_code}): {shown}. Correct the address, or the setting "
                "that it names."
            )
        try:
            return read(reply.json())
        except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            raise BadReply(f"{error or type(error).__name__}; the reply is {shown!r}") from error


def read_only_model(reply: Any) -> str:
    """The name of the served model, from the reply to `GET /v1/models`."""
    (name,) = [entry["id"] for entry in reply["data"]]
    return name


def read_score(reply: Any) -> float:
    """The score in a reply `{"data": [{"data": [score]}]}`; anything else is an error."""
    (result,) = reply["data"]
    (score,) = result["data"]
    if isinstance(score, bool) or not isinstance(score, int | float) or not abs(score) <= _LARGEST:  # NaN is neither
        raise ValueError("a score that is no finite number, or several: a reward model has one label")
    return float(score)


def is_too_long(reply: httpx.Response) -> bool:
    """Whether a refusal says that the conversation has more tokens than the model takes."""
    try:
        body = reply.json()
        error = body.get("error", body)
        return error["code"] == "context_length_exceeded" or _TOO_LONG.search(error["message"]) is not None
    except (ValueError, KeyError, AttributeError, TypeError):
        return False


class AsyncRewardModelReward(RewardModelReward):
    r"""
    [`~trl_r1v2.rewards.reward_model.RewardModelReward`] as an asynchronous reward function, of which TRL runs all in
    `reward_funcs` together, so that several servers work at once. The components of a hybrid reward take turns.
    """

    async def __call__(self, *args, **kwargs) -> list[float | None]:
        return await asyncio.to_thread(super().__call__, *args, **kwargs)
