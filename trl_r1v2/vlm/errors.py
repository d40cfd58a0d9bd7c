# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The error of checkpoints and of settings for making them; mistakes in rows of data are `RowError` (`images/`)."""


class CheckpointError(ValueError):
    """A checkpoint folder, or a setting to make one, cannot be used; the message names it and the remedy."""
