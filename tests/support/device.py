# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The device of the tests marked `gpu`: a GPU where there is one, the CPU otherwise."""

import pytest
import torch


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ON_DEVICE = {"use_cpu": DEVICE == "cpu"}
needs_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
