# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The scalar head of a reward model, the token it reads, and its files.

Scope: `value_head.safetensors` with a weight [1, H] and a bias [1], called `summary` as Skywork-VL-Reward publishes
them, or `score` as this package writes them and vLLM loads them, with a `reward_model.json` that describes the score.
Does not cover: the model below the head.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedConfig
from transformers.utils import cached_file


VALUE_HEAD_FILE = "value_head.safetensors"
REWARD_MODEL_FILE = "reward_model.json"
_FORMAT = {"version": 1, "score": "value_head", "pooling": "last_token", "add_generation_prompt": False}


def set_one_label(config: PreTrainedConfig) -> None:
    """Let a model's configuration say that its head has one output; vLLM reads that of the language model."""
    config.num_labels = config.get_text_config().num_labels = 1


def is_reward_model(path: str) -> bool:
    """Whether `path` is a folder with a scalar head: a reward model, and no dotted path or name on the Hub."""
    return (Path(path) / VALUE_HEAD_FILE).is_file()


def last_token_states(hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """
    Hidden states of the last token of each row that is not padding, whatever the side of the padding.

    Args:
        hidden (`torch.Tensor` of shape `(batch_size, length, hidden_size)`): Hidden states after the final norm.
        attention_mask (`torch.Tensor` of shape `(batch_size, length)`): 1 for tokens, 0 for padding.

    Returns:
        `torch.Tensor` of shape `(batch_size, hidden_size)`.
    """
    positions = torch.arange(hidden.size(1), device=hidden.device)
    last = (positions * attention_mask).argmax(dim=1)
    return hidden[torch.arange(hidden.size(0), device=hidden.device), last]


class ValueHead(nn.Module):
    r"""
    `score = w · h + b`, computed in float32 (arXiv 2505.07263: the LM head is replaced by a linear layer).

    Args:
        hidden_size (`int`): Size of h. Weights are those of a fresh `torch.nn.Linear`.
    """

    def __init__(self, hidden_size: int):
        super().__init__()
        self.summary = nn.Linear(hidden_size, 1, dtype=torch.float32)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores of shape `(batch_size,)` from hidden states of shape `(batch_size, hidden_size)`."""
        with torch.autocast(hidden.device.type, enabled=False):  # would round the score to bfloat16
            return self.summary(hidden.to(self.summary.weight.dtype)).squeeze(-1)

    @classmethod
    def from_pretrained(cls, path: str, hidden_size: int, revision: str | None = None) -> "ValueHead":
        """
        Read the head of a model folder or Hub repository.

        Raises:
            `ValueError`: If the file is missing, or its tensors do not fit or are not finite, with the name of what
                differs.
        """
        try:
            file = cached_file(path, VALUE_HEAD_FILE, revision=revision)
        except OSError as error:
            raise ValueError(
                f"{path} has no {VALUE_HEAD_FILE}: it is a language model, not a reward model with a scalar head. "
                "Give a folder in Skywork-VL-Reward's layout, or a model for sequence classification."
            ) from error
        tensors = load_file(file)
        names = sorted(tensors)
        found = {}
        for name, shape in (("weight", (1, hidden_size)), ("bias", (1,))):
            keys = [key for key in tensors if key.split(".")[-2:] in (["summary", name], ["score", name])]
            if len(keys) != 1:
                raise ValueError(
                    f"{file} must hold one key that ends in 'summary.{name}' or 'score.{name}'; it holds {names}."
                )
            tensor = tensors.pop(keys[0])
            if tuple(tensor.shape) != shape:
                raise ValueError(f"{keys[0]!r} in {file} has shape {tuple(tensor.shape)}; this model needs {shape}.")
            if not tensor.isfinite().all():
                raise ValueError(
                    f"{keys[0]!r} in {file} holds NaN or infinite weights; train or fetch the head again."
                )
            found[name] = tensor
        if tensors:
            raise ValueError(f"{file} holds keys that are no part of a scalar head: {sorted(tensors)}.")
        head = cls(hidden_size)
        head.summary.load_state_dict(found)
        return head

    def save_pretrained(self, folder: str):
        """Write `value_head.safetensors`, named as in vLLM's vision-language models, and the score's description."""
        tensors = {f"language_model.score.{name}": p.data.contiguous() for name, p in self.summary.named_parameters()}
        save_file(tensors, Path(folder) / VALUE_HEAD_FILE, metadata={"format": "pt"})
        Path(folder, REWARD_MODEL_FILE).write_text(json.dumps(_FORMAT, indent=2) + "\n", encoding="utf-8")
