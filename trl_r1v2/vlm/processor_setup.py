# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The processor of a composed checkpoint: image tokens in the LLM's tokenizer, a chat template that accepts images, and
image settings that fit the tower. Checks on rows of data are `processing.py`.
"""

import json
from pathlib import Path

from transformers import (
    AutoTokenizer,
    GotOcr2ImageProcessor,
    InternVLProcessor,
    InternVLVideoProcessor,
    InternVLVisionConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from trl_r1v2.vlm.errors import CheckpointError
from trl_r1v2.vlm.published_config import image_seq_length, square


IMAGE_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}

QWEN_VIDEO_TOKEN = "<|video_pad|>"

GENERIC_TOKENIZERS = ("PreTrainedTokenizerFast", "TokenizersBackend")
PROBE_TEXTS = (
    "Let f(x) = 3x^2 - 4.5;  what is f'(2)?\n\n\tAnswer: \\boxed{12}",
    "<img><IMG_CONTEXT></img> na\u00efve cafe\u0301 \u4e2d\u6587 \U0001f600 don't 1234567",
)

IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]

# Rewrites lists of parts to strings, then lets the LLM's own template run on what it knows. The newline after the last
# tag belongs to the prelude: `trim_blocks`, which transformers sets, removes it, and the LLM's template begins on a
# line of its own as it did before.
CHAT_PRELUDE = """\
{%- set vlm = namespace(messages=[], text='') -%}
{%- for message in messages -%}
{%- if message['content'] is defined and message['content'] is not none and message['content'] is not string -%}
{%- set vlm.text = '' -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}
{%- set vlm.text = vlm.text + '<IMG_CONTEXT>\\n' -%}
{%- elif part['type'] == 'video' -%}
{%- set vlm.text = vlm.text + 'VIDEO_TOKEN\\n' -%}
{%- elif part['type'] == 'text' -%}
{%- set vlm.text = vlm.text + part['text'] -%}
{%- else -%}
{{- raise_exception('Message parts must be of type image, video or text, not ' + part['type'] | string) -}}
{%- endif -%}
{%- endfor -%}
{%- set vlm.messages = vlm.messages + [dict(message, content=vlm.text)] -%}
{%- else -%}
{%- set vlm.messages = vlm.messages + [message] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = vlm.messages %}
"""


def load_tokenizer(folder: Path) -> tuple[PreTrainedTokenizerBase, list[str]]:
    """
    The tokenizer of `folder` with the image tokens registered; tokens it does not know are added at the end.

    Qwen2.5's vocabulary has a video token of its own, which is taken rather than adding `<video>`.

    Returns:
        `tuple`: the tokenizer, and the tokens that were added, in the order of their ids.
    """
    loader = _tokenizer_loader(folder)
    vocabulary = loader.from_pretrained(folder).get_vocab()
    tokens = dict(IMAGE_TOKENS)
    if tokens["video_token"] not in vocabulary and QWEN_VIDEO_TOKEN in vocabulary:
        tokens["video_token"] = QWEN_VIDEO_TOKEN
    tokenizer = loader.from_pretrained(folder, **tokens)
    added = sorted(set(tokenizer.get_vocab()) - set(vocabulary), key=tokenizer.convert_tokens_to_ids)
    unexpected = [token for token in added if token not in tokens.values()]
    missing = [token for token in tokens.values() if token not in tokenizer.get_vocab()]
    if unexpected or missing:
        raise CheckpointError(f"{folder}: registering the image tokens added {unexpected} and left out {missing}.")
    return tokenizer, added


def _tokenizer_loader(folder: Path) -> type:
    """
    A folder that names a generic class means its `tokenizer.json` literally. `AutoTokenizer` would rebuild it as the
    class registered for the model type, with another pre-tokenizer and, for a model that is not BPE, another vocabulary.
    """
    path = folder / "tokenizer_config.json"
    named = json.loads(path.read_text(encoding="utf-8")).get("tokenizer_class") if path.is_file() else None
    return PreTrainedTokenizerFast if named in GENERIC_TOKENIZERS else AutoTokenizer


def check_saved_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a folder whose tokenizer, as `AutoTokenizer` loads it, differs from `tokenizer`."""
    saved = AutoTokenizer.from_pretrained(folder)
    same = saved.get_vocab() == tokenizer.get_vocab()
    if not same or any(saved.encode(text) != tokenizer.encode(text) for text in PROBE_TEXTS):
        raise CheckpointError(
            f"{folder}: the tokenizer ({type(tokenizer).__name__}) does not survive saving: it is loaded as "
            f"{type(saved).__name__} and {'encodes text differently' if same else 'has another vocabulary'}. Save the "
            "LLM's tokenizer as a PreTrainedTokenizerFast (`tokenizer.json`) and compose again."
        )


def image_token_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of the image and video tokens of a tokenizer made by [`load_tokenizer`]."""
    tokens = [tokenizer.start_image_token, tokenizer.end_image_token, tokenizer.context_image_token]
    return tokenizer.convert_tokens_to_ids([*tokens, tokenizer.video_token])


def image_chat_template(template: str | dict[str, str], video_token: str = IMAGE_TOKENS["video_token"]) -> str:
    """
    The LLM's chat template with a prelude that turns lists of `{"type": "image" | "text"}` parts into strings.

    Conversations with string contents render exactly as with `template` alone.
    """
    if not isinstance(template, str):
        if "default" not in template:
            raise CheckpointError(
                f"the tokenizer has the chat templates {sorted(template)} and none called 'default'."
            )
        template = template["default"]
    return CHAT_PRELUDE.replace("VIDEO_TOKEN", video_token) + template


def build_processor(
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str,
    vision_config: InternVLVisionConfig,
    downsample_ratio: float,
    vision_folder: Path,
    min_patches: int = 1,
    max_patches: int = 12,
) -> InternVLProcessor:
    """
    An `InternVLProcessor` for the tower: `GotOcr2ImageProcessor` at the tower's image size, with the mean and standard
    deviation of the vision folder's `preprocessor_config.json`, or ImageNet's when there is none.
    `InternVLProcessor` always asks for tiles, so `max_patches=1` is what "no tiling" means.
    """
    if not 1 <= min_patches <= max_patches:
        raise CheckpointError(
            f"min_patches is {min_patches} and max_patches {max_patches}; they must be at least 1, and the first no "
            "larger than the second."
        )
    side = square(vision_config.image_size, "vision image_size")
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    own = vision_folder / "preprocessor_config.json"
    if own.is_file():
        settings = json.loads(own.read_text(encoding="utf-8"))
        mean, std = settings.get("image_mean", mean), settings.get("image_std", std)
    common = dict(size={"height": side, "width": side}, image_mean=mean, image_std=std)
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(
            **common, crop_to_patches=True, min_patches=min_patches, max_patches=max_patches
        ),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(**common),
        image_seq_length=image_seq_length(vision_config, downsample_ratio),
        chat_template=chat_template,
    )
