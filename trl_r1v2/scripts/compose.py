# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Compose a vision tower, an adapter and a reasoning LLM into one checkpoint.

```shell
trl-r1v2 compose --vision InternViT-6B-448px-V2_5 --llm QwQ-32B --output_dir R1V2-init
```

The folders are local. The output loads with `AutoModelForImageTextToText` and `AutoProcessor`; a run that was killed
continues when it is started again.
"""

from ..vlm.compose import ComposeArguments, compose_vlm


def main(args: ComposeArguments) -> None:
    """Compose and print what was made."""
    print(compose_vlm(**vars(args)))
