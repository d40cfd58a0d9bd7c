# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Published checkpoints convert to models that compute the same, and back to the same bytes."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.support import published_reference as published
from tests.support import tiny_parts
from trl_r1v2.vlm.compose import compose_vlm
from trl_r1v2.vlm.convert import to_native, to_published
from trl_r1v2.vlm.errors import CheckpointError


IMAGE_WORDS = ("<|video_pad|>", "<img>", "</img>", "<IMG_CONTEXT>")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The published checkpoint, its tensors, and the converted folder."""
    root = tmp_path_factory.mktemp("published")
    tensors = published.save_published(root / "published", tiny_parts.make_tokenizer(IMAGE_WORDS))
    to_native(str(root / "published"), str(root / "native"), max_shard_size="50KB", progress=False)
    return root, tensors


def all_tensors(folder):
    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}


def model_inputs(folder):
    processor = AutoProcessor.from_pretrained(folder)
    values = torch.randint(0, 256, (30, 58, 3), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "So?"}]}], add_generation_prompt=True
    )
    return processor(images=[Image.fromarray(values.numpy())], text=[text], return_tensors="pt")


def test_converted_model_computes_the_same(checkpoint):
    root, tensors = checkpoint
    model = AutoModelForImageTextToText.from_pretrained(root / "native")
    inputs = model_inputs(root / "native")
    pixels = inputs["pixel_values"]
    assert pixels.shape[0] > 1
    with torch.no_grad():
        states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        expected_states = published.vision_hidden_states(tensors, pixels)
        assert len(states) == len(expected_states) == published.VISION["num_hidden_layers"] + 1
        for state, expected in zip(states, expected_states, strict=True):
            torch.testing.assert_close(state.double(), expected, rtol=1e-4, atol=1e-5)
        features = model.get_image_features(pixels).pooler_output.flatten(0, 1)
        torch.testing.assert_close(features.double(), published.image_features(tensors, pixels), rtol=1e-4, atol=1e-5)
        image_token_id = model.config.image_token_id
        logits = model(**inputs).logits.double()
        expected = published.logits(tensors, inputs["input_ids"], pixels, image_token_id)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
        text = torch.tensor([[5, 7, 11, 13, 17, 19]])
        expected = published.logits(tensors, text, None, image_token_id)
        torch.testing.assert_close(model(input_ids=text).logits.double(), expected, rtol=1e-4, atol=1e-5)


def test_reference_notices_a_transposed_shuffle(checkpoint):
    """The comparison above is worth something: exchanging two patches' places changes the expected features."""
    _, tensors = checkpoint
    pixels = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    a, b = published.image_features(tensors, pixels), published.image_features(tensors, pixels.transpose(2, 3))
    assert (a - b).abs().max() > 0.1


def test_untied_head_and_ids(checkpoint):
    root, tensors = checkpoint
    model = AutoModelForImageTextToText.from_pretrained(root / "native")
    assert torch.equal(model.lm_head.weight, tensors["language_model.lm_head.weight"])
    assert not model.config.tie_word_embeddings and not model.config.text_config.tie_word_embeddings
    tokenizer = AutoProcessor.from_pretrained(root / "native").tokenizer
    assert tokenizer.video_token == "<|video_pad|>"
    assert tokenizer.encode("<think>") != tokenizer.encode("<IMG_CONTEXT>") == [model.config.image_token_id]
    assert len(tokenizer) == model.config.text_config.vocab_size


def test_there_and_back_is_byte_identical(checkpoint, tmp_path):
    root, tensors = checkpoint
    to_published(str(root / "native"), str(tmp_path / "back"), reference=str(root / "published"), progress=False)
    back = all_tensors(tmp_path / "back")
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype and back[name].shape == tensor.shape
        assert torch.equal(back[name].view(torch.int32), tensor.view(torch.int32)), name
    original = json.loads((root / "published" / "config.json").read_text())
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    for name in (
        "auto_map",
        "architectures",
        "model_type",
        "template",
        "ps_version",
        "select_layer",
        "downsample_ratio",
    ):
        assert config[name] == original[name]
    for section in ("vision_config", "llm_config"):
        for name in original[section]:
            assert config[section][name] == original[section][name], name
    again = to_native(str(tmp_path / "back"), str(tmp_path / "again"), max_shard_size="50KB", progress=False)
    first, second = all_tensors(root / "native"), all_tensors(tmp_path / "again")
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
    assert again.num_parameters["vision"] == sum(
        t.numel() for n, t in tensors.items() if n.startswith("vision_model.")
    )


@pytest.mark.parametrize("tiles", [{"min_patches": 1, "max_patches": 1}, {"min_patches": 2, "max_patches": 12}])
def test_the_models_own_image_settings_survive_there_and_back(checkpoint, tmp_path, tiles):
    root, _ = checkpoint
    processor = AutoProcessor.from_pretrained(root / "native")
    own = {**tiles, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.25, 0.5, 0.75]}
    for name, value in own.items():
        setattr(processor.image_processor, name, value)
    shutil.copytree(root / "native", tmp_path / "native")
    processor.save_pretrained(tmp_path / "native")
    for reference in (None, str(root / "published")):
        back, again = tmp_path / f"back-{reference is None}", tmp_path / f"again-{reference is None}"
        to_published(str(tmp_path / "native"), str(back), reference=reference, progress=False)
        config, images = (json.loads((back / f"{n}.json").read_text()) for n in ("config", "preprocessor_config"))
        assert config["dynamic_image_size"] == (tiles["max_patches"] > 1) and config["use_thumbnail"]
        assert images["size"] == images["crop_size"] == 28
        to_native(str(back), str(again), progress=False)
        found = AutoProcessor.from_pretrained(again).image_processor
        assert {name: json.loads(json.dumps(getattr(found, name))) for name in own} == own


def test_a_native_folder_without_a_processor_takes_the_references_tiling(checkpoint, tmp_path):
    root, _ = checkpoint
    shutil.copytree(root / "native", tmp_path / "bare", ignore=shutil.ignore_patterns("processor_config.json"))
    to_published(str(tmp_path / "bare"), str(tmp_path / "alone"), progress=False)
    assert "max_dynamic_patch" not in json.loads((tmp_path / "alone" / "config.json").read_text())
    to_published(str(tmp_path / "bare"), str(tmp_path / "a"), reference=str(root / "published"), progress=False)
    assert json.loads((tmp_path / "a" / "config.json").read_text())["max_dynamic_patch"] == 6
    assert not (tmp_path / "a" / "preprocessor_config.json").exists()


def test_config_without_a_reference_carries_scaled_rotary_positions(checkpoint, tmp_path):
    """YaRN settings survive native `rope_parameters` → published `rope_theta` and `rope_scaling` → native."""
    root, _ = checkpoint
    config = json.loads((root / "native" / "config.json").read_text())
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    config["text_config"]["rope_parameters"] |= yarn
    for path in (root / "native").iterdir():
        (tmp_path / "long").mkdir(exist_ok=True)
        (tmp_path / "long" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "long" / "config.json").write_text(json.dumps(config))
    to_published(str(tmp_path / "long"), str(tmp_path / "back"), progress=False)
    published_llm = json.loads((tmp_path / "back" / "config.json").read_text())["llm_config"]
    assert published_llm["rope_theta"] == published.ROPE_THETA
    assert yarn.items() <= published_llm["rope_scaling"].items()
    to_native(str(tmp_path / "back"), str(tmp_path / "again"), progress=False)
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    assert again["text_config"]["rope_parameters"] == config["text_config"]["rope_parameters"]


def test_composing_from_published_parts(checkpoint, tmp_path):
    """Tower and adapter of a published checkpoint around another LLM; the tower alone in its own layout too."""
    root, tensors = checkpoint
    tiny_parts.save_llm(tmp_path / "llm")
    whole = str(root / "published")
    compose_vlm(whole, str(tmp_path / "llm"), str(tmp_path / "a"), adapter=whole, progress=False)
    alone = {k.removeprefix("vision_model."): v for k, v in tensors.items() if k.startswith("vision_model.")}
    (tmp_path / "vit").mkdir()
    published.save_file(alone, tmp_path / "vit" / "model.safetensors")
    (tmp_path / "vit" / "config.json").write_text(json.dumps(published.published_config(10)["vision_config"]))
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1, 0.2, 0.3]}))
    compose_vlm(str(tmp_path / "vit"), str(tmp_path / "llm"), str(tmp_path / "b"), adapter=whole, progress=False)
    native, a, b = (all_tensors(folder) for folder in (root / "native", tmp_path / "a", tmp_path / "b"))
    for name in native:
        if "vision_tower" in name or "multi_modal_projector" in name:
            assert torch.equal(native[name], a[name]) and torch.equal(native[name], b[name])
    assert AutoProcessor.from_pretrained(tmp_path / "b").image_processor.image_mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(ps_version="v1"), r"ps_version='v1' \(must be 'v2'\)"),
        (dict(select_layer=-4), r"select_layer=-4 \(must be -1\)"),
        (dict(force_image_size=56), r"force_image_size=56 \(must be 28\)"),
        (dict(use_llm_lora=16), "use_llm_lora=16"),
        (dict(model_type="llava"), "is a 'llava' checkpoint"),
    ],
)
def test_settings_the_native_model_cannot_reproduce(tmp_path, changes, message):
    published.save_published(tmp_path / "p", tiny_parts.make_tokenizer(IMAGE_WORDS), **changes)
    with pytest.raises(CheckpointError, match=message):
        to_native(str(tmp_path / "p"), str(tmp_path / "out"), progress=False)
    assert not (tmp_path / "out").exists()


def test_sub_config_traps(tmp_path):
    tokenizer = tiny_parts.make_tokenizer(IMAGE_WORDS)
    base = published.published_config(len(tokenizer))
    untold = {k: v for k, v in base["llm_config"].items() if k != "tie_word_embeddings"}
    for index, (changes, message) in enumerate(
        [
            (dict(vision_config={**base["vision_config"], "layer_norm_eps": 1e-5}), "layer_norm_eps is 1e-05"),
            (dict(llm_config={**base["llm_config"], "model_type": "internlm2"}), "'internlm2'"),
            (dict(llm_config=untold), "does not say whether"),
            (dict(llm_config={**base["llm_config"], "tie_word_embeddings": True}), "lm_head.weight differs"),
        ]
    ):
        published.save_published(tmp_path / str(index), tokenizer, **changes)
        with pytest.raises(CheckpointError, match=message):
            to_native(str(tmp_path / str(index)), str(tmp_path / "out"), progress=False)


def test_unknown_missing_and_repeated_tensors_are_listed(tmp_path):
    tokenizer = tiny_parts.make_tokenizer(IMAGE_WORDS)
    tensors = published.published_tensors(len(tokenizer))
    cases = {
        "unknown": ({**tensors, "vision_model.encoder.layers.0.attn.rel_pos": torch.ones(2)},
                    "1 tensors are in no.*rel_pos"),
        "missing": ({k: v for k, v in tensors.items() if "layers.1.attn.qkv" not in k},
                    r"3 missing: model.vision_tower.encoder.layer.1.attention.q_proj.weight"),
        "inner": ({**tensors, "language_model.model.layers.0.self_attn.wqkv.weight": torch.ones(2)},
                  "1 unknown: .*wqkv"),
    }  # fmt: skip
    for name, (changed, message) in cases.items():
        published.save_published(tmp_path / name, tokenizer, tensors=changed)
        with pytest.raises(CheckpointError, match=message):
            to_native(str(tmp_path / name), str(tmp_path / "out"), progress=False)
    published.save_published(tmp_path / "twice", tokenizer)
    second = next((tmp_path / "twice").glob("*-00002-of-*"))
    published.save_file({**load_file(second), "mlp1.0.bias": torch.zeros(96)}, second)
    with pytest.raises(CheckpointError, match=r"the index and the shards disagree about \['mlp1.0.bias'\] .1 names"):
        to_native(str(tmp_path / "twice"), str(tmp_path / "out"), progress=False)


def test_tokenizer_without_image_tokens_is_refused(tmp_path):
    published.save_published(tmp_path / "p", tiny_parts.make_tokenizer())
    with pytest.raises(CheckpointError, match="tokenizer lacks.*<IMG_CONTEXT>"):
        to_native(str(tmp_path / "p"), str(tmp_path / "out"), progress=False)


def changed_native(native, target, change):
    """A copy of a native checkpoint in one file, with its tensors changed."""
    tensors = all_tensors(native)
    change(tensors)
    shutil.copytree(native, target, ignore=shutil.ignore_patterns("*.safetensors*", "composition.json"))
    save_file(tensors, target / "model.safetensors")
    return target


ADAPTER_BIAS = "model.multi_modal_projector.linear_2.bias"
KEY = "model.vision_tower.encoder.layer.0.attention.k_proj.weight"


def without(prefix: str):
    def change(tensors):
        for name in [name for name in tensors if name.startswith(prefix)]:
            del tensors[name]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without(ADAPTER_BIAS), f"1 missing: {ADAPTER_BIAS}"),
        (without("model.language_model.layers.1."), "12 missing: model.language_model.layers.1.self_attn.q_proj"),
        (without(KEY), f"1 missing: {KEY}"),
        (without("model.language_model.embed_tokens"), "1 missing: model.language_model.embed_tokens.weight"),
        (without("lm_head"), "1 missing: lm_head.weight"),
        (lambda t: t.update({"model.language_model.nonsense": torch.ones(2)}), "1 unknown: .*language_model.nonsense"),
        (lambda t: t.update({"model.nonsense": torch.ones(2)}), "1 unknown: model.nonsense"),
        (lambda t: t.update({ADAPTER_BIAS: torch.ones(7)}), rf"1 of another shape: {ADAPTER_BIAS} \[7\] instead of"),
        (lambda t: t.update({KEY: torch.ones(24, 23)}), rf"{KEY} \[24, 23\] instead of \[24, 24\]"),
        (lambda t: t.update({KEY: torch.tensor(1.0)}), rf"{KEY} \[\] instead of"),
        (
            lambda t: t.update({"language_model.model.norm.weight": torch.zeros(32)}),
            "1 tensors are given twice: .*language_model.model.norm.weight",
        ),
        (lambda t: t.update({KEY: t[KEY].bfloat16()}),
         r"1 have several dtypes: .*layer.0.*q_proj.weight float32, key bfloat16, value float32"),
    ],
)  # fmt: skip
def test_native_checkpoints_that_are_not_whole_are_refused(checkpoint, tmp_path, change, message):
    root, _ = checkpoint
    broken = changed_native(root / "native", tmp_path / "broken", change)
    with pytest.raises(CheckpointError, match=message):
        to_published(str(broken), str(tmp_path / "out"), progress=False)
    assert not (tmp_path / "out").exists()


def test_native_checkpoint_under_its_older_names_is_converted(checkpoint, tmp_path):
    root, tensors = checkpoint

    def older(stored):
        for name in [name for name in stored if name.startswith("model.")]:
            stored[name.removeprefix("model.").replace("language_model.", "language_model.model.")] = stored.pop(name)

    old = changed_native(root / "native", tmp_path / "old", older)
    to_published(str(old), str(tmp_path / "back"), progress=False)
    back = all_tensors(tmp_path / "back")
    assert back.keys() == tensors.keys() and all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_tied_head_on_the_way_back(checkpoint, tmp_path):
    """A repeated head is left out, another one refused."""
    root, tensors = checkpoint
    head = "language_model.lm_head.weight"
    values = json.loads((root / "native" / "config.json").read_text())
    values["tie_word_embeddings"] = values["text_config"]["tie_word_embeddings"] = True
    embedding = "model.language_model.embed_tokens.weight"
    equal = changed_native(
        root / "native", tmp_path / "equal", lambda t: t.update({"lm_head.weight": t[embedding].clone()})
    )
    other = changed_native(root / "native", tmp_path / "other", lambda t: None)
    for folder in (equal, other):
        (folder / "config.json").write_text(json.dumps(values))
    to_published(str(equal), str(tmp_path / "a"), progress=False)
    assert all_tensors(tmp_path / "a").keys() == tensors.keys() - {head}
    with pytest.raises(CheckpointError, match="lm_head.weight differs"):
        to_published(str(other), str(tmp_path / "b"), progress=False)
    assert not (tmp_path / "b").exists()


def test_parts_with_repeated_or_unknown_tensors_are_refused(checkpoint, tmp_path):
    root, tensors = checkpoint
    tiny_parts.save_llm(tmp_path / "llm")
    native = str(root / "native")

    def compose(vision, adapter):
        compose_vlm(str(vision), str(tmp_path / "llm"), str(tmp_path / "out"), adapter=str(adapter), progress=False)

    for name in ("vision_tower.embeddings.cls_token", "multi_modal_projector.linear_1.bias"):
        twice = changed_native(
            root / "native", tmp_path / name, lambda t, name=name: t.update({name: t[f"model.{name}"] + 1})
        )
        for parts in ((twice, native), (native, twice)):
            with pytest.raises(CheckpointError, match=f"1 tensors are given twice: model.{name} and {name}"):
                compose(*parts)
    tokenizer = tiny_parts.make_tokenizer(IMAGE_WORDS)
    extra = {**tensors, "mlp1.4.weight": torch.ones(3)}
    published.save_published(tmp_path / "extra", tokenizer, tensors=extra)
    with pytest.raises(CheckpointError, match="1 tensors are in no table: mlp1.4.weight"):
        compose(native, tmp_path / "extra")
    extra = {**tensors, "vision_model.encoder.layers.0.attn.qkv.weight": torch.tensor(1.0)}
    published.save_published(tmp_path / "scalar", tokenizer, tensors=extra)
    with pytest.raises(CheckpointError, match=r"attn.qkv.weight: \[\] cannot be split"):
        compose(tmp_path / "scalar", native)
    headless = {k: v for k, v in tensors.items() if "embed_tokens" not in k}
    published.save_published(tmp_path / "headless", tokenizer, tensors=headless)
    with pytest.raises(CheckpointError, match="no input embeddings"):
        to_native(str(tmp_path / "headless"), str(tmp_path / "out"), progress=False)
    # Copies: some versions map the file, which is written over below.
    values = {name: tensor.clone() for name, tensor in load_file(tmp_path / "llm" / "model.safetensors").items()}
    for change, message in (
        ({"model.embed_tokens.weight": None}, "no input embeddings"),
        ({"norm.weight": torch.ones(32)}, "1 given twice: model.language_model.norm.weight"),
        ({"model.embed_tokens.weight": torch.tensor(1.0)}, r"embed_tokens.weight \[\] instead of"),
        ({"model.norm.weight": torch.ones(0)}, r"norm.weight \[0\] instead of \[32\]"),
    ):
        changed = {name: tensor for name, tensor in {**values, **change}.items() if tensor is not None}
        save_file(changed, tmp_path / "llm" / "model.safetensors")
        with pytest.raises(CheckpointError, match=message):
            compose(native, native)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("section", ["vision_config", "llm_config"])
def test_configs_without_a_section_are_refused(checkpoint, tmp_path, section):
    root, _ = checkpoint
    shutil.copytree(root / "published", tmp_path / "p")
    config = json.loads((tmp_path / "p" / "config.json").read_text())
    message = rf"{tmp_path}/p/config.json has no `{section}`"
    for value in ({}, {section: None}):
        rest = {name: content for name, content in config.items() if name != section}
        (tmp_path / "p" / "config.json").write_text(json.dumps({**rest, **value}))
        with pytest.raises(CheckpointError, match=message):
            to_native(str(tmp_path / "p"), str(tmp_path / "out"), progress=False)
        with pytest.raises(CheckpointError, match=message):
            to_published(str(root / "native"), str(tmp_path / "out"), reference=str(tmp_path / "p"), progress=False)
    bare = changed_native(root / "native", tmp_path / "n", lambda t: None)
    values = json.loads((bare / "config.json").read_text())
    del values["vision_config"]
    (bare / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="has no `vision_config`"):
        to_published(str(bare), str(tmp_path / "out"), progress=False)
    (bare / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="is no JSON object"):
        to_published(str(bare), str(tmp_path / "out"), progress=False)
    untyped = {**config, "llm_config": {k: v for k, v in config["llm_config"].items() if k != "model_type"}}
    (tmp_path / "p" / "config.json").write_text(json.dumps(untyped))
    with pytest.raises(CheckpointError, match="language model of this checkpoint is None"):
        to_native(str(tmp_path / "p"), str(tmp_path / "out"), progress=False)
    (tmp_path / "p" / "config.json").write_text(json.dumps(config))
    for text in ("{", "[]", '{"metadata": {}}'):
        (tmp_path / "p" / "model.safetensors.index.json").write_text(text)
        with pytest.raises(CheckpointError, match="index.json (is no JSON|has no weight_map)"):
            to_native(str(tmp_path / "p"), str(tmp_path / "out"), progress=False)
