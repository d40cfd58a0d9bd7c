# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
CPU seconds and memory of a training pass over one group, with its prompt shared and not, beside the limit that
the numbers of tokens set; and the padding that sorting by length saves.

    python -m benchmarks.prompt_sharing.passes

A pass is forward and backward of a random Qwen2 in float32 (hidden size 512, two layers, vocabulary 2,048) with TRL's
fused head; answers are equally long, so that nothing is padded. Sides alternate in one process. The padding is counted
on lengths drawn from a log-normal distribution, cut at `max_completion_length`. Configurations that the result file
holds are not measured again.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from trl.trainer.utils import add_fused_lm_head

from benchmarks.environment import environment
from benchmarks.results import write_result
from trl_r1v2.prompt_sharing.batches import by_length
from trl_r1v2.prompt_sharing.model import PromptSharing


CONFIGURATIONS = [(prompt, 512, group) for group in (2, 4, 8, 16) for prompt in (64, 256, 512, 1280, 2560, 3328)]
BACKWARD = "backward of a pass"


def make_model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=2048,
            hidden_size=512,
            intermediate_size=1536,
            num_hidden_layers=2,
            num_attention_heads=8,
            num_key_value_heads=2,
            max_position_embeddings=8192,
        )
    )
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    return model


def make_rows(prompt: int, answer: int, group: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(2, 2000, (group, prompt + answer), generator=torch.Generator().manual_seed(0))
    ids[:, :prompt] = ids[0, :prompt]
    labels = ids.clone()
    labels[:, :prompt] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def one_pass(model, call, rows) -> tuple[float, float]:
    """CPU seconds, and the sum of log-probabilities."""
    start = time.process_time()
    log_probs = call(**rows, fused_lm_head=True).log_probs
    with torch.profiler.record_function(BACKWARD):
        log_probs.sum().backward()
    seconds = time.process_time() - start
    model.zero_grad()
    return seconds, float(log_probs.sum())


def held_bytes(model, call, rows) -> dict[str, int]:
    """Bytes of tensors that a pass holds for its backward, and the most at a time (gradients among them)."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        one_pass(model, call, rows)
    events = sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    held, before = {"for_backward": 0, "peak": 0}, 0
    for event in events:
        if event.name() == "[memory]":
            before += event.nbytes()
            held["peak"] = max(held["peak"], before)
        elif event.name() == BACKWARD:
            held["for_backward"] = before
    model.zero_grad()
    return held


def operations(model, num_tokens: int, num_pairs: int) -> float:
    """Multiplications of a forward over tokens whose attention has pairs of a query and a key."""
    config = model.config
    weights = sum(parameter.numel() for layer in model.model.layers for parameter in layer.parameters())
    attention = 2 * config.num_hidden_layers * config.hidden_size
    return num_tokens * (weights + model.lm_head.weight.numel()) + num_pairs * attention


def limits(model, prompt: int, answer: int, group: int) -> dict[str, float]:
    """What sharing could give by the number of tokens, and by operations: each answer still attends to its prompt."""
    apart, together = group * (prompt + answer), prompt - 1 + group * (answer + 1)
    pairs_apart, pairs_together = (
        group * (prompt + answer) ** 2 / 2,
        prompt**2 / 2 + group * answer * (prompt + answer / 2),
    )
    by_operations = operations(model, apart, pairs_apart) / operations(model, together, pairs_together)
    return {"limit": apart / together, "operations_limit": by_operations}


def measure(prompt: int, answer: int, group: int, repeats: int) -> dict:
    model, rows = make_model(), make_rows(prompt, answer, group)
    calls = {"unshared": model, "shared": PromptSharing(model).wrap(model)}
    result = {"bytes": {side: held_bytes(model, call, rows) for side, call in calls.items()}}
    seconds, sums = {side: [] for side in calls}, {}
    for _ in range(repeats):
        for side, call in calls.items():
            taken, sums[side] = one_pass(model, call, rows)
            seconds[side].append(taken)
    result |= {"cpu_seconds": seconds, "sums": sums}
    result |= limits(model, prompt, answer, group)
    result["speed_up"] = min(seconds["unshared"]) / min(seconds["shared"])
    for which, name in (("for_backward", "activations_ratio"), ("peak", "peak_ratio")):
        result[name] = result["bytes"]["unshared"][which] / result["bytes"]["shared"][which]
    return result


def padding(num_rows: int, num_batches: int, median: int, sigma: float, longest: int, seeds: int) -> dict:
    """Tokens of padded completions: as TRL pads them, each micro-batch to its own longest, and sorted besides."""
    totals = {"real": 0, "stock": 0, "trimmed": 0, "sorted": 0}
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        drawn = median * torch.exp(sigma * torch.randn(num_rows, generator=generator))
        rows = drawn.clamp(1, longest).long().tolist()
        size = num_rows // num_batches
        totals["real"] += sum(rows)
        totals["stock"] += num_rows * max(rows)
        totals["trimmed"] += sum(size * max(rows[start : start + size]) for start in range(0, num_rows, size))
        totals["sorted"] += sum(
            size * max(rows[r] for r in batch) for batch in by_length(rows, num_batches, num_batches)
        )
    return {
        "median": median,
        "sigma": sigma,
        "longest": longest,
        "rows": num_rows,
        "micro_batches": num_batches,
    } | totals


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--prompts", nargs="+", type=int, help="Only these lengths of prompts.")
    parser.add_argument("--groups", nargs="+", type=int, help="Only these sizes of groups.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "passes.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = json.loads(arguments.output.read_text()) if arguments.output.exists() else {"passes": {}}
    result["environment"] = environment()
    result["padding"] = [padding(64, batches, 800, 1.0, 8192, 50) for batches in (4, 8, 16)]
    for prompt, answer, group in CONFIGURATIONS:
        name = f"{prompt}/{answer} x {group}"
        wanted = prompt in (arguments.prompts or [prompt]) and group in (arguments.groups or [group])
        if wanted and name not in result["passes"]:
            result["passes"][name] = measure(prompt, answer, group, arguments.repeats)
            write_result(arguments.output, result)
            figures = {
                key: round(result["passes"][name][key], 2)
                for key in ("limit", "operations_limit", "speed_up", "activations_ratio", "peak_ratio")
            }
            print(name, json.dumps(figures), flush=True)
    write_result(arguments.output, result)


if __name__ == "__main__":
    main()
