# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
vLLM's offline engine in a process of its own: batches as lines of JSON on standard input, responses on standard
output.

Run as a file by `vllm_engine`, with any interpreter that has vLLM: imports nothing of this package. The first line
holds the arguments of the engine, every further one a batch.
"""

import base64
import io
import json
import os
import sys
from typing import Any

from PIL import Image


def read_prompt(request: dict[str, Any]) -> dict[str, Any]:
    """The prompt of a request as `LLM.generate` takes it."""
    prompt = {"prompt_token_ids": request["prompt_ids"]}
    if request["images"]:
        opened = [Image.open(io.BytesIO(base64.b64decode(data))) for data in request["images"]]
        prompt["multi_modal_data"] = {"image": opened}
    return prompt


def main() -> None:
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what vLLM prints must not come between the replies
    from vllm import LLM, SamplingParams

    engine = LLM(**json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        batch = json.loads(line)
        bias = batch["sampling"]["logit_bias"]
        batch["sampling"]["logit_bias"] = {int(key): value for key, value in bias.items()} or None  # JSON's are text
        settings = [SamplingParams(**batch["sampling"], seed=request["seed"]) for request in batch["requests"]]
        outputs = engine.generate([read_prompt(request) for request in batch["requests"]], settings, use_tqdm=False)
        answers = [
            {
                "num_prompt_tokens": len(output.prompt_token_ids),
                "responses": [
                    {
                        "ids": list(response.token_ids),
                        "finished": response.finish_reason == "stop",
                        "logps": response.logprobs
                        and [logps[i].logprob for i, logps in zip(response.token_ids, response.logprobs, strict=True)],
                    }
                    for response in output.outputs
                ],
            }
            for output in outputs
        ]
        replies.write(json.dumps(answers) + "\n")
        replies.flush()


if __name__ == "__main__":  # vLLM's own processes import this file
    main()
