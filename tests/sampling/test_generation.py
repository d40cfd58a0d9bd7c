# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.

import dataclasses

import pytest
import torch
from datasets import Dataset, Image, List
from PIL import Image as PILImage
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from tests.support.tiny_models import build_internvl, build_qwen2
from trl_r1v2.sampling import dataset_fingerprint, generation, model_fingerprint, sample_chunks, sample_responses
from trl_r1v2.sampling.prompts import count_images


def question(text):
    return [{"role": "user", "content": text}]


def make_image(seed, width=28, height=28):
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return PILImage.fromarray(pixels.to(torch.uint8).numpy())


@pytest.fixture(scope="module")
def vlm_path(tmp_path_factory):
    return build_internvl(tmp_path_factory.mktemp("internvl_sampling"), seed=1)


@pytest.fixture(scope="module")
def text_path(tmp_path_factory):
    return build_qwen2(tmp_path_factory.mktemp("qwen2_sampling"), seed=1)


@pytest.fixture(scope="module")
def processor(vlm_path):
    return AutoProcessor.from_pretrained(vlm_path)


@pytest.fixture
def make_vlm(vlm_path):
    return lambda: AutoModelForImageTextToText.from_pretrained(vlm_path)


@pytest.fixture(scope="module")
def vlm(vlm_path):
    return AutoModelForImageTextToText.from_pretrained(vlm_path)


@pytest.fixture(scope="module")
def prompts():
    return Dataset.from_dict(
        {
            "prompt": [question(text) for text in ("a+b?", "what is it?", "hello", "12", "so many words in here")],
            "images": [
                [make_image(0, 84, 28), make_image(1)],  # several tiles and a second image
                [make_image(2)],
                [],
                [make_image(3, 28, 56)],
                None,
            ],
        }
    )


class Generated(Exception):
    """Carries what the trainer generated out of its step: only the generation is compared here."""


def grpo_completions(model, processing_class, dataset, tmp_path, seed, num_samples, **config):
    """What stock TRL generates for each prompt, `num_samples` copies of it in a row."""
    args = GRPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=num_samples,
        num_generations=num_samples,
        max_completion_length=16,
        report_to=[],
        use_cpu=True,
        **config,
    )
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **kwargs: [0.0] * len(completions),
        args=args,
        train_dataset=dataset,
        processing_class=processing_class,
    )
    generate = trainer._generate

    def generate_and_stop(prompts):
        torch.manual_seed(seed)
        raise Generated(generate(prompts))

    trainer._generate = generate_and_stop
    trainer.model.eval()
    with pytest.raises(Generated) as stopped:
        trainer._generate_and_score_completions(
            [dataset[row] for row in range(len(dataset)) for _ in range(num_samples)]
        )
    _, completion_ids, _, completions, *_ = stopped.value.args[0]
    return completion_ids, completions


def chunk_seed(monkeypatch, seed):
    """Makes every chunk start from `seed`, as the recorded trainer does."""
    monkeypatch.setattr("trl_r1v2.sampling.generation.seed_of_chunk", lambda _, rows: seed)


@pytest.mark.parametrize("kind", ["vlm", "text_conversational", "text_plain"])
def test_samples_are_those_of_the_stock_trainer(kind, processor, make_vlm, text_path, prompts, tmp_path, monkeypatch):
    """Same ids, same text, for tiles, several images, text-only rows in the batch, and text models."""
    if kind == "vlm":
        processing_class, model, dataset = processor, make_vlm(), prompts
    else:
        processing_class = AutoTokenizer.from_pretrained(text_path)
        model, dataset = AutoModelForCausalLM.from_pretrained(text_path), prompts.remove_columns("images")
        if kind == "text_plain":
            dataset = dataset.map(lambda row: {"prompt": row["prompt"][0]["content"]})
    expected_ids, expected = grpo_completions(model, processing_class, dataset, tmp_path, 7, 3)
    chunk_seed(monkeypatch, 7)
    rollouts = sample_responses(
        model, processing_class, dataset, num_samples=3, max_new_tokens=16, batch_size=15, progress=False
    )
    assert [rollout.completion_ids for rollout in rollouts] == expected_ids
    texts = expected if kind == "text_plain" else [completion[0]["content"] for completion in expected]
    assert [rollout.text for rollout in rollouts] == texts
    assert [(r.row, r.sample) for r in rollouts] == [(row, sample) for row in range(5) for sample in range(3)]
    assert {rollout.finished for rollout in rollouts} == {True, False}, "the seed should show both ends"


def test_greedy_tiles_equal_one_prompt_at_a_time(vlm, processor, prompts):
    """Batching and repeating must not move image features between prompts: compare with batches of one."""
    together = sample_responses(
        vlm, processor, prompts, num_samples=1, max_new_tokens=6, do_sample=False, progress=False
    )
    for row in range(len(prompts)):
        alone = sample_responses(
            vlm, processor, prompts, num_samples=1, max_new_tokens=6, do_sample=False, rows=[row], progress=False
        )
        assert alone == [together[row]]
    swapped = prompts.to_list()
    swapped[0]["images"] = swapped[0]["images"][::-1]
    other = Dataset.from_list(swapped, features=prompts.features)
    changed = sample_responses(
        vlm, processor, other, num_samples=1, max_new_tokens=6, do_sample=False, rows=[0], progress=False
    )
    assert changed[0].completion_ids != together[0].completion_ids, "the order of the images must matter here"


@pytest.mark.parametrize("encoded_once", sorted({False, generation.COPIES_KEEP_THEIR_TILES}))
def test_every_copy_of_a_prompt_sees_its_own_tiles(encoded_once, vlm, processor, prompts, monkeypatch):
    """With a near-zero temperature every sample is the greedy answer of its own prompt."""
    monkeypatch.setattr(generation, "COPIES_KEEP_THEIR_TILES", encoded_once)
    greedy = sample_responses(
        vlm, processor, prompts, num_samples=1, max_new_tokens=6, do_sample=False, progress=False
    )
    cold = sample_responses(
        vlm, processor, prompts, num_samples=3, max_new_tokens=6, temperature=1e-4, batch_size=15, progress=False
    )
    assert [rollout.completion_ids for rollout in cold] == [r.completion_ids for r in greedy for _ in range(3)]
    assert len({tuple(rollout.completion_ids) for rollout in greedy}) == len(prompts)


def test_chunks_do_not_depend_on_what_ran_before(vlm, processor, prompts):
    settings = dict(num_samples=2, max_new_tokens=5, batch_size=4, progress=False)
    whole = sample_responses(vlm, processor, prompts, seed=3, **settings)
    torch.rand(11)
    resumed = sample_responses(vlm, processor, prompts, seed=3, rows=[2, 3, 4], **settings)
    assert resumed == whole[4:]
    assert sample_responses(vlm, processor, prompts, seed=4, rows=[2, 3, 4], **settings) != resumed
    assert [len(chunk) for chunk in sample_chunks(vlm, processor, prompts, seed=3, **settings)] == [4, 4, 2]


def test_chunks_draw_differently(vlm, processor):
    """The same prompt in several chunks does not get the same responses again."""
    same = Dataset.from_dict({"prompt": [question("a+b?")] * 4})
    rollouts = sample_responses(vlm, processor, same, num_samples=2, max_new_tokens=5, batch_size=2, progress=False)
    assert len({tuple(rollout.completion_ids) for rollout in rollouts}) == 8


def test_more_samples_than_the_batch_holds(vlm, processor, prompts):
    rollouts = sample_responses(
        vlm, processor, prompts, num_samples=7, max_new_tokens=3, batch_size=3, rows=[1, 2], progress=False
    )
    assert [(r.row, r.sample) for r in rollouts] == [(row, sample) for row in (1, 2) for sample in range(7)]
    assert len({tuple(r.completion_ids) for r in rollouts if r.row == 1}) > 3, "sub-batches must not repeat draws"


def test_prompts_are_encoded_once_for_responses_of_a_number(vlm, processor, prompts, monkeypatch):
    """Seven responses, three at a time; where copies are shown, three of them twice and one once."""
    encode, sizes = generation.encode_prompts, []

    def counting(processing_class, shown, *args):
        sizes.append(len(shown))
        return encode(processing_class, shown, *args)

    monkeypatch.setattr(generation, "encode_prompts", counting)
    sample_responses(vlm, processor, prompts, num_samples=7, max_new_tokens=2, batch_size=3, rows=[1], progress=False)
    assert sizes == ([1] if generation.COPIES_KEEP_THEIR_TILES else [3, 1])


def test_leaves_random_state_and_modes_alone(make_vlm, processor, prompts):
    model = make_vlm()
    model.train()
    model.model.vision_tower.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    sample_responses(model, processor, prompts, num_samples=1, max_new_tokens=2, progress=False)
    assert torch.equal(torch.rand(4), expected)
    assert {name: module.training for name, module in model.named_modules()} == modes
    with pytest.raises(ValueError, match="row 0"):
        broken = prompts.map(lambda row: {"prompt": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]})
        sample_responses(model, processor, broken, num_samples=1, max_new_tokens=2, progress=False)
    assert {name: module.training for name, module in model.named_modules()} == modes


def test_image_tokens_are_never_sampled(make_vlm, processor, prompts):
    model = make_vlm()
    with torch.no_grad():
        model.lm_head.weight[processor.image_token_id] = model.lm_head.weight.abs().max() * 50
        model.model.language_model.norm.weight.copy_(model.model.language_model.norm.weight.abs())
    rollouts = sample_responses(model, processor, prompts, num_samples=4, max_new_tokens=8, progress=False)
    assert all(processor.image_token_id not in rollout.completion_ids for rollout in rollouts)


def test_prefixes_are_continued(vlm, processor, prompts):
    """The continuation of a response's beginning is the rest of that response, under greedy decoding."""
    settings = dict(num_samples=1, do_sample=False, progress=False)
    whole = sample_responses(vlm, processor, prompts, max_new_tokens=8, **settings)
    rest = sample_responses(
        vlm, processor, prompts, max_new_tokens=5, prefix_ids={r.row: r.completion_ids[:3] for r in whole}, **settings
    )
    longer = [index for index, rollout in enumerate(whole) if rollout.num_tokens > 3]
    assert longer
    for index in longer:
        assert whole[index].completion_ids[3:] == rest[index].completion_ids


def test_greedy_decoding_gives_one_response(vlm, processor, prompts):
    with pytest.raises(ValueError, match="num_samples=1"):
        sample_responses(vlm, processor, prompts, num_samples=2, max_new_tokens=2, do_sample=False)


def test_rows_that_cannot_be_rendered_are_named(vlm, processor, prompts, tmp_path):
    settings = dict(num_samples=1, max_new_tokens=2, progress=False)
    with pytest.raises(ValueError, match="row 0 has images"):
        sample_responses(vlm, processor.tokenizer, prompts, **settings)
    plain = prompts.map(lambda row: {"prompt": "text"}, remove_columns=["prompt"])
    with pytest.raises(ValueError, match="conversational"):
        sample_responses(vlm, processor, plain, **settings)
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    for path in (str(damaged), str(tmp_path / "absent.png")):
        images = Dataset.from_dict({"prompt": [question("x")] * 2, "images": [[], [path]]})
        images = images.cast_column("images", List(Image()))
        with pytest.raises(ValueError, match="row 1: the image cannot be read"):
            sample_responses(vlm, processor, images, **settings)
    unfilled = Dataset.from_dict(
        {"prompt": [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "x"}]}]]}
    )
    with pytest.raises(ValueError, match="row 0: Number of images"):
        sample_responses(vlm, processor, unfilled, **settings)


def test_fingerprints_see_what_matters(make_vlm, prompts, tmp_path):
    model = make_vlm()
    before = model_fingerprint(model)
    assert model_fingerprint(make_vlm()) == before
    with torch.no_grad():
        model.lm_head.weight.add_(1e-4)
    assert model_fingerprint(model) != before

    prompts.to_parquet(tmp_path / "prompts.parquet")
    loaded = Dataset.from_parquet(str(tmp_path / "prompts.parquet"), cache_dir=str(tmp_path / "cache"))
    assert dataset_fingerprint(loaded) == dataset_fingerprint(prompts)
    rows = prompts.to_list()
    rows[3]["prompt"][0]["content"] += "!"
    assert dataset_fingerprint(Dataset.from_list(rows, features=prompts.features)) != dataset_fingerprint(prompts)
    rows = prompts.to_list()
    rows[3]["images"] = rows[1]["images"]
    assert dataset_fingerprint(Dataset.from_list(rows, features=prompts.features)) != dataset_fingerprint(prompts)


def test_rollouts_are_plain_data(vlm, processor, prompts):
    rollout = sample_responses(vlm, processor, prompts, num_samples=1, max_new_tokens=4, rows=[1], progress=False)[0]
    fields = dataclasses.asdict(rollout)
    assert {name: type(value) for name, value in fields.items()} == {
        "row": int,
        "sample": int,
        "text": str,
        "completion_ids": list,
        "num_tokens": int,
        "finished": bool,
        "logps": type(None),
    }
    assert rollout.num_tokens == len(rollout.completion_ids)


def test_images_are_counted_wherever_they_are(prompts):
    assert [count_images(prompts, row) for row in range(5)] == [2, 1, 0, 1, 0]
    single = Dataset.from_dict({"prompt": [question("x")] * 2, "image": [make_image(0), None]})
    assert [count_images(single, row) for row in range(2)] == [1, 0]
    parts = [{"type": "image"}, {"type": "text", "text": "x"}]
    inside = Dataset.from_dict({"prompt": [[{"role": "user", "content": parts}]], "images": [[make_image(0)]]})
    assert count_images(inside, 0) == 1
    assert count_images(Dataset.from_dict({"prompt": ["x"]}), 0) == 0
