# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
A GGUF file as a plain model folder: what `compose` takes as a language model.

transformers reads the format; its model then counts as quantised and cannot be saved. Here the dequantised tensors
become an ordinary model. The rounding of the quantisation stays in the weights. Not covered: writing GGUF.
"""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from trl_r1v2.vlm.errors import CheckpointError


def gguf_to_folder(path: str | Path, output_dir: str | Path, dtype: str = "float32") -> int:
    """
    Write model, tokenizer, chat template and generation config of a GGUF file as a folder of safetensors.

    Args:
        path (`str` or `Path`): The GGUF file of a causal language model.
        output_dir (`str` or `Path`): Folder to write.
        dtype (`str`, *optional*, defaults to `"float32"`): Number format of the weights.

    Returns:
        `int`: Number of parameters, tied ones once.

    Raises:
        ImportError: If `gguf` is missing; the message names the extra.
        [`~vlm.errors.CheckpointError`]: If there is no such file or its tokenizer has no end of sequence.
    """
    try:
        import gguf  # noqa: F401  (transformers reads the file through it)
    except ImportError as error:
        raise ImportError("Reading a GGUF file needs `gguf`: `pip install 'trl_r1v2[real]'`.") from error
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}. Give the GGUF file of a causal language model.")
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    if tokenizer.eos_token_id is None:
        raise CheckpointError(f"{path}: its tokenizer has no end of sequence, so no answer of the model would end.")
    # the file states no limit, and transformers then notes 1e30; the model does have one
    dequantised = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=getattr(torch, dtype))
    tokenizer.model_max_length = dequantised.config.max_position_embeddings

    settings = dequantised.config.to_dict()
    settings.pop("quantization_config", None)
    config = type(dequantised.config).from_dict(settings)
    config.dtype = dtype
    with torch.device("meta"):
        model = type(dequantised)(config)
    model.load_state_dict(dequantised.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    return model.num_parameters()
