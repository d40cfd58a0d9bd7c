# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""What the training commands (`align`, `reward`, `mpo`, `grpo`) share: checks before a model is loaded, the run."""

from dataclasses import dataclass

import torch
from accelerate.utils import DistributedType
from transformers.hf_argparser import HfArg
from trl import (
    ScriptArguments,
    get_dataset,
    get_peft_config,
    get_quantization_config,
)

from ..checks.prompt_limits import PromptLimits
from ..checks.rows import check_dataset, parse_check_images
from ..patches.labelled_positions import labelled_positions_only
from ..vlm.activation import set_trainable
from .loading import check_model_path, load_splits, resolve_checkpoint, take_split
from .recipe import RecipeError, refusals_of


@dataclass
class TrainingScriptArguments(ScriptArguments):
    """Arguments of [`~trl.ScriptArguments`], and the check of the images."""

    check_images: str = HfArg(default="all", help="Rows whose images are decoded first: 'all', 'none' or a number.")

    def __post_init__(self):
        parse_check_images(self.check_images)


def prepare(script_args, training_args, model_args, dataset_args, columns, limits=True, completion_length=0) -> dict:
    """
    Check what can be checked without the model's weights, and gather what the trainer's constructor takes. The
    datasets must have `columns`; `limits` says whether texts are held against what the model allows, where
    `completion_length` tokens have to fit behind a prompt. Fills in `resume_from_checkpoint` and `model_init_kwargs`.
    """
    path, options = model_args.model_name_or_path, {"trust_remote_code": training_args.trust_remote_code}
    options["revision"] = model_args.model_revision
    check_model_path(path)
    checkpoint = resolve_checkpoint(training_args.resume_from_checkpoint, training_args.output_dir)
    training_args.resume_from_checkpoint = checkpoint
    if script_args.dataset_streaming and training_args.max_steps <= 0:
        raise RecipeError("`dataset_streaming: true` needs `max_steps`, since nobody knows how many rows will come.")
    training_args.report_to = [name for name in training_args.report_to if name is not None]  # `report_to: ~`
    found = PromptLimits.from_pretrained(path, completion_length=completion_length or 0, **options) if limits else None
    train_dataset, eval_dataset = load_datasets(script_args, training_args, dataset_args, columns, found)
    options |= {"attn_implementation": model_args.attn_implementation, "dtype": model_args.dtype}
    training_args.model_init_kwargs = options | (training_args.model_init_kwargs or {})
    of_model = {"quantization_config": get_quantization_config(model_args), "peft_config": get_peft_config(model_args)}
    data = {"train_dataset": train_dataset, "eval_dataset": eval_dataset}
    return {"model": path, "args": training_args, **data, **of_model}


def load_datasets(script_args, training_args, dataset_args, columns, limits) -> list:
    """The training and the evaluation data (`None` without an evaluation), checked."""
    if bool(dataset_args.datasets) == bool(script_args.dataset_name):
        raise RecipeError("set either `dataset_name` or `datasets`, not both and not neither.")
    if dataset_args.datasets:
        source, splits = "mixture", get_dataset(dataset_args)
    else:
        source = script_args.dataset_name
        splits = load_splits(source, script_args.dataset_config, streaming=script_args.dataset_streaming)
    taken = [None, None]
    for index, entry in enumerate(("dataset_train_split", "dataset_test_split")):
        if index == 1 and training_args.eval_strategy == "no":
            break
        split = vars(script_args)[entry]
        taken[index] = take_split(splits, split, entry=entry, source=source)
        check_dataset(
            taken[index],
            name=f"{source} [{split}]",
            columns=columns,
            check_images=script_args.check_images,
            shard=(training_args.process_index, training_args.world_size),
            progress=training_args.process_index == 0 and not training_args.disable_tqdm,
            limits=limits,
        )
    return taken


def choose_components(trainer, trainable: str | None) -> None:
    """Make the chosen components of a trainer's model trainable and print the table; without a choice, nothing."""
    if trainable is not None:
        with refusals_of(f"trainable: {trainable}"):
            trainer.accelerator.print(set_trainable(trainer.model, trainable))


def precision_warning(trainer) -> str | None:
    """
    What to say when weights train in 16 bits and nothing keeps a float32 copy of them. DeepSpeed keeps one (unless
    `bf16_master_weights_and_grads` is set), and so does FSDP under accelerate with mixed precision, which makes the
    trained weights float32 when it shards them. Autocast (`bf16: true`) alone does not.
    """
    accelerator = trainer.accelerator
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        settings = accelerator.state.deepspeed_plugin.deepspeed_config.get("bf16", {})
        if not settings.get("bf16_master_weights_and_grads", False):
            return None
    if accelerator.distributed_type == DistributedType.FSDP and accelerator.mixed_precision != "no":
        return None
    trained = [p for p in trainer.model.parameters() if p.requires_grad and p.dtype in (torch.bfloat16, torch.float16)]
    if not trained:
        return None
    dtype = trained[0].dtype
    return (
        f"Warning: {len(trained):,} weight tensors train in {str(dtype).removeprefix('torch.')} without a float32 "
        f"copy: a step below about {torch.finfo(dtype).eps / 4:.2%} of a weight is rounded away, which at small "
        "learning rates is nearly every step. Set `dtype: float32` (with `bf16: true` the forward stays in bfloat16), "
        "or train with DeepSpeed or FSDP, which keep a float32 copy."
    )


def save_whole(trainer, folder: str) -> None:
    """Save the model, where checkpoints are in shards, too, of which `save_model` writes nothing."""
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model(folder)


def train_and_save(trainer, dataset_name: str | None, result: str = "Model, processor") -> None:
    """
    Train from `args.resume_from_checkpoint`, if it is set, and save what was trained with the log. `dataset_name` is
    for the card of a model that is pushed to the Hub; the last message calls what is saved `result`.
    """
    from ..mpo.reward_shift import MPOStateError
    from ..ssb_grpo.checkpoint import BufferStateError

    say, checkpoint = trainer.accelerator.print, trainer.args.resume_from_checkpoint
    if warning := precision_warning(trainer):
        say(warning)
    if checkpoint:
        say(f"Resuming from {checkpoint}.")
    try:
        with labelled_positions_only():
            trainer.train(resume_from_checkpoint=checkpoint)
    except (BufferStateError, MPOStateError) as error:
        raise RecipeError(f"cannot resume: {error}") from error
    if trainer.state.global_step == 0:
        raise RecipeError(
            f"no step was trained: the {len(trainer.train_dataset):,} rows of `dataset_name` are fewer than one batch "
            "takes. Add rows, or lower `per_device_train_batch_size` or the number of processes."
        )
    trainer.save_state()
    save_whole(trainer, trainer.args.output_dir)
    say(f"{result} and trainer_state.json are in {trainer.args.output_dir}.")
    if trainer.args.push_to_hub:
        trainer.push_to_hub(dataset_name=dataset_name)
    trainer.accelerator.end_training()  # what `Trainer.end` does, which older transformers do not have
