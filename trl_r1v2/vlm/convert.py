# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Converts whole checkpoints between the published InternVL / Skywork-R1V2 layout (remote code) and transformers' native
InternVL layout. Tensors are renamed, split and joined as bytes, so a conversion there and back is exact. Not covered:
InternLM2 language models, quantised checkpoints, the published Python files.
"""

import shutil
from pathlib import Path

from transformers import InternVLConfig

from . import checkpoint_keys as keys
from .checkpoint_files import read_checkpoint
from .compose import (
    ComposeReport,
    chat_template_of,
    embedding_dtype,
    in_model_order,
    native_config,
    write_native_checkpoint,
)
from .errors import CheckpointError
from .parts import local_folder, read_config, tied_head
from .processor_setup import (
    TOKENIZER_SETTINGS,
    VOCABULARY_FILES,
    ImageStatistics,
    build_processor,
    image_processor_settings,
    image_token_ids,
    load_tokenizer,
)
from .published_config import (
    PUBLISHED_CHAT_TYPES,
    chat_config_to_published,
    check_chat_config,
    check_sections,
    image_settings_to_published,
    text_config_to_native,
    vision_config_to_native,
)
from .shard_writer import WriteResult, write_json, written_shards


TOKENIZER_FILES = (
    *VOCABULARY_FILES, *TOKENIZER_SETTINGS, "merges.txt", "chat_template.jinja", "generation_config.json",
)  # fmt: skip


def to_native(
    checkpoint: str,
    output_dir: str,
    *,
    max_shard_size: str = "5GB",
    chat_template: str | None = None,
    progress: bool = True,
) -> ComposeReport:
    """
    Convert a published InternVL, Skywork-R1V or Skywork-R1V2 checkpoint to the native layout; the arguments are those
    of `trl-r1v2 convert`. A [`~vlm.errors.CheckpointError`] lists settings without a native counterpart, and tensors
    that are unknown, missing or given twice.
    """
    folder = local_folder(checkpoint, "checkpoint")
    published = read_config(folder)
    if published.get("model_type") not in PUBLISHED_CHAT_TYPES:
        raise CheckpointError(
            f"{folder} is a {published.get('model_type')!r} checkpoint; published InternVL checkpoints are "
            f"{' or '.join(PUBLISHED_CHAT_TYPES)}."
        )
    check_chat_config(published, folder)
    text_config = text_config_to_native(published["llm_config"])
    vision_config = vision_config_to_native(published["vision_config"])
    stored = read_checkpoint(folder)
    head, embedding = stored.get(keys.PUBLISHED_LM_HEAD), stored.get(keys.PUBLISHED_EMBEDDING)
    dropped = tied_head(folder, text_config.tie_word_embeddings, head, embedding)
    tensors = keys.to_native({name: tensor for name, tensor in stored.items() if name not in dropped}, folder)

    tokenizer, added = load_tokenizer(folder)
    # Nothing ever embeds a video token, so it may take a row in reserve; the others must have trained rows.
    if set(added) - {tokenizer.video_token} or max(image_token_ids(tokenizer)) >= text_config.vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer lacks {added}, and the embeddings have {text_config.vocab_size} rows. A "
            "published InternVL tokenizer holds the image tokens: fetch the tokenizer files again."
        )
    ratio = published.get("downsample_ratio", 0.5)
    config = native_config(vision_config, text_config, tokenizer, ratio, embedding_dtype(tensors, folder))
    statistics = ImageStatistics.from_folder(folder)
    tiles = published.get("max_dynamic_patch", 6) if published.get("dynamic_image_size", False) else 1
    processor = build_processor(
        tokenizer,
        chat_template_of(folder, tokenizer, chat_template),
        vision_config,
        ratio,
        statistics,
        min_patches=min(published.get("min_dynamic_patch", 1), tiles),
        max_patches=tiles,
    )
    settings = {"checkpoint": str(folder), "max_shard_size": max_shard_size, "chat_template": chat_template}
    return write_native_checkpoint(
        Path(output_dir), config, tensors, processor, statistics, folder, settings, added, dropped, progress
    )


def to_published(
    checkpoint: str,
    output_dir: str,
    *,
    reference: str | None = None,
    max_shard_size: str = "5GB",
    progress: bool = True,
) -> WriteResult:
    """
    Convert a native InternVL checkpoint to the published layout; the arguments are those of `trl-r1v2 convert`. A
    [`~vlm.errors.CheckpointError`] lists settings without a published counterpart, and tensors that are unknown,
    missing, given twice, of another shape, or of dtypes that cannot be joined.
    """
    folder = local_folder(checkpoint, "checkpoint")
    raw = read_config(folder)
    if raw.get("model_type") != "internvl":
        raise CheckpointError(f"{folder} is a {raw.get('model_type')!r} checkpoint, not a native `internvl` one.")
    check_sections(raw, folder, "vision_config", "text_config")
    base = None
    if reference is not None:
        base = read_config(local_folder(reference, "reference"))
        if base.get("model_type") not in PUBLISHED_CHAT_TYPES:
            raise CheckpointError(
                f"reference: {reference} is a {base.get('model_type')!r} checkpoint, not a published one."
            )
        check_sections(base, Path(reference), "vision_config", "llm_config")
    native = InternVLConfig.from_pretrained(folder)
    images, _ = image_processor_settings(folder)
    tiling, preprocessor = image_settings_to_published(images) if images else ({}, None)
    config = {**chat_config_to_published(native, base), **tiling}
    stored = keys.by_module_name(read_checkpoint(folder), folder)
    for name in tied_head(folder, native.tie_word_embeddings, stored.get(keys.LM_HEAD), stored.get(keys.EMBEDDING)):
        del stored[name]
    in_model_order(list(stored.values()), native, f"{folder}: the tensors")
    tensors = keys.to_published(stored, folder)
    output = Path(output_dir)
    settings = {"checkpoint": str(folder), "reference": reference, "max_shard_size": max_shard_size}
    with written_shards(output, tensors, settings, max_shard_size, progress) as result:
        if preprocessor is not None:
            write_json(output / "preprocessor_config.json", preprocessor)
        for name in TOKENIZER_FILES:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, output / name)
        write_json(output / "config.json", config)
    return result
