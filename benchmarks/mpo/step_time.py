# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Step time and peak memory on image pairs: `DPOTrainer` with the three MPO losses against `MPOTrainer`.

    python -m benchmarks.mpo.step_time

Both minimize the same loss here (no reward shift, token mean), which the runs check, so that what differs is how often
a prompt and its images pass the models (`share_prompts`). Every run is a process of its own, stock and ours in turn
with the same seed, and the ratio is taken pair by pair, which cancels drifts of the machine's speed. The
floating-point operations of a step (matrix products and convolutions, as `FlopCounterMode` counts them) are exact
where a busy machine blurs its clocks. An image has 12 tiles and a thumbnail, as InternVL cuts a large one; with fewer
tiles the text weighs more and the gain is smaller (`--grid`). Models and images are made on the spot; times do not
depend on their content. Data loading is not in the step.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


# Tower and language model of one width: the same number of parameters, or of operations in a forward pass.
MODELS = {
    "equal_parameters": {"vision_layers": 4, "llm_layers": 4},
    "equal_operations": {"vision_layers": 2, "llm_layers": 7},
}
TOWERS = ("trained", "frozen")
TRAINERS = ("stock", "ours")
WIDTH, TILE, PATCH, TOKENS_PER_TILE = 512, 112, 14, 16
VOCABULARY = 2048


def make_processor(max_tiles: int):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLProcessor,
        InternVLVideoProcessor,
        PreTrainedTokenizerFast,
    )

    special = ["<pad>", "<eos>", "<unk>", "<img>", "</img>", "<image>", "<video>"]
    words = special + [f"w{index}" for index in range(VOCABULARY - len(special))]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = ("start_image_token", "end_image_token", "context_image_token", "video_token")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        extra_special_tokens=dict(zip(names, special[3:], strict=True)),
    )
    size = {"height": TILE, "width": TILE}
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=size, crop_to_patches=True, max_patches=max_tiles),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(),
        image_seq_length=TOKENS_PER_TILE,
    )


def make_model(processor, vision_layers: int, llm_layers: int):
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    shared = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": 4}
    text = {
        "model_type": "qwen2",
        **shared,
        "intermediate_size": WIDTH * 21 // 8,  # a gated MLP has three matrices: about the same parameters a layer
        "num_key_value_heads": 4,
        "num_hidden_layers": llm_layers,
        "vocab_size": VOCABULARY,
        "pad_token_id": processor.tokenizer.pad_token_id,
        "eos_token_id": processor.tokenizer.eos_token_id,
        "tie_word_embeddings": False,
    }
    vision = {**shared, "num_hidden_layers": vision_layers, "image_size": [TILE, TILE], "patch_size": [PATCH, PATCH]}
    return InternVLForConditionalGeneration(
        InternVLConfig(
            vision_config=vision,
            text_config=text,
            image_token_id=processor.image_token_id,
            image_seq_length=TOKENS_PER_TILE,
            tie_word_embeddings=False,
        )
    )


def make_rows(num_rows: int, seed: int, grid: tuple[int, int]):
    """One image of `grid` tiles (rows, columns) and a thumbnail a row, and responses of 16 words."""
    import numpy as np
    from datasets import Dataset, Features, Image, List, Value

    generator = np.random.default_rng(seed)

    def words(count: int) -> str:
        return " ".join(f"w{index}" for index in generator.integers(0, VOCABULARY - 7, count))

    rows = [
        {
            "prompt": f"<image> {words(16)}",
            "chosen": f" {words(15)} <eos>",
            "rejected": f" {words(15)} <eos>",
            "images": [generator.integers(0, 256, (grid[0] * TILE, grid[1] * TILE, 3), dtype=np.uint8)],
        }
        for _ in range(num_rows)
    ]
    features = Features({**dict.fromkeys(("prompt", "chosen", "rejected"), Value("string")), "images": List(Image())})
    return Dataset.from_list(rows, features=features)


def forward_operations(model, batch) -> dict[str, int]:
    """Floating-point operations of one stock forward pass, in the tower and in all."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values")}
    with torch.no_grad():
        with FlopCounterMode(display=False) as tower:
            model.model.vision_tower(pixel_values=inputs["pixel_values"])
        with FlopCounterMode(display=False) as whole:
            model(**inputs)
    return {"tower": tower.get_total_flops(), "whole": whole.get_total_flops()}


def run(arguments) -> dict:
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer

    from trl_r1v2 import MPOConfig, MPOTrainer

    torch.manual_seed(arguments.seed)
    processor = make_processor(arguments.grid[0] * arguments.grid[1])
    policy = make_model(processor, **MODELS[arguments.model])
    reference = make_model(processor, **MODELS[arguments.model])
    reference.load_state_dict(policy.state_dict())
    policy.model.vision_tower.requires_grad_(arguments.tower == "trained")
    tower, llm = policy.model.vision_tower, policy.model.language_model
    parameters = {
        "tower": sum(parameter.numel() for parameter in tower.parameters()),
        "llm": sum(parameter.numel() for name, parameter in llm.named_parameters() if "embed" not in name),
    }
    seconds, tiles, operations = {"wall": [], "cpu": []}, 0, FlopCounterMode(display=False)

    class Clock(TrainerCallback):
        """Times every step but the last, whose operations are counted instead."""

        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == args.max_steps - 1:
                operations.__enter__()
            self.wall, self.cpu = time.perf_counter(), time.process_time()

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == args.max_steps:
                operations.__exit__(None, None, None)
                return
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds["wall"].append(time.perf_counter() - self.wall)
            seconds["cpu"].append(time.process_time() - self.cpu)

    def count(module, args):
        nonlocal tiles
        tiles += len(args[0])

    for model in (policy, reference):
        model.model.vision_tower.embeddings.patch_embeddings.register_forward_pre_hook(count)
    trainer_class, config_class, settings = {
        "stock": (DPOTrainer, DPOConfig, {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1]}),
        "ours": (
            MPOTrainer,
            MPOConfig,
            {"reward_shift": "zero", "generation_loss_type": "token", "share_prompts": True},
        ),
    }[arguments.trainer]
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_class(
            policy,
            reference,
            config_class(
                output_dir=folder,
                max_steps=arguments.steps,
                per_device_train_batch_size=arguments.batch_size,
                seed=arguments.seed,
                use_cpu=not torch.cuda.is_available(),
                bf16=torch.cuda.is_available(),
                gradient_checkpointing=False,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                **settings,
            ),
            train_dataset=make_rows(arguments.steps * arguments.batch_size, arguments.seed, arguments.grid),
            processing_class=processor,
            callbacks=[Clock()],
        )
        trainer.train()
        batch = trainer.data_collator([trainer.train_dataset[0]]).to(trainer.accelerator.device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    return {
        "step_seconds": seconds,
        "step_operations": operations.get_total_flops(),
        "peak_bytes": peak,
        "tiles_encoded": tiles,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "parameters": parameters,
        "forward_operations": forward_operations(policy, batch),
    }


def run_in_process(arguments, model: str, tower: str, trainer: str, seed: int) -> dict:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.mpo.step_time", "--run", model, tower, trainer]
    command += ["--seed", str(seed), "--steps", str(arguments.steps), "--batch_size", str(arguments.batch_size)]
    command += ["--grid", *map(str, arguments.grid)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def interval(values: list[float]) -> dict[str, float]:
    """Mean and half width of its 95 % confidence interval (Student's t)."""
    from scipy import stats

    half_width = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    return {"mean": statistics.fmean(values), "half_width_95": float(half_width)}


def summarize(pairs: list[dict]) -> dict:
    def typical(found: dict, clock: str) -> float:
        return statistics.median(found["step_seconds"][clock][2:])  # the first steps allocate

    stock, ours = pairs[0]["stock"], pairs[0]["ours"]
    forward = stock["forward_operations"]
    for pair in pairs:
        differences = [abs(a - b) for a, b in zip(pair["stock"]["losses"], pair["ours"]["losses"], strict=True)]
        if max(differences) > 1e-3:
            raise RuntimeError(f"the two trainers' losses differ by {max(differences)}: not the same computation")
    clocks = ("wall", "cpu")
    ratios = {c: [typical(pair["stock"], c) / typical(pair["ours"], c) for pair in pairs] for c in clocks}
    return {
        "speedup": {clock: interval(values) for clock, values in ratios.items()},
        "peak_memory_ratio": interval([pair["ours"]["peak_bytes"] / pair["stock"]["peak_bytes"] for pair in pairs]),
        "step_seconds": {
            clock: {name: statistics.fmean(typical(pair[name], clock) for pair in pairs) for name in TRAINERS}
            for clock in clocks
        },
        "peak_bytes": {name: statistics.fmean(pair[name]["peak_bytes"] for pair in pairs) for name in TRAINERS},
        "tiles_encoded": {"stock": stock["tiles_encoded"], "ours": ours["tiles_encoded"]},
        "operations_ratio": stock["step_operations"] / ours["step_operations"],
        "tower_share_of_forward_operations": forward["tower"] / forward["whole"],
        "parameters": stock["parameters"],
    }


def main(arguments):
    from benchmarks.environment import environment

    result = {"environment": environment(), "steps": arguments.steps, "batch_size": arguments.batch_size}
    result |= {"grid": arguments.grid}
    result |= {"seeds": list(range(arguments.pairs)), "summary": {}, "runs": {}}
    for model in arguments.models:
        for tower in TOWERS:
            pairs = []
            for seed in range(arguments.pairs):
                order = TRAINERS if seed % 2 == 0 else TRAINERS[::-1]
                found = {trainer: run_in_process(arguments, model, tower, trainer, seed) for trainer in order}
                pairs.append(found)
            name = f"{model}/{tower}"
            result["runs"][name], result["summary"][name] = pairs, summarize(pairs)
            print(name, json.dumps(result["summary"][name]), flush=True)
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(result, indent=1))
    print(f"Raw results are in {arguments.output}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4, help="runs of each trainer, paired by seed")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--grid", nargs=2, type=int, default=[3, 4], help="rows and columns of an image's tiles")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--run", nargs=3, metavar=("MODEL", "TOWER", "TRAINER"), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "step_time.json")
    arguments = parser.parse_args()
    if arguments.run:
        arguments.model, arguments.tower, arguments.trainer = arguments.run
        print(json.dumps(run(arguments)))
    else:
        main(arguments)
