# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The processor of a composed checkpoint: image tokens in the LLM's tokenizer, a chat template that accepts images, and
image settings that fit the tower. Rows of data are `images/`.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from jinja2 import TemplateError
from transformers import (
    AutoTokenizer,
    GotOcr2ImageProcessor,
    InternVLProcessor,
    InternVLVideoProcessor,
    InternVLVisionConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from .checkpoint_files import read_json_object
from .errors import CheckpointError
from .published_config import image_seq_length, square


IMAGE_TOKENS = {"start_image_token": "<img>", "end_image_token": "</img>",
                "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}  # fmt: skip

QWEN_VIDEO_TOKEN = "<|video_pad|>"

# A tokenizer is in one of the first, and the others are read beside it.
VOCABULARY_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
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
    The tokenizer of `folder` with the image tokens registered, and the tokens that it did not know, which are added at
    the end. Qwen2.5's own video token is taken rather than adding `<video>`; without a padding token, the end of
    sequence pads, as in TRL's trainers. A [`~vlm.errors.CheckpointError`] when there is no tokenizer, a file of it is
    broken, it knows neither padding nor an end, or the image tokens cannot be registered.
    """
    if not any((folder / name).is_file() for name in VOCABULARY_FILES):
        raise CheckpointError(
            f"{folder} has no tokenizer: none of {', '.join(VOCABULARY_FILES)}. Copy the LLM's tokenizer files there."
        )
    vocabulary = _load(folder).get_vocab()
    tokens = dict(IMAGE_TOKENS)
    if tokens["video_token"] not in vocabulary and QWEN_VIDEO_TOKEN in vocabulary:
        tokens["video_token"] = QWEN_VIDEO_TOKEN
    tokenizer = _load(folder, **tokens)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise CheckpointError(
                f"{folder}: the tokenizer has neither a padding token nor an end of sequence. Set `eos_token` in its "
                "tokenizer_config.json."
            )
        tokenizer.pad_token = tokenizer.eos_token
    added = sorted(set(tokenizer.get_vocab()) - set(vocabulary), key=tokenizer.convert_tokens_to_ids)
    unexpected = [token for token in added if token not in tokens.values()]
    missing = [token for token in tokens.values() if token not in tokenizer.get_vocab()]
    if unexpected or missing:
        raise CheckpointError(f"{folder}: registering the image tokens added {unexpected} and left out {missing}.")
    return tokenizer, added


def _load(folder: Path, **tokens: str) -> PreTrainedTokenizerBase:
    """
    The tokenizer of a folder that has one. A folder that names a generic class means its `tokenizer.json` literally,
    which `AutoTokenizer` would rebuild as the class of the model type, with another pre-tokenizer and perhaps
    vocabulary.
    """
    paths = {name: folder / name for name in (VOCABULARY_FILES[0], *TOKENIZER_SETTINGS)}
    settings = {name: read_json_object(path) for name, path in paths.items() if path.is_file()}
    named = settings.get("tokenizer_config.json", {}).get("tokenizer_class")
    loader = PreTrainedTokenizerFast if named in GENERIC_TOKENIZERS else AutoTokenizer
    try:
        return loader.from_pretrained(folder, **tokens)
    except Exception as error:  # that very class, from the tokenizers library
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CheckpointError(
            f"{folder}: the tokenizer cannot be loaded ({reason}). Fetch or copy its files again."
        ) from error


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
    The LLM's chat template with a prelude that turns lists of `{"type": "image" | "text"}` parts into strings. String
    contents render exactly as with `template` alone.
    """
    if not isinstance(template, str):
        if "default" not in template:
            raise CheckpointError(
                f"the tokenizer has the chat templates {sorted(template)} and none called 'default'."
            )
        template = template["default"]
    return CHAT_PRELUDE.replace("VIDEO_TOKEN", video_token) + template


def check_chat_template(template: str, tokenizer: PreTrainedTokenizerBase, source: str | Path) -> None:
    """
    Refuse a template of [`image_chat_template`] that does not render a question, without and with an image, or leaves
    out its text or image; `source` is named.
    """
    text, options = {"type": "text", "text": "What is it?"}, {"tokenize": False, "add_generation_prompt": True}
    remedy = "Correct it, or pass another as chat_template=<path of a Jinja file>."
    shown = [text["text"], tokenizer.context_image_token]
    for content, parts in ((text["text"], shown[:1]), ([{"type": "image"}, text], shown)):
        question = [{"role": "user", "content": content}]
        try:
            rendered = tokenizer.apply_chat_template(question, chat_template=template, **options)
        except (TemplateError, TypeError) as error:  # templates add strings; Python refuses to add other things
            raise CheckpointError(
                f"{source}: the chat template cannot render a user's question ({error}). {remedy}"
            ) from error
        missing = [part for part in parts if part not in rendered]
        if missing:
            raise CheckpointError(f"{source}: the chat template leaves out {missing} of a user's question. {remedy}")


@dataclass(frozen=True)
class ImageStatistics:
    """What images are normalised with: mean and deviation by colour, of values from 0 to 1, and their source."""

    mean: list[float]
    std: list[float]
    source: str

    def __str__(self) -> str:
        return f"images normalised with mean {self.mean} and deviation {self.std} ({self.source})"

    @classmethod
    def from_folder(cls, folder: Path) -> "ImageStatistics":
        """
        Statistics of the tower in `folder`; what the folder does not give is ImageNet's, and what cannot be used is
        refused.
        """
        settings, name = image_processor_settings(folder)
        if settings.get("do_normalize") is False:
            raise CheckpointError(
                f"{folder / name}: do_normalize is false, and the composed processor always normalises. Set it to "
                "true and give image_mean [0, 0, 0] and image_std [1, 1, 1] for a tower that sees plain values."
            )
        values = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
        defaults = [key for key in values if key not in settings]
        values |= {key: settings[key] for key in values if key in settings}
        for key, value in values.items():
            if not _are_colours(value, positive=key == "image_std"):
                raise CheckpointError(
                    f"{folder / name}: {key} is {value}; it must be three finite numbers"
                    f"{' above 0' if key == 'image_std' else ''}. Give those that the tower was trained with."
                )
        source = f"from {name} of {folder}"
        if defaults:
            partly = f"{defaults[0]} is ImageNet's, the rest {source}"
            source = partly if len(defaults) == 1 else f"ImageNet's, none in {folder}"
        return cls(values["image_mean"], values["image_std"], source)


def _are_colours(value: object, positive: bool) -> bool:
    numbers = isinstance(value, list) and len(value) == 3 and all(isinstance(v, (int, float)) for v in value)
    return numbers and all(math.isfinite(v) and (v > 0 or not positive) for v in value)


def image_processor_settings(folder: Path) -> tuple[dict, str]:
    """
    Settings of a folder's image processor and the name of their file, as transformers looks for them: inside
    `processor_config.json`, which it writes itself, then `preprocessor_config.json`. Empty where there are none.
    """
    name = "processor_config.json"
    if (folder / name).is_file():
        nested = read_json_object(folder / name).get("image_processor")
        if isinstance(nested, dict):
            return nested, name
    name = "preprocessor_config.json"
    return (read_json_object(folder / name) if (folder / name).is_file() else {}), name


def build_processor(
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str,
    vision_config: InternVLVisionConfig,
    downsample_ratio: float,
    statistics: ImageStatistics,
    min_patches: int = 1,
    max_patches: int = 12,
) -> InternVLProcessor:
    """
    An `InternVLProcessor` for the tower: `GotOcr2ImageProcessor` at the tower's image size. `InternVLProcessor` always
    asks for tiles, so `max_patches=1` is what "no tiling" means.
    """
    if not 1 <= min_patches <= max_patches:
        raise CheckpointError(
            f"min_patches is {min_patches} and max_patches {max_patches}; they must be at least 1, and the first no "
            "larger than the second."
        )
    side = square(vision_config.image_size, "vision image_size")
    common = dict(size={"height": side, "width": side}, image_mean=statistics.mean, image_std=statistics.std)
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(
            **common, crop_to_patches=True, min_patches=min_patches, max_patches=max_patches
        ),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(**common),
        image_seq_length=image_seq_length(vision_config, downsample_ratio),
        chat_template=chat_template,
    )
