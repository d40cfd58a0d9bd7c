# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Composes a vision tower, an MLP adapter and a causal language model into one native InternVL checkpoint (R1V2, eq. 1).

Everything is read from the parts' own files: sizes from their configs, tensors as byte ranges, ids from the tokenizer.
Neither a part nor the whole is ever loaded. Whole published checkpoints are converted by `convert.py`.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVisionConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.hf_argparser import HfArg

from . import checkpoint_keys as keys
from .checkpoint_files import LazyTensor, read_json_object
from .errors import CheckpointError
from .parts import fresh_adapter, local_folder, read_adapter, read_config, read_llm, read_vision
from .processor_setup import (
    ImageStatistics,
    build_processor,
    check_chat_template,
    check_saved_tokenizer,
    image_chat_template,
    image_token_ids,
    load_tokenizer,
)
from .published_config import image_seq_length
from .shard_writer import WriteResult, write_json, written_shards


DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass
class ComposeReport:
    """What was composed."""

    output_dir: str
    num_parameters: dict[str, int]  # of `vision`, `adapter` and `llm`
    dtypes: dict[str, list[str]]  # of each of them
    image_token_id: int  # of `<IMG_CONTEXT>` in the tokenizer
    image_seq_length: int  # image tokens per tile
    vocab_size: int  # rows of the input embeddings
    added_tokens: list[str]  # that the LLM's tokenizer did not have
    dropped_tensors: list[str]  # left out because the native model derives them
    image_statistics: ImageStatistics  # what images are normalised with
    shards: WriteResult = field(repr=False)

    def __str__(self) -> str:
        lines = [f"native InternVL checkpoint in {self.output_dir}"]
        for name, count in self.num_parameters.items():
            lines.append(f"{name:<8}{count:>16,} parameters  {'/'.join(self.dtypes[name])}")
        lines += [
            f"{self.image_seq_length} image tokens a tile; <IMG_CONTEXT> is {self.image_token_id}; "
            f"{self.vocab_size:,} embedding rows; added tokens: {self.added_tokens or 'none'}",
            *map(str, (self.image_statistics, self.shards)),
        ]
        lines += [f"left out, derived by the model: {self.dropped_tensors}"] if self.dropped_tensors else []
        return "\n  ".join(lines)


@dataclass
class ComposeArguments:
    """Arguments of [`compose_vlm`] and of `trl-r1v2 compose`; their meanings are in their help."""

    vision: str = HfArg(
        help="Folder of the vision tower: native InternVLVisionModel, published InternViT, or a whole native or "
        "published InternVL checkpoint of which the tower is taken."
    )
    llm: str = HfArg(help="Folder of a Qwen2, Qwen3 or Llama causal LM with its tokenizer.")
    output_dir: str = HfArg(help="Folder to write. An interrupted run is resumed there.")
    adapter: str | None = HfArg(
        default=None,
        help="Native or published InternVL checkpoint whose adapter is taken. Default: a fresh one, LayerNorm at "
        "identity, weights normal with standard deviation 0.02, biases zero (ours; the paper trains its adapter "
        "before).",
    )
    downsample_ratio: float = HfArg(default=0.5, help="Pixel-shuffle ratio per side.")
    seed: int = HfArg(default=0, help="Seed of a fresh adapter.")
    dtype: str | None = HfArg(
        default=None,
        help="bfloat16, float16 or float32: cast every tensor. Default: every part keeps its own, and the config "
        "names the LLM's.",
    )
    max_shard_size: str = HfArg(default="5GB", help="Size above which a new shard begins.")
    min_patches: int = HfArg(default=1, help="Fewest tiles an image is cut into.")
    max_patches: int = HfArg(default=12, help="Most tiles, without the thumbnail; 1 turns tiling off.")
    chat_template: str | None = HfArg(default=None, help="Path of a Jinja file in place of the LLM's own template.")


def compose_vlm(vision: str, llm: str, output_dir: str, *, progress: bool = True, **options) -> ComposeReport:
    """
    Compose a vision tower, an adapter and a causal LM into one folder for `AutoModelForImageTextToText` and
    `AutoProcessor`; `options` are further fields of [`ComposeArguments`].

    Raises:
        [`~vlm.errors.CheckpointError`]: when the parts do not fit together (with the numbers that differ), a part has
            no safetensors checkpoint or the LLM no chat template, `output_dir` holds something else or another run is
            writing there, or the disk is too small; nothing is written then. Also when the disk fails on the way, or a
            number turns out to be infinite in `dtype`.
    """
    args = ComposeArguments(vision, llm, output_dir, **options)
    vision_dir, llm_dir = local_folder(vision, "vision"), local_folder(llm, "llm")
    adapter_dir = None if args.adapter is None else local_folder(args.adapter, "adapter")
    if args.dtype not in (None, *DTYPES):
        raise CheckpointError(f"dtype is {args.dtype!r}; give one of {', '.join(DTYPES)}, or none to keep the bytes.")
    vision_config, vision_tensors = read_vision(vision_dir)
    kind = read_config(llm_dir).get("model_type")
    text_config = AutoConfig.from_pretrained(llm_dir) if kind in CONFIG_MAPPING else None
    if text_config is None or "vocab_size" not in text_config.to_dict():  # a VLM's is its language model's
        raise CheckpointError(f"llm: {llm_dir} is a {kind!r} checkpoint; give a Qwen2, Qwen3 or Llama causal LM.")
    if text_config.to_dict().get("quantization_config") is not None:
        raise CheckpointError(
            f"{llm_dir} is quantised: its bytes cannot be composed. Give the unquantised checkpoint."
        )
    tokenizer, added = load_tokenizer(llm_dir)
    template = chat_template_of(llm_dir, tokenizer, args.chat_template)
    llm_tensors, dropped = read_llm(llm_dir, text_config, tokenizer, added)
    llm_dtype = embedding_dtype(llm_tensors, llm_dir) if args.dtype is None else DTYPES[args.dtype]

    config = native_config(vision_config, text_config, tokenizer, args.downsample_ratio, llm_dtype)
    if adapter_dir is None:
        adapter_tensors = fresh_adapter(config, args.seed, llm_dtype)
    else:
        adapter_tensors = read_adapter(adapter_dir, config)
    statistics = ImageStatistics.from_folder(vision_dir)
    tiles = args.min_patches, args.max_patches
    processor = build_processor(tokenizer, template, vision_config, args.downsample_ratio, statistics, *tiles)
    folders = {
        "vision": str(vision_dir),
        "llm": str(llm_dir),
        "adapter": None if adapter_dir is None else str(adapter_dir),
    }
    settings = {name: value for name, value in (vars(args) | folders).items() if name != "output_dir"}
    tensors = [
        tensor.to(tensor.name, DTYPES.get(args.dtype)) for tensor in vision_tensors + adapter_tensors + llm_tensors
    ]
    return write_native_checkpoint(
        Path(output_dir), config, tensors, processor, statistics, llm_dir, settings, added, dropped, progress
    )


def native_config(
    vision_config: InternVLVisionConfig,
    text_config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    downsample_ratio: float,
    dtype: torch.dtype,
) -> InternVLConfig:
    """The config of the whole, with everything that has a misleading default set from the parts."""
    vision_config.dtype = text_config.dtype = dtype
    vision_config._name_or_path = text_config._name_or_path = ""
    return InternVLConfig(
        architectures=["InternVLForConditionalGeneration"],
        vision_config=vision_config,
        text_config=text_config,
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=image_seq_length(vision_config, downsample_ratio),
        downsample_ratio=downsample_ratio,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        # The class defaults to True, which would overwrite the head of an untied LLM with its embeddings.
        tie_word_embeddings=text_config.tie_word_embeddings,
        dtype=dtype,
    )


def write_native_checkpoint(
    output_dir: Path,
    config: InternVLConfig,
    tensors: list[LazyTensor],
    processor: InternVLProcessor,
    statistics: ImageStatistics,
    generation_from: Path,
    settings: dict,
    added: list[str],
    dropped: list[str],
    progress: bool,
) -> ComposeReport:
    """Check names and shapes against the native model, then write shards, config, processor and generation config."""
    ordered = in_model_order(tensors, config)
    generation = generation_settings(generation_from, config, processor.tokenizer)
    with written_shards(output_dir, ordered, settings, settings["max_shard_size"], progress) as result:
        config.save_pretrained(output_dir)
        processor.save_pretrained(output_dir)
        check_saved_tokenizer(output_dir, processor.tokenizer)
        write_json(output_dir / "generation_config.json", generation)
    components = {"vision": keys.VISION_ROOT, "adapter": keys.ADAPTER_ROOT, "llm": (keys.LLM_ROOT, keys.LM_HEAD)}
    parts = {name: [t for t in ordered if t.name.startswith(root)] for name, root in components.items()}
    return ComposeReport(
        output_dir=str(output_dir),
        num_parameters={name: sum(torch.Size(t.shape).numel() for t in part) for name, part in parts.items()},
        dtypes={name: sorted({str(t.dtype).removeprefix("torch.") for t in part}) for name, part in parts.items()},
        image_token_id=config.image_token_id,
        image_seq_length=config.image_seq_length,
        vocab_size=config.text_config.vocab_size,
        added_tokens=added,
        dropped_tensors=dropped,
        image_statistics=statistics,
        shards=result,
    )


def embedding_dtype(tensors: list[LazyTensor], folder: Path) -> torch.dtype:
    """The dtype of the input embeddings, which stands for the LLM's; `folder` is named where there are none."""
    for tensor in tensors:
        if tensor.name == keys.EMBEDDING:
            return tensor.dtype
    raise CheckpointError(f"{folder}: no input embeddings (embed_tokens.weight) are there. Fetch it again.")


def in_model_order(tensors: list[LazyTensor], config: InternVLConfig, source: str = "the tensors") -> list[LazyTensor]:
    """
    Tensors under native names in the order of the native model's state dict; a [`~vlm.errors.CheckpointError`] lists
    unknown, missing and repeated names and shapes that differ in `source`.
    """
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del expected[keys.LM_HEAD]
    by_name: dict[str, LazyTensor] = {}
    repeated = [tensor.name for tensor in tensors if by_name.setdefault(tensor.name, tensor) is not tensor]
    other = [name for name in expected if name in by_name and by_name[name].shape != expected[name]]
    shapes = [f"{name} {list(by_name[name].shape)} instead of {list(expected[name])}" for name in other]
    problems = {
        "unknown": [name for name in by_name if name not in expected],
        "missing": [name for name in expected if name not in by_name],
        "given twice": repeated,
        "of another shape": shapes,
    }
    found = [f"{len(names)} {kind}: {', '.join(names[:8])}" for kind, names in problems.items() if names]
    if found:
        raise CheckpointError(f"{source} do not fit the native InternVL model: {'; '.join(found)}.")
    return [by_name[name] for name in expected]


def generation_settings(folder: Path, config: InternVLConfig, tokenizer: PreTrainedTokenizerBase) -> dict:
    """
    The LLM's generation settings with the image tokens suppressed: a sampled `<IMG_CONTEXT>` has no tile behind it,
    and the next forward over it would raise.
    """
    path = folder / "generation_config.json"
    settings = read_json_object(path) if path.is_file() else {}
    settings.pop("_from_model_config", None)
    text, pad = config.text_config, tokenizer.pad_token_id
    defaults = {"bos_token_id": text.bos_token_id, "eos_token_id": text.eos_token_id or tokenizer.eos_token_id}
    for name, value in (defaults | {"pad_token_id": pad}).items():
        if settings.get(name) is None and value is not None:
            settings[name] = value
    settings["suppress_tokens"] = sorted({*(settings.get("suppress_tokens") or []), *image_token_ids(tokenizer)})
    return settings


def chat_template_of(folder: Path, tokenizer: PreTrainedTokenizerBase, path: str | None) -> str:
    """The template in the file `path`, or the tokenizer's own, made to accept images."""
    if path is not None:
        if not Path(path).is_file():
            raise CheckpointError(f"chat_template: there is no file {path}.")
        own = Path(path).read_text(encoding="utf-8")
    elif tokenizer.chat_template is None:
        raise CheckpointError(
            f"{folder}: the tokenizer has no chat template. Pass chat_template=<path of a Jinja file>."
        )
    else:
        own = tokenizer.chat_template
    template = image_chat_template(own, tokenizer.video_token)
    check_chat_template(template, tokenizer, path or folder)
    return template
