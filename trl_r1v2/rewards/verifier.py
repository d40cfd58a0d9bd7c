# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
math-verify in persistent processes that can be killed.

Scope: sympy can run for hours or take all memory on one answer, and math-verify's own timeout (`signal.alarm`) neither
works outside the main thread nor interrupts C code. Here every pair is judged in a worker process with a deadline and
a memory limit; what exceeds them is killed, counted and reported as unknown, never as wrong. Memory is watched from
outside, because sympy swallows `MemoryError` and would go on to say "not equal"; `RLIMIT_AS` at twice the limit is the
backstop for one sudden large allocation.

Does not cover: finding the answer in a completion (`answers.py`), rewards (`rules.py`), systems without `/proc` (Linux
only).
"""

import atexit
import contextlib
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


_WORKER_SCRIPT = Path(__file__).with_name("verifier_worker.py")
_START_SECONDS = 120.0
_MOST_FAILED_STARTS = 3
_SELF_DESTRUCT_FACTOR = 2.0
_WATCH_SECONDS = 0.05
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Outcome:
    """
    What became of one pair.

    Args:
        verdict (`bool` or `None`):
            Whether the answer equals the gold; `None` if that is not known.
        reason (`str`):
            `"verified"`, `"gold"` (no mathematics in the gold), `"timeout"`, `"memory"`, `"crash"` or `"skipped"` (the
            batch ran out of time).
    """

    verdict: bool | None
    reason: str


class _Worker:
    """One process, its pipes, and the pair it is working on."""

    def __init__(self, memory_bytes: int):
        # -P: the script's own folder must not shadow library modules.
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER_SCRIPT), str(2 * memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.started = time.monotonic()
        self.ready = False
        self.item: int | None = None
        self.deadline = self.started + _START_SECONDS
        self.num_judged = 0
        self._received = b""

    def send(self, item: int, gold: str, answer: str, seconds: float):
        body = json.dumps(
            {"id": item, "gold": gold, "answer": answer, "seconds": seconds * _SELF_DESTRUCT_FACTOR}
        ).encode("utf-8")
        self.item, self.deadline = item, time.monotonic() + seconds
        self.process.stdin.write(struct.pack(">I", len(body)) + body)
        self.process.stdin.flush()

    def receive(self) -> dict | None:
        """The next complete message, `None` if it is not there yet. Raises `EOFError` if the process is gone."""
        chunk = os.read(self.process.stdout.fileno(), 65536)
        if not chunk:
            raise EOFError
        self._received += chunk
        if len(self._received) < 4:
            return None
        (size,) = struct.unpack(">I", self._received[:4])
        if len(self._received) < 4 + size:
            return None
        body, self._received = self._received[4 : 4 + size], self._received[4 + size :]
        return json.loads(body.decode("utf-8"))

    def resident_bytes(self) -> int:
        # A killed process that is not yet reaped still has the file, with zeros.
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * _PAGE_BYTES

    def kill(self) -> str:
        """End the process and return what it wrote to its standard error before it was ready."""
        self.process.kill()
        error = self.process.stderr.read().decode("utf-8", "replace")
        self.process.wait()
        self.close_pipes()
        return error

    def close_pipes(self):
        with contextlib.suppress(BrokenPipeError):  # a frame that a dead worker never read may still sit in the buffer
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.stderr.close()


class VerifierPool:
    r"""
    Judges (gold, answer) pairs with math-verify in killable worker processes.

    Workers start at the first use, stay, and are replaced when they exceed a limit. Safe to call from any thread (one
    batch at a time) and in forked children (which start workers of their own).

    Args:
        num_workers (`int`, *optional*):
            Processes. Defaults to the CPUs of this process divided by `LOCAL_WORLD_SIZE`, at most 8.
        timeout (`float`, *optional*, defaults to `5.0`):
            Seconds for one pair (math-verify's own default). The start of a worker does not count.
        batch_timeout (`float`, *optional*, defaults to `120.0`):
            Seconds for one call of [`~VerifierPool.verify`]; pairs not reached by then are `"skipped"`. Ours.
        memory_mb (`int`, *optional*, defaults to `1024`):
            Resident memory of a worker in MiB; it needs about 60 to start. Ours.
        max_judged (`int`, *optional*, defaults to `5000`):
            Pairs after which a worker is replaced, so that sympy's caches do not grow into the memory limit. Ours.
        cache_size (`int`, *optional*, defaults to `8192`):
            Outcomes remembered by pair: a group often gives the same answer many times.

    Raises:
        `ValueError`: If a limit is not positive.
        `RuntimeError`: If workers do not start three times in a row.
    """

    def __init__(
        self,
        num_workers: int | None = None,
        timeout: float = 5.0,
        batch_timeout: float = 120.0,
        memory_mb: int = 1024,
        max_judged: int = 5000,
        cache_size: int = 8192,
    ):
        if num_workers is None:
            local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            num_workers = max(1, min(8, len(os.sched_getaffinity(0)) // local_world_size))
        limits = {
            "num_workers": num_workers,
            "timeout": timeout,
            "batch_timeout": batch_timeout,
            "memory_mb": memory_mb,
        }
        for name, value in {**limits, "max_judged": max_judged}.items():
            if value <= 0:
                raise ValueError(f"{name} is {value}; it must be positive.")
        self.num_workers = num_workers
        self.timeout = timeout
        self.batch_timeout = batch_timeout
        self.memory_bytes = memory_mb * 2**20
        self.max_judged = max_judged
        self.cache_size = cache_size
        self.counts: Counter[str] = Counter()
        self._num_failed_starts, self._last_failed_start = 0, 0.0
        self._cache: OrderedDict[tuple[str, str], Outcome] = OrderedDict()
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._forget)
        atexit.register(self.close)

    def _forget(self):
        """In a forked child: the parent's workers are not ours to talk to."""
        self._lock = threading.Lock()
        for worker in self._workers:
            worker.process.returncode = 0  # keeps subprocess from waiting for the parent's child
            worker.close_pipes()
        self._workers = []

    def verify(self, pairs: Sequence[tuple[str, str]]) -> list[Outcome]:
        r"""
        Judge pairs; the result keeps their order.

        Args:
            pairs (`Sequence[tuple[str, str]]`):
                Gold and answer, text as math-verify reads it: LaTeX between delimiters or in a box, or plain numbers, e.g.
                `("$\\frac{1}{2}$", "\\boxed{0.5}")`. It finds no `x+1` without delimiters: then a gold is unknown
                (`None`), and an answer wrong.

        Returns:
            `list[Outcome]`: One outcome for each pair.

        Raises:
            `ValueError`: If a pair is not a tuple of two texts.
            `RuntimeError`: If workers do not start three times in a row.
        """
        for pair in pairs:
            if not isinstance(pair, tuple) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
                raise ValueError(f"a pair is {pair!r}; it must be a tuple of two texts, gold and answer.")
        with self._lock:
            known = {pair: self._cache[pair] for pair in set(pairs) if pair in self._cache}
            todo = [pair for pair in dict.fromkeys(pairs) if pair not in known]
            self.counts["cached"] += len(pairs) - len(todo)
            fresh = dict(zip(todo, self._run(todo), strict=True))
            for pair, outcome in fresh.items():
                self.counts[outcome.reason] += 1
                if outcome.reason in ("verified", "gold"):  # a limit may be exceeded only because the machine is busy
                    self._cache[pair] = outcome
            while len(self._cache) > self.cache_size:
                self._cache.popitem(last=False)
            return [fresh[pair] if pair in fresh else known[pair] for pair in pairs]

    def _run(self, pairs: list[tuple[str, str]]) -> list[Outcome]:
        outcomes: list[Outcome | None] = [None] * len(pairs)
        waiting = list(reversed(range(len(pairs))))
        try:
            self._judge(waiting, pairs, outcomes)
        finally:  # after an error no worker may go on with a pair of this batch: the next would take its verdict
            self._abandon(waiting, outcomes)
        return [outcome if outcome is not None else Outcome(None, "skipped") for outcome in outcomes]

    def _judge(self, waiting: list[int], pairs: list[tuple[str, str]], outcomes: list[Outcome | None]):
        end = time.monotonic() + self.batch_timeout
        while waiting or any(worker.item is not None for worker in self._workers):
            self._staff(len(waiting))
            for worker in self._workers:
                if worker.ready and worker.item is None and waiting:
                    self._dispatch(worker, waiting.pop(), pairs, outcomes)
            now = time.monotonic()
            due = min(
                [worker.deadline for worker in self._workers if worker.item is not None or not worker.ready],
                default=now,
            )
            streams = [worker.process.stdout for worker in self._workers]
            readable = select.select(streams, [], [], max(0.0, min(due, end, now + _WATCH_SECONDS) - now))[0]
            for worker in [worker for worker in self._workers if worker.process.stdout in readable]:
                self._collect(worker, outcomes)
            self._enforce_limits(outcomes)
            if time.monotonic() >= end:
                return

    def _staff(self, num_waiting: int):
        """Replace workers that died while idle and start those that are missing, no more than there is work for."""
        for worker in [worker for worker in self._workers if worker.item is None and worker.ready]:
            if worker.process.poll() is not None:
                self._workers.remove(worker)
                worker.kill()
        busy = sum(worker.item is not None for worker in self._workers)
        while len(self._workers) < min(self.num_workers, busy + num_waiting):
            self._workers.append(_Worker(self.memory_bytes))

    def _dispatch(self, worker: _Worker, item: int, pairs, outcomes):
        try:
            worker.send(item, *pairs[item], self.timeout)
        except BrokenPipeError:
            self._retire(worker, outcomes, "crash")

    def _collect(self, worker: _Worker, outcomes):
        try:
            message = worker.receive()
        except EOFError:
            if not worker.ready:
                self._count_failed_start(worker, "")
            else:
                self._retire(worker, outcomes, "crash")
            return
        if message is None:
            return
        if "ready" in message:
            worker.ready = True
            self._num_failed_starts = 0
            return
        verdict = message["verdict"]
        if verdict == "memory":
            self._retire(worker, outcomes, "memory")
            return
        outcomes[message["id"]] = (
            Outcome(None, "gold") if verdict == "gold" else Outcome(verdict == "right", "verified")
        )
        worker.item = None
        worker.num_judged += 1
        if worker.num_judged >= self.max_judged:
            self._retire(worker, outcomes, "recycled")

    def _enforce_limits(self, outcomes):
        now = time.monotonic()
        for worker in list(self._workers):
            if worker.item is not None and now >= worker.deadline:
                self._retire(worker, outcomes, "timeout")
            elif worker.item is not None and worker.resident_bytes() > self.memory_bytes:
                self._retire(worker, outcomes, "memory")
            elif not worker.ready and now >= worker.deadline:
                self._count_failed_start(worker, f" in {_START_SECONDS:.0f} s")

    def _count_failed_start(self, worker: _Worker, when: str):
        """
        A worker that ended before it was ready is replaced: the kernel may have killed it for memory that others took.
        Workers that started together and fail together count once.
        """
        self._workers.remove(worker)
        words = worker.kill().strip() or "it wrote no error, as one that is killed from outside"
        if worker.started < self._last_failed_start:
            return
        self._last_failed_start = time.monotonic()
        self._num_failed_starts += 1
        if self._num_failed_starts < _MOST_FAILED_STARTS:
            return
        self._num_failed_starts = 0
        raise RuntimeError(
            f"A math-verify worker did not start{when}, {_MOST_FAILED_STARTS} times in a row: {words}. Check `python -c "
            f"'import math_verify'`, raise `memory_mb` ({self.memory_bytes // 2**20}) if it ran out of memory, and see "
            "that the machine has memory left."
        )

    def _retire(self, worker: _Worker, outcomes, reason: str):
        if worker.item is not None:
            outcomes[worker.item] = Outcome(None, reason)
        self._workers.remove(worker)
        worker.kill()

    def _abandon(self, waiting: list[int], outcomes):
        waiting.clear()
        for worker in [worker for worker in self._workers if worker.item is not None]:
            self._retire(worker, outcomes, "skipped")

    def close(self):
        """End the workers. The pool may be used again: it starts new ones."""
        with self._lock:
            for worker in self._workers:
                worker.kill()
            self._workers = []


_default_pool: VerifierPool | None = None
_default_lock = threading.Lock()


def default_pool() -> VerifierPool:
    """The pool that every rule of this process shares, with default limits."""
    global _default_pool
    with _default_lock:
        if _default_pool is None:
            _default_pool = VerifierPool()
        return _default_pool
