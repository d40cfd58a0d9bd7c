# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""A prompt passes the model once for all its answers: packed layout, attention over it, and the trainers' side."""
