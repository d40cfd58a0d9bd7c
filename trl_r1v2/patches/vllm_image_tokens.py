# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Image tokens between TRL 1.16's `GRPOTrainer` and a colocated vLLM.

TRL hands vLLM prompts whose image tokens the processor has already expanded, together with the images; vLLM takes the
first token of each run for a placeholder and expands it again, so that it answers another prompt than the one trained
on (TRL #6294 and #6401). Here vLLM gets the prompt as the tokenizer alone makes it, one placeholder an image. Can go
with the release that holds TRL #6718.

TRL keeps image tokens from being sampled by transformers, where one would ask for features that are not there in the
next forward; under vLLM it does not. Here vLLM does not sample them either. That renormalises its processed
log-probabilities over the other tokens, so the raw ones are taken where nothing else changes the distribution.

Does not cover the prompts of a server: TRL sends it features, and needs the expanded prompt to place them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from trl.data_utils import prepare_multimodal_messages
from trl.generation import vllm_generation
from trl.import_utils import is_vllm_available


# The least that OpenAI's protocol, and with it every server, takes: e^-100 of what the model gives the token.
NEVER = -100.0


@contextmanager
def _engines_with(settings: Callable[[], dict[str, Any]]) -> Iterator[None]:
    """Have TRL, which fixes most arguments of the engine it makes, make it with `settings()`."""
    if not is_vllm_available():
        yield
        return
    make_engine = vllm_generation.LLM
    vllm_generation.LLM = lambda **kwargs: make_engine(**(kwargs | settings()))
    try:
        yield
    finally:
        vllm_generation.LLM = make_engine


class VLLMImageTokensMixin:
    """
    For classes on [`~trl.GRPOTrainer`]: a colocated vLLM answers the prompts that are trained on, and no vLLM samples
    image tokens. Models that take text alone are not touched.
    """

    def __init__(self, *args, **kwargs):
        with _engines_with(self._engine_settings):
            super().__init__(*args, **kwargs)
        if not (self.use_vllm and self._is_vlm):
            return
        engine = self.vllm_generation
        bias = {self.model.config.image_token_id: NEVER} | engine.generation_kwargs.get("logit_bias", {})
        engine.generation_kwargs = engine.generation_kwargs | {"logit_bias": bias}
        if self.vllm_mode == "colocate":
            self._placeholder_prompts: dict[tuple[int, ...], list[int]] = {}
            self._generate_as_handed = engine.generate
            engine.generate = self._generate_from_placeholders

    def _engine_settings(self) -> dict[str, Any]:
        """`logprobs_mode="raw_logprobs"` where raw log-probabilities are those of the distribution sampled from."""
        args = self.args
        is_plain = (args.temperature, args.top_p, args.repetition_penalty) == (1, 1, 1)
        is_plain = is_plain and not (args.top_k or args.min_p or args.generation_kwargs)
        is_plain = is_plain and args.vllm_structured_outputs_regex is None
        return {"logprobs_mode": "raw_logprobs"} if self._is_vlm and is_plain else {}

    def _tokenize_prompts(self, prompts):
        prompt_ids, images, multimodal_fields = super()._tokenize_prompts(prompts)
        if images is not None and self.use_vllm and self.vllm_mode == "colocate":
            placeholder_prompts = map(self._placeholder_prompt, prompts)
            self._placeholder_prompts = dict(zip(map(tuple, prompt_ids), placeholder_prompts, strict=True))
        return prompt_ids, images, multimodal_fields

    def _placeholder_prompt(self, prompt: list[dict[str, Any]]) -> list[int]:
        """The prompt by the tokenizer alone, which leaves each image the one placeholder of the chat template."""
        text = self.processing_class.apply_chat_template(
            prepare_multimodal_messages(prompt),
            tools=self.tools or None,
            chat_template=self.chat_template,
            add_generation_prompt=True,
            tokenize=False,
            **self.chat_template_kwargs,
        )
        begins = self._tokenizer.bos_token is not None and text.startswith(self._tokenizer.bos_token)
        return self._tokenizer(text, add_special_tokens=not begins)["input_ids"]

    def _generate_from_placeholders(self, prompts, images, num_generations, profiler=None):
        if images is None:
            return self._generate_as_handed(prompts, images, num_generations, profiler)
        handed = [self._with_placeholders(ids) for ids in prompts]
        expanded, *generated = self._generate_as_handed(handed, images, num_generations, profiler)
        for ours, engines in zip(prompts, expanded, strict=True):
            if ours != list(engines):
                raise ValueError(
                    f"vLLM made {len(engines)} tokens of a prompt with images of which the processor makes "
                    f"{len(ours)}, so its completions would be answers to another prompt than the one trained on. "
                    "Images in a tool's answer are not covered; otherwise compare the processor's settings (tiles, "
                    "image sizes) with those that vLLM reads from the checkpoint, or train with `use_vllm: false`."
                )
        return prompts, *generated

    def _with_placeholders(self, ids: list[int]) -> list[int]:
        """`ids`, which begin with a prompt of this batch and may go on with turns after it."""
        for expanded, placeholders in self._placeholder_prompts.items():
            if tuple(ids[: len(expanded)]) == expanded:
                return placeholders + ids[len(expanded) :]
        raise AssertionError("a prompt that was not tokenized")
