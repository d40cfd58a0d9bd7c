# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""What several test files share: tiny models, reference computations, workers of distributed tests, servers."""

from pathlib import Path


ROOT = Path(__file__).parents[2]
