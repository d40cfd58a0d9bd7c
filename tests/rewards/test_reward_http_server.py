# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""A served reward model gives the scores of the local one, to many clients, and outlives what they send."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zlib

import pytest
from PIL import Image
from pooling_server import serving
from reward_tiny import build_reward_model, picture

from trl_r1v2.rewards import HTTPRewardModel, RewardModel, RewardModelReward, reward_server
from trl_r1v2.rewards.reward_requests import RequestError, read_request
from trl_r1v2.rewards.reward_server import RewardServer
from trl_r1v2.vlm.processing import MAX_PIXELS


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


def request(*parts, **fields) -> dict:
    content = list(parts) or "question"
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "answer"}]
    return {"model": "tiny", "messages": messages, **fields}


def image_part(data: bytes, kind="png") -> dict:
    url = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def encoded(image: Image.Image, kind="PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    return (
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\r"
        + chunk
        + zlib.crc32(chunk).to_bytes(4, "big")
        + b"\x00\x00\x00\x40IDAT"
        + b"\x00" * 68
    )


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


def test_images_are_read_pixel_by_pixel():
    image = picture(5, width=40)
    for part in (image_part(encoded(image)), image_part(encoded(image, "BMP"), "bmp")):
        body = json.dumps(request({"type": "text", "text": "é"}, part)).encode()
        user, assistant = read_request(body, "tiny", sees_images=True)
        assert user["content"][0] == {"type": "text", "text": "é"}
        read = user["content"][1]["image"]
        assert (read.mode, read.size, read.tobytes()) == ("RGB", image.size, image.tobytes())
        assert assistant == {"role": "assistant", "content": [{"type": "text", "text": "answer"}]}
    assert read_request(json.dumps(request()).encode(), "tiny", sees_images=False)[0]["content"] == "question"


TEXT = {"type": "text", "text": "q"}
MALFORMED = {
    "no JSON": (b"{", 400, "the body is no JSON"),
    "deep": (b"[" * 100_000, 400, "the body is no JSON"),
    "no object": (b"[]", 400, "no JSON object"),
    "nothing": (b"", 400, "no JSON"),
    "no messages": ({"model": "tiny", "input": "text"}, 400, "messages is no list"),
    "another model": (request() | {"model": "gpt"}, 404, "'gpt' does not exist; 'tiny' is served"),
    "another task": (
        request(task="token_classify"),
        400,
        "task is 'token_classify'; this server takes only .classify",
    ),
    "an activation": (request(use_activation=True), 400, "use_activation is True; this server takes only false"),
    "base64": (request(encoding_format="base64"), 400, "only .float"),
    "a cut": (request(truncate_prompt_tokens=5), 400, "truncate_prompt_tokens is 5; this server takes only null"),
    "a template": (request(chat_template="x"), 400, "chat_template is 'x'"),
    "no response": ({"messages": [{"role": "user", "content": "q"}]}, 400, "the last message is the user's"),
    "no role": ({"messages": [{"content": "q"}]}, 400, r"messages\[0\] has no role"),
    "no content": ({"messages": [{"role": "user"}]}, 400, r"messages\[0\].content is neither"),
    "tool calls": (
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [1]}]},
        400,
        r"messages\[0\] holds tool_calls",
    ),
    "a video": (
        request({"type": "video_url"}),
        400,
        r"messages\[0\].content\[0\] is no part of type text or image_url",
    ),
    "text that is none": (request({"type": "text", "text": 1}), 400, "is no part of type text"),
    "no address": (request(TEXT, {"type": "image_url", "image_url": "x"}), 400, r"content\[1\] has no address"),
    "an http address": (
        request({"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/a.png"}}),
        400,
        "only data URLs .* are taken, none fetched",
    ),
    "a file": (
        request({"type": "image_url", "image_url": {"url": f"file://{__file__}"}}),
        400,
        "only data URLs .* are taken, none fetched",
    ),
    "text as an image": (
        request({"type": "image_url", "image_url": {"url": "data:text/plain;base64,AAAA"}}),
        400,
        "only data URLs",
    ),
    "broken base64": (
        request({"type": "image_url", "image_url": {"url": "data:image/png;base64,A*AA"}}),
        400,
        r"messages\[0\].content\[0\]: ",
    ),
    "no image": (request(image_part(b"AAAA")), 400, "is no image of the kinds PNG"),
    "half an image": (request(image_part(encoded(picture(0))[:-200])), 400, "cannot be decoded"),
    "PostScript": (
        request(image_part(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")),
        400,
        "is no image of the kinds",
    ),
    "a bomb": (request(image_part(png_header(60_000, 60_000))), 400, "decompression bomb"),
    "a large image": (request(image_part(png_header(10_000, 9_000))), 400, f"at most {MAX_PIXELS:,} are decoded"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("message", "status", "words"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_requests_are_refused(message, status, words):
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    with pytest.raises(RequestError, match=f"(?s){words}") as caught:
        read_request(body, "tiny", sees_images=True)
    assert caught.value.status == caught.value.code == status


def test_the_server_goes_on_after_requests_that_it_refuses(server):
    for message, status, _ in list(MALFORMED.values())[:6]:
        found, reply = send(server, message)
        assert found == status and reply["error"].keys() == {"message", "type", "code"}
    assert HTTPRewardModel(url_of(server)).score([[*PROMPTS[0], *ANSWERS[0]]])[0] is not None
    with pytest.raises(ValueError, match=r"refused the request \(400\): use_activation is True"):
        HTTPRewardModel(url_of(server), extra_body={"use_activation": True}).score([[*PROMPTS[0], *ANSWERS[0]]])


def test_a_request_that_is_too_large_is_refused_where_its_sender_sees_it(server, monkeypatch):
    monkeypatch.setattr(reward_server, "MAX_REQUEST_BYTES", 1000)
    status, reply = send(server, b"x" * 5_000_000)
    assert status == 413 and reply["error"]["message"] == "the request has 5000000 bytes; at most 1000 are taken."


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


@pytest.mark.slow
def test_serve_reward_command(reward_path):
    command = [sys.executable, "-m", "trl_r1v2.scripts.serve_reward", "--reward_model_name_or_path", reward_path]
    command += ["--port", "0", "--batch_size", "3", "--served_model_name", "tiny", "--api_key_env", "REWARD_KEY"]
    environment = os.environ | {"REWARD_KEY": "secret"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
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
