# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""What `evaluate`, `filter-prompts` and `pairs` generate with, opened from the arguments that they share."""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoProcessor
from transformers.hf_argparser import HfArg
from trl.trainer.utils import create_model_from_path

from ..sampling.generation import TransformersEngine, image_token_bias
from ..sampling.prompts import tokenizer_of
from ..sampling.rollouts import EngineError
from ..sampling.vllm_engine import VLLMEngine
from ..vlm.peft_folder import is_peft_folder, load_merged
from .recipe import RecipeError


@dataclass(kw_only=True)
class GenerationArguments:
    """Arguments of commands that generate responses to the prompts of a dataset."""

    dataset_name: str = HfArg(help="Prompts: folder, file or Hub name of a dataset, as `load_dataset` takes it.")
    output_dir: str = HfArg(help="Folder for the result and the rollouts.")
    model_name_or_path: str | None = HfArg(
        default=None,
        help="Model to sample from: a folder or a name on the Hub; a folder of PEFT adapters is merged into its base. "
        "With `generation: server`: the name under which the server knows it.",
    )
    dtype: str = HfArg(
        default="auto",
        help="Number format of the weights; `auto` takes the checkpoint's.",
        metadata={"choices": ["auto", "bfloat16", "float16", "float32"]},
    )
    attn_implementation: str | None = HfArg(default=None, help="Attention, e.g. `sdpa` or `flash_attention_2`.")
    dataset_config: str | None = HfArg(default=None, help="Configuration of the dataset.")
    dataset_split: str = HfArg(default="train", help="Split of the dataset.")
    num_samples: int = HfArg(default=8, help="Responses to sample for each prompt.")
    max_new_tokens: int = HfArg(default=1024, help="Longest response, in tokens.")
    temperature: float = HfArg(default=1.0, help="Sampling temperature, above 0.")
    top_p: float = HfArg(default=1.0, help="Nucleus mass of the sampling, in (0, 1].")
    batch_size: int = HfArg(default=64, help="Responses that a process generates and scores at once.")
    seed: int = HfArg(default=0, help="Seed of the sampling and of every later choice.")

    generation: str = HfArg(
        default="transformers",
        help="What generates: transformers in this process, vLLM's offline engine in one of its own, or an "
        "OpenAI-compatible server.",
        metadata={"choices": ["transformers", "vllm", "server"]},
    )
    vllm_python: str | None = HfArg(default=None, help="Interpreter that has vLLM. Unset: this one.")
    vllm_kwargs: dict | None = HfArg(default=None, help="Arguments of `vllm.LLM`: `{max_model_len: 65536}`.")
    vllm_batch_size: int = HfArg(default=1024, help="Responses handed to vLLM at once.")
    server_url: str | None = HfArg(default=None, help="Address with the version: `http://localhost:8000/v1`.")
    server_api_key_env: str | None = HfArg(default=None, help="Environment variable with its key. Unset: none.")
    server_concurrency: int = HfArg(default=16, help="Requests under way at once.")
    server_timeout: float = HfArg(default=3600.0, help="Seconds to wait for one response.")
    server_max_retries: int = HfArg(default=10, help="Times that a failed request is sent again.")
    server_extra_body: dict | None = HfArg(default=None, help="Further fields of its requests: `{top_k: 20}`.")

    def __post_init__(self):
        self.check_at_least(1, "max_new_tokens", "batch_size", "server_concurrency", "vllm_batch_size")
        if self.temperature <= 0:
            raise ValueError(f"`temperature` is {self.temperature}, but must be above 0")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"`top_p` is {self.top_p}, but must be in (0, 1]")
        if (self.generation == "server") != (self.server_url is not None):
            raise ValueError("`generation: server` and `server_url` belong together: set both or neither")

    def check_at_least(self, least: int, *names: str) -> None:
        """Refuse smaller values of these arguments; an unset one passes."""
        for name in names:
            value = vars(self)[name]
            if value is not None and value < least:
                raise ValueError(f"`{name}` is {value}, but must be at least {least}")


@contextlib.contextmanager
def open_engine(
    args: GenerationArguments, device, revision: str | None = None, with_logps: bool = False
) -> Iterator[Any]:
    """
    The engine that the arguments of a command name, which ends with the block: `sample_chunks` as in
    `sampling.generation`, a `fingerprint` that stored rollouts share, and the `processing_class` of its prompts, if
    that is known here.
    """
    path = args.model_name_or_path
    if path is None:
        raise RecipeError("sampling needs a model: set `model_name_or_path`")
    with contextlib.ExitStack() as stack:
        try:
            if args.generation == "server":
                engine = _chat_server(args, path)
            elif args.generation == "vllm":
                processing_class = AutoProcessor.from_pretrained(path, revision=revision)
                kwargs = {"dtype": args.dtype, "revision": revision, **(args.vllm_kwargs or {})}
                engine = VLLMEngine(path, processing_class, args.vllm_python, kwargs, args.vllm_batch_size, with_logps)
                stack.callback(engine.close)
            else:
                kwargs = {"dtype": args.dtype, "attn_implementation": args.attn_implementation}
                engine = TransformersEngine(*load_policy(path, device, revision, **kwargs), args.batch_size)
            yield engine
        except EngineError as error:  # one line rather than a traceback: it names the remedy
            raise RecipeError(str(error)) from error


def _chat_server(args: GenerationArguments, path: str):
    from ..sampling.server import ChatServer  # needs openai

    extra = dict(args.server_extra_body or {})
    if Path(path).is_dir():  # the model's own folder, by whose name vLLM and transformers serve it
        extra |= {"logit_bias": {**image_token_bias(path), **extra.get("logit_bias", {})}}
    limits = args.server_concurrency, args.server_timeout, args.server_max_retries
    return ChatServer(args.server_url, path, args.server_api_key_env, *limits, extra_body=extra)


def load_policy(path: str, device, revision: str | None = None, **kwargs: Any) -> tuple:
    """
    Loads a model to run it and its processor or tokenizer; a folder of PEFT adapters is merged into its base model.
    """
    kwargs |= {"device_map": None} | ({} if revision is None else {"revision": revision})
    create = functools.partial(create_model_from_path, **kwargs)
    model = load_merged(path, create) if is_peft_folder(path) else create(path)
    processing_class = AutoProcessor.from_pretrained(path, revision=revision)
    tokenizer = tokenizer_of(processing_class)
    if tokenizer.pad_token is None:  # as TRL's trainers pad then
        tokenizer.pad_token = tokenizer.eos_token
    return model.to(device), processing_class
