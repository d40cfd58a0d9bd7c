# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The program that runs inside a sandbox of [`~trl_r1v2.rewards.sandbox.Sandbox`]; standard library only.

Scope: sets its own resource limits, then, by its first argument: `program` runs a solution on its standard input;
`serve` runs a solution and answers calls to what it defines; `test` runs test code whose free names are proxies of
such a server in another sandbox, and writes one verdict for each test. Values cross between the two as plain data, so
that code of a solution never runs beside a test, and a solution can only choose what its calls return.

Does not cover: isolation (bubblewrap's), time (the caller's), comparing the output of programs (the caller's).
"""

import builtins
import collections.abc
import json
import os
import resource
import struct
import sys
import types


SOLUTION, TESTS = "/code/solution.py", "/code/tests.json"
MAX_FRAME = 64 * 2**20


def limit(limits: dict):
    for name, value in limits.items():
        resource.setrlimit(vars(resource)[name], (value, value))


def send(stream, message):
    body = json.dumps(message).encode("utf-8")
    stream.write(struct.pack(">I", len(body)) + body)
    stream.flush()


def receive(stream):
    header = stream.read(4)
    if len(header) < 4:
        raise EOFError("the solution's process has ended")
    (size,) = struct.unpack(">I", header)
    if size > MAX_FRAME:
        raise ValueError(f"a message of {size} bytes is too long")
    body = stream.read(size)
    if len(body) < size:
        raise EOFError("the solution's process has ended")
    return json.loads(body)


def encode(value, remember):
    """Plain data as tagged JSON; anything else as a reference from `remember`."""
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, bytes):
        return ["b", value.hex()]
    if isinstance(value, complex):
        return ["c", value.real, value.imag]
    if isinstance(value, dict):
        return ["d", [[encode(key, remember), encode(item, remember)] for key, item in value.items()]]
    for tag, kind in (("l", list), ("t", tuple), ("s", set), ("f", frozenset), ("i", collections.abc.Iterator)):
        if isinstance(value, kind):
            return [tag, [encode(item, remember) for item in value]]
    if isinstance(value, range):
        return ["r", [value.start, value.stop, value.step]]
    return ["o", remember(value)]


def decode(value, resolve):
    """Inverse of [`encode`]; builds builtins only."""
    if not isinstance(value, list):
        return value
    tag, content = value[0], value[1]
    if tag == "b":
        return bytes.fromhex(content)
    if tag == "c":
        return complex(content, value[2])
    if tag == "d":
        return {decode(key, resolve): decode(item, resolve) for key, item in content}
    if tag == "r":
        return range(*content)
    if tag == "o":
        return resolve(content)
    items = [decode(item, resolve) for item in content]
    return {"l": list, "t": tuple, "s": set, "f": frozenset, "i": iter}[tag](items)


def private_streams():
    """This process's standard input and output under new descriptors; the old ones lead nowhere."""
    streams = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    return streams


def solution_namespace(name: str) -> dict:
    """Runs the solution as a registered module, as dataclasses and pickling expect."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    with open(SOLUTION, encoding="utf-8") as file:
        exec(compile(file.read(), "solution.py", "exec"), vars(module))
    return vars(module)


def serve():
    requests, replies = private_streams()
    namespace = solution_namespace("solution")
    objects = []

    def remember(value):
        objects.append(value)
        return len(objects) - 1

    def answer(request):
        target = namespace[request["of"]] if isinstance(request["of"], str) else objects[request["of"]]
        if request["op"] == "get":
            return {"value": encode(getattr(target, request["name"]), remember)}
        arguments = decode(request["args"], objects.__getitem__)
        value = target(*arguments[0], **arguments[1])
        return {"value": encode(value, remember), "args": encode(arguments[0], remember)}

    while True:
        request = receive(requests)
        try:
            reply = answer(request)
        except Exception as error:
            reply = {"error": type(error).__name__, "text": str(error)[:1000]}
        send(replies, reply)


class SolutionError(Exception):
    """The solution raised an exception that is not a builtin one."""


class Channel:
    """Calls into the solution's sandbox."""

    def __init__(self, reading: int, writing: int):
        self.reading, self.writing = os.fdopen(reading, "rb"), os.fdopen(writing, "wb")

    def ask(self, request):
        send(self.writing, request)
        reply = receive(self.reading)
        if "error" in reply:
            kind = vars(builtins).get(reply["error"])
            known = isinstance(kind, type) and issubclass(kind, Exception)
            raise (kind if known and not issubclass(kind, UnicodeError) else SolutionError)(reply["text"])
        return reply


class Remote:
    """
    A function, class or object of the solution. Compares by identity: no code of the solution decides an equality.
    """

    def __init__(self, channel, of):
        self._channel, self._of = channel, of

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(f"{name} of an object of the solution is out of reach")
        return self._decode(self._channel.ask({"op": "get", "of": self._of, "name": name})["value"])

    def __call__(self, *args, **kwargs):
        encoded = encode((args, kwargs), self._reference)
        reply = self._channel.ask({"op": "call", "of": self._of, "args": encoded})
        for argument, after in zip(args, self._decode(reply["args"]), strict=True):
            if isinstance(argument, list):
                argument[:] = after
            elif isinstance(argument, (dict, set)) and argument != after:
                argument.clear()
                argument.update(after)
        return self._decode(reply["value"])

    @staticmethod
    def _reference(value):
        if isinstance(value, Remote) and isinstance(value._of, int):
            return value._of
        raise TypeError(f"a {type(value).__name__} cannot be passed to a solution")

    def _decode(self, value):
        return decode(value, lambda of: Remote(self._channel, of))


def test(reading: int, writing: int):
    _, verdicts = private_streams()
    channel = Channel(reading, writing)
    with open(TESTS, encoding="utf-8") as file:
        job = json.load(file)
    for index, source in enumerate(job["tests"]):
        namespace = {"__name__": "tests", **{name: Remote(channel, name) for name in job["names"]}}
        try:
            exec(compile(source, f"test {index}", "exec"), namespace)
            passed = True
        except (Exception, SystemExit):
            passed = False
        send(verdicts, {"test": index, "passed": passed})


def main():
    mode, limits, *descriptors = sys.argv[1:]
    limit(json.loads(limits))
    sys.argv = ["solution.py"]
    if mode == "program":
        solution_namespace("__main__")
    elif mode == "serve":
        serve()
    else:
        test(*map(int, descriptors))


if __name__ == "__main__":
    main()
