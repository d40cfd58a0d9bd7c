# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""What a served reward model takes for a request, and how it refuses the rest."""

import json

import pytest

from tests.support.pooling_requests import encoded, image_part, png_header, request
from tests.support.reward_tiny import picture
from trl_r1v2.images.processing import MAX_PIXELS
from trl_r1v2.rewards.reward_requests import RequestError, read_request


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
    "an activation of old": (request(softmax=True), 400, "softmax is True; this server takes only false"),
    "a norm": (request(normalize=True), 400, "normalize is True; this server takes only false"),
    "an unknown field": (request(bias=1), 400, "'bias': this server knows no such field"),
    "half a character": (
        b'{"messages": [{"role": "assistant", "content": "ab\\ud800"}]}',
        400,
        r"messages\[0\].content is no text: surrogates not allowed at character 2",
    ),
    "half a character in a part": (request({"type": "text", "text": "\udc00"}), 400, r"content\[0\].text is no text"),
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
    "many pixels": (
        request(*[image_part(png_header(9_000, 9_000))] * 2),
        400,
        f"162,000,000 pixels together; at most {MAX_PIXELS:,} are decoded",
    ),
    "many images": (request(*[image_part(png_header(28, 28))] * 65), 400, "has 65 images; at most 64 are taken"),
    "a strip": (request(image_part(png_header(1, 70_000))), 400, "1x70000; at most 65535 a side"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("message", "status", "words"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_requests_are_refused(message, status, words):
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    with pytest.raises(RequestError, match=f"(?s){words}") as caught:
        read_request(body, "tiny", sees_images=True)
    assert caught.value.status == caught.value.code == status
