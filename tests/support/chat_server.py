# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""An OpenAI-style chat server in a thread, whose replies and misdeeds a test chooses."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


DROP = object()


class ChatServer(ThreadingHTTPServer):
    """
    Answers `POST /v1/chat/completions` with what `reply(request, number)` returns: a text, `(status, bytes)`, a
    message as a dict, or `DROP` for a connection that ends without an answer.
    """

    daemon_threads = True

    def __init__(self, reply: Callable):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.requests: list[dict] = []
        self.headers_seen: list[Message] = []
        self.lock = threading.Lock()
        self.at_once = self.most_at_once = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.requests.append(request)
            server.headers_seen.append(self.headers)
            number = len(server.requests) - 1
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            answer = server.reply(request, number) if self.path == "/v1/chat/completions" else (404, b"no such path")
        finally:
            with server.lock:
                server.at_once -= 1
        if answer is DROP:
            self.close_connection = True
            return
        status, body = answer if isinstance(answer, tuple) else (200, completion(answer))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(body)

    def log_message(self, format, *args):
        pass


def completion(answer: str | dict, finish_reason: str = "stop") -> bytes:
    message = {"role": "assistant", "content": answer} if isinstance(answer, str) else answer
    tokens = len(str(message["content"]).split())
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return json.dumps({"choices": [choice], "usage": {"completion_tokens": tokens}}).encode()


@contextlib.contextmanager
def serving(reply: Callable) -> Iterator[ChatServer]:
    with ChatServer(reply) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
