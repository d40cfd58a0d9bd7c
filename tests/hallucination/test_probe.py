# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Forward passes against unpadded ones, and a probe of a model that sees, of the same made blind, and of one that lies.
"""

import re

import pytest
import torch
from datasets import Dataset

from tests.support.seeing import blinded, colour_rows, named_colours, train_to_see, unsupported_colours
from trl_r1v2.hallucination import MonitorConfig
from trl_r1v2.hallucination.grounding import image_partners, prompt_with_other_images, response_statistics
from trl_r1v2.hallucination.probe import Probe, ProbeFunctions, _pieces
from trl_r1v2.hallucination.signals import critical_positions
from trl_r1v2.images.processing import load_image
from trl_r1v2.sampling.prompts import encode_prompts, images_of, read_prompt
from trl_r1v2.sampling.rollouts import Rollout


@pytest.fixture(scope="module")
def seeing(internvl_path):
    torch.manual_seed(0)
    return train_to_see(internvl_path)


def rule(completions, solution, **kwargs):
    return [float(completion[0]["content"] == gold) for completion, gold in zip(completions, solution, strict=True)]


def likes_no(completions, **kwargs):
    """A reward model that prefers one answer whatever is right."""
    return [2.0 if completion[0]["content"] == "no" else 1.0 for completion in completions]


def probe_of(rows, **settings):
    defaults = {
        "monitor_max_new_tokens": 8,
        "monitor_batch_size": 16,
        "monitor_temperature": 0,
        "monitor_max_rows": 48,
        "monitor_claims_func": "tests.support.seeing.unsupported_colours",
        "monitor_claims_column": "shown",
        "monitor_object_column": "present",
        "monitor_reward_func": "test_probe.likes_no",
        "monitor_reward_threshold": 1.5,
        "monitor_min_gap": 0.05,
    }
    functions = ProbeFunctions(unsupported_colours, named_colours, rule, likes_no)
    return Probe(rows, MonitorConfig(**(defaults | settings)), functions)


def measured(probe, model, processor):
    records = probe.measure(model, processor, probe.chunks())
    return records, probe.figures(records)


def test_a_sound_model_is_not_flagged_and_a_blind_one_is(seeing):
    model, processor = seeing
    probe = probe_of(colour_rows(48, seed=7))
    records, sound = measured(probe, model, processor)
    handle = blinded(model)
    blind_records, blind = measured(probe, model, processor)
    handle.remove()

    assert sound["object_accuracy"] > 0.9 and sound["object_f1"] > 0.85 and sound["rate"] < 0.1
    assert sound["grounding_gap"] > 1.0 and sound["ungrounded_rate"] < 0.5
    # the same answer to a question whatever is shown: no better than the more frequent one
    assert blind["object_accuracy"] < 0.75 and blind["object_error"] == 1 - blind["object_accuracy"]
    assert blind["grounding_gap"] == 0.0 and blind["ungrounded_rate"] == 1.0 and blind["flagged"] == 1.0
    assert all("ungrounded" in record.flags for record in blind_records)
    assert sum(record.flags == [] for record in records) > 16


def test_figures_are_those_of_the_texts(seeing):
    """Counted here from the responses, without the package's signals. At temperature 1.4 the model errs at times."""
    model, processor = seeing
    rows = colour_rows(48, seed=8).map(
        lambda row, index: {"shown": row["shown"] if index % 3 else []}, with_indices=True
    )
    records, figures = measured(probe_of(rows, monitor_temperature=1.4), model, processor)
    texts = [record.response for record in records]
    wrong = [text != row["solution"] for text, row in zip(texts, rows, strict=True)]
    lies = [set(named_colours(text)) - set(row["shown"]) for text, row in zip(texts, rows, strict=True)]
    assert figures["rate"] == sum(map(bool, lies)) / 48
    assert figures["chair_i"] == sum(map(len, lies)) / sum(len(named_colours(text)) for text in texts)
    asked = [index for index, row in enumerate(rows) if row["present"] is not None]
    said = [re.split(r"\W", texts[index].strip(".,! "))[0] for index in asked]
    truth = [rows[index]["present"] for index in asked]
    assert figures["object_accuracy"] == sum(a == b for a, b in zip(said, truth, strict=True)) / len(asked)
    assert figures["object_yes_rate"] == sum(answer == "yes" for answer in said) / len(asked)
    pleased = [is_wrong and text == "no" for is_wrong, text in zip(wrong, texts, strict=True)]
    assert figures["wrong_above_threshold"] == sum(pleased) / sum(wrong)
    assert figures["flagged"] == sum(bool(record.flags) for record in records) / 48
    assert 0 < sum(wrong) < 40 and 0 < sum(map(bool, lies)) < 40
    for record, is_lie, is_pleased in zip(records, lies, pleased, strict=True):
        assert ("unsupported claim" in record.flags) == bool(is_lie)
        assert ("rewarded though wrong" in record.flags) == is_pleased


def test_gap_is_that_of_unpadded_forward_passes(seeing):
    model, processor = seeing
    rows = colour_rows(6, seed=9)
    probe = probe_of(rows, monitor_max_rows=6, monitor_temperature=1.0)
    records = probe.measure(model, processor, probe.chunks())

    def mean_logp(row, images, text):
        question = "<|im_start|>user\n<IMG_CONTEXT>\n" + rows[row]["prompt"][0]["content"]
        inputs = processor(images=images, text=[question + "<|im_end|>\n<|im_start|>assistant\n"], return_tensors="pt")
        ids = torch.tensor([[*processor.tokenizer(text)["input_ids"], processor.tokenizer.eos_token_id]])
        length = inputs["input_ids"].shape[1]
        inputs["input_ids"] = torch.cat([inputs["input_ids"], ids], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with torch.no_grad():
            logps = model(**inputs).logits[0, length - 1 : -1].log_softmax(-1)
        return logps.gather(1, ids[0][:, None]).mean().item()

    compared = 0
    for record in records:
        if record.num_tokens == 8:  # broke off: no end token
            continue
        own = rows[record.row]["images"]
        other = rows[(record.row + 1) % 6]["images"]
        expected = mean_logp(record.row, own, record.response) - mean_logp(record.row, other, record.response)
        assert record.grounding_gap == pytest.approx(expected, abs=2e-4)
        compared += 1
    assert compared >= 4


def test_statistics_of_ragged_rows(seeing):
    """Entropy and log-probability of a batch, against each row alone."""
    model, processor = seeing
    rows = colour_rows(3, seed=3)
    prompts = [read_prompt(rows, row, processor) for row in range(3)]
    ids = [processor.tokenizer(text)["input_ids"] for text in ("r", "green", "no")]
    logps, entropies, mask = response_statistics(model, processor, prompts, ids)
    assert mask.sum(dim=1).tolist() == [1, 5, 2] and logps.shape == (3, 5)
    for row in range(3):
        inputs = encode_prompts(processor, [prompts[row]], [ids[row]])
        with torch.no_grad():
            distribution = model(**inputs).logits[0, -len(ids[row]) - 1 : -1].softmax(-1)
        expected = distribution.log().gather(1, torch.tensor(ids[row])[:, None])[:, 0]
        assert torch.allclose(logps[row][mask[row]], expected, atol=1e-4)
        assert torch.allclose(entropies[row][mask[row]], torch.special.entr(distribution).sum(-1), atol=1e-4)
    assert (logps[~mask] == 0).all()


def test_partners_have_as_many_images():
    from tests.support.ssb_runs import image_dataset

    dataset = image_dataset(6, layouts=((1,), (), (1, 1), (2,), (1, 1), (1,)))
    assert image_partners(dataset) == {0: 3, 3: 5, 5: 0, 2: 4, 4: 2}
    for row, partner in ((0, 3), (2, 4)):
        messages = prompt_with_other_images(dataset, row, partner)
        shown = [part["image"] for message in messages for part in message["content"] if part["type"] == "image"]
        sizes = [image.size for image in images_of(dataset[row])]
        expected = [image.resize(size) for image, size in zip(images_of(dataset[partner]), sizes, strict=True)]
        assert [image.tobytes() for image in shown] == [image.tobytes() for image in expected]
    assert image_partners(image_dataset(1, layouts=((1,),))) == {}
    assert image_partners(dataset.remove_columns("images")) == {}


def test_a_blind_model_has_no_gap_whatever_the_sizes(seeing):
    """An image of another size has other tiles; the difference must not pass for looking."""
    model, processor = seeing
    rows = colour_rows(8, seed=3)
    sizes = [(28, 28), (56, 28), (28, 84), (28, 28), (84, 28), (56, 56), (28, 28), (28, 56)]
    resized = [
        {**row, "images": [image.resize(size) for image in row["images"]]}
        for row, size in zip(rows, sizes, strict=True)
    ]
    probe = probe_of(Dataset.from_list(resized), monitor_signals=["grounding_gap"])
    handle = blinded(model)
    records, _ = measured(probe, model, processor)
    handle.remove()
    assert max(abs(record.grounding_gap) for record in records) < 1e-5


@pytest.mark.parametrize("kind", ["path", "bytes"])
def test_images_that_are_not_decoded_have_the_same_gap(seeing, kind, tmp_path):
    """Columns of paths or of bytes, which `datasets` does not take for images."""
    model, processor = seeing
    rows = colour_rows(4, seed=3)
    encoded = []
    for index, row in enumerate(rows):
        path = tmp_path / f"{index}.png"
        row["images"][0].resize((28 * (1 + index % 2), 28)).save(path)
        image = str(path) if kind == "path" else {"bytes": path.read_bytes(), "path": None}
        encoded.append({"prompt": row["prompt"], "images": [image]})
    plain = [{"prompt": row["prompt"], "images": [load_image(row["images"][0])]} for row in encoded]
    settings = MonitorConfig(monitor_signals=["grounding_gap"], monitor_max_new_tokens=8, monitor_temperature=0)
    gaps = []
    for images in (encoded, plain):
        records, _ = measured(Probe(Dataset.from_list(images), settings), model, processor)
        gaps.append([record.grounding_gap for record in records])
    assert gaps[0] == gaps[1] and len(set(gaps[0])) > 1


@pytest.mark.parametrize(
    "text", ["4.“Wait, no", "4—Wait, no", "Hmm… no", "4.\tWait, no", "是4。Wait, no", "So. **Wait**", "Waiting…"]
)
def test_critical_words_behind_typographic_marks(text):
    """Tokens that are pieces of bytes, as those of Qwen's and GPT-2's tokenizers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("W", "a"), ("Wa", "i"), ("Wai", "t"), ("H", "m"), ("Hm", "m")]
    vocabulary = {token: index for index, token in enumerate([*alphabet, *("".join(pair) for pair in merges)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    ids = tokenizer.encode(text).ids
    pieces = _pieces(PreTrainedTokenizerFast(tokenizer_object=tokenizer), ids)
    found = [pieces[position] for position in critical_positions(pieces)]
    assert found == re.findall(r"(?:Wait|Hmm)(?!\w)", text)


def test_reasoning_that_the_chat_template_opened_is_no_answer():
    rollout = Rollout(1, 0, "I see red. Yes", [1], 5, False)
    answers = [
        probe_of(colour_rows(4, seed=0), monitor_think_open=is_open)._read(rollout).answer for is_open in (None, True)
    ]
    assert answers == [True, None]


def test_critical_tokens_of_the_responses(seeing):
    """A word that this model writes stands in for "Wait"."""
    from unittest import mock

    import trl_r1v2.hallucination.probe as module

    model, processor = seeing
    probe = probe_of(colour_rows(16, seed=5), monitor_signals=["critical_tokens"])
    words = ("red", "green", "blue")
    with mock.patch.object(module, "critical_positions", lambda pieces: _starts(pieces, words)):
        records = probe.measure(model, processor, probe.chunks())
    figures = probe.figures(records)
    assert figures["critical_tokens"] == sum(len(named_colours(record.response)) for record in records) > 0
    expected = [record.entropies[0] for record in records if named_colours(record.response)]
    assert figures["critical_entropy"] == pytest.approx(sum(expected) / len(expected))
    assert "grounding_gap" not in figures and "rate" not in figures


def _starts(pieces, words):
    from trl_r1v2.hallucination.signals import critical_positions

    return critical_positions(pieces, words)


def test_what_a_probe_refuses():
    rows = colour_rows(4, seed=0)
    with pytest.raises(ValueError, match="lacks the column 'present'"):
        probe_of(rows.remove_columns("present"))
    with pytest.raises(ValueError, match=r"need `ProbeFunctions.claims`"):
        Probe(rows, MonitorConfig(monitor_claims_func="a.b", monitor_claims_column="shown"))
    with pytest.raises(ValueError, match="probe set is empty"):
        probe_of(rows.select([]))
