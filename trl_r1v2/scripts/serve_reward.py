# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""`trl-r1v2 serve-reward`: a scalar reward model over HTTP, by vLLM's pooling protocol, until interrupted."""

import os
from dataclasses import dataclass

from transformers.hf_argparser import HfArg


@dataclass
class ServeRewardArguments:
    """Arguments of `trl-r1v2 serve-reward`."""

    reward_model_name_or_path: str = HfArg(help="Skywork-VL-Reward's layout, or a classifier with one label.")
    revision: str | None = HfArg(default=None, help="Hub revision.")
    host: str = HfArg(default="127.0.0.1", help="Address; a private one, since nothing is encrypted.")
    port: int = HfArg(default=8000, help="Port; 0 takes a free one.")
    dtype: str = HfArg(default="auto", help="Weights' dtype; `auto` takes the checkpoint's.")
    device: str | None = HfArg(default=None, help="Device; by default the first GPU, else the CPU.")
    served_model_name: str | None = HfArg(default=None, help="Name that clients give; by default the model's.")
    api_key_env: str | None = HfArg(default=None, help="Variable with the key that clients send; none by default.")
    batch_size: int = HfArg(default=8, help="Most conversations in one forward pass.")
    max_tokens: int | None = HfArg(default=None, help="Longer conversations are not scored; the model's own limit.")

    def __post_init__(self):
        if self.api_key_env is not None and not os.environ.get(self.api_key_env):
            raise ValueError(f"`api_key_env` names {self.api_key_env}, which is not set: put the key into it")


def main(args: ServeRewardArguments) -> None:
    from ..rewards.reward_model import RewardModel
    from ..rewards.reward_server import RewardServer

    path, limits = args.reward_model_name_or_path, {"batch_size": args.batch_size, "max_tokens": args.max_tokens}
    model = RewardModel.from_pretrained(path, args.dtype, args.device, args.revision, **limits)
    name, key = args.served_model_name or path, args.api_key_env and os.environ[args.api_key_env]
    server = RewardServer(model, args.host, args.port, args.batch_size, name, key)
    print(f"{name} is served at {server.url}", flush=True)
    server.run()
    print(f"Stopped after {server.scorer.num_scored} scores.", flush=True)
