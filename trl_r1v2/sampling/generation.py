# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Sampling responses from a policy, prompted exactly as `GRPOTrainer` prompts it: one process, one model that holds all
of its weights (data parallelism is a set of rows a process), `transformers` generation. No tools, no environments.
"""

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from datasets import Dataset
from packaging.version import Version
from tqdm.auto import tqdm
from transformers import (
    AutoConfig,
    BatchFeature,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from .fingerprints import model_fingerprint
from .prompts import encode_prompts, read_prompt, tokenizer_of
from .rollouts import Rollout


# Older ones repeat the tiles of a batch one by one, so that copies of a prompt would see the tiles of another.
COPIES_KEEP_THEIR_TILES = Version(transformers.__version__) >= Version("5.18")


def sample_responses(
    model: PreTrainedModel, processing_class: PreTrainedTokenizerBase | ProcessorMixin, dataset: Dataset, **settings
) -> list[Rollout]:
    """The rollouts of all chunks of [`sample_chunks`], whose arguments and errors these are."""
    return [rollout for chunk in sample_chunks(model, processing_class, dataset, **settings) for rollout in chunk]


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """
    How responses are sampled, whatever the engine.

    Args:
        num_samples (`int`): Responses a prompt.
        max_new_tokens (`int`): Longest response, in tokens.
        temperature (`float`, *optional*, defaults to `1.0`): Sampling temperature.
        top_p (`float`, *optional*, defaults to `1.0`): Nucleus mass.
        do_sample (`bool`, *optional*, defaults to `True`): Whether to sample; `False` decodes greedily and needs
            `num_samples=1`.
        seed (`int`, *optional*, defaults to `0`): Seed of the sampling.
    """

    num_samples: int
    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    do_sample: bool = True
    seed: int = 0

    def __post_init__(self):
        if not self.do_sample and self.num_samples > 1:
            raise ValueError(
                f"num_samples is {self.num_samples}, but greedy decoding repeats one response: set num_samples=1"
            )


def sample_chunks(
    model: PreTrainedModel,
    processing_class: PreTrainedTokenizerBase | ProcessorMixin,
    dataset: Dataset,
    *,
    batch_size: int = 64,
    rows: Sequence[int] | None = None,
    progress: bool = True,
    prefix_ids: Mapping[int, Sequence[int]] | None = None,
    chat_template_kwargs: dict[str, Any] | None = None,
    **settings,
) -> Iterator[list[Rollout]]:
    """
    Samples `num_samples` responses to every prompt.

    Prompts, special tokens and suppressed image tokens are those of `trl.GRPOTrainer`, whose defaults also apply to
    what is not set here (`top_k=0`, no `min_p`, `repetition_penalty=1`). The images of a prompt are encoded once for
    all responses of a generation call (with transformers 5.18 or newer). Each chunk of prompts draws from its own
    random state, made from `seed` and the rows of the chunk, so a run that is resumed at a chunk border samples what
    an uninterrupted run samples; the global random state and the train/eval mode of every module are left as they
    were.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]): Policy to sample from, on its device.
        processing_class ([`~transformers.PreTrainedTokenizerBase`] or [`~transformers.ProcessorMixin`]): Tokenizer of
            a text model or processor of a vision-language model. A missing pad token is set to the end-of-sequence
            token, as TRL does.
        dataset ([`~datasets.Dataset`]): Prompts in column `prompt` (conversational, or plain text for a tokenizer);
            images in column `images` (a list, which may be empty or `None`) or `image`.
        batch_size (`int`, *optional*, defaults to `64`): Responses generated at once. A chunk is `max(1, batch_size //
            num_samples)` prompts.
        rows (`Sequence[int]`, *optional*): Dataset rows to answer, in this order. All rows by default.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.
        prefix_ids (`Mapping[int, Sequence[int]]`, *optional*): For each row, token ids that the response continues;
            they are not part of the rollout.
        chat_template_kwargs (`dict[str, Any]`, *optional*): As `GRPOConfig.chat_template_kwargs`.
        **settings: Fields of [`SamplingSettings`].

    Yields:
        `list[Rollout]`: The rollouts of each chunk as soon as they exist; prompts in the order of `rows`, the
        responses of a prompt next to each other.

    Raises:
        `ValueError`: Greedy decoding is asked for several responses, or a row cannot be rendered (broken or missing
        image, placeholders that do not match the images); the message names the row.
    """
    settings = SamplingSettings(**settings)
    tokenizer = tokenizer_of(processing_class)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    config = _generation_config(model, processing_class, settings)
    for chunk in chunks_of(rows, dataset, batch_size // settings.num_samples, progress):
        prefixes = None if prefix_ids is None else [prefix_ids[row] for row in chunk]
        prompts = [read_prompt(dataset, row, processing_class) for row in chunk]
        completions = [[] for _ in chunk]

        @functools.cache
        def encoded(times: int, prompts=prompts, prefixes=prefixes) -> dict[str, torch.Tensor]:
            """Each prompt so many times in a row."""
            shown = [prompt for prompt in prompts for _ in range(times)]
            begun = None if prefixes is None else [prefix for prefix in prefixes for _ in range(times)]
            return encode_prompts(processing_class, shown, begun, chat_template_kwargs)

        with forked_random_state(model.device), evaluation_mode(model):
            torch.manual_seed(seed_of_chunk(settings.seed, chunk))
            for done in range(0, settings.num_samples, batch_size):
                copies = min(batch_size, settings.num_samples - done)
                times, config.num_return_sequences = (1, copies) if COPIES_KEEP_THEIR_TILES else (copies, 1)
                inputs = encoded(times)
                for index, ids in enumerate(_generate(model, inputs, config)):
                    response = {"ids": ids, "finished": ids[-1] in config.eos_token_id}
                    completions[index // copies].append(response)
        yield rollouts_of(chunk, completions, processing_class)


def chunks_of(rows: Sequence[int] | None, dataset: Dataset, size: int, progress: bool) -> Iterator[list[int]]:
    """`rows` of a dataset, all by default, `size` (at least one) at a time, with a progress bar."""
    rows = list(range(len(dataset)) if rows is None else rows)
    with tqdm(total=len(rows), desc="sampling", unit="prompt", disable=not progress) as bar:
        for start in range(0, len(rows), max(1, size)):
            chunk = rows[start : start + max(1, size)]
            yield chunk
            bar.update(len(chunk))


def _generation_config(model: PreTrainedModel, processing_class, settings: SamplingSettings) -> GenerationConfig:
    """Generation settings of `trl.GRPOTrainer`: every end-of-sequence id of model and tokenizer, no image tokens."""
    tokenizer = tokenizer_of(processing_class)
    # `top_k=0` is GRPOConfig's default; left unset, generate() would take the model's own (or 50).
    sampling = {"temperature": settings.temperature, "top_p": settings.top_p, "top_k": 0} if settings.do_sample else {}
    return GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        do_sample=settings.do_sample,
        **sampling,
        repetition_penalty=1.0,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=stop_ids(model.generation_config, processing_class),
        # A sampled image token would have no image features when the response is trained on.
        suppress_tokens=[model.config.image_token_id] if isinstance(processing_class, ProcessorMixin) else None,
        disable_compile=True,
    )


def image_token_bias(path: str) -> dict[int, float]:
    """
    Logit bias by which an engine that knows no suppressed tokens never samples a model's image token; empty for a text
    model. -100 is the least that OpenAI's protocol takes: e^-100 of what the model gives the token.
    """
    token_id = AutoConfig.from_pretrained(path).to_dict().get("image_token_id")
    return {} if token_id is None else {token_id: -100.0}


def stop_ids(config: GenerationConfig, processing_class) -> list[int]:
    """The end-of-sequence ids of a model and of its tokenizer."""
    ids = [config.eos_token_id] if isinstance(config.eos_token_id, int) else list(config.eos_token_id or [])
    own = tokenizer_of(processing_class).eos_token_id
    return ids if own in ids else [own, *ids]


def seed_of_chunk(seed: int, rows: Sequence[int]) -> int:
    """Depends on nothing but the run's seed and the rows of the chunk, so chunks can be sampled in any order."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{list(rows)}".encode()).digest()[:8], "big") >> 1


@contextlib.contextmanager
def forked_random_state(device: torch.device) -> Iterator[None]:
    """Afterwards torch's random states, on the CPU and on devices like this one, are the caller's again."""
    devices = [] if device.type == "cpu" else list(range(torch.get_device_module(device.type).device_count()))
    with torch.random.fork_rng(devices=devices, device_type=device.type):
        yield


@contextlib.contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every module has the mode it had (a frozen part may be in another than the rest)."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _generate(model, inputs: dict[str, torch.Tensor], config: GenerationConfig) -> list[list[int]]:
    """Completion ids up to and including the first end-of-sequence token, the responses of a prompt in a row."""
    on_device = BatchFeature(inputs).to(model.device)
    # Weights are whole here, and processes have rows of their own: under ZeRO-3, transformers would have each wait for
    # all others after every token.
    sequences = model.generate(**on_device, generation_config=config, synced_gpus=False)
    completion_ids = sequences[:, inputs["input_ids"].shape[1] :].cpu()
    is_eos = torch.isin(completion_ids, torch.tensor(config.eos_token_id))
    keep = is_eos.int().cumsum(dim=1) - is_eos.int() == 0
    return [ids[mask].tolist() for ids, mask in zip(completion_ids, keep, strict=True)]


def rollouts_of(rows: Sequence[int], responses: Sequence[Sequence[dict]], processing_class) -> list[Rollout]:
    """Rollouts of rows from each one's responses: `ids`, whether `finished`, and the `logps` that an engine gives."""
    found = [
        (row, number, item) for row, of_row in zip(rows, responses, strict=True) for number, item in enumerate(of_row)
    ]
    texts = processing_class.batch_decode([item["ids"] for _, _, item in found], skip_special_tokens=True)
    return [
        Rollout(row, number, text, item["ids"], len(item["ids"]), item["finished"], item.get("logps"))
        for (row, number, item), text in zip(found, texts, strict=True)
    ]


class TransformersEngine:
    """Generates in this process with a policy on its device, `batch_size` responses at once."""

    def __init__(self, model: PreTrainedModel, processing_class, batch_size: int = 64):
        self.model, self.processing_class, self.batch_size = model, processing_class, batch_size
        self.fingerprint = {"model": model_fingerprint(model), "batch_size": batch_size}

    def sample_chunks(self, dataset: Dataset, **settings) -> Iterator[list[Rollout]]:
        """[`sample_chunks`] of the model."""
        return sample_chunks(self.model, self.processing_class, dataset, batch_size=self.batch_size, **settings)
