# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Pages of text on standard output. Logs and progress bars are not covered. Imports nothing heavy."""

import os
import signal
import sys


def print_page(text: str) -> None:
    """
    Print a page. When its reader has gone (`trl-r1v2 grpo --help | head`), the program ends as others do on SIGPIPE.

    Args:
        text (`str`):
            The page.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # what is left in the buffer goes nowhere, or the interpreter would complain about it at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None
