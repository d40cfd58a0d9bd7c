# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What the vision cache saves in a GRPO step of stock TRL when the tower is as heavy as the language model: pairs of
short runs, without and with the cache in turn, in one process.

    python -m benchmarks.vlm.vision_cache_step --base runs/digits/base --data runs/digits/data

Tower and language model have equally many parameters, two percent apart, and random weights. The learning rate is
zero, so both runs of a pair see the same weights at every step. The ratio is taken pair by pair, which cancels drifts
of the machine's speed. Beside the ratio stands its limit: operations of a stock step over those that are left when
every distinct tile is encoded once, counted by PyTorch. A last run has a cap that is too small on purpose. Settings
that the result file holds are not run again.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, Features, Image, Value, load_dataset
from PIL import Image as PILImage
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoProcessor, InternVLConfig, InternVLForConditionalGeneration, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.environment import environment
from benchmarks.ssb.summary import interval
from trl_r1v2 import set_trainable
from trl_r1v2.vlm.activation import COMPONENTS, component_of
from trl_r1v2.vlm.vision_cache import VisionCache, find_tower
from trl_r1v2.vlm.vision_cache_callback import VisionCacheCallback


HIDDEN, LAYERS, HEADS = 192, 4, 4
PROMPTS, GENERATIONS, COMPLETION_LENGTH = 4, 8, 16
TOWER = "InternVLForConditionalGeneration.model.vision_tower"
# Scale of the scans (28 px, one tile), trained components, coefficient of the reference's KL term.
SETTINGS = {
    "5 tiles, llm+adapter": (2, "llm+adapter", 0.0),
    "5 tiles, adapter, reference": (2, "adapter", 0.04),
    "1 tile, llm+adapter": (1, "llm+adapter", 0.0),
}


class Clock(TrainerCallback):
    """Wall and CPU seconds of every optimizer step, and the gradient norm that was logged for it."""

    def __init__(self):
        self.wall, self.cpu = [], []

    def on_step_begin(self, args, state, control, **kwargs):
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def on_step_end(self, args, state, control, **kwargs):
        self.wall.append(time.perf_counter() - self._wall)
        self.cpu.append(time.process_time() - self._cpu)


class TileCounter:
    """Counts what reaches a tower and what it really encodes, by hooks that the cache knows nothing of."""

    def __init__(self, tower: torch.nn.Module):
        self.asked = self.encoded = 0
        self.distinct: set[bytes] = set()
        tower.register_forward_pre_hook(self._ask, with_kwargs=True)
        tower.embeddings.register_forward_pre_hook(self._encode)

    def _ask(self, module, args, kwargs):
        tiles = args[0] if args else kwargs["pixel_values"]
        self.asked += len(tiles)
        self.distinct |= {tile.numpy().tobytes() for tile in tiles}

    def _encode(self, module, args):
        self.encoded += len(args[0])


class CapWatch(TrainerCallback):
    """The most bytes that the kept features really occupied at the end of a step, and the most the cache counted."""

    def __init__(self, cache: VisionCache):
        self.cache, self.held, self.counted = cache, 0, 0

    def on_step_end(self, args, state, control, **kwargs):
        features = [value for entry in self.cache._entries.values() for value in entry.features]
        self.held = max(self.held, sum(value.untyped_storage().nbytes() for value in features))
        self.counted = max(self.counted, self.cache.num_bytes)


def build_model(base: str) -> InternVLForConditionalGeneration:
    """A model for the base's processor, whose tower and language model have equally many parameters."""
    config = InternVLConfig.from_pretrained(base)
    vision = config.vision_config
    vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads = HIDDEN, LAYERS, HEADS
    vision.intermediate_size = 4 * HIDDEN
    text = config.text_config
    text.hidden_size, text.num_hidden_layers, text.layer_types = HIDDEN, LAYERS, None
    text.num_attention_heads = text.num_key_value_heads = HEADS
    embeddings = 2 * text.vocab_size * HIDDEN
    # Three matrices in the language model's feed-forward, two in the tower's, and the embeddings to make up for.
    text.intermediate_size = round((2 * vision.intermediate_size - embeddings / (LAYERS * HIDDEN)) / 3)
    text.head_dim = HIDDEN // HEADS
    config = InternVLConfig.from_dict(
        config.to_dict() | {"text_config": text_values(text), "vision_config": vision.to_dict()}
    )
    torch.manual_seed(0)
    model = InternVLForConditionalGeneration(config)
    model.generation_config.eos_token_id = config.text_config.eos_token_id
    return model


def text_values(text) -> dict:
    """The config's values without the list of layer types, which its number of layers decides."""
    return {name: value for name, value in text.to_dict().items() if name != "layer_types"}


def read_rows(data: str, scale: int, count: int) -> Dataset:
    """Questions about one scan, enlarged so that it is cut into `scale`² tiles (and a thumbnail)."""
    rows = load_dataset(data, split="train").filter(lambda task: task == "yes_no", input_columns="task")
    rows = rows.select(range(count))
    images = [
        [image.resize((image.width * scale, image.height * scale), PILImage.Resampling.BICUBIC)]
        for (image,) in rows["images"]
    ]
    features = Features({"prompt": [{"role": Value("string"), "content": Value("string")}], "images": [Image()]})
    return Dataset.from_dict({"prompt": rows["prompt"], "images": images}, features=features)


def variety(completions, **kwargs) -> list[float]:
    """A reward that tells random texts apart: distinct characters."""
    return [float(len(set(completion[0]["content"]))) for completion in completions]


def run(
    arguments, setting: str, seed: int, cache: VisionCache | None, attention: str = "sdpa", steps: int = 0
) -> dict:
    """A short run of stock GRPO, with or without a cache: median seconds of a step, tiles, gradient norms."""
    scale, preset, beta = SETTINGS[setting]
    steps = steps or arguments.steps
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        # saved, because TRL loads the reference from where the model came from
        build_model(arguments.base).save_pretrained(folder)
        trainer = GRPOTrainer(
            model=folder,
            reward_funcs=variety,
            args=GRPOConfig(
                output_dir=folder,
                max_steps=steps,
                model_init_kwargs={"dtype": "float32", "attn_implementation": attention},
                learning_rate=0.0,
                beta=beta,
                seed=seed,
                num_generations=GENERATIONS,
                per_device_train_batch_size=PROMPTS * GENERATIONS,
                max_completion_length=COMPLETION_LENGTH,
                logging_steps=1,
                bf16=False,
                gradient_checkpointing=False,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=read_rows(arguments.data, scale, PROMPTS * steps),
            processing_class=AutoProcessor.from_pretrained(arguments.base, padding_side="left"),
            callbacks=[clock],
        )
        set_trainable(trainer.model, preset)
        counters = [TileCounter(find_tower(m)) for m in (trainer.model, trainer.ref_model) if m is not None]
        watch = None
        if cache is not None:
            trainer.add_callback(VisionCacheCallback(cache, trainer, reference=trainer.ref_model))
            watch = CapWatch(cache)
            trainer.add_callback(watch)
        trainer.train()
    warm = slice(steps // 4, None)
    return {
        "wall": float(np.median(clock.wall[warm])),
        "cpu": float(np.median(clock.cpu[warm])),
        "tiles_asked": sum(counter.asked for counter in counters),
        "tiles_encoded": sum(counter.encoded for counter in counters),
        "tiles_distinct": len(set().union(*(counter.distinct for counter in counters))),
        "grad_norm": [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry],
        **({} if watch is None else {"bytes_held": watch.held, "bytes_counted": watch.counted}),
    }


def operations(arguments, setting: str) -> dict:
    """Floating-point operations of a stock run, in the tower and in all, and the speed-up that is possible at most."""
    with FlopCounterMode(display=False) as counter:
        figures = run(arguments, setting, seed=0, cache=None, attention="eager", steps=2)
    counts = counter.get_flop_counts()
    total, tower = sum(counts["Global"].values()), sum(counts[TOWER].values())
    left = total - tower * (1 - figures["tiles_distinct"] / figures["tiles_asked"])
    return {"tower_share": tower / total, "limit": total / left}


def measure_pairs(arguments, setting: str) -> dict:
    run(arguments, setting, seed=0, cache=None, steps=2)  # warms caches of the data set and of torch; not counted
    pairs = []
    for seed in range(arguments.pairs):
        order = (False, True) if seed % 2 == 0 else (True, False)
        of_pair = {on: run(arguments, setting, seed, VisionCache() if on else None) for on in order}
        pairs.append({"stock": of_pair[False], "cache": of_pair[True]})
    result = operations(arguments, setting) | {"pairs": pairs}
    for clock in ("wall", "cpu"):
        mean, half_width = interval([pair["stock"][clock] / pair["cache"][clock] for pair in pairs])
        result[f"{clock}_speed_up"] = {"mean": mean, "half_width_95": half_width}
    norms = [(np.array(pair["stock"]["grad_norm"]), np.array(pair["cache"]["grad_norm"])) for pair in pairs]
    result["largest_relative_difference_of_gradient_norms"] = float(max(np.max(abs(a / b - 1)) for a, b in norms))
    print(setting, json.dumps({key: value for key, value in result.items() if key != "pairs"}), flush=True)
    return result


def measure_cap(arguments) -> dict:
    """The setting with two towers, with room for half of its distinct tiles."""
    setting = "5 tiles, adapter, reference"
    whole = VisionCache()
    free = run(arguments, setting, seed=0, cache=whole)
    cap = free["bytes_counted"] // 2
    small = VisionCache(max_bytes=cap)
    capped = run(arguments, setting, seed=0, cache=small)
    return {
        "setting": setting,
        "max_bytes": cap,
        "bytes_held": capped["bytes_held"],
        "bytes_counted": capped["bytes_counted"],
        "evicted": small.num_evicted,
        "tiles_encoded": capped["tiles_encoded"],
        "tiles_distinct": capped["tiles_distinct"],
        "bytes_held_without_cap": free["bytes_held"],
    }


def table(result: dict) -> str:
    lines = [
        "| setting | tiles encoded, stock → cache | tower's share of operations | limit | speed-up, CPU seconds "
        "| wall |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for setting, figures in result["settings"].items():
        pair = figures["pairs"][0]
        cpu, wall = figures["cpu_speed_up"], figures["wall_speed_up"]
        lines.append(
            f"| {setting} | {pair['stock']['tiles_encoded']:,} → {pair['cache']['tiles_encoded']:,} "
            f"| {100 * figures['tower_share']:.0f} % | {figures['limit']:.2f} "
            f"| {cpu['mean']:.2f} ± {cpu['half_width_95']:.2f} | {wall['mean']:.2f} ± {wall['half_width_95']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="checkpoint whose processor and tokenizer are used")
    parser.add_argument("--data", required=True, help="folder of the digit tasks")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "vision_cache_step.json")
    arguments = parser.parse_args()
    model = build_model(arguments.base)
    parameters = dict.fromkeys(COMPONENTS, 0)
    for name, parameter in model.named_parameters():
        parameters[component_of(name)] += parameter.numel()
    found = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    result = {
        "environment": environment(),
        "parameters": parameters,
        "prompts": PROMPTS,
        "generations": GENERATIONS,
        "completion_length": COMPLETION_LENGTH,
        "steps": arguments.steps,
        "settings": found.get("settings", {}),
        "cap": found.get("cap"),
    }
    for setting in arguments.settings:
        if setting not in result["settings"]:
            result["settings"][setting] = measure_pairs(arguments, setting)
            arguments.output.write_text(json.dumps(result, indent=1))
    if result["cap"] is None:
        result["cap"] = measure_cap(arguments)
        arguments.output.write_text(json.dumps(result, indent=1))
    print(json.dumps(parameters), json.dumps(result["cap"]))
    print(table(result))


if __name__ == "__main__":
    main()
