# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
One process of the sharding tests, under the launcher or alone; its arguments are a model and a reward model.

Models are given as folders, as the commands give them: under ZeRO-3 with `zero3_init_flag` they are sharded while they
are loaded, before a trainer's constructor returns.
"""

import json
import os
from pathlib import Path

from datasets import Dataset
from peft import LoraConfig
from transformers import AutoProcessor, set_seed

from tests import conftest  # noqa: F401  (environment variables before torch)
from tests.support.launch import whole_parameters, work
from tests.support.monitor_worker import PROBE, half_right, letters, vowels
from tests.support.mpo_tiny import image_pairs, training_args
from tests.support.reward_tiny import logged, pairs, settings
from tests.support.ssb_runs import image_dataset
from trl_r1v2 import MPOConfig, MPOTrainer, SSBGRPOConfig, SSBGRPOTrainer, set_trainable
from trl_r1v2.hallucination import HallucinationMonitor, MonitorConfig
from trl_r1v2.hallucination.probe import ProbeFunctions
from trl_r1v2.rewards import VisionRewardConfig, VisionRewardTrainer
from trl_r1v2.scripts.training import save_whole
from trl_r1v2.vlm.vision_cache import VisionCache
from trl_r1v2.vlm.vision_cache_callback import VisionCacheCallback


GLOBAL_BATCH = 4
PROCESSES = int(os.environ.get("WORLD_SIZE", "1"))
LORA = {"r": 2, "target_modules": r".*language_model.*\.(q_proj|v_proj)", "modules_to_save": ["multi_modal_projector"]}
# Which components train, with LoRA or without, with gradient checkpointing or without.
ACTIVATIONS = {
    "adapter": ("adapter", False, False),
    "llm": ("llm+adapter", False, True),
    "vision": ("adapter+vision", False, True),
    "lora": ("llm+adapter", True, True),
}


def mpo_trainer(folder: Path, model: str, with_lora: bool = False, **changes) -> MPOTrainer:
    """The same global batch for any number of processes; DeepSpeed takes a norm of 0 for 1, so a large one."""
    batch_size = GLOBAL_BATCH // PROCESSES
    changes = {"max_steps": 2, "max_grad_norm": 1e9, "per_device_train_batch_size": batch_size} | changes
    set_seed(3)  # of fresh LoRA weights
    return MPOTrainer(
        model,
        args=MPOConfig(**training_args(folder, beta=0.5, **changes)),
        train_dataset=image_pairs([1, 2, 1, 1, 3, 1, 1, 2]),
        processing_class=AutoProcessor.from_pretrained(model),
        peft_config=LoraConfig(**LORA, lora_dropout=0.0) if with_lora else None,
    )


# ---- Activation ----


def activation(folder: Path, model: str, name: str) -> dict:
    trainable, with_lora, checkpointing = ACTIVATIONS[name]
    trainer = mpo_trainer(folder, model, with_lora, gradient_checkpointing=checkpointing)
    is_sharded_on_loading = any(parameter.numel() == 0 for parameter in trainer.model.parameters())
    report = set_trainable(trainer.model, trainable)
    before = whole_parameters(trainer)
    trainer.train()
    save_whole(trainer, str(folder / "saved"))
    return {
        "is_sharded_on_loading": is_sharded_on_loading,
        "report": {"trained": report.trained, "frozen": report.frozen, "table": str(report)},
        "trained_names": list(report.trained_names),
        "before": before,
        "after": whole_parameters(trainer),
        "losses": logged(trainer, "loss"),
    }


def activations(folder: Path, model: str, reward_model: str) -> dict:
    return {name: activation(folder / name, model, name) for name in ACTIVATIONS}


# ---- Monitor ----


def add_monitor(trainer, num_rows: int) -> HallucinationMonitor:
    rows = image_dataset(num_rows, layouts=((1, 1), (2,), (), (1,)))
    functions = ProbeFunctions(claims=vowels, rule=half_right, reward=letters)
    monitor = HallucinationMonitor(
        trainer, rows, MonitorConfig(**PROBE), functions, clock=lambda: float(trainer.state.global_step)
    )
    trainer.add_callback(monitor)
    return monitor


def monitored(folder: Path, model: str, num_rows: int | None, **changes) -> dict:
    trainer = mpo_trainer(folder, model, gradient_checkpointing=True, **changes)
    set_trainable(trainer.model, "llm+adapter")
    if num_rows is not None:
        add_monitor(trainer, num_rows)
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "hallucination/num_responses" in entry]
    return {
        "figures": [
            {key: value for key, value in entry.items() if key.startswith("hallucination/")} for entry in entries
        ],
        "flagged": sorted(path.name for path in (folder / "hallucination").glob("flagged-*.parquet")),
        "parameters": whole_parameters(trainer),
        "losses": logged(trainer, "loss"),
    }


def monitor(folder: Path, model: str, reward_model: str) -> dict:
    """Thirteen rows do not divide evenly; of two rows, one chunk, the second process gets none."""
    return {
        name: monitored(folder / name, model, num_rows)
        for name, num_rows in {"unwatched": None, "watched": 13, "few_rows": 2}.items()
    }


# ---- Reward model ----


def reward_trainer(folder: Path, reward_model: str, rows, **changes) -> VisionRewardTrainer:
    changes = {"learning_rate": 0.05, "max_steps": 2, "max_grad_norm": 1e9} | changes
    args = VisionRewardConfig(**settings(folder, per_device_train_batch_size=GLOBAL_BATCH // PROCESSES, **changes))
    return VisionRewardTrainer(reward_model, args, train_dataset=rows, eval_dataset=rows)


def reward(folder: Path, model: str, reward_model: str) -> dict:
    rows = pairs([1, 2, 1, 2, 1, 1, 2, 1])
    # An optimizer with a state; the large epsilon keeps steps proportional to gradients.
    options = {"optim": "adamw_torch", "adam_epsilon": 1.0, "learning_rate": 0.5, "max_steps": 3}
    trainer = reward_trainer(folder, reward_model, rows, save_strategy="steps", save_steps=2, **options)
    report = trainer.activation_report
    before = whole_parameters(trainer)
    trainer.train()
    evaluated = trainer.evaluate()
    resumed = reward_trainer(folder, reward_model, rows, **options)
    resumed.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    save_whole(trainer, str(folder / "saved"))
    swapping = reward_trainer(folder, reward_model, rows, image_preference_weight=1.0)
    swapping.train()
    fresh = reward_trainer(folder, model, rows)
    keys = ("loss", "margin", "accuracy", "min_reward", "mean_reward", "max_reward", "num_tokens")
    return {
        "report": {"trained": report.trained, "frozen": report.frozen},
        "trained_names": list(report.trained_names),
        "before": before,
        "parameters": whole_parameters(trainer),
        "log": {key: logged(trainer, key) for key in keys},
        "evaluated": {f"eval_{key}": evaluated[f"eval_{key}"] for key in keys[:-1]},
        "resumed": whole_parameters(resumed),
        "swapping": whole_parameters(swapping),
        "fresh_head": whole_parameters(fresh)["value_head.summary.weight"],
    }


def reward_not_gathered(folder: Path, model: str, reward_model: str) -> dict:
    """With a DeepSpeed config that leaves saved weights in shards."""
    variable = "ACCELERATE_DEEPSPEED_CONFIG_FILE"
    given = os.environ[variable]
    config = json.loads(Path(given).read_text())
    config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] = False
    changed = folder / f"zero-{os.environ['RANK']}.json"
    changed.write_text(json.dumps(config))
    os.environ[variable] = str(changed)
    try:
        reward_trainer(folder, reward_model, pairs([1] * 4))
    except ValueError as error:
        return {"error": str(error)}
    finally:
        os.environ[variable] = given
    return {"error": None}


# ---- Vision cache ----


def spread(completion_ids, **kwargs) -> list[float]:
    return [float(index % 4) for index, _ in enumerate(completion_ids)]


def half_known_rows() -> Dataset:
    """Two rows a generation. In the second, the first process has seen its images and the second has not."""
    rows = image_dataset(4).to_list()
    rows[2]["images"] = rows[0]["images"]
    return Dataset.from_list(rows, features=image_dataset(4).features)


def grpo(folder: Path, model: str, cache: VisionCache | None) -> dict:
    args = SSBGRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=8 // PROCESSES,
        num_generations=4,
        num_iterations=2,
        beta=0.1,
        max_completion_length=6,
        max_steps=6,
        learning_rate=1e-2,
        max_grad_norm=1e9,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        shuffle_dataset=False,
        seed=3,
    )
    processor = AutoProcessor.from_pretrained(model, padding_side="left")
    trainer = SSBGRPOTrainer(
        model, reward_funcs=spread, args=args, train_dataset=half_known_rows(), processing_class=processor
    )
    set_trainable(trainer.model, "llm+adapter")
    if cache is not None:
        trainer.add_callback(VisionCacheCallback(cache, trainer, reference=trainer.ref_model))
    add_monitor(trainer, num_rows=2)
    trainer.train()
    return {
        "losses": logged(trainer, "loss"),
        "gradient_norms": logged(trainer, "grad_norm"),
        "encoded": logged(trainer, "vision_cache/encoded"),
        "tiles": logged(trainer, "vision_cache/tiles"),
        "bypassed": logged(trainer, "vision_cache/bypassed_forwards"),
        "parameters": whole_parameters(trainer),
    }


def vision_cache(folder: Path, model: str, reward_model: str) -> dict:
    return {
        "without": grpo(folder / "without", model, None),
        "with": grpo(folder / "with", model, VisionCache()),
    }


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (
        activations,
        monitor,
        reward,
        reward_not_gathered,
        vision_cache,
    )
}


if __name__ == "__main__":
    work(SCENARIOS)
