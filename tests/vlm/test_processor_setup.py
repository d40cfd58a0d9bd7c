# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The processor of a composed folder: chat template, padding, and the tower's own pixel statistics."""

import json
import shutil
from pathlib import Path

import pytest
import trl
from transformers import AutoProcessor, PreTrainedTokenizerFast

from tests.support import tiny_parts
from trl_r1v2.vlm.compose import ComposeReport, compose_vlm
from trl_r1v2.vlm.errors import CheckpointError
from trl_r1v2.vlm.processor_setup import IMAGENET_MEAN, IMAGENET_STD, image_chat_template


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A folder with a tower in `vision`, an LLM in `llm`, and a composite of both in `whole`, normalised with 0.5."""
    root = tmp_path_factory.mktemp("processor")
    tiny_parts.save_vision(root / "vision")
    tiny_parts.save_llm(root / "llm")
    shutil.copytree(root / "vision", root / "half")
    (root / "half" / "preprocessor_config.json").write_text(json.dumps(HALF))
    compose(root / "half", root / "llm", root / "whole")
    return root


HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.5, 0.75]}


def compose(vision: Path, llm: Path, output: Path, **settings) -> ComposeReport:
    return compose_vlm(str(vision), str(llm), str(output), progress=False, **settings)


def tower_with(parts: Path, folder: Path, **files: dict | str) -> Path:
    """The tower with JSON files beside it, named without their suffix; text is written as it is."""
    shutil.copytree(parts / "vision", folder)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{name}.json").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "mean", "std", "source"),
    [
        ({"preprocessor_config": HALF}, HALF["image_mean"], HALF["image_std"], "from preprocessor_config.json of"),
        (
            {"processor_config": {"image_processor": HALF, "processor_class": "InternVLProcessor"}},
            HALF["image_mean"], HALF["image_std"], "from processor_config.json of",
        ),
        # as transformers reads them: the nested settings first, where there are any
        (
            {"processor_config": {"image_processor": HALF}, "preprocessor_config": {"image_mean": [0.1] * 3}},
            HALF["image_mean"], HALF["image_std"], "from processor_config.json of",
        ),
        (
            {"processor_config": {"processor_class": "X"}, "preprocessor_config": HALF},
            HALF["image_mean"], HALF["image_std"], "from preprocessor_config.json of",
        ),
        ({"processor_config": {"processor_class": "X"}}, IMAGENET_MEAN, IMAGENET_STD, "ImageNet's, none in"),
        ({}, IMAGENET_MEAN, IMAGENET_STD, "ImageNet's, none in"),
        ({"preprocessor_config": {"size": 28}}, IMAGENET_MEAN, IMAGENET_STD, "ImageNet's, none in"),
        ({"preprocessor_config": {"image_mean": [0.1] * 3}}, [0.1] * 3, IMAGENET_STD,
         "image_std is ImageNet's, the rest from preprocessor_config.json of"),
    ],
)  # fmt: skip
def test_images_are_normalised_as_the_tower_was_trained(parts, tmp_path, files, mean, std, source):
    tower = tower_with(parts, tmp_path / "tower", **files)
    report = compose(tower, parts / "llm", tmp_path / "out")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    for part in (processor.image_processor, processor.video_processor):
        assert (list(part.image_mean), list(part.image_std)) == (mean, std)
    assert f"images normalised with mean {mean} and deviation {std} ({source}" in str(report) and str(tower) in str(
        report
    )


def test_statistics_survive_composing_twice_and_saving_the_processor(parts, tmp_path):
    """The third step of adapter transfer: tower and adapter of a checkpoint that this package or a trainer wrote."""
    shutil.copytree(parts / "whole", tmp_path / "trained")
    AutoProcessor.from_pretrained(parts / "whole").save_pretrained(tmp_path / "trained")
    for name in ("whole", "trained"):
        source = parts / "whole" if name == "whole" else tmp_path / "trained"
        compose(source, parts / "llm", tmp_path / f"from-{name}", adapter=str(source))
        images = AutoProcessor.from_pretrained(tmp_path / f"from-{name}").image_processor
        assert list(images.image_mean) == HALF["image_mean"] and list(images.image_std) == HALF["image_std"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**HALF, "image_std": None}, "image_std is None"),
        ({**HALF, "image_std": [0.5, 0.5, 0]}, r"image_std is \[0.5, 0.5, 0\]"),
        ({**HALF, "image_std": [0.5, 0.5, -0.1]}, "image_std"),
        ({**HALF, "image_mean": [0.5]}, r"image_mean is \[0.5\]"),
        ({**HALF, "image_mean": 0.5}, "image_mean is 0.5"),
        ({**HALF, "image_mean": ["a", "b", "c"]}, "image_mean"),
        ({**HALF, "image_mean": [0.5, 0.5, float("nan")]}, "image_mean"),
        ({**HALF, "do_normalize": False}, "do_normalize is false"),
        ("{", "is no JSON"),
        ("[]", "is no JSON object"),
    ],
)
def test_statistics_that_cannot_be_used_are_refused(parts, tmp_path, content, message):
    tower = tower_with(parts, tmp_path / "tower", preprocessor_config=content)
    with pytest.raises(CheckpointError, match=f"preprocessor_config.json.*{message}|{message}.*preprocessor_config"):
        compose(tower, parts / "llm", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def without_padding(**special) -> PreTrainedTokenizerFast:
    """A tokenizer like that of Llama-3-Instruct: two ends, no padding token."""
    backend = tiny_parts.make_tokenizer().backend_tokenizer
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, chat_template=tiny_parts.CHAT_TEMPLATE, model_max_length=512, **special
    )


def test_a_tokenizer_without_padding_pads_with_its_end(parts, tmp_path):
    """What TRL's trainers choose as well; attention tells padding from a response's end."""
    tiny_parts.save_llm(tmp_path / "llm", family="llama", tokenizer=without_padding(eos_token="<|im_end|>"))
    compose(parts / "vision", tmp_path / "llm", tmp_path / "out")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor.tokenizer.pad_token == processor.tokenizer.eos_token == "<|im_end|>"
    batch = processor(text=["a<|im_end|>", "four"], padding=True, return_tensors="pt")
    assert batch["attention_mask"].sum(dim=1).tolist() == [2, 4]
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation["pad_token_id"] == processor.tokenizer.eos_token_id
    # as `padding_idx` of the embeddings it would keep the end's row from being trained
    assert json.loads((tmp_path / "out" / "config.json").read_text())["text_config"]["pad_token_id"] is None


def test_a_padding_token_is_kept_and_one_without_an_end_is_refused(parts, tmp_path):
    tokenizer = AutoProcessor.from_pretrained(parts / "whole").tokenizer
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")
    tiny_parts.save_llm(tmp_path / "llm", tokenizer=without_padding())
    with pytest.raises(CheckpointError, match="neither a padding token nor an end of sequence"):
        compose(parts / "vision", tmp_path / "llm", tmp_path / "out")


def llm_with(parts: Path, folder: Path, **files: str | None) -> Path:
    """The LLM with files replaced, or removed where they are `None`."""
    shutil.copytree(parts / "llm", folder)
    for name, text in files.items():
        path = folder / (f"{name}.jinja" if name == "chat_template" else f"{name}.json")
        path.unlink() if text is None else path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (dict(tokenizer=None, tokenizer_config=None), "no tokenizer"),
        (dict(tokenizer=None), "no tokenizer"),
        (dict(tokenizer="{"), "tokenizer.json is no JSON"),
        (dict(tokenizer="{}"), "tokenizer cannot be loaded"),
        (dict(tokenizer_config="{"), "tokenizer_config.json is no JSON"),
        (dict(tokenizer_config="[]"), "tokenizer_config.json is no JSON object"),
        (dict(special_tokens_map="{"), "special_tokens_map.json is no JSON"),
        (dict(added_tokens="[]"), "added_tokens.json is no JSON object"),
        (dict(generation_config="{"), "generation_config.json is no JSON"),
        (dict(generation_config="[]"), "generation_config.json is no JSON object"),
        (dict(chat_template="{% for message in messages %}{{ message['content'] }}"), "chat template cannot render"),
        (dict(chat_template="{{ messages[0]['content'] + 1 }}"), "chat template cannot render"),
        (dict(chat_template="{{ messages[0]['content'][0]['text'] }}"), "chat template leaves out"),
        (dict(chat_template="{{ raise_exception('no tools') }}"), "chat template cannot render"),
        (dict(chat_template="A template that forgets the question"), "chat template leaves out"),
        # one for lists of parts: of text it takes each letter for a part
        (
            dict(
                chat_template="{% for p in messages[0]['content'] %}{% if p.type == 'text' %}{{ p.text }}{% endif %}"
                "{% endfor %}"
            ),
            "chat template leaves out",
        ),
    ],
)  # fmt: skip
def test_llm_folders_that_cannot_be_used_are_refused(parts, tmp_path, files, message):
    llm = llm_with(parts, tmp_path / "llm", **files)
    with pytest.raises(CheckpointError, match=message) as caught:
        compose(parts / "vision", llm, tmp_path / "out")
    assert str(llm) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_template_given_by_path_is_tried_too(parts, tmp_path):
    (tmp_path / "broken.jinja").write_text("{% if %}")
    with pytest.raises(CheckpointError, match="broken.jinja.* cannot render"):
        compose(parts / "vision", parts / "llm", tmp_path / "out", chat_template=str(tmp_path / "broken.jinja"))


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "llama3", "deepseekv3"])
def test_chat_template_keeps_the_llms_own(name):
    own = (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text()
    tokenizer = tiny_parts.make_tokenizer(chat_template=own)
    tokenizer.bos_token = "<|endoftext|>"
    thought = "<think>\nhmm\n</think>\n\nTwo."
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One\nplus one?"},
        {"role": "assistant", "content": thought},
        {"role": "user", "content": "Sure? "},
    ]
    both = image_chat_template(own)
    for add_generation_prompt in (False, True):
        options = dict(tokenize=False, add_generation_prompt=add_generation_prompt)
        expected = tokenizer.apply_chat_template(chat, **options)
        assert tokenizer.apply_chat_template(chat, chat_template=both, **options) == expected
        lists = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in chat]
        assert tokenizer.apply_chat_template(lists, chat_template=both, **options) == expected
        images = [{"type": "image"}, {"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
        flat = [*chat[:3], {"role": "user", "content": "<IMG_CONTEXT>\na<IMG_CONTEXT>\nb"}]
        assert tokenizer.apply_chat_template(
            [*chat[:3], {"role": "user", "content": images}], chat_template=both, **options
        ) == tokenizer.apply_chat_template(flat, **options)


@pytest.mark.parametrize("start", ["", "\n", "  ", "\n\n  x"])
def test_chat_prelude_does_not_eat_the_templates_first_characters(start):
    own = start + "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
    tokenizer = tiny_parts.make_tokenizer(chat_template=own)
    chat = [{"role": "user", "content": "hi"}]
    expected = tokenizer.apply_chat_template(chat, tokenize=False)
    assert tokenizer.apply_chat_template(chat, chat_template=image_chat_template(own), tokenize=False) == expected


def test_chat_template_refuses_unknown_parts():
    tokenizer = tiny_parts.make_tokenizer(chat_template=image_chat_template(tiny_parts.CHAT_TEMPLATE))
    with pytest.raises(Exception, match="image, video or text, not audio"):
        tokenizer.apply_chat_template([{"role": "user", "content": [{"type": "audio"}]}], tokenize=False)
