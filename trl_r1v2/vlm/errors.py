# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The error of checkpoints and of settings for making them; mistakes in rows of data are `RowError` (`images/`)."""


class CheckpointError(ValueError):
    """
    A checkpoint folder, or a setting for composing or converting one, cannot be used.

    The message names the folder or value and the remedy. The command line shows it without a traceback.
    """
