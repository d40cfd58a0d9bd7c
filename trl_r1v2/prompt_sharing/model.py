# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
A model that takes padded rows and runs them packed, each shared prompt once.

Stands where a trainer calls `model(**inputs, labels=labels, fused_lm_head=True)` and returns what that returns, and
where `generate` fills its cache. Does not cover other forwards that return logits.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import gather_object, is_peft_model
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from .attention import LAYOUT, register
from .images import RowImages
from .layout import PackedLayout, Segment, group_rows, pack_rows, row_bounds, split_groups


logger = logging.get_logger(__name__)

# Decoders whose every layer attends to all earlier tokens through transformers' attention functions, and models of
# images around them whose image tokens `images.py` counts. The tests compare each with its unshared forward.
DECODERS = ("llama", "mistral", "qwen2", "qwen2_vl_text", "qwen2_5_vl_text", "qwen3", "qwen3_moe")
WITH_IMAGES = ("internvl", "qwen2_vl", "qwen2_5_vl")
WITH_MROPE = ("qwen2_vl", "qwen2_5_vl")
_OF_IMAGES = ("pixel_values", "image_grid_thw", "mm_token_type_ids")
# What `generate` may be asked for where prompts are shared: one sequence a row, token by token, from the usual cache.
_PLAIN_GENERATION = {
    "use_cache": (True, None),
    "num_beams": (1, None),
    "num_return_sequences": (1, None),
} | dict.fromkeys(
    (
        "past_key_values",
        "cache_implementation",
        "prefill_chunk_size",
        "assistant_model",
        "assistant_early_exit",
        "prompt_lookup_num_tokens",
        "custom_generate",
        "dola_layers",
        "penalty_alpha",
    ),
    (None,),
)
# Others choose their frequencies by the longest row of a batch; "dynamic" does beyond the positions it was trained on.
ROPE_TYPES = ("default", "linear", "llama3", "yarn", "dynamic")


class PromptSharing:
    """
    Lets models run rows that share a prompt as one packed sequence.

    Args:
        *models ([`~transformers.PreTrainedModel`]):
            Of one architecture, the policy and its reference for instance, before they are wrapped for distributed
            training.

    Raises:
        ValueError: If a model cannot be served; the message says why.
    """

    def __init__(self, *models: PreTrainedModel):
        for model in models:
            reason = refusal(model)
            if reason is not None:
                raise ValueError(f"`share_prompts=True` cannot serve this model: {reason}. Set `share_prompts=False`.")
            decoder = _base(model).get_decoder()
            decoder.config._attn_implementation = register(decoder.config._attn_implementation)
        self._model = _base(models[0])
        config = self._model.config
        self._image_token_id = config.image_token_id if config.model_type in WITH_IMAGES else None
        self._has_mrope = config.model_type in WITH_MROPE
        self._merge_size = config.vision_config.spatial_merge_size if self._has_mrope else 1
        text = config.get_text_config()
        self._longest = text.max_position_embeddings if _rope_type(text) == "dynamic" else None

    def wrap(self, model: Callable) -> Callable:
        """
        A stand-in for a model, or for what wraps it, in calls `model(..., labels=labels, fused_lm_head=True)`.

        It takes `input_ids`, `attention_mask`, `labels` and what the processor makes of images; the answers are what
        has labels. The per-token fields of what it returns have the shape that they would have without it.
        """

        def forward(input_ids, attention_mask, labels, **inputs):
            if self._is_too_long(attention_mask):
                return model(input_ids=input_ids, attention_mask=attention_mask, labels=labels, **inputs)
            layout, packed = self._pack(input_ids, attention_mask, labels != -100, inputs)
            packed["labels"] = layout.pack(labels).masked_fill(~layout.is_answer, -100)
            outputs = model(**packed)
            fields = {name: layout.unpack(value) if value.ndim == 2 else value for name, value in outputs.items()}
            return type(outputs)(**fields)

        return forward

    def wrap_scores(self, model: Callable, num_pairs: int) -> Callable:
        """
        A stand-in for a model that scores rows `[chosen; rejected; others]` off their last tokens.

        The two of a pair share all that they have in common at their start; others share nothing.
        """

        def forward(input_ids, attention_mask, margin=None, **inputs):
            if self._is_too_long(attention_mask):
                return model(input_ids=input_ids, attention_mask=attention_mask, **inputs)
            is_answer = after_common_start(input_ids, attention_mask, num_pairs)
            _, packed = self._pack(input_ids, attention_mask, is_answer, inputs)
            return model(**packed)

        return forward

    def _is_too_long(self, attention_mask: torch.Tensor) -> bool:
        """Whether a row is longer than a model can run shared with its rotary embeddings of type `"dynamic"`."""
        if self._longest is None or (length := int(attention_mask.sum(dim=1).max())) <= self._longest:
            return False
        logger.warning_once(
            f"A row of {length} tokens is longer than the {self._longest} up to which this model's rotary embeddings "
            "stay as they are: batches with such rows run without shared prompts."
        )
        return True

    @contextmanager
    def in_generate(self) -> Iterator[None]:
        """
        Within it, `generate` of the first model runs a prompt once for its rows, but for the prompt's last token.

        Rows go on from copies of what their prompt left in the cache. A call that asks for another cache than the
        usual one, for another way to decode, or for other sequences than one for each row, stays as it is. All
        processes call it together, with `input_ids` and `attention_mask` by name.
        """
        model, generate, own = self._model, self._model.generate, vars(self._model).get("generate")

        def with_shared_prompts(*args, **inputs):
            # What a call does not set, its configuration does, and what that leaves open, the model's.
            configs = [inputs.get("generation_config"), model.generation_config]
            for name, plain in _PLAIN_GENERATION.items():
                asked = [inputs.get(name), *(getattr(config, name, None) for config in configs)]
                if next((value for value in asked if value is not None), None) not in plain:
                    return generate(*args, **inputs)
            return generate(*args, **self._prefill(**inputs))

        model.generate = with_shared_prompts
        try:
            yield
        finally:
            del model.generate
            if own is not None:
                model.generate = own

    @torch.no_grad()
    def _prefill(self, input_ids, attention_mask, **inputs) -> dict[str, Any]:
        """The prompts' pass. Returns what is left for `generate`."""
        bounds = row_bounds(attention_mask.cpu(), torch.zeros_like(attention_mask, device="cpu"))
        groups, images = self._group(input_ids.cpu(), bounds, inputs)
        positions, deltas = self._positions(input_ids, attention_mask, inputs)
        of_images = {name: inputs.pop(name) for name in _OF_IMAGES if inputs.get(name) is not None}
        left = {"input_ids": input_ids, "attention_mask": attention_mask, **inputs}
        ends_with_image = images is not None and bool((input_ids[:, -1] == self._image_token_id).any())
        is_refused = ends_with_image or self._is_too_long(attention_mask) or _tensors(inputs) or input_ids.size(1) < 2
        if any(gather_object([bool(is_refused)])):  # where parameters are sharded, all come to as many forwards
            return left | of_images
        chosen, places = [group[0] for group in groups], torch.empty(len(input_ids), dtype=torch.long)
        for place, group in enumerate(groups):
            places[group] = place
        segments = [Segment(row, *bounds[row][::2], 0) for row in chosen]
        cache = DynamicCache(config=self._model.config.get_text_config(decoder=True))
        self._model(
            input_ids=input_ids[chosen, :-1],
            attention_mask=attention_mask[chosen, :-1],
            position_ids=positions[..., chosen, :-1],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            **(images.select(segments) if images is not None else {}),
        )
        if cache.get_seq_length() == 0:  # activation checkpointing drops it
            return left | of_images
        cache.batch_select_indices(places.to(input_ids.device))
        if self._has_mrope:
            self._model.model.rope_deltas = deltas
        return {**left, "past_key_values": cache}

    def _positions(self, input_ids, attention_mask, inputs) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions of shape `(..., B, S)`, and what mRoPE adds to the number of a token after them, `(B, 1)`."""
        types, grid = inputs.get("mm_token_type_ids"), inputs.get("image_grid_thw")
        if self._has_mrope and types is not None and grid is not None:
            return self._model.model.get_rope_index(
                input_ids, types, image_grid_thw=grid, attention_mask=attention_mask
            )
        positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
        return positions, torch.zeros_like(positions[:, :1])

    def _lay_out(self, input_ids, attention_mask, is_answer, inputs) -> tuple[PackedLayout, RowImages | None]:
        bounds = row_bounds(attention_mask.cpu(), is_answer.cpu())
        groups, images = self._group(input_ids.cpu(), bounds, inputs)
        return pack_rows(bounds, groups, input_ids.size(1), input_ids.device), images

    def _group(self, ids, bounds, inputs) -> tuple[list[list[int]], RowImages | None]:
        """Rows that share a prompt and its images, from ids on the CPU."""
        groups, images = group_rows(ids, bounds), None
        if inputs.get("pixel_values") is not None:
            is_image = ids == self._image_token_id
            images = RowImages(inputs, is_image, self._merge_size)
            prompts = [Segment(row, start, boundary, 0) for row, (start, boundary, _) in enumerate(bounds)]

            def share(first: int, second: int) -> bool:
                # A last token that stands for an image would be repeated, and the image is not.
                ends_with_image = is_image[first, bounds[first][1] - 1]
                return not ends_with_image and images.are_equal(prompts[first], prompts[second])

            groups = split_groups(groups, share)
        return groups, images

    def _pack(self, input_ids, attention_mask, is_answer, inputs: dict[str, Any]) -> tuple[PackedLayout, dict]:
        layout, images = self._lay_out(input_ids, attention_mask, is_answer, inputs)
        positions, _ = self._positions(input_ids, attention_mask, inputs)
        inputs.pop("mm_token_type_ids", None)
        if images is not None:
            inputs.update(images.select(layout.segments))
        if unknown := sorted(_tensors(inputs) - set(_OF_IMAGES)):
            raise ValueError(
                f"the batch holds {unknown}, which `share_prompts=True` does not know how to pack. Set it to False."
            )
        # Models return a mask of four dimensions as it is; one without entries fails in every attention but ours.
        no_mask = attention_mask.new_empty(1, 1, 0, 0)
        packed = {"input_ids": layout.pack(input_ids), "position_ids": layout.pack(positions), **inputs}
        return layout, {**packed, "attention_mask": no_mask, LAYOUT: layout}


def _tensors(inputs: dict[str, Any]) -> set[str]:
    return {name for name, value in inputs.items() if isinstance(value, torch.Tensor)}


def refusal(model: PreTrainedModel) -> str | None:
    """Why the packed forward of a model might differ from its unpacked one, or `None`."""
    config = _base(model).config
    text = config.get_text_config()
    settings = text.to_dict()
    layer_types = set(settings.get("layer_types") or ["full_attention"])
    rope_type = _rope_type(text)
    if is_peft_model(model) and model.active_peft_config.is_prompt_learning:
        return "prompt-learning PEFT puts tokens of its own in front of every row"
    if config.model_type not in (*DECODERS, *WITH_IMAGES) or text.model_type not in DECODERS:
        served = ", ".join((*DECODERS, *WITH_IMAGES))
        return f"models of type {config.model_type!r} ({text.model_type!r}) are not among those it serves ({served})"
    if layer_types != {"full_attention"}:
        return f"layers of type {sorted(layer_types - {'full_attention'})} do not attend to all earlier tokens"
    if settings.get("sliding_window") is not None:
        return f"the model attends within a sliding window of {settings['sliding_window']} tokens"
    if rope_type not in ROPE_TYPES:
        return f"rotary embeddings of type {rope_type!r} depend on the longest row of a batch"
    return None


def _rope_type(config: PreTrainedConfig) -> str:
    return (config.to_dict().get("rope_parameters") or {}).get("rope_type", "default")


def _base(model: PreTrainedModel) -> PreTrainedModel:
    return model.get_base_model() if is_peft_model(model) else model


def after_common_start(input_ids: torch.Tensor, attention_mask: torch.Tensor, num_pairs: int) -> torch.Tensor:
    """Which tokens of rows `[chosen; rejected; others]` come after what the two of a pair have in common, `(B, S)`."""
    tokens = attention_mask.bool()
    is_answer = torch.zeros_like(tokens)
    for chosen in range(num_pairs):
        pair = (chosen, chosen + num_pairs)
        first, second = (input_ids[row][tokens[row]] for row in pair)
        shorter = min(len(first), len(second))
        common = int((first[:shorter] == second[:shorter]).long().cumprod(0).sum())
        for row in pair:
            is_answer[row, tokens[row].nonzero().flatten()[common:]] = True
    return is_answer
