# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Configs: what a published InternViT / InternVL / Skywork-R1V2 `config.json` means in transformers' native classes, and
back. A setting that the native model computes differently is refused with its value; training-only settings without a
native counterpart (`drop_path_rate`, `use_flash_attn`) are dropped. Names of tensors are `checkpoint_keys.py`.
"""

from pathlib import Path

from transformers import AutoConfig, GotOcr2ImageProcessor, InternVLConfig, InternVLVisionConfig, PreTrainedConfig

from .errors import CheckpointError


PUBLISHED_VISION_TYPE = "intern_vit_6b"
PUBLISHED_CHAT_TYPES = ("internvl_chat", "skywork_chat")

# published field -> (native field, the published class's default)
_VISION_FIELDS = {
    "hidden_size": ("hidden_size", 3200),
    "num_hidden_layers": ("num_hidden_layers", 48),
    "num_attention_heads": ("num_attention_heads", 25),
    "intermediate_size": ("intermediate_size", 12800),
    "num_channels": ("num_channels", 3),
    "patch_size": ("patch_size", 14),
    "image_size": ("image_size", 224),
    "qkv_bias": ("attention_bias", False),
    "qk_normalization": ("use_qk_norm", True),
    "hidden_act": ("hidden_act", "gelu"),
    "norm_type": ("norm_type", "rms_norm"),
    "layer_norm_eps": ("layer_norm_eps", 1e-6),
    "dropout": ("hidden_dropout_prob", 0.0),
    "attention_dropout": ("attention_dropout", 0.0),
    "initializer_range": ("initializer_range", 0.02),
    "initializer_factor": ("layer_scale_init_value", 0.1),
}
# The native query and key norms have this epsilon built in, whatever `layer_norm_eps` says.
NATIVE_QK_NORM_EPS = 1e-6


def vision_config_to_native(published: dict) -> InternVLVisionConfig:
    """Native tower config of a published InternViT's; refuses one that the native tower would compute otherwise."""
    values = {native: published.get(name, default) for name, (native, default) in _VISION_FIELDS.items()}
    if values["use_qk_norm"] and values["layer_norm_eps"] != NATIVE_QK_NORM_EPS:
        raise CheckpointError(
            f"vision layer_norm_eps is {values['layer_norm_eps']}, but the native tower normalises queries and keys "
            f"with {NATIVE_QK_NORM_EPS}: the converted model would differ."
        )
    # Mean pooling means: no final LayerNorm, which InternViT does not have.
    return InternVLVisionConfig(**values, use_mean_pooling=True, use_absolute_position_embeddings=True)


def vision_config_to_published(native: InternVLVisionConfig) -> dict:
    """Published InternViT config of a native tower config."""
    values = native.to_dict()
    needed = {"use_mean_pooling": True, "use_mask_token": False, "use_absolute_position_embeddings": True}
    found = [f"{name}={values[name]}" for name, value in needed.items() if values[name] != value]
    if found:
        raise CheckpointError(
            f"InternViT has no final norm, no mask token and absolute positions: this tower has {', '.join(found)}."
        )
    config = {published: values[name] for published, (name, _) in _VISION_FIELDS.items()}
    for field in ("image_size", "patch_size"):
        config[field] = square(config[field], f"vision {field}")
    return {"model_type": PUBLISHED_VISION_TYPE, "architectures": ["InternVisionModel"], **config}


def text_config_to_native(llm_config: dict) -> PreTrainedConfig:
    """Config of the language model inside a published chat config."""
    values = dict(llm_config)
    model_type = values.pop("model_type", None)
    if model_type not in ("qwen2", "qwen3", "llama"):
        raise CheckpointError(
            f"the language model of this checkpoint is {model_type!r}; the conversion covers qwen2, qwen3 and llama, "
            "whose published tensors carry the native names."
        )
    if "tie_word_embeddings" not in values:
        raise CheckpointError(
            "llm_config does not say whether input and output embeddings are tied. Add `tie_word_embeddings` to the "
            "llm_config of config.json (QwQ and Qwen2.5-32B: false)."
        )
    return AutoConfig.for_model(model_type, **values)


def check_sections(config: dict, folder: Path, *names: str) -> None:
    """Refuse a `config.json` without the sections `names`."""
    missing = [name for name in names if not isinstance(config.get(name), dict)]
    if missing:
        raise CheckpointError(
            f"{folder}/config.json has no {' and no '.join(f'`{name}`' for name in missing)}. Fetch or copy it again."
        )


def check_chat_config(published: dict, folder: Path) -> None:
    """Refuse published chat settings that the native model does not reproduce, all of them with their values."""
    check_sections(published, folder, "vision_config", "llm_config")
    image_size = published["vision_config"].get("image_size", _VISION_FIELDS["image_size"][1])
    required = {
        "select_layer": (published.get("select_layer", -1), -1),
        "ps_version": (published.get("ps_version", "v1"), "v2"),
        "use_backbone_lora": (published.get("use_backbone_lora", 0), 0),
        "use_llm_lora": (published.get("use_llm_lora", 0), 0),
        "pad2square": (published.get("pad2square", False), False),
        "force_image_size": (published.get("force_image_size") or image_size, image_size),
    }
    wrong = [f"{name}={value!r} (must be {must!r})" for name, (value, must) in required.items() if value != must]
    if wrong:
        raise CheckpointError(f"the native model cannot reproduce this checkpoint's settings: {', '.join(wrong)}.")


def chat_config_to_published(config: InternVLConfig, reference: dict | None) -> dict:
    """
    Published chat config of a native one. Other settings (`auto_map`, `template`, `architectures`, tiling) are those
    of `reference`, a published `config.json`, if there is one.
    """
    if config.vision_feature_layer != -1 or config.vision_feature_select_strategy != "default":
        raise CheckpointError(
            f"vision_feature_layer={config.vision_feature_layer} and vision_feature_select_strategy="
            f"{config.vision_feature_select_strategy!r}: the published layout is written for -1 and 'default'."
        )
    image_size = square(config.vision_config.image_size, "vision image_size")
    base = reference or {
        "architectures": ["InternVLChatModel"],
        "model_type": PUBLISHED_CHAT_TYPES[0],
        "template": None,
        "llm_config": {},
        "vision_config": {},
    }
    return {
        **base,
        "downsample_ratio": config.downsample_ratio,
        "force_image_size": image_size,
        "llm_config": {**base["llm_config"], **_text_config_to_published(config.text_config)},
        "ps_version": "v2",
        "select_layer": -1,
        "tie_word_embeddings": config.tie_word_embeddings,
        "vision_config": {**base["vision_config"], **vision_config_to_published(config.vision_config)},
    }


def image_settings_to_published(settings: dict) -> tuple[dict, dict]:
    """
    Entries of a published `config.json`, and the whole `preprocessor_config.json`, which describes one tile, from the
    settings of a `GotOcr2ImageProcessor` in an `InternVLProcessor`, which always cuts tiles and adds a thumbnail where
    there are several.
    """
    native = GotOcr2ImageProcessor.from_dict(settings)
    side = square((native.size.height, native.size.width), "image processor size")
    tiling = {"min_dynamic_patch": native.min_patches, "max_dynamic_patch": native.max_patches}
    tiling |= {"dynamic_image_size": native.max_patches > 1, "use_thumbnail": True}
    preprocessor = dict.fromkeys(("do_center_crop", "do_normalize", "do_resize"), True)
    preprocessor |= {"feature_extractor_type": "CLIPFeatureExtractor", "crop_size": side, "size": side}
    preprocessor |= {"image_mean": list(native.image_mean), "image_std": list(native.image_std)}
    return tiling, preprocessor | {"resample": int(native.resample)}


def _text_config_to_published(native: PreTrainedConfig) -> dict:
    """The language model's config with the rotary and dtype fields that the published code's transformers reads."""
    values = native.to_dict()
    rope = values.pop("rope_parameters")
    values["rope_theta"] = rope.pop("rope_theta")
    values["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    values["torch_dtype"] = values.pop("dtype")
    return values


def square(size: int | list[int] | tuple[int, ...], what: str) -> int:
    """The side of a square size; refuses any other."""
    if isinstance(size, int):
        return size
    if len(size) != 2 or size[0] != size[1]:
        raise CheckpointError(f"{what} is {tuple(size)}: only square sizes are supported.")
    return size[0]


def image_seq_length(vision: InternVLVisionConfig, downsample_ratio: float) -> int:
    """
    Image tokens per tile: the patch grid after pixel shuffle. A grid that is not square or that the shuffle does not
    divide is refused (native `pixel_shuffle` would mix rows without a word).
    """
    image, patch = square(vision.image_size, "vision image_size"), square(vision.patch_size, "vision patch_size")
    factor = round(1 / downsample_ratio) if 0 < downsample_ratio <= 1 else 0
    if factor * downsample_ratio != 1:
        raise CheckpointError(
            f"downsample_ratio is {downsample_ratio}; it must be 1/n for a whole n (0.5 in InternVL)."
        )
    if image % (patch * factor):
        raise CheckpointError(
            f"image_size {image} is not a multiple of patch_size {patch} times {factor}: a downsample_ratio of "
            f"{downsample_ratio} cannot divide the grid of patches."
        )
    return (image // patch // factor) ** 2
