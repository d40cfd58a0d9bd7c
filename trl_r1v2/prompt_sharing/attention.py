# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Attention over a packed sequence, by the model's own attention function.

transformers' models hand the keyword arguments of their forward on to their attention function. The functions
registered here do what the ones of the same name did, unless there is a `shared_prompts` among them: then they attend
as the [`PackedLayout`] says. Activation checkpointing recomputes with the same arguments, and generation never has
this one.

Covers eager, SDPA and FlashAttention. Does not cover attention that is not causal over all earlier tokens (sliding
windows, states), which `served.py` refuses.
"""

import functools
import sys
from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flash_attention import flash_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .layout import PackedLayout


# Keyword argument by which a forward carries the layout to the attention functions.
LAYOUT = "shared_prompts"
# Models look their own eager function up without asking the registry, so sharing needs a name of its own.
EAGER = "eager_with_shared_prompts"


# What the attention calls return is kept for the backward; their inputs, copies of the packed states, are made again.
_KEPT = [
    getattr(torch.ops.aten, name).default
    for name in (
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
    )
]


def register(implementation: str) -> str:
    """
    Let an attention implementation serve packed sequences. Does nothing where it does already.

    Args:
        implementation (`str`): `"eager"`, `"sdpa"`, or a FlashAttention that transformers knows.

    Returns:
        `str`: Name under which it is registered, which the language model's config has to hold.

    Raises:
        ValueError: For another one.
    """
    if implementation in ("eager", EAGER):
        AttentionInterface.register(EAGER, _packed(_own_eager_attention, _attend_eagerly))
        AttentionMaskInterface.register(EAGER, eager_mask)
        return EAGER
    function = ALL_ATTENTION_FUNCTIONS.get(implementation)
    if function is sdpa_attention_forward:
        AttentionInterface.register(implementation, _packed(function, _attend_without_copies))
    elif function is flash_attention_forward:
        AttentionInterface.register(implementation, _packed(function, _attend_at_once))
    elif not getattr(function, "serves_packed", False):
        raise ValueError(
            f"`share_prompts=True` does not support the attention implementation {implementation!r}. Use 'sdpa', "
            "'eager' or 'flash_attention_2', or set `share_prompts=False`."
        )
    return implementation


def _packed(function: Callable, attend: Callable) -> Callable:
    @functools.wraps(function)
    def attention(module, query, key, value, attention_mask, *, shared_prompts: PackedLayout | None = None, **kwargs):
        # Some models hand the arguments on to their vision tower as well, which is not causal.
        if shared_prompts is None or not module.is_causal:
            return function(module, query, key, value, attention_mask, **kwargs)
        unserved = [name for name in ("sliding_window", "softcap", "s_aux") if kwargs.get(name) is not None]
        assert not unserved, unserved
        return attend(function, module, query, key, value, shared_prompts, **kwargs), None

    attention.serves_packed = True
    return attention


def _gather(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """States `(1, heads, T, size)` at places `(n, length)`, as `(n, heads, length, size)`."""
    chosen = states[0].transpose(0, 1).index_select(0, places.flatten())
    return chosen.view(*places.shape, *chosen.shape[1:]).transpose(1, 2)


def _attend_in_calls(function, module, query, key, value, layout: PackedLayout, **kwargs) -> torch.Tensor:
    """A padded call for each chunk of streams; `(1, T, heads, size)`."""
    outputs = [
        function(
            module,
            _gather(query, call.queries),
            _gather(key, call.keys),
            _gather(value, call.keys),
            call.mask,
            **kwargs,
        )[0]
        for call in layout.calls
    ]
    return torch.cat([output.flatten(0, 1) for output in outputs]).index_select(0, layout.places_of_calls)[None]


def _attend_without_copies(function, module, query, key, value, layout, dropout=0.0, **kwargs) -> torch.Tensor:
    if not torch.is_grad_enabled():
        return _attend_in_calls(function, module, query, key, value, layout, dropout=dropout, **kwargs)
    return checkpoint(
        functools.partial(_attend_in_calls, function, module, layout=layout, dropout=dropout, **kwargs),
        query,
        key,
        value,
        use_reentrant=False,
        preserve_rng_state=dropout > 0,
        context_fn=functools.partial(create_selective_checkpoint_contexts, _KEPT),
    )


def _attend_at_once(function, module, query, key, value, layout, position_ids=None, **kwargs) -> torch.Tensor:
    """One call over sequences of different lengths. FlashAttention aligns its causal mask with the last key."""
    varlen = dict(layout.varlen)
    keys = varlen.pop("keys")
    return function(module, query, key[:, :, keys], value[:, :, keys], None, is_causal=True, **varlen, **kwargs)[0]


def _own_eager_attention(module: torch.nn.Module, *args, **kwargs):
    """The eager attention function of the file that defines the module."""
    return sys.modules[type(module).__module__].eager_attention_forward(module, *args, **kwargs)


def _attend_eagerly(function, module, query, key, value, layout, **kwargs) -> torch.Tensor:
    def with_additive_mask(module, query, key, value, mask, **kwargs):
        if mask is None:
            mask = torch.ones(query.size(2), key.size(2), dtype=torch.bool, device=query.device).tril()
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, torch.finfo(query.dtype).min)
        return function(module, query, key, value, mask, **kwargs)

    return _attend_in_calls(with_additive_mask, module, query, key, value, layout, **kwargs)
