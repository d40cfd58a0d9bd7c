# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""`trl-r1v2 evaluate` on benchmarks, through a server and with a judge: figures, requests, resumption, refusals."""

import base64
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image as PILImage

from tests.support.chat_server import serving
from tests.support.public_rows import MATHVISION, MATHVISION_ROWS, MMMU, MMMU_ROWS, write
from trl_r1v2.evaluation.benchmarks.grading import Grade
from trl_r1v2.evaluation.judge import Case
from trl_r1v2.evaluation.records import judge_batch
from trl_r1v2.sampling.server import request_seed
from trl_r1v2.scripts.main import main


NUM_SAMPLES = 4
# with it the four answers to the first row are A, the sentence, B, A
SEED = 10
CHOICES = (r"\boxed{A}", r"\boxed{B}", "I would pick the second picture.")


def text_of(request: dict) -> str:
    content = request["messages"][0]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def respond(request, number):
    """The model and the judge in one server."""
    text = text_of(request)
    if request["model"] == "judge":
        if "second picture" in text:
            return "It is the second option.\nVERDICT: RIGHT"
        return "Hard to say."
    if "older" in text:
        return CHOICES[request["seed"] % 3]
    return r"<think>so</think> \boxed{24.2}" if "line" in text else r"\boxed{French Impressionism}"


@pytest.fixture
def recipe(tmp_path):
    """A function that writes a recipe and returns its path."""
    source = write(tmp_path / "mmmu", MMMU, MMMU_ROWS, "validation")

    def build(server, **changes) -> str:
        keys = {
            "model_name_or_path": "policy",
            "benchmark": "mmmu",
            "dataset_name": source,
            "output_dir": str(tmp_path / "out"),
            "generation": "server",
            "server_url": server.url if server else "http://127.0.0.1:9/v1",
            "server_concurrency": 3,
            "server_patience": 0.2,
            "num_samples": NUM_SAMPLES,
            "seed": SEED,
            "max_new_tokens": 50,
            "temperature": 0.6,
            "top_p": 0.9,
            "judge_model": "judge",
            "judge_url": server.url if server else "http://127.0.0.1:9/v1",
            **changes,
        }
        path = tmp_path / "evaluate.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in keys.items() if value is not None}))
        return str(path)

    return build


def read(folder: Path) -> tuple[dict, pd.DataFrame]:
    return json.loads((folder / "metrics.json").read_text()), pd.read_parquet(folder / "records.parquet")


def test_a_benchmark_through_a_server(recipe, tmp_path, capsys):
    with serving(respond) as server:
        assert main(["evaluate", "--config", recipe(server)]) == 0
        requests = list(server.requests)
    metrics, records = read(tmp_path / "out")
    assert [request_seed(SEED, 0, sample) % 3 for sample in range(NUM_SAMPLES)] == [0, 2, 1, 0]
    # scores again, from the seeds alone: B is right, the sentence is judged right, A is wrong
    choice = [float(request_seed(SEED, 0, sample) % 3 != 0) for sample in range(NUM_SAMPLES)]
    sampled = records[records["mode"] == "sampled"].set_index(["row", "sample"]).sort_index()
    assert list(sampled.accuracy[0]) == choice and list(sampled.accuracy[1]) == [1.0] * NUM_SAMPLES
    # nobody could tell about the third row: it counts as wrong, and is not left out
    assert sampled.accuracy[2].isna().all() and set(sampled.judged_by[2]) == {"nobody"}
    by_judge = [request_seed(SEED, 0, sample) % 3 == 2 for sample in range(NUM_SAMPLES)]
    assert [name == "judge" for name in sampled.judged_by[0]] == by_judge
    figures = metrics["tasks"]["all"]["sampled"]
    assert figures["accuracy"]["value"] == pytest.approx(np.mean([np.mean(choice), 1.0, 0.0]))
    assert figures["accuracy"]["num_rows"] == 3 and figures["num_unjudged"] == NUM_SAMPLES
    assert figures["pass_at_k"]["4"]["value"] == pytest.approx((max(choice) + 1) / 3)
    # one figure, one interval
    assert figures["pass_at_k"]["1"] == figures["accuracy"]
    letters = [None if by else ("B" if right else "A") for by, right in zip(by_judge, choice, strict=True)]
    votes = Counter(letter for letter in letters if letter).most_common()
    assert [None if pd.isna(answer) else answer for answer in sampled.answer[0]] == letters
    assert figures["majority"]["value"] == pytest.approx(((votes[0][0] == "B" if votes else 0) + 1) / 3)
    # the paper's figure stands beside ours, as the paper's
    assert metrics["benchmark"]["paper"] == {
        "value": 0.736, "source": "arXiv 2504.16656", "model": "Skywork-R1V2-38B", "label": "paper",
    }  # fmt: skip
    assert metrics["judge"]["model"] == "judge" and metrics["judge"]["unknown"] >= 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "MMMU (validation), paper: 73.6 % for Skywork-R1V2-38B (arXiv 2504.16656), not measured here." in printed
    assert "they count as wrong" in printed and "All tasks: majority" in printed
    check_requests([request for request in requests if request["model"] == "policy"])


def check_requests(requests: list[dict]) -> None:
    greedy = [request for request in requests if request["temperature"] == 0.0]
    sampled = [request for request in requests if request["temperature"] == 0.6]
    assert (len(greedy), len(sampled)) == (3, 3 * NUM_SAMPLES) and "top_p" not in greedy[0]
    assert len({request["seed"] for request in sampled}) == 3 * NUM_SAMPLES
    assert {request["max_tokens"] for request in requests} == {50} and sampled[0]["top_p"] == 0.9
    (older, *_) = [request for request in greedy if "older" in text_of(request)]
    content = older["messages"][0]["content"]
    assert [part["type"] for part in content] == ["text", "image_url", "text", "image_url", "text"]
    for part, column in zip((content[1], content[3]), ("image_1", "image_2"), strict=True):
        prefix, data = part["image_url"]["url"].split(",")
        assert prefix == "data:image/png;base64"
        sent = np.asarray(PILImage.open(io.BytesIO(base64.b64decode(data))))
        stored = np.asarray(PILImage.open(io.BytesIO(MMMU_ROWS[0][column]["bytes"])).convert("RGB"))
        assert (sent == stored).all()


def test_a_server_that_stops_is_named_and_the_run_goes_on(recipe, tmp_path, capsys):
    def stop(request, number):
        return respond(request, number) if number < 7 else (500, b"gone")

    with serving(stop) as server:
        assert main(["evaluate", "--config", recipe(server, judge_model=None, judge_url=None)]) == 2
    message = capsys.readouterr().err
    assert "gave no reply of model 'policy'" in message and "the same command goes on" in message
    with serving(respond) as server:
        assert main(["evaluate", "--config", recipe(server, judge_model=None, judge_url=None)]) == 0
        # the greedy answers were there, and nothing is asked twice
        assert len(server.requests) <= 3 * NUM_SAMPLES
        assert {request["temperature"] for request in server.requests} == {0.6}
    metrics, records = read(tmp_path / "out")
    assert len(records) == 3 * (1 + NUM_SAMPLES) and "judge" not in metrics
    # without a judge, what the rules doubt is wrong
    assert set(records.judged_by) == {"rule"} and records.accuracy.notna().all()


def test_the_report_quotes_the_paper_as_the_paper(recipe, tmp_path):
    with serving(respond) as server:
        assert main(["evaluate", "--config", recipe(server, label="first")]) == 0
        again = recipe(server, label="second", output_dir=str(tmp_path / "again"), seed=1)
        assert main(["evaluate", "--config", again]) == 0
    folders = [str(tmp_path / "out"), str(tmp_path / "again")]
    assert main(["report", "--evaluations", *folders, "--output_dir", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "report.html").read_text()
    quoted = (
        '<td>paper: <data value="0.736" data-path="[&#34;evaluations&#34;, 1, &#34;benchmark&#34;, &#34;paper&#34;'
    )
    assert quoted in page and "quoted, not measured here" in page and "pass@4" in page
    # examples come from the benchmark's rows
    assert "right answer: " in page and "[image 1]" in page


def test_a_benchmark_with_transformers(tmp_path, internvl_path):
    source = write(tmp_path / "mathvision", MATHVISION, MATHVISION_ROWS, "testmini")
    args = [
        "--model_name_or_path", internvl_path, "--benchmark", "mathvision", "--dataset_name", source,
        "--output_dir", str(tmp_path / "out"), "--num_samples", "0", "--max_new_tokens", "4", "--think_open", "true",
    ]  # fmt: skip
    assert main(["evaluate", *args]) == 0
    metrics, records = read(tmp_path / "out")
    assert len(records) == 3 and metrics["settings"]["dataset_split"] == "testmini"
    # four tokens hold no end of the reasoning, so there is no answer
    assert (records.accuracy == 0).all() and records.answer.isna().all() and set(records.num_tokens) <= {1, 2, 3, 4}


def test_a_judge_sees_what_no_rule_decides_on_data_of_ones_own():
    seen = []

    def judge(cases, progress):
        seen.extend(cases)
        return [True, None]

    prompt = [{"role": "user", "content": "Why is the sky blue?"}]
    rows = [{"prompt": prompt, "solution": gold} for gold in ("because of scattering", "4", ["a", "b"], None, "x")]
    grades = [Grade(None, "s", True, "scattering"), Grade(0.0, "5", False, "5"), Grade(None, "c", True, "c")]
    grades += [Grade(None, "d", True, "d"), Grade(None, None, True, "")]
    # a row without a right answer and a response without an answer cannot be judged
    expected = [(1.0, "judge"), (0.0, "rule"), (None, "nobody"), (None, "nobody"), (None, "nobody")]
    assert judge_batch(judge, grades, rows) == expected
    assert seen == [
        Case("Why is the sky blue?", "because of scattering", "scattering"),
        Case("Why is the sky blue?", "a or b", "c"),
    ]
    assert judge_batch(None, grades, rows)[0] == (None, "nobody")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"server_url": None}, "`generation: server` and `server_url` belong together"),
        ({"server_url": "localhost"}, "`server_url` is 'localhost'; write it as http://host:port/v1"),
        ({"model_revision": "main"}, "`model_revision` has no effect on a server"),
        ({"judge_url": None}, "`judge_model` and `judge_url` belong together"),
        ({"benchmark": "mmlu"}, "there is no benchmark 'mmlu' (did you mean 'mmmu'?)"),
        ({"benchmark": "ifeval"}, "lm_eval --model local-chat-completions --tasks ifeval"),
        ({"benchmark": None, "dataset_name": None}, "set `dataset_name`, or `benchmark`"),
        ({"accuracy_reward": "rules.mine"}, "`benchmark: mmmu` has its own scoring"),
        ({"dataset_split": "test"}, "has no split 'test'"),
        ({"generation": "vllm"}, "the key takes transformers or server"),
        ({"benchmark": None, "accuracy_reward": "a.b", "think_open": True}, "names another function"),
    ],
)
def test_refused(recipe, capsys, changes, expected):
    try:
        code = main(["evaluate", "--config", recipe(None, **changes)])
    except SystemExit as ended:
        code = ended.code
    assert code == 2 and expected in " ".join(capsys.readouterr().err.split())
