# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Sampling with vLLM's offline engine, in a process of its own that ends with its memory when the engine is closed.

Prompts are those of `generation`, as token ids with one placeholder an image, which vLLM expands as the processor
does. The process may run in another environment than this one. Does not cover several nodes, nor adapters that are not
merged.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase, ProcessorMixin

from ..images.data_urls import encode_image
from .fingerprints import path_fingerprint
from .generation import SamplingSettings, chunks_of, image_token_bias, rollouts_of, seed_of_chunk, stop_ids
from .prompts import encode_prompts, placeholder_prompt, read_prompt
from .rollouts import EngineError, Rollout


class VLLMEngine:
    """
    Generates with vLLM, started when the first response is asked for.

    Args:
        path (`str`): Folder or Hub name of a whole model; an `EngineError` where it holds adapters alone.
        processing_class ([`~transformers.ProcessorMixin`] or [`~transformers.PreTrainedTokenizerBase`]): Its processor
            or tokenizer.
        python (`str`, *optional*): Interpreter of an environment with vLLM; by default this one.
        kwargs (`dict[str, Any]`, *optional*): Arguments of `vllm.LLM`, for example `{"tensor_parallel_size": 4,
            "max_model_len": 65536}`.
        batch_size (`int`, *optional*, defaults to `1024`): Responses handed to vLLM at once, which batches them by
            itself.
        with_logps (`bool`, *optional*, defaults to `False`): Whether rollouts hold the log-probabilities that vLLM
            sampled by.
    """

    def __init__(
        self,
        path: str,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin,
        python: str | None = None,
        kwargs: dict[str, Any] | None = None,
        batch_size: int = 1024,
        with_logps: bool = False,
    ):
        if (Path(path) / "adapter_config.json").is_file():
            raise EngineError(f"{path} holds adapters, and vLLM takes whole models: merge them, or use transformers.")
        self.path, self.processing_class, self.python = path, processing_class, python or sys.executable
        self.kwargs, self.batch_size, self.with_logps = kwargs or {}, batch_size, with_logps
        self.fingerprint = {"model": path_fingerprint(path), "vllm": self.kwargs, "with_logps": with_logps}
        self._process: subprocess.Popen | None = None

    def sample_chunks(
        self,
        dataset: Dataset,
        *,
        rows: Sequence[int] | None = None,
        progress: bool = True,
        prefix_ids: Mapping[int, Sequence[int]] | None = None,
        **settings,
    ) -> Iterator[list[Rollout]]:
        """
        As [`~trl_r1v2.sampling.generation.sample_chunks`]. Each prompt has a seed of its own; vLLM repeats its
        responses only where it forms the same batches.

        Raises:
            EngineError: vLLM is not there, ends with an error, or makes other tokens of a prompt than the processor.
        """
        settings = SamplingSettings(**settings)
        is_plain = not settings.do_sample or (settings.temperature, settings.top_p) == (1.0, 1.0)
        sampling = {
            "n": settings.num_samples,
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature if settings.do_sample else 0.0,
            "top_p": settings.top_p if settings.do_sample else 1.0,
            "stop_token_ids": self._stop_ids(),
            "logit_bias": image_token_bias(self.path),
            "logprobs": 0 if self.with_logps else None,
            "detokenize": False,
        }
        for chunk in chunks_of(rows, dataset, self.batch_size // settings.num_samples, progress):
            prefixes = [(prefix_ids or {}).get(row, []) for row in chunk]
            requests = [self._request(dataset, *pair, settings.seed) for pair in zip(chunk, prefixes, strict=True)]
            # Raw log-probabilities leave out the bias, which takes next to nothing from a trained model.
            answers = self._ask({"sampling": sampling, "requests": requests}, is_plain)
            first = next((index for index, request in enumerate(requests) if request["images"]), 0)
            self._compare_prompt(dataset, chunk[first], prefixes[first], answers[first])
            yield rollouts_of(chunk, [answer["responses"] for answer in answers], self.processing_class)

    def close(self) -> None:
        """End the process, and with it what it holds of the accelerators' memory."""
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait()
            self._process = None

    def _request(self, dataset: Dataset, row: int, prefix: Sequence[int], seed: int) -> dict[str, Any]:
        prompt_ids, images = placeholder_prompt(
            self.processing_class, read_prompt(dataset, row, self.processing_class)
        )
        encoded = [encode_image(image).partition(",")[2] for image in images]
        return {"prompt_ids": [*prompt_ids, *prefix], "images": encoded, "seed": seed_of_chunk(seed, [row]) % 2**31}

    def _stop_ids(self) -> list[int]:
        try:
            config = GenerationConfig.from_pretrained(self.path)
        except OSError:  # the model has none
            config = GenerationConfig.from_model_config(AutoConfig.from_pretrained(self.path))
        return stop_ids(config, self.processing_class)

    def _ask(self, batch: dict[str, Any], raw_logps: bool) -> list[dict[str, Any]]:
        if self._process is None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
            worker = Path(__file__).with_name("vllm_worker.py")
            self._process = subprocess.Popen([self.python, str(worker)], **pipes)
            mode = "raw_logprobs" if raw_logps else "processed_logprobs"
            self._send({"model": self.path, "logprobs_mode": mode, **self.kwargs})
        self._send(batch)
        reply = self._process.stdout.readline()
        if not reply:
            self._fail()
        return json.loads(reply)

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail()

    def _fail(self) -> None:
        code = self._process.wait()
        raise EngineError(
            f"vLLM ended with exit code {code}; what it printed stands above. It ran with {self.python}, which needs "
            "vLLM (`pip install 'trl_r1v2[vllm]'`, or name another environment's interpreter in `vllm_python`). What "
            "was sampled is kept, and the same command goes on."
        )

    def _compare_prompt(self, dataset: Dataset, row: int, prefix: Sequence[int], answer: dict[str, Any]) -> None:
        """Refuse an engine that reads other settings (tiles, image sizes) from the checkpoint than the processor."""
        prompt = read_prompt(dataset, row, self.processing_class)
        wanted = encode_prompts(self.processing_class, [prompt], [prefix])["input_ids"].shape[1]
        if answer["num_prompt_tokens"] != wanted:
            raise EngineError(
                f"row {row}: vLLM makes {answer['num_prompt_tokens']} tokens of the prompt, and the processor "
                f"{wanted}, so that the responses would answer another prompt. Compare the processor's settings with "
                "those in the model's folder, or use `generation: transformers`."
            )
