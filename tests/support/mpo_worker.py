# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""One process of the distributed MPO tests, under the launcher or alone."""

from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from safetensors.torch import load_file

from tests import conftest  # noqa: F401  (environment variables before torch)
from tests.support.launch import whole_parameters, work
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
from trl_r1v2.mpo.mpo_config import MPOConfig
from trl_r1v2.mpo.mpo_trainer import MPOTrainer
from trl_r1v2.scripts.training import save_whole


GLOBAL_BATCH = 4
IMAGES = [1, 0, 2, 1, 0, 0, 1, 3, 1, 1, 0, 1]


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


def image_trainer(folder: Path, frozen: bool, **settings) -> tuple[MPOTrainer, list[int]]:
    """A trainer on image pairs, and the list of tile counts its two towers will be called with."""
    processor = make_processor()
    policy = make_vlm(processor)
    reference = moved_copy(policy)
    if frozen:
        reference.model.vision_tower.load_state_dict(policy.model.vision_tower.state_dict())
        policy.model.vision_tower.requires_grad_(False)
    rows = image_pairs(IMAGES)
    args = config(folder, max_steps=3, **settings)
    if args.precompute_ref_log_probs:
        rows = on_disk(rows, folder / "rows")
    trainer = MPOTrainer(policy, reference, args, train_dataset=rows, processing_class=processor)
    tiles: list[int] = []
    for model in (policy, reference):
        patches = model.model.vision_tower.embeddings.patch_embeddings
        patches.register_forward_pre_hook(lambda module, args: tiles.append(len(args[0])))
    return trainer, tiles


def report(trainer: MPOTrainer, **more) -> dict:
    keys = ("loss", "mpo/reward_shift", "mpo/quality_loss", "mpo/chosen_reward", "mpo/generation_loss")
    return {
        "shift": trainer.reward_shift.state_dict(),
        "log": {key: logged(trainer, key) for key in keys},
        "parameters": whole_parameters(trainer),
        **more,
    }


def interrupted(folder: Path) -> dict:
    # An optimizer with a state, which FSDP cannot do without; the large epsilon keeps steps proportional to gradients.
    adam = {"optim": "adamw_torch", "adam_epsilon": 1.0}
    text_trainer(folder, save_strategy="steps", save_steps=2, **adam).train()
    result = folder / "result"
    resumed = text_trainer(result, **adam)
    resumed.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    save_whole(resumed, str(result))
    resumed.accelerator.wait_for_everyone()
    return report(resumed, saved=load_file(result / "model.safetensors"))


def images(folder: Path, frozen: bool = False, **settings) -> dict:
    trainer, tiles = image_trainer(folder, frozen, **settings)
    trainer.train()
    return report(trainer, tiles=tiles)


def shared_images(folder: Path) -> dict:
    return images(folder, frozen=True, share_prompts=True)


def precomputed(folder: Path) -> dict:
    return images(folder, frozen=True, precompute_ref_log_probs=True)


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


def uneven_last_batch(folder: Path) -> dict:
    try:
        text_trainer(folder, accelerator_config={"even_batches": False})
    except ValueError as error:
        return {"error": str(error)}
    return {"error": None}


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (
        interrupted,
        images,
        shared_images,
        precomputed,
        unequal,
        uneven_last_batch,
        precomputed_in_memory,
    )
}


if __name__ == "__main__":
    work(SCENARIOS)
