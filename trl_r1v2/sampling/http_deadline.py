# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
One HTTP request whose whole reply has a deadline and a largest size.

The timeout of a socket counts for each read alone: a reply of one byte now and then would never end. Here a timer ends the
connection. Standard library only; proxies, redirects and TLS are those of `urllib.request`. Does not cover: asking again
(`http_client.py`); looking up the server's name, whose time is the system's.
"""

import contextvars
import http.client
import socket
import threading
import urllib.error
import urllib.request
from email.message import Message


MAX_REPLY_BYTES = 64 * 2**20
_BLOCK_BYTES = 2**16


class ReplyTooLarge(OSError):
    """A reply of more than `MAX_REPLY_BYTES`."""


class _Deadline:
    """Ends the connections made within it once its seconds are over, from a thread of its own."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.is_over = False
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> "_Deadline":
        self._token = _current.set(self)
        self._timer.start()
        return self

    def __exit__(self, *error):
        self._timer.cancel()
        _current.reset(self._token)

    def watch(self, connection: socket.socket):
        with self._lock:
            self._sockets.append(connection)
            if self.is_over:
                _shut(connection)

    def _end(self):
        with self._lock:
            self.is_over = True
            for connection in self._sockets:
                _shut(connection)


_current: contextvars.ContextVar[_Deadline] = contextvars.ContextVar("deadline")


def _shut(connection: socket.socket):
    """Wake whoever reads or writes. The method of plain sockets: that of TLS would end the session in another thread."""
    try:
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        return  # it is closed already


class _Connection(http.client.HTTPConnection):
    def connect(self):
        super().connect()
        _current.get().watch(self.sock)


class _SecureConnection(http.client.HTTPSConnection):
    def connect(self):
        super().connect()
        _current.get().watch(self.sock)


class _Handler(urllib.request.HTTPHandler):
    def http_open(self, req):
        return self.do_open(_Connection, req)


class _SecureHandler(urllib.request.HTTPSHandler):
    def https_open(self, req):
        return self.do_open(_SecureConnection, req)


def exchange(request: urllib.request.Request, timeout: float) -> tuple[int, Message, bytes]:
    """
    Send a request and read its reply.

    Args:
        request (`urllib.request.Request`):
            The request.
        timeout (`float`):
            Seconds from connecting to the last byte of the reply.

    Returns:
        `tuple[int, Message, bytes]`: Status, headers and body. The body of an error is empty where the connection ends
            before it does.

    Raises:
        TimeoutError: The reply was not there in time.
        ReplyTooLarge: It has more than 64 MiB.
        OSError, http.client.HTTPException: The server is out of reach, or what it sends is no whole reply.
    """
    opener = urllib.request.build_opener(_Handler, _SecureHandler)
    with _Deadline(timeout) as deadline:
        try:
            with opener.open(request, timeout=timeout) as reply:
                found = reply.status, reply.headers, _read(reply)
        except urllib.error.HTTPError as error:
            with error:
                found = error.code, error.headers, _read_error(error)
        except ReplyTooLarge:
            raise
        except (OSError, http.client.HTTPException) as error:
            if not (deadline.is_over or isinstance(error, TimeoutError)):  # the socket's may come before the timer's
                raise
            raise TimeoutError(f"no whole reply within {timeout:g} s") from error
        if deadline.is_over:  # a reply without a length ends where the connection does
            raise TimeoutError(f"no whole reply within {timeout:g} s")
        return found


def _read(reply: http.client.HTTPResponse) -> bytes:
    blocks, size = [], 0
    while block := reply.read(_BLOCK_BYTES):
        blocks.append(block)
        size += len(block)
        if size > MAX_REPLY_BYTES:
            raise ReplyTooLarge(f"the reply has more than {MAX_REPLY_BYTES} bytes")
    body = b"".join(blocks)
    if reply.length:
        raise http.client.IncompleteRead(body, reply.length)
    return body


def _read_error(error: urllib.error.HTTPError) -> bytes:
    try:
        return error.read(_BLOCK_BYTES)
    except (OSError, http.client.HTTPException):
        return b""
