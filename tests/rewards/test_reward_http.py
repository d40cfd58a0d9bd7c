# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""A served reward model gives the scores of the local one, and its failures are loud."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import types
import urllib.error
import urllib.request

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from trl_r1v2.rewards import HTTPRewardModel, HybridReward, RewardModel, RewardModelReward, reward_http
from trl_r1v2.rewards.reward_http import RewardServer, decode_conversation, encode_conversation


@pytest.fixture(scope="module")
def reward_path(internvl_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward")
    AutoModelForImageTextToText.from_pretrained(internvl_path).save_pretrained(folder)
    AutoProcessor.from_pretrained(internvl_path).save_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    head = {"summary.weight": torch.randn(1, 16, generator=generator), "summary.bias": torch.ones(1)}
    save_file(head, folder / "value_head.safetensors")
    return str(folder)


def picture(seed):
    pixels = torch.randint(0, 256, (40, 28, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


PROMPTS = [[{"role": "user", "content": f"question {row}"}] for row in range(5)]
IMAGES = [[picture(0)], None, [picture(1), picture(2)], [picture(3)], None]
ANSWERS = [[{"role": "assistant", "content": "x" * (row + 1)}] for row in range(5)]


@pytest.fixture(scope="module")
def server(reward_path):
    with RewardServer(RewardModel.from_pretrained(reward_path), port=0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def url(server):
    return f"http://127.0.0.1:{server.server_port}"


def test_served_scores_equal_local_ones(server, url, reward_path):
    local = RewardModelReward(server.model)(prompts=PROMPTS, completions=ANSWERS, images=IMAGES)
    assert len(set(local)) == 5
    config = {
        "rule": "format",
        "components": {"format": {"weight": 0}, "theta": {"type": "http_reward_model", "url": url, "batch_size": 2}},
    }
    served = HybridReward.from_config(config)(prompts=PROMPTS, completions=ANSWERS, images=IMAGES)
    assert served == pytest.approx(local, abs=1e-4)


def test_requests_of_many_clients_are_not_mixed(url):
    rewards = {}

    def work(row):
        model = HTTPRewardModel(url)
        rewards[row] = RewardModelReward(model)(
            prompts=[PROMPTS[row]], completions=[ANSWERS[row]], images=[IMAGES[row]]
        )[0]

    threads = [threading.Thread(target=work, args=(row,)) for row in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = RewardModelReward(HTTPRewardModel(url))(prompts=PROMPTS, completions=ANSWERS, images=IMAGES)
    assert [rewards[row] for row in range(5)] == pytest.approx(together, abs=1e-4)


def test_images_survive_the_protocol_pixel_by_pixel():
    messages = [{"role": "user", "content": [{"type": "image", "image": picture(5)}, {"type": "text", "text": "é"}]}]
    sent = json.loads(json.dumps(encode_conversation(messages)))
    (received,) = decode_conversation(sent)
    assert received["content"][0]["image"].tobytes() == picture(5).tobytes()
    assert received["content"][1] == {"type": "text", "text": "é"}
    with pytest.raises(ValueError, match="type 'video' cannot be sent"):
        encode_conversation([{"role": "user", "content": [{"type": "video"}]}])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "JSONDecodeError"),
        (b'{"version": 9, "conversations": []}', "protocol version 9"),
        (b'{"version": 1}', "KeyError: 'conversations'"),
        (
            b'{"version": 1, "conversations": [[{"role": "user", "content": [{"type": "image", "png": "AAAA"}]}]]}',
            "UnidentifiedImageError",
        ),
    ],
)
def test_malformed_requests_are_refused_and_the_server_goes_on(url, body, message):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(f"{url}/score", data=body))
    assert caught.value.code == 400
    assert message in json.loads(caught.value.read())["error"]
    assert HTTPRewardModel(url).sees_images


def test_an_unreachable_server_is_an_error_after_patience():
    with pytest.raises(RuntimeError, match="gave no usable answer for 1 s.*trl-r1v2 serve-reward"):
        HTTPRewardModel("http://127.0.0.1:9", patience=1.0)


def test_a_server_that_comes_back_is_waited_for(server, url, monkeypatch):
    model = HTTPRewardModel(url, patience=60.0)
    score, failures = server.model.score, [ConnectionError("lost"), None]

    def flaky(conversations):
        failure = failures.pop(0)
        if failure is not None:
            raise failure
        return score(conversations)

    monkeypatch.setattr(server.model, "score", flaky)
    monkeypatch.setattr(server, "handle_error", lambda *args: None)
    assert len(model.score([[*PROMPTS[0], *ANSWERS[0]]])) == 1
    assert failures == []


class BadServer(http.server.ThreadingHTTPServer):
    """Answers `POST /score` with the next of its replies; `None` drops the connection, a number waits so many seconds."""

    daemon_threads = True

    def __init__(self, replies):
        super().__init__(("127.0.0.1", 0), BadHandler)
        self.replies = replies

    def handle_error(self, request, client_address):
        pass


class BadHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(b'{"version": 1, "sees_images": true}')

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        reply = self.server.replies.pop(0) if len(self.server.replies) > 1 else self.server.replies[0]
        if reply is None:
            self.connection.close()
            return
        if isinstance(reply, float):
            time.sleep(reply)
            reply = b'{"scores": [9.0]}'
        self.answer(reply)

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def bad_server():
    servers = []

    def start(*replies):
        servers.append(BadServer(list(replies)))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


GARBAGE = {
    "no JSON": b"<html>busy</html>",
    "half a reply": b'{"scores": [1.',
    "a list": b"[1.0]",
    "too many": b'{"scores": [1.0, 2.0]}',
    "NaN": b'{"scores": [NaN]}',
    "infinite": b'{"scores": [1e999]}',
    "text": b'{"scores": ["1.0"]}',
    "truth": b'{"scores": [true]}',
}


def test_a_server_that_drops_delays_and_answers_garbage_invents_no_score(bad_server, monkeypatch):
    """The client asks again until there is one score for each conversation; `None` stays `None`."""
    clock = types.SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: None)  # the client's alone
    monkeypatch.setattr(reward_http, "time", clock)
    url = bad_server(None, 3.0, *GARBAGE.values(), b'{"scores": [-2.5]}')
    model = HTTPRewardModel(url, timeout=1.0, patience=120.0)
    assert model.score([[*PROMPTS[0], *ANSWERS[0]]]) == [-2.5]
    assert HTTPRewardModel(bad_server(b'{"scores": [null]}')).score([[*PROMPTS[0], *ANSWERS[0]]]) == [None]


@pytest.mark.parametrize("reply", GARBAGE.values(), ids=GARBAGE)
def test_a_server_that_only_answers_garbage_ends_the_run_with_the_cause(reply, bad_server):
    model = HTTPRewardModel(bad_server(reply), patience=0.4)
    with pytest.raises(RuntimeError, match="gave no usable answer for 0 s .(a reply without|a score that|Expecting)"):
        model.score([[*PROMPTS[0], *ANSWERS[0]]])


@pytest.mark.slow
def test_serve_reward_command(reward_path):
    command = [sys.executable, "-m", "trl_r1v2.scripts.serve_reward", "--reward_model_name_or_path", reward_path]
    process = subprocess.Popen([*command, "--port", "0", "--batch_size", "3"], stdout=subprocess.PIPE, text=True)
    url = process.stdout.readline().split()[-1]
    served = RewardModelReward(HTTPRewardModel(url))(prompts=PROMPTS, completions=ANSWERS, images=IMAGES)
    local = RewardModelReward.from_pretrained(reward_path)(prompts=PROMPTS, completions=ANSWERS, images=IMAGES)
    assert served == pytest.approx(local, abs=1e-4)
    os.kill(process.pid, signal.SIGINT)
    assert "Stopped after 5 scores" in process.communicate(timeout=60)[0]
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "`reward_model_name_or_path` is empty"),
        ({"reward_model_name_or_path": "x", "port": 70000}, "`port` is 70000"),
        ({"reward_model_name_or_path": "x", "batch_size": 0}, "`batch_size` is 0"),
    ],
)
def test_arguments_of_serve_reward(options, message):
    from trl_r1v2.scripts.serve_reward import ServeRewardArguments

    with pytest.raises(ValueError, match=message):
        ServeRewardArguments(**options)
