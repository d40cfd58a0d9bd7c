# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The hallucination monitor: probes a model while a TRL trainer trains it, logs what it finds, and acts on it if told to.

Scope: when to probe, at what cost, and what follows (log, table, stop, best checkpoint, threshold). What is measured
is `probe.py`, how a threshold moves `threshold.py`. R1V2 asks for such a watch without describing one: all of it is
ours. FSDP is not covered.
"""

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.logging import get_logger
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from transformers import Trainer, TrainerCallback
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl.models.utils import unwrap_model_for_generation

from trl_r1v2.sampling.prompts import images_of, read_example

from .monitor_config import MonitorConfig
from .probe import Probe, ProbeFunctions, ProbeRecord
from .threshold import Move, RewardThresholdController
from .threshold_files import write_atomically, write_threshold_file


logger = get_logger(__name__)

STATE_KEY, STATE_VERSION = "hallucination_monitor", 1
FOLDER, PREFIX = "hallucination", "hallucination/"
THRESHOLD_FILE, MOVES_FILE, BEST_FILE = "threshold.json", "moves.jsonl", "best_checkpoint.json"


class HallucinationMonitor(TrainerCallback):
    """
    Callback that measures signals of hallucination on a fixed probe set every few optimizer steps.

    Works with any TRL trainer whose processes each hold (or, under ZeRO-3, can gather) the whole model: GRPO, DPO, MPO,
    SFT. Rows are shared among processes, and the figures do not depend on how many there are. A probe leaves no trace
    in training: random states, modules' modes and the trainer's own averages are as before, so that losses are equal to
    the last bit with and without it, unless it is told to stop the run or to move a threshold.

    Figures get an entry of their own in the log, at the step they were measured, under `hallucination/`. State (history,
    clocks, the controller's) travels in `trainer_state.json` of every checkpoint and is taken from there on resume.

    Args:
        trainer ([`~transformers.Trainer`]):
            Trainer that the callback is added to.
        dataset ([`~datasets.Dataset`]):
            Probe set, as for [`~trl_r1v2.hallucination.probe.Probe`].
        config ([`MonitorConfig`]):
            Settings; `monitor_dataset` and the dotted paths are not read here.
        functions ([`~trl_r1v2.hallucination.probe.ProbeFunctions`], *optional*):
            What the dotted paths name.
        controller ([`RewardThresholdController`], *optional*):
            Moves a threshold with the watched figure.
        set_threshold (`Callable[[float], None]`, *optional*):
            Gets the controller's threshold at the start and after every move, for example
            `lambda value: hybrid_reward.set_min_score("reward_model", value)`.
        chat_template_kwargs (`dict[str, Any]`, *optional*):
            Passed to the chat template.
        clock (`Callable[[], float]`, *optional*):
            Seconds; `time.perf_counter` by default.

    Raises:
        ValueError: The probe set or the settings cannot be used.

    Example:
    ```python
    trainer = GRPOTrainer(...)
    config = MonitorConfig(monitor_every=20, monitor_max_rows=64)
    trainer.add_callback(HallucinationMonitor(trainer, load_dataset("my/probes", split="validation"), config))
    trainer.train()
    ```
    """

    def __init__(
        self,
        trainer: Trainer,
        dataset: Dataset,
        config: MonitorConfig,
        functions: ProbeFunctions | None = None,
        controller: RewardThresholdController | None = None,
        set_threshold: Callable[[float], None] | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        if controller is not None:
            config.check_watched("the threshold controller has to")
        elif set_threshold is not None:
            raise ValueError("`set_threshold` is given without a `controller` that could call it.")
        self.trainer = trainer
        self.config = config
        self.probe = Probe(dataset, config, functions, chat_template_kwargs)
        self.controller = controller
        self.set_threshold = set_threshold
        self._clock = clock
        self._forget()

    def _forget(self):
        self.history: list[dict[str, Any]] = []
        self.num_postponed = 0
        self.saved_steps: list[int] = []
        self._last_cost: float | None = None
        self._probe_seconds = self._train_seconds = self._train_seconds_since = 0.0
        self._started = self._clock()

    @property
    def folder(self) -> Path:
        """Where tables, images and the threshold are written."""
        return Path(self.trainer.args.output_dir) / FOLDER

    # ---- The trainer's events ----

    def on_train_begin(self, args, state, control, **kwargs):
        if self.trainer.is_fsdp_enabled or self.trainer.is_distributed_loading_by_transformers:
            raise ValueError(
                "the hallucination monitor needs whole weights in every process, which FSDP does not keep: use DDP or "
                "DeepSpeed, or measure checkpoints with `trl-r1v2 evaluate`."
            )
        self._forget()
        if STATE_KEY in state.stateful_callbacks:
            self.load_state_dict(state.stateful_callbacks[STATE_KEY])
            self.saved_steps.append(state.global_step)  # the checkpoint at hand, which was written after its state
        elif state.global_step > 0:
            logger.warning("The checkpoint holds no state of the hallucination monitor: its history starts here.")
        self._apply_threshold()
        if self.config.monitor_at_start and not self.history and state.global_step == 0:
            self._measure(state, control)
        self._publish(state)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.config.monitor_every == 0:
            if self._affordable():
                self._measure(state, control)
            else:
                self._postpone(state, control)
        self._publish(state)

    def on_save(self, args, state, control, **kwargs):
        self.saved_steps.append(state.global_step)
        if not (self.config.monitor_mark_best and self.trainer.accelerator.is_main_process):
            return
        # Only measured steps count, and only checkpoints of this run that rotation has left.
        left = {step for step in self.saved_steps if self._checkpoint(step).is_dir()}
        measured = [
            (entry["figures"][self.config.monitor_watch], entry["step"])
            for entry in self.history
            if self.config.monitor_watch in entry["figures"] and entry["step"] in left
        ]
        if measured:
            value, step = min(measured)
            content = {
                "checkpoint": str(self._checkpoint(step)),
                "step": step,
                "figure": PREFIX + self.config.monitor_watch,
                "value": value,
                "num_candidates": len(measured),
            }
            write_atomically(self.folder / BEST_FILE, json.dumps(content, indent=2) + "\n")

    def _checkpoint(self, step: int) -> Path:
        return Path(self.trainer.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{step}"

    # ---- Cost ----

    def _lap(self) -> None:
        """Count the time since the last call as training."""
        now = self._clock()
        self._train_seconds += now - self._started
        self._train_seconds_since += now - self._started
        self._started = now

    def _affordable(self) -> bool:
        """Whether the training since the last probe has paid for it; the main process decides for all."""
        self._lap()
        share = self.config.monitor_max_cost_share
        if share is None:
            return True
        decision = [self._last_cost is None or self._last_cost <= share * self._train_seconds_since]
        broadcast_object_list(decision)
        return decision[0]

    def _postpone(self, state, control) -> None:
        self.num_postponed += 1
        logger.info(
            f"Step {state.global_step}: probe put off. The last one took {self._last_cost:.2f} s, more than "
            f"{self.config.monitor_max_cost_share:g} of the {self._train_seconds_since:.2f} s of training since."
        )
        self._log({"postponed": float(self.num_postponed)}, control)

    # ---- Probes ----

    def _measure(self, state, control) -> None:
        self._lap()
        accelerator = self.trainer.accelerator
        with self._whole_model() as model, _undisturbed(model):
            chunks = self.probe.chunks()[accelerator.process_index :: accelerator.num_processes]
            records = self.probe.measure(model, self.trainer.processing_class, chunks)
        records = sorted(gather_object(records), key=lambda record: (record.row, record.sample))
        figures = self.probe.figures(records)
        self._write_flagged(records, state.global_step)
        now = self._clock()
        self._last_cost, self._started = now - self._started, now
        self._probe_seconds += self._last_cost
        self._train_seconds_since = 0.0
        self.history.append({"step": state.global_step, "figures": figures, "seconds": self._last_cost})
        costs = {"seconds": self._last_cost}
        if state.global_step > 0:
            costs["cost_share"] = self._probe_seconds / self._train_seconds
        self._log({**figures, **costs, **self._control(state)}, control)
        self._maybe_stop(state, control)

    @contextmanager
    def _whole_model(self) -> Iterator[torch.nn.Module]:
        """The model without its distributed wrapper, its weights gathered where they are sharded."""
        trainer = self.trainer
        if not is_deepspeed_zero3_enabled():
            yield trainer.accelerator.unwrap_model(trainer.model_wrapped)
            return
        engine = trainer.model_wrapped
        options = {"gradient_checkpointing_kwargs": trainer.args.gradient_checkpointing_kwargs}
        with unwrap_model_for_generation(engine, trainer.accelerator, **options) as model, _no_meetings(engine):
            yield model

    def _log(self, figures: dict[str, float], control) -> None:
        # Not the trainer's own `log`: TRL's would end the averages that it keeps for the next regular entry, which any
        # log calls off, too.
        should_log = control.should_log
        Trainer.log(self.trainer, {PREFIX + name: value for name, value in figures.items()})
        control.should_log = should_log

    def _maybe_stop(self, state, control) -> None:
        limit, patience = self.config.monitor_stop_above, self.config.monitor_stop_patience
        if limit is None:
            return
        values = [entry["figures"].get(self.config.monitor_watch) for entry in self.history[-patience:]]
        if len(values) == patience and all(value is not None and value > limit for value in values):
            logger.warning(
                f"Step {state.global_step}: training stops, {self.config.monitor_watch} is {values[-1]:.3f} and was above "
                f"`monitor_stop_above` ({limit:g}) in the last {patience} probes."
            )
            control.should_training_stop = True

    def _write_flagged(self, records: list[ProbeRecord], step: int) -> None:
        flagged = [record for record in records if record.flags][: self.config.monitor_max_flagged]
        if not (flagged and self.trainer.accelerator.is_main_process):
            return
        lines = []
        for record in flagged:
            images = self._write_images(record.row) if record.has_image else []
            lines.append(
                json.dumps({"step": step, **self.probe.describe(record), "images": images}, ensure_ascii=False)
            )
        write_atomically(self.folder / f"flagged-{step:08d}.jsonl", "\n".join(lines) + "\n")

    def _write_images(self, row: int) -> list[str]:
        """Write a row's images unless they are there, and return their paths in the monitor's folder."""
        names = []
        for index, image in enumerate(images_of(read_example(self.probe.dataset, row))):
            path = self.folder / "images" / f"{row:05d}-{index}.png"
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
            names.append(str(path.relative_to(self.folder)))
        return names

    # ---- Threshold ----

    def _control(self, state) -> dict[str, float]:
        """Let the controller see the watched figure; what to log of it."""
        if self.controller is None:
            return {}
        value, move = self.history[-1]["figures"].get(self.config.monitor_watch), None
        if value is None:
            logger.warning(f"Step {state.global_step}: {self.config.monitor_watch} could not be measured.")
        else:
            move = self.controller.observe(value, state.global_step)
        if move is not None:
            logger.info(
                f"Step {state.global_step}: reward threshold {move.before:g} → {move.after:g}, because {move.cause}."
            )
            self._apply_threshold(move)
        change = 0.0 if move is None else move.after - move.before
        return {"threshold": self.controller.threshold, "threshold_change": change}

    def _apply_threshold(self, move: Move | None = None) -> None:
        if self.controller is None:
            return
        if self.set_threshold is not None:
            self.set_threshold(self.controller.threshold)
        if self.trainer.accelerator.is_main_process:
            state = self.controller.state_dict()
            # With a gate, the threshold is in units of one component, not of the sum that `pairs` cuts.
            details = {"gated": self.set_threshold is not None, "controller": state}
            details["reason"] = "no move yet" if move is None else move.cause
            write_threshold_file(
                self.folder / THRESHOLD_FILE, self.controller.threshold, source="controller", **details
            )
            lines = [json.dumps(move) for move in state["moves"]]
            write_atomically(self.folder / MOVES_FILE, "".join(f"{line}\n" for line in lines))

    # ---- State ----

    def _publish(self, state) -> None:
        # Under a key of its own: what transformers restores from a callback's class name, it rebuilds from JSON alone,
        # and only if `restore_callback_states_from_checkpoint` is set.
        self._lap()
        state.stateful_callbacks[STATE_KEY] = self.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state: history, clocks and the controller's state."""
        return {
            "schema_version": STATE_VERSION,
            "watch": self.config.monitor_watch,
            "history": list(self.history),
            "num_postponed": self.num_postponed,
            "saved_steps": list(self.saved_steps),
            "last_cost": self._last_cost,
            "probe_seconds": self._probe_seconds,
            "train_seconds": self._train_seconds,
            "train_seconds_since": self._train_seconds_since,
            "controller": None if self.controller is None else self.controller.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Restore what [`~HallucinationMonitor.state_dict`] gave.

        Raises:
            ValueError: The state is of another version, lacks or has unknown fields, or is that of a monitor with
                another watched figure, or with a controller where there is none (or the reverse).
        """
        if state.get("schema_version") != STATE_VERSION:
            raise ValueError(
                f"the monitor's state has schema version {state.get('schema_version')}; this code reads {STATE_VERSION}."
            )
        differing = sorted(state.keys() ^ self.state_dict().keys())
        if differing:
            raise ValueError(f"the monitor's state lacks or has unknown fields: {', '.join(differing)}.")
        if state["watch"] != self.config.monitor_watch:
            raise ValueError(
                f"the checkpoint's monitor watched {state['watch']}, this one {self.config.monitor_watch}: restore "
                "`monitor_watch`, or start a new run from the checkpoint's weights."
            )
        if (state["controller"] is None) != (self.controller is None):
            with_, without = ("this run", "the checkpoint") if self.controller else ("the checkpoint", "this run")
            raise ValueError(
                f"{with_} has a threshold controller, {without} has none: set or unset `controller_target` as it was, or "
                "start a new run from the checkpoint's weights."
            )
        self.history = list(state["history"])
        self.num_postponed, self.saved_steps = state["num_postponed"], list(state["saved_steps"])
        self._last_cost = state["last_cost"]
        self._probe_seconds, self._train_seconds = state["probe_seconds"], state["train_seconds"]
        self._train_seconds_since = state["train_seconds_since"]
        if self.controller is not None:
            self.controller.load_state_dict(state["controller"])


@contextmanager
def _no_meetings(engine: torch.nn.Module) -> Iterator[None]:
    """
    Forwards of a gathered ZeRO-3 model that are the process's own affair.

    TRL takes DeepSpeed's hooks off while the weights are gathered, but for the one at the start of the model's forward:
    it compares notes with all processes, and one that has fewer rows to answer, or none, would be waited for.
    """
    coordinator = engine.optimizer.parameter_offload.get_param_coordinator()
    coordinator.reset_step = lambda: None
    try:
        yield
    finally:
        del coordinator.reset_step


@contextmanager
def _undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards modes and random states are as before."""
    modes = {module: module.training for module in model.modules()}
    python_state, numpy_state = random.getstate(), np.random.get_state()
    device = model.device
    devices = [] if device.type == "cpu" else list(range(torch.get_device_module(device.type).device_count()))
    model.eval()
    try:
        with torch.random.fork_rng(devices=devices, device_type=device.type), torch.no_grad():
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        for module, training in modes.items():
            module.training = training
