# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""What `evaluate`, `filter-prompts` and `pairs` generate with, opened from their arguments."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.hf_argparser import HfArg

from ..sampling.rollouts import EngineError
from .recipe import RecipeError


GENERATIONS = ("transformers", "vllm", "server")


@dataclass(kw_only=True)
class GenerationArguments:
    """Arguments of commands that generate responses."""

    generation: str = HfArg(
        default="transformers",
        help="What generates: transformers in this process, vLLM's offline engine in one of its own, or an "
        "OpenAI-compatible server.",
        metadata={"choices": list(GENERATIONS)},
    )
    vllm_python: str | None = HfArg(
        default=None, help="Interpreter of an environment with vLLM, for `generation: vllm`. Unset: this one."
    )
    vllm_kwargs: dict | None = HfArg(
        default=None, help="Arguments of `vllm.LLM`, e.g. `{tensor_parallel_size: 4, max_model_len: 65536}`."
    )
    vllm_batch_size: int = HfArg(default=1024, help="Responses handed to vLLM at once.")
    server_url: str | None = HfArg(
        default=None, help="Address for `generation: server`, with the version: `http://localhost:8000/v1`."
    )
    server_api_key_env: str | None = HfArg(
        default=None, help="Environment variable with the server's key. Unset: none is sent."
    )
    server_concurrency: int = HfArg(default=16, help="Requests under way at once.")
    server_timeout: float = HfArg(default=3600.0, help="Seconds to wait for one response.")
    server_max_retries: int = HfArg(default=10, help="Times that a failed request is sent again.")
    server_extra_body: dict | None = HfArg(
        default=None, help="Further fields of every request to the server, e.g. `{top_k: 20}`."
    )

    def __post_init__(self):
        if self.generation not in GENERATIONS:
            raise ValueError(f"`generation` is {self.generation!r}; give one of {', '.join(GENERATIONS)}")
        if (self.generation == "server") != (self.server_url is not None):
            raise ValueError("`generation: server` and `server_url` belong together: set both or neither")
        for name in ("server_concurrency", "vllm_batch_size"):
            if vars(self)[name] < 1:
                raise ValueError(f"`{name}` is {vars(self)[name]}, but must be at least 1")


@contextlib.contextmanager
def open_engine(args, device, revision: str | None = None, with_logps: bool = False) -> Iterator:
    """
    The engine that [`GenerationArguments`] of a command name; what it started ends with it.

    An engine has `sample_chunks` as [`~trl_r1v2.sampling.generation.sample_chunks`] has it, a `fingerprint` that stored
    rollouts share, and the `processing_class` of its prompts, if that is known here.
    """
    path = args.model_name_or_path
    if path is None:
        raise RecipeError("sampling needs a policy: set `model_name_or_path`")
    engine = {"server": _open_server, "vllm": _open_vllm, "transformers": _open_transformers}[args.generation]
    try:
        with engine(args, path, device, revision, with_logps) as opened:
            yield opened
    except EngineError as error:  # one line rather than a traceback: it names the remedy
        raise RecipeError(str(error)) from error


@contextlib.contextmanager
def _open_server(args, path, device, revision, with_logps) -> Iterator:
    from ..sampling.generation import image_token_bias
    from ..sampling.server import ChatServer

    extra = dict(args.server_extra_body or {})
    if Path(path).is_dir():  # the model's own folder, by whose name vLLM and transformers serve it
        extra |= {"logit_bias": {**image_token_bias(path), **extra.get("logit_bias", {})}}
    yield ChatServer(
        args.server_url,
        path,
        api_key_env=args.server_api_key_env,
        concurrency=args.server_concurrency,
        timeout=args.server_timeout,
        max_retries=args.server_max_retries,
        extra_body=extra,
    )


@contextlib.contextmanager
def _open_vllm(args, path, device, revision, with_logps) -> Iterator:
    from transformers import AutoProcessor

    from ..sampling.vllm_engine import VLLMEngine

    processing_class = AutoProcessor.from_pretrained(path, revision=revision)
    kwargs = {"dtype": args.dtype, "revision": revision, **(args.vllm_kwargs or {})}
    engine = VLLMEngine(path, processing_class, args.vllm_python, kwargs, args.vllm_batch_size, with_logps)
    with contextlib.closing(engine):
        yield engine


@contextlib.contextmanager
def _open_transformers(args, path, device, revision, with_logps) -> Iterator:
    from ..sampling.generation import TransformersEngine

    kwargs = {"dtype": args.dtype, "attn_implementation": args.attn_implementation}
    yield TransformersEngine(*load_policy(path, device, revision, **kwargs), args.batch_size)


def load_policy(path: str, device, revision: str | None = None, **kwargs: Any) -> tuple:
    """
    Loads a model to run it and its processor or tokenizer; a folder of PEFT adapters is merged into its base
    model. A tokenizer without a padding token pads with its end of sequence.
    """
    from transformers import AutoProcessor, ProcessorMixin

    from .loading import load_model

    model = load_model(path, device_map=None, **({} if revision is None else {"revision": revision}), **kwargs)
    processing_class = AutoProcessor.from_pretrained(path, revision=revision)
    tokenizer = processing_class.tokenizer if isinstance(processing_class, ProcessorMixin) else processing_class
    if tokenizer.pad_token is None:  # as TRL's trainers pad then
        tokenizer.pad_token = tokenizer.eos_token
    return model.to(device), processing_class
