# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
A reward model in a process of its own, over HTTP: for a model that needs its own GPU, or training under ZeRO-3.

Scope: the protocol (JSON, images as PNG), the server around a [`~trl_r1v2.rewards.reward_model.RewardModel`], and a
client with the same `score`. Does not cover: authentication and encryption; bind it to a private address.
"""

import base64
import http.client
import io
import json
import math
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image


PROTOCOL_VERSION = 1
MAX_REQUEST_BYTES = 512 * 2**20


def encode_conversation(messages: list[dict]) -> list[dict]:
    """Messages as JSON-able data; images become PNG, which keeps every pixel."""
    encoded = []
    for message in messages:
        content = message["content"]
        if not isinstance(content, str):
            content = [_encode_part(part) for part in content]
        encoded.append({"role": message["role"], "content": content})
    return encoded


def _encode_part(part: dict) -> dict:
    if part["type"] == "text":
        return {"type": "text", "text": part["text"]}
    if part["type"] == "image" and isinstance(part.get("image"), Image.Image):
        buffer = io.BytesIO()
        part["image"].convert("RGB").save(buffer, format="PNG")
        return {"type": "image", "png": base64.b64encode(buffer.getvalue()).decode("ascii")}
    raise ValueError(f"A message part of type {part['type']!r} cannot be sent; text and PIL images can.")


def decode_conversation(messages: list[dict]) -> list[dict]:
    """Inverse of [`encode_conversation`]."""
    decoded = []
    for message in messages:
        content = message["content"]
        if not isinstance(content, str):
            content = [
                {"type": "image", "image": Image.open(io.BytesIO(base64.b64decode(part["png"]))).convert("RGB")}
                if part["type"] == "image"
                else {"type": "text", "text": part["text"]}
                for part in content
            ]
        decoded.append({"role": message["role"], "content": content})
    return decoded


class RewardServer(ThreadingHTTPServer):
    r"""
    Serves `GET /info` and `POST /score`. One request is scored at a time; others wait.

    Args:
        model ([`~trl_r1v2.rewards.reward_model.RewardModel`]):
            The model.
        host (`str`, *optional*, defaults to `"127.0.0.1"`), port (`int`, *optional*, defaults to `8000`):
            Address; port 0 takes a free one (`server_port`).
    """

    daemon_threads = True

    def __init__(self, model, host: str = "127.0.0.1", port: int = 8000):
        super().__init__((host, port), _Handler)
        self.model = model
        self.lock = threading.Lock()
        self.num_scored = 0


class _Handler(BaseHTTPRequestHandler):
    server: RewardServer

    def do_GET(self):
        if self.path != "/info":
            self._reply(404, {"error": f"no {self.path} here; there are GET /info and POST /score"})
            return
        model = self.server.model
        info = {"version": PROTOCOL_VERSION, "sees_images": model.sees_images, "num_scored": self.server.num_scored}
        self._reply(200, info)

    def do_POST(self):
        size = int(self.headers.get("Content-Length", "0"))
        if self.path != "/score":
            self._reply(404, {"error": f"no {self.path} here; there are GET /info and POST /score"})
            return
        if size > MAX_REQUEST_BYTES:
            self._reply(413, {"error": f"{size} bytes; at most {MAX_REQUEST_BYTES} are taken. Send fewer at a time."})
            return
        try:
            request = json.loads(self.rfile.read(size))
            if request["version"] != PROTOCOL_VERSION:
                raise ValueError(f"protocol version {request['version']}; this server speaks {PROTOCOL_VERSION}")
            conversations = [decode_conversation(messages) for messages in request["conversations"]]
        except (KeyError, TypeError, ValueError, OSError) as error:  # OSError: PIL on a broken image
            self._reply(400, {"error": f"{type(error).__name__}: {error}"})
            return
        with self.server.lock:
            scores = self.server.model.score(conversations)
            self.server.num_scored += len(scores)
        self._reply(200, {"version": PROTOCOL_VERSION, "scores": scores})

    def _reply(self, status: int, message: dict):
        body = json.dumps(message).encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        """Silent: one line a request would bury the trainer's own output."""


def _check_info(reply: dict) -> None:
    """Raise `ValueError` unless the reply is a server's description of itself."""
    if not isinstance(reply, dict) or not {"version", "sees_images"} <= reply.keys():
        raise ValueError(f"a reply that no reward server gives: {str(reply)[:200]}")


def _check_scores(reply: dict, num_conversations: int) -> None:
    """Raise `ValueError` unless the reply has a finite score, or `None`, for each conversation."""
    scores = reply.get("scores") if isinstance(reply, dict) else None
    if not isinstance(scores, list) or len(scores) != num_conversations:
        raise ValueError(f"a reply without the {num_conversations} scores asked for: {str(reply)[:200]}")
    for score in scores:
        is_number = isinstance(score, int | float) and not isinstance(score, bool)
        if score is not None and not (is_number and math.isfinite(score)):
            raise ValueError(f"a score that is no finite number: {score!r}")


class HTTPRewardModel:
    r"""
    A [`RewardServer`] seen as a [`~trl_r1v2.rewards.reward_model.RewardModel`]: give it to
    [`~trl_r1v2.rewards.reward_model.RewardModelReward`].

    Args:
        url (`str`):
            Server, e.g. `"http://10.0.0.7:8000"`.
        batch_size (`int`, *optional*, defaults to `32`):
            Conversations in one request.
        timeout (`float`, *optional*, defaults to `600.0`):
            Seconds to wait for one reply.
        patience (`float`, *optional*, defaults to `120.0`):
            Seconds in which a server that is unreachable, fails, or answers something other than the scores asked for is
            asked again, with growing pauses, before `RuntimeError` ends the training: rewards that are silently missing would change what is trained.

    Raises:
        `RuntimeError`: If the server stays unreachable.
        `ValueError`: If it speaks another version of the protocol or refuses a request.
    """

    def __init__(self, url: str, batch_size: int = 32, timeout: float = 600.0, patience: float = 120.0):
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1.")
        self.url = url.rstrip("/")
        self.batch_size = batch_size
        self.timeout = timeout
        self.patience = patience
        info = self._ask("/info", None, _check_info)
        if info["version"] != PROTOCOL_VERSION:
            raise ValueError(f"{url} speaks protocol version {info['version']}, this client {PROTOCOL_VERSION}.")
        self.sees_images = info["sees_images"]

    def score(self, conversations: list[list[dict]]) -> list[float | None]:
        """Scores in order; see [`~trl_r1v2.rewards.reward_model.RewardModel.score`]."""
        scores: list[float | None] = []
        for start in range(0, len(conversations), self.batch_size):
            part = [encode_conversation(messages) for messages in conversations[start : start + self.batch_size]]
            request = {"version": PROTOCOL_VERSION, "conversations": part}
            scores += self._ask("/score", request, partial(_check_scores, num_conversations=len(part)))["scores"]
        return scores

    def _ask(self, path: str, message: dict | None, check: Callable[[dict], None]) -> dict:
        body = None if message is None else json.dumps(message).encode("utf-8")
        request = urllib.request.Request(self.url + path, data=body, headers={"Content-Type": "application/json"})
        end = time.monotonic() + self.patience
        pause = 0.5
        while True:
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as reply:
                    answer = json.loads(reply.read())
                check(answer)
                return answer
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    raise ValueError(f"{self.url}{path} refused: {error.read().decode('utf-8', 'replace')}") from error
                failure = error
            # a reply that is no JSON, or not the scores asked for, is a failing server too
            except (OSError, http.client.HTTPException, ValueError) as error:
                failure = error
            if time.monotonic() + pause > end:
                raise RuntimeError(
                    f"The reward model at {self.url} gave no usable answer for {self.patience:.0f} s ({failure}). Start it with "
                    "`trl-r1v2 serve-reward`, or resume from the last checkpoint when it is back."
                ) from failure
            time.sleep(pause)
            pause = min(2 * pause, 10.0)
