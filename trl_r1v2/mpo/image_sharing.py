# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
One encoding per image and pair: chosen and rejected share their prompt's images, so the vision tower sees them once.

Covers native InternVL models, whose tower takes tiles along the first dimension and nothing else. Does not cover images
shared by several pairs of a batch, nor features kept from one step to the next.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from torch.distributed.tensor import DTensor
from transformers import InternVLVisionConfig, PreTrainedModel
from transformers.models.internvl.modeling_internvl import InternVLModel
from transformers.utils import ModelOutput, is_peft_available
from trl.trainer.utils import maybe_gather_lm_head_ctx


logger = get_logger(__name__)


def vision_backbone(model: torch.nn.Module) -> InternVLModel | None:
    """The InternVL backbone inside a model, whatever wraps it; `None` where there is none."""
    return next((module for module in model.modules() if isinstance(module, InternVLModel)), None)


def _repeat_rows(value: Any) -> Any:
    """Stack a tower's output on itself: the features of the chosen rows over those of the rejected ones."""
    if isinstance(value, torch.Tensor):
        return torch.cat([value, value])
    if isinstance(value, ModelOutput):
        return type(value)(**{name: _repeat_rows(item) for name, item in value.items()})
    if isinstance(value, tuple):
        return tuple(_repeat_rows(item) for item in value)
    return value


def _distinct_tiles(pixel_values: torch.Tensor) -> torch.Tensor:
    """
    The tiles of the chosen rows.

    Raises:
        ValueError: If the tiles of the rejected rows differ.
    """
    chosen, rejected = pixel_values.tensor_split(2)
    if not torch.equal(chosen, rejected):
        raise ValueError(
            f"`share_pair_images=True`, but the first and second half of the batch's {len(pixel_values)} image tiles "
            "differ. The collator must repeat the prompts' images once for the chosen and once for the rejected "
            "responses, as TRL's does; where the two have images of their own, set `share_pair_images=False`."
        )
    return chosen


def _is_adapted(tower: torch.nn.Module) -> bool:
    """Whether PEFT has put anything into the tower, so that it answers differently with the adapter switched off."""
    if not is_peft_available():
        return False
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    return any(isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)) for module in tower.modules())


def _full(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter


def towers_equal(first: torch.nn.Module, second: torch.nn.Module, accelerator: Accelerator) -> bool:
    """
    Whether two towers have the same parameters to the bit, on every process.

    Sharded parameters (FSDP2, ZeRO-3) are gathered one at a time. Must be called by all processes.
    """
    if first is second:
        return True
    parameters, others = dict(first.named_parameters()), dict(second.named_parameters())
    equal = parameters.keys() == others.keys()
    # The keys are those of the architecture, so all processes agree on entering the loop, and none leaves it early.
    for name in parameters if equal else ():
        with torch.no_grad(), maybe_gather_lm_head_ctx(parameters[name], others[name]):
            mine, other = _full(parameters[name]), _full(others[name])
            equal &= (
                mine.dtype == other.dtype and mine.shape == other.shape and torch.equal(mine, other.to(mine.device))
            )
    agreeing = accelerator.reduce(torch.tensor(int(equal), device=accelerator.device), reduction="sum")
    return bool(agreeing == accelerator.num_processes)


class PairImageSharing:
    """
    Runs the vision towers once per image and pair, inside `micro_batch()`.

    Both towers are always spared the rejected rows' copies. If, besides, the policy's tower is frozen and the same as
    the reference's, its features serve both passes. That is decided when the first batch comes, and given up for good
    once the policy's tower is seen trainable. Outside `micro_batch()` the towers work as if nothing had been changed.

    Exact for towers without dropout, up to the rounding of another batch size.

    Args:
        policy ([`~transformers.PreTrainedModel`]):
            The model to train, before it is wrapped for distributed training.
        reference ([`~transformers.PreTrainedModel`], *optional*):
            The reference model. `None` where the policy without its adapter is the reference, or where reference
            log-probabilities come with the batch.

    Raises:
        ValueError: If the policy is no InternVL model, or its tower uses dropout.
    """

    def __init__(self, policy: PreTrainedModel, reference: PreTrainedModel | None):
        backbone = vision_backbone(policy)
        if backbone is None or not isinstance(backbone.config.vision_config, InternVLVisionConfig):
            raise ValueError(
                "`share_pair_images=True` supports native InternVL models with their own vision tower, but the policy is a "
                f"{type(policy).__name__} (model type {policy.config.model_type!r}). Set `share_pair_images=False`."
            )
        self.policy_tower = backbone.vision_tower
        reference_backbone = None if reference is None else vision_backbone(reference)
        self.reference_tower = self.policy_tower if reference_backbone is None else reference_backbone.vision_tower
        self._check_dropout(backbone.config.vision_config)
        self._share_features: bool | None = None
        self._is_active = False
        self._features: ModelOutput | None = None
        for tower in {id(tower): tower for tower in (self.policy_tower, self.reference_tower)}.values():
            self._wrap(tower)

    def _check_dropout(self, config) -> None:
        # `disable_dropout` reaches `torch.nn.Dropout` modules; attention takes its rate from the config.
        rates = [module.p for module in self.policy_tower.modules() if isinstance(module, torch.nn.Dropout)]
        if max([*rates, config.attention_dropout]) > 0:
            raise ValueError(
                "`share_pair_images=True`, but the policy's vision tower uses dropout, which would give the chosen and "
                "rejected copy of an image features of their own. Set `disable_dropout=True` and the vision config's "
                "`attention_dropout` to 0, or set `share_pair_images=False`."
            )

    def _wrap(self, tower: torch.nn.Module) -> None:
        encode = tower.forward

        @functools.wraps(encode)
        def encode_once(pixel_values, **kwargs):
            if not self._is_active:
                return encode(pixel_values=pixel_values, **kwargs)
            features = self._features
            if features is None:
                features = encode(pixel_values=_distinct_tiles(pixel_values), **kwargs)
                if self._share_features:
                    self._features = features
            return _repeat_rows(features)

        tower.forward = encode_once

    def _is_frozen(self) -> bool:
        return not any(parameter.requires_grad for parameter in self.policy_tower.parameters())

    def forget(self) -> None:
        """Decide anew whether the towers are the same: the policy's weights are about to change."""
        self._share_features = None

    def drop_reference(self) -> None:
        """Let go of the reference's tower: there will be no more reference passes."""
        self.reference_tower = self.policy_tower

    @contextmanager
    def micro_batch(self, accelerator: Accelerator) -> Iterator[None]:
        """
        Share images within one micro-batch of rows `[chosen; rejected]`. May be entered again inside itself.

        Must be entered by all processes, with or without images in their rows.
        """
        if self._is_active:
            yield
            return
        if self._share_features is None:
            self._share_features = (
                self._is_frozen()
                and not _is_adapted(self.policy_tower)
                and towers_equal(self.policy_tower, self.reference_tower, accelerator)
            )
            if self._share_features:
                logger.info("The vision tower is frozen: policy and reference share its features.")
            else:
                logger.info(
                    "Policy and reference encode the images on their own: tower trained, adapted or different."
                )
        elif not self._is_frozen():
            self._share_features = False
        self._is_active = True
        try:
            yield
        finally:
            self._is_active, self._features = False, None
