# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Configuration of GRPO with the Selective Sample Buffer."""

from dataclasses import dataclass, field

from trl import GRPOConfig


@dataclass
class SSBGRPOConfig(GRPOConfig):
    r"""
    Configuration class for the [`SSBGRPOTrainer`].

    Lists the parameters of the Selective Sample Buffer (Skywork R1V2, section 3.2) beside those of
    [`~trl.GRPOConfig`]. All limits hold for each process. "Ours" marks what the paper leaves open.

    Parameters:
        share_prompts (`bool`, *optional*, defaults to `False`):
            Whether a prompt passes the model once for all its completions in a micro-batch, and once in generation by
            transformers, not once for each (ours).
        ssb_enabled (`bool`, *optional*, defaults to `True`):
            Whether to replay buffered samples. `False` trains bit for bit like [`~trl.GRPOTrainer`].
        ssb_judge (`str`, *optional*, defaults to `"reward"`):
            What tells a dead group (all right, or all wrong) from a live one: `"reward"`, the weighted total; the name
            of a reward function; or a column that one logs with `log_extra`. A continuous total is never flat.
        ssb_judge_tolerance (`float`, *optional*, defaults to `1e-6`):
            A group is dead when its largest and smallest judged reward differ by at most this (ours).
        ssb_capacity (`int`, *optional*, defaults to `1024`):
            Largest number of samples held (ours). Those of lowest weight go first.
        ssb_priority_exponent (`float`, *optional*, defaults to `1.0`):
            Exponent of |advantage| in the drawing weight; `1.0` is the paper's, `0.0` draws uniformly (ours).
        ssb_age_decay (`float`, *optional*):
            Optimizer steps in which a sample's weight falls to 1/e (ours). `None`: by |advantage| alone, as the paper.
        ssb_max_age (`int`, *optional*, defaults to `100`):
            Samples older than this many optimizer steps are dropped (ours). `None`: no limit.
        ssb_max_uses (`int`, *optional*, defaults to `4`):
            Samples replayed this often are dropped (ours). `None`: no limit.
        ssb_replay (`str`, *optional*, defaults to `"dead"`):
            Where replayed rows go: `"dead"`, in the place of dead rows, as the paper; `"append"`, behind the whole
            batch; or `"none"` (ours).
        ssb_replay_share (`float`, *optional*, defaults to `0.0`):
            Part of the generation batch that is not generated once the buffer can fill it; with `"append"`, how many
            rows come on top, as a part of that batch (ours).
        ssb_balance (`bool`, *optional*, defaults to `False`):
            Whether to keep and draw samples such that their advantages sum to about zero (ours).
        ssb_resample_rounds (`int`, *optional*, defaults to `0`):
            Dynamic sampling, as in DAPO: while rows of dead groups remain, generate for further prompts, at most this
            many times (ours). Needs a map-style dataset.
        ssb_pixel_bytes (`int`, *optional*, defaults to `2**30`):
            Largest number of bytes of image tensors kept (ours). With a map-style dataset this is a cache: what falls
            out is processed again from its row.
        ssb_prefill (`str`, *optional*):
            Folder of buffer files to start from: the `ssb` folder of a checkpoint, or one written before training.
        ssb_resume (`str`, *optional*, defaults to `"exact"`):
            A run resumes `"exact"` with this process's buffer, `"reshard"` with its share of those of another number
            of processes, or `"empty"`.
    """

    share_prompts: bool = field(default=False, metadata={"help": "Whether a prompt passes once for its completions."})
    ssb_enabled: bool = field(default=True, metadata={"help": "Whether to replay; `False` is stock TRL, bit for bit."})
    ssb_judge: str = field(default="reward", metadata={"help": "'reward', a function or a column: tells dead groups."})
    ssb_judge_tolerance: float = field(default=1e-6, metadata={"help": "Spread of judged rewards of a dead group."})
    ssb_capacity: int = field(default=1024, metadata={"help": "Largest number of samples held by a process."})
    ssb_priority_exponent: float = field(default=1.0, metadata={"help": "Exponent of |advantage| in the weight."})
    ssb_age_decay: float | None = field(default=None, metadata={"help": "Steps in which a weight falls to 1/e."})
    ssb_max_age: int | None = field(default=100, metadata={"help": "Age in steps at which samples are dropped."})
    ssb_max_uses: int | None = field(default=4, metadata={"help": "Replays after which samples are dropped."})
    ssb_replay: str = field(default="dead", metadata={"help": "Where replayed rows go: 'dead', 'append' or 'none'."})
    ssb_replay_share: float = field(
        default=0.0, metadata={"help": "Part of a batch left to, or added by, the buffer."}
    )
    ssb_balance: bool = field(default=False, metadata={"help": "Whether replayed advantages sum to about zero."})
    ssb_resample_rounds: int = field(default=0, metadata={"help": "Rounds of dynamic sampling for dead rows."})
    ssb_pixel_bytes: int = field(default=2**30, metadata={"help": "Bytes of image tensors kept by a process."})
    ssb_prefill: str | None = field(default=None, metadata={"help": "Folder of buffer files to start from."})
    ssb_resume: str = field(default="exact", metadata={"help": "How a run resumes: 'exact', 'reshard' or 'empty'."})

    def __post_init__(self):
        super().__post_init__()
        choices = {"ssb_replay": ("dead", "append", "none"), "ssb_resume": ("exact", "reshard", "empty")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` is {getattr(self, name)!r} but must be one of {allowed}.")
        for name in ("ssb_capacity", "ssb_pixel_bytes", "ssb_age_decay", "ssb_max_age", "ssb_max_uses"):
            value = getattr(self, name)
            if value is None and name in ("ssb_capacity", "ssb_pixel_bytes") or value is not None and value <= 0:
                raise ValueError(f"`{name}` is {value} but must be positive.")
        for name in ("ssb_priority_exponent", "ssb_judge_tolerance", "ssb_resample_rounds"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` is {getattr(self, name)} but must not be negative.")
        if not 0 <= self.ssb_replay_share < 1:
            raise ValueError(f"`ssb_replay_share` is {self.ssb_replay_share} but must be at least 0 and below 1.")
        if (self.ssb_replay, self.ssb_replay_share > 0) in (("append", False), ("none", True)):
            raise ValueError("`ssb_replay_share` must be above 0 with `ssb_replay='append'`, and 0 with 'none'.")
