# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
r"""
Scalar reward models that see the image: r_θ of R1V2's eq. 7.

Scope: Skywork-VL-Reward's published layout (arXiv 2505.07263), the same as written here, adapters with a trained head,
and any `AutoModelForSequenceClassification` with one label (text only), as a TRL reward function. TRL itself gives
reward models text only. Does not cover: training a reward model (`reward_trainer.py`); weighting and calibration
(`hybrid.py`); models sharded by ZeRO-3 or FSDP (every process holds its own copy).
"""

import functools
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from ..images.rows import with_image_list, with_rgb_images
from ..vlm.peft_folder import is_peft_folder, load_merged
from .answers import completion_text, message_text, prompt_opens_think, split_reasoning
from .conversations import ConversationEncoder, judged_conversation
from .trainable_model import ScalarHeadMixin, load_trainable, load_with_head, require_weights


MAX_CHARS_PER_TOKEN = 16  # text has four or so; more than this for every token allowed is not tokenized at all


class RewardModel:
    r"""
    Scores conversations that end with the response to judge.

    With a head: `score = w · h_last + b` over what [`ConversationEncoder`] makes of the conversation, where h_last is
    the final hidden state of the last token that is not padding (arXiv 2505.07263). Without one, the model's single
    classification logit. Scores are unbounded and uncalibrated.

    Args:
        model ([`~transformers.PreTrainedModel`]): A sequence classifier with one label, or a model of
            [`load_trainable`]; put into evaluation mode.
        processor ([`~transformers.ProcessorMixin`] or tokenizer): Its processor.
        batch_size (`int`, *optional*, defaults to `8`): Conversations in one forward pass, grouped by length.
        max_tokens (`int`, *optional*): Conversations with more tokens, image tokens included, are not scored (`None`):
            a truncated one has another last token. By default as many as the model is made for: the smaller of its
            `max_position_embeddings` and its tokenizer's `model_max_length`. Text of more than 16 characters for every
            token allowed counts as too long.

    Raises:
        `ValueError`: For several labels, a tokenizer without padding token, or an option out of bounds.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin | PreTrainedTokenizerBase,
        batch_size: int = 8,
        max_tokens: int | None = None,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1.")
        if max_tokens is not None and max_tokens < 1:
            raise ValueError(f"max_tokens is {max_tokens}; it must be at least 1, or None for the model's own limit.")
        if model.config.num_labels != 1:
            raise ValueError(f"The classifier has {model.config.num_labels} labels; a reward model has 1.")
        self._tokenize = ConversationEncoder(processor)
        self.sees_images = self._tokenize.sees_images
        self.tokenizer = self._tokenize.tokenizer
        if not isinstance(model, ScalarHeadMixin):
            model.config.pad_token_id = self.tokenizer.pad_token_id  # how classifiers of decoders find the last token
        self.model = model.eval()
        self.processor = processor
        self.batch_size = batch_size
        self.max_tokens = _own_limit(model.config, self.tokenizer) if max_tokens is None else max_tokens

    @classmethod
    def from_pretrained(
        cls, path: str, dtype: str = "auto", device: str | None = None, revision: str | None = None, **options
    ) -> "RewardModel":
        r"""
        Load a reward model; what it is, is read from its configuration.

        Args:
            path (`str`), revision (`str`, *optional*): Folder or Hub repository, and its revision.
            dtype (`str`, *optional*, defaults to `"auto"`): Weights' dtype, by default the checkpoint's. The head
                computes in float32.
            device (`str`, *optional*): Device; by default this process's GPU, else the CPU.
            **options: Options of [`RewardModel`].

        Raises:
            `ValueError`: If there is no such model, its head is missing or does not fit, or it lacks weights.
            `RuntimeError`: While DeepSpeed ZeRO-3 is active, which would shard the weights on loading.
        """
        if is_deepspeed_zero3_enabled():
            raise RuntimeError(
                "ZeRO-3 is active and would shard the reward model; load it before creating the training arguments."
            )
        if device is None:
            device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
        if is_peft_folder(path):
            model = load_merged(path, functools.partial(load_trainable, dtype=dtype, device_map=None))
        else:
            config = _load_config(path, revision)
            if any(name.endswith("ForSequenceClassification") for name in config.architectures or []):
                model, info = AutoModelForSequenceClassification.from_pretrained(
                    path, dtype=dtype, revision=revision, output_loading_info=True
                )
                require_weights(path, info["missing_keys"])
            else:
                model = load_with_head(path, config, revision, dtype=dtype, device_map=None)
        return cls(model.to(device), AutoProcessor.from_pretrained(path, revision=revision), **options)

    def save_pretrained(self, folder: str):
        """Write the model, with its head and a description of the score, and its processor."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def score(self, conversations: list[list[dict]]) -> list[float | None]:
        """
        A score for each conversation, `None` where it exceeds `max_tokens`: messages with `role` and `content`, the
        last one the response; images as parts `{"type": "image", "image": image}`, in any mode. Raises `RuntimeError`
        for a score that is no finite number, and `ValueError` for an image that cannot be read.
        """
        if self.sees_images:
            conversations = [with_rgb_images({"prompt": messages})["prompt"] for messages in conversations]
        chars = [sum(len(message_text(message["content"])) for message in messages) for messages in conversations]
        limit = self.max_tokens or math.inf
        fits = [row for row, num_chars in enumerate(chars) if num_chars <= MAX_CHARS_PER_TOKEN * limit]
        order = sorted(fits, key=lambda row: chars[row] + 1000 * _num_images(conversations[row]))
        scores: list[float | None] = [None] * len(conversations)
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            inputs = self._tokenize([conversations[row] for row in rows])
            lengths = inputs["attention_mask"].sum(dim=1).tolist()
            kept = [row for row, length in zip(rows, lengths, strict=True) if length <= limit]
            if not kept:
                continue
            if len(kept) < len(rows):
                rows, inputs = kept, self._tokenize([conversations[row] for row in kept])
            for row, score in zip(rows, self._forward(inputs).tolist(), strict=True):
                if not math.isfinite(score):
                    raise RuntimeError(
                        f"the reward model's score of conversation {row} is {score}, no finite number. Its weights "
                        f"are damaged, or too large for {self.model.dtype}: check them, or load it with dtype float32."
                    )
                scores[row] = score
        return scores

    @torch.no_grad()
    def _forward(self, inputs) -> torch.Tensor:
        """Scores of shape `(batch_size,)`, float32."""
        inputs = {
            name: value.to(self.model.device, self.model.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }
        return self.model(**inputs).logits[:, 0].float()


def _load_config(path: str, revision: str | None) -> PreTrainedConfig:
    """The configuration; says so where there is no such model."""
    try:
        return AutoConfig.from_pretrained(path, revision=revision)
    except OSError as error:
        if Path(path).is_dir():
            raise ValueError(f"{path} is no folder of a model: {error}") from error
        raise ValueError(
            f"{path}: no such folder below {os.getcwd()}, and no model that the Hub gives by this name "
            f"({type(error).__name__}). Correct the path, or fetch the model first."
        ) from None  # what the Hub's client says hides that a path was misspelt


def _own_limit(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The most tokens that the model is made for; `None` where neither model nor tokenizer says."""
    limits = [config.get_text_config().to_dict().get("max_position_embeddings"), tokenizer.model_max_length]
    known = [int(limit) for limit in limits if limit is not None and 0 < limit < VERY_LARGE_INTEGER]
    return min(known, default=None)


def _num_images(messages: list[dict]) -> int:
    """Images that stand in the messages themselves."""
    return sum(
        part["type"] == "image" and "image" in part
        for message in messages
        if not isinstance(message["content"], str)
        for part in message["content"]
    )


@dataclass(eq=False)
class RewardModelReward:
    r"""
    TRL reward function around a [`RewardModel`]: scores each completion with its prompt and its images.

    Images are taken from the prompts where TRL has put them, else from the dataset columns `images` or `image`.

    Args:
        model ([`RewardModel`]): The model.
        part (`str`, *optional*, defaults to `"full"`): What is judged: `"full"`, reasoning and answer, or `"answer"`,
            what follows `</think>` (`None` where nothing does). R1V2 does not say.
        drop_images (`bool`, *optional*, defaults to `False`): Let a text-only model judge rows with images, without
            them; otherwise such a row is an error.
        name (`str`, *optional*, defaults to `"reward_model"`): Name under which TRL logs it.
    """

    model: RewardModel
    part: str = "full"
    drop_images: bool = False
    name: str = "reward_model"

    def __post_init__(self):
        self.__name__ = self.name
        if self.part not in ("full", "answer"):
            raise ValueError(f"part is {self.part!r}; it must be 'full' or 'answer'.")

    @classmethod
    def from_pretrained(
        cls, path: str, part: str = "full", drop_images: bool = False, name: str = "reward_model", **options
    ) -> "RewardModelReward":
        """Load the model, with the options of [`RewardModel.from_pretrained`], and wrap it."""
        return cls(RewardModel.from_pretrained(path, **options), part, drop_images, name)

    def __call__(self, prompts, completions, images=None, image=None, log_metric=None, **kwargs) -> list[float | None]:
        if images is None:
            images = [None] * len(prompts) if image is None else [None if item is None else [item] for item in image]
        conversations = [
            self._conversation(prompt, completion_text(completion), row_images)
            for prompt, completion, row_images in zip(prompts, completions, images, strict=True)
        ]
        rows = [row for row, messages in enumerate(conversations) if messages is not None]
        rewards: list[float | None] = [None] * len(conversations)
        for row, score in zip(rows, self.model.score([conversations[row] for row in rows]), strict=True):
            rewards[row] = score
        if log_metric is not None:
            log_metric(f"{self.__name__}/not_scored", rewards.count(None) / len(rewards))
        return rewards

    def _conversation(self, prompt, response: str, images: list | None) -> list[dict] | None:
        messages = judged_conversation(prompt, response)
        if self.part == "answer":
            response = split_reasoning(messages[-1]["content"], think_open=prompt_opens_think(prompt))[1]
            if not response:
                return None
            messages[-1] = {"role": "assistant", "content": response}
        filled = _num_images(messages) > 0
        if not self.model.sees_images:
            if (filled or images) and not self.drop_images:
                raise ValueError(
                    f"{self.__name__} reads text only, and a row has images; use a vision-language reward model, or "
                    "set `drop_images=True`."
                )
            return messages
        from trl import prepare_multimodal_messages

        row = with_image_list({"prompt": messages, "images": images})
        return prepare_multimodal_messages(row["prompt"], None if filled else row["images"])
