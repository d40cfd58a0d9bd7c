# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The `trl-r1v2` command: recipes, their checks, the launcher and pipelines.

Nothing is imported here, so that `trl-r1v2 --help` answers at once.
"""
