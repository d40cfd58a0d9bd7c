# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The embedded job: sums and comparisons of handwritten digits, with a model that trains on two CPU cores.
"""
