# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Trains, is killed at random points of saving, and goes on, until the run is complete.

`python -m tests.support.kill_while_saving MODEL FOLDER NUM_KILLS` writes FOLDER/report.json. A point is one file
operation (open, rename, remove, …, as Python's audit events report them) of one `_save_checkpoint`; there the process
sends itself SIGKILL. Every life of the run is a forked child, so the imports are paid for once.
"""

import hashlib
import json
import os
import random
import signal
import sys
from pathlib import Path

from tests import conftest  # noqa: E402, F401  (environment variables before torch)
from tests.support.ssb_probes import fated  # noqa: E402
from tests.support.ssb_runs import SSBGRPOTrainer, losses, make_trainer, parameters, text_dataset  # noqa: E402


FATES = {row: float(row % 2) for row in range(0, 12, 2)}
FILE_EVENTS = ("open", "os.", "shutil.")
NUM_STEPS = 45


class Fuse:
    """Counts file operations while armed, and kills the process at number `limit`."""

    def __init__(self):
        self.count, self.limit, self.armed = 0, None, False
        sys.addaudithook(self)

    def __call__(self, event, args):
        if self.armed and event.startswith(FILE_EVENTS):
            self.count += 1
            if self.count == self.limit:
                os.kill(os.getpid(), signal.SIGKILL)


def life(model, folder, resume, fuse=None, first_save=1) -> SSBGRPOTrainer:
    """Train from the last whole checkpoint; with a `fuse`, count from the `first_save`-th saving on."""
    trainer = make_trainer(
        SSBGRPOTrainer,
        model,
        folder,
        text_dataset(),
        fated(FATES),
        max_steps=NUM_STEPS,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=3,
    )
    if fuse is not None:
        save, saves = trainer._save_checkpoint, []

        def fused_save(*args):
            saves.append(None)
            fuse.armed = len(saves) >= first_save
            save(*args)
            fuse.armed = False

        trainer._save_checkpoint = fused_save
    trainer.train(resume_from_checkpoint=True if resume else None)
    return trainer


def forked(function, output: Path) -> int:
    """Run `function` in a child; returns the signal that ended it (0: none). Its result is written as JSON."""
    pid = os.fork()
    if pid == 0:
        with open(output.with_suffix(".log"), "a") as log:
            os.dup2(log.fileno(), 1), os.dup2(log.fileno(), 2)
        status = 1
        try:
            output.write_text(json.dumps(function()))
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    if os.WEXITSTATUS(status):
        raise SystemExit(f"a life of the run failed: {output.with_suffix('.log').read_text()[-3000:]}")
    return 0


def result_of(trainer) -> dict:
    digest = hashlib.sha256()
    for _, value in sorted(parameters(trainer).items()):
        digest.update(value.numpy().tobytes())
    return {"losses": losses(trainer), "parameters": digest.hexdigest()}


def main(model: str, folder: Path, num_kills: int) -> None:
    rng = random.Random(0)

    def uninterrupted():
        fuse = Fuse()
        trainer = life(model, folder / "whole", False, fuse, first_save=NUM_STEPS)
        return result_of(trainer) | {"events": fuse.count}

    assert forked(uninterrupted, folder / "whole.json") == 0
    reference = json.loads((folder / "whole.json").read_text())

    run, kills = folder / "run", []
    for _ in range(num_kills):
        point, first_save = rng.randint(1, reference["events"]), rng.randint(1, 2)

        def killed(point=point, first_save=first_save):
            fuse = Fuse()
            fuse.limit = point
            life(model, run, any(run.glob("checkpoint-*/trainer_state.json")), fuse, first_save)

        ended_by = forked(killed, folder / "killed.json")
        partial = [c for c in run.glob("checkpoint-*") if not (c / "trainer_state.json").exists()]
        kills.append({"point": point, "signal": ended_by, "was_partial": bool(partial)})

    assert forked(lambda: result_of(life(model, run, True)), folder / "end.json") == 0
    end = json.loads((folder / "end.json").read_text())
    report = {
        "kills": kills,
        "losses_equal": end["losses"] == reference["losses"],
        "parameters_equal": end["parameters"] == reference["parameters"],
    }
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
