# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""A reply has a deadline as a whole and a largest size."""

import contextlib
import http.server
import socket
import threading

import pytest

from trl_r1v2.sampling import http_client, http_deadline


@pytest.mark.parametrize("part", ["head", "body", "body of no length"])
def test_a_reply_that_comes_byte_by_byte_ends_at_the_deadline(part):
    """Each byte comes well within the timeout; the whole reply does not."""
    stop = threading.Event()
    whole = b'{"data": [{"data": [1.0]}]}'
    start = b"HTTP/1.0 200 OK\r\n"
    heads = {
        "head": b"",
        "body": start + b"Content-Length: 9999\r\n\r\n",
        "body of no length": start + b"\r\n" + whole,
    }

    def drip(listener):
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(heads[part])
            while not stop.wait(0.05):
                connection.sendall(b" " if part.startswith("body") else b"H")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        try:
            client = http_client.HTTPClient(timeout=0.5, patience=0.0)
            with pytest.raises(http_client.NoReply, match="no whole reply within 0.5 s"):
                client.ask(f"http://127.0.0.1:{listener.getsockname()[1]}", None, bytes)
        finally:
            stop.set()
            thread.join()


class Large(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        size = int(self.path[1:])
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(b" " * size)

    def log_message(self, format, *args):
        pass


def test_a_reply_that_is_too_large_is_none(monkeypatch):
    monkeypatch.setattr(http_deadline, "MAX_REPLY_BYTES", 100_000)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Large) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        client = http_client.HTTPClient(patience=0.0)
        try:
            assert client.ask(f"http://127.0.0.1:{server.server_port}/100000", None, len) == 100_000
            with pytest.raises(http_client.NoReply, match="the reply has more than 100000 bytes"):
                client.ask(f"http://127.0.0.1:{server.server_port}/100001", None, len)
        finally:
            server.shutdown()
            thread.join()
