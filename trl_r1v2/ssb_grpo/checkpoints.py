# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The buffer's part of a trainer's checkpoints: saved with them, resumed with them, and which of them are whole.

How a buffer file looks is `state.py`.
"""

import json
from pathlib import Path
from typing import Any

import torch
from accelerate.logging import get_logger
from accelerate.utils import broadcast_object_list
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from .sample_buffer import Sample
from .state import (
    SSB_FOLDER,
    BufferStateError,
    Shard,
    check_shards,
    load_resharded,
    load_shard,
    remove_shards_of_other_world_sizes,
    run_fingerprint,
    save_shard,
)


logger = get_logger(__name__)


class BufferCheckpointMixin:
    """Extends a GRPO trainer that has a `buffer` and its `images`; does nothing while `buffer` is `None`."""

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        """As [`~transformers.Trainer.train`]; `True` resumes from the last checkpoint that is whole."""
        if resume_from_checkpoint is True and self.buffer is not None:
            resume_from_checkpoint = self._last_whole_checkpoint()
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _save_checkpoint(self, model, trial):
        # Before TRL's own save: `trainer_state.json`, which it writes last, then vouches for the buffer too.
        if self.buffer is not None and not self.args.save_only_model:
            checkpoint = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            state = self.buffer.state_dict() | {"trainer": self._trainer_tensors()}
            pixels = {} if self.images.dataset is not None else self.images.store.items()
            if self.args.should_save:  # a folder of the same step that an earlier run left behind
                (checkpoint / "trainer_state.json").unlink(missing_ok=True)
                remove_shards_of_other_world_sizes(checkpoint / SSB_FOLDER, self.accelerator.num_processes)
            save_shard(self._shard(checkpoint / SSB_FOLDER), state, self._fingerprint(), pixels)
            self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.buffer is None or checkpoint is None:
            return
        folder = Path(checkpoint) / SSB_FOLDER
        if self.args.ssb_resume != "exact":  # what `ssb_prefill` brought is not what this run goes on with
            self.buffer.clear()
            self._take_over(*(self._resharded(folder) if self.args.ssb_resume == "reshard" else ([], {})))
            return
        state, pixels = load_shard(self._shard(folder), self._fingerprint())
        self._load_trainer_tensors(state.pop("trainer"))
        self.buffer.load_state_dict(state)
        self._take_over([], pixels)

    def _trainer_tensors(self) -> dict[str, torch.Tensor]:
        tensors = {"prompt_generator": self._prompt_generator.get_state()}
        if self._prompt_sampler is not None:
            is_epoch_boundary = float(self.state.epoch).is_integer()
            sampler_state = self._prompt_sampler.state_dict(is_epoch_boundary)
            tensors |= {f"sampler.{name}": tensor for name, tensor in sampler_state.items()}
        return tensors

    def _load_trainer_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        self._prompt_generator.set_state(tensors["prompt_generator"])
        if self._prompt_sampler is not None:
            prefix = "sampler."
            sampler_state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            self._prompt_sampler.load_state_dict(sampler_state)

    def _prefill(self, folder: Path) -> None:
        try:
            samples, pixels = self._resharded(folder)
        except BufferStateError as error:
            raise BufferStateError(
                f"`ssb_prefill` cannot be used: {error} (`ssb_resume` has no part in this. Name the `{SSB_FOLDER}` folder "
                "of a checkpoint of such a run or what `filter-prompts` wrote, or leave `ssb_prefill` unset.)"
            ) from error
        for sample in samples:
            sample.step = sample.uses = 0  # ages and uses count from the start of this run
        self._take_over(samples, pixels)

    def _resharded(self, folder: Path) -> tuple[list[Sample], dict[str, dict[str, torch.Tensor]]]:
        rank, world_size = self.accelerator.process_index, self.accelerator.num_processes
        return load_resharded(folder, rank, world_size, self._fingerprint())

    def _take_over(self, samples: list[Sample], pixels: dict[str, dict[str, torch.Tensor]]) -> None:
        for key, fields in pixels.items():
            self.images.store.put(key, fields)
        self.buffer.extend(samples)
        self._drop_unreferenced_images()

    def _fingerprint(self) -> dict[str, Any]:
        return run_fingerprint(
            vocab_size=len(self._tokenizer),
            dataset=self.images.dataset,
            has_reference=self.beta != 0.0,
            has_sampling_ratio=self.use_vllm and self.vllm_importance_sampling_correction,
        )

    def _shard(self, folder: Path) -> Shard:
        return Shard(folder, self.accelerator.process_index, self.accelerator.num_processes)

    def _last_whole_checkpoint(self) -> str:
        """A run killed while it saved leaves a partial folder behind, which must not be resumed from."""
        found = [None]
        if self.accelerator.is_main_process:
            folders = Path(self.args.output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
            steps = {folder: folder.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-") for folder in folders}
            by_step = sorted((int(step), folder) for folder, step in steps.items() if step.isdecimal())
            for _, folder in reversed(by_step):
                reason = self._reason_not_whole(folder)
                if reason is None:
                    found = [str(folder)]
                    break
                logger.warning(f"Not resuming from {folder}: {reason}")
        broadcast_object_list(found)
        if found[0] is None:
            raise ValueError(
                f"No whole checkpoint in {self.args.output_dir} to resume from; what each one lacks is logged above. "
                "Checkpoints without a buffer, such as stock TRL's, are resumed with `ssb_resume='empty'`."
            )
        return found[0]

    def _reason_not_whole(self, checkpoint: Path) -> str | None:
        try:
            json.loads((checkpoint / "trainer_state.json").read_bytes())
            if self.args.ssb_resume != "empty":
                check_shards(checkpoint / SSB_FOLDER)
        except (OSError, ValueError) as error:
            return str(error)
        return None
