# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Configurations of accelerate for two processes on one CPU machine."""

MACHINE = """
compute_environment: LOCAL_MACHINE
num_machines: 1
num_processes: 2
use_cpu: true
"""
FSDP2 = (
    MACHINE
    + """
mixed_precision: 'no'
distributed_type: FSDP
fsdp_config:
  fsdp_version: 2
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_transformer_layer_cls_to_wrap: Qwen2DecoderLayer,InternVLVisionLayer
  fsdp_reshard_after_forward: true
  fsdp_state_dict_type: FULL_STATE_DICT
  fsdp_cpu_ram_efficient_loading: false
"""
)
