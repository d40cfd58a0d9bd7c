# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
GRPO with a perception term: `trl-r1v2 grpo` with these two options beside its own.

    python -m benchmarks.perception.term --coef 0.01 --config recipes/smollm2_dinov2/grpo.yaml \\
        --output_dir runs/smollm2_dinov2/grpo_perception_seed0 --seed 0

PAPO (arXiv 2507.06448) rewards a policy whose answers would be less likely without the image: the loss is lowered by
`coef` times the divergence of the policy from itself on masked images, over the tokens of an answer and then over
answers, estimated as there by r − log r − 1 with r = π(o|q, image) / π(o|q, masked). Masks are patches of the tower,
drawn anew for each image in each step and set to the mean colour. Without PAPO's entropy terms. One more forward and
backward a step.
"""

import argparse
import sys

import torch

from trl_r1v2.scripts.main import main as launch
from trl_r1v2.ssb_grpo import ssb_grpo_trainer
from trl_r1v2.ssb_grpo.rows import loss_mask


def mask_patches(pixel_values: torch.Tensor, share: float, patch: int, generator: torch.Generator) -> torch.Tensor:
    """Tiles `(N, C, H, W)` with that share of their patches at 0, the same ones in equal tiles."""
    tiles, places = pixel_values.flatten(1).unique(dim=0, return_inverse=True)
    height, width = pixel_values.shape[-2:]
    shown = torch.rand(len(tiles), 1, height // patch, width // patch, generator=generator) >= share
    shown = shown.repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3).to(pixel_values.device)
    return pixel_values * shown[places]


def perception_divergence(logps: torch.Tensor, masked: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over rows of the mean over their tokens, from log-probabilities of shape `(B, C)` and a mask of it."""
    log_ratio = logps - masked
    per_token = torch.exp(log_ratio) - log_ratio - 1
    return ((per_token * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()


def trainer_with(coef: float, share: float) -> type:
    """A trainer with `coef` times the divergence under images that lack this share of their patches."""

    class PerceptionTrainer(ssb_grpo_trainer.SSBGRPOTrainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self._forward = None
            self._generator = torch.Generator().manual_seed(self.args.seed)

        def _get_per_token_logps_and_entropies(self, *args, **kwargs):
            output = super()._get_per_token_logps_and_entropies(*args, **kwargs)
            if torch.is_grad_enabled():
                self._forward = args, kwargs, output[0]
            return output

        def _compute_loss(self, model, inputs):
            loss = super()._compute_loss(model, inputs)
            args, kwargs, logps = self._forward
            self._forward = None
            if kwargs["pixel_values"] is None:
                return loss
            patch = self.accelerator.unwrap_model(self.model).config.vision_config.patch_size[0]
            pixels = mask_patches(kwargs["pixel_values"], share, patch, self._generator)
            masked = self._get_per_token_logps_and_entropies(*args, **{**kwargs, "pixel_values": pixels})[0]
            self._forward = None
            divergence = perception_divergence(logps, masked, loss_mask(inputs))
            self._metrics["train"]["perception"].append(self.accelerator.gather(divergence.detach()).mean().item())
            return loss - coef * divergence / self.current_gradient_accumulation_steps

    return PerceptionTrainer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coef", type=float, default=0.01, help="weight of the divergence")
    parser.add_argument("--masked_share", type=float, default=0.6, help="share of an image's patches that are masked")
    arguments, rest = parser.parse_known_args()
    ssb_grpo_trainer.SSBGRPOTrainer = trainer_with(arguments.coef, arguments.masked_share)
    sys.exit(launch(["grpo", *rest]))


if __name__ == "__main__":
    main()
