# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The client of a served reward model: what it sends, what it takes for a score, and what it does when the server fails.
"""

import base64
import io
import json
import threading

import pytest
import tenacity
from PIL import Image

from tests.support.pooling_server import DROP, TRUNCATE, PoolingServer, pooled, refusal, serving
from tests.support.reward_tiny import picture
from trl_r1v2.rewards import HTTPRewardModel, HybridReward, RewardModelReward, reward_http


def conversation(row: int) -> list[dict]:
    return [{"role": "user", "content": f"question {row}"}, {"role": "assistant", "content": f"answer {row}"}]


def row_of(request: dict) -> int:
    return int(request["messages"][-1]["content"].split()[1])


@pytest.fixture
def quick(monkeypatch):
    """Pauses between two tries take no time."""
    monkeypatch.setattr(reward_http, "_PAUSES", tenacity.wait_none())


def test_a_request_is_what_vllm_takes():
    image = picture(5, width=40)
    seen = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "é"}]}]
    plain = [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "assistant", "content": "a"}]
    with serving(PoolingServer(lambda request, number: [0.5])) as server:
        model = HTTPRewardModel(f"{server.url}/v1/", concurrency=1)
        assert model.model == "served" and model.sees_images
        assert model.score([[*seen, plain[1]], plain]) == [0.5, 0.5]
        with_image, without = server.requests
    assert with_image.keys() == without.keys()
    assert without == {
        "model": "served",
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        "task": "classify",
        "use_activation": False,
        "add_generation_prompt": False,
    }
    (part, text) = with_image["messages"][0]["content"]
    assert text == {"type": "text", "text": "é"} and part.keys() == {"type", "image_url"}
    head, data = part["image_url"]["url"].split(",")
    assert head == "data:image/png;base64" and part["type"] == "image_url"
    received = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (received.mode, received.size, received.tobytes()) == ("RGB", image.size, image.tobytes())


def test_fields_and_key_that_are_set_are_sent(monkeypatch):
    monkeypatch.setenv("REWARD_KEY", "secret")
    with serving(PoolingServer(lambda request, number: [0.5], models=("base", "adapter"))) as server:
        extra = {"use_activation": True, "priority": 3}
        model = HTTPRewardModel(server.url, model="adapter", extra_body=extra, api_key_env="REWARD_KEY")
        assert model.score([conversation(0)]) == [0.5]
        (request,) = server.requests
        assert (request["model"], request["use_activation"], request["priority"]) == ("adapter", True, 3)
        assert server.headers_seen[0]["Authorization"] == "Bearer secret"
        with pytest.raises(RuntimeError, match="too many values to unpack.*base.*adapter"):
            HTTPRewardModel(server.url, patience=0.0)


@pytest.mark.parametrize("score", [-2.5, 3, 1e-30])
def test_a_score_of_any_size(score):
    with serving(PoolingServer(lambda request, number: [score])) as server:
        assert HTTPRewardModel(server.url).score([conversation(0)]) == [score]


def two_results(request, number):
    reply = json.loads(pooled([1.0]))
    reply["data"].append(reply["data"][0] | {"index": 1})
    return 200, json.dumps(reply).encode()


NO_NUMBER = "no finite number"
GARBAGE = {
    "HTML": ((200, b"<html>busy</html>"), "the reply is '<html>busy"),
    "half a reply": (TRUNCATE, "without sending complete message body"),
    "half of JSON": ((200, pooled([1.0])[:40]), "the reply is '.{1,5}id"),
    "nothing": ((200, b""), "the reply is ''"),
    "a list": ((200, b"[1.0]"), "the reply is"),
    "no result": ((200, b'{"data": []}'), "not enough values"),
    "deep": ((200, b"[" * 100_000), "recursion depth"),
    "two results": (two_results, "too many values"),
    "two labels": ([0.1, 0.9], "too many values"),
    "tokens": ([[1.0], [2.0]], "too many values"),
    "a token": ([[1.0]], NO_NUMBER),
    "no label": ([], "not enough values"),
    "a number": (1.0, "not iterable|non-iterable"),
    "base64": ("AACAPw==", "too many values"),
    "NaN": ((200, pooled([float("nan")])), NO_NUMBER),
    "infinite": ((200, pooled(["X"]).replace(b'"X"', b"1e999")), NO_NUMBER),
    "huge": ([10**400], NO_NUMBER),
    "infinite in float32": ([1e39], NO_NUMBER),
    "text": (["1.0"], NO_NUMBER),
    "truth": ([True], NO_NUMBER),
    "null": ([None], NO_NUMBER),
    "a dropped connection": (DROP, "disconnected|reset"),
    "an error": ((500, refusal("CUDA out of memory", 500)), "500: .*CUDA out of memory"),
    "busy": ((503, b""), "503: Service Unavailable"),
    "too many requests": ((429, b"slow down"), "429: slow down"),
}


@pytest.mark.parametrize(("reply", "cause"), GARBAGE.values(), ids=GARBAGE)
def test_a_server_that_goes_on_failing_ends_the_run_with_the_cause(reply, cause, quick):
    answer = reply if callable(reply) else lambda request, number: reply
    with serving(PoolingServer(answer)) as server:
        model = HTTPRewardModel(server.url, patience=0.0)
        with pytest.raises(RuntimeError, match=f"(?s)gave no usable answer for 0 s .*({cause}).*serve-reward"):
            model.score([conversation(0)])
        assert len(server.requests) == 2  # asked once more in any case


def test_a_server_out_of_reach_is_an_error_that_names_the_remedy(quick):
    with pytest.raises(RuntimeError, match="at http://127.0.0.1:9 gave no usable answer.*refused.*serve-reward"):
        HTTPRewardModel("http://127.0.0.1:9", patience=0.05)
    with serving(PoolingServer(None, models=())) as server:
        with pytest.raises(RuntimeError, match="not enough values"):
            HTTPRewardModel(server.url, patience=0.0)


def test_two_clients_of_a_server_that_drops_delays_and_answers_garbage_get_the_right_scores(quick):
    """Each conversation meets every misdeed before its score; nothing is lost, mixed up or made up."""
    misdeeds = [
        DROP,
        "delay",
        TRUNCATE,
        (503, b"busy"),
        *(reply for name, (reply, _) in GARBAGE.items() if name in ("HTML", "NaN", "two labels", "tokens", "base64")),
    ]
    tries: dict[int, int] = {}
    lock = threading.Lock()
    let_go = threading.Event()

    def answer(request, number):
        row = row_of(request)
        with lock:
            tries[row] = tries.get(row, -1) + 1
            place = tries[row]
        if place >= len(misdeeds):
            return [row / 4]
        misdeed = misdeeds[(place + row) % len(misdeeds)]
        if misdeed == "delay":
            let_go.wait(30)  # far longer than the client waits
            return [99.0]
        return misdeed

    found = {}
    with serving(PoolingServer(answer)) as server:

        def work(start):
            model = HTTPRewardModel(server.url, concurrency=3, timeout=0.5, patience=60.0)
            found[start] = model.score([conversation(start + row) for row in range(4)])

        threads = [threading.Thread(target=work, args=(start,)) for start in (0, 10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        let_go.set()
    assert [found[start] for start in (0, 10)] == [[(start + row) / 4 for row in range(4)] for start in (0, 10)]
    assert all(place >= len(misdeeds) for place in tries.values()) and len(tries) == 8


def test_several_servers_take_turns_and_stand_in_for_one_that_fails(quick):
    """Of four conversations each server of two gets two; where one is gone, the other scores all, in order."""

    def answer(request, number):
        return [float(row_of(request))]

    conversations = [conversation(row) for row in range(4)]
    with serving(PoolingServer(answer)) as one, serving(PoolingServer(answer)) as other:
        assert HTTPRewardModel([one.url, other.url + "/v1"]).score(conversations) == [0.0, 1.0, 2.0, 3.0]
        assert [sorted(map(row_of, server.requests)) for server in (one, other)] == [[0, 2], [1, 3]]
        lost = HTTPRewardModel(["http://127.0.0.1:9", other.url], model="served")
        assert lost.score(conversations) == [0.0, 1.0, 2.0, 3.0]
        assert len(other.requests) == 6


def test_two_servers_work_at_the_same_time():
    """Neither answers before both have as many requests as one may have."""
    meeting = threading.Barrier(4)

    def answer(request, number):
        meeting.wait(60)
        return [0.0]

    with serving(PoolingServer(answer)) as one, serving(PoolingServer(answer)) as other:
        model = HTTPRewardModel([one.url, other.url], concurrency=2)
        assert model.score([conversation(row) for row in range(8)]) == [0.0] * 8


@pytest.mark.parametrize(
    "body",
    [
        refusal("This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens."),
        refusal("You passed 5000 input tokens and requested 0 output tokens. "
                "However, the model's context length is only 4096 tokens."),
        refusal("The decoder prompt (length 5000) is longer than the maximum model length of 4096."),
        refusal("too many", "context_length_exceeded"),
        json.dumps(
            {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400}
        ).encode(),
    ],
)  # fmt: skip
def test_a_conversation_that_is_too_long_has_no_score_and_is_counted(body):
    with serving(PoolingServer(lambda request, number: (400, body) if row_of(request) == 1 else [2.0])) as server:
        metrics = {}
        rewards = RewardModelReward(HTTPRewardModel(server.url, sees_images=False))(
            prompts=[conversation(row)[:1] for row in range(4)],
            completions=[conversation(row)[1:] for row in range(4)],
            log_metric=metrics.__setitem__,
        )
        assert rewards == [2.0, None, 2.0, 2.0] and metrics == {"reward_model/not_scored": 0.25}
        assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, refusal("served is not a multimodal model"), "served is not a multimodal model"),
        (400, refusal("[{'type': 'missing', 'input': 'what is the context length of a model?'}]"), "missing"),
        (400, b"context length is 5", "context length is 5"),
        (400, b'{"error": "context length is 5"}', "context length is 5"),
        (401, b'{"error": "Unauthorized"}', "Unauthorized"),
        (404, refusal("The model `x` does not exist.", 404), "The model `x` does not exist"),
        (413, refusal("This model's maximum context length is 5 tokens.", 413), "maximum context"),
    ],
)
def test_what_the_server_refuses_is_reported_at_once_in_its_words(status, body, words):
    with serving(PoolingServer(lambda request, number: (status, body))) as server:
        with pytest.raises(ValueError, match=f"/pooling refused the request .{status}.: .*{words}"):
            HTTPRewardModel(server.url).score([conversation(0)])
        assert len(server.requests) == 1


def test_after_an_error_the_other_requests_are_not_sent_again(monkeypatch):
    """Else the process would outlive its error by the whole patience."""
    monkeypatch.setattr(reward_http, "_PAUSES", tenacity.wait_fixed(30))
    busy = threading.Event()

    def answer(request, number):
        if row_of(request) == 0:
            assert busy.wait(30)
            return 400, refusal("no such thing")
        busy.set()
        return 503, b""

    before = set(threading.enumerate())
    with serving(PoolingServer(answer)) as server:
        with pytest.raises(ValueError, match="no such thing"):
            HTTPRewardModel(server.url, concurrency=2).score([conversation(0), conversation(1)])
        for thread in set(threading.enumerate()) - before:
            if thread.name.startswith("reward"):
                thread.join(5)
                assert not thread.is_alive()
        assert len(server.requests) == 2


def test_scores_keep_their_order_whatever_comes_first():
    """Of the eight requests that are under way together, each waits for the one after it."""
    answered, is_answered = [], [threading.Event() for _ in range(24)]

    def answer(request, number):
        row = row_of(request)
        assert row % 8 == 7 or is_answered[row + 1].wait(60)
        answered.append(row)
        is_answered[row].set()
        return [float(row)]

    with serving(PoolingServer(answer)) as server:
        scores = HTTPRewardModel(server.url, concurrency=8).score([conversation(row) for row in range(24)])
    assert scores == [float(row) for row in range(24)]
    assert answered == [row for last in (7, 15, 23) for row in range(last, last - 8, -1)]


def test_as_many_requests_as_allowed_are_under_way_and_no_more():
    """A barrier lets a request pass only when all six are there; a seventh would be seen beside them."""
    barrier, lock = threading.Barrier(6), threading.Lock()
    at_once, most = [0], [0]

    def answer(request, number):
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        barrier.wait(30)
        with lock:
            at_once[0] -= 1
        return [0.0]

    with serving(PoolingServer(answer)) as server:
        assert HTTPRewardModel(server.url, concurrency=6).score([conversation(row) for row in range(18)]) == [0.0] * 18
    assert most == [6]


def test_nothing_to_score_asks_nothing():
    with serving(PoolingServer(None)) as server:
        assert HTTPRewardModel(server.url).score([]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "10.0.0.7:8000"}, "url is '10.0.0.7:8000'; write it as http://host:port"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"url": []}, "url is .., or a list|url is ..; write"),
        ({"api_key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY is not set"),
        ({"timeout": 0}, "timeout 0.0 "),
        ({"patience": -1}, "patience -1"),
        ({"batch_size": 4}, "unknown 'batch_size'"),
        ({"sees_image": True}, "Did you mean 'sees_images'"),
    ],
)
def test_options_are_checked_where_a_recipe_gives_them(options, message, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    component = {"type": "http_reward_model", "url": "http://127.0.0.1:9", "model": "m", **options}
    with pytest.raises(ValueError, match=f"reward.components.theta: .*{message}"):
        HybridReward.from_config({"rule": "theta", "components": {"theta": component}})


def test_a_recipe_sets_every_option(monkeypatch):
    monkeypatch.setenv("REWARD_KEY", "secret")
    component = {
        "type": "http_reward_model",
        "url": "http://127.0.0.1:9/v1",
        "model": "m",
        "concurrency": 3,
        "timeout": 4.0,
        "patience": 5.0,
        "api_key_env": "REWARD_KEY",
        "extra_body": {"task": "token_classify"},
        "sees_images": False,
        "drop_images": True,
        "part": "answer",
    }
    reward = HybridReward.from_config({"rule": "theta", "components": {"theta": component}}).components["theta"].reward
    assert (reward.part, reward.drop_images, reward.model.sees_images) == ("answer", True, False)
    assert (reward.model.urls, reward.model.model, reward.model.num_workers) == (["http://127.0.0.1:9"], "m", 3)
    assert reward.model.patience == 5.0


def test_images_are_not_sent_to_a_model_that_does_not_see_them():
    with serving(PoolingServer(lambda request, number: [1.0])) as server:
        model = HTTPRewardModel(server.url, sees_images=False)
        row = {"prompts": [conversation(0)[:1]], "completions": [conversation(0)[1:]], "images": [[picture(0)]]}
        with pytest.raises(ValueError, match="reads text only, and a row has images"):
            RewardModelReward(model)(**row)
        assert RewardModelReward(model, drop_images=True)(**row) == [1.0]
        assert [request["messages"] for request in server.requests] == [conversation(0)]
