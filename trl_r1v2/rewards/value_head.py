# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The scalar head of a reward model and its file.

Scope: `value_head.safetensors` with keys that end in `summary.weight` [1, H] and `summary.bias` [1], as
Skywork-VL-Reward publishes it and as [`~trl_r1v2.rewards.reward_model.RewardModel`] writes it. Does not cover: the
model below the head.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.utils import cached_file


VALUE_HEAD_FILE = "value_head.safetensors"


class ValueHead(nn.Module):
    r"""
    `score = w · h + b`, computed in float32 (arXiv 2505.07263: the LM head is replaced by a linear layer).

    Args:
        weight (`torch.Tensor` of shape `(1, hidden_size)`):
            w.
        bias (`torch.Tensor` of shape `(1,)`):
            b.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor):
        super().__init__()
        self.summary = nn.Linear(weight.size(1), 1, dtype=torch.float32)
        with torch.no_grad():
            self.summary.weight.copy_(weight)
            self.summary.bias.copy_(bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores of shape `(batch_size,)` from hidden states of shape `(batch_size, hidden_size)`."""
        return self.summary(hidden.float()).squeeze(-1)

    @classmethod
    def from_pretrained(cls, path: str, hidden_size: int, revision: str | None = None) -> "ValueHead":
        """
        Read the head of a model folder or Hub repository.

        Raises:
            `ValueError`: If the file is missing, or its tensors do not fit, with the name of what differs.
        """
        try:
            file = cached_file(path, VALUE_HEAD_FILE, revision=revision)
        except OSError as error:
            raise ValueError(
                f"{path} has no {VALUE_HEAD_FILE}: it is a language model, not a reward model with a scalar head. Give "
                "a folder in Skywork-VL-Reward's layout, or a model for sequence classification."
            ) from error
        tensors = load_file(file)
        found = {}
        for name, shape in (("summary.weight", (1, hidden_size)), ("summary.bias", (1,))):
            keys = [key for key in tensors if key == name or key.endswith(f".{name}")]
            if len(keys) != 1:
                raise ValueError(f"{file} must hold one key that ends in {name!r}; it holds {sorted(tensors)}.")
            tensor = tensors.pop(keys[0])
            if tuple(tensor.shape) != shape:
                raise ValueError(f"{keys[0]!r} in {file} has shape {tuple(tensor.shape)}; this model needs {shape}.")
            found[name] = tensor
        if tensors:
            raise ValueError(f"{file} holds keys that are no part of a scalar head: {sorted(tensors)}.")
        return cls(found["summary.weight"], found["summary.bias"])

    def save_pretrained(self, folder: str):
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, Path(folder) / VALUE_HEAD_FILE, metadata={"format": "pt"})
