# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The monitor through `trainer.train()`: what it leaves alone, what it may cost, what it does, and how it resumes."""

import json

import pytest
import torch
from datasets import Dataset, Features, List
from datasets import Image as ImageFeature
from transformers import TrainerCallback

from tests.support.ssb_runs import (  # noqa: E402
    GRPOTrainer,
    SSBGRPOTrainer,
    assert_identical,
    image_dataset,
    losses,
    make_trainer,
    mixed_reward,
    text_dataset,
)
from trl_r1v2.hallucination import HallucinationMonitor, MonitorConfig, RewardThresholdController  # noqa: E402
from trl_r1v2.hallucination.probe import ProbeFunctions  # noqa: E402
from trl_r1v2.hallucination.threshold_files import read_threshold_file  # noqa: E402
from trl_r1v2.rewards import Component, HybridReward  # noqa: E402


def vowels(text, column):
    """Claims without support of a model that writes random characters: changes with every update."""
    return [character for character in text if character in "aeiou"]


FUNCTIONS = ProbeFunctions(claims=vowels)


def config(**settings):
    defaults = {
        "monitor_every": 1,
        "monitor_max_new_tokens": 6,
        "monitor_batch_size": 4,
        "monitor_max_cost_share": None,
        "monitor_claims_func": "test_monitor.vowels",
        "monitor_claims_column": "row",
    }
    return MonitorConfig(**(defaults | settings))


def probes(num_rows=6):
    return image_dataset(num_rows, layouts=((1,), (1, 1), (), (1,)))


def watch(trainer, settings=None, rows=None, **kwargs):
    monitor = HallucinationMonitor(trainer, rows or probes(), settings or config(), FUNCTIONS, **kwargs)
    trainer.add_callback(monitor)
    return monitor


def logged(trainer, name):
    key = f"hallucination/{name}"
    return {entry["step"]: entry[key] for entry in trainer.state.log_history if key in entry}


def without_times(history):
    """Log entries other than the monitor's, without what depends on the clock."""
    clocked = ("time", "_runtime", "_per_second")
    kept = [{k: v for k, v in entry.items() if not k.endswith(clocked)} for entry in history]
    return [entry for entry in kept if not any(key.startswith("hallucination/") for key in entry)]


# ---- Only watching ----


@pytest.mark.parametrize("cls", [GRPOTrainer, SSBGRPOTrainer])
def test_losses_are_bitwise_equal_with_and_without(cls, internvl_path, tmp_path):
    plain = make_trainer(cls, internvl_path, tmp_path / "plain", image_dataset(), logging_steps=2)
    plain.train()
    watched = make_trainer(cls, internvl_path, tmp_path / "watched", image_dataset(), logging_steps=2)
    monitor = watch(watched, config(monitor_stop_above=1.0))
    watched.train()
    assert_identical(plain, watched)
    assert without_times(plain.state.log_history) == without_times(watched.state.log_history)
    assert [entry["step"] for entry in monitor.history] == [0, 1, 2, 3, 4]
    gaps = logged(watched, "grounding_gap")
    assert len(set(gaps.values())) == 5  # every update was seen


def preference_rows():
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": f"say {row}"}],
                "chosen": [{"role": "assistant", "content": "yes" * (1 + row % 2)}],
                "rejected": [{"role": "assistant", "content": "no"}],
            }
            for row in range(8)
        ]
    )


def supervised_rows():
    rows = preference_rows().rename_column("chosen", "completion")
    return rows.remove_columns("rejected")


@pytest.mark.parametrize("kind", ["dpo", "mpo", "sft"])
def test_other_trainers_with_dropout(kind, text_model_path, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from trl_r1v2 import MPOConfig, MPOTrainer

    trainer_cls, config_cls = {
        "dpo": (DPOTrainer, DPOConfig),
        "mpo": (MPOTrainer, MPOConfig),
        "sft": (SFTTrainer, SFTConfig),
    }[kind]

    def run(name):
        model = AutoModelForCausalLM.from_pretrained(text_model_path, dtype=torch.float32, attention_dropout=0.2)
        reference = {} if kind == "sft" else {"ref_model": AutoModelForCausalLM.from_pretrained(text_model_path)}
        args = config_cls(
            output_dir=str(tmp_path / name),
            per_device_train_batch_size=4,
            max_steps=3,
            learning_rate=1e-2,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
            seed=3,
        )
        rows = supervised_rows() if kind == "sft" else preference_rows()
        tokenizer = AutoTokenizer.from_pretrained(text_model_path)
        return trainer_cls(model=model, args=args, train_dataset=rows, processing_class=tokenizer, **reference)

    plain = run("plain")
    plain.train()
    watched = run("watched")
    text_only = config(monitor_claims_func=None, monitor_claims_column=None)
    monitor = watch(watched, text_only, rows=text_dataset(5))
    watched.train()
    assert_identical(plain, watched)
    assert len(set(losses(watched))) == 3
    assert len(set(logged(watched, "other_entropy").values())) == 4
    assert monitor.history[0]["figures"]["num_responses"] == 5


def test_the_random_state_is_the_callers(internvl_path, tmp_path):
    import random

    import numpy as np

    def disturbing(text, column):
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        return []

    trainer = make_trainer(GRPOTrainer, internvl_path, tmp_path, image_dataset())
    monitor = HallucinationMonitor(trainer, probes(), config(), ProbeFunctions(claims=disturbing))
    frozen = trainer.model.train().model.vision_tower.eval()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    monitor.on_train_begin(trainer.args, trainer.state, trainer.control)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[:2]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert trainer.model.training and not frozen.training
    assert len(monitor.history) == 1


# ---- Cost ----


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_a_probe_waits_until_training_has_paid_for_it(internvl_path, tmp_path):
    """A probe takes 3 s, a step 1 s, and half of the training time is the limit: every sixth step can pay."""
    clock = Clock()

    def slow_claims(text, column):
        clock.now += 3 / 6  # six rows with images
        return []

    def ticking_reward(completion_ids, **kwargs):
        clock.now += 1.0
        return mixed_reward(completion_ids)

    trainer = make_trainer(GRPOTrainer, internvl_path, tmp_path, image_dataset(20), ticking_reward, max_steps=13)
    rows = image_dataset(6, layouts=((1,),))
    settings = config(monitor_max_cost_share=0.5)
    monitor = HallucinationMonitor(trainer, rows, settings, ProbeFunctions(claims=slow_claims), clock=clock)
    trainer.add_callback(monitor)
    trainer.train()
    assert [entry["step"] for entry in monitor.history] == [0, 6, 12]
    assert [entry["seconds"] for entry in monitor.history] == pytest.approx([3.0] * 3)
    assert logged(trainer, "postponed") == {
        step: float(count) for count, step in enumerate([1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 13], start=1)
    }
    assert logged(trainer, "cost_share") == pytest.approx({6: 6 / 6, 12: 9 / 12})


def test_rows_and_tokens_are_bounded(internvl_path, tmp_path):
    trainer = make_trainer(GRPOTrainer, internvl_path, tmp_path, image_dataset(), max_steps=1)
    monitor = watch(trainer, config(monitor_max_rows=3, monitor_max_new_tokens=2))
    trainer.train()
    assert monitor.history[-1]["figures"]["num_responses"] == 3
    assert monitor.history[-1]["figures"]["mean_tokens"] <= 2


# ---- Acting ----


def test_flagged_responses_are_written_with_their_images(internvl_path, tmp_path, monkeypatch):
    from datasets import load_dataset
    from PIL import Image

    trainer = make_trainer(GRPOTrainer, internvl_path, tmp_path, image_dataset(), max_steps=1)
    monitor = watch(trainer, config(monitor_min_gap=1e9))  # every image row is flagged
    monkeypatch.setattr("trl_r1v2.hallucination.monitor.MAX_FLAGGED", 4)
    trainer.train()
    table = load_dataset("parquet", data_files=str(monitor.folder / "flagged-00000001.parquet"), split="train")
    assert table["row"] == [0, 1, 3, 4]  # row 2 has no image
    for line in table:
        source = monitor.probe.dataset[line["row"]]
        assert "ungrounded" in line["flags"] and line["question"] == source["prompt"][0]["content"]
        assert line["unsupported"] == vowels(line["response"], None)
        assert ("unsupported claim" in line["flags"]) == bool(line["unsupported"])
        images = [Image.open(monitor.folder / name) for name in line["images"]]
        assert [image.tobytes() for image in images] == [image.tobytes() for image in source["images"]]
    assert not list(monitor.folder.rglob("*.tmp"))


def read_tables(monitor):
    from datasets import load_dataset

    return load_dataset("parquet", data_files=str(monitor.folder / "flagged-*.parquet"), split="train")


def test_the_tables_of_a_run_read_as_one(internvl_path, tmp_path):
    """The first probe finds no claims and answers no probe, so that its table holds empty lists and nulls only."""
    trainer = make_trainer(GRPOTrainer, internvl_path, tmp_path, image_dataset(), max_steps=1)
    rows = image_dataset(4, layouts=((1,),)).add_column("present", ["yes", "no"] * 2)
    settings = config(monitor_min_gap=1e9, monitor_object_column="present")
    claims = ProbeFunctions(claims=lambda text, column: ["a unicorn"] if trainer.state.global_step else [])
    monitor = HallucinationMonitor(trainer, rows, settings, claims)
    trainer.add_callback(monitor)
    trainer.train()
    table = read_tables(monitor)
    assert table["step"] == [0] * 4 + [1] * 4
    assert table["unsupported"] == [[]] * 4 + [["a unicorn"]] * 4
    assert table["truth"] == [True, False] * 4 and set(table["reward"]) == {None}


@pytest.mark.parametrize(
    "mode, file_format", [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("P", "PNG"), ("LA", "PNG"), ("RGB", "PNG")]
)
def test_images_of_any_mode_are_written(mode, file_format, internvl_path, tmp_path):
    from io import BytesIO

    from PIL import Image

    from tests.support.ssb_runs import image
    from trl_r1v2.images.processing import load_image

    rows = []
    for row in range(2):
        encoded = BytesIO()
        image(row).convert(mode).save(encoded, file_format)
        rows.append(
            {"prompt": [{"role": "user", "content": "n"}], "images": [{"bytes": encoded.getvalue()}], "row": row}
        )
    features = Features({**image_dataset(1).features, "images": List(ImageFeature())})
    features.pop("fate")
    trainer = make_trainer(GRPOTrainer, internvl_path, tmp_path, image_dataset(), max_steps=1)
    monitor = watch(trainer, config(monitor_min_gap=1e9), rows=Dataset.from_list(rows, features=features))
    trainer.train()
    table = read_tables(monitor)
    assert table["row"] == [0, 1] * 2  # of two probes
    for line in table:
        (name,) = line["images"]
        assert Image.open(monitor.folder / name).tobytes() == load_image(rows[line["row"]]["images"][0]).tobytes()
    assert len(list((monitor.folder / "images").iterdir())) == 2


def test_a_second_run_into_the_folder_leaves_nothing_of_the_first(internvl_path, tmp_path):
    from PIL import Image

    from tests.support.ssb_runs import image

    def run(rows, **settings):
        trainer = make_trainer(GRPOTrainer, internvl_path, tmp_path, image_dataset(), max_steps=1)
        monitor = watch(trainer, config(monitor_min_gap=1e9, **settings), rows=rows)
        trainer.train()
        return monitor

    first = image_dataset(2, layouts=((1,),))
    folder = run(first).folder
    (folder / "threshold.json").write_text("{}")
    (folder / "notes.txt").write_text("of the user")
    second = Dataset.from_list([{**row, "images": [image(9000 + index)]} for index, row in enumerate(first)])
    monitor = run(second, monitor_at_start=False)
    assert sorted(path.name for path in folder.iterdir()) == ["flagged-00000001.parquet", "images", "notes.txt"]
    for line in read_tables(monitor):
        shown = Image.open(folder / line["images"][0])
        assert shown.tobytes() == second[line["row"]]["images"][0].tobytes()
    assert len(list((folder / "images").iterdir())) == 2


def test_a_blind_model_stops_the_run(internvl_path, tmp_path):
    from tests.support.seeing import blinded

    trainer = make_trainer(GRPOTrainer, internvl_path, tmp_path, image_dataset(), max_steps=6)
    settings = config(monitor_watch="ungrounded_rate", monitor_stop_above=0.99, monitor_stop_patience=2)
    watch(trainer, settings)
    handles = []

    def blind_at_the_second_step(completion_ids, trainer_state, **kwargs):
        if trainer_state.global_step == 1 and not handles:
            handles.append(blinded(trainer.model))
        return mixed_reward(completion_ids)

    trainer.reward_funcs[0] = blind_at_the_second_step
    trainer.train()
    rates = logged(trainer, "ungrounded_rate")
    assert rates[0] < 1 and rates[1] < 1 and rates[2] == rates[3] == 1.0
    assert trainer.state.global_step == 3  # the second probe in a row
    assert logged(trainer, "grounding_gap")[2] == 0.0


def gated_reward():
    def likes_anything(completion_ids, **kwargs):
        return [float(len(ids)) for ids in completion_ids]

    def rule(completion_ids, **kwargs):
        return mixed_reward(completion_ids)

    return HybridReward({"accuracy": rule, "reward_model": Component(likes_anything, min_score=0.0)})


def controlled(cls, internvl_path, folder, reward, max_steps=4, clock=None, **settings):
    trainer = make_trainer(cls, internvl_path, folder, image_dataset(20), reward, max_steps=max_steps, **settings)
    controller = RewardThresholdController(
        target=0.1, initial=0.0, minimum=0.0, maximum=8.0, gain=4.0, max_step=3.0, dead_band=0.02, patience=1
    )
    monitor = watch(
        trainer,
        controller=controller,
        set_threshold=lambda value: reward.set_min_score("reward_model", value),
        **({} if clock is None else {"clock": lambda: float(trainer.state.global_step)}),
    )
    return trainer, monitor


def test_the_controller_moves_the_gate_of_the_hybrid_reward(internvl_path, tmp_path):
    reward = gated_reward()
    trainer, monitor = controlled(GRPOTrainer, internvl_path, tmp_path, reward)
    gates = []
    score = reward.components["reward_model"].reward

    def recording(completion_ids, **kwargs):
        gates.append(reward.components["reward_model"].min_score)
        return score(completion_ids)

    reward.components["reward_model"].reward = recording
    trainer.train()
    # the formula, from the logged rates alone
    threshold, expected = 0.0, {}
    for step, rate in logged(trainer, "rate").items():
        if abs(rate - 0.1) > 0.02:
            size = min(4.0 * abs(rate - 0.1), 3.0)
            threshold = min(max(threshold + (size if rate > 0.1 else -size), 0.0), 8.0)
        expected[step] = threshold
    assert logged(trainer, "threshold") == pytest.approx(expected)
    assert gates == pytest.approx(list(expected.values())[:4])  # in force from the next generation on
    assert len(set(gates)) > 1

    content = read_threshold_file(monitor.folder / "threshold.json")
    assert content["chosen_threshold"] == monitor.controller.threshold and content["source"] == "controller"
    moves = [json.loads(line) for line in (monitor.folder / "moves.jsonl").read_text().splitlines()]
    assert moves == monitor.controller.state_dict()["moves"] and all("rate 0." in move["cause"] for move in moves)


# ---- Resuming ----


class AtStart(TrainerCallback):
    """Looks on when the monitor has begun."""

    def __init__(self, look):
        self.look = look

    def on_train_begin(self, args, state, control, **kwargs):
        self.look()


def test_resuming_restores_monitor_and_controller(internvl_path, tmp_path):
    whole_reward, reward = gated_reward(), gated_reward()
    saving = {"save_strategy": "steps", "save_steps": 2, "clock": True}
    whole, whole_monitor = controlled(SSBGRPOTrainer, internvl_path, tmp_path / "a", whole_reward, 5, **saving)
    whole.train()
    checkpoint = tmp_path / "a" / "checkpoint-2"
    saved = json.loads((checkpoint / "trainer_state.json").read_text())["stateful_callbacks"]["hallucination_monitor"]
    assert [entry["step"] for entry in saved["probes"]] == [0, 1, 2] and saved["controller"]["num_observations"] == 3

    resumed, monitor = controlled(SSBGRPOTrainer, internvl_path, tmp_path / "b", reward, 5, **saving)
    (tmp_path / "b" / "hallucination").mkdir(parents=True)
    for step in (1, 4):  # of the interrupted run: one before its checkpoint, one after it
        (tmp_path / "b" / "hallucination" / f"flagged-{step:08d}.parquet").write_bytes(b"")
    first, tables = [], []
    load = monitor.load_state_dict
    monitor.load_state_dict = lambda state: (load(state), first.append(json.loads(json.dumps(monitor.state_dict()))))
    resumed.add_callback(AtStart(lambda: tables.extend(path.name for path in monitor.folder.glob("flagged-*"))))
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert first == [saved] and tables == ["flagged-00000001.parquet"]
    assert monitor.state_dict() == whole_monitor.state_dict()
    assert [entry["step"] for entry in monitor.history] == [0, 1, 2, 3, 4, 5]
    assert reward.components["reward_model"].min_score == whole_reward.components["reward_model"].min_score
    assert len(monitor.controller.moves) > 1
    assert losses(resumed) == losses(whole)


def test_the_reason_of_a_threshold_outlives_a_resume(internvl_path, tmp_path):
    """The last move was before the checkpoint, to the bound, and there is no other."""

    def run(folder, **kwargs):
        trainer = make_trainer(
            GRPOTrainer, internvl_path, folder, image_dataset(), max_steps=2, save_strategy="steps", save_steps=1
        )
        controller = RewardThresholdController(0.0, 0.0, 0.0, 4.0, max_step=4.0, dead_band=0.0)
        rows = image_dataset(2, layouts=((1,),))
        monitor = HallucinationMonitor(trainer, rows, config(), ProbeFunctions(claims=lambda *_: ["x"]), controller)
        trainer.add_callback(monitor)
        trainer.train(**kwargs)
        return json.loads((monitor.folder / "threshold.json").read_text())

    whole = run(tmp_path / "a")
    resumed = run(tmp_path / "b", resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-1"))
    assert resumed["reason"] == whole["reason"] and "rate 1.000 is above 0" in resumed["reason"]


def test_a_second_run_starts_its_own_history(internvl_path, tmp_path):
    trainer = make_trainer(GRPOTrainer, internvl_path, tmp_path, image_dataset(), max_steps=1)
    monitor = watch(trainer)
    trainer.train()
    trainer.train()
    assert [entry["step"] for entry in monitor.history] == [0, 1]


def test_state_of_another_monitor_is_refused(internvl_path, tmp_path):
    trainer = make_trainer(GRPOTrainer, internvl_path, tmp_path, image_dataset(), max_steps=1)
    state = watch(trainer).state_dict()
    other = watch(trainer, config(monitor_watch="ungrounded_rate"))
    with pytest.raises(ValueError, match="watched rate without .*, this one watched ungrounded_rate"):
        other.load_state_dict(state)
    controller = RewardThresholdController(0.1, 0.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="watched rate without a threshold controller, this one watched rate with a"):
        watch(trainer, controller=controller).load_state_dict(state)
    with pytest.raises(ValueError, match="unknown fields: surplus"):
        other.load_state_dict(state | {"surplus": 1})


# ---- Settings ----


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"monitor_every": 0}, "`monitor_every` is 0; give at least 1"),
        ({"monitor_max_cost_share": 0.0}, "`monitor_max_cost_share` is 0.0"),
        ({"monitor_signals": ["named_object"]}, "`monitor_signals` holds 'named_object'"),
        ({"monitor_signals": ["object_probes"]}, "the signal object_probes needs `monitor_object_column`"),
        ({"monitor_stop_above": 0.5, "monitor_claims_func": None, "monitor_claims_column": None},
         "watch `rate`, which the signal named_objects gives, but that is off: set `monitor_claims_func`"),
        ({"monitor_claims_column": None}, "belong together"),
        ({"monitor_watch": "wrong_above_threshold"}, "set `monitor_reward_threshold`"),
        ({"monitor_watch": "seconds"}, "choose one of rate, chair_i"),
    ],
)  # fmt: skip
def test_settings_out_of_bounds(settings, message):
    with pytest.raises(ValueError, match=message):
        config(**settings)


def test_sharded_weights_are_refused(internvl_path, tmp_path):
    trainer = make_trainer(GRPOTrainer, internvl_path, tmp_path, image_dataset(), max_steps=1)
    monitor = watch(trainer)
    trainer.is_fsdp_enabled = True
    with pytest.raises(ValueError, match="FSDP does not keep: use DDP"):
        monitor.on_train_begin(trainer.args, trainer.state, trainer.control)


def test_a_threshold_needs_a_controller(internvl_path, tmp_path):
    trainer = make_trainer(GRPOTrainer, internvl_path, tmp_path, image_dataset(), max_steps=1)
    with pytest.raises(ValueError, match="without a `controller`"):
        watch(trainer, set_threshold=print)
    with pytest.raises(ValueError, match="controller has to watch `blind_phrase_rate`"):
        blind = config(monitor_watch="blind_phrase_rate", monitor_signals=["named_objects"])
        watch(trainer, blind, controller=RewardThresholdController(0.1, 0.0, 0.0, 1.0))
