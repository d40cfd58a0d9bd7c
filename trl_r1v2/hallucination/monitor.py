# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
The hallucination monitor: probes a model while a TRL trainer trains it, logs what it finds, and acts on it if told to.

Scope: when to probe, at what cost, and what follows (log, table, stop, threshold). What is measured is `probe.py`, on
what model `borrowed_model.py`, what is written of it `flagged.py`, how a threshold moves `threshold.py`. R1V2 asks for
such a watch without describing one: all of it is ours. FSDP is not covered.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate.logging import get_logger
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from transformers import Trainer, TrainerCallback

from ..sampling.prompts import images_of, read_example
from .borrowed_model import borrowed_model
from .flagged import remove_others, write_image, write_table
from .monitor_config import MonitorConfig
from .probe import Probe, ProbeFunctions, ProbeRecord
from .threshold import RewardThresholdController
from .threshold_files import write_atomically, write_threshold_file


logger = get_logger(__name__)

STATE_KEY, STATE_VERSION = "hallucination_monitor", 2
FOLDER, PREFIX = "hallucination", "hallucination/"
THRESHOLD_FILE, MOVES_FILE = "threshold.json", "moves.jsonl"
# Flagged responses that a probe writes down.
MAX_FLAGGED = 32


@dataclass
class _Past:
    """What a run has measured and what that took, in seconds."""

    probes: list[dict[str, Any]] = field(default_factory=list)
    num_postponed: int = 0
    last_cost: float | None = None
    probe_seconds: float = 0.0
    train_seconds: float = 0.0
    train_seconds_since: float = 0.0  # since the last probe


class HallucinationMonitor(TrainerCallback):
    """
    Callback that measures signals of hallucination on a fixed probe set every few optimizer steps.

    Works with any TRL trainer whose processes each hold (or, under ZeRO-3, can gather) the whole model: GRPO, DPO,
    MPO, SFT. Rows are shared among processes, and the figures do not depend on how many there are. A probe leaves no
    trace in training: random states, modules' modes and the trainer's own averages are as before, so that losses are
    equal to the last bit with and without it, unless it is told to stop the run or to move a threshold.

    Figures get an entry of their own in the log, at the step they were measured, under `hallucination/`. State
    (history, clocks, the controller's) travels in `trainer_state.json` of every checkpoint and is taken from there on
    resume.

    Args:
        trainer ([`~transformers.Trainer`]): Trainer that the callback is added to.
        dataset ([`~datasets.Dataset`]): Probe set, as for [`~trl_r1v2.hallucination.probe.Probe`].
        config ([`MonitorConfig`]): Settings; `monitor_dataset` and the dotted paths are not read here.
        functions ([`~trl_r1v2.hallucination.probe.ProbeFunctions`], *optional*): What the dotted paths name.
        controller ([`RewardThresholdController`], *optional*): Moves a threshold with the watched figure.
        set_threshold (`Callable[[float], None]`, *optional*): Gets the controller's threshold at the start and after
            every move, for example `lambda value: hybrid_reward.set_min_score("reward_model", value)`.
        chat_template_kwargs (`dict[str, Any]`, *optional*): Passed to the chat template.
        clock (`Callable[[], float]`, *optional*): Seconds; `time.perf_counter` by default.

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
        self._past, self._started = _Past(), clock()

    @property
    def history(self) -> list[dict[str, Any]]:
        """The probes of the run: `step`, `figures` and `seconds` of each."""
        return self._past.probes

    @property
    def folder(self) -> Path:
        """Where tables, images and the threshold are written."""
        return Path(self.trainer.args.output_dir) / FOLDER

    # ---- The trainer's events ----

    def on_train_begin(self, args, state, control, **kwargs):
        # The older transformers load no model in shards, and their models say nothing of it.
        is_sharded = getattr(self.trainer.model, "is_distributed_loading_by_transformers", False)
        if self.trainer.is_fsdp_enabled or is_sharded:
            raise ValueError(
                "the hallucination monitor needs whole weights in every process, which FSDP does not keep: use DDP or "
                "DeepSpeed, or measure checkpoints with `trl-r1v2 evaluate`."
            )
        self._past, self._started = _Past(), self._clock()
        if STATE_KEY in state.stateful_callbacks:
            self.load_state_dict(state.stateful_callbacks[STATE_KEY])
        elif state.global_step > 0:
            logger.warning("The checkpoint holds no state of the hallucination monitor: its history starts here.")
        if self.trainer.accelerator.is_main_process:
            # What earlier runs left, and tables of steps that are yet to come.
            remove_others(self.folder, [entry["step"] for entry in self.history])
            for name in () if self.history else (THRESHOLD_FILE, MOVES_FILE):
                (self.folder / name).unlink(missing_ok=True)
        self._apply_threshold()
        if self.config.monitor_at_start and not self.history and state.global_step == 0:
            self._measure(state, control)
        self._publish(state)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.config.monitor_every == 0:
            act = self._measure if self._affordable() else self._postpone
            act(state, control)
        self._publish(state)

    # ---- Cost ----

    def _lap(self) -> None:
        """Count the time since the last call as training."""
        now = self._clock()
        self._past.train_seconds += now - self._started
        self._past.train_seconds_since += now - self._started
        self._started = now

    def _affordable(self) -> bool:
        """Whether the training since the last probe has paid for it; the main process decides for all."""
        self._lap()
        share, past = self.config.monitor_max_cost_share, self._past
        if share is None:
            return True
        decision = [past.last_cost is None or past.last_cost <= share * past.train_seconds_since]
        broadcast_object_list(decision)
        return decision[0]

    def _postpone(self, state, control) -> None:
        self._past.num_postponed += 1
        logger.info(
            f"Step {state.global_step}: probe put off. The last one took {self._past.last_cost:.2f} s, more than "
            f"{self.config.monitor_max_cost_share:g} of the {self._past.train_seconds_since:.2f} s of training since."
        )
        self._log({"postponed": float(self._past.num_postponed)}, control)

    # ---- Probes ----

    def _measure(self, state, control) -> None:
        self._lap()
        accelerator = self.trainer.accelerator
        with borrowed_model(self.trainer) as model:
            chunks = self.probe.chunks()[accelerator.process_index :: accelerator.num_processes]
            records = self.probe.measure(model, self.trainer.processing_class, chunks)
        records = sorted(gather_object(records), key=lambda record: record.row)
        figures = self.probe.figures(records)
        self._write_flagged(records, state.global_step)
        now, past = self._clock(), self._past
        past.last_cost, self._started = now - self._started, now
        past.probe_seconds += past.last_cost
        past.train_seconds_since = 0.0
        past.probes.append({"step": state.global_step, "figures": figures, "seconds": past.last_cost})
        costs = {"seconds": past.last_cost}
        if state.global_step > 0:
            costs["cost_share"] = past.probe_seconds / past.train_seconds
        self._log({**figures, **costs, **self._control(state)}, control)
        self._maybe_stop(state, control)

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
                f"Step {state.global_step}: training stops, {self.config.monitor_watch} is {values[-1]:.3f} and was "
                f"above `monitor_stop_above` ({limit:g}) in the last {patience} probes."
            )
            control.should_training_stop = True

    def _write_flagged(self, records: list[ProbeRecord], step: int) -> None:
        flagged = [record for record in records if record.flags][:MAX_FLAGGED]
        if not (flagged and self.trainer.accelerator.is_main_process):
            return
        rows = []
        for record in flagged:
            shown = images_of(read_example(self.probe.dataset, record.row)) if record.has_image else []
            images = [write_image(self.folder, image) for image in shown]
            rows.append({"step": step, **self.probe.describe(record), "images": images})
        write_table(self.folder, step, rows)

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
            self._apply_threshold()
        change = 0.0 if move is None else move.after - move.before
        return {"threshold": self.controller.threshold, "threshold_change": change}

    def _apply_threshold(self) -> None:
        if self.controller is None:
            return
        if self.set_threshold is not None:
            self.set_threshold(self.controller.threshold)
        if self.trainer.accelerator.is_main_process:
            state = self.controller.state_dict()
            # With a gate, the threshold is in units of one component, not of the sum that `pairs` cuts.
            details = {"gated": self.set_threshold is not None, "controller": state}
            details["reason"] = self.controller.moves[-1].cause if self.controller.moves else "no move yet"
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
            **vars(self._past),
            "probes": list(self._past.probes),
            "controller": None if self.controller is None else self.controller.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Restore what [`~HallucinationMonitor.state_dict`] gave; refuses one of another version, with other fields, of
        another watched figure, or with a controller where there is none (or the reverse).
        """
        differing = sorted(state.keys() ^ self.state_dict().keys())
        if differing or state["schema_version"] != STATE_VERSION:
            raise ValueError(
                f"the monitor's state is of schema version {state.get('schema_version')}, this code reads "
                f"{STATE_VERSION} (lacking or unknown fields: {', '.join(differing) or 'none'}). Start a new run from "
                "the weights."
            )

        def described(watch: str, controller: object) -> str:
            return f"watched {watch} with{'out' if controller is None else ''} a threshold controller"

        theirs = described(state["watch"], state["controller"])
        ours = described(self.config.monitor_watch, self.controller)
        if theirs != ours:
            raise ValueError(
                f"the checkpoint's monitor {theirs}, this one {ours}: restore `monitor_watch` and "
                "`controller_target`, or start a new run from the checkpoint's weights."
            )
        self._past = _Past(**{name: state[name] for name in vars(self._past)})
        self._past.probes = list(state["probes"])
        if self.controller is not None:
            self.controller.load_state_dict(state["controller"])
