# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The program that runs inside a sandbox of [`~trl_r1v2.rewards.code.sandbox.Sandbox`]; standard library only.

Scope: sets its own resource limits, then, by its first argument: `program` runs a solution on its standard input;
`serve` runs a solution and answers calls to what it defines; `test` runs test code whose free names are proxies of
such a server in another sandbox, and writes one verdict for each test. Values cross between the two as plain data, so
that a solution can only choose what its calls return, raise and leave in their arguments. Does not cover: isolation
(bubblewrap's), time and the comparison of programs' output (the caller's).
"""

import builtins
import collections
import collections.abc
import importlib
import json
import math
import os
import resource
import site
import struct
import sys
import types


SOLUTION, TESTS = "/code/solution.py", "/code/tests.json"
MAX_FRAME = 64 * 2**20
# Exceptions that do not cross from the solution: what ends loops, and what needs more than a text.
NOT_RAISED = ("StopIteration", "StopAsyncIteration", "ExceptionGroup")
COLLECTIONS = {"l": list, "t": tuple, "s": set, "f": frozenset, "i": collections.abc.Iterator}
NUMBERS = {"F": ("fractions", "Fraction"), "D": ("decimal", "Decimal")}


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
    if isinstance(value, int):
        return int(value) if abs(value) < 2**63 else ["n", hex(value)]
    if isinstance(value, (float, str)):
        return float(value) if isinstance(value, float) else str(value)
    if isinstance(value, bytes):
        return ["b", value.hex()]
    if isinstance(value, complex):
        return ["c", value.real, value.imag]
    if isinstance(value, dict):
        return ["d", [[encode(key, remember), encode(item, remember)] for key, item in value.items()]]
    if isinstance(value, collections.deque):
        return ["q", [encode(item, remember) for item in value], value.maxlen]
    for tag, kind in COLLECTIONS.items():
        if isinstance(value, kind):
            return [tag, [encode(item, remember) for item in value]]
    if isinstance(value, range):
        return ["r", [value.start, value.stop, value.step]]
    for tag, (module, name) in NUMBERS.items():  # none exists unless its module was imported
        if module in sys.modules and isinstance(value, vars(sys.modules[module])[name]):
            return [tag, str(value)]
    return ["o", remember(value)]


def decode(value, resolve):
    """Inverse of [`encode`]; builds builtins, deques, fractions and decimals only."""
    if not isinstance(value, list):
        return value
    tag, content = value[0], value[1]
    if tag == "n":
        return int(content, 16)
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
    if tag in NUMBERS:
        module, name = NUMBERS[tag]
        return vars(importlib.import_module(module))[name](content)
    items = [decode(item, resolve) for item in content]
    if tag == "q":
        return collections.deque(items, value[2])
    return (iter if tag == "i" else COLLECTIONS[tag])(items)


def is_close(result, wanted):
    """Equal, floats to six digits, a tuple to the list that JSON makes of it, also inside of lists and dicts."""
    if isinstance(wanted, float) and isinstance(result, (int, float)) and not isinstance(result, bool):
        return math.isclose(result, wanted, rel_tol=1e-6, abs_tol=1e-6) or result == wanted
    if isinstance(wanted, (list, tuple)) and isinstance(result, (list, tuple)):
        return len(result) == len(wanted) and all(map(is_close, result, wanted))
    if isinstance(wanted, dict) and isinstance(result, dict):
        return result.keys() == wanted.keys() and all(is_close(result[key], wanted[key]) for key in wanted)
    return result == wanted


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
    objects, indices = [], {}

    def remember(value):
        if id(value) not in indices:
            indices[id(value)] = len(objects)
            objects.append(value)  # alive from here on, so that its id stays its own
        return indices[id(value)]

    def resolve(of):
        if not isinstance(of, str):
            return objects[of]
        if of not in namespace and of != "Solution" and "Solution" in namespace:  # LeetCode's form
            return getattr(namespace["Solution"](), of)
        return namespace[of]

    def answer(request):
        target = resolve(request["of"])
        if request["op"] == "get":
            return {"value": encode(getattr(target, request["name"]), remember)}
        arguments = decode(request["args"], resolve)
        if request["op"] == "set":
            setattr(target, request["name"], arguments)
            return {}
        value = target(*arguments[0], **arguments[1])
        return {"value": encode(value, remember), "args": encode(arguments[0], remember)}

    while True:
        request = receive(requests)
        try:
            reply = answer(request)
        except BaseException as error:  # a solution that exits fails one call
            reply = {"error": type(error).__name__, "text": str(error)[:1000]}
        send(replies, reply)


class SolutionError(Exception):
    """
    The solution ended, or raised an exception that is not a builtin one or that steers the caller's loops and
    generators: as in PEP 479, running out of items is what the caller's own iterators say.
    """


class Channel:
    """Calls into the solution's sandbox."""

    def __init__(self, reading: int, writing: int):
        self.reading, self.writing = os.fdopen(reading, "rb"), os.fdopen(writing, "wb")
        self.remotes = {}

    def ask(self, op: str, of, **request):
        try:
            send(self.writing, {"op": op, "of": of, **request})
            reply = receive(self.reading)
        except (EOFError, BrokenPipeError) as error:
            raise SolutionError(str(error)) from error
        if "error" in reply:
            kind = vars(builtins).get(reply["error"])
            known = isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UnicodeError)
            raise (kind if known and reply["error"] not in NOT_RAISED else SolutionError)(reply["text"])
        return reply

    def remote(self, of):
        """The one proxy of an object, so that identity there is identity here."""
        if of not in self.remotes:
            self.remotes[of] = Remote(self, of)
        return self.remotes[of]

    def encode(self, value):
        return encode(value, reference)

    def decode(self, value):
        return decode(value, self.remote)


class Remote:
    """
    A function, class or object of the solution. Compares by identity: no code of the solution decides an equality.
    """

    __slots__ = ("__channel", "__of")

    def __init__(self, channel, of):
        object.__setattr__(self, "_Remote__channel", channel)
        object.__setattr__(self, "_Remote__of", of)

    def __getattr__(self, name):
        refuse_special(name)
        return self.__channel.decode(self.__channel.ask("get", self.__of, name=name)["value"])

    def __setattr__(self, name, value):
        refuse_special(name)
        self.__channel.ask("set", self.__of, name=name, args=self.__channel.encode(value))

    def __call__(self, *args, **kwargs):
        reply = self.__channel.ask("call", self.__of, args=self.__channel.encode((args, kwargs)))
        for argument, after in zip(args, self.__channel.decode(reply["args"]), strict=True):
            if isinstance(argument, list):
                argument[:] = after
            elif isinstance(argument, collections.deque):
                argument.clear()
                argument.extend(after)
            elif isinstance(argument, (dict, set)) and argument != after:
                argument.clear()
                argument.update(after)
        return self.__channel.decode(reply["value"])


def refuse_special(name):
    if name.startswith("__"):
        raise AttributeError(f"{name} of an object of the solution is out of reach")


def reference(value):
    if isinstance(value, Remote):
        return object.__getattribute__(value, "_Remote__of")
    raise TypeError(f"a {type(value).__name__} cannot be passed to a solution")


def run_test(test, channel, names):
    """Test code, or a call with the result it must have; raises unless it passes."""
    namespace = {"__name__": "tests", **{name: channel.remote(name) for name in names}}
    if isinstance(test, str):
        exec(compile(test, "test", "exec"), namespace)
        return
    result = eval(test["call"], namespace)(*channel.decode(test["args"]))
    assert any(is_close(result, wanted) for wanted in channel.decode(test["wanted"]))


def test(reading: int, writing: int):
    _, verdicts = private_streams()
    channel = Channel(reading, writing)
    solution = types.ModuleType("solution")  # `from solution import f`

    def attribute(name):
        refuse_special(name)
        return channel.remote(name)

    solution.__getattr__ = attribute
    sys.modules["solution"] = solution
    with open(TESTS, encoding="utf-8") as file:
        job = json.load(file)
    for index, source in enumerate(job["tests"]):
        try:
            run_test(source, channel, job["names"])
            passed = True
        except (Exception, SystemExit):
            passed = False
        send(verdicts, {"test": index, "passed": passed})


def main():
    mode, limits, *descriptors = sys.argv[1:]
    limit(json.loads(limits))
    sys.argv = ["solution.py"]
    sys.set_int_max_str_digits(0)  # time and memory have bounds of their own
    site.setquit()  # `exit`, `quit` and `help`, which Python defines unless it is started with -S
    site.sethelper()
    if mode == "program":
        solution_namespace("__main__")
    elif mode == "serve":
        serve()
    else:
        test(*map(int, descriptors))


if __name__ == "__main__":
    main()
