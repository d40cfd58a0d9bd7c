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


def in_units_of_the_larger(gold, answer):
    """
    Two small decimals as multiples of the larger: math-verify rounds to six decimals, and by that 9.11e-31 is 6.63e-34.
    Anything else unchanged.
    """
    from sympy import Expr, Float

    pair = (gold, answer)
    if not all(isinstance(item, Expr) and item.is_number for item in pair) or not any(i.has(Float) for i in pair):
        return pair
    size = max(abs(item.evalf()) for item in pair)
    return (gold / size, answer / size) if 0 < size < 1e-3 else pair


def expressions(text: str) -> list:
    """
    What math-verify reads in a text. It hides every error and then finds nothing: so that a passing one is not taken for a
    wrong answer, what was not read is tried once more.
    """
    from math_verify import parse
    from sympy import Basic, MatrixBase

    for _ in range(2):
        found = [item for item in parse(text, parsing_timeout=None) if isinstance(item, (Basic, MatrixBase))]
        if found:
            break
    return found


def judge(gold: str, answer: str) -> str:
    """`"right"`, `"wrong"`, or `"gold"` where the gold answer is no mathematics that math-verify can read."""
    from math_verify import verify

    golds, answers = expressions(gold), expressions(answer)
    if not golds:
        return "gold"
    for gold_item in golds:
        for answer_item in answers:
            try:
                pair = in_units_of_the_larger(gold_item, answer_item)
                if verify(*pair, timeout_seconds=None, raise_on_error=True):
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
    # Before the first deadline runs: builds math-verify's regular expressions and the parser of boxed expressions.
    judge("$x+1$", r"\boxed{1+x}")
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
