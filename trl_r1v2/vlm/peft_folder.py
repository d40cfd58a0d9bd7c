# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Folders of PEFT adapters, merged into the model they were trained on. Does not cover training them."""

import warnings
from collections.abc import Callable
from pathlib import Path

from .errors import CheckpointError


def is_peft_folder(path: str) -> bool:
    """Whether a path is a local folder of PEFT adapters."""
    return Path(path, "adapter_config.json").is_file()


def load_merged(path: str, load_base: Callable):
    """
    Load adapters and merge them into their base model, which `load_base` loads by its folder or Hub name. A
    [`CheckpointError`] when peft is not installed, or the folder lacks adapters of the model, which would be random.
    """
    try:
        from peft import PeftConfig, PeftModel
    except ImportError as error:
        raise CheckpointError(f"{path} holds PEFT adapters: `pip install 'trl_r1v2[peft]'`.") from error
    base_name = PeftConfig.from_pretrained(path).base_model_name_or_path
    base = load_base(base_name)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*Found missing adapter keys")
        try:
            model = PeftModel.from_pretrained(base, path)
        except UserWarning as warning:
            raise CheckpointError(
                f"{path} does not fit its base model {base_name}, or was not saved whole: {warning} Save the adapters "
                "again, or correct `base_model_name_or_path` in its `adapter_config.json`."
            ) from warning
    return model.merge_and_unload()
