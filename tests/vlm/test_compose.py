# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Composing: the folder computes what its parts compute, whatever the run was interrupted by."""

import json
import shutil
import weakref
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, PreTrainedTokenizerFast

from tests.support import tiny_parts
from trl_r1v2.vlm import checkpoint_files
from trl_r1v2.vlm.compose import compose_vlm
from trl_r1v2.vlm.errors import CheckpointError


QUESTION = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A tower and an untied Qwen2 with their folders."""
    root = tmp_path_factory.mktemp("parts")
    vision, llm = tiny_parts.save_vision(root / "vision"), tiny_parts.save_llm(root / "llm")
    return namedtuple("Parts", "root vision llm")(root, vision, llm)


def compose(vision: Path, llm: Path, output: Path, **settings):
    return compose_vlm(str(vision), str(llm), str(output), progress=False, **settings)


def all_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def picture(width: int = 60, height: int = 20) -> Image.Image:
    values = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(7), dtype=torch.uint8)
    return Image.fromarray(values.numpy())


def logits_from_parts(vision, llm, stored: dict[str, torch.Tensor], inputs, image_token_id: int) -> torch.Tensor:
    """Eq. 1 written out: tower, 2x2 patches side by side, LayerNorm-linear-GELU-linear, in the placeholders' place."""
    adapter = {k.removeprefix("model.multi_modal_projector."): v for k, v in stored.items() if "multi_modal" in k}
    patches = vision(pixel_values=inputs["pixel_values"]).last_hidden_state[:, 1:]
    side = int(patches.shape[1] ** 0.5)
    grid = patches.reshape(-1, side, side, patches.shape[-1])
    blocks = torch.cat([grid[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=-1)
    features = blocks.reshape(-1, blocks.shape[-1])
    centred = features - features.mean(-1, keepdim=True)
    normed = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    hidden = normed * adapter["layer_norm.weight"] + adapter["layer_norm.bias"]
    hidden = hidden @ adapter["linear_1.weight"].T + adapter["linear_1.bias"]
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    hidden = hidden @ adapter["linear_2.weight"].T + adapter["linear_2.bias"]
    embedded = stored["model.language_model.embed_tokens.weight"][inputs["input_ids"]]
    embedded[inputs["input_ids"] == image_token_id] = hidden
    return llm(inputs_embeds=embedded, attention_mask=inputs["attention_mask"]).logits


@pytest.mark.parametrize(("family", "tied"), [("qwen2", False), ("qwen3", True), ("llama", False)])
def test_composed_model_computes_what_its_parts_compute(tmp_path, parts, family, tied):
    llm = tiny_parts.save_llm(tmp_path / "llm", family=family, tied=tied)
    report = compose(parts.root / "vision", tmp_path / "llm", tmp_path / "out", max_shard_size="60KB")
    model, loading = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert len(report.shards.shards) > 2
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    text = processor.apply_chat_template(QUESTION, add_generation_prompt=True)
    inputs = processor(images=[picture()], text=[text], return_tensors="pt")
    assert inputs["pixel_values"].shape[0] == 4  # 3 tiles of the 60x20 picture and its thumbnail

    with torch.no_grad():
        logits = model(**inputs).logits
        expected = logits_from_parts(parts.vision, llm, all_tensors(tmp_path / "out"), inputs, report.image_token_id)
        # The composed head has more rows: the new tokens' ones.
        torch.testing.assert_close(logits[..., : expected.shape[-1]], expected, rtol=1e-4, atol=1e-5)
        text_only = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
        assert torch.equal(model(input_ids=text_only).logits[..., : expected.shape[-1]], llm(text_only).logits)
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    generated = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert generated.shape[1] == inputs["input_ids"].shape[1] + 4
    assert sum(report.num_parameters.values()) == sum(p.numel() for p in model.parameters())


def test_untied_head_survives_and_ids_come_from_the_tokenizer(tmp_path, parts):
    report = compose(parts.root / "vision", parts.root / "llm", tmp_path / "out")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    num_rows = parts.llm.lm_head.weight.shape[0]
    assert torch.equal(model.lm_head.weight[:num_rows], parts.llm.lm_head.weight)
    assert not torch.equal(model.lm_head.weight, model.get_input_embeddings().weight)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>") == model.config.image_token_id == report.image_token_id
    assert tokenizer.encode("<think>") == AutoTokenizer.from_pretrained(parts.root / "llm").encode("<think>")
    assert model.config.image_token_id not in tokenizer.encode("<think>x</think>")
    assert report.added_tokens == ["<img>", "</img>", "<IMG_CONTEXT>", "<video>"]


@pytest.mark.parametrize("vocab_size", [None, 263, 300], ids=["none in reserve", "too few", "enough"])
def test_rows_of_new_tokens_are_the_mean_of_the_known_ones(tmp_path, parts, vocab_size):
    llm = tiny_parts.save_llm(tmp_path / "llm", vocab_size=vocab_size)
    compose(parts.root / "vision", tmp_path / "llm", tmp_path / "out")
    stored = all_tensors(tmp_path / "out")
    num_known = len(AutoTokenizer.from_pretrained(tmp_path / "llm"))
    for name, original in (
        ("model.language_model.embed_tokens.weight", llm.get_input_embeddings().weight),
        ("lm_head.weight", llm.lm_head.weight),
    ):
        rows = stored[name]
        assert rows.shape[0] == max(num_known + 4, vocab_size or 0)
        assert torch.equal(rows[:num_known], original[:num_known])
        mean = original[:num_known].detach().double().numpy().mean(axis=0)
        for row in rows[num_known : num_known + 4]:
            assert torch.equal(row, torch.from_numpy(mean).float())
        assert torch.equal(rows[num_known + 4 :], original[num_known + 4 :])


def test_tokens_that_exist_are_not_added_again(tmp_path, parts):
    tokenizer = tiny_parts.make_tokenizer(extra_tokens=("<IMG_CONTEXT>", "</img>"))
    tiny_parts.save_llm(tmp_path / "llm", tokenizer=tokenizer)
    report = compose(parts.root / "vision", tmp_path / "llm", tmp_path / "out")
    assert report.added_tokens == ["<img>", "<video>"]
    assert report.image_token_id == tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")


def test_sampling_never_emits_an_image_token(tmp_path, parts):
    report = compose(parts.root / "vision", parts.root / "llm", tmp_path / "out")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    prompt = torch.tensor([[3, 1, 4, 1, 5]])
    with torch.no_grad():
        hidden = model(input_ids=prompt, output_hidden_states=True).hidden_states[-1][0, -1]
        model.lm_head.weight[report.image_token_id] = 100 * hidden
        assert model(input_ids=prompt).logits[0, -1].argmax() == report.image_token_id
        generated = model.generate(input_ids=prompt, max_new_tokens=6, do_sample=True, temperature=1.0)
    assert report.image_token_id not in generated


def test_word_level_tokenizer_survives(tmp_path, parts):
    backend = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "one": 2, "two": 3, "user": 4}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<pad>",
        chat_template="{{ messages }}",
    )
    tiny_parts.save_llm(tmp_path / "llm", tokenizer=tokenizer)
    report = compose(parts.root / "vision", tmp_path / "llm", tmp_path / "out")
    saved = AutoProcessor.from_pretrained(tmp_path / "out").tokenizer
    assert saved.encode("two one <IMG_CONTEXT> two") == [3, 2, report.image_token_id, 3]


def test_adapter_can_come_from_another_checkpoint(tmp_path, parts):
    first = tmp_path / "first"
    compose(parts.root / "vision", parts.root / "llm", first, seed=3)
    # `save_pretrained` of a loaded model may use other roots for the same tensors.
    AutoModelForImageTextToText.from_pretrained(first).save_pretrained(tmp_path / "saved")

    def older(name: str) -> str:
        if "vision" in name or "multi" in name:
            return name.removeprefix("model.")
        return "language_model." + name.replace("model.language_model.", "model.")

    legacy = {older(name): tensor for name, tensor in all_tensors(first).items()}
    shutil.copytree(first, tmp_path / "legacy", ignore=shutil.ignore_patterns("*.safetensors"))
    save_file(legacy, tmp_path / "legacy" / "model.safetensors")
    for source in ("first", "saved", "legacy"):
        compose(
            tmp_path / source, parts.root / "llm", tmp_path / f"from_{source}", adapter=str(tmp_path / source), seed=9
        )
        result, expected = all_tensors(tmp_path / f"from_{source}"), all_tensors(first)
        assert result.keys() == expected.keys()
        assert all(torch.equal(result[name], expected[name]) for name in expected)


def test_fresh_adapter_depends_on_the_seed_alone(tmp_path, parts):
    outputs = {}
    for name, settings in {"a": {"seed": 1}, "b": {"seed": 1, "max_shard_size": "30KB"}, "c": {"seed": 2}}.items():
        compose(parts.root / "vision", parts.root / "llm", tmp_path / name, **settings)
        outputs[name] = all_tensors(tmp_path / name)
    weight = "model.multi_modal_projector.linear_1.weight"
    assert torch.equal(outputs["a"][weight], outputs["b"][weight])
    assert not torch.equal(outputs["a"][weight], outputs["c"][weight])
    assert abs(outputs["a"][weight].std().item() - 0.02) < 0.001
    assert torch.equal(outputs["a"]["model.multi_modal_projector.layer_norm.weight"], torch.ones(128))


def test_dtype_casts_and_default_keeps_bytes(tmp_path, parts):
    compose(parts.root / "vision", parts.root / "llm", tmp_path / "kept")
    compose(parts.root / "vision", parts.root / "llm", tmp_path / "cast", dtype="bfloat16")
    kept, cast = all_tensors(tmp_path / "kept"), all_tensors(tmp_path / "cast")
    for name, tensor in parts.vision.state_dict().items():
        assert torch.equal(kept[f"model.vision_tower.{name}"], tensor)
        assert torch.equal(cast[f"model.vision_tower.{name}"], tensor.bfloat16())
    assert {t.dtype for t in cast.values()} == {torch.bfloat16}
    assert AutoModelForImageTextToText.from_pretrained(tmp_path / "cast").dtype == torch.bfloat16


def test_numbers_too_large_for_the_dtype_end_the_run(tmp_path, parts):
    def change(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"][40, 3] = 70000.0
        return tensors

    llm = edited(parts.root / "llm", tmp_path / "llm", change)
    compose(parts.root / "vision", llm, tmp_path / "kept")
    compose(parts.root / "vision", llm, tmp_path / "wide", dtype="bfloat16")
    with pytest.raises(
        CheckpointError, match="model.layers.1.mlp.up_proj.weight holds 70000.0.* infinite in torch.float16"
    ):
        compose(parts.root / "vision", llm, tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out" / "config.json").exists()


def test_a_folder_of_something_else_is_not_touched(tmp_path, parts):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="not empty"):
        compose(parts.root / "vision", parts.root / "llm", tmp_path / "out")
    compose(parts.root / "vision", parts.root / "llm", tmp_path / "other", seed=1)
    before = folder_bytes(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r'\("seed": 1\)'):
        compose(parts.root / "vision", parts.root / "llm", tmp_path / "other", seed=2)
    assert folder_bytes(tmp_path / "other") == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (dict(image_size=21), "21 is not a multiple of patch_size 7 times 2"),
        (dict(image_size=(28, 14)), r"\(28, 14\).*square"),
        (dict(image_size=30), "30 is not a multiple of patch_size 7"),
    ],
)
def test_patch_grids_that_cannot_be_shuffled_are_refused(tmp_path, parts, overrides, message):
    tiny_parts.save_vision(tmp_path / "vision", **overrides)
    with pytest.raises(CheckpointError, match=message):
        compose(tmp_path / "vision", parts.root / "llm", tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(downsample_ratio=0.0), "downsample_ratio is 0.0"),
        (dict(downsample_ratio=2.0), "downsample_ratio is 2.0"),
        (dict(downsample_ratio=0.3), "1/n for a whole n"),
        (dict(min_patches=3, max_patches=2), "min_patches is 3 and max_patches 2"),
        (dict(max_patches=0), "max_patches 0"),
        (dict(dtype="int8"), "dtype is 'int8'"),
        (dict(max_shard_size="big"), "max_shard_size: .*big"),
    ],
)
def test_settings_out_of_bounds_are_refused(tmp_path, parts, settings, message):
    with pytest.raises(CheckpointError, match=message):
        compose(parts.root / "vision", parts.root / "llm", tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def edited(source: Path, target: Path, tensors=None, config=None) -> Path:
    """A copy of a part with other tensors or config entries."""
    shutil.copytree(source, target)
    if tensors is not None:
        save_file(tensors(load_file(source / "model.safetensors")), target / "model.safetensors")
    if config is not None:
        values = json.loads((source / "config.json").read_text())
        (target / "config.json").write_text(json.dumps({**values, **config}))
    return target


def test_parts_that_do_not_fit_are_refused_by_name(tmp_path, parts):
    vision, llm = parts.root / "vision", parts.root / "llm"
    missing = edited(vision, tmp_path / "a", lambda t: {k: v for k, v in t.items() if "lambda_1" not in k})
    with pytest.raises(CheckpointError, match="2 missing: model.vision_tower.encoder.layer.0.lambda_1, "):
        compose(missing, llm, tmp_path / "out")
    extra = edited(llm, tmp_path / "b", lambda t: {**t, "model.extra.weight": torch.ones(2)})
    with pytest.raises(CheckpointError, match="1 unknown: model.language_model.extra.weight"):
        compose(vision, extra, tmp_path / "out")
    wide = edited(llm, tmp_path / "c", lambda t: {**t, "model.norm.weight": torch.ones(33)})
    with pytest.raises(CheckpointError, match=r"norm.weight \[33\] instead of \[32\]"):
        compose(vision, wide, tmp_path / "out")
    tied = edited(llm, tmp_path / "d", config={"tie_word_embeddings": True})
    with pytest.raises(CheckpointError, match="lm_head.weight differs from the embeddings"):
        compose(vision, tied, tmp_path / "out")
    quantised = edited(llm, tmp_path / "e", config={"quantization_config": {"quant_method": "fp8"}})
    with pytest.raises(CheckpointError, match="quantised"):
        compose(vision, quantised, tmp_path / "out")
    with pytest.raises(CheckpointError, match="is a 'qwen2' checkpoint; a tower is read from"):
        compose(llm, llm, tmp_path / "out")
    compose(vision, llm, tmp_path / "whole")
    with pytest.raises(CheckpointError, match="whole is a 'internvl' checkpoint; give a Qwen2, Qwen3 or Llama"):
        compose(vision, tmp_path / "whole", tmp_path / "out")
    projection = "model.layers.0.self_attn.q_proj.weight"
    eight = edited(llm, tmp_path / "f", lambda t: {**t, projection: t[projection].to(torch.float8_e4m3fn)})
    for dtype in (None, "bfloat16"):
        with pytest.raises(CheckpointError, match="dtype 'F8_E4M3' is not supported: quantised"):
            compose(vision, eight, tmp_path / "out", dtype=dtype)
    assert not (tmp_path / "out").exists()


def test_broken_files_are_refused(tmp_path, parts):
    vision, llm = parts.root / "vision", parts.root / "llm"
    cut = edited(llm, tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((llm / "model.safetensors").read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        compose(vision, cut, tmp_path / "out")
    pickled = edited(llm, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="Pickled weights .* are not read"):
        compose(vision, pickled, tmp_path / "out")
    sharded = edited(llm, tmp_path / "sharded")
    (sharded / "model.safetensors").unlink()
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    with pytest.raises(CheckpointError, match="model-1.safetensors"):
        compose(vision, sharded, tmp_path / "out")
    silent = edited(llm, tmp_path / "silent")
    (silent / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match="no chat template"):
        compose(vision, silent, tmp_path / "out")
    (tmp_path / "mine.jinja").write_text(tiny_parts.CHAT_TEMPLATE)
    compose(vision, silent, tmp_path / "out", chat_template=str(tmp_path / "mine.jinja"))
    assert AutoProcessor.from_pretrained(tmp_path / "out").chat_template.endswith(tiny_parts.CHAT_TEMPLATE)


def test_memory_is_a_shard_at_most(tmp_path, parts, monkeypatch):
    """Tensors are loaded shard by shard: never more values at a time than the largest shard holds."""
    alive, most, load = 0, 0, checkpoint_files._load

    def watched(path, name, *rows):
        nonlocal alive, most
        values = load(path, name, *rows).clone()
        alive += values.nbytes
        most = max(most, alive)
        weakref.finalize(values.untyped_storage(), freed, values.nbytes)
        return values

    def freed(nbytes):
        nonlocal alive
        alive -= nbytes

    monkeypatch.setattr(checkpoint_files, "_load", watched)
    report = compose(parts.root / "vision", parts.root / "llm", tmp_path / "out", max_shard_size="60KB")
    assert len(report.shards.shards) > 3
    assert 0 < most <= max(report.shards.shards.values())
