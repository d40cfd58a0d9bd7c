# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The end of a process of a distributed test."""

import os
import sys

import torch


def leave() -> None:
    """
    End this process with success, without taking the interpreter down: a thread of the process group that asks for
    Python's lock at that moment aborts the process ("terminate called without an active exception").
    """
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
