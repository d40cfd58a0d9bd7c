# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
GRPO with the Selective Sample Buffer.

    trl-r1v2 grpo --config recipes/digits/grpo.yaml

Takes every key of `trl grpo`, the buffer's `ssb_*` keys, the `vision_cache*` keys, the `monitor_*` and `controller_*`
keys of the hallucination monitor, and the keys below. The dataset is checked before the first step. Writes model,
processor and `trainer_state.json` (the log) to `output_dir`.
"""

from dataclasses import dataclass

from trl.scripts.grpo import GRPOScriptArguments

from .training import (
    ImageCheckArguments,
    choose_components,
    load_datasets,
    model_init_kwargs,
    prompt_limits,
    train_and_save,
)


@dataclass
class SSBGRPOScriptArguments(ImageCheckArguments, GRPOScriptArguments):
    """
    Arguments of [`~trl.scripts.grpo.GRPOScriptArguments`], and the check of the images.
    """


def main(
    script_args, training_args, model_args, dataset_args, trainable_args, cache_args, monitor_args, controller_args
):
    from trl import get_peft_config, get_quantization_config

    from ..ssb_grpo.checkpoint import BufferStateError
    from ..ssb_grpo.ssb_grpo_trainer import SSBGRPOTrainer
    from ..vlm.activation import refuse_frozen_adapter
    from ..vlm.vision_cache_callback import add_vision_cache
    from .loading import load_reward_funcs, resolve_checkpoint
    from .monitor import add_monitor, load_monitor_parts
    from .recipe import RecipeError

    reward_funcs = load_reward_funcs(script_args.reward_funcs, script_args.reward_model_name_or_path)
    checkpoint = resolve_checkpoint(training_args.resume_from_checkpoint, training_args.output_dir)
    limits = prompt_limits(model_args, training_args, completion_length=training_args.max_completion_length)
    train_dataset, eval_dataset = load_datasets(script_args, training_args, dataset_args, reward_funcs, limits)
    monitor_parts = load_monitor_parts(monitor_args, controller_args, reward_funcs)
    training_args.model_init_kwargs = model_init_kwargs(model_args, training_args)
    trainer = SSBGRPOTrainer(
        model=model_args.model_name_or_path,
        reward_funcs=reward_funcs,
        args=training_args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        quantization_config=get_quantization_config(model_args),
        peft_config=get_peft_config(model_args),
    )
    allowed = trainable_args.allow_frozen_adapter
    choose_components(trainer, trainable_args.trainable, rl=True, allow_frozen_adapter=allowed)
    if trainable_args.trainable is None and not allowed:
        try:
            refuse_frozen_adapter(trainer.model)
        except ValueError as error:
            raise RecipeError(str(error)) from error
    add_vision_cache(trainer, cache_args, reference=trainer.ref_model)
    add_monitor(trainer, monitor_parts)
    try:
        train_and_save(trainer, checkpoint, script_args.dataset_name)
    except BufferStateError as error:
        raise RecipeError(f"cannot resume: {error}") from error


def make_parser(prog: str | None = None):
    from trl import DatasetMixtureConfig, ModelConfig

    from ..hallucination.monitor_config import ControllerConfig, MonitorConfig
    from ..ssb_grpo.ssb_grpo_config import SSBGRPOConfig
    from ..vlm.activation import TrainableArguments
    from ..vlm.vision_cache_callback import VisionCacheArguments
    from .parser import RecipeParser

    own = (TrainableArguments, VisionCacheArguments, MonitorConfig, ControllerConfig)
    return RecipeParser((SSBGRPOScriptArguments, SSBGRPOConfig, ModelConfig, DatasetMixtureConfig, *own), prog=prog)


if __name__ == "__main__":
    raise SystemExit(make_parser().run(main))
