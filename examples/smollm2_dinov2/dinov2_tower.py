# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
DINOv2 as InternVL's vision tower: the weights of an ONNX export under their DINOv2 names, those names in the native
layout, another resolution, and the comparison with the ONNX graph itself.

The two architectures are the same one (pre-norm layers with layer scale, learned positions, a class token), so this is
renaming. Not covered: DINOv2 with registers or SwiGLU (the largest size), fp16 exports, and training.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import InternVLVisionConfig, InternVLVisionModel

from trl_r1v2.vlm.errors import CheckpointError


# DINOv2's published name | native name. {n}: layer number, {i}: 1 or 2, {p}: weight or bias.
_NAMES = (
    (r"embeddings\.(cls_token|position_embeddings)", r"embeddings.\1"),
    (r"embeddings\.patch_embeddings\.projection\.(weight|bias)", r"embeddings.patch_embeddings.projection.\1"),
    (r"encoder\.layer\.(\d+)\.norm1\.(weight|bias)", r"encoder.layer.\1.layernorm_before.\2"),
    (r"encoder\.layer\.(\d+)\.norm2\.(weight|bias)", r"encoder.layer.\1.layernorm_after.\2"),
    (
        r"encoder\.layer\.(\d+)\.attention\.attention\.([qkv])(?:uery|ey|alue)\.(weight|bias)",
        r"encoder.layer.\1.attention.\2_proj.\3",
    ),
    (
        r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(weight|bias)",
        r"encoder.layer.\1.attention.projection_layer.\2",
    ),
    (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1", r"encoder.layer.\1.lambda_\2"),
    (r"encoder\.layer\.(\d+)\.mlp\.fc([12])\.(weight|bias)", r"encoder.layer.\1.mlp.fc\2.\3"),
    (r"layernorm\.(weight|bias)", r"layernorm.\1"),
)
# Only masked-image pre-training uses it.
_LEFT_OUT = "embeddings.mask_token"
# Width of an attention head in every published size of DINOv2; no weight tells it.
HEAD_SIZE = 64
# Name of the last operation of the final layer norm in an export by torch.
_LAST_NODE = "/layernorm/Add_1"


def read_onnx(path: str | Path):
    """
    Load an ONNX file.

    Raises:
        ImportError: If `onnx` is missing; the message names the extra.
        [`~vlm.errors.CheckpointError`]: If there is no such file.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError("Reading an ONNX file needs `onnx`: `pip install 'trl_r1v2[real]'`.") from error
    if not Path(path).is_file():
        raise CheckpointError(f"there is no file {path}. Give the ONNX file of a DINOv2 backbone.")
    return onnx.load(str(path))


def onnx_weights(model, root: str = "backbone") -> dict[str, torch.Tensor]:
    """
    The weights of a backbone in an ONNX export by torch, under the names that they had in the module.

    The export keeps the names of vectors, but stores every linear weight transposed and nameless, and the position
    embeddings in two pieces. Both are found through the operations that read them, which carry the module's path.

    Args:
        model (`onnx.ModelProto`): The file's content ([`read_onnx`]).
        root (`str`, *optional*, defaults to `"backbone"`): Name of the backbone in the exported module.

    Returns:
        `dict[str, torch.Tensor]`: float32 tensors under DINOv2's names, without `root`.

    Raises:
        [`~vlm.errors.CheckpointError`]: If there is no such backbone or its position embeddings are not found.
    """
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in model.graph.initializer}

    def array(name: str) -> torch.Tensor:
        return torch.from_numpy(np.array(numpy_helper.to_array(stored[name]), dtype=np.float32))

    weights = {name.removeprefix(root + "."): array(name) for name in stored if name.startswith(root + ".")}
    if not weights:
        named = sorted({name.split(".")[0] for name in stored if "::" not in name})
        raise CheckpointError(f"the ONNX file has no weights under {root!r}; there are {', '.join(named)}.")
    positions: dict[str, torch.Tensor] = {}
    for node in model.graph.node:
        if not node.name.startswith(f"/{root}/"):
            continue
        nameless = [name for name in node.input if name in stored and not name.startswith(root + ".")]
        module = node.name.removeprefix(f"/{root}/").rsplit("/", 1)[0].replace("/", ".")
        if node.op_type == "MatMul" and nameless:
            weights[f"{module}.weight"] = array(nameless[0]).T.contiguous()
        elif module == "embeddings" and node.op_type in ("Concat", "Reshape") and nameless:
            piece = array(nameless[0])
            if piece.dim() == 3:
                positions[node.op_type] = piece
    if positions.keys() != {"Concat", "Reshape"}:
        raise CheckpointError(
            f"the position embeddings are not where torch's exporter puts them (found {sorted(positions)}): one piece "
            "for the class token, joined to the interpolated one of the patches. Export the backbone with a dynamic "
            "image size, or another than its own."
        )
    weights["embeddings.position_embeddings"] = torch.cat([positions["Concat"], positions["Reshape"]], dim=1)
    return weights


def dinov2_to_internvl(weights: Mapping[str, torch.Tensor]) -> InternVLVisionModel:
    """
    A native tower from DINOv2's weights, at the resolution that they were trained for.

    Sizes come from the tensors. The final layer norm is kept (`use_mean_pooling=False`), so the last hidden state is
    DINOv2's.

    Args:
        weights (`Mapping[str, torch.Tensor]`): Under DINOv2's published names.

    Returns:
        [`~transformers.InternVLVisionModel`]: In evaluation mode, with the weights' bytes.

    Raises:
        [`~vlm.errors.CheckpointError`]: listing names that are unknown or missing and shapes that differ.
    """
    renamed, unknown = {}, []
    for name, tensor in weights.items():
        native = _native_name(name)
        if native is not None:
            renamed[native] = tensor
        elif name != _LEFT_OUT:
            unknown.append(name)
    needed = ["embeddings.patch_embeddings.projection.weight", "embeddings.position_embeddings"]
    needed.append("encoder.layer.0.mlp.fc1.weight")
    absent = [name for name in needed if name not in renamed]
    if unknown or absent:
        raise CheckpointError(
            f"these are not DINOv2's weights: {len(unknown)} unknown {unknown[:4]}, missing {absent}."
        )
    patches, positions, fc1 = (renamed[name] for name in needed)
    grid = round((positions.shape[1] - 1) ** 0.5)
    layers = {int(name.split(".")[2]) for name in renamed if name.startswith("encoder.layer.")}
    config = InternVLVisionConfig(
        hidden_size=patches.shape[0],
        intermediate_size=fc1.shape[0],
        num_hidden_layers=max(layers) + 1,
        num_attention_heads=patches.shape[0] // HEAD_SIZE,
        attention_bias=True,
        norm_type="layer_norm",
        layer_norm_eps=1e-6,
        image_size=grid * patches.shape[2],
        patch_size=patches.shape[2],
        num_channels=patches.shape[1],
        layer_scale_init_value=1.0,
        use_mean_pooling=False,
    )
    return _filled(config, renamed)


def _native_name(name: str) -> str | None:
    for pattern, native in _NAMES:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(native)
    return None


def _filled(config: InternVLVisionConfig, tensors: Mapping[str, torch.Tensor]) -> InternVLVisionModel:
    """A tower in evaluation mode that holds exactly `tensors`."""
    with torch.device("meta"):
        model = InternVLVisionModel(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    problems = [f"missing: {name}" for name in expected if name not in tensors]
    problems += [f"of no layer: {name}" for name in tensors if name not in expected]
    problems += [
        f"{name} has shape {list(tensors[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if problems:
        raise CheckpointError(f"the weights do not make a vision tower: {'; '.join(problems[:8])}.")
    model.load_state_dict(dict(tensors), assign=True)
    return model.eval()


def at_resolution(tower: InternVLVisionModel, image_size: int) -> InternVLVisionModel:
    """
    The same tower for images of another size: its position embeddings are interpolated once, as the model itself would
    do in every forward (bicubic, DINOv2's way; a smaller size than 518 for speed is ours).

    Args:
        tower ([`~transformers.InternVLVisionModel`]): Trained for square images.
        image_size (`int`): Side in pixels, a multiple of the patch size.

    Returns:
        [`~transformers.InternVLVisionModel`]: In evaluation mode; all other weights are shared with `tower`.

    Raises:
        [`~vlm.errors.CheckpointError`]: If the patches do not tile the image.
    """
    patch = tower.config.patch_size[0]
    if image_size < patch or image_size % patch:
        raise CheckpointError(
            f"image_size is {image_size}; patches are {patch} pixels wide: give a multiple of {patch}."
        )
    old, new = tower.config.image_size[0] // patch, image_size // patch
    config = InternVLVisionConfig.from_dict({**tower.config.to_dict(), "image_size": image_size})
    tensors = dict(tower.state_dict())
    positions = tensors["embeddings.position_embeddings"]
    grid = positions[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    if new != old:
        grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    patches = grid.permute(0, 2, 3, 1).reshape(1, new * new, -1)
    tensors["embeddings.position_embeddings"] = torch.cat([positions[:, :1], patches], dim=1)
    return _filled(config, tensors)


@torch.no_grad()
def difference_from_onnx(model, tower: InternVLVisionModel, root: str = "backbone", seed: int = 0) -> float:
    """
    The largest difference between the last hidden states of `tower` and of the ONNX graph, run by onnxruntime.

    Args:
        model (`onnx.ModelProto`): The file's content ([`read_onnx`]); left as it is.
        tower ([`~transformers.InternVLVisionModel`]): Made from it by [`dinov2_to_internvl`].
        root (`str`, *optional*, defaults to `"backbone"`): Name of the backbone in the exported module.
        seed (`int`, *optional*, defaults to `0`): Seed of two normally distributed images of the graph's own size.

    Returns:
        `float`: Largest absolute difference; the states themselves are of order 1 after the final layer norm.

    Raises:
        ImportError: If `onnxruntime` is missing; the message names the extra.
        [`~vlm.errors.CheckpointError`]: If the graph has no final layer norm where the exporter puts it.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            "Comparing with the ONNX graph needs `onnxruntime`: `pip install 'trl_r1v2[real]'`."
        ) from error
    last = [node.output[0] for node in model.graph.node if node.name == f"/{root}{_LAST_NODE}"]
    if not last:
        raise CheckpointError(f"the ONNX graph has no operation /{root}{_LAST_NODE}, where DINOv2 ends.")
    graph = type(model)()
    graph.CopyFrom(model)
    del graph.graph.output[:]
    graph.graph.output.add().name = last[0]
    entry = graph.graph.input[0]
    shape = [dimension.dim_value or 2 for dimension in entry.type.tensor_type.shape.dim]
    pixels = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(last, {entry.name: pixels.numpy()})
    return (tower(pixel_values=pixels).last_hidden_state - torch.from_numpy(expected)).abs().max().item()
