# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""A packed forward and its gradients against the padded forward of the same rows, for every architecture served."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    Qwen2Config,
)
from transformers.integrations import flash_attention

from tests.support.packed_rows import IMAGE_MODELS, IMAGE_TOKEN, TEXT, TEXT_MODELS, make_model, make_rows
from trl_r1v2.prompt_sharing.attention import LAYOUT
from trl_r1v2.prompt_sharing.model import PromptSharing


GROUPS = [[3, 7, 1, 5], [4], [2, 6]]
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
PER_TOKEN = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")


def run(model, call, rows):
    """Outputs and gradients of a loss that weighs each token's log-probability and entropy differently."""
    model.zero_grad()
    outputs = call(**rows, fused_lm_head=True)
    weights = torch.randn(outputs.log_probs.shape, generator=torch.Generator().manual_seed(1))
    ((outputs.log_probs + 0.3 * outputs.entropy) * weights).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return outputs, gradients


def assert_same_with_sharing(model, rows):
    expected, expected_gradients = run(model, model, rows)
    shared, gradients = run(model, PromptSharing(model).wrap(model), rows)
    assert expected.log_probs.abs().max() > 1
    for name in PER_TOKEN:
        torch.testing.assert_close(shared[name], expected[name], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shared.loss, expected.loss, atol=1e-5, rtol=1e-5)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-5 * float(gradient.abs().max()) + 1e-7, rtol=0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", TEXT_MODELS)
def test_text_models_return_the_same(kind, attention):
    assert_same_with_sharing(make_model(kind, attention), make_rows(kind, GROUPS))


@pytest.mark.parametrize("is_long", [False, True])
def test_dynamic_embeddings_share_up_to_the_positions_that_were_trained(is_long):
    """InternVL3's configurations have them. Beyond, the longest row of a batch chooses all rows' frequencies."""
    rows = make_rows("qwen2", GROUPS)
    longest = int(rows["attention_mask"].sum(dim=1).max())
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    model = make_model("llama", max_position_embeddings=longest - is_long, rope_parameters=rope)
    widths = []
    model.get_decoder().layers[0].register_forward_pre_hook(lambda layer, args: widths.append(args[0].size(1)))
    assert_same_with_sharing(model, rows)
    unshared = rows["input_ids"].size(1)
    assert (widths[-1] == unshared) is is_long


@pytest.mark.parametrize("images", [[2, 1, 3], [2, 0, 1], None], ids=["images", "text among images", "text"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", IMAGE_MODELS)
def test_models_with_images_return_the_same(kind, attention, images):
    model, rows = make_model(kind, attention), make_rows(kind, GROUPS, images)
    assert_same_with_sharing(model, rows)
    if images:  # the images matter, so that wrong ones would have been noticed
        other = {**rows, "pixel_values": rows["pixel_values"].flip(0)}
        assert not torch.allclose(
            model(**other, fused_lm_head=True).log_probs, model(**rows, fused_lm_head=True).log_probs
        )


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("kind", ["qwen2", "internvl", "qwen2_5_vl"])
def test_activation_checkpointing_recomputes_the_same(kind, use_reentrant):
    model = make_model(kind)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model.enable_input_require_grads()
    assert_same_with_sharing(model, make_rows(kind, GROUPS, [1, 2, 0] if kind in IMAGE_MODELS else None))


def test_masked_out_answers_and_those_of_one_token():
    assert_same_with_sharing(make_model("qwen2"), make_rows("qwen2", [[3, 7, 1], [4], [1, 1]], masked=(1, 3)))


def test_prompts_of_one_token():
    rows = make_rows("qwen2", [[3, 4], [5]])
    first = rows["labels"][0].ne(-100).int().argmax()
    rows["attention_mask"][:, : first - 1] = 0
    rows["input_ids"][:2, first - 1] = 7
    assert_same_with_sharing(make_model("qwen2"), rows)


def test_right_padded_rows_of_pairs():
    rows = make_rows("qwen2", [[3, 4], [5, 1]])
    shifts = rows["attention_mask"].argmax(dim=1).tolist()
    rows = {
        name: torch.stack([row.roll(-shift) for row, shift in zip(value, shifts, strict=True)])
        for name, value in rows.items()
    }
    assert rows["attention_mask"][:, 0].all()
    assert_same_with_sharing(make_model("qwen2"), rows)


def test_rows_with_other_images_share_nothing():
    model, rows = make_model("internvl"), make_rows("internvl", [[3, 5, 2]], [1])
    rows["pixel_values"][1] += 1.0
    assert_same_with_sharing(model, rows)
    tiles = count_tiles(model)
    PromptSharing(model).wrap(model)(**rows, fused_lm_head=True)
    assert tiles == [2]


def test_a_prompt_that_ends_with_an_image_is_not_repeated():
    rows = make_rows("internvl", [[3, 5]], [1])
    width = int((rows["labels"][0] != -100).int().argmax())
    end = int((rows["input_ids"][0] == IMAGE_TOKEN).nonzero().max()) + 1
    keep = [*range(end), *range(width, rows["input_ids"].size(1))]
    rows = {name: value if name == "pixel_values" else value[:, keep] for name, value in rows.items()}
    assert_same_with_sharing(make_model("internvl"), rows)


def count_tiles(model) -> list[int]:
    counts = []
    model.model.vision_tower.register_forward_pre_hook(
        lambda module, args, kwargs: counts.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    return counts


def test_each_token_and_tile_passes_once():
    model, rows = make_model("internvl"), make_rows("internvl", GROUPS, [2, 0, 1])
    tiles, tokens = count_tiles(model), []
    model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: tokens.append(kwargs["inputs_embeds"].shape[:2].numel()), with_kwargs=True
    )
    sharing = PromptSharing(model)
    sharing.wrap(model)(**rows, fused_lm_head=True)
    prompts = [int(rows["attention_mask"][row].sum() - (rows["labels"][row] != -100).sum()) for row in (0, 4, 5)]
    answers = int((rows["labels"] != -100).sum())
    assert tokens == [sum(prompts) - 3 + 7 + answers]
    assert tiles == [3 + 1]


def test_sampled_image_tokens_are_named():
    rows = make_rows("internvl", [[3, 5]], [1])
    rows["input_ids"][0, -4] = IMAGE_TOKEN
    model = make_model("internvl")
    with pytest.raises(ValueError, match="9 image tokens, but their images stand for 8"):
        PromptSharing(model).wrap(model)(**rows, fused_lm_head=True)


def test_inputs_that_it_does_not_know_are_named():
    rows = make_rows("qwen2", GROUPS)
    model = make_model("qwen2")
    with pytest.raises(ValueError, match="token_type_ids"):
        PromptSharing(model).wrap(model)(**rows, token_type_ids=rows["input_ids"], fused_lm_head=True)


def test_a_layout_that_reaches_no_attention_of_ours_fails_loudly():
    """Were the layout lost on the way, the forward must not go on with full attention."""
    model, rows = make_model("qwen2"), make_rows("qwen2", GROUPS)

    def without_layout(**inputs):
        inputs.pop(LAYOUT)
        return model(**inputs)

    with pytest.raises(RuntimeError):
        PromptSharing(model).wrap(without_layout)(**rows, fused_lm_head=True)


def flash_varlen(query, key, value, cu_seqlens_q, cu_seqlens_k, causal, softmax_scale, **kwargs):
    """What FlashAttention computes for sequences of different lengths: causal, aligned with the last key."""
    assert causal
    groups = query.size(1) // key.size(1)
    outputs = []
    bounds = zip(cu_seqlens_q[:-1], cu_seqlens_q[1:], cu_seqlens_k[:-1], cu_seqlens_k[1:], strict=True)
    for query_start, query_end, key_start, key_end in bounds:
        q = query[query_start:query_end].transpose(0, 1)
        k, v = (x[key_start:key_end].transpose(0, 1).repeat_interleave(groups, dim=0) for x in (key, value))
        mask = torch.ones(q.size(1), k.size(1), dtype=torch.bool).tril(k.size(1) - q.size(1))
        output = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=softmax_scale)
        outputs.append(output.transpose(0, 1))
    return torch.cat(outputs)


@pytest.mark.parametrize("kind", ["qwen2", "internvl"])
def test_flash_attention_is_given_the_same_sequences(kind, monkeypatch):
    """The kernel is replaced by the computation that it is documented to do; no GPU here."""
    rows = make_rows(kind, GROUPS, [1, 2, 0] if kind == "internvl" else None)
    model = make_model(kind)
    expected, expected_gradients = run(model, model, rows)
    calls = []

    def forward(
        query, key, value, attention_mask, *, cu_seq_lens_q, cu_seq_lens_k, is_causal, softmax_scale, **kwargs
    ):
        assert attention_mask is None
        calls.append((kwargs["max_length_q"], kwargs["max_length_k"]))
        assert calls[-1] == (int(cu_seq_lens_q.diff().max()), int(cu_seq_lens_k.diff().max()))
        return flash_varlen(query[0], key[0], value[0], cu_seq_lens_q, cu_seq_lens_k, is_causal, softmax_scale)[None]

    monkeypatch.setattr(flash_attention, "_flash_attention_forward", forward)
    model.get_decoder().config._attn_implementation = "flash_attention_2"
    shared, gradients = run(model, PromptSharing(model).wrap(model), rows)
    assert len(calls) == 2  # one a layer
    torch.testing.assert_close(shared.log_probs, expected.log_probs, atol=1e-5, rtol=1e-5)
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-5 * float(gradient.abs().max()) + 1e-7, rtol=0)


def test_other_forwards_are_left_alone():
    """Registering changes nothing for calls without a layout, generation included."""
    model, rows = make_model("qwen2"), make_rows("qwen2", GROUPS)
    prompt = {"input_ids": rows["input_ids"][:, :5], "attention_mask": rows["attention_mask"][:, :5]}
    before = model(**rows).logits
    generated = model.generate(**prompt, max_new_tokens=5, do_sample=False)
    PromptSharing(model)
    assert model.config._attn_implementation == "sdpa"
    torch.testing.assert_close(model(**rows).logits, before, atol=0, rtol=0)
    assert torch.equal(model.generate(**prompt, max_new_tokens=5, do_sample=False), generated)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (MistralConfig(**TEXT, sliding_window=8), "sliding window of 8"),
        (Qwen2Config(**TEXT, use_sliding_window=True, sliding_window=8, max_window_layers=1), "sliding_attention"),
        (Gemma3TextConfig(**TEXT, head_dim=8), "gemma3_text"),
        (LlamaConfig(**TEXT, rope_parameters=LONGROPE), "'longrope'"),
    ],
)
def test_models_that_it_cannot_serve_are_refused_by_name(config, reason):
    with pytest.raises(ValueError, match=reason):
        PromptSharing(AutoModelForCausalLM.from_config(config))


def test_attention_that_it_cannot_serve_is_refused_by_name():
    model = LlamaForCausalLM(LlamaConfig(**TEXT))
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(ValueError, match="flex_attention"):
        PromptSharing(model)
