# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""What the configuration refuses, what the trainer refuses when it is built, and where the settings arrive."""

import dataclasses
import re

import pytest
from trl import GRPOConfig, TrlParser

from tests.support.ssb_runs import SSBGRPOTrainer, make_trainer, text_dataset
from trl_r1v2 import SSBGRPOConfig


OURS = [field for field in dataclasses.fields(SSBGRPOConfig) if field.name.startswith("ssb_")]


def config(tmp_path, **settings):
    return SSBGRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", **settings)


# ---- Values ----


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ssb_resume": "no"}, r"`ssb_resume` is 'no' but must be one of \('exact', 'reshard', 'empty'\)"),
        ({"ssb_replay": "no"}, r"`ssb_replay` is 'no' but must be one of \('dead', 'append', 'none'\)"),
        ({"ssb_replay": "append"}, "must be above 0 with `ssb_replay='append'`"),
        ({"ssb_replay": "none", "ssb_replay_share": 0.5}, "and 0 with 'none'"),
        *(
            ({name: value}, f"`{name}` is {value} but must be positive")
            for name in ("ssb_capacity", "ssb_pixel_bytes", "ssb_age_decay", "ssb_max_age")
            for value in (0, -3)
        ),
        ({"ssb_max_uses": 0}, "`ssb_max_uses` is 0 but must be positive"),
        ({"ssb_priority_exponent": -0.5}, "`ssb_priority_exponent` is -0.5 but must not be negative"),
        ({"ssb_judge_tolerance": -1e-9}, "`ssb_judge_tolerance` is -1e-09 but must not be negative"),
        ({"ssb_resample_rounds": -1}, "`ssb_resample_rounds` is -1 but must not be negative"),
        *(({name: None}, f"`{name}` is None but must be positive") for name in ("ssb_capacity", "ssb_pixel_bytes")),
        *(({"ssb_replay_share": value}, "must be at least 0 and below 1") for value in (-0.1, 1.0)),
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
        ssb_replay_share=0.0,
    )
    config(tmp_path, ssb_max_age=None, ssb_max_uses=None, ssb_age_decay=None)


def test_every_field_is_documented_and_choices_pass_the_check(tmp_path):
    stock = {field.name for field in dataclasses.fields(GRPOConfig)}
    assert OURS and not stock & {field.name for field in OURS}
    for field in OURS:
        assert len(field.metadata["help"]) > 20
        default = "" if field.default is None else f", defaults to `{field.default!r}`"
        if field.name in ("ssb_pixel_bytes", "ssb_judge_tolerance"):
            default = {"ssb_pixel_bytes": ", defaults to `2**30`", "ssb_judge_tolerance": ", defaults to `1e-6`"}[
                field.name
            ]
        elif isinstance(field.default, str):
            default = f', defaults to `"{field.default}"`'
        assert re.search(
            rf"\n        {field.name} \(`\w+`, \*optional\*{re.escape(default)}\):\n", SSBGRPOConfig.__doc__
        )
    for choice in ("exact", "reshard", "empty"):
        assert repr(choice) in SSBGRPOConfig.__dataclass_fields__["ssb_resume"].metadata["help"]
        assert config(tmp_path, ssb_resume=choice).ssb_resume == choice
    for choice, share in (("dead", 0.0), ("append", 0.5), ("none", 0.0)):
        assert repr(choice) in SSBGRPOConfig.__dataclass_fields__["ssb_replay"].metadata["help"]
        assert config(tmp_path, ssb_replay=choice, ssb_replay_share=share).ssb_replay == choice


def test_command_line(tmp_path):
    """Optional numbers, flags and choices arrive as what they are."""
    parser = TrlParser((SSBGRPOConfig,))
    arguments = ["--output_dir", str(tmp_path), "--use_cpu", "--bf16", "False", "--report_to", "none"]
    [parsed] = parser.parse_args_and_config([*arguments, "--ssb_age_decay", "5", "--ssb_resume", "empty"])
    assert (parsed.ssb_age_decay, parsed.ssb_resume, parsed.ssb_enabled) == (5.0, "empty", True)
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
        ({"ssb_resample_rounds": 1}, True, "`ssb_resample_rounds` needs prompts it can look up"),
        (
            {"ssb_replay_share": 0.4, "per_device_train_batch_size": 8},
            False,
            r"`ssb_replay_share` \(0.4\) of a process's 8 rows of a generation must be 4 rows or more",
        ),
        (
            {
                "ssb_replay": "append",
                "ssb_replay_share": 0.1,
                "per_device_train_batch_size": 4,
                "steps_per_generation": 2,
            },
            False,
            r"`ssb_replay_share` \(0.1\) of a process's 8 rows of a generation must be 2 rows or more",
        ),
    ],
    ids=["resample_stream", "small_share", "less_than_a_row_each"],
)
def test_combinations_are_refused_at_construction(settings, streaming, message, text_model_path, tmp_path):
    dataset = text_dataset().to_iterable_dataset() if streaming else text_dataset()
    with pytest.raises(ValueError, match=message):
        make_trainer(SSBGRPOTrainer, text_model_path, tmp_path, dataset, **settings)
    make_trainer(SSBGRPOTrainer, text_model_path, tmp_path, dataset, ssb_enabled=False, **settings)


def test_groups_divided_between_processes_cannot_be_left_out(text_model_path, tmp_path):
    trainer = make_trainer(SSBGRPOTrainer, text_model_path, tmp_path, text_dataset(), ssb_replay_share=0.5)
    trainer.args.num_generations = 16  # as with two processes of eight rows each
    with pytest.raises(ValueError, match=r"8 rows of a generation must be 16 rows or more, and the rows divisible by"):
        trainer._make_buffer(trainer.args)


# ---- Where settings arrive ----


def test_settings_reach_the_buffer(text_model_path, tmp_path):
    trainer = make_trainer(
        SSBGRPOTrainer,
        text_model_path,
        tmp_path,
        text_dataset(),
        ssb_capacity=7,
        ssb_priority_exponent=0.5,
        ssb_age_decay=3.0,
        ssb_max_age=5,
        ssb_max_uses=2,
        ssb_balance=True,
        seed=11,
    )
    buffer = trainer.buffer
    assert (buffer.capacity, buffer.priority_exponent, buffer.age_decay, buffer.max_age) == (7, 0.5, 3.0, 5)
    assert (buffer.max_uses, buffer.balance, buffer.seed) == (2, True, 11)


def test_disabled_has_no_buffer(text_model_path, tmp_path):
    assert make_trainer(SSBGRPOTrainer, text_model_path, tmp_path, text_dataset(), ssb_enabled=False).buffer is None


def test_model_card_cites_the_paper(text_model_path, tmp_path):
    trainer = make_trainer(SSBGRPOTrainer, text_model_path, tmp_path, text_dataset())
    trainer.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert "2504.16656" in card and "ssb-grpo" in card and "SSB-GRPO" in card
