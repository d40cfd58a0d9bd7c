# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""A served reward model gives the scores of the local one, to many clients, and outlives what they send."""

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
import tenacity
from PIL import Image

from tests.support.pooling_requests import request
from tests.support.pooling_server import reward_serving
from tests.support.reward_tiny import build_reward_model, picture
from trl_r1v2.rewards import HTTPRewardModel, RewardModel, RewardModelReward, reward_http, reward_server
from trl_r1v2.rewards.reward_server import RewardServer


PROMPTS = [[{"role": "user", "content": f"question {row}"}] for row in range(5)]
IMAGES = [[picture(0, width=40)], None, [picture(1), picture(2)], [picture(3)], None]
ANSWERS = [[{"role": "assistant", "content": "x" * (row + 1)}] for row in range(5)]
ROWS = {"prompts": PROMPTS, "completions": ANSWERS, "images": IMAGES}


@pytest.fixture(scope="module")
def reward_path(internvl_path, tmp_path_factory):
    return build_reward_model(internvl_path, tmp_path_factory.mktemp("reward"))


@pytest.fixture(scope="module")
def model(reward_path):
    return RewardModel.from_pretrained(reward_path)


@pytest.fixture
def server(model):
    with reward_serving(model, batch_size=5, name="tiny") as server:
        yield server


def send(server, message, path="/pooling", headers=None):
    """Status and reply; a dict is sent as JSON, bytes as they are, `None` as GET."""
    body = json.dumps(message).encode() if isinstance(message, dict) else message
    try:
        with urllib.request.urlopen(
            urllib.request.Request(server.url + path, body, {"Content-Type": "application/json", **(headers or {})})
        ) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        text = error.read().decode()
        return error.code, json.loads(text) if text.startswith(("{", '"')) else text


@contextlib.contextmanager
def held(server):
    """
    A first batch of one that ends with the block; what arrives meanwhile, `wait(count)` long, makes the next ones.
    """
    scorer, model, released = server.scorer, server.scorer.model, threading.Event()

    class Held:
        sees_images = model.sees_images

        def score(self, conversations):
            scorer.model = model
            assert released.wait(30)
            return [0.0]

    def wait(count):
        while len(scorer._waiting) < count:
            time.sleep(0.01)

    scorer.model = Held()
    asking = threading.Thread(target=send, args=(server, {"messages": judged("first")}))
    asking.start()
    while scorer.model is not model:
        time.sleep(0.01)
    try:
        yield wait
    finally:
        released.set()
        asking.join()


def test_served_scores_are_the_local_ones_bit_for_bit(model, server):
    """In the same batches: all five together, then each alone."""
    local = RewardModelReward(model)(**ROWS)
    assert len(set(local)) == 5
    found = []
    asking = threading.Thread(target=lambda: found.append(RewardModelReward(HTTPRewardModel(server.url))(**ROWS)))
    with held(server) as wait:
        asking.start()
        wait(5)
    asking.join()
    assert found == [local]
    assert (server.scorer.num_batches, server.scorer.num_scored) == (2, 6)

    server.scorer.batch_size, model.batch_size = 1, 1
    try:
        alone = RewardModelReward(model)(**ROWS)
    finally:
        model.batch_size = 8
    assert RewardModelReward(HTTPRewardModel(server.url))(**ROWS) == alone == pytest.approx(local, abs=1e-4)
    assert (server.scorer.num_batches, server.scorer.num_scored) == (7, 11)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGB", "L"])
def test_a_picture_that_is_scored_without_the_reward_function_is_the_same(mode, model, server):
    """Black lines on nothing are black on white, on both sides."""
    image = Image.new("RGBA", (28, 28))
    image.paste("black", (4, 4, 24, 8))
    image = image.convert("LA").convert(mode)
    content = [{"type": "image", "image": image}, {"type": "text", "text": "what is it?"}]
    conversation = [{"role": "user", "content": content}, {"role": "assistant", "content": "a line"}]
    assert HTTPRewardModel(server.url).score([conversation]) == model.score([conversation])


def test_a_picture_is_scored_upright_and_with_all_its_grey(model, server):
    """As the trainers see it: turned by EXIF, and 16-bit grey scaled, with and without the server."""
    upright = Image.new("RGB", (56, 28), "white")
    upright.paste("black", (4, 4, 24, 8))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6  # turn back
    file = io.BytesIO()
    turned.save(file, format="PNG", exif=turned.getexif())
    deep = Image.frombytes(
        "I;16", (28, 28), b"".join((257 * (value % 256)).to_bytes(2, "little") for value in range(784))
    )
    shallow = Image.frombytes("L", (28, 28), bytes(value % 256 for value in range(784))).convert("RGB")
    for given, same in ((Image.open(file), upright), (deep, shallow)):
        scores = [
            scorer.score(
                [
                    [
                        {
                            "role": "user",
                            "content": [{"type": "image", "image": image}, {"type": "text", "text": "?"}],
                        },
                        {"role": "assistant", "content": "a line"},
                    ]
                ]
            )
            for scorer in (model, HTTPRewardModel(server.url))
            for image in (given, same)
        ]
        assert len({score for (score,) in scores}) == 1


def test_conversations_of_many_clients_share_batches_and_are_not_mixed(model, server):
    found = {}

    def work(row):
        reward = RewardModelReward(HTTPRewardModel(server.url))
        found[row] = reward(prompts=[PROMPTS[row]], completions=[ANSWERS[row]], images=[IMAGES[row]])[0]

    threads = [threading.Thread(target=work, args=(row,)) for row in range(5)]
    with held(server) as wait:
        for thread in threads:
            thread.start()
        wait(5)
    for thread in threads:
        thread.join()
    assert [found[row] for row in range(5)] == pytest.approx(RewardModelReward(model)(**ROWS), abs=1e-4)
    assert server.scorer.num_batches == 2


def test_a_lone_request_does_not_wait_for_a_full_batch(model, server):
    (expected,) = RewardModelReward(model)(prompts=["question"], completions=["answer"])
    data = [{"index": 0, "object": "pooling", "data": [expected]}]
    assert send(server, request()) == (200, {"object": "list", "model": "tiny", "data": data})


def test_what_else_vllm_serves(server):
    assert send(server, None, "/health") == (200, {})
    status, models = send(server, None, "/v1/models")
    assert (status, models["object"], [entry["id"] for entry in models["data"]]) == (200, "list", ["tiny"])
    assert HTTPRewardModel(server.url).model == "tiny"
    for path, status in (("/info", 404), ("/pooling", 405)):
        assert send(server, None, path)[0] == status


def test_the_server_goes_on_after_requests_that_it_refuses(server):
    for message, status in ((b"{", 422), (b"[]", 422), (b"", 422), (request(model="gpt"), 404)):
        assert send(server, message)[0] == status
    assert HTTPRewardModel(server.url).score([[*PROMPTS[0], *ANSWERS[0]]])[0] is not None
    with pytest.raises(ValueError, match=r"refused the request \(422\): .*use_activation.*Input should be False"):
        HTTPRewardModel(server.url, extra_body={"use_activation": True}).score([[*PROMPTS[0], *ANSWERS[0]]])


def test_a_request_that_is_too_large_or_without_length_is_refused(server, monkeypatch):
    monkeypatch.setattr(reward_server, "MAX_REQUEST_BYTES", 1000)
    assert send(server, b"x" * 1001) == (413, "a request has to give its length, at most 1000 bytes")
    for header in (b"Content-Length: " + b"9" * 16, b"Transfer-Encoding: chunked"):
        with socket.create_connection(server.socket.getsockname(), timeout=30) as connection:
            connection.sendall(b"POST /pooling HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n\r\n")
            assert connection.recv(1000).split()[1] == b"413"


def test_a_key_is_asked_for(model, monkeypatch):
    monkeypatch.setenv("REWARD_KEY", "secret")
    monkeypatch.setenv("WRONG_KEY", "Secret")
    with reward_serving(model, api_key="secret") as server:
        assert send(server, None, "/health") == (200, {})
        assert send(server, None, "/v1/models")[0] == send(server, request())[0] == 401
        with pytest.raises(ValueError, match=r"\(401\): .the request bears no valid key"):
            HTTPRewardModel(server.url, api_key_env="WRONG_KEY")
        scores = HTTPRewardModel(server.url, api_key_env="REWARD_KEY").score([[*PROMPTS[0], *ANSWERS[0]]])
        assert scores == model.score([[*PROMPTS[0], *ANSWERS[0]]])


class StubModel:
    """Does what the response says."""

    sees_images = False

    def score(self, conversations):
        return [self.score_one(messages[-1]["content"]) for messages in conversations]

    def score_one(self, word):
        if word == "fail":
            raise RuntimeError("CUDA error: unspecified launch failure")
        if word == "refuse":
            raise ValueError("Image features and image tokens do not match")
        return {"long": None, "nan": float("nan")}.get(word, float(len(word)))


def judged(word: str) -> list[dict]:
    return [{"role": "user", "content": "q"}, {"role": "assistant", "content": word}]


@pytest.fixture
def stub_server():
    with reward_serving(StubModel(), batch_size=4) as server:
        yield server


def test_a_failing_conversation_fails_alone_and_the_server_lives_on(stub_server, monkeypatch):
    monkeypatch.setattr(reward_http, "_PAUSES", tenacity.wait_none())
    found = {}

    def work(word):
        try:
            found[word] = HTTPRewardModel(stub_server.url, patience=0.0).score([judged(word)])[0]
        except (RuntimeError, ValueError) as error:
            found[word] = str(error)

    threads = [threading.Thread(target=work, args=(word,)) for word in ("one", "fail", "refuse", "three")]
    with held(stub_server) as wait:
        for thread in threads:
            thread.start()
        wait(4)
    for thread in threads:
        thread.join()
    assert (found["one"], found["three"]) == (3.0, 5.0)
    assert "500: " in found["fail"] and "CUDA error: unspecified launch failure" in found["fail"]
    assert "500: " in found["refuse"] and "Image features and image tokens do not match" in found["refuse"]
    assert send(stub_server, {"messages": judged("four")})[1]["data"][0]["data"] == [4.0]


def test_a_score_that_is_no_number_and_a_conversation_too_long_are_said_so(stub_server):
    assert send(stub_server, {"messages": judged("nan")})[0] == 500
    status, reply = send(stub_server, {"messages": judged("long")})
    assert (status, reply["error"]["code"]) == (400, "context_length_exceeded")
    model = HTTPRewardModel(stub_server.url)
    assert model.score([judged(word) for word in ("a", "long", "ccc")]) == [1.0, None, 3.0]


def test_images_for_a_text_only_model_are_refused_not_dropped(stub_server):
    with pytest.raises(ValueError, match="the served model reads text only.*`sees_images: false`"):
        RewardModelReward(HTTPRewardModel(stub_server.url))(
            prompts=PROMPTS[:1], completions=ANSWERS[:1], images=IMAGES[:1]
        )


def test_max_tokens_of_the_served_model(reward_path):
    limited = RewardModel.from_pretrained(reward_path, max_tokens=40)
    local = RewardModelReward(limited)(**ROWS)
    assert None in local and len(set(local)) > 1
    with reward_serving(limited) as server:
        assert RewardModelReward(HTTPRewardModel(server.url))(**ROWS) == pytest.approx(local, abs=1e-4)


def test_text_that_cannot_fit_is_not_tokenized(reward_path, monkeypatch):
    """By default the limit is the model's own, 512 tokens."""
    model = RewardModel.from_pretrained(reward_path)
    assert model.max_tokens == 512
    seen = []
    monkeypatch.setattr(model, "_tokenize", lambda rows, tokenize=model._tokenize: seen.append(rows) or tokenize(rows))
    with reward_serving(model) as server:
        client = HTTPRewardModel(server.url)
        assert client.score([judged("x" * 512 * 16)]) == [None] and not seen
        assert client.score([judged("x" * 600)]) == [None] and len(seen) == 1
        assert client.score([judged("x" * 400)])[0] is not None


def test_an_address_in_use_is_an_error(server):
    with pytest.raises(OSError, match="in use"):
        RewardServer(StubModel(), port=server.socket.getsockname()[1])


def interruptible() -> None:
    """In a child: a job in the background ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_serve_reward_command(reward_path):
    command = [sys.executable, "-m", "trl_r1v2.scripts.main", "serve-reward", "--reward_model_name_or_path"]
    command += [reward_path, "--port", "0", "--batch_size", "3", "--served_model_name", "tiny"]
    command += ["--api_key_env", "REWARD_KEY"]
    environment = os.environ | {"REWARD_KEY": "secret"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=interruptible)
    name, *_, url = process.stdout.readline().split()
    with pytest.raises(ValueError, match="401"):
        HTTPRewardModel(url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARD_KEY", "secret")
        served = RewardModelReward(HTTPRewardModel(url, api_key_env="REWARD_KEY"))(**ROWS)
    assert name == "tiny"
    assert served == pytest.approx(RewardModelReward.from_pretrained(reward_path)(**ROWS), abs=1e-4)
    os.kill(process.pid, signal.SIGINT)
    assert "Stopped after 5 scores" in process.communicate(timeout=60)[0]
    assert process.returncode == 0


def test_arguments_of_serve_reward(monkeypatch):
    from trl_r1v2.scripts.serve_reward import ServeRewardArguments

    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ValueError, match="`api_key_env` names NO_SUCH_KEY"):
        ServeRewardArguments(reward_model_name_or_path="x", api_key_env="NO_SUCH_KEY")
