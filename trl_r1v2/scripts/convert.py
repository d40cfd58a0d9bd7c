# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Convert an InternVL-family checkpoint between the published layout (remote code) and the native one.

```shell
trl-r1v2 convert --checkpoint Skywork-R1V2-38B --output_dir Skywork-R1V2-38B-native
trl-r1v2 convert --checkpoint my-run/checkpoint-400 --output_dir published --to published --reference Skywork-R1V2-38B
```
"""

from dataclasses import dataclass

from transformers.hf_argparser import HfArg

from ..vlm.convert import to_native, to_published


@dataclass
class ConvertArguments:
    """Arguments of `trl-r1v2 convert`."""

    checkpoint: str = HfArg(help="Folder of the checkpoint to convert.")
    output_dir: str = HfArg(help="Folder to write. An interrupted run is resumed there.")
    to: str = HfArg(default="native", help="Layout to write: `native` (transformers) or `published` (remote code).")
    reference: str | None = HfArg(
        default=None,
        help="With `to: published`: folder of the published checkpoint whose other settings (`auto_map`, "
        "`template`) are kept.",
    )
    max_shard_size: str = HfArg(default="5GB", help="Size above which a new shard begins.")
    chat_template: str | None = HfArg(default=None, help="With `to: native`: Jinja file instead of the tokenizer's.")

    def __post_init__(self):
        if self.to not in ("native", "published"):
            raise ValueError(f"to is {self.to!r}; it must be 'native' or 'published'.")
        if self.to == "native" and self.reference is not None:
            raise ValueError("reference is only read with `to: published`; leave it out.")
        if self.to == "published" and self.chat_template is not None:
            raise ValueError("chat_template is only read with `to: native`; leave it out.")


def main(args: ConvertArguments) -> None:
    """Convert and print what was made."""
    common = dict(checkpoint=args.checkpoint, output_dir=args.output_dir, max_shard_size=args.max_shard_size)
    if args.to == "native":
        print(to_native(**common, chat_template=args.chat_template))
    else:
        result = to_published(**common, reference=args.reference)
        print(f"published-layout checkpoint in {args.output_dir}\n  {result}")
