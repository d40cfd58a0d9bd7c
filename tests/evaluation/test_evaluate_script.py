# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""`trl-r1v2 evaluate` on a tiny random model: the figures against a recount, resumption, refusals."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage

from tests.support.chat_server import serving
from trl_r1v2.evaluation.records import Record, row_scores, summarize
from trl_r1v2.evaluation.terminal import print_metrics
from trl_r1v2.sampling.server import request_seed
from trl_r1v2.scripts.main import main


FEATURES = Features(
    {
        "prompt": [{"role": Value("string"), "content": Value("string")}],
        "images": List(Image()),
        "solution": Value("string"),
        "task": Value("string"),
        "seen": Value("string"),
    }
)
# The tiny model writes noise, so the rules look at letters, of which some samples have more than others.
RULES = """
def accuracy(completions, solution, **kwargs):
    texts = [completion[0]["content"] for completion in completions]
    return [None if gold == "?" else float(sum(map(ord, text)) % 3 == 0) for text, gold in zip(texts, solution)]

def form(completions, **kwargs):
    return [float(len(completion[0]["content"]) > 5) for completion in completions]

def unsupported(text, seen):
    return [letter for letter in text if letter in seen]
"""
NUM_ROWS, NUM_SAMPLES = 6, 3


@pytest.fixture
def recipe(tmp_path, internvl_path, monkeypatch):
    """A function that writes a recipe and returns its path."""
    rows = [
        {
            "prompt": [{"role": "user", "content": f"What is {index}?"}],
            "images": [PILImage.new("RGB", (28, 28), (40 * index, 10, 10))] if index % 3 else [],
            "solution": "?" if index == 5 else "1",
            "task": "odd" if index % 2 else "even",
            "seen": "abcdefghijklm",
        }
        for index in range(NUM_ROWS)
    ]
    (tmp_path / "data").mkdir()
    Dataset.from_list(rows, features=FEATURES).to_parquet(tmp_path / "data" / "test.parquet")
    (tmp_path / "letter_rules.py").write_text(RULES)
    monkeypatch.chdir(tmp_path)

    def write(**changes) -> Path:
        keys = {
            "model_name_or_path": internvl_path,
            "dataset_name": str(tmp_path / "data"),
            "output_dir": str(tmp_path / "out"),
            "num_samples": NUM_SAMPLES,
            "max_new_tokens": 12,
            "batch_size": NUM_SAMPLES,
            "accuracy_reward": "letter_rules.accuracy",
            "format_reward": "letter_rules.form",
            "hallucination_func": "letter_rules.unsupported",
            "hallucination_column": "seen",
            **changes,
        }
        path = tmp_path / "evaluate.yaml"
        path.write_text(yaml.safe_dump(keys))
        return path

    return write


def read(folder: Path) -> tuple[dict, pd.DataFrame]:
    return json.loads((folder / "metrics.json").read_text()), pd.read_parquet(folder / "records.parquet")


def test_figures_equal_a_recount_of_the_texts(recipe, tmp_path, capsys):
    assert main(["evaluate", "--config", str(recipe())]) == 0
    metrics, records = read(tmp_path / "out")
    assert len(records) == NUM_ROWS * (1 + NUM_SAMPLES)
    # scored again from the texts alone
    right = records.text.map(lambda text: float(sum(map(ord, text)) % 3 == 0))
    for task, rows in {"all": range(5), "even": [0, 2, 4], "odd": [1, 3]}.items():
        for mode in ("greedy", "sampled"):
            chosen = (records["mode"] == mode) & records.row.isin(rows)
            found = metrics["tasks"][task][mode]
            assert found["accuracy"]["value"] == pytest.approx(right[chosen].mean())
            assert found["accuracy"]["num_rows"] == len(rows)
            runs = right[chosen].groupby(records["sample"][chosen]).mean()
            assert found["runs"] == pytest.approx(list(runs))
    sampled = records["mode"] == "sampled"
    overall = metrics["tasks"]["all"]["sampled"]
    assert overall["num_unjudged"] == NUM_SAMPLES and overall["num_rows"] == NUM_ROWS
    assert overall["format_rate"]["value"] == pytest.approx((records.text[sampled].str.len() > 5).mean())
    # rows 0 and 3 have no image, so there is nothing to hallucinate about
    claims = records.text.map(lambda text: any(letter in "abcdefghijklm" for letter in text))
    with_image = records.row.isin([1, 2, 4, 5])
    assert overall["hallucination_rate"]["value"] == pytest.approx(claims[sampled & with_image].mean())
    assert records.hallucinated[~with_image].isna().all()
    assert metrics["generated_tokens"]["sampled"] == records.num_tokens[sampled].sum()
    assert metrics["seconds"]["sampled"] > 0
    assert "could not be judged" in capsys.readouterr().out
    assert 0 < right[sampled].mean() < 1 and 0 < claims[sampled & with_image].mean() < 1


@pytest.mark.parametrize("columns", [80, 200])
def test_no_figure_is_cut_where_the_terminal_is_narrow(columns, tmp_path, monkeypatch, capsys):
    estimate = {"value": 0.333, "low": 0.276, "high": 0.392}
    mode = dict.fromkeys(("accuracy", "format_rate", "hallucination_rate"), estimate) | {
        "num_rows": 8952,
        "mean_tokens": 11234.0,
    }
    mode |= {"num_unjudged": 0}
    tasks = {
        "all": {"greedy": mode, "sampled": mode},
        "OE_MM_physics_en_COMP, Physics": {"greedy": mode, "sampled": mode},
    }
    monkeypatch.setenv("COLUMNS", str(columns))
    print_metrics({"label": "GRPO", "num_rows": 8952, "settings": {"dataset_split": "test"}, "tasks": tasks}, tmp_path)
    printed = capsys.readouterr().out
    assert "…" not in printed and printed.count("33.3 %") == 8 and printed.count("27.6–39.2") == 2
    assert printed.count("11234") == 2


def test_greedy_answers_equal_generate(recipe, tmp_path, internvl_path):
    from datasets import load_dataset
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from trl import prepare_multimodal_messages

    assert main(["evaluate", "--config", str(recipe(num_samples=0))]) == 0
    metrics, records = read(tmp_path / "out")
    assert set(metrics["tasks"]["all"]) == {"greedy"}
    model = AutoModelForImageTextToText.from_pretrained(internvl_path)
    processor = AutoProcessor.from_pretrained(internvl_path)
    row = load_dataset(str(tmp_path / "data"), split="test")[1]
    inputs = processor.apply_chat_template(
        prepare_multimodal_messages(row["prompt"], row["images"]),
        add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
    )  # fmt: skip
    with torch.no_grad():
        ids = model.generate(
            **inputs, max_new_tokens=12, do_sample=False, suppress_tokens=[model.config.image_token_id]
        )
    text = processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert records.text[records.row == 1].item() == text


def test_interrupted_run_goes_on_and_equals_an_uninterrupted_one(recipe, tmp_path, monkeypatch):
    from trl_r1v2.sampling import RolloutStore

    append, calls = RolloutStore.append_rollouts, []

    def stop_in_the_second_mode(store, rollouts):
        calls.append(store.folder.name)
        if calls.count("sampled") == 3:
            raise KeyboardInterrupt
        append(store, rollouts)

    monkeypatch.setattr(RolloutStore, "append_rollouts", stop_in_the_second_mode)
    with pytest.raises(KeyboardInterrupt):
        main(["evaluate", "--config", str(recipe(output_dir=str(tmp_path / "stopped")))])
    assert not (tmp_path / "stopped" / "metrics.json").exists()
    done_before = list(calls)
    assert main(["evaluate", "--config", str(recipe(output_dir=str(tmp_path / "stopped")))]) == 0
    # the greedy answers and the first two chunks were not sampled again
    assert calls[len(done_before) :].count("greedy") == 0
    assert calls[len(done_before) :].count("sampled") == NUM_ROWS - 2
    assert main(["evaluate", "--config", str(recipe())]) == 0
    resumed, whole = read(tmp_path / "stopped"), read(tmp_path / "out")
    assert resumed[0]["tasks"] == whole[0]["tasks"]
    pd.testing.assert_frame_equal(resumed[1], whole[1])


def test_responses_of_other_settings_are_not_mixed(recipe):
    assert main(["evaluate", "--config", str(recipe())]) == 0
    with pytest.raises(ValueError, match="temperature: stored 1.0, now 0.5"):
        main(["evaluate", "--config", str(recipe(temperature=0.5))])


def test_a_served_model_is_measured_as_one_in_this_process(recipe, tmp_path, capsys):
    """The server answers what its request's seed says; a server that stops is named, and the same command goes on."""

    def answer(request, number):
        return "x" * (request["seed"] % 7)

    def stop(request, number):
        return answer(request, number) if number < 9 else (500, b"gone")

    served = {"generation": "server", "model_name_or_path": "policy", "server_concurrency": 2, "server_max_retries": 0}
    with serving(stop) as server:
        assert main(["evaluate", "--config", str(recipe(server_url=server.url, **served))]) == 2
    assert "gave no response of model 'policy'" in capsys.readouterr().err
    with serving(answer) as server:
        assert main(["evaluate", "--config", str(recipe(server_url=server.url, **served))]) == 0
        assert len(server.requests) < NUM_ROWS * (1 + NUM_SAMPLES)
    metrics, records = read(tmp_path / "out")
    assert metrics["fingerprint"]["model"] == "served as policy"
    sampled = records[records["mode"] == "sampled"]
    asked = zip(sampled.row, sampled["sample"], strict=True)
    expected = ["x" * (request_seed(0, row, sample) % 7) for row, sample in asked]
    assert list(sampled.text) == expected and len(set(expected)) > 3
    right = pd.Series([float(sum(map(ord, text)) % 3 == 0) for text in expected])[(sampled.row != 5).values]
    assert metrics["tasks"]["all"]["sampled"]["accuracy"]["value"] == pytest.approx(right.mean())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"server_url": "http://x/v1"}, "`generation: server` and `server_url` belong together"),
        ({"generation": "sglang"}, "should be 'transformers', 'vllm' or 'server'"),
        ({"accuracy_reward": "a.b", "think_open": True}, "another function is named"),
        ({"dataset_split": "validation"}, "has no split 'validation', only 'test'. Correct `dataset_split`"),
        ({"hallucination_column": "digits"}, "there is no column 'digits'"),
        ({"hallucination_column": None}, "belong together"),
        ({"accuracy_reward": "letter_rules.acuracy"}, "did you mean accuracy?"),
        ({"top_p": 0.0}, "`top_p` is 0.0, but must be in (0, 1]"),
        ({"num_samples": -1}, "`num_samples` is -1, but must be at least 0"),
    ],
)
def test_refused(recipe, capsys, changes, expected):
    try:
        code = main(["evaluate", "--config", str(recipe(**changes))])
    except SystemExit as ended:
        code = ended.code
    assert code == 2 and expected in capsys.readouterr().err


def record(row: int, sample: int, accuracy: float | None) -> Record:
    return Record(row, "sampled", sample, None, "", accuracy, 1.0, None, 3, True)


def test_unjudged_samples_count_as_wrong_and_unjudged_rows_are_left_out():
    records = [record(0, 1, None), record(0, 0, 1.0), record(1, 0, None), record(1, 1, None), record(2, 0, 1.0)]
    records.append(record(2, 1, 0.0))
    assert row_scores(records, "accuracy") == {0: [1.0, 0.0], 2: [1.0, 0.0]}
    figures = summarize(records)["all"]["sampled"]
    assert figures["runs"] == [1.0, 0.0] and figures["num_unjudged"] == 3
    assert figures["hallucination_rate"] is None
    assert np.isclose(figures["accuracy"]["value"], 0.5) and figures["accuracy"]["num_rows"] == 2
