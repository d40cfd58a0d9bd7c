# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The real composite: pretrained parts that pip can install, SmolLM2-135M-Instruct and DINOv2-S, for `trl-r1v2 compose`.
"""
