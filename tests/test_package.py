# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Importing the package costs nothing, and every public name exists."""

import subprocess
import sys

import pytest

import trl_r1v2


def test_import_is_lazy():
    heavy = "torch trl transformers accelerate datasets peft deepspeed matplotlib"
    code = f"import sys, trl_r1v2; dir(trl_r1v2); print([name for name in {heavy.split()!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_pure_modules_do_not_import_trainers():
    """Buffer, losses and rewards are usable, and testable, without TRL."""
    modules = "trl_r1v2.ssb_grpo.sample_buffer, trl_r1v2.ssb_grpo.judge, trl_r1v2.ssb_grpo.rows, trl_r1v2.mpo.losses"
    code = f"import sys, {modules}, trl_r1v2.rewards.rules; print('trl' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


@pytest.mark.parametrize("name", trl_r1v2.__all__)
def test_public_names_resolve(name):
    assert getattr(trl_r1v2, name) is not None


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'SSBTrainer'"):
        trl_r1v2.SSBTrainer  # noqa: B018
