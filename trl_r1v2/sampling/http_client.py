# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Requests of JSON to a server that may fail: asked again, with growing pauses, until it answers or patience ends.

What both clients share, of chats (`chat_client.py`) and of rewards (`rewards/reward_http.py`); each says in its own words
what a failure means. Standard library only. Does not cover streaming, nor the meaning of a reply.
"""

import http.client
import json
import os
import random
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any, TypeVar

from .http_deadline import exchange


SHOWN_CHARS = 300
_LONGEST_PAUSE = 30.0
Result = TypeVar("Result")


class InvalidReply(ValueError):
    """A body that is not what was asked for: the server is asked again."""


class Refusal(Exception):
    """
    A request that the server does not take, so that asking again is no use.

    Args:
        status (`int`):
            HTTP status, 4xx other than 408 and 429.
        body (`str`):
            What the server says.
    """

    def __init__(self, status: int, body: str):
        super().__init__(f"status {status}: {body[:SHOWN_CHARS]}")
        self.status, self.body = status, body


class NoReply(Exception):
    """A server that gave no usable reply while patience lasted; the message is the last failure."""


class HTTPClient:
    """
    Sends requests, from any thread.

    Args:
        api_key_env (`str`, *optional*):
            Environment variable that holds the key, sent as a bearer token. No key is sent by default.
        timeout (`float`, *optional*, defaults to `600.0`):
            Seconds to wait for one reply, from connecting to its last byte.
        patience (`float`, *optional*, defaults to `120.0`):
            Seconds after the first failure of a request in which it is sent again; 0: never.
        first_pause (`float`, *optional*, defaults to `0.5`):
            Seconds before the first repetition; each further pause is twice as long, up to 30 seconds. The server's
            `Retry-After` may prolong one, to 30 seconds as well.

    Raises:
        ValueError: The variable is not set, or a number is out of bounds.
    """

    def __init__(
        self,
        api_key_env: str | None = None,
        timeout: float = 600.0,
        patience: float = 120.0,
        first_pause: float = 0.5,
    ):
        if timeout <= 0:
            raise ValueError(f"timeout is {timeout}; it must be above 0 seconds.")
        if patience < 0:
            raise ValueError(f"patience is {patience}; it must be at least 0 seconds.")
        self.timeout, self.patience, self.first_pause = timeout, patience, first_pause
        self.headers = {"Content-Type": "application/json"}
        if api_key_env is not None:
            if not os.environ.get(api_key_env):
                raise ValueError(f"the environment variable {api_key_env} is not set: put the server's key into it.")
            self.headers["Authorization"] = f"Bearer {os.environ[api_key_env]}"
        self.num_retries = 0
        self._lock = threading.Lock()

    def ask(
        self,
        address: str,
        message: dict[str, Any] | None,
        read: Callable[[bytes], Result],
        stop: threading.Event | None = None,
    ) -> Result:
        """
        Send one request until its reply can be read.

        Args:
            address (`str`):
                Where to.
            message (`dict` or `None`):
                What to `POST` as JSON; `None`: `GET`.
            read (`Callable`):
                Turns the body of a reply into the result, or raises [`InvalidReply`].
            stop (`threading.Event`, *optional*):
                Once set, from another thread, nothing is asked again.

        Returns:
            What `read` returns.

        Raises:
            Refusal: The server does not take the request.
            NoReply: No reply that can be read came in `patience` seconds after the first failure, or before `stop`.
        """
        data = None if message is None else json.dumps(message).encode("utf-8")
        request = urllib.request.Request(address, data=data, headers=self.headers)
        stop = threading.Event() if stop is None else stop
        end, pause = None, self.first_pause
        while True:
            failure: Exception | None = None
            wish = 0.0
            try:
                status, headers, body = exchange(request, self.timeout)
                if 200 <= status < 300:
                    return read(body)
                words = _words(status, body)
                wish = _seconds(headers.get("Retry-After"))
            except (OSError, http.client.HTTPException, InvalidReply) as error:
                failure, words = error, str(error) or type(error).__name__
            now = time.monotonic()
            end = now + self.patience if end is None else end
            if now >= end:
                raise NoReply(words) from failure
            with self._lock:
                self.num_retries += 1
            # requests that failed together should not come back together
            seconds = min(max(pause * random.uniform(0.75, 1.0), wish), end - now)
            if _wait(stop, seconds):
                raise NoReply(words) from failure
            pause = min(2 * pause, _LONGEST_PAUSE)


def _wait(stop: threading.Event, seconds: float) -> bool:
    """Wait; whether it was ended by `stop`."""
    return stop.wait(seconds)


def _words(status: int, body: bytes) -> str:
    """
    What the server says beside its status, if asking again is of use.

    Raises:
        Refusal: It is not.
    """
    text = body.decode("utf-8", "replace")
    if status < 500 and status not in (408, 429):
        raise Refusal(status, text)
    return f"{status}: {text[:SHOWN_CHARS] or http.client.responses.get(status, 'no reason given')}"


def _seconds(text: str | None) -> float:
    """Value of a `Retry-After` header in seconds; dates and nonsense count as none."""
    return min(float(text), _LONGEST_PAUSE) if text is not None and text.strip().isdecimal() else 0.0
