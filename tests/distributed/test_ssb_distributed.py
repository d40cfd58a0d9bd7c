# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The buffer in two processes: DDP against a row-by-row reference, resuming bit for bit, FSDP2 and DeepSpeed."""

import itertools

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from tests.support import ssb_worker
from tests.support.launch import every_backend, launch
from tests.support.ssb_row_losses import RefRow, row_logps, step_loss
from tests.support.ssb_runs import SSBGRPOTrainer, make_trainer, text_dataset
from trl_r1v2.ssb_grpo.checkpoint import BufferStateError


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(text_model_path, internvl_path):
    return [text_model_path, internvl_path]


@pytest.fixture(scope="module")
def in_two(tmp_path_factory, models):
    scenarios = ["grpo", "dapo", "old_rollouts", "mixed", "text_here", "text_here_off", "extra_rounds", "share"]
    scenarios += ["append", "interrupted", "interrupted_later", "interrupted_images", "synced", "on_own_disks"]
    folder = tmp_path_factory.mktemp("ddp")
    return launch("ddp", ssb_worker.__name__, folder, scenarios, *models) | {"folder": folder}


# ---- DDP ----


def pixels_of(batch, index):
    if not batch.get("num_images") or not batch["num_images"][index]:
        return {}
    counts = batch.get("num_tiles", batch["num_images"])
    return {"pixel_values": batch["pixel_values"][sum(counts[:index]) : sum(counts[: index + 1])]}


def expected_rows(process, generation, models_at, reference=None) -> list[RefRow]:
    """
    Rows of one process: what was drawn is looked up by its uid, and its behaviour is a forward of the parameters of
    the step that it was sampled at; the reference is that of the day.
    """
    batch = process["used"][generation]
    replayed = batch["ssb_is_replayed"].nonzero().flatten().tolist()
    uid_of = dict(zip(replayed, process["drawn"][generation], strict=True))
    rows = []
    for index in range(len(batch["advantages"])):
        prompt = batch["prompt_ids"][index][batch["prompt_mask"][index].bool()]
        completion = batch["completion_ids"][index][batch["completion_mask"][index].bool()]
        visual, step = pixels_of(batch, index), generation
        if index in uid_of:
            step, born_prompt, born_completion = process["born"][uid_of[index]]
            assert prompt.tolist() == born_prompt.tolist() and completion.tolist() == born_completion.tolist()
            assert step < generation
        with torch.no_grad():
            behaviour = row_logps(models_at(step), prompt, completion, visual)
        mask = torch.ones_like(completion)
        rows.append(RefRow(prompt, completion, batch["advantages"][index].item(), behaviour, visual, mask))
        if reference is not None:
            with torch.no_grad():
                rows[-1].reference = row_logps(reference, prompt, completion, visual)
    return rows


@pytest.mark.parametrize(
    ("scenario", "iterations"),
    [("grpo", 1), ("dapo", 1), ("old_rollouts", 2), ("mixed", 1), ("append", 1), ("synced", 1)],
)
def test_gradient_equals_one_process(scenario, iterations, in_two, models):
    """
    The reduced gradient of every step is that of the rows of both in one process, whichever process held them and
    however many were dead there. Tolerance: float32, other padding and another order of sums.
    """
    processes = in_two[scenario]
    auto, path = (AutoModelForImageTextToText, models[1]) if scenario == "mixed" else (AutoModelForCausalLM, models[0])
    model, args = auto.from_pretrained(path, dtype=torch.float32), in_two_args(scenario, iterations)
    reference = auto.from_pretrained(path, dtype=torch.float32) if scenario == "synced" else None

    def model_at(optimizer_step):
        model.load_state_dict(processes[0]["steps"][optimizer_step]["parameters"], strict=False)
        return model

    dead = [[int(used["ssb_is_replayed"].sum()) for used in process["used"]] for process in processes]
    assert dead == ([[0, 2, 3, 3, 3]] * 2 if scenario == "append" else [[0, 2, 6, 0, 6], [0, 2, 2, 4, 6]])
    for generation in range(5):
        if reference is not None:
            reference.load_state_dict(processes[0]["steps"][generation]["reference"], strict=False)
        parts = [
            expected_rows(process, generation, lambda s: model_at(s * iterations), reference) for process in processes
        ]
        rows = parts[0] + parts[1]
        num_tokens = sum(len(row.completion_ids) for row in rows)
        for process in processes:
            assert int(process["used"][generation]["num_items_in_batch"]) == num_tokens
        for step in range(generation * iterations, (generation + 1) * iterations):
            weights = dict(model_at(step).named_parameters())
            ours, theirs = (process["steps"][step]["gradients"] for process in processes)
            assert ours.keys() == theirs.keys() and all(torch.equal(g, theirs[n]) for n, g in ours.items())
            loss = step_loss(model, [(rows, num_tokens)], args)
            expected = torch.autograd.grad(loss, [weights[name] for name in ours], materialize_grads=True)
            flat = torch.cat([gradient.flatten() for gradient in expected])
            actual = torch.cat([gradient.flatten() for gradient in ours.values()])
            assert ((actual - flat).norm() / flat.norm()).item() < 2e-4


def in_two_args(scenario, iterations):
    from trl_r1v2 import SSBGRPOConfig

    return SSBGRPOConfig(
        output_dir="unused",
        use_cpu=True,
        bf16=False,
        report_to="none",
        loss_type="dapo" if scenario == "dapo" else "grpo",
        per_device_train_batch_size=12,
        num_generations=4,
        num_iterations=iterations,
        beta=ssb_worker.SYNCED["beta"] if scenario == "synced" else 0.0,
    )


def test_the_reference_moves(in_two):
    """Between the second and the third step, and between the fourth and the fifth."""
    for process in in_two["synced"]:
        references = [torch.cat([p.flatten() for p in step["reference"].values()]) for step in process["steps"]]
        moved = [not torch.equal(before, after) for before, after in itertools.pairwise(references)]
        assert moved == [False, True, False, True]


def test_figures_are_those_of_all_processes(in_two):
    for process in in_two["grpo"]:
        figures = process["logged"]
        assert figures["dead_groups"] == pytest.approx([0, 1 / 3, 2 / 3, 1 / 3, 1])
        assert figures["effective_before"] == pytest.approx([1, 2 / 3, 1 / 3, 2 / 3, 0])
        assert figures["effective_after"] == [1, 1, 1, 1, 1]
        assert figures["replayed_rows"] == [0, 4, 8, 4, 12]
        assert figures["size"] == [12, 20, 24, 32, 32]
        assert all(abs(ratio - 1) > 1e-4 for ratio in figures["ratio_mean"])
    first, second = in_two["grpo"]
    assert first["digest"] == second["digest"] and first["losses"] == second["losses"]
    # Each process draws for itself: other seeds, other samples.
    assert [uids for uids in first["drawn"] if uids] != [uids for uids in second["drawn"] if uids]


@pytest.mark.parametrize("scenario", ["text_here", "text_here_off"])
def test_a_process_without_images_keeps_in_step(scenario, in_two):
    """TRL leaves one process out of gathering the images for its log; here both gather, and the log is in order."""
    first, second = in_two[scenario]
    assert first["digest"] == second["digest"] and len(first["losses"]) == 5
    if scenario == "text_here":
        assert first["replayed"] == [0, 8, 0, 0, 0]
    # the log holds the last generation: rows 8 (with an image) and 9 (without)
    for process in (first, second):
        assert process["prompts"] == ["8"] * 4 + ["9"] * 4
        assert process["num_images"] == [1] * 4 + [0] * 4


def test_extra_rounds_end_on_all_processes(in_two):
    """A process without open rows joins the rounds of the other."""
    for process in in_two["extra_rounds"]:
        figures = process["logged"]
        assert figures["replayed_rows"] == [0, 2, 2, 1, 2]  # one sample a process, none where nothing is open
        resampled = figures["resampled_rows"]
        # In the fourth generation only the second process has open rows: four, one of them replayed.
        assert (resampled[0], resampled[1], resampled[3]) == (0, 2, 3) and 0 < resampled[2] <= 6
        before, after = figures["effective_before"], figures["effective_after"]
        for step in range(5):
            filled = figures["replayed_rows"][step] + resampled[step]
            assert after[step] == pytest.approx(before[step] + filled / 12)
    assert in_two["extra_rounds"][0]["digest"] == in_two["extra_rounds"][1]["digest"]


def test_both_processes_leave_out_as_many_groups(in_two):
    processes = in_two["share"]
    for process in processes:
        assert process["logged"]["fresh_rows"] == [16, 8, 8, 8, 8]
        assert [int(used["ssb_is_replayed"].sum()) for used in process["used"]][1:] >= [4] * 4
    assert processes[0]["digest"] == processes[1]["digest"]


@pytest.mark.parametrize("scenario", ["interrupted", "interrupted_later", "interrupted_images"])
def test_resumed_in_two_processes_is_the_same_run(scenario, in_two):
    assert_same_run(in_two[scenario])


def test_resumed_on_disks_of_their_own_is_the_same_run(in_two):
    """Both go on from the third step: the second process has no later one, and of the first's disk nothing."""
    assert [process["found"] for process in in_two["on_own_disks"]] == [
        [f"ssb-0000{rank}-of-00002.safetensors"] * count for rank, count in ((0, 4), (1, 3))
    ]
    assert_same_run(in_two["on_own_disks"])
    assert [len(process["resumed"]["used"]) for process in in_two["on_own_disks"]] == [2, 2]


def assert_same_run(processes):
    for process in processes:
        whole, resumed = process["whole"], process["resumed"]
        assert whole["losses"] == resumed["losses"] and whole["digest"] == resumed["digest"]
        assert whole["buffer"] == resumed["buffer"] and whole["logged"] == resumed["logged"]
        assert whole["drawn"][-len(resumed["drawn"]) :] == resumed["drawn"]
        assert sum(whole["logged"]["replayed_rows"]) > 0
    assert processes[0]["whole"]["buffer"] != processes[1]["whole"]["buffer"]


def test_one_process_takes_over_from_two(in_two, models, tmp_path):
    """Exactly it cannot; resharded, it goes on with the samples of both."""
    checkpoint = in_two["folder"] / "interrupted_later" / "run" / "whole" / "checkpoint-3"
    settings = {"max_steps": 4, "num_generations": 4}
    trainer = make_trainer(SSBGRPOTrainer, models[0], tmp_path, text_dataset(7), **settings)
    with pytest.raises(BufferStateError, match=r"of process 0 of 1 in .*ssb-00001-of-00002"):
        trainer.train(resume_from_checkpoint=str(checkpoint))
    trainer = make_trainer(SSBGRPOTrainer, models[0], tmp_path, text_dataset(7), **settings, ssb_resume="reshard")
    held = []
    generate = trainer._generate_and_score_completions
    trainer._generate_and_score_completions = lambda inputs: (held.append(len(trainer.buffer)), generate(inputs))[1]
    trainer.train(resume_from_checkpoint=str(checkpoint))
    both = [process["whole"]["logged"]["size"][2] for process in in_two["interrupted_later"]]
    assert held[0] == both[0] == both[1] > 0


# ---- Sharded models ----


SHARDED_REPLAYED = [0, 4, 8, 4, 12]


def assert_trained_like_ddp(processes, ddp):
    """Same rows, same replays, and losses that differ by rounding alone."""
    for process, other in zip(processes, ddp, strict=True):
        assert process["logged"]["replayed_rows"] == SHARDED_REPLAYED
        assert process["drawn"] == other["drawn"]
        assert process["losses"] == pytest.approx(other["losses"], abs=2e-3)
        assert process["logged"]["ratio_mean"] == pytest.approx(other["logged"]["ratio_mean"], rel=1e-3)
        for used, wanted in zip(process["used"], other["used"], strict=True):
            assert torch.equal(used["ssb_is_replayed"], wanted["ssb_is_replayed"])
    assert processes[1]["digest"] == processes[0]["digest"]


@pytest.mark.parametrize("backend", every_backend[1:])
def test_shards_train_as_whole_models_do(backend, tmp_path, models, in_two):
    """The model itself generates: also where the second process never sees an image, with or without the buffer."""
    scenarios = ["sharded", "text_here", "text_here_off", "interrupted_shards", "synced_shards"]
    found = launch(backend, ssb_worker.__name__, tmp_path, scenarios, *models)
    assert_trained_like_ddp(found["sharded"], in_two["grpo"])
    for scenario in ("text_here", "text_here_off"):
        for process, other in zip(found[scenario], in_two[scenario], strict=True):
            assert process["losses"] == pytest.approx(other["losses"], abs=2e-3)
            for name in ("replayed", "prompts", "num_images"):
                assert process[name] == other[name]
    assert_same_run(found["interrupted_shards"])
    for process, other in zip(found["synced_shards"], in_two["synced"], strict=True):
        assert process["losses"] == pytest.approx(other["losses"], abs=2e-3)


def test_fates_are_what_the_expectations_assume():
    assert set(ssb_worker.FATES) == {4, 6, 7, 11, 12, 13, 14} and ssb_worker.LOCAL == 6
