# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""A resumed run is the uninterrupted one, bit for bit; and what resuming refuses or skips."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from transformers import TrainerCallback

from tests.support import ROOT
from tests.support.ssb_probes import fated, logged
from tests.support.ssb_runs import (
    SSBGRPOTrainer,
    assert_identical,
    image_dataset,
    losses,
    make_trainer,
    mixed_dataset,
    text_dataset,
)
from trl_r1v2.images.prompt_images import PromptImages
from trl_r1v2.ssb_grpo.checkpoint import BufferCheckpoint, BufferStateError
from trl_r1v2.ssb_grpo.sample_buffer import SelectiveSampleBuffer


# Half of the prompts are dead whenever they come up.
FATES = {row: float(row % 2) for row in range(0, 12, 2)}


def build(path, folder, dataset, fates=FATES, **settings):
    trainer = make_trainer(
        SSBGRPOTrainer, path, folder, dataset, fated(fates), **({"save_strategy": "steps", "save_steps": 1} | settings)
    )
    trainer.draws = []
    draw = trainer.buffer.draw

    def recording_draw(num_samples, step):
        samples = draw(num_samples, step)
        trainer.draws.append((step, [sample.uid for sample in samples]))
        return samples

    trainer.buffer.draw = recording_draw
    return trainer


def assert_same_buffer(first, second):
    ours, theirs = first.buffer.state_dict(), second.buffer.state_dict()
    assert torch.equal(ours["generator"], theirs["generator"])
    assert ours["next_uid"] == theirs["next_uid"]
    assert [s.uid for s in ours["samples"]] == [s.uid for s in theirs["samples"]]
    for one, other in zip(ours["samples"], theirs["samples"], strict=True):
        plain = [(s.advantage, s.step, s.source, s.num_images, s.uses) for s in (one, other)]
        assert plain[0] == plain[1]
        assert one.tokens.keys() == other.tokens.keys()
        assert all(torch.equal(tensor, other.tokens[name]) for name, tensor in one.tokens.items())


# ---- Exactly the same run ----


def streaming(dataset):
    return dataset.to_iterable_dataset()


RUNS = {
    # name: data, settings, steps to resume from, number of steps
    "text": (text_dataset, {}, (2,), 5),
    "accumulation": (text_dataset, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}, (3,), 5),
    "later_epochs": (lambda: text_dataset(6), {}, (3, 4), 7),
    "images": (image_dataset, {"ssb_pixel_bytes": 20_000}, (3,), 5),
    "mixed_stream": (lambda: streaming(mixed_dataset()), {}, (3,), 5),
    "small_store": (
        lambda: streaming(image_dataset()),
        {"ssb_pixel_bytes": 60_000, "shuffle_dataset": False},
        (3,),
        6,
    ),
    "num_iterations": (text_dataset, {"num_iterations": 2}, (4,), 8),
    "extra_rounds": (text_dataset, {"ssb_resample_rounds": 3, "ssb_capacity": 2}, (2,), 4),
    "age_decay": (text_dataset, {"ssb_age_decay": 1.0, "ssb_max_uses": 1}, (3,), 5),
    "reference": (text_dataset, {"beta": 0.2}, (2,), 4),
    "workers": (
        lambda: text_dataset(6),
        {"dataloader_num_workers": 2, "dataloader_prefetch_factor": 2},
        (4, 5),
        9,
    ),
}


@pytest.mark.parametrize("name", [*list(RUNS)[:-1], pytest.param("workers", marks=pytest.mark.slow)])
def test_resumed_equals_uninterrupted(name, text_model_path, internvl_path, tmp_path):
    make_data, settings, resume_steps, num_steps = RUNS[name]
    path = internvl_path if name in ("images", "mixed_stream", "small_store") else text_model_path
    whole = build(path, tmp_path / "whole", make_data(), max_steps=num_steps, **settings)
    whole.train()
    assert sum(logged(whole, "ssb/replayed_rows")) > 0
    if name == "small_store":
        assert sum(logged(whole, "ssb/evicted/pixels")) > 0
    if name == "extra_rounds":
        assert sum(logged(whole, "ssb/resampled_rows")) > 0
    for step in resume_steps:
        resumed = build(path, tmp_path / f"from_{step}", make_data(), max_steps=num_steps, **settings)
        resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert len(losses(resumed)) == num_steps
        assert_identical(whole, resumed)
        assert_same_buffer(whole, resumed)
        assert resumed.draws and resumed.draws == [draw for draw in whole.draws if draw[0] >= step]
        for figure in ("ssb/replayed_rows", "ssb/size", "ssb/ratio_mean", "ssb/evicted/uses"):
            assert logged(whole, figure) == logged(resumed, figure)


# ---- What is skipped, refused or spread ----


@pytest.fixture(scope="module")
def finished(text_model_path, tmp_path_factory):
    """A run of four steps with a checkpoint of every step."""
    folder = tmp_path_factory.mktemp("finished")
    trainer = build(text_model_path, folder, text_dataset())
    trainer.train()
    return folder


@pytest.fixture
def run_folder(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def resumed_step(path, folder, dataset=None, **settings):
    """Step that `resume_from_checkpoint=True` goes on from."""
    trainer = build(path, folder, text_dataset() if dataset is None else dataset, max_steps=5, **settings)
    first = []
    generate = trainer._generate_and_score_completions
    trainer._generate_and_score_completions = lambda inputs: (
        first.append(trainer.state.global_step),
        generate(inputs),
    )[1]
    trainer.train(resume_from_checkpoint=True)
    return first[0], trainer


DAMAGE = {
    "no_trainer_state": lambda checkpoint: (checkpoint / "trainer_state.json").unlink(),
    "half_a_trainer_state": lambda checkpoint: truncate(checkpoint / "trainer_state.json"),
    "nothing": lambda checkpoint: (shutil.rmtree(checkpoint), checkpoint.mkdir()),
}


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize("damage", DAMAGE)
def test_partial_checkpoints_are_skipped(damage, run_folder, text_model_path):
    DAMAGE[damage](run_folder / "checkpoint-4")
    shutil.rmtree(run_folder / "checkpoint-3")
    for name in ("checkpoint-best", "checkpoint-12-old", "checkpoint-"):  # a user's own names are nobody's business
        (run_folder / name).mkdir()
    step, trainer = resumed_step(text_model_path, run_folder)
    assert step == 2 and len(losses(trainer)) == 5


def test_the_last_whole_checkpoint_is_taken(run_folder, text_model_path):
    shutil.copytree(run_folder / "checkpoint-4", run_folder / "checkpoint-10")  # by number, not by name
    (run_folder / "checkpoint-10" / "trainer_state.json").unlink()
    assert resumed_step(text_model_path, run_folder)[0] == 4


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def alter(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def buffer_file(checkpoint):
    return checkpoint / "ssb" / "ssb-00000-of-00001.safetensors"


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), halve, alter], ids=["missing", "cut", "altered"])
def test_a_damaged_buffer_is_refused(damage, run_folder, text_model_path):
    damage(buffer_file(run_folder / "checkpoint-4"))
    with pytest.raises(BufferStateError, match="ssb_resume='empty'"):
        trainer = build(text_model_path, run_folder, text_dataset(), max_steps=5)
        trainer.train(resume_from_checkpoint=True)


def test_prefill_says_what_is_wrong_with_its_folder(run_folder, text_model_path, tmp_path):
    checkpoint = run_folder / "checkpoint-4"
    for folder, message in (
        (tmp_path / "nowhere", "nowhere does not hold one complete set"),
        (checkpoint, "found: none; its folder 'ssb' may be meant"),
    ):
        with pytest.raises(BufferStateError, match=f"{message}.*no `ssb_prefill`"):
            build(text_model_path, tmp_path / "out", text_dataset(), ssb_prefill=str(folder))


def test_no_whole_checkpoint_is_an_error(tmp_path, text_model_path):
    with pytest.raises(ValueError, match="holds no whole checkpoint"):
        resumed_step(text_model_path, tmp_path / "nowhere")


def test_a_kill_during_saving_leaves_a_partial_checkpoint(run_folder, text_model_path, monkeypatch):
    """The buffer is there before `trainer_state.json`, and an earlier run's `trainer_state.json` goes first."""
    trainer = build(text_model_path, run_folder, text_dataset(), max_steps=4)

    def killed(*args):
        assert buffer_file(run_folder / "checkpoint-4").exists()
        assert not (run_folder / "checkpoint-4" / "trainer_state.json").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "_save_optimizer_and_scheduler", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(resume_from_checkpoint=str(run_folder / "checkpoint-3"))
    assert resumed_step(text_model_path, run_folder)[0] == 3


def test_empty_starts_without_samples_but_with_the_rest(run_folder, text_model_path):
    """Also when the run was told to begin with a prefilled buffer."""
    for settings in ({}, {"ssb_prefill": str(run_folder / "checkpoint-2" / "ssb")}):
        trainer = build(text_model_path, run_folder, text_dataset(), max_steps=5, ssb_resume="empty", **settings)
        trainer.train(resume_from_checkpoint=str(run_folder / "checkpoint-4"))
        assert trainer.draws[0] == (4, []) and len(trainer.buffer) == logged(trainer, "ssb/size")[-1]
        assert {sample.step for sample in trainer.buffer.samples.values()} <= {4}


def spread(checkpoint, world_size):
    """Rewrite a checkpoint's buffer as if several processes had written it."""
    buffer, fingerprint = stored(checkpoint)
    samples = list(buffer.samples.values())
    for rank in range(world_size):
        buffer.samples = {sample.uid: sample for sample in samples[rank::world_size]}
        BufferCheckpoint(buffer, PromptImages(0), fingerprint, rank, world_size).save(checkpoint / "ssb")
    return samples


def stored(checkpoint):
    """The buffer of a checkpoint, and the fingerprint that its file carries."""
    with safe_open(buffer_file(checkpoint), "pt") as file:
        fingerprint = json.loads(file.metadata()["manifest"])["fingerprint"]
    buffer = SelectiveSampleBuffer(capacity=1000)
    BufferCheckpoint(buffer, PromptImages(0), fingerprint).load(checkpoint / "ssb")
    return buffer, fingerprint


def plain(samples):
    return [(s.advantage, s.step, s.uses, s.source or 0, s.tokens["completion_ids"].tolist()) for s in samples]


def test_another_number_of_processes_is_refused_or_resharded(run_folder, text_model_path):
    checkpoint = run_folder / "checkpoint-4"
    samples = spread(checkpoint, 3)
    trainer = build(text_model_path, run_folder, text_dataset(), max_steps=5)
    with pytest.raises(BufferStateError, match="process 0 of 1 in .*'reshard'"):
        trainer.train(resume_from_checkpoint=str(checkpoint))

    for settings in ({}, {"ssb_prefill": str(run_folder / "checkpoint-2" / "ssb")}):
        trainer = build(text_model_path, run_folder, text_dataset(), max_steps=5, ssb_resume="reshard", **settings)
        loaded = []

        class AtStart(TrainerCallback):
            def on_train_begin(self, args, state, control, trainer=trainer, loaded=loaded, **kwargs):
                loaded.extend(plain(trainer.buffer.samples.values()))

        trainer.add_callback(AtStart())
        trainer.train(resume_from_checkpoint=str(checkpoint))
        assert sorted(loaded) == sorted(plain(samples))
        shutil.rmtree(run_folder / "checkpoint-5")


def test_writing_over_a_checkpoint_of_more_processes_leaves_one_set(run_folder, text_model_path):
    """Else neither an exact resume nor a reshard could ever read the folder again."""
    spread(run_folder / "checkpoint-4", 2)
    trainer = build(text_model_path, run_folder, text_dataset(), max_steps=4)
    trainer.train(resume_from_checkpoint=str(run_folder / "checkpoint-3"))
    assert [path.name for path in (run_folder / "checkpoint-4" / "ssb").iterdir()] == [
        "ssb-00000-of-00001.safetensors"
    ]
    assert resumed_step(text_model_path, run_folder)[0] == 4


@pytest.mark.parametrize(
    ("dataset", "settings", "named"),
    [
        (lambda: text_dataset(11), {}, "dataset_rows: 12 in the file, 11 now"),
        (lambda: text_dataset(12).shuffle(seed=1), {}, "dataset_prompts"),
        (text_dataset, {"beta": 0.1}, "reference_logps: False in the file, True now"),
    ],
)
def test_another_run_is_refused(dataset, settings, named, run_folder, text_model_path):
    trainer = build(text_model_path, run_folder, dataset(), max_steps=5, **settings)
    with pytest.raises(BufferStateError, match=f"{named}.*ssb_resume='empty'"):
        trainer.train(resume_from_checkpoint=str(run_folder / "checkpoint-4"))


def test_prefilled_samples_count_their_age_from_this_run(run_folder, text_model_path, tmp_path):
    """Steps of the run that wrote them would make them younger than new."""
    folder = run_folder / "checkpoint-4" / "ssb"
    samples = stored(run_folder / "checkpoint-4")[0].samples.values()
    assert max(sample.step for sample in samples) == 3
    trainer = build(
        text_model_path, tmp_path / "next", text_dataset(), dict.fromkeys(range(12), 1.0), ssb_prefill=str(folder)
    )
    assert len(trainer.buffer) == len(samples)
    assert any(sample.uses for sample in samples)
    assert not any(sample.uses for sample in trainer.buffer.samples.values())
    trainer.train()
    # Nothing else is alive, so all that is held was there before the first step.
    assert logged(trainer, "ssb/age_max") == logged(trainer, "ssb/age_mean") == [0, 1, 2, 3]
    assert logged(trainer, "ssb/replayed_rows")[0] == 8


@pytest.mark.parametrize("settings", [{"save_only_model": True}, {"ssb_enabled": False}])
def test_no_buffer_is_written(settings, text_model_path, tmp_path):
    trainer = make_trainer(
        SSBGRPOTrainer,
        text_model_path,
        tmp_path,
        text_dataset(),
        fated({}),
        max_steps=1,
        save_steps=1,
        **({"save_strategy": "steps"} | settings),
    )
    trainer.train()
    assert (tmp_path / "checkpoint-1" / "config.json").exists() and not (tmp_path / "checkpoint-1" / "ssb").exists()


# ---- kill -9 ----


@pytest.mark.slow
def test_kills_at_random_points_of_saving(text_model_path, tmp_path):
    """Twenty SIGKILLs inside saving; the run that goes on after each ends as the one that was never killed."""
    output = subprocess.run(
        [sys.executable, "-m", "tests.support.kill_while_saving", text_model_path, str(tmp_path), "20"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert output.returncode == 0, output.stdout[-2000:] + output.stderr[-4000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["kills"]) == 20 and all(kill["signal"] == 9 for kill in report["kills"])
    assert any(kill["was_partial"] for kill in report["kills"]), "no kill hit a half-written checkpoint"
    assert report["losses_equal"] and report["parameters_equal"]
