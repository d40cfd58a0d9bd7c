# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The process behind [`~trl_r1v2.rewards.verifier.VerifierPool`]: reads (gold, answer) pairs, asks math-verify, writes
verdicts.

Scope: run as a script, imports math-verify and the standard library only (no torch, no trl). Frames are a 4-byte
big-endian length and UTF-8 JSON, on the standard input and output it was started with. Not covered: scheduling,
restarts and deadlines of a batch; those are the pool's.

It dies with its parent: idle, it reads the end of its input; busy, a kernel timer with the default action ends it even
while C code holds the interpreter.
"""

import json
import logging
import os
import resource
import signal
import struct
import sys


def read_exactly(stream, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def read_frame(stream) -> dict:
    (size,) = struct.unpack(">I", read_exactly(stream, 4))
    return json.loads(read_exactly(stream, size).decode("utf-8"))


def write_frame(stream, message: dict):
    body = json.dumps(message).encode("utf-8")
    stream.write(struct.pack(">I", len(body)) + body)
    stream.flush()


def judge(gold: str, answer: str) -> str:
    """`"right"`, `"wrong"`, or `"gold"` where the gold answer is no mathematics that math-verify can read."""
    from math_verify import parse, verify
    from sympy import Basic, MatrixBase

    golds = [item for item in parse(gold, parsing_timeout=None) if isinstance(item, (Basic, MatrixBase))]
    if not golds:
        return "gold"
    answers = parse(answer, parsing_timeout=None)
    for gold_item in golds:
        for answer_item in answers:
            try:
                if verify(gold_item, answer_item, timeout_seconds=None, raise_on_error=True):
                    return "right"
            except MemoryError:
                raise
            except (
                Exception
            ):  # sympy raises every kind of error on odd input; math-verify itself counts these as unequal
                continue
    return "wrong"


def main(memory_bytes: int):
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)  # a library that prints must not write into the protocol
    logging.disable(logging.CRITICAL)
    judge("$1$", "$1$")  # builds math-verify's regular expressions before the first deadline runs
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to the trainer, which closes the pipe
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    write_frame(replies, {"ready": os.getpid()})
    os.dup2(null, 2)
    while True:
        try:
            request = read_frame(requests)
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, request["seconds"])
        try:
            verdict = judge(request["gold"], request["answer"])
        except MemoryError:
            verdict = "memory"
        signal.setitimer(signal.ITIMER_REAL, 0)
        write_frame(replies, {"id": request["id"], "verdict": verdict})


if __name__ == "__main__":
    main(int(sys.argv[1]))
