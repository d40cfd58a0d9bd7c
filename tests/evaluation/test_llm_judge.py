# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The judge: verdicts are cached by content and never made up, whatever the server does."""

import concurrent.futures
import json
import threading
import time

import pytest

from tests.support.chat_server import DROP, completion, serving
from trl_r1v2.evaluation import judge as judge_module
from trl_r1v2.evaluation.judge import Case, Judge, VerdictCache, case_key, read_verdict
from trl_r1v2.sampling import chat_client
from trl_r1v2.sampling.chat_client import ChatClient, InvalidReply, ServerError, read_reply, run_bounded


CASES = [Case(f"question {index}?", "4", "four" if index % 2 == 0 else "five") for index in range(6)]


def by_meaning(request, number):
    case = request["messages"][0]["content"]
    return f"Because.\nVERDICT: {'RIGHT' if json_of(case)['answer'] == 'four' else 'WRONG'}"


def json_of(prompt: str) -> dict:
    return json.loads(prompt[prompt.index("{") : prompt.rindex("}") + 1])


def make_judge(server, path, timeout=60.0) -> Judge:
    client = ChatClient(server.url, "judge-1", patience=60.0, first_pause=0.01, timeout=timeout)
    return Judge(client, VerdictCache(path), concurrency=3)


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("They mean the same.\nVERDICT: RIGHT", True),
        ("<think>VERDICT: RIGHT?</think>No.\n**VERDICT: WRONG**\n", False),
        ("verdict:  right.", True),
        ("VERDICT: RIGHT\nVERDICT: WRONG", False),
        ("VERDICT: RIGHT or VERDICT: WRONG", None),
        ("VERDICT: RIGHT\nI am not sure, though.", None),
        ("<think>VERDICT: RIGHT", None),
        ("The answer is right.", None),
        ("", None),
    ],
)
def test_only_a_last_line_is_a_verdict(reply, verdict):
    assert read_verdict(reply) is verdict


def test_verdicts_are_asked_once_and_kept(tmp_path):
    path = tmp_path / "cache" / "judge.jsonl"
    with serving(by_meaning) as server:
        judge = make_judge(server, path)
        assert judge([*CASES, CASES[0]], progress=False) == [True, False, True, False, True, False, True]
        assert judge.counts == {"asked": 6, "cached": 0, "unknown": 0} and len(server.requests) == 6
        again = make_judge(server, path)
        assert again(CASES, progress=False) == [True, False] * 3
        assert again.counts == {"asked": 0, "cached": 6, "unknown": 0} and len(server.requests) == 6
        assert {request["temperature"] for request in server.requests} == {0.0}
        entry = json.loads(path.read_text().splitlines()[0])
        assert entry["judge"] == "judge-1" and entry["prompt_version"] == "1" and "VERDICT" in entry["reply"]
        # what an interruption left of a line is dropped, and that verdict is asked for again
        path.write_bytes(path.read_bytes()[:-20])
        third = make_judge(server, path)
        assert third(CASES, progress=False) == [True, False] * 3 and third.counts["asked"] == 1


def test_a_verdict_belongs_to_model_prompt_question_reference_and_answer(monkeypatch):
    case = CASES[0]
    keys = {case_key("judge-1", case), case_key("judge-2", case)}
    keys |= {case_key("judge-1", Case("q", "4", "four")), case_key("judge-1", Case(case.question, "5", "four"))}
    keys.add(case_key("judge-1", Case(case.question, "4", "4")))
    monkeypatch.setattr(judge_module, "PROMPT_VERSION", "2")
    keys.add(case_key("judge-1", case))
    assert len(keys) == 6


def test_a_changed_cache_is_refused(tmp_path):
    path = tmp_path / "judge.jsonl"
    path.write_text('{"key": "a", "right": true}\n{"key": "b", "right": "yes"}\n')
    with pytest.raises(ValueError, match="judge.jsonl, line 2: no verdict"):
        VerdictCache(path)


def test_no_verdict_is_unknown_counted_and_asked_again(tmp_path):
    with serving(lambda request, number: "I would say it is right.") as server:
        judge = make_judge(server, tmp_path / "judge.jsonl")
        assert judge(CASES[:2], progress=False) == [None, None]
        assert judge.counts == {"asked": 2, "cached": 0, "unknown": 2}
    assert not (tmp_path / "judge.jsonl").exists()


def test_a_server_that_drops_delays_and_returns_garbage_changes_no_verdict(tmp_path):
    attempts: dict[str, int] = {}
    lock = threading.Lock()
    asked_again = threading.Event()

    def misbehave(request, number):
        question = json_of(request["messages"][0]["content"])["question"]
        with lock:
            attempts[question] = attempts.get(question, 0) + 1
            first = attempts[question] == 1
        index = int(question.split()[1].rstrip("?"))
        if first and index == 1:
            return DROP
        if index == 2 and not first:
            asked_again.set()
        if first and index == 2:
            asked_again.wait(60)  # far longer than the client waits
        if first and index == 3:
            return 200, b"<html>gateway</html>"
        if first and index == 4:
            return 503, b"busy"
        if first and index == 5:
            return 200, json.dumps({"choices": []}).encode()
        return by_meaning(request, number)

    with serving(misbehave) as server:
        judge = make_judge(server, tmp_path / "judge.jsonl", timeout=0.5)
        assert judge(CASES, progress=False) == [True, False] * 3
        assert judge.counts == {"asked": 6, "cached": 0, "unknown": 0}
        assert all(attempts[f"question {index}?"] >= 2 for index in range(1, 6)) and attempts["question 0?"] >= 1
        assert judge.client.num_retries >= 5 and server.most_at_once <= 4


def test_a_server_that_fails_for_good_ends_it_and_keeps_what_was_judged(tmp_path):
    path = tmp_path / "judge.jsonl"

    def fail_later(request, number):
        return by_meaning(request, number) if number < 2 else (500, b"out of memory")

    with serving(fail_later) as server:
        client = ChatClient(server.url, "judge-1", patience=0.2, first_pause=0.02)
        with pytest.raises(ServerError, match=r"gave no reply of model 'judge-1' for 0 s.*the same command goes on"):
            Judge(client, VerdictCache(path), concurrency=1)(CASES, progress=False)
    assert len(path.read_text().splitlines()) == 2


def test_a_refusal_is_reported_at_once(monkeypatch):
    with serving(lambda request, number: (404, b"the model `m` does not exist")) as server:
        with pytest.raises(ServerError, match=r"refused .* 'm' \(404\): the model `m` does not exist"):
            ChatClient(server.url, "m", patience=60).complete([])
        assert len(server.requests) == 1
    with pytest.raises(ServerError, match="is no address"):
        ChatClient("localhost:8000", "m")
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(ServerError, match="JUDGE_KEY is not set"):
        ChatClient("http://localhost", "m", api_key_env="JUDGE_KEY")


def test_too_many_requests_are_sent_again_with_the_key(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "secret")
    with serving(lambda request, number: (429, b"slow down") if number == 0 else "done") as server:
        client = ChatClient(server.url, "m", api_key_env="JUDGE_KEY", patience=5, first_pause=0.01)
        assert client.complete([]).text == "done" and client.num_retries == 1
        assert all(headers["Authorization"] == "Bearer secret" for headers in server.headers_seen)


def test_replies_are_read_with_their_reasoning():
    reply = read_reply(completion({"content": "4", "reasoning_content": "2+2"}))
    assert (reply.text, reply.finish_reason) == ("<think>2+2</think>\n4", "stop")
    cut = read_reply(completion({"content": None, "reasoning": "2+"}, finish_reason="length"))
    assert (cut.text, cut.finish_reason) == ("<think>2+", "length")
    for body in (b"[]", b'{"choices": [{"message": {"content": 4}, "finish_reason": "stop"}]}', b"{}", b""):
        with pytest.raises(InvalidReply):
            read_reply(body)


def test_jobs_run_a_bounded_number_at_a_time_and_are_taken_as_they_are_needed():
    taken, running, most = [], set(), []
    lock = threading.Lock()

    def jobs():
        for job in range(20):
            taken.append(job)
            yield job

    def work(job):
        with lock:
            running.add(job)
            most.append(len(running))
        time.sleep(0.002)
        with lock:
            running.discard(job)
        return job * job

    results = run_bounded(work, jobs(), 3)
    first = next(results)
    assert first[1] == first[0] ** 2 and len(taken) <= 6
    assert sorted([first, *results]) == [(job, job * job) for job in range(20)] and max(most) <= 3

    def fail(job):
        if job == 3:
            raise RuntimeError("broken")
        return job

    taken.clear()
    with pytest.raises(RuntimeError, match="broken"):
        list(run_bounded(fail, jobs(), 2))
    assert len(taken) < 20


def test_what_was_done_beside_an_error_is_given_before_it(monkeypatch):
    monkeypatch.setattr(chat_client, "wait", lambda jobs, return_when: concurrent.futures.wait(jobs))
    done = []
    with pytest.raises(ZeroDivisionError):
        for job, _ in run_bounded(lambda job: 1 / (job - 2), range(9), 3):
            done.append(job)
    assert sorted(done) == [0, 1, 3, 4, 5]
