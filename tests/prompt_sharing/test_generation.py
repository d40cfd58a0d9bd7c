# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Completions and logits of `generate` with prompts that pass once, against those of `generate` alone."""

import pytest
import torch
from transformers import GenerationConfig

from tests.support.packed_rows import IMAGE_MODELS, TEXT_MODELS, make_model, make_rows
from trl_r1v2.prompt_sharing.model import PromptSharing


GROUPS = [[0, 0, 0, 0], [0], [0, 0]]


def generate(model, rows, **settings):
    """Sampled completions, their logits, and the number of rows of each forward."""
    num_rows = []
    hook = model.get_decoder().layers[0].register_forward_pre_hook(lambda layer, args: num_rows.append(len(args[0])))
    torch.manual_seed(0)
    outputs = model.generate(
        **rows,
        do_sample=True,
        max_new_tokens=6,
        return_dict_in_generate=True,
        output_logits=True,
        **settings,
    )
    hook.remove()
    return outputs.sequences, torch.stack(outputs.logits), num_rows


def make_prompts(kind, images=None):
    rows = make_rows(kind, GROUPS, images)
    del rows["labels"]
    return rows


@pytest.mark.parametrize(
    ("kind", "images"),
    [(kind, None) for kind in (*TEXT_MODELS, *IMAGE_MODELS)]
    + [(kind, images) for kind in IMAGE_MODELS for images in ([2, 1, 3], [2, 0, 1])],
)
def test_completions_are_those_of_generate_alone(kind, images):
    model, rows = make_model(kind).eval(), make_prompts(kind, images)
    with PromptSharing(model).in_generate():
        completions, logits, num_rows = generate(model, rows)
    assert num_rows == [3] + [7] * (len(num_rows) - 1)
    expected, expected_logits, num_rows = generate(model, rows)
    assert set(num_rows) == {7}
    assert torch.equal(completions, expected)
    torch.testing.assert_close(logits, expected_logits, atol=1e-5, rtol=1e-5)
    # Rows of a group were sampled apart, and each group is told from the others.
    answers = completions[:, rows["input_ids"].size(1) :]
    assert len({tuple(row) for row in answers.tolist()}) == 7
    assert not torch.allclose(logits[0, 0], logits[0, 4])


def test_prompts_with_other_images_are_others():
    model, rows = make_model("internvl").eval(), make_prompts("internvl", [1, 1, 1])
    rows["pixel_values"][3] = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(5))
    expected, expected_logits, _ = generate(model, rows)
    with PromptSharing(model).in_generate():
        completions, logits, num_rows = generate(model, rows)
    assert num_rows[0] == 4
    assert torch.equal(completions, expected)
    torch.testing.assert_close(logits, expected_logits, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits[0, 3], logits[0, 0])


@pytest.mark.parametrize(
    ("settings", "is_of_model"),
    [
        ({"use_cache": False}, False),
        ({"use_cache": False}, True),
        ({"cache_implementation": "static"}, False),
        ({"cache_implementation": "dynamic"}, False),
        ({"cache_implementation": "dynamic"}, True),
        ({"num_return_sequences": 2}, False),
    ],
    ids=str,
)
def test_other_calls_are_left_alone(settings, is_of_model):
    model, rows = make_model("qwen2").eval(), make_prompts("qwen2")
    if is_of_model:
        model.generation_config.update(**settings)
        settings = {"generation_config": GenerationConfig()}
    expected, expected_logits, _ = generate(model, rows, **settings)
    with PromptSharing(model).in_generate():
        completions, logits, num_rows = generate(model, rows, **settings)
    assert num_rows[0] == len(completions)
    assert torch.equal(completions, expected) and torch.equal(logits, expected_logits)


def test_a_prompt_that_ends_with_an_image_passes_in_each_row():
    model, rows = make_model("internvl").eval(), make_prompts("internvl", [1, 1, 0])
    rows = {name: value[:, :-3] if value.ndim == 2 else value for name, value in rows.items()}
    expected, expected_logits, _ = generate(model, rows)
    with PromptSharing(model).in_generate():
        completions, logits, num_rows = generate(model, rows)
    assert num_rows[0] == 7
    assert torch.equal(completions, expected) and torch.equal(logits, expected_logits)


def test_where_one_process_cannot_share_none_does(monkeypatch):
    model, rows = make_model("qwen2").eval(), make_prompts("qwen2")
    monkeypatch.setattr("trl_r1v2.prompt_sharing.model.gather_object", lambda refusals: [*refusals, True])
    with PromptSharing(model).in_generate():
        _, _, num_rows = generate(model, rows)
    assert num_rows[0] == 7


def test_assisted_decoding_of_one_row_is_left_alone():
    model, rows = make_model("qwen2").eval(), make_prompts("qwen2")
    rows = {name: value[4:5] for name, value in rows.items()}
    expected, *_ = generate(model, rows, prompt_lookup_num_tokens=2)
    with PromptSharing(model).in_generate():
        completions, *_ = generate(model, rows, prompt_lookup_num_tokens=2)
    assert torch.equal(completions, expected)


def test_a_cache_that_is_dropped_costs_no_images():
    model, rows = make_model("internvl").train(), make_prompts("internvl", [1, 1, 1])
    model.gradient_checkpointing_enable()
    expected, expected_logits, _ = generate(model, rows)
    with PromptSharing(model).in_generate():
        completions, logits, _ = generate(model, rows)
    assert torch.equal(completions, expected)
    torch.testing.assert_close(logits, expected_logits, atol=1e-5, rtol=1e-5)


def test_generate_is_afterwards_what_it_was():
    model, rows = make_model("qwen2").eval(), make_prompts("qwen2")
    sharing = PromptSharing(model)
    with pytest.raises(ValueError, match="no_such_setting"), sharing.in_generate():
        model.generate(**rows, no_such_setting=1)
    assert "generate" not in vars(model)
    own = model.generate = lambda *args, **kwargs: "mine"
    with sharing.in_generate(), sharing.in_generate():
        pass
    assert model.generate is own
