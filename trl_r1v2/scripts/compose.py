# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Compose a vision tower, an adapter and a reasoning LLM into one checkpoint.

```shell
trl-r1v2 compose --vision InternViT-6B-448px-V2_5 --llm QwQ-32B --output_dir R1V2-init
```

The folders are local. The output loads with `AutoModelForImageTextToText` and `AutoProcessor`; a run that was killed
continues when it is started again.
"""

from dataclasses import dataclass

from transformers.hf_argparser import HfArg

from ..vlm.compose import compose_vlm
from .parser import RecipeParser


@dataclass
class ComposeArguments:
    """Arguments of `trl-r1v2 compose`; the fields are those of [`~vlm.compose.compose_vlm`]."""

    vision: str = HfArg(
        help="Folder of the vision tower: native InternVLVisionModel, published InternViT, or a whole native or "
        "published InternVL checkpoint of which the tower is taken."
    )
    llm: str = HfArg(help="Folder of a Qwen2, Qwen3 or Llama causal LM with its tokenizer.")
    output_dir: str = HfArg(help="Folder to write. An interrupted run is resumed there.")
    adapter: str | None = HfArg(
        default=None, help="Native or published InternVL checkpoint whose adapter is taken. Default: a fresh one."
    )
    downsample_ratio: float = HfArg(default=0.5, help="Pixel-shuffle ratio per side.")
    seed: int = HfArg(default=0, help="Seed of a fresh adapter.")
    dtype: str | None = HfArg(
        default=None,
        help="bfloat16, float16 or float32: cast every tensor. Default: every part keeps its own, and the config "
        "names the LLM's.",
    )
    max_shard_size: str = HfArg(default="5GB", help="Size above which a new shard begins.")
    min_patches: int = HfArg(default=1, help="Fewest tiles an image is cut into.")
    max_patches: int = HfArg(default=12, help="Most tiles, without the thumbnail; 1 turns tiling off.")
    chat_template: str | None = HfArg(
        default=None, help="Path of a Jinja file to use instead of the LLM's own chat template."
    )


def main(args: ComposeArguments) -> None:
    """Compose and print what was made."""
    print(compose_vlm(**vars(args)))


def make_parser(prog: str | None = None) -> RecipeParser:
    return RecipeParser((ComposeArguments,), prog=prog)


if __name__ == "__main__":
    raise SystemExit(make_parser().run(main))
