# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""What a served reward model takes for a request, and how it refuses the rest."""

import pytest
from PIL import Image

from tests.support.pooling_requests import encoded, image_part, png_header, request
from tests.support.reward_tiny import picture
from trl_r1v2.images.processing import MAX_PIXELS
from trl_r1v2.rewards.reward_server import PoolingRequest, read_messages


def read(message, sees_images=True):
    return read_messages(PoolingRequest.model_validate(message), sees_images)


def test_images_are_read_pixel_by_pixel():
    image = picture(5, width=40)
    for part in (image_part(encoded(image)), image_part(encoded(image, "BMP"), "bmp")):
        user, assistant = read(request({"type": "text", "text": "é"}, part))
        assert user["content"][0] == {"type": "text", "text": "é"}
        found = user["content"][1]["image"]
        assert (found.mode, found.size, found.tobytes()) == ("RGB", image.size, image.tobytes())
        assert assistant == {"role": "assistant", "content": [{"type": "text", "text": "answer"}]}
    assert read(request(), sees_images=False)[0]["content"] == "question"
    with pytest.raises(ValueError, match="the served model reads text only.*`sees_images: false`"):
        read(request(image_part(encoded(image))), sees_images=False)


TEXT = {"type": "text", "text": "q"}
FETCHED = "is neither text nor an image_url with a data URL; none is fetched"
MALFORMED = {
    "no messages": ({"model": "tiny", "input": "text"}, "messages\n.*Field required"),
    "empty": ({"messages": []}, "at least 1 item"),
    "another task": (request(task="token_classify"), "task\n.*'classify'"),
    "an activation": (request(use_activation=True), "use_activation\n.*False"),
    "an activation of old": (request(softmax=True), "softmax\n.*not permitted"),
    "an unknown field": (request(bias=1), "bias\n.*not permitted"),
    "half a character": (
        {"messages": [{"role": "assistant", "content": "ab\ud800"}]},
        "surrogates not allowed|unicode",
    ),
    "half a character in a part": (request({"type": "text", "text": "\udc00"}), "surrogates not allowed|unicode"),
    "base64": (request(encoding_format="base64"), "encoding_format\n.*'float'"),
    "a cut": (request(truncate_prompt_tokens=5), "truncate_prompt_tokens\n.*not permitted"),
    "a template": (request(chat_template="x"), "chat_template\n.*not permitted"),
    "no response": ({"messages": [{"role": "user", "content": "q"}]}, "the last message is the user's"),
    "no role": ({"messages": [{"content": "q"}]}, r"messages.0.role"),
    "no content": ({"messages": [{"role": "user"}]}, r"messages.0.content"),
    "tool calls": ({"messages": [{"role": "assistant", "content": "", "tool_calls": [1]}]}, "messages.0.tool_calls"),
    "a video": (request({"type": "video_url"}), FETCHED),
    "text that is none": (request({"type": "text", "text": 1}), FETCHED),
    "no address": (request(TEXT, {"type": "image_url", "image_url": "x"}), FETCHED),
    "http": (request({"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/a.png"}}), FETCHED),
    "a file": (request({"type": "image_url", "image_url": {"url": f"file://{__file__}"}}), FETCHED),
    "text as an image": (request({"type": "image_url", "image_url": {"url": "data:text/plain;base64,AAAA"}}), FETCHED),
    "broken base64": (request({"type": "image_url", "image_url": {"url": "data:image/png;base64,A*AA"}}), "base64"),
    "no image": (request(image_part(b"AAAA")), "cannot identify image"),
    "half an image": (request(image_part(encoded(picture(0))[:-200])), "cannot be decoded"),
    "PostScript": (request(image_part(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")), "cannot identify image"),
    "a bomb": (request(image_part(png_header(60_000, 60_000))), "decompression bomb"),
    "a large image": (request(image_part(png_header(10_000, 9_000))), f"at most .*{MAX_PIXELS:,} pixels"),
    "many pixels": (request(*[image_part(png_header(9_000, 9_000))] * 2), "2 images with 162,000,000 pixels"),
    "many images": (request(*[image_part(png_header(28, 28))] * 65), "65 images with .*at most 64 are taken"),
    "a strip": (request(image_part(png_header(1, 70_000))), "65,535 a side"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("message", "words"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_requests_are_refused(message, words):
    with pytest.raises((ValueError, OSError, Image.DecompressionBombError), match=f"(?s){words}"):
        read(message)
