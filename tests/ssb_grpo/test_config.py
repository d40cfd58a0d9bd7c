# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""What the configuration refuses, what the trainer refuses when it is built, and where the settings arrive."""

import dataclasses

import pytest
from trl import GRPOConfig, TrlParser

from tests.support.ssb_runs import SSBGRPOTrainer, image_dataset, make_trainer, text_dataset
from trl_r1v2 import SSBGRPOConfig
from trl_r1v2.ssb_grpo.refusals import UNSUPPORTED_MODEL_TYPES, refuse_unsupported


OURS = [field for field in dataclasses.fields(SSBGRPOConfig) if field.name.startswith("ssb_")]


def config(tmp_path, **settings):
    return SSBGRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", **settings)


# ---- Values ----


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ssb_mode": "papper"}, r"`ssb_mode` is 'papper' but must be one of \['paper', 'fresh'\]"),
        ({"ssb_replay": "all"}, r"`ssb_replay` is 'all' but must be one of \['dead', 'share'\]"),
        ({"ssb_resume": "no"}, r"`ssb_resume` is 'no' but must be one of \['exact', 'reshard', 'empty'\]"),
        *(
            ({name: value}, f"`{name}` is {value} but must be positive")
            for name in ("ssb_capacity", "ssb_max_bytes", "ssb_pixel_bytes", "ssb_age_decay", "ssb_max_age")
            for value in (0, -3)
        ),
        ({"ssb_max_uses": 0}, "`ssb_max_uses` is 0 but must be positive"),
        ({"ssb_priority_exponent": -0.5}, "`ssb_priority_exponent` is -0.5 but must not be negative"),
        ({"ssb_judge_tolerance": -1e-9}, "`ssb_judge_tolerance` is -1e-09 but must not be negative"),
        ({"ssb_resample_rounds": -1}, "`ssb_resample_rounds` is -1 but must not be negative"),
        *(({name: None}, f"`{name}` is unset") for name in ("ssb_capacity", "ssb_pixel_bytes", "ssb_age_decay")),
        *(({"ssb_max_replay_fraction": value}, r"must be in \[0, 1\]") for value in (-0.1, 1.1)),
        ({"ssb_max_replay_fraction": 0.0}, "nothing would ever be replayed.*ssb_enabled=False.*ssb_resample_rounds"),
        ({"ssb_prefill": ""}, "`ssb_prefill` is empty"),
        *(({"ssb_replay_share": value}, "must be strictly between 0 and 1") for value in (0.0, 1.0)),
        *(({"ssb_skip_probability": value}, r"must be in \[0, 1\)") for value in (-0.1, 1.0)),
        (
            {"ssb_replay": "share", "ssb_replay_share": 0.5, "ssb_max_replay_fraction": 0.4},
            r"`ssb_replay_share` \(0.5\) exceeds `ssb_max_replay_fraction` \(0.4\)",
        ),
    ],
)
def test_values_are_checked(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **settings)


def test_bounds_themselves_are_allowed(tmp_path):
    config(
        tmp_path,
        ssb_capacity=1,
        ssb_max_age=1,
        ssb_max_uses=1,
        ssb_priority_exponent=0.0,
        ssb_judge_tolerance=0.0,
        ssb_max_replay_fraction=1.0,
        ssb_skip_probability=0.0,
    )
    config(tmp_path, ssb_max_age=None, ssb_max_uses=None, ssb_max_bytes=None)


def test_every_field_has_help_and_choices_match_the_check(tmp_path):
    stock = {field.name for field in dataclasses.fields(GRPOConfig)}
    assert OURS and not stock & {field.name for field in OURS}
    for field in OURS:
        assert len(field.metadata["help"]) > 20
        for choice in field.metadata.get("choices", []):
            extra = {"ssb_max_replay_fraction": 1.0} if choice == "share" else {}
            assert dataclasses.asdict(config(tmp_path, **{field.name: choice}, **extra))[field.name] == choice


def test_command_line(tmp_path):
    """Optional numbers, flags and choices arrive as what they are."""
    parser = TrlParser((SSBGRPOConfig,))
    arguments = ["--output_dir", str(tmp_path), "--use_cpu", "--bf16", "False", "--report_to", "none"]
    [parsed] = parser.parse_args_and_config([*arguments, "--ssb_max_bytes", "5000", "--ssb_mode", "fresh"])
    assert (parsed.ssb_max_bytes, parsed.ssb_mode, parsed.ssb_enabled) == (5000, "fresh", True)
    [parsed] = parser.parse_args_and_config([*arguments, "--ssb_enabled", "False"])
    assert parsed.ssb_enabled is False


# ---- What the trainer refuses ----


def test_plain_grpo_config_is_refused(text_model_path, tmp_path):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(text_model_path)
    args = GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none")
    with pytest.raises(TypeError, match="`args` is a GRPOConfig but must be an `SSBGRPOConfig`"):
        SSBGRPOTrainer(model, lambda completions, **kwargs: [], args, text_dataset())


@pytest.mark.parametrize(
    ("settings", "streaming", "message"),
    [
        ({"sync_ref_model": True, "beta": 0.1}, False, "`sync_ref_model=True` moves the reference model"),
        ({"ssb_resample_rounds": 1}, True, "`ssb_resample_rounds` needs prompts it can look up"),
        ({"ssb_skip_probability": 0.5}, True, "`ssb_skip_probability` needs a map-style training dataset"),
        (
            {"ssb_replay": "share", "ssb_replay_share": 0.4, "per_device_train_batch_size": 8},
            False,
            r"`ssb_replay_share` \(0.4\) of a process's 8 rows is less than one group of 4",
        ),
    ],
    ids=["sync_ref_model", "resample_stream", "skip_stream", "small_share"],
)
def test_combinations_are_refused_at_construction(settings, streaming, message, text_model_path, tmp_path):
    dataset = text_dataset().to_iterable_dataset() if streaming else text_dataset()
    with pytest.raises(ValueError, match=message):
        make_trainer(SSBGRPOTrainer, text_model_path, tmp_path, dataset, **settings)
    make_trainer(SSBGRPOTrainer, text_model_path, tmp_path, dataset, ssb_enabled=False, **settings)


def test_groups_split_over_processes_cannot_be_left_out(tmp_path):
    """Each of two processes holds half of every group."""
    args = config(
        tmp_path, per_device_train_batch_size=4, num_generations=4, gradient_accumulation_steps=2, ssb_replay="share"
    )
    refuse_unsupported(args, "qwen2", text_dataset(), False)
    args.num_generations = 16
    with pytest.raises(ValueError, match=r"\(8\) must be divisible by `num_generations` \(16\)"):
        refuse_unsupported(args, "qwen2", text_dataset(), False)


@pytest.mark.parametrize("model_type", UNSUPPORTED_MODEL_TYPES)
def test_padded_image_layouts_are_refused(model_type, tmp_path):
    with pytest.raises(ValueError, match=f"'{model_type}' pad images to one block"):
        refuse_unsupported(config(tmp_path), model_type, image_dataset(1), False)


def test_environments_cannot_look_prompts_up(tmp_path):
    with pytest.raises(ValueError, match="no `environment_factory`"):
        refuse_unsupported(config(tmp_path, ssb_resample_rounds=1), "qwen2", text_dataset(1), True)


# ---- Where settings arrive ----


@pytest.mark.parametrize("mode", ["paper", "fresh"])
def test_settings_reach_the_buffer(mode, text_model_path, tmp_path):
    trainer = make_trainer(
        SSBGRPOTrainer,
        text_model_path,
        tmp_path,
        text_dataset(),
        ssb_mode=mode,
        ssb_capacity=7,
        ssb_priority_exponent=0.5,
        ssb_age_decay=3.0,
        ssb_max_age=5,
        ssb_max_uses=2,
        ssb_max_bytes=999,
        ssb_seed=11,
    )
    buffer = trainer.buffer
    # In the paper's mode age does not count, whatever the decay is set to.
    assert buffer.age_decay == (None if mode == "paper" else 3.0)
    assert (buffer.capacity, buffer.priority_exponent, buffer.max_age) == (7, 0.5, 5)
    assert (buffer.max_uses, buffer.max_bytes, buffer.seed) == (2, 999, 11)


def test_disabled_has_no_buffer(text_model_path, tmp_path):
    assert make_trainer(SSBGRPOTrainer, text_model_path, tmp_path, text_dataset(), ssb_enabled=False).buffer is None


def test_model_card_cites_the_paper(text_model_path, tmp_path):
    trainer = make_trainer(SSBGRPOTrainer, text_model_path, tmp_path, text_dataset())
    trainer.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert "2504.16656" in card and "ssb-grpo" in card and "SSB-GRPO" in card


def test_misspelt_judge_is_refused_when_the_trainer_is_built(text_model_path, tmp_path):
    with pytest.raises(ValueError, match="did you mean 'mixed_reward'"):
        make_trainer(SSBGRPOTrainer, text_model_path, tmp_path, text_dataset(), ssb_judge="mixd_reward")
