# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""A served reward model gives the scores of the local one, to many clients, and outlives what they send."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
from PIL import Image

from tests.support.pooling_requests import request
from tests.support.pooling_server import serving
from tests.support.reward_tiny import build_reward_model, picture
from trl_r1v2.rewards import HTTPRewardModel, RewardModel, RewardModelReward, reward_server
from trl_r1v2.rewards.reward_requests import RequestError
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
    with serving(RewardServer(model, port=0, batch_size=5, name="tiny")) as server:
        yield server


def url_of(server) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def send(server, message, path="/pooling", headers=None):
    """Status and reply; a dict is sent as JSON, bytes as they are, `None` as GET."""
    body = json.dumps(message).encode() if isinstance(message, dict) else message
    try:
        with urllib.request.urlopen(urllib.request.Request(url_of(server) + path, body, headers or {})) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_served_scores_are_the_local_ones_bit_for_bit(model, server):
    """In the same batches: all five together, then each alone."""
    local = RewardModelReward(model)(**ROWS)
    assert len(set(local)) == 5
    server.scorer.max_wait = 30.0  # a batch begins when five are there
    assert RewardModelReward(HTTPRewardModel(url_of(server)))(**ROWS) == local
    assert (server.scorer.num_batches, server.num_scored) == (1, 5)

    server.scorer.batch_size, model.batch_size = 1, 1
    try:
        alone = RewardModelReward(model)(**ROWS)
    finally:
        model.batch_size = 8
    assert RewardModelReward(HTTPRewardModel(url_of(server)))(**ROWS) == alone == pytest.approx(local, abs=1e-4)
    assert (server.scorer.num_batches, server.num_scored) == (6, 10)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGB", "L"])
def test_a_picture_that_is_scored_without_the_reward_function_is_the_same(mode, model, server):
    """Black lines on nothing are black on white, on both sides."""
    image = Image.new("RGBA", (28, 28))
    image.paste("black", (4, 4, 24, 8))
    image = image.convert("LA").convert(mode)
    content = [{"type": "image", "image": image}, {"type": "text", "text": "what is it?"}]
    conversation = [{"role": "user", "content": content}, {"role": "assistant", "content": "a line"}]
    assert HTTPRewardModel(url_of(server)).score([conversation]) == model.score([conversation])


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
            for scorer in (model, HTTPRewardModel(url_of(server)))
            for image in (given, same)
        ]
        assert len({score for (score,) in scores}) == 1


def test_conversations_of_many_clients_share_batches_and_are_not_mixed(model, server):
    server.scorer.max_wait = 30.0
    found = {}

    def work(row):
        reward = RewardModelReward(HTTPRewardModel(url_of(server)))
        found[row] = reward(prompts=[PROMPTS[row]], completions=[ANSWERS[row]], images=[IMAGES[row]])[0]

    threads = [threading.Thread(target=work, args=(row,)) for row in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[row] for row in range(5)] == RewardModelReward(model)(**ROWS)
    assert server.scorer.num_batches == 1


def test_a_lone_request_does_not_wait_for_a_full_batch(model, server):
    status, reply = send(server, request(), "/v1/pooling")
    (expected,) = RewardModelReward(model)(prompts=["question"], completions=["answer"])
    assert status == 200 and reply.pop("id").startswith("pool-") and isinstance(reply.pop("created"), int)
    data = [{"index": 0, "object": "pooling", "data": [expected]}]
    assert reply == {"object": "list", "model": "tiny", "data": data}


def test_what_else_vllm_serves(server):
    assert send(server, None, "/health") == (200, {})
    status, models = send(server, None, "/v1/models")
    assert (status, models["object"], [entry["id"] for entry in models["data"]]) == (200, "list", ["tiny"])
    assert HTTPRewardModel(url_of(server)).model == "tiny"
    for path, status in (("/info", 404), ("/pooling", 405)):
        assert send(server, None, path)[0] == status
        assert "POST /pooling" in send(server, None, path)[1]["error"]["message"]


def test_the_server_goes_on_after_requests_that_it_refuses(server):
    for message, status in ((b"{", 400), (b"[]", 400), (b"", 400), (request(model="gpt"), 404)):
        found, reply = send(server, message)
        assert found == status and reply["error"].keys() == {"message", "type", "code"}
    assert HTTPRewardModel(url_of(server)).score([[*PROMPTS[0], *ANSWERS[0]]])[0] is not None
    with pytest.raises(ValueError, match=r"refused the request \(400\): use_activation is True"):
        HTTPRewardModel(url_of(server), extra_body={"use_activation": True}).score([[*PROMPTS[0], *ANSWERS[0]]])


def test_a_request_that_is_too_large_is_refused_where_its_sender_sees_it(server, monkeypatch):
    monkeypatch.setattr(reward_server, "MAX_REQUEST_BYTES", 1000)
    status, reply = send(server, b"x" * 5_000_000)
    assert status == 413 and reply["error"]["message"] == "the request has 5000000 bytes; at most 1000 are taken."


def test_a_length_of_thousands_of_digits_is_refused_and_not_waited_for(server):
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        connection.sendall(b"POST /pooling HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n")
        reply = connection.makefile("rb").read()
    assert reply.split()[1] == b"413" and b"Content-Length of 5000 digits" in reply


def test_fields_without_a_part_in_the_score_are_taken(server):
    assert send(server, request(user="me", request_id="1", priority=0, softmax=False, bias=None))[0] == 200


def test_a_key_is_asked_for(model, monkeypatch):
    monkeypatch.setenv("REWARD_KEY", "secret")
    monkeypatch.setenv("WRONG_KEY", "Secret")
    with serving(RewardServer(model, port=0, api_key="secret")) as server:
        assert send(server, None, "/health") == (200, {})
        assert send(server, None, "/v1/models")[0] == send(server, request())[0] == 401
        with pytest.raises(ValueError, match=r"\(401\): the request bears no valid key"):
            HTTPRewardModel(url_of(server), api_key_env="WRONG_KEY")
        scores = HTTPRewardModel(url_of(server), api_key_env="REWARD_KEY").score([[*PROMPTS[0], *ANSWERS[0]]])
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
    with serving(RewardServer(StubModel(), port=0, batch_size=4)) as server:
        server.scorer.max_wait = 30.0
        yield server


def test_a_failing_conversation_fails_alone_and_the_server_lives_on(stub_server, caplog):
    found = {}

    def work(word):
        try:
            found[word] = HTTPRewardModel(url_of(stub_server), patience=0.0).score([judged(word)])[0]
        except (RuntimeError, ValueError) as error:
            found[word] = str(error)

    threads = [threading.Thread(target=work, args=(word,)) for word in ("one", "fail", "refuse", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found["one"], found["three"]) == (3.0, 5.0)
    assert "500: " in found["fail"] and "RuntimeError: CUDA error: unspecified launch failure" in found["fail"]
    assert "(400): the model cannot take the conversation: Image features" in found["refuse"]
    assert "unspecified launch failure" in caplog.text  # the server's own log
    stub_server.scorer.max_wait = 0.0
    assert send(stub_server, {"messages": judged("four")})[1]["data"][0]["data"] == [4.0]


def test_a_score_that_is_no_number_and_a_conversation_too_long_are_said_so(stub_server):
    stub_server.scorer.max_wait = 0.0
    status, reply = send(stub_server, {"messages": judged("nan")})
    assert (status, reply["error"]["message"]) == (500, "the model's score is nan, no finite number.")
    status, reply = send(stub_server, {"messages": judged("long")})
    assert (status, reply["error"]["code"]) == (400, "context_length_exceeded")
    model = HTTPRewardModel(url_of(stub_server))
    assert model.score([judged(word) for word in ("a", "long", "ccc")]) == [1.0, None, 3.0]


def test_images_for_a_text_only_model_are_refused_not_dropped(stub_server):
    with pytest.raises(ValueError, match="the served model reads text only.*`sees_images: false`"):
        RewardModelReward(HTTPRewardModel(url_of(stub_server)))(
            prompts=PROMPTS[:1], completions=ANSWERS[:1], images=IMAGES[:1]
        )


def test_max_tokens_of_the_served_model(reward_path):
    limited = RewardModel.from_pretrained(reward_path, max_tokens=40)
    local = RewardModelReward(limited)(**ROWS)
    assert None in local and len(set(local)) > 1
    with serving(RewardServer(limited, port=0)) as server:
        assert RewardModelReward(HTTPRewardModel(url_of(server)))(**ROWS) == pytest.approx(local, abs=1e-4)


def test_text_that_cannot_fit_is_not_tokenized(reward_path, monkeypatch):
    """By default the limit is the model's own, 512 tokens."""
    model = RewardModel.from_pretrained(reward_path)
    assert model.max_tokens == 512
    seen = []
    monkeypatch.setattr(model, "_tokenize", lambda rows, tokenize=model._tokenize: seen.append(rows) or tokenize(rows))
    with serving(RewardServer(model, port=0)) as server:
        client = HTTPRewardModel(url_of(server))
        assert client.score([judged("x" * 512 * 16)]) == [None] and not seen
        assert client.score([judged("x" * 600)]) == [None] and len(seen) == 1
        assert client.score([judged("x" * 400)])[0] is not None


def test_closing_does_not_wait_for_a_batch_without_end():
    started, go_on = threading.Event(), threading.Event()

    class StuckModel(StubModel):
        def score_one(self, word):
            started.set()
            go_on.wait(60)
            return 1.0

    scorer = RewardServer(StuckModel(), port=0, batch_size=1).scorer
    found = []

    def ask():
        try:
            scorer.score(judged("a"))
        except RequestError as error:
            found.append((error.status, str(error)))

    asking = [threading.Thread(target=ask) for _ in range(2)]  # one is being scored, one waits
    for thread in asking:
        thread.start()
    assert started.wait(30)
    assert not scorer.close(timeout=0.2)
    for thread in asking:
        thread.join(30)
    assert found == [(503, "the server is stopping.")] * 2
    go_on.set()
    scorer._thread.join(30)
    assert not scorer._thread.is_alive()


def test_a_stopped_server_answers_what_has_arrived_and_takes_no_more():
    started, go_on = threading.Event(), threading.Event()

    class SlowModel(StubModel):
        def score_one(self, word):
            started.set()
            assert go_on.wait(30)
            return 1.0

    scorer = RewardServer(SlowModel(), port=0).scorer
    found = []
    asking = threading.Thread(target=lambda: found.append(scorer.score(judged("a"))))
    asking.start()
    assert started.wait(30)
    closing = threading.Thread(target=scorer.close)
    closing.start()
    go_on.set()
    closing.join()
    asking.join()
    assert found == [1.0]
    with pytest.raises(RequestError, match="is stopping"):
        scorer.score(judged("b"))


def test_an_address_in_use_is_an_error(server):
    with pytest.raises(OSError, match="in use"):
        RewardServer(StubModel(), port=server.server_port)


def interruptible() -> None:
    """In a child: a job in the background ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_serve_reward_command(reward_path):
    command = [sys.executable, "-m", "trl_r1v2.scripts.serve_reward", "--reward_model_name_or_path", reward_path]
    command += ["--port", "0", "--batch_size", "3", "--served_model_name", "tiny", "--api_key_env", "REWARD_KEY"]
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


STUCK = """
import sys, threading
from trl_r1v2.rewards import reward_model
from trl_r1v2.scripts import serve_reward

class Stuck:
    sees_images = False
    def score(self, conversations):
        print("scoring", flush=True)
        threading.Event().wait()

reward_model.RewardModel.from_pretrained = lambda *args, **kwargs: Stuck()
serve_reward.main(serve_reward.ServeRewardArguments(reward_model_name_or_path="stuck", port=0))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_the_command_while_it_scores(number):
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,
    )
    url = process.stdout.readline().split()[-1]
    body = json.dumps({"messages": judged("a")}).encode()
    status = []

    def ask():
        try:
            urllib.request.urlopen(url + "/pooling", body)
        except urllib.error.HTTPError as error:
            status.append(error.code)

    asking = threading.Thread(target=ask)
    asking.start()
    assert process.stdout.readline() == "scoring\n"
    process.send_signal(number)
    output = process.communicate(timeout=60)[0]
    asking.join()
    assert process.returncode == 0 and "Stopped after 0 scores" in output and "told to ask again" in output
    assert status == [503]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward_model_name_or_path": "x", "max_tokens": 0}, "`max_tokens` is 0"),
        ({}, "`reward_model_name_or_path` is empty"),
        ({"reward_model_name_or_path": "x", "port": 70000}, "`port` is 70000"),
        ({"reward_model_name_or_path": "x", "batch_size": 0}, "`batch_size` is 0"),
        ({"reward_model_name_or_path": "x", "api_key_env": "NO_SUCH_KEY"}, "`api_key_env` names NO_SUCH_KEY"),
    ],
)
def test_arguments_of_serve_reward(options, message, monkeypatch):
    from trl_r1v2.scripts.serve_reward import ServeRewardArguments

    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ValueError, match=message):
        ServeRewardArguments(**options)
