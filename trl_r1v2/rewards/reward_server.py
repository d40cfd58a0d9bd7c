# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
A reward model as an HTTP server that speaks vLLM's pooling protocol, for `trl-r1v2 serve-reward`.

`POST /pooling`, `GET /v1/models`, `GET /health`. A field that might change the score is refused, never passed over;
images come as data URLs, no address is fetched and no file opened. Does not cover encryption nor several models.
"""

import asyncio
import base64
import contextlib
import hmac
import io
import logging
import socket
from typing import Any, Literal

from PIL import Image

from ..images.processing import MAX_PIXELS, load_image


try:
    import uvicorn
    from fastapi import FastAPI, HTTPException, Request
    from fastapi.responses import JSONResponse
    from pydantic import BaseModel, Field
except ImportError as error:
    raise ImportError("serving a reward model needs fastapi and uvicorn: `pip install 'trl_r1v2[serving]'`") from error

MAX_REQUEST_BYTES = 512 * 2**20
MAX_IMAGES, MAX_SIDE = 64, 65_535  # a strip of one pixel by millions has few pixels and is resized to gigabytes
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # Pillow runs other programs for some others
logger = logging.getLogger(__name__)


class Message(BaseModel, extra="forbid"):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]]


class PoolingRequest(BaseModel, extra="forbid"):
    """What is served of vLLM's request: fields that this server follows, at the values that it follows."""

    messages: list[Message] = Field(min_length=1)
    model: str | None = None
    task: Literal["classify"] | None = None
    use_activation: Literal[False] | None = None
    add_generation_prompt: Literal[False] | None = None
    encoding_format: Literal["float"] | None = None
    priority: Any = None  # no score depends on it


def read_messages(request: PoolingRequest, sees_images: bool) -> list[dict]:
    """
    The conversation as [`~trl_r1v2.rewards.reward_model.RewardModel.score`] takes it; number and size of the images
    are checked before any is decoded. A `ValueError` says what is wrong.
    """
    messages = request.model_dump()["messages"]
    if messages[-1]["role"] != "assistant":
        raise ValueError(f"the last message is the {messages[-1]['role']}'s; it must be the assistant's: the response")
    images = []
    for message in messages:
        if isinstance(message["content"], str):
            message["content"].encode()  # half a surrogate pair is no text, and tokenizers fail at it
            if sees_images:  # as TRL writes conversations of such models
                message["content"] = [{"type": "text", "text": message["content"]}]
            continue
        for part in message["content"]:
            match part:
                case {"type": "text", "text": str(text)}:
                    text.encode()
                case {"type": "image_url", "image_url": {"url": str(url)}} if url.startswith("data:image/"):
                    data = base64.b64decode(url.partition(";base64,")[2], validate=True)
                    part |= {"type": "image", "image": Image.open(io.BytesIO(data), formats=_FORMATS)}
                    images.append(part)
                case _:
                    raise ValueError(
                        f"{str(part)[:80]} is neither text nor an image_url with a data URL; none is fetched"
                    )
    if images and not sees_images:
        raise ValueError(
            "the served model reads text only. Serve a vision-language reward model, or set `sees_images: false` and "
            "`drop_images: true` in the client to judge without images"
        )
    sizes = [part["image"].size for part in images]
    num_pixels = sum(width * height for width, height in sizes)
    if len(images) > MAX_IMAGES or num_pixels > MAX_PIXELS or any(max(size) > MAX_SIDE for size in sizes):
        raise ValueError(
            f"{len(images)} images with {num_pixels:,} pixels together; at most {MAX_IMAGES} are taken, "
            f"{MAX_PIXELS:,} pixels together and {MAX_SIDE:,} a side"
        )
    for part in images:
        part["image"] = load_image(part["image"])
    return messages


class BatchScorer:
    """Scores up to `batch_size` conversations in a batch: those that arrive within 5 ms or while the model is busy."""

    def __init__(self, model, batch_size: int):
        self.model, self.batch_size = model, batch_size
        self.num_scored = self.num_batches = 0
        self._waiting: list[tuple] = []
        self._turn = asyncio.Lock()  # taken in the order in which conversations arrive

    async def score(self, conversation: list[dict]) -> float | None:
        """The conversation's score; raises what the model raises for it."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((conversation, future))
        async with self._turn:
            if not future.done():  # else it was in the batch of an earlier one
                await asyncio.sleep(0.005)
                batch, self._waiting = self._waiting[: self.batch_size], self._waiting[self.batch_size :]
                await self._score(batch)
        return await future

    async def _score(self, batch: list[tuple]) -> None:
        self.num_batches += 1
        scoring = asyncio.to_thread(self.model.score, [conversation for conversation, _ in batch])
        (scores,) = await asyncio.gather(scoring, return_exceptions=True)
        if isinstance(scores, Exception) and len(batch) > 1:  # so that it reaches only the conversation at fault
            for entry in batch:
                await self._score([entry])
        elif isinstance(scores, Exception):
            batch[0][1].set_exception(scores)
        else:
            self.num_scored += len(batch)
            for (_, future), score in zip(batch, scores, strict=True):
                future.set_result(score)


def make_app(scorer: BatchScorer, name: str, api_key: str | None = None) -> FastAPI:
    """The application that serves a scorer's model as `name`; all but `/health` asks for the key."""
    app = FastAPI(openapi_url=None)

    @app.middleware("http")
    async def admit(request: Request, call_next):
        size = request.headers.get("content-length", "0")
        if "transfer-encoding" in request.headers or len(size) > 15 or int(size) > MAX_REQUEST_BYTES:
            return JSONResponse(f"a request has to give its length, at most {MAX_REQUEST_BYTES} bytes", 413)
        given, wanted = request.headers.get("authorization", "").encode(), f"Bearer {api_key}".encode()
        is_open = api_key is None or request.url.path == "/health"
        if is_open or hmac.compare_digest(given, wanted):
            return await call_next(request)
        return JSONResponse("the request bears no valid key: send it as `Authorization: Bearer …`", 401)

    @app.get("/health")
    async def health():
        return {}

    @app.get("/v1/models")
    async def models():
        return {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "trl_r1v2"}]}

    @app.post("/pooling")
    async def pooling(request: PoolingRequest):
        if request.model not in (None, name):
            raise HTTPException(404, f"the model {request.model!r} does not exist; {name!r} is served")
        try:
            conversation = await asyncio.to_thread(read_messages, request, scorer.model.sees_images)
        except (ValueError, OSError, Image.DecompressionBombError) as error:
            raise HTTPException(400, str(error)) from error
        try:
            score = await scorer.score(conversation)
        except Exception as error:  # answered and logged: the server lives on
            logger.exception("scoring failed")
            raise HTTPException(500, f"{type(error).__name__}: {error}") from error
        if score is None:
            error = {"message": "more tokens than are scored (`max_tokens`)", "code": "context_length_exceeded"}
            return JSONResponse({"error": error}, 400)
        return {"object": "list", "model": name, "data": [{"index": 0, "object": "pooling", "data": [score]}]}

    return app


class RewardServer(uvicorn.Server):
    """
    Serves a reward model at `url`; `run()` returns after a signal or when `should_exit` is set; port 0: any free.
    """

    def __init__(self, model, host="127.0.0.1", port=8000, batch_size=8, name="reward", api_key=None):
        self.scorer = BatchScorer(model, batch_size)
        self.socket = socket.create_server((host, port), backlog=1024)  # many processes ask at the same time
        self.url = f"http://{host}:{self.socket.getsockname()[1]}"
        app = make_app(self.scorer, name, api_key)
        super().__init__(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))

    def run(self) -> None:
        with contextlib.suppress(KeyboardInterrupt):  # raised again after what has arrived is scored
            super().run(sockets=[self.socket])
