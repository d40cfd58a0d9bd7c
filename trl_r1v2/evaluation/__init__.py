# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Measuring a model: rates with intervals, scored samples, and the report of a run.

Does not cover sampling (`trl_r1v2.sampling`) nor rewards (`trl_r1v2.rewards`). Imports neither torch nor trl.
"""
