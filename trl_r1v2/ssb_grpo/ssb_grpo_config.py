# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Configuration of GRPO with the Selective Sample Buffer."""

from dataclasses import dataclass, field

from trl import GRPOConfig


@dataclass
class SSBGRPOConfig(GRPOConfig):
    r"""
    Configuration class for the [`SSBGRPOTrainer`].

    This class includes only the parameters that are specific to the Selective Sample Buffer (R1V2, section 3.2). For
    a full list of training arguments, please refer to the [`~trl.GRPOConfig`] documentation. All limits hold for each
    process. Where a field's help says "ours", the paper leaves the choice open.
    """

    ssb_enabled: bool = field(
        default=True,
        metadata={"help": "Whether to replay buffered samples. `False` trains bit for bit like stock `GRPOTrainer`."},
    )
    ssb_mode: str = field(
        default="paper",
        metadata={
            "help": "How a sample's drawing weight is formed. 'paper': by |advantage| alone (R1V2, section 3.2). "
            "'fresh' (ours): additionally decays with age by `ssb_age_decay`.",
            "choices": ["paper", "fresh"],
        },
    )
    ssb_judge: str = field(
        default="reward",
        metadata={
            "help": "What tells a dead group (all answers right or all wrong) from a live one. 'reward': the weighted "
            "total reward. Otherwise the name of a reward function, or of a numeric column that a reward function "
            "logs with `log_extra` (e.g. the rule component of a hybrid reward, whose total is never exactly flat)."
        },
    )
    ssb_judge_tolerance: float = field(
        default=1e-6,
        metadata={
            "help": "A group is dead when its largest and smallest judged reward differ by at most this (ours)."
        },
    )
    ssb_capacity: int = field(default=1024, metadata={"help": "Largest number of samples held (ours)."})
    ssb_max_bytes: int | None = field(
        default=None, metadata={"help": "Largest number of bytes held in token tensors (ours). Unset: no limit."}
    )
    ssb_pixel_bytes: int = field(
        default=1 << 30,
        metadata={
            "help": "Largest number of bytes of image tensors kept in memory (ours). With a map-style dataset this is "
            "only a cache: images beyond it are processed again from their dataset row."
        },
    )
    ssb_priority_exponent: float = field(
        default=1.0, metadata={"help": "Exponent of |advantage| in the drawing weight (ours); 0 draws uniformly."}
    )
    ssb_age_decay: float = field(
        default=20.0,
        metadata={"help": "Optimizer steps after which a sample's weight falls to 1/e; only in mode 'fresh' (ours)."},
    )
    ssb_max_age: int | None = field(
        default=100,
        metadata={"help": "Samples older than this many optimizer steps are dropped (ours). 'null': no limit."},
    )
    ssb_max_uses: int | None = field(
        default=4,
        metadata={"help": "Samples replayed this often are dropped (ours). 'null': no limit."},
    )
    ssb_replay: str = field(
        default="dead",
        metadata={
            "help": "'dead': rows of dead groups give way to buffered samples, the batch keeps its shape (the paper's "
            "use of the buffer). 'share' (ours): additionally only a `1 - ssb_replay_share` part of the batch is "
            "generated once the buffer can fill the rest, so that generation costs less.",
            "choices": ["dead", "share"],
        },
    )
    ssb_max_replay_fraction: float = field(
        default=1.0,
        metadata={
            "help": "Largest part of a process's generation batch that is replayed (ours). 0 replays nothing and leaves "
            "dead rows to `ssb_resample_rounds`."
        },
    )
    ssb_replay_share: float = field(
        default=0.5, metadata={"help": "Part of the generation batch that is replayed in `ssb_replay='share'` (ours)."}
    )
    ssb_resample_rounds: int = field(
        default=0,
        metadata={
            "help": "When the buffer cannot fill all dead rows, generate for new prompts up to this many times (ours). "
            "Needs a map-style dataset."
        },
    )
    ssb_skip_probability: float = field(
        default=0.0,
        metadata={
            "help": "Largest probability with which a prompt is passed over because its groups died in its last visits "
            "(ours): after d deaths in a row it is this times d / (d + 1). 0 visits all prompts alike. Needs a "
            "map-style dataset."
        },
    )
    ssb_seed: int = field(
        default=0, metadata={"help": "Seed of the buffer's own generator (the process rank is added)."}
    )
    ssb_prefill: str | None = field(
        default=None,
        metadata={"help": "Folder of buffer files to start from, as written by a checkpoint or `filter-prompts`."},
    )
    ssb_resume: str = field(
        default="exact",
        metadata={
            "help": "What to do when a run resumes. 'exact': load this process's buffer, refuse anything else. "
            "'reshard': spread the buffers of another number of processes. 'empty': start with an empty buffer.",
            "choices": ["exact", "reshard", "empty"],
        },
    )

    def __post_init__(self):
        super().__post_init__()
        for name, choices in (
            ("ssb_mode", ("paper", "fresh")),
            ("ssb_replay", ("dead", "share")),
            ("ssb_resume", ("exact", "reshard", "empty")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"`{name}` is {getattr(self, name)!r} but must be one of {list(choices)}.")
        for name in (
            "ssb_capacity",
            "ssb_max_bytes",
            "ssb_pixel_bytes",
            "ssb_age_decay",
            "ssb_max_age",
            "ssb_max_uses",
        ):
            value = getattr(self, name)
            if value is None and name in ("ssb_capacity", "ssb_pixel_bytes", "ssb_age_decay"):
                raise ValueError(f"`{name}` is unset but must be a positive number.")
            if value is not None and value <= 0:
                raise ValueError(f"`{name}` is {value} but must be positive.")
        for name in ("ssb_priority_exponent", "ssb_judge_tolerance", "ssb_resample_rounds"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` is {getattr(self, name)} but must not be negative.")
        if not 0 <= self.ssb_max_replay_fraction <= 1:
            raise ValueError(f"`ssb_max_replay_fraction` is {self.ssb_max_replay_fraction} but must be in [0, 1].")
        if self.ssb_max_replay_fraction == 0 and not (self.ssb_resample_rounds or self.ssb_skip_probability):
            raise ValueError(
                "`ssb_max_replay_fraction` is 0, so that nothing would ever be replayed. Set `ssb_enabled=False`, or "
                "`ssb_resample_rounds` to generate anew for dead rows instead."
            )
        if self.ssb_prefill is not None and not self.ssb_prefill:
            raise ValueError("`ssb_prefill` is empty: name a folder of buffer files, or leave it unset.")
        if not 0 <= self.ssb_skip_probability < 1:
            raise ValueError(
                f"`ssb_skip_probability` is {self.ssb_skip_probability} but must be in [0, 1): a prompt that is never "
                "visited again could not come back."
            )
        if not 0 < self.ssb_replay_share < 1:
            raise ValueError(
                f"`ssb_replay_share` is {self.ssb_replay_share} but must be strictly between 0 and 1: some part of "
                "every batch has to be fresh for the buffer to learn anything new."
            )
        if self.ssb_replay == "share" and self.ssb_replay_share > self.ssb_max_replay_fraction:
            raise ValueError(
                f"`ssb_replay_share` ({self.ssb_replay_share}) exceeds `ssb_max_replay_fraction` "
                f"({self.ssb_max_replay_fraction}). Lower the first or raise the second."
            )
