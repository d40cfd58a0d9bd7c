# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.

"""
`trl-r1v2 serve-reward`: a scalar reward model over HTTP, for `type: http_reward_model` of the hybrid reward.

Loads the model and serves it by vLLM's pooling protocol until interrupted. Encryption and several models are not covered.
"""

import os
import signal
import sys
import threading
from dataclasses import dataclass, field

from .parser import RecipeParser


@dataclass
class ServeRewardArguments:
    """
    Arguments of `trl-r1v2 serve-reward`.
    """

    reward_model_name_or_path: str = field(
        default="",
        metadata={"help": "Folder or Hub repository: Skywork-VL-Reward's layout, or a classifier with one label."},
    )
    revision: str | None = field(default=None, metadata={"help": "Hub revision."})
    host: str = field(
        default="127.0.0.1",
        metadata={"help": "Address to listen on; a private one, since nothing is encrypted."},
    )
    port: int = field(default=8000, metadata={"help": "Port to listen on; 0 takes a free one."})
    dtype: str = field(default="auto", metadata={"help": "Weights' dtype; `auto` takes the checkpoint's."})
    device: str | None = field(default=None, metadata={"help": "Device; by default the first GPU, else the CPU."})
    served_model_name: str | None = field(
        default=None, metadata={"help": "Name that clients give; by default `reward_model_name_or_path`."}
    )
    api_key_env: str | None = field(
        default=None,
        metadata={
            "help": "Environment variable with the key that clients have to send. By default none is asked for."
        },
    )
    batch_size: int = field(
        default=8, metadata={"help": "Most conversations in one forward pass, of all clients together."}
    )
    max_tokens: int | None = field(
        default=None,
        metadata={
            "help": "Conversations with more tokens, image tokens included, are not scored. By default the model's own limit."
        },
    )

    def __post_init__(self):
        if not self.reward_model_name_or_path:
            raise ValueError("`reward_model_name_or_path` is empty, but must name the reward model to serve")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"`port` is {self.port}, but must lie in [0, 65535]")
        if self.batch_size < 1:
            raise ValueError(f"`batch_size` is {self.batch_size}, but must be at least 1")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"`max_tokens` is {self.max_tokens}, but must be at least 1")
        if self.api_key_env is not None and not os.environ.get(self.api_key_env):
            raise ValueError(f"`api_key_env` names {self.api_key_env}, which is not set: put the key into it")


def main(args: ServeRewardArguments) -> None:
    from ..rewards.reward_model import RewardModel
    from ..rewards.reward_server import RewardServer

    model = RewardModel.from_pretrained(
        args.reward_model_name_or_path,
        dtype=args.dtype,
        device=args.device,
        revision=args.revision,
        batch_size=args.batch_size,
        max_tokens=args.max_tokens,
    )
    name = args.served_model_name or args.reward_model_name_or_path
    key = None if args.api_key_env is None else os.environ[args.api_key_env]
    with RewardServer(model, args.host, args.port, args.batch_size, name, key) as server:

        def stop(number, frame):
            # between two requests: an exception, raised here, would drop the one that is just being accepted
            threading.Thread(target=server.shutdown, daemon=True).start()

        # a job in the background ignores SIGINT, and goes on doing so
        heeded = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, stop) for number in heeded}
        try:
            print(f"{name} is served at http://{args.host}:{server.server_port}", flush=True)
            server.serve_forever()
            print("Stopping …", flush=True)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    print(f"Stopped after {server.num_scored} scores.", flush=True)
    if not server.is_idle:
        print("A batch was still being scored; its clients were told to ask again.", flush=True)
        sys.stderr.flush()
        os._exit(0)  # an ordinary exit would wait for the model, in whose code the thread is


def make_parser(prog: str | None = None) -> RecipeParser:
    return RecipeParser((ServeRewardArguments,), prog=prog)


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
