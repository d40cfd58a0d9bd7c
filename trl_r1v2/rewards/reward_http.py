# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
A reward model behind HTTP: one that needs its own GPU, or training under ZeRO-3.

Scope: the client of vLLM's pooling server (`POST /pooling`, OpenAI-style messages), which `trl-r1v2 serve-reward` speaks as
well (`reward_server.py`). It has the `score` of a [`~trl_r1v2.rewards.reward_model.RewardModel`]. Does not cover: batches,
which the server makes of requests that arrive together.
"""

import json
import re
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from ..sampling.chat_client import encode_messages, run_bounded
from ..sampling.http_client import SHOWN_CHARS, HTTPClient, InvalidReply, NoReply, Refusal


_LARGEST = 3.4028234e38  # of float32, in which TRL holds rewards
_OWN_FIELDS = ("model", "messages", "task")
_TOO_LONG = re.compile(r"(context|model|input) length (is |of )?(only )?\d")


def read_score(body: bytes, by_token: bool = False) -> float:
    r"""
    Read the reply to one conversation.

    Args:
        body (`bytes`):
            JSON of `{"data": [{"data": [score]}]}`.
        by_token (`bool`, *optional*, defaults to `False`):
            Whether `[[score], [score], …]`, one entry a token, is taken as well: the last token's counts.

    Returns:
        `float`: The score, finite.

    Raises:
        InvalidReply: It is anything else.
    """
    shown = body[:SHOWN_CHARS].decode("utf-8", "replace")
    try:
        entries = json.loads(body)["data"]
        values = entries[0]["data"]
        num_entries = len(entries)
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise InvalidReply(f"the reply holds no pooled data: {shown!r}") from error
    if num_entries != 1:
        raise InvalidReply(f"the reply holds {num_entries} results for one conversation: {shown!r}")
    if isinstance(values, str):
        raise InvalidReply("the score is encoded as text; ask for numbers, `encoding_format: float`")
    if isinstance(values, list) and values and isinstance(values[-1], list):
        if len(values) > 1 and not by_token:
            raise InvalidReply(f"{len(values)} scores, one a token; set `task: token_classify` to take the last one's")
        values = values[-1]
    if not isinstance(values, list) or len(values) != 1:
        raise InvalidReply(f"not one score but {str(values)[:SHOWN_CHARS]}; a reward model has one label")
    return _finite(values[0])


def _finite(value) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and abs(value) <= _LARGEST:  # false for NaN
        return float(value)
    raise InvalidReply(f"a score that is no finite number: {str(value)[:SHOWN_CHARS]}")


def read_model_names(body: bytes) -> list[str]:
    """
    Names of the served models, from the reply to `GET /v1/models`.

    Raises:
        InvalidReply: It names none.
    """
    try:
        names = [entry["id"] for entry in json.loads(body)["data"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        names = []
    if not names or not all(isinstance(name, str) for name in names):
        raise InvalidReply(f"the reply names no model: {body[:SHOWN_CHARS].decode('utf-8', 'replace')!r}")
    return names


def read_error(refusal: Refusal) -> tuple[str, bool]:
    """A server's words, and whether it says that the conversation has more tokens than the model takes."""
    try:
        reply = json.loads(refusal.body)
        error = reply.get("error", reply)
        code, message = error.get("code"), error["message"]
    except (ValueError, KeyError, AttributeError, TypeError):
        return refusal.body, False
    too_long = code == "context_length_exceeded" or _TOO_LONG.search(str(message)) is not None
    return str(message), too_long and refusal.status == 400


class HTTPRewardModel:
    r"""
    A reward model of `vllm serve --runner pooling` or `trl-r1v2 serve-reward`, seen as a
    [`~trl_r1v2.rewards.reward_model.RewardModel`]: give it to [`~trl_r1v2.rewards.reward_model.RewardModelReward`].

    A conversation is one request; scores come back in order. A server that is out of reach, fails (5xx, 408, 429) or
    answers anything but one finite number is asked again until `patience` ends. No score is made up.

    Args:
        url (`str`):
            Root of the server, with or without `/v1`, e.g. `"http://10.0.0.7:8000"`.
        model (`str`, *optional*):
            Name under which the server knows the model; by default it is asked for its only one.
        concurrency (`int`, *optional*, defaults to `16`):
            Requests under way at once, in threads. Servers batch what arrives together.
        timeout (`float`, *optional*, defaults to `600.0`):
            Seconds to wait for one reply, from connecting to its last byte.
        patience (`float`, *optional*, defaults to `120.0`):
            Seconds after the first failure of a request in which it is sent again, with growing pauses.
        api_key_env (`str`, *optional*):
            Environment variable that holds the server's key.
        task (`str` or `None`, *optional*, defaults to `"classify"`):
            vLLM's pooling task: `"classify"` gives one score a conversation, `"token_classify"` one a token, of which the
            last one counts. `None` leaves the choice to the server.
        extra_body (`dict`, *optional*):
            Further fields of every request, which win over `use_activation: false`, `add_generation_prompt: false` and
            `encoding_format: float`.
        sees_images (`bool`, *optional*, defaults to `True`):
            Whether images are sent. No server says what its model sees; a text-only one refuses them.

    Raises:
        `ValueError`: If an option is out of bounds or the server refuses a request, with its words.
        `RuntimeError`: If the server gives no usable reply while `patience` lasts.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        concurrency: int = 16,
        timeout: float = 600.0,
        patience: float = 120.0,
        api_key_env: str | None = None,
        task: str | None = "classify",
        extra_body: dict[str, Any] | None = None,
        sees_images: bool = True,
    ):
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"url is {url!r}; write it as http://host:port.")
        if concurrency < 1:
            raise ValueError(f"concurrency is {concurrency}; it must be at least 1.")
        own = sorted(set(extra_body or {}) & set(_OWN_FIELDS))
        if own:
            raise ValueError(f"extra_body holds {', '.join(own)}; model and task are options of their own.")
        self.url = url.rstrip("/").removesuffix("/v1")
        self.concurrency = concurrency
        self.sees_images = sees_images
        self._fields = {} if task is None else {"task": task}
        self._fields |= {"use_activation": False, "add_generation_prompt": False, "encoding_format": "float"}
        self._fields |= extra_body or {}
        self._read = partial(read_score, by_token=task != "classify")
        self._http = HTTPClient(api_key_env, timeout, patience)
        self.model = self._only_model() if model is None else model

    @property
    def timeout(self) -> float:
        """Seconds to wait for one reply."""
        return self._http.timeout

    @property
    def patience(self) -> float:
        """Seconds after the first failure of a request in which it is sent again."""
        return self._http.patience

    @property
    def num_retries(self) -> int:
        """Requests that were sent again."""
        return self._http.num_retries

    def score(self, conversations: list[list[dict]]) -> list[float | None]:
        r"""
        Score conversations.

        Args:
            conversations (`list[list[dict]]`):
                As [`~trl_r1v2.rewards.reward_model.RewardModel.score`] takes them.

        Returns:
            `list[float | None]`: A score for each in order, `None` where it has more tokens than the server takes.
        """
        scores: list[float | None] = [None] * len(conversations)
        stop = threading.Event()

        def ask(row: int) -> float | None:
            return self._score(conversations[row], stop)

        try:
            for row, score in run_bounded(ask, range(len(conversations)), self.concurrency):
                scores[row] = score
        finally:
            stop.set()  # after an error, the other requests are not sent again
        return scores

    def _score(self, messages: list[dict], stop: threading.Event) -> float | None:
        request = {"model": self.model, "messages": encode_messages(messages), **self._fields}
        try:
            return self._ask("/pooling", request, self._read, stop)
        except Refusal as refusal:
            if read_error(refusal)[1]:
                return None
            raise self._refused("/pooling", refusal) from refusal

    def _only_model(self) -> str:
        try:
            names = self._ask("/v1/models", None, read_model_names)
        except Refusal as refusal:
            raise self._refused("/v1/models", refusal) from refusal
        if len(names) > 1:
            raise ValueError(f"{self.url} serves {', '.join(names)}; name one as `model`.")
        return names[0]

    def _refused(self, path: str, refusal: Refusal) -> ValueError:
        words = read_error(refusal)[0][:SHOWN_CHARS].rstrip(".")
        return ValueError(
            f"{self.url}{path} refused the request ({refusal.status}): {words}. Correct the address, or the setting that "
            "it names."
        )

    def _ask(self, path: str, message: dict | None, read: Callable, stop: threading.Event | None = None):
        try:
            return self._http.ask(self.url + path, message, read, stop)
        except NoReply as failure:
            raise RuntimeError(
                f"The reward model at {self.url} gave no usable answer for {self.patience:.0f} s ({failure}). Start it "
                "with `trl-r1v2 serve-reward` or `vllm serve --runner pooling`, correct what it names, or raise the "
                "patience; training goes on from the last checkpoint."
            ) from failure
