# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""A server in vLLM's pooling protocol in a thread, whose replies and misdeeds a test chooses."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


DROP, TRUNCATE = object(), object()


class PoolingServer(ThreadingHTTPServer):
    """
    Answers `POST /pooling` with what `reply(request, number)` returns: data of a result, `(status, body)`, `(status,
    body, headers)`, `DROP` for a connection that ends without an answer, or `TRUNCATE` for one that ends within it.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, reply: Callable, models: tuple[str, ...] = ("served",)):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.models = models
        self.requests: list[dict] = []
        self.headers_seen: list[dict] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: PoolingServer

    def do_GET(self):
        assert self.path == "/v1/models"
        entries = [{"id": name, "object": "model", "created": 1, "owned_by": "vllm"} for name in self.server.models]
        self.answer(200, json.dumps({"object": "list", "data": entries}).encode())

    def do_POST(self):
        assert self.path == "/pooling"
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.requests)
            self.server.requests.append(request)
            self.server.headers_seen.append(dict(self.headers))
        answer = self.server.reply(request, number)
        if answer is DROP:
            self.close_connection = True
        elif answer is TRUNCATE:
            body = pooled([1.25])
            self.answer(200, body[: len(body) // 2], {"Content-Length": str(len(body))})
        elif isinstance(answer, tuple):
            self.answer(*answer)
        else:
            self.answer(200, pooled(answer))

    def answer(self, status: int, body: bytes, headers: dict | None = None):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format, *args):
        pass


def pooled(data) -> bytes:
    """vLLM's reply to one conversation."""
    reply = {
        "id": "pool-0123456789abcdef",
        "object": "list",
        "created": 1763800000,
        "model": "served",
        "data": [{"index": 0, "object": "pooling", "data": data}],
        "usage": {"prompt_tokens": 5, "total_tokens": 5, "completion_tokens": 0, "prompt_tokens_details": None},
    }
    return json.dumps(reply).encode()


def refusal(message: str, code=400, **more) -> bytes:
    """vLLM's error."""
    return json.dumps(
        {"error": {"message": message, "type": "BadRequestError", "param": None, "code": code, **more}}
    ).encode()


@contextlib.contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[ThreadingHTTPServer]:
    """The server, in a thread."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def reward_serving(model, **options) -> Iterator:
    """A [`RewardServer`] of the model on a free port, in a thread."""
    from trl_r1v2.rewards.reward_server import RewardServer

    server = RewardServer(model, port=0, **options)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join()
