# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Mends of open defects in TRL and transformers, one defect a file: what it is, whose issue, and when the file can go.

`grpo.py`, `dpo.py` and `reward.py` are TRL's trainers with the mends they need. Our trainers subclass those, so that a
feature folder moves into TRL by changing one import.
"""
