# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Mixed Preference Optimization.

Public names are taken from the package (`from trl_r1v2 import MPOTrainer`). Nothing is imported here, so that the pure
modules can be used without TRL.
"""
