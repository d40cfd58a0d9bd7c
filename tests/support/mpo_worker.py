# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
One process of the distributed MPO tests: `mpo_worker.py FOLDER SCENARIO...`, under a launcher or alone.

Every scenario writes what it found to `FOLDER/SCENARIO/rank-N.json`; the test that started it compares.
"""

import json
import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from datasets import Dataset
from torch.distributed.tensor import DTensor

from tests.support.mpo_tiny import (
    image_pairs,
    logged,
    make_processor,
    make_text_model,
    make_tokenizer,
    make_vlm,
    moved_copy,
    text_pairs,
    training_args,
)
from tests.support.worker_exit import leave
from trl_r1v2.mpo.mpo_config import MPOConfig
from trl_r1v2.mpo.mpo_trainer import MPOTrainer


GLOBAL_BATCH = 4


def allow_fsdp_on_cpu() -> None:
    """accelerate reads a config for FSDP and, on CPUs, runs DDP all the same: make it do what the config says."""
    initialize = AcceleratorState.__init__

    def with_fsdp(self, *args, **kwargs):
        initialize(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU and self.__dict__.get("fsdp_plugin") is None:
            self.fsdp_plugin = kwargs.get("fsdp_plugin")
        if self.__dict__.get("fsdp_plugin") is not None:
            self.distributed_type = DistributedType.FSDP

    AcceleratorState.__init__ = with_fsdp


def config(folder: Path, **settings) -> MPOConfig:
    """The same global batch for any number of processes; DeepSpeed takes a norm of 0 for 1, so a large one."""
    args = MPOConfig(**training_args(folder, beta=0.5, max_grad_norm=1e9, **settings))
    args.per_device_train_batch_size = GLOBAL_BATCH // args.world_size
    return args


def on_disk(rows: Dataset, folder: Path) -> Dataset:
    with PartialState().main_process_first():
        if not folder.exists():
            rows.save_to_disk(str(folder))
    return Dataset.load_from_disk(str(folder))


def text_trainer(folder: Path, **settings) -> MPOTrainer:
    policy = make_text_model(make_tokenizer())
    rows = text_pairs(24)
    args = config(folder, max_steps=3, gradient_accumulation_steps=2, **settings)
    return MPOTrainer(policy, moved_copy(policy), args, train_dataset=rows, processing_class=make_tokenizer())


def image_trainer(folder: Path, frozen: bool, num_images: list[int], **settings) -> tuple[MPOTrainer, list[int]]:
    """A trainer on image pairs, and the list of tile counts its two towers will be called with."""
    processor = make_processor()
    policy = make_vlm(processor)
    reference = moved_copy(policy)
    if frozen:
        reference.model.vision_tower.load_state_dict(policy.model.vision_tower.state_dict())
        policy.model.vision_tower.requires_grad_(False)
    rows = image_pairs(num_images)
    args = config(folder, max_steps=3, **settings)
    if args.precompute_ref_log_probs:
        rows = on_disk(rows, folder / "rows")
    trainer = MPOTrainer(policy, reference, args, train_dataset=rows, processing_class=processor)
    tiles: list[int] = []
    for model in (policy, reference):
        patches = model.model.vision_tower.embeddings.patch_embeddings
        patches.register_forward_pre_hook(lambda module, args: tiles.append(len(args[0])))
    return trainer, tiles


def full_state(trainer: MPOTrainer) -> dict[str, list]:
    """All parameters, gathered from whatever shards them."""
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) or {}
    state = {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in state.items()}
    return {name: value.double().flatten().tolist() for name, value in state.items()}


def report(trainer: MPOTrainer, **more) -> dict:
    keys = ("loss", "mpo/reward_shift", "mpo/quality_loss", "mpo/chosen_reward", "mpo/generation_loss")
    return {
        "world_size": trainer.accelerator.num_processes,
        "distributed_type": str(trainer.accelerator.distributed_type.value),
        "shift": trainer.reward_shift.state_dict(),
        "log": {key: logged(trainer, key) for key in keys},
        "parameters": full_state(trainer),
        **more,
    }


def text(folder: Path) -> dict:
    trainer = text_trainer(folder)
    trainer.train()
    return report(trainer)


def interrupted(folder: Path) -> dict:
    # An optimizer with a state, which FSDP cannot do without; the large epsilon keeps steps proportional to gradients.
    adam = {"optim": "adamw_torch", "adam_epsilon": 1.0}
    text_trainer(folder, save_strategy="steps", save_steps=2, **adam).train()
    resumed = text_trainer(folder, **adam)
    resumed.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    return report(resumed)


def images(folder: Path, frozen: bool = False, num_images: list[int] | None = None, **settings) -> dict:
    trainer, tiles = image_trainer(folder, frozen, num_images or [1, 0, 2, 1, 0, 0, 1, 3, 1, 1, 0, 1], **settings)
    trainer.train()
    return report(trainer, tiles=tiles)


def frozen_images(folder: Path) -> dict:
    return images(folder, frozen=True)


def sharded_images(folder: Path) -> dict:
    """Sharded parameters are gathered by all processes at once, so every row has an image."""
    return images(folder, frozen=False, num_images=[1, 2, 1, 1, 3, 1, 1, 2])


def sharded_frozen_images(folder: Path) -> dict:
    return images(folder, frozen=True, num_images=[1, 2, 1, 1, 3, 1, 1, 2])


def precomputed(folder: Path) -> dict:
    rows = [1, 2, 1, 1, 3, 1, 1, 2]
    return images(folder, frozen=True, num_images=rows, precompute_ref_log_probs=True)


def unequal(folder: Path) -> dict:
    """Two rounds of rewards, three pairs on the first process and one on every other."""
    trainer = text_trainer(folder)
    num_pairs = 3 if trainer.accelerator.process_index == 0 else 1
    values = torch.arange(num_pairs) + 10.0 * trainer.accelerator.process_index
    shifts = []
    for sign in (1, -2):
        trainer._update_reward_shift(sign * values, sign * (values + 0.5))
        shifts.append(trainer.reward_shift.value)
    trainer.model.train()
    trainer._log_losses({"a": values.mean(), "b": -values.mean()}, num_pairs)
    metrics = {name: value[0] for name, value in trainer._metrics["train"].items()}
    return {"shifts": shifts, "metrics": metrics, "num_rewards": trainer.reward_shift.num_rewards}


def precomputed_in_memory(folder: Path) -> dict:
    try:
        text_trainer(folder, precompute_ref_log_probs=True)
    except ValueError as error:
        return {"error": str(error)}
    return {"error": None}


def sharded_without_images(folder: Path) -> dict:
    trainer, _ = image_trainer(folder, frozen=False, num_images=[0] * 8)
    try:
        trainer.train()
    except ValueError as error:
        return {"error": str(error)}
    return {"error": None}


def uneven_last_batch(folder: Path) -> dict:
    try:
        text_trainer(folder, accelerator_config={"even_batches": False})
    except ValueError as error:
        return {"error": str(error)}
    return {"error": None}


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (
        text,
        interrupted,
        images,
        frozen_images,
        sharded_images,
        sharded_frozen_images,
        precomputed,
        unequal,
        uneven_last_batch,
        precomputed_in_memory,
        sharded_without_images,
    )
}


if __name__ == "__main__":
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        allow_fsdp_on_cpu()
    rank = int(os.environ.get("RANK", "0"))
    for name in sys.argv[2:]:
        folder = Path(sys.argv[1]) / name
        folder.mkdir(parents=True, exist_ok=True)
        found = SCENARIOS[name](folder)
        (folder / f"rank-{rank}.json").write_text(json.dumps(found))
    leave()
