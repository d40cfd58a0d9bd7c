# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
A reward model as an HTTP server that speaks vLLM's pooling protocol, for `trl-r1v2 serve-reward`.

`POST /pooling` (also below `/v1`), `GET /v1/models`, `GET /health`. One thread scores; conversations that arrive together
become batches. Does not cover: encryption, several models, token counts (`usage` is left out).
"""

import contextlib
import hmac
import json
import logging
import math
import queue
import threading
import time
import uuid
from concurrent.futures import Future, InvalidStateError
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from jinja2 import TemplateError

from .reward_requests import RequestError, read_request


MAX_REQUEST_BYTES = 512 * 2**20
CLOSE_SECONDS = 5.0
_REPLY_SECONDS = 2.0
_PATHS = {"/pooling": "POST", "/v1/pooling": "POST", "/v1/models": "GET", "/health": "GET"}
logger = logging.getLogger(__name__)


class BatchScorer:
    """
    Scores conversations that many threads ask for, in batches, in a thread of its own.

    A batch that fails is scored again one by one, so that the error reaches only the conversation at fault.

    Args:
        model ([`~trl_r1v2.rewards.reward_model.RewardModel`]):
            The model.
        batch_size (`int`, *optional*, defaults to `8`):
            Most conversations at once.
        max_wait (`float`, *optional*, defaults to `0.005`):
            Seconds that the first conversation of a batch waits for others.
    """

    def __init__(self, model, batch_size: int = 8, max_wait: float = 0.005):
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1.")
        self.model, self.batch_size, self.max_wait = model, batch_size, max_wait
        self.num_scored = self.num_batches = 0
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self._closed = False
        self._open: set[Future] = set()  # not answered yet
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="scoring", daemon=True)
        self._thread.start()

    def score(self, conversation: list[dict]) -> float | None:
        """
        Score one conversation; returns when its batch is done.

        Raises:
            RequestError: The scorer is closed, or was before this conversation's turn (503).
            Exception: What the model raised for this conversation.
        """
        future: Future = Future()
        with self._lock:
            if self._closed:
                raise RequestError("the server is stopping.", 503)
            self._open.add(future)
            self._queue.put((conversation, future))
        try:
            return future.result()
        finally:
            with self._lock:
                self._open.discard(future)

    def close(self, timeout: float = CLOSE_SECONDS) -> bool:
        """
        Finish the conversations that have arrived, and stop.

        Args:
            timeout (`float`, *optional*, defaults to `5.0`):
                Seconds to wait. Whoever still waits then is told to ask again later; a batch that is being scored cannot
                be interrupted, and its scores go nowhere.

        Returns:
            `bool`: Whether all were finished.
        """
        with self._lock:
            self._closed = True
            self._queue.put(None)
        self._thread.join(timeout)
        with self._lock:
            for future in self._open:
                _answer(future, RequestError("the server is stopping.", 503))
        return not self._thread.is_alive()

    def _work(self):
        last = False
        while not last:
            batch, last = self._next_batch()
            if batch:
                self._score(batch)

    def _next_batch(self) -> tuple[list[tuple[list[dict], Future]], bool]:
        """The next conversations, and whether they are the last."""
        batch = []
        end = math.inf
        while len(batch) < self.batch_size:
            try:
                entry = self._queue.get(timeout=max(end - time.monotonic(), 0.0) if batch else None)
            except queue.Empty:
                break
            if entry is None:
                return batch, True
            if not batch:
                end = time.monotonic() + self.max_wait
            batch.append(entry)
        return batch, False

    def _score(self, batch: list[tuple[list[dict], Future]]):
        self.num_batches += 1
        try:
            scores = self.model.score([conversation for conversation, _ in batch])
            scored = list(zip(batch, scores, strict=True))
        except Exception as error:  # whatever the model raises is the request's answer; the server lives on
            if len(batch) == 1:
                _answer(batch[0][1], error)
                return
            scored = None
        if scored is None:  # not above: while an error is handled, it holds the memory of the batch
            for entry in batch:
                self._score([entry])
            return
        self.num_scored += len(batch)
        for (_, future), score in scored:
            _answer(future, score)


def _answer(future: Future, answer: float | Exception | None):
    """Give an answer, or an error, unless there is one already."""
    with contextlib.suppress(InvalidStateError):
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)


class RewardServer(ThreadingHTTPServer):
    r"""
    Serves a reward model.

    Args:
        model ([`~trl_r1v2.rewards.reward_model.RewardModel`]):
            The model.
        host (`str`, *optional*, defaults to `"127.0.0.1"`), port (`int`, *optional*, defaults to `8000`):
            Address; port 0 takes a free one (`server_port`).
        batch_size (`int`, *optional*, defaults to `8`):
            Most conversations in one batch.
        name (`str`, *optional*, defaults to `"reward"`):
            Name of the model, which requests have to give if they give one.
        api_key (`str`, *optional*):
            Key that requests have to bear (`Authorization: Bearer …`), all but `/health`.
    """

    daemon_threads = True
    request_queue_size = 1024  # connections that wait to be accepted: many processes ask at the same time

    def __init__(
        self,
        model,
        host: str = "127.0.0.1",
        port: int = 8000,
        batch_size: int = 8,
        name: str = "reward",
        api_key: str | None = None,
    ):
        self.model, self.name, self.api_key = model, name, api_key
        self.created = int(time.time())
        self.scorer = BatchScorer(model, batch_size)
        self.under_way, self.replied = 0, threading.Condition()
        self.is_idle = True  # false: closed while a batch was still being scored
        super().__init__((host, port), _Handler)  # closes itself where the address is taken

    @property
    def num_scored(self) -> int:
        """Conversations scored so far."""
        return self.scorer.num_scored

    def server_close(self):
        """Stop listening; what has arrived is scored, as far as that takes no more than 5 seconds."""
        super().server_close()
        self.is_idle = self.scorer.close()
        with self.replied:  # the threads that write the replies end with the process
            self.replied.wait_for(lambda: self.under_way == 0, _REPLY_SECONDS)

    def answer(self, body: bytes) -> dict:
        """
        The reply to `POST /pooling`.

        Raises:
            RequestError: The request is not served.
        """
        conversation = read_request(body, self.name, self.model.sees_images)
        try:
            score = self.scorer.score(conversation)
        except RequestError:
            raise
        except (ValueError, TemplateError) as error:  # the processor or the chat template refuses the conversation
            raise RequestError(f"the model cannot take the conversation: {error}") from error
        except Exception as error:  # answered and logged: the server lives on
            logger.exception("scoring failed")
            raise RequestError(f"{type(error).__name__}: {error}", 500) from error
        if score is None:
            text = "the conversation has more tokens than are scored (`max_tokens`)."
            raise RequestError(text, code="context_length_exceeded")
        if not math.isfinite(score):
            raise RequestError(f"the model's score is {score}, no finite number.", 500)
        return {
            "id": f"pool-{uuid.uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": self.name,
            "data": [{"index": 0, "object": "pooling", "data": [score]}],
        }


class _Handler(BaseHTTPRequestHandler):
    server: RewardServer
    timeout = 60.0  # of one read or write: a client that falls silent holds no thread

    def do_GET(self):
        self._serve("GET")

    def do_POST(self):
        self._serve("POST")

    def _serve(self, method: str):
        with self.server.replied:
            self.server.under_way += 1
        try:
            self._serve_one(method)
        finally:
            with self.server.replied:
                self.server.under_way -= 1
                self.server.replied.notify_all()

    def _serve_one(self, method: str):
        try:
            reply = self._answer(method, self.path.partition("?")[0])
        except RequestError as error:
            kind = {401: "AuthenticationError", 404: "NotFoundError"}.get(error.status, "BadRequestError")
            kind = "InternalServerError" if error.status >= 500 else kind
            self._reply(error.status, {"error": {"message": str(error), "type": kind, "code": error.code}})
        except ConnectionError:  # the client has gone
            self.close_connection = True
        else:
            self._reply(200, reply)

    def _answer(self, method: str, path: str) -> dict:
        has_key = self._has_key()
        body = self._read_body(keep=has_key)
        if _PATHS.get(path) != method:
            known = ", ".join(f"{verb} {known}" for known, verb in _PATHS.items())
            raise RequestError(f"no {method} {path} here; there are {known}.", 405 if path in _PATHS else 404)
        if path == "/health":
            return {}
        if not has_key:
            raise RequestError("the request bears no valid key: send it as `Authorization: Bearer …`.", 401)
        if path == "/v1/models":
            server = self.server
            entry = {"id": server.name, "object": "model", "created": server.created, "owned_by": "trl_r1v2"}
            return {"object": "list", "data": [entry]}
        return self.server.answer(body)

    def _read_body(self, keep: bool) -> bytes:
        """The body; what is not kept is read all the same, so that its sender sees the answer."""
        text = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not text.isdecimal():
            raise RequestError("the request does not give its Content-Length.", 411)
        if len(text) > 15:  # petabytes: nothing that could be waited for
            raise RequestError(f"the request has a Content-Length of {len(text)} digits.", 413)
        size = int(text)
        if keep and size <= MAX_REQUEST_BYTES:
            return self.rfile.read(size)
        left = size
        while left > 0 and (block := self.rfile.read(min(left, 2**20))):
            left -= len(block)
        if keep:
            raise RequestError(f"the request has {size} bytes; at most {MAX_REQUEST_BYTES} are taken.", 413)
        return b""

    def _has_key(self) -> bool:
        key = self.server.api_key
        given = self.headers.get("Authorization", "")
        return key is None or hmac.compare_digest(given.encode("utf-8"), f"Bearer {key}".encode())

    def _reply(self, status: int, message: dict):
        body = json.dumps(message).encode("utf-8")
        with contextlib.suppress(ConnectionError, TimeoutError):  # a client that has gone asks again by itself
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format, *args):
        """Silent: one line a request would bury what matters."""
