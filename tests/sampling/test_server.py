# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Sampling from an OpenAI-compatible server: what is sent, what comes back, what happens when the server fails."""

import base64
import io
import json
import threading

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from tests.support.chat_server import DROP, completion, serving
from trl_r1v2.sampling.rollouts import EngineError, Rollout
from trl_r1v2.sampling.server import ChatServer, request_seed


QUESTIONS = Dataset.from_dict({"prompt": [[{"role": "user", "content": f"question {row}"}] for row in range(5)]})
SETTINGS = {"num_samples": 3, "max_new_tokens": 50, "temperature": 0.6, "top_p": 0.9, "seed": 7, "progress": False}


def sample(server, dataset=QUESTIONS, **changes) -> list[Rollout]:
    chunks = ChatServer(server.url, "policy", concurrency=3).sample_chunks(dataset, **{**SETTINGS, **changes})
    return [rollout for chunk in chunks for rollout in chunk]


def echo(request, number):
    return f"{request['messages'][-1]['content']} {request['seed']}"


def test_each_response_is_a_request_with_a_seed_of_its_own():
    with serving(echo) as server:
        rollouts = sample(server)
        assert sample(server, rows=[4, 2], num_samples=1, do_sample=False)[0].num_tokens == 3
        greedy = server.requests[15:]
    assert sorted((r.row, r.sample, r.text) for r in rollouts) == [
        (row, sample, f"question {row} {request_seed(7, row, sample)}") for row in range(5) for sample in range(3)
    ]
    assert {(r.num_tokens, r.finished, tuple(r.completion_ids)) for r in rollouts} == {(3, True, ())}
    assert len({request["seed"] for request in server.requests[:15]}) == 15
    fields = ("model", "max_tokens", "temperature", "top_p")
    assert {tuple(r[name] for name in fields) for r in server.requests[:15]} == {("policy", 50, 0.6, 0.9)}
    assert {r["temperature"] for r in greedy} == {0.0}
    assert sorted(r["messages"][0]["content"] for r in greedy) == ["question 2", "question 4"]


def test_images_are_sent_as_they_are_seen():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 40, 3), dtype=np.uint8))
    prompt = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]}]
    with serving(lambda request, number: "a cat") as server:
        dataset = Dataset.from_list([{"prompt": prompt, "images": [picture]}])
        sample(server, dataset, num_samples=1)
        (image, text) = server.requests[0]["messages"][0]["content"]
    assert text == {"type": "text", "text": "what?"}
    prefix, data = image["image_url"]["url"].split(",")
    assert prefix == "data:image/png;base64"
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) == np.asarray(picture)).all()


def test_key_and_further_fields_are_sent(monkeypatch):
    monkeypatch.setenv("SERVER_KEY", "secret")
    with serving(echo) as server:
        client = ChatServer(server.url, "policy", api_key_env="SERVER_KEY", extra_body={"top_k": 20})
        list(client.sample_chunks(QUESTIONS, **SETTINGS))
        assert {headers["authorization"] for headers in server.headers_seen} == {"Bearer secret"}
        assert {request["top_k"] for request in server.requests} == {20}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "4", "reasoning_content": "2+2"}, "<think>2+2</think>\n4"),
        ({"content": None, "reasoning": "2+"}, "<think>2+"),
        ({"content": None}, ""),
    ],
)
def test_reasoning_that_the_server_splits_off_is_put_back(message, text):
    with serving(lambda request, number: message) as server:
        assert sample(server, rows=[0], num_samples=1)[0].text == text


def test_a_response_that_broke_off_is_not_finished():
    cut = completion("so", finish_reason="length")
    with serving(lambda request, number: (200, cut)) as server:
        assert not sample(server, rows=[0], num_samples=1)[0].finished


def test_a_server_that_stumbles_changes_no_response():
    attempts, lock = {}, threading.Lock()

    def stumble(request, number):
        with lock:
            attempts[request["seed"]] = attempts.get(request["seed"], 0) + 1
        stumbles = [DROP, (503, b"busy"), (429, b"slow down"), None]
        return (
            echo(request, number) if attempts[request["seed"]] > 1 else stumbles[number % 4] or echo(request, number)
        )

    with serving(stumble) as server:
        found = sample(server)
    with serving(echo) as server:
        key = lambda rollout: (rollout.row, rollout.sample)  # noqa: E731
        assert sorted(found, key=key) == sorted(sample(server), key=key)
    assert sum(attempts.values()) > 15


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((404, b"the model `policy` does not exist"), "404.*the model `policy` does not exist"),
        ((500, b"out of memory"), "500.*out of memory"),
        (DROP, "Connection error"),
        ((200, json.dumps({"choices": [], "usage": {"completion_tokens": 1}}).encode()), "without choices"),
        ((200, completion("a").replace(b"usage", b"spent")), "without choices or without `usage"),
    ],
)
def test_a_server_that_fails_for_good_is_named_and_what_was_done_is_kept(reply, words):
    with serving(lambda request, number: echo(request, number) if number < 6 else reply) as server:
        client = ChatServer(server.url, "policy", concurrency=1, max_retries=0)
        found = []
        with pytest.raises(EngineError, match=f"(?s)^{server.url} .*{words}"):
            for chunk in client.sample_chunks(QUESTIONS, **SETTINGS):
                found += chunk
    assert {rollout.row for rollout in found} == {0, 1}


def test_rows_are_read_as_they_are_needed_and_requests_are_bounded():
    most, running, lock, read = [0], [0], threading.Lock(), []

    class Rows:
        def __len__(self):
            return 40

        def __iter__(self):
            for row in range(40):
                read.append(row)
                yield row % 5

    def answer(request, number):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        assert len(read) - number <= 8
        with lock:
            running[0] -= 1
        return "x"

    with serving(answer) as server:
        sample(server, rows=Rows(), num_samples=1)
    assert most[0] <= 3 and len(read) == 40


def test_what_cannot_be_asked_is_refused(monkeypatch):
    monkeypatch.delenv("SERVER_KEY", raising=False)
    with pytest.raises(EngineError, match="is no address"):
        ChatServer("localhost:8000", "m")
    with pytest.raises(EngineError, match="SERVER_KEY is not set"):
        ChatServer("http://localhost", "m", api_key_env="SERVER_KEY")
    with serving(echo) as server, pytest.raises(ValueError, match="row 0: the prompt is plain text"):
        sample(server, Dataset.from_dict({"prompt": ["text"]}))
