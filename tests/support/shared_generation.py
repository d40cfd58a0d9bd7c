# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Completions that a policy samples in training, with and without shared prompts. As a worker: `shared_generation FOLDER
MODELS`, with the folder of [`sharded_runs.build_models`].
"""

from pathlib import Path

from datasets import Dataset
from peft import LoraConfig
from transformers import AutoProcessor, set_seed

from tests.support.launch import work
from tests.support.mpo_tiny import training_args
from tests.support.sharded_runs import GROUP, LORA, PROCESSES, image
from trl_r1v2 import SSBGRPOConfig, SSBGRPOTrainer


class Recording(SSBGRPOTrainer):
    """Keeps the completions, and how many rows pass the language model's first layer in each forward of generation."""

    def _generate_single_turn(self, *args, **kwargs):
        self.num_rows = []
        layer = self.accelerator.unwrap_model(self.model).get_decoder().layers[0]
        hook = layer.register_forward_pre_hook(lambda layer, inputs: self.num_rows.append(len(inputs[0])))
        self.completions, logps = super()._generate_single_turn(*args, **kwargs)
        hook.remove()
        return self.completions, logps


def sample(folder: Path, models: str, name: str, share_prompts: bool) -> tuple[list[list[int]], list[int]]:
    rows = [
        {
            "prompt": [{"role": "user", "content": "n" * (1 + row % 3) + str(row)}],
            "images": [image(10 * row + i, 1 + i) for i in range(num_images)],
        }
        for row, num_images in enumerate([1, 2, 1, 1])
    ]
    args = training_args(
        folder / str(share_prompts),
        per_device_train_batch_size=4 * GROUP // PROCESSES,
        num_generations=GROUP,
        max_completion_length=6,
        max_steps=1,
        shuffle_dataset=False,
        share_prompts=share_prompts,
        max_grad_norm=1e9,
    )
    set_seed(3)
    model = str(Path(models) / ("qwen" if name == "qwen" else "internvl"))
    trainer = Recording(
        model,
        reward_funcs=lambda completions, **kwargs: [float(index % GROUP) for index in range(len(completions))],
        args=SSBGRPOConfig(**args),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoProcessor.from_pretrained(model, padding_side="left"),
        peft_config=LoraConfig(**LORA) if name == "lora" else None,
    )
    trainer.train()
    return trainer.completions, trainer.num_rows


SCENARIOS = {
    name: lambda folder, models, name=name: [sample(folder, models, name, shared) for shared in (False, True)]
    for name in ("internvl", "qwen", "lora")
}


if __name__ == "__main__":
    work(SCENARIOS)
