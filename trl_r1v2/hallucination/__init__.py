# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Hallucination: signals, a monitor for any TRL trainer, and reward thresholds that answer to it.

`signals`, `threshold` and `threshold_files` are pure; `grounding`, `probe` and `monitor` need torch and are imported
on first use.
"""

import importlib


_LAZY = {
    "ControllerConfig": "monitor_config",
    "HallucinationMonitor": "monitor",
    "MonitorConfig": "monitor_config",
    "RewardThresholdController": "threshold",
    "calibrate_threshold": "threshold",
}

__all__ = list(_LAZY)


def __getattr__(name: str):
    if name in _LAZY:
        return importlib.import_module(f"{__name__}.{_LAZY[name]}").__dict__[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
