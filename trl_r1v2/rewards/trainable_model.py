# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
A language model, with or without images, with a scalar head, as one module that scores and trains.

Scope: any class of `AutoModelForImageTextToText` or `AutoModelForCausalLM` with `model` and `lm_head`, its forward
pass replaced by the score; folders in Skywork-VL-Reward's layout; which parts train. Does not cover: the loss and the
data (`reward_trainer.py`).
"""

import functools
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers.utils import cached_file

from ..prompt_sharing.attention import LAYOUT
from ..vlm.activation import COMPONENTS, ActivationReport, component_of, num_elements, parse_trainable


HEAD = "value_head"
VALUE_HEAD_FILE = "value_head.safetensors"
REWARD_MODEL_FILE = "reward_model.json"
_FORMAT = {"version": 1, "score": "value_head", "pooling": "last_token", "add_generation_prompt": False}


def is_reward_model(path: str) -> bool:
    """Whether `path` is a folder with a scalar head: a reward model, and no dotted path or name on the Hub."""
    return (Path(path) / VALUE_HEAD_FILE).is_file()


def last_token_states(hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """
    The states of shape `(batch_size, hidden_size)` of each row's last token that is not padding, whatever the side of
    the padding, from those of shape `(batch_size, length, hidden_size)` and a mask of shape `(batch_size, length)`.
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
        The head of a model folder or Hub repository. Raises `ValueError` if the file is missing, or its tensors do not
        fit or are not finite, with the name of what differs.
        """
        try:
            file = cached_file(path, VALUE_HEAD_FILE, revision=revision)
        except OSError as error:
            raise ValueError(
                f"{path} has no {VALUE_HEAD_FILE}: it is a language model, not a reward model with a scalar head. "
                "Give a folder in Skywork-VL-Reward's layout, or a model for sequence classification."
            ) from error
        tensors = load_file(file)
        keys = {key: key.split(".")[-2:] for key in tensors}
        found = {name: tensors[key] for key, (*owner, name) in keys.items() if owner in (["summary"], ["score"])}
        if set(found) != {"weight", "bias"} or len(tensors) != 2:
            raise ValueError(
                f"{file} must hold two keys, which end in 'summary.weight' and 'summary.bias', or in 'score.weight' "
                f"and 'score.bias'; it holds {sorted(tensors)}."
            )
        for name, needed in (("weight", (1, hidden_size)), ("bias", (1,))):
            shape = tuple(found[name].shape)
            if shape != needed:
                raise ValueError(f"the {name} in {file} has shape {shape}; this model needs {needed}.")
            if not found[name].isfinite().all():
                raise ValueError(f"the {name} in {file} holds NaN or infinite numbers; train or fetch the head again.")
        head = cls(hidden_size)
        head.summary.load_state_dict(found)
        return head

    def save_pretrained(self, folder: str):
        """Write `value_head.safetensors`, named as in vLLM's vision-language models, and the score's description."""
        tensors = {f"language_model.score.{name}": p.data.contiguous() for name, p in self.summary.named_parameters()}
        save_file(tensors, Path(folder) / VALUE_HEAD_FILE, metadata={"format": "pt"})
        Path(folder, REWARD_MODEL_FILE).write_text(json.dumps(_FORMAT, indent=2) + "\n", encoding="utf-8")


class ScalarHeadMixin:
    """
    Mixin for a class of language models: scores instead of next-token logits.

    Added in front of the class by [`scalar_head_class`]. Parameters keep their names; the head is `value_head`. The
    language-model head stays, unused and frozen, so that the folder remains a complete checkpoint.
    """

    def __init__(self, config: PreTrainedConfig, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        config.num_labels = config.get_text_config().num_labels = 1  # vLLM reads that of the language model
        self.value_head = ValueHead(config.get_text_config().hidden_size)

    def forward(self, margin=None, **inputs) -> SequenceClassifierOutput:
        """
        Scores of conversations, as `logits` of shape `(batch_size, 1)`, float32. The inputs are what the processor
        makes of them, or the packed rows of [`~trl_r1v2.prompt_sharing.model.PromptSharing`]; `margin` is ignored:
        TRL passes the loss's margins on to the model.
        """
        hidden = self.base_model(**{"use_cache": False, **inputs}).last_hidden_state
        if LAYOUT in inputs:
            states = hidden[0, inputs[LAYOUT].last_places]
        else:
            states = last_token_states(hidden, inputs["attention_mask"])
        return SequenceClassifierOutput(logits=self.value_head(states).unsqueeze(-1))

    def save_pretrained(self, save_directory, *args, is_main_process: bool = True, state_dict=None, **kwargs):
        """As [`~transformers.PreTrainedModel.save_pretrained`], with the head beside it for [`RewardModel`]."""
        head = self.value_head
        if is_main_process and state_dict is not None:  # gathered from the processes that share the model
            head = ValueHead(self.value_head.summary.in_features)
            head.load_state_dict({name: state_dict[f"{HEAD}.{name}"] for name in head.state_dict()})
            # Upstream removes what it is not to save, the head, from the dict it is given.
            state_dict = dict(state_dict)
        super().save_pretrained(
            save_directory, *args, is_main_process=is_main_process, state_dict=state_dict, **kwargs
        )
        if is_main_process:
            head.save_pretrained(save_directory)

    def load_head(self, path: str, revision: str | None = None):
        """Take the head of a reward model's folder."""
        head = ValueHead.from_pretrained(path, self.value_head.summary.in_features, revision)
        with _whole(self.value_head):
            self.value_head.load_state_dict(head.state_dict())


@contextmanager
def _whole(module: torch.nn.Module) -> Iterator[None]:
    """The parameters of a module whole and open to change on all processes, where ZeRO-3 shards them."""
    if not is_deepspeed_zero3_enabled():
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(module.parameters()), modifier_rank=0):
        yield


@functools.cache
def scalar_head_class(model_class: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """
    The class with a scalar head. It keeps name and module of the original, by which transformers finds the renamings
    of published checkpoints and which `config.json` names.
    """
    names = [f"{HEAD}.summary.weight", f"{HEAD}.summary.bias"]
    attributes = {
        "__module__": model_class.__module__,
        "_keys_to_ignore_on_save": [*(model_class._keys_to_ignore_on_save or ()), *names],
        "_keys_to_ignore_on_load_missing": [*(model_class._keys_to_ignore_on_load_missing or ()), rf"^{HEAD}\."],
    }
    return type(model_class.__name__, (ScalarHeadMixin, model_class), attributes)


def load_trainable(path: str, revision: str | None = None, **kwargs) -> PreTrainedModel:
    """
    Load a model to train scores with.

    Args:
        path (`str`): Folder or Hub name of a vision-language model, whose head is drawn at random as its other layers
            would be (the paper does not say how), or of a reward model, whose head is kept.
        revision (`str`, *optional*): Hub revision.
        **kwargs: Arguments of [`~trl.trainer.utils.create_model_from_path`], such as `dtype`.

    Raises:
        `ValueError`: If it is no vision-language model, or lacks weights.
    """
    config = AutoConfig.from_pretrained(path, revision=revision)
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise ValueError(
            f"{path} is a {config.model_type!r} model, which `AutoModelForImageTextToText` does not load. Choose a "
            "vision-language model, or train a text-only reward model with `trl.RewardTrainer`."
        )
    file = cached_file(path, VALUE_HEAD_FILE, revision=revision, _raise_exceptions_for_missing_entries=False)
    return load_with_head(path, config, revision, is_fresh=file is None, **kwargs)


def load_with_head(path: str, config: PreTrainedConfig, revision: str | None, is_fresh: bool = False, **kwargs):
    """A language model, with or without images, and the scalar head of its folder, or a fresh one."""
    from trl.trainer.utils import create_model_from_path

    sees_images = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    mapping = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING if sees_images else MODEL_FOR_CAUSAL_LM_MAPPING
    model, info = create_model_from_path(
        path,
        architecture=scalar_head_class(mapping[type(config)]),
        revision=revision,
        output_loading_info=True,
        **kwargs,
    )
    require_weights(path, info["missing_keys"], f"{model.base_model_prefix}.")
    if not is_fresh:
        model.load_head(path, revision)
    return model


def require_weights(path: str, missing: Iterable[str], prefix: str = "") -> None:
    """
    Refuse a model (`ValueError`) that lacks parameters on which the score depends: those of `missing`, which
    `output_loading_info` gives, whose names begin with the prefix. Below a scalar head that is the base model's; the
    language-model head is free.
    """
    missing = sorted(name for name in missing if name.startswith(prefix))
    if missing:
        raise ValueError(
            f"{path} lacks {len(missing)} of the model's weights, which would be random: {', '.join(missing[:5])}"
            f"{', …' if len(missing) > 5 else ''}. Fetch or save the model again."
        )


def set_reward_trainable(model: torch.nn.Module, trainable: str) -> ActivationReport:
    """
    Make the scalar head and the chosen components, as [`~trl_r1v2.vlm.activation.set_trainable`] takes them, trainable
    and freeze the rest, in a model of [`load_trainable`] or a PEFT model around one.

    In a PEFT model, whatever PEFT has made trainable in the chosen components trains, and nothing else. The
    language-model head has no part in the score and rests, unless it is tied to the embeddings. Raises `ValueError`
    for a chosen component that the model lacks, or a PEFT model without anything to train in the chosen ones.
    """
    from accelerate.utils import is_peft_model

    chosen = parse_trainable(trainable)
    with_peft = is_peft_model(model)
    base = model.get_base_model() if with_peft else model
    head_weight = base.get_output_embeddings().weight
    rests = head_weight is not base.get_input_embeddings().weight
    trained, frozen = dict.fromkeys(COMPONENTS, 0), dict.fromkeys(COMPONENTS, 0)
    names = []
    for name, parameter in model.named_parameters():
        part = HEAD if HEAD in name.split(".") else component_of(name)
        trains = part == HEAD or (part in chosen and not (rests and parameter is head_weight))
        parameter.requires_grad_(trains and (parameter.requires_grad or not with_peft))
        if parameter.requires_grad:
            names.append(name)
        if part != HEAD:
            (trained if parameter.requires_grad else frozen)[part] += num_elements(parameter)
    empty = sorted(component for component in chosen if not trained[component])
    if with_peft and len(empty) == len(chosen):
        raise ValueError(
            f"the PEFT config makes nothing trainable in {' and '.join(empty)}, which `trainable={trainable!r}` asks "
            "for. Give it target modules there, or `modules_to_save` (for InternVL's adapter: "
            "['multi_modal_projector'])."
        )
    if empty and not with_peft:
        raise ValueError(f"the model has no {' and no '.join(empty)} to train.")
    in_order = "+".join(component for component in COMPONENTS if component in chosen)
    return ActivationReport(in_order, trained, frozen, tuple(names))
