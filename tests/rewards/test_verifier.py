# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The verifier pool against math-verify called directly, and against answers that make math-verify hang, explode or die.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from trl_r1v2.rewards.verifier import Outcome, VerifierPool


HANGING = r"\boxed{9^{9^{9^{9}}}}"
RIGHT = Outcome(True, "verified")
WRONG = Outcome(False, "verified")


@pytest.fixture(scope="module")
def pool():
    pool = VerifierPool(num_workers=2, timeout=20.0)
    yield pool
    pool.close()


def pids(pool):
    return [worker.process.pid for worker in pool._workers]


def test_verdicts_equal_math_verify(pool):
    from math_verify import parse, verify

    golds = [r"$\frac{1}{2}$", "$x^2-1$", r"$\{1,2\}$", "$(1,2)$", r"$2\sqrt{3}$", "$x=3$", r"$\pi$", "$5$"]
    answers = ["0.5", "(x-1)(x+1)", r"\{2,1\}", "(1,3)", r"\sqrt{12}", "3", "3.14", r"\sqrt{25}"]
    pairs = [(gold, rf"\boxed{{{answer}}}") for gold in golds for answer in answers]
    expected = [verify(*(parse(text, parsing_timeout=None) for text in pair), timeout_seconds=None) for pair in pairs]
    assert sum(expected) == 6
    assert [outcome.verdict for outcome in pool.verify(pairs)] == expected


def test_a_gold_without_mathematics_is_unknown(pool):
    assert pool.verify([("", r"\boxed{1}"), ("@@", r"\boxed{1}")]) == [Outcome(None, "gold")] * 2


def test_hanging_pairs_end_at_their_deadline_and_the_others_are_scored_in_order():
    pool = VerifierPool(num_workers=2, timeout=3.0)
    good = [(f"${value}+x$", rf"\boxed{{x+{value}}}") for value in range(1, 7)]
    bad = [("$12$", answer) for answer in (HANGING, r"\boxed{1000000000!}", r"\boxed{8^{8^{8^{8}}}}")]
    pairs = [bad[0], *good[:3], bad[1], bad[2], *good[3:]]
    outcomes = pool.verify(pairs)
    timeout = Outcome(None, "timeout")
    assert outcomes == [timeout, RIGHT, RIGHT, RIGHT, timeout, timeout, RIGHT, RIGHT, RIGHT]
    assert pool.counts["timeout"] == 3
    assert pool.counts["verified"] == 6
    before = pids(pool)
    assert pool.verify([("$y$", r"\boxed{y}")]) == [RIGHT]
    assert set(before) <= set(pids(pool))
    pool.close()


def test_memory_is_bounded_and_not_called_wrong():
    pool = VerifierPool(num_workers=1, timeout=30.0, memory_mb=90)
    outcomes = pool.verify([("$12$", r"\boxed{2^{3000000000}}"), ("$x$", r"\boxed{x}")])
    assert outcomes == [Outcome(None, "memory"), RIGHT]
    pool.close()


def test_a_crash_is_unknown_and_the_worker_is_replaced():
    pool = VerifierPool(num_workers=1, timeout=60.0)
    assert pool.verify([("$x$", r"\boxed{x}")]) == [RIGHT]
    victim = pids(pool)[0]

    def kill_while_busy():
        while pool._workers[0].item is None:
            time.sleep(0.01)
        os.kill(victim, signal.SIGSEGV)

    thread = threading.Thread(target=kill_while_busy)
    thread.start()
    outcomes = pool.verify([("$12$", HANGING), ("$x+1$", r"\boxed{1+x}")])
    thread.join()
    assert outcomes == [Outcome(None, "crash"), RIGHT]
    assert pids(pool) != [victim]
    # A worker that died while idle costs no pair its verdict.
    os.kill(pids(pool)[0], signal.SIGKILL)
    os.waitid(os.P_PID, pids(pool)[0], os.WEXITED | os.WNOWAIT)  # until it is dead; the pool finds that out itself
    outcome = pool.verify([("$x+2$", r"\boxed{2+x}")])
    assert outcome == [RIGHT]
    pool.close()


def test_a_batch_ends_at_its_own_deadline():
    pool = VerifierPool(num_workers=1, timeout=60.0)
    assert pool.verify([("$x$", r"\boxed{x}")]) == [RIGHT]
    pool.batch_timeout = 2.0
    outcomes = pool.verify([("$12$", HANGING), ("$x$", r"\boxed{x}"), ("$y$", r"\boxed{y}")])
    assert outcomes == [Outcome(None, "skipped"), RIGHT, Outcome(None, "skipped")]
    pool.batch_timeout = 60.0
    assert pool.verify([("$y$", r"\boxed{y}")]) == [RIGHT]
    pool.close()


def test_equal_pairs_are_judged_once(pool):
    pair = ("$a+b+c$", r"\boxed{c+b+a}")
    judged, cached = pool.counts["verified"], pool.counts["cached"]
    assert pool.verify([pair] * 5) == [RIGHT] * 5
    assert pool.verify([pair]) == [RIGHT]
    assert (pool.counts["verified"] - judged, pool.counts["cached"] - cached) == (1, 5)


def test_many_threads_share_one_pool(pool):
    results = {}

    def work(name):
        pairs = [
            (f"${name}x+{value}$", rf"\boxed{{{value}+{name}x{'+1' if value % 2 else ''}}}") for value in range(2, 8)
        ]
        results[name] = [outcome.verdict for outcome in pool.verify(pairs)]

    threads = [threading.Thread(target=work, args=(name,)) for name in range(2, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {name: [True, False] * 3 for name in range(2, 6)}


def test_a_forked_child_does_not_touch_the_parents_workers(pool):
    assert pool.verify([("$m$", r"\boxed{m}")]) == [RIGHT]
    before = pids(pool)
    child = os.fork()
    if child == 0:
        ok = not pool._workers and pool.verify([("$m+1$", r"\boxed{1+m}")]) == [RIGHT]
        pool.close()
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pool.verify([("$m+2$", r"\boxed{2+m}")]) == [RIGHT]
    assert pids(pool) == before


def test_workers_are_recycled():
    pool = VerifierPool(num_workers=1, timeout=60.0, max_judged=2)
    seen = set()
    for value in range(4):
        assert pool.verify([(f"$x+{value + 2}$", rf"\boxed{{{value + 2}+x}}")]) == [RIGHT]
        seen.update(pids(pool))
    assert pool._workers == []
    assert len(seen) == 2
    pool.close()


PARENT = """
import os, sys, threading, time
from trl_r1v2.rewards.verifier import VerifierPool
pool = VerifierPool(num_workers=2, timeout=5.0, batch_timeout=60.0)
pool.verify([("$x$", "x"), ("$y$", "y")])
threading.Thread(target=pool.verify, args=([("$12$", sys.argv[1])],), daemon=True).start()
while all(worker.item is None for worker in pool._workers):
    time.sleep(0.01)
print(*[worker.process.pid for worker in pool._workers], flush=True)
time.sleep(60)
"""


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_workers_die_with_a_killed_parent():
    """Idle workers see the end of their pipe; a busy one, which runs C code, is ended by its kernel timer."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, HANGING], stdout=subprocess.PIPE, text=True)
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    assert all(map(is_running, workers))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 60
    while any(map(is_running, workers)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(is_running, workers))


def test_a_worker_imports_neither_torch_nor_trl():
    script = (
        "import sys; sys.argv = ['worker', str(2**31)]; import trl_r1v2.rewards.verifier_worker as worker\n"
        "heavy = {'torch', 'trl', 'transformers', 'numpy'}\n"
        "print(worker.judge('$1/2$', '$0.5$'), *heavy.intersection(sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["right"]


def test_a_worker_that_cannot_start_is_reported(monkeypatch, tmp_path):
    from trl_r1v2.rewards import verifier

    broken = tmp_path / "broken.py"
    broken.write_text("raise ImportError('no math_verify here')")
    monkeypatch.setattr(verifier, "_WORKER_SCRIPT", broken)
    with pytest.raises(RuntimeError, match="(?s)did not start, 3 times in a row.*no math_verify here"):
        VerifierPool(num_workers=1).verify([("$x$", "x")])


def flaky_script(folder, num_failures: int, num_together: int = 1) -> Path:
    """
    The worker's script. The first `num_failures` that start are killed, as the kernel does when memory runs out, once
    `num_together` of them are there: a replacement must not be taken for one of those that started together.
    """
    from trl_r1v2.rewards import verifier

    script = folder / "flaky.py"
    script.write_text(
        "import itertools, os, pathlib, runpy, signal, time\n"
        f"folder = pathlib.Path({str(folder)!r})\n"
        "for number in itertools.count(1):\n"
        "    try:\n"
        "        (folder / f'start_{number}').touch(exist_ok=False)\n"
        "        break\n"
        "    except FileExistsError:\n"
        "        pass\n"
        f"if number <= {num_failures}:\n"
        f"    while not (folder / 'start_{num_together}').exists():\n"
        "        time.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"runpy.run_path({str(verifier._WORKER_SCRIPT)!r}, run_name='__main__')\n"
    )
    return script


def test_a_worker_that_is_killed_while_it_starts_is_replaced(monkeypatch, tmp_path):
    from trl_r1v2.rewards import verifier

    monkeypatch.setattr(verifier, "_WORKER_SCRIPT", flaky_script(tmp_path, num_failures=2))
    pool = VerifierPool(num_workers=1, timeout=60.0)
    assert pool.verify([("$x+1$", r"\boxed{1+x}"), ("$x$", r"\boxed{y}")]) == [RIGHT, WRONG]
    assert sorted(path.name for path in tmp_path.glob("start_*")) == ["start_1", "start_2", "start_3"]
    pool.close()


def test_workers_that_are_killed_together_count_once_and_a_start_that_works_begins_anew(monkeypatch, tmp_path):
    from trl_r1v2.rewards import verifier

    pairs = [(f"$x+{value}$", rf"\boxed{{{value}+x}}") for value in range(2, 10)]
    monkeypatch.setattr(verifier, "_WORKER_SCRIPT", flaky_script(tmp_path, num_failures=4, num_together=4))
    monkeypatch.setattr(verifier, "_MOST_FAILED_STARTS", 2)
    pool = VerifierPool(num_workers=4, timeout=60.0)
    assert pool.verify(pairs) == [RIGHT] * 8
    assert pool._num_failed_starts == 0
    pool.close()


def test_after_an_error_no_verdict_goes_to_another_pair(monkeypatch):
    """The first call ends while both workers are busy; their verdicts must not come to the second call."""
    pool = VerifierPool(num_workers=2, timeout=60.0)
    assert pool.verify([("$x$", r"\boxed{x}"), ("$x+1$", r"\boxed{1+x}")]) == [RIGHT] * 2
    with monkeypatch.context() as patch:
        patch.setattr(pool, "_collect", lambda worker, outcomes: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pool.verify([("$y$", r"\boxed{y}"), ("$y+1$", r"\boxed{1+y}")])
    assert pool.verify([("$z+1$", r"\boxed{z}")]) == [WRONG]
    pool.close()


@pytest.mark.parametrize("pair", ["ab", ["$1$", "1"], ("$1$",), ("$1$", 1), ("$1$", None)])
def test_what_is_no_pair_of_texts_is_refused(pool, pair):
    with pytest.raises(ValueError, match="it must be a tuple of two texts"):
        pool.verify([pair])


@pytest.mark.parametrize("option", ["num_workers", "timeout", "batch_timeout", "memory_mb", "max_judged"])
def test_limits_must_be_positive(option):
    with pytest.raises(ValueError, match=f"{option} is 0"):
        VerifierPool(**{option: 0})
