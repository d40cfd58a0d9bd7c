# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
A frozen vision tower encodes each distinct tile once.

In GRPO the same tile passes the tower in generation for every completion of its group, again in the policy pass, the
old log-probability pass and the reference pass, and again whenever a row is replayed. With a frozen tower all of these
give the same features. The cache wraps the tower's forward, keys tiles by a hash of their bytes taken on their device,
and keeps features up to a number of bytes, least recently used out first.

It steps aside, forward by forward, whenever reuse could be wrong: a parameter of the tower requires a gradient, the
input does, dropout is active, or the caller asks for hidden states or attentions. It drops what it holds when the
tower's weights change. Not covered: towers whose tiles depend on each other (Qwen-VL's packed windows), FSDP1, and
features after the adapter, which trains.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch.distributed.tensor import DTensor
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.utils import ModelOutput, is_peft_available

from ..images.tile_hash import TileHasher


@dataclass
class _Tower:
    """A wrapped tower: its own forward, the weights it was last seen with, and whose features it may share."""

    module: torch.nn.Module
    own_forward: Callable
    was_wrapped: bool
    weights: list[tuple[torch.nn.Parameter, int]] = field(default_factory=list)
    space: int = 0

    def current_weights(self) -> list[tuple[torch.nn.Parameter, int]]:
        """The parameters with their in-place version; tensors made in inference mode have none and cannot change."""
        return [(p, 0 if p.is_inference() else p._version) for p in self.module.parameters()]

    def is_current(self) -> bool:
        def identities(weights):
            return [(id(parameter), version) for parameter, version in weights]

        return identities(self.current_weights()) == identities(self.weights)


# Where each field of an output finds its tensor: a position, or one (or nothing) for each element of a tuple.
_Layout = dict[str, int | tuple[int | None, ...]]


@dataclass
class _Entry:
    """The features of one tile and how to make an output of them."""

    output_class: type
    layout: _Layout
    features: tuple[torch.Tensor, ...]

    @property
    def nbytes(self) -> int:
        return sum(value.numel() * value.element_size() for value in self.features)


class VisionCache:
    """
    Features of tiles, shared by every tower it is installed on whose weights are equal (a policy and its reference).

    Args:
        max_bytes (`int`, *optional*, defaults to 2 GB): Most bytes of features to keep.
        device (`str` or `torch.device`, *optional*): Device that keeps them; by default the tile's.
    """

    def __init__(self, max_bytes: int = 2 * 10**9, device: str | torch.device | None = None):
        if max_bytes <= 0:
            raise ValueError(f"max_bytes is {max_bytes}; it must be positive.")
        self.max_bytes = max_bytes
        self.device = None if device is None else torch.device(device)
        self.num_tiles = self.num_encoded = self.num_bypassed = self.num_evicted = self.num_bytes = 0
        self._entries: OrderedDict[tuple, _Entry] = OrderedDict()
        self._towers: list[_Tower] = []
        self._num_spaces = 0
        self._hasher = TileHasher()

    def install(self, model: torch.nn.Module, tower: torch.nn.Module | None = None) -> None:
        """
        Wrap the forward of the vision tower of `model`, which may itself be wrapped (PEFT, DDP); `tower` is needed
        where it is not called `vision_tower`. A `ValueError` when no tower is found, it is wrapped already, or it
        carries PEFT layers, whose output depends on whether they are switched on.
        """
        tower = find_tower(model) if tower is None else tower
        if any(known.module is tower for known in self._towers):
            raise ValueError("the cache is on this tower already; uninstall it first.")
        _refuse_tuners(tower)
        known = _Tower(tower, tower.forward, was_wrapped="forward" in vars(tower))
        tower.forward = lambda pixel_values, **kwargs: self._forward(known, pixel_values, kwargs)
        self._towers.append(known)

    def uninstall(self) -> None:
        """Give every tower its own forward back and drop the features."""
        for known in self._towers:
            if known.was_wrapped:
                known.module.forward = known.own_forward
            else:
                del known.module.forward
        self._towers.clear()
        self.clear()

    @contextmanager
    def installed(self, *models: torch.nn.Module) -> Iterator["VisionCache"]:
        """The cache installed on `models` within a `with` block."""
        try:
            for model in models:
                self.install(model)
            yield self
        finally:
            self.uninstall()

    def clear(self) -> None:
        """Drop the features; counters stay."""
        self._entries.clear()
        self.num_bytes = 0

    def metrics(self) -> dict[str, float]:
        """Counters since the cache was made."""
        names = ("tiles", "encoded", "bypassed_forwards", "evicted", "bytes")
        counts = (self.num_tiles, self.num_encoded, self.num_bypassed, self.num_evicted, self.num_bytes)
        return {f"vision_cache/{name}": float(count) for name, count in zip(names, counts, strict=True)}

    def _forward(self, known: _Tower, pixel_values: torch.Tensor, kwargs: dict):
        if not self._may_reuse(known, pixel_values, kwargs):
            self.num_bypassed += 1
            return known.own_forward(pixel_values, **kwargs)
        self._follow_weights(known)
        keys = self._keys(known, pixel_values, kwargs)
        self.num_tiles += len(keys)
        found: dict[tuple, _Entry] = {}
        missing: dict[tuple, int] = {}
        for row, key in enumerate(keys):
            if key in self._entries:
                self._entries.move_to_end(key)
                found[key] = self._entries[key]
            else:
                missing.setdefault(key, row)
        if _any_rank(bool(missing), known.module, pixel_values.device):
            entries = self._encode(known, pixel_values, list(missing.values()), kwargs)
            for key, entry in zip(missing, entries, strict=True):
                found[key] = entry
                self._store(key, entry)
        first, device = found[keys[0]], pixel_values.device
        stacked = [torch.stack([value.to(device) for value in of_tiles])
                   for of_tiles in zip(*(found[key].features for key in keys), strict=True)]  # fmt: skip

        def filled(place):
            return stacked[place] if isinstance(place, int) else tuple(k if k is None else stacked[k] for k in place)

        return first.output_class(**{name: filled(place) for name, place in first.layout.items()})

    def _encode(self, known: _Tower, pixel_values: torch.Tensor, rows: list[int], kwargs: dict) -> list[_Entry]:
        """Run the tower on `rows`; without any, on one tile whose features are not kept."""
        batch = pixel_values[rows or [0]]
        with torch.no_grad():
            output = known.own_forward(batch, **{**kwargs, "return_dict": True})
        layout, tensors = _lay_out(output, len(batch))
        self.num_encoded += len(rows)
        return [_Entry(type(output), layout, tuple(value[k].clone() for value in tensors)) for k in range(len(rows))]

    def _store(self, key: tuple, entry: _Entry) -> None:
        if entry.nbytes > self.max_bytes:
            return
        while self.num_bytes + entry.nbytes > self.max_bytes:
            self._drop(next(iter(self._entries)))
            self.num_evicted += 1
        if self.device is not None:
            moved = tuple(value.to(self.device) for value in entry.features)
            entry = _Entry(entry.output_class, entry.layout, moved)
        self._entries[key] = entry
        self.num_bytes += entry.nbytes

    def _drop(self, key: tuple) -> None:
        self.num_bytes -= self._entries.pop(key).nbytes

    def _may_reuse(self, known: _Tower, pixel_values: torch.Tensor, kwargs: dict) -> bool:
        tower = known.module
        if any(parameter.requires_grad for parameter in tower.parameters()):
            known.weights, known.space = [], 0  # what it encodes from here on is of other weights
            return False
        states = kwargs.get("output_hidden_states")
        others = {name for name, value in kwargs.items() if value is not None and value is not False}
        return (
            states is not True
            and not others - {"return_dict", "output_hidden_states"}
            and kwargs.get("return_dict") is not False
            and not (tower.config.output_hidden_states or tower.config.output_attentions)
            and len(pixel_values) > 0
            and not pixel_values.requires_grad
            and not (tower.training and _has_dropout(tower))
        )

    def _follow_weights(self, known: _Tower) -> None:
        """Find out whose features this tower shares, and forget features of weights that are no more."""
        if known.is_current():
            return
        _refuse_tuners(known.module)
        known.weights, known.space = known.current_weights(), 0
        current = [other for other in self._towers if other.space and other.is_current()]
        twin = next((other for other in current if same_weights(known.module, other.module)), None)
        if twin is None:
            self._num_spaces += 1
            known.space = self._num_spaces
        else:
            known.space = twin.space
        spaces = {other.space for other in self._towers}
        for key in [key for key in self._entries if key[0] not in spaces]:
            self._drop(key)

    def _keys(self, known: _Tower, pixel_values: torch.Tensor, kwargs: dict) -> list[tuple]:
        """A key for each tile: weights, selected hidden states, autocast, dtype and shape, and 128 bits of content."""
        selected = kwargs.get("output_hidden_states")
        states = tuple(selected) if isinstance(selected, (list, tuple)) else selected
        kind = pixel_values.device.type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        tile = pixel_values.device, autocast, pixel_values.dtype, tuple(pixel_values.shape[1:])
        return [(known.space, states, *tile, *pair) for pair in self._hasher(pixel_values).tolist()]


def _lay_out(output: ModelOutput, num_tiles: int) -> tuple[_Layout, list[torch.Tensor]]:
    """
    The distinct tensors of an output and which field holds which; `hidden_states` may repeat `last_hidden_state`, and
    holds `None` for layers that were not asked for.
    """
    tensors: list[torch.Tensor] = []

    def place(value: torch.Tensor | None) -> int | None:
        if value is None:
            return None
        if not isinstance(value, torch.Tensor) or value.shape[0] != num_tiles:
            raise ValueError(
                f"the vision tower's {type(output).__name__} does not hold one tensor row a tile: its features cannot "
                "be cached by tile. Switch the vision cache off."
            )
        for position, tensor in enumerate(tensors):
            if tensor is value:
                return position
        tensors.append(value)
        return len(tensors) - 1

    layout = {
        name: tuple(place(element) for element in value) if isinstance(value, tuple) else place(value)
        for name, value in output.items()
    }
    return layout, tensors


def find_tower(model: torch.nn.Module) -> torch.nn.Module:
    """The module of a model that is called `vision_tower`; a `ValueError` if there is none."""
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] == "vision_tower":
            return module
    raise ValueError(f"{type(model).__name__} has no module called vision_tower. Pass `tower=` to install.")


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    """Whether two modules have equal parameters and buffers under equal names; sharded ones are taken as different."""
    first, second = a.state_dict(), b.state_dict()
    if first.keys() != second.keys() or _is_sharded(a) or _is_sharded(b):
        return False
    pairs = [(first[name], second[name]) for name in first]
    return all((x.dtype, x.device) == (y.dtype, y.device) and torch.equal(x, y) for x, y in pairs)


def _is_sharded(tower: torch.nn.Module) -> bool:
    """Whether the parameters are shared out among processes (FSDP2, ZeRO-3), whole at the moment or not."""
    if is_deepspeed_zero3_enabled():
        from deepspeed.runtime.zero.partition_parameters import is_zero_param

        return any(is_zero_param(parameter) for parameter in tower.parameters())
    return any(isinstance(parameter, DTensor) for parameter in tower.parameters())


def _any_rank(missing: bool, tower: torch.nn.Module, device: torch.device) -> bool:
    """
    Whether the tower must run. Sharded weights are gathered inside the forward, so if one rank runs it, all must;
    every rank asks, because under sharding every rank calls the tower equally often.

    While the whole model is gathered for generation, ranks go their own ways, and TRL has taken ZeRO-3's hooks off.
    The parameters' sizes do not tell: ZeRO-3 fetches some before their turn.
    """
    if not _is_sharded(tower) or (is_deepspeed_zero3_enabled() and not tower._forward_pre_hooks):
        return missing
    flag = torch.tensor(int(missing), device=device)
    torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
    return bool(flag)


def _has_dropout(tower: torch.nn.Module) -> bool:
    dropout = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in tower.modules())
    return dropout or tower.config.attention_dropout > 0


def _refuse_tuners(tower: torch.nn.Module) -> None:
    if not is_peft_available():
        return
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    if any(isinstance(module, (BaseTunerLayer, ModulesToSaveWrapper)) for module in tower.modules()):
        raise ValueError(
            "the vision tower carries PEFT layers, so its features depend on whether they are switched on. Restrict "
            r"the PEFT config to the language model (target_modules=r'.*language_model.*_proj'), or drop the cache."
        )
