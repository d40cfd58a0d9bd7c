# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.

import json
from dataclasses import asdict

import pytest
import torch
from datasets import Dataset, Value, load_dataset
from PIL import Image as PILImage
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import DPOConfig, DPOTrainer

from tests.support.tiny_models import build_internvl
from trl_r1v2.sampling import Rollout, RolloutStore, sample_responses
from trl_r1v2.sampling.pairs import PairRules
from trl_r1v2.sampling.pairs_dropout_ntp import first_half, without_images
from trl_r1v2.scripts import filter_prompts, pairs
from trl_r1v2.scripts.filter_prompts import FilterPromptsArguments
from trl_r1v2.scripts.pairs import PairsArguments
from trl_r1v2.scripts.parser import parser_of


NUM_SAMPLES = 12


def text_of(completion):
    return completion if isinstance(completion, str) else completion[0]["content"]


def parity_reward(completions, kind, **kwargs):
    """Right by the parity of the characters; open prompts cannot be judged."""
    return [
        None if k == "open" else float(sum(map(ord, text_of(c))) % 2 == 0)
        for c, k in zip(completions, kind, strict=True)
    ]


def length_reward(completion_ids, **kwargs):
    return [len(ids) / 10 for ids in completion_ids]


def letter_reward(completions, **kwargs):
    return [float(not text_of(c)[:1].isupper()) for c in completions]


def nothing_reward(completions, **kwargs):
    return [float("nan")] * len(completions)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return build_internvl(tmp_path_factory.mktemp("internvl_pairs"), seed=1)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    pixels = torch.randint(0, 256, (4, 28, 84, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8).numpy()
    images = [PILImage.fromarray(array) for array in pixels]
    path = tmp_path_factory.mktemp("prompts") / "prompts.parquet"
    Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": text}] for text in ("add", "read them", "say hi", "describe")],
            "images": [[images[0]], [images[1], images[2].crop((0, 0, 28, 28))], [], [images[3]]],
            "kind": ["digits", "digits", "text", "open"],
        }
    ).to_parquet(path)
    return str(path)


def arguments(folder, prompts, model=None, **changes):
    values = dict(
        dataset_name=prompts,
        output_dir=str(folder),
        model_name_or_path=model,
        num_samples=NUM_SAMPLES,
        max_new_tokens=64,
        batch_size=24,
        max_pairs=4,
        reward_funcs=[f"{__name__}.parity_reward", f"{__name__}.length_reward"],
        reward_weights=[10.0, 1.0],
        use_cpu=True,
        plots=False,
    )
    return PairsArguments(**(values | changes))


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory, prompts, model_path):
    """One run with everything switched on, read by several tests."""
    folder = tmp_path_factory.mktemp("pairs_run")
    args = arguments(
        folder,
        prompts,
        model_path,
        max_format_pairs=2,
        format_func=f"{__name__}.letter_reward",
        max_dropout_pairs=2,
        dropout_unjudged=True,
        plots=True,
        max_new_tokens=64,
        seed=5,
    )
    pairs.main(args)
    return folder, args


def test_pairs_say_where_they_come_from(run, prompts):
    """Every column of every pair is recomputed from the rollouts on disk."""
    folder, _ = run
    source = load_dataset("parquet", data_files=prompts, split="train")
    rollouts = {(r.row, r.sample): r for r in RolloutStore.merge(folder / "rollouts", range(4), NUM_SAMPLES)}
    table = load_dataset(str(folder), split="train")
    assert table.column_names[:4] == ["prompt", "images", "chosen", "rejected"]
    kinds = set(table["pair_kind"])
    assert kinds == {"correctness", "format", "dropout_ntp"}, "the seed should give pairs of every kind"
    for pair in table:
        chosen = rollouts[pair["source_row"], pair["chosen_sample"]]
        assert pair["prompt"] == source[pair["source_row"]]["prompt"]
        assert [image.tobytes() for image in pair["images"]] == [
            image.tobytes() for image in source[pair["source_row"]]["images"]
        ]
        assert pair["chosen"] == [{"role": "assistant", "content": chosen.text}]
        assert chosen.finished and not chosen.text[:1].isupper()
        right = sum(map(ord, chosen.text)) % 2 == 0
        if source[pair["source_row"]]["kind"] == "open":
            assert pair["pair_kind"] == "dropout_ntp"
            assert pair["chosen_score"] == pytest.approx(chosen.num_tokens / 10)
        else:
            assert right and pair["chosen_score"] == pytest.approx(10 + chosen.num_tokens / 10)
        if pair["pair_kind"] != "dropout_ntp":
            rejected = rollouts[pair["source_row"], pair["rejected_sample"]]
            assert pair["rejected"] == [{"role": "assistant", "content": rejected.text}]
            wrong = sum(map(ord, rejected.text)) % 2
            assert pair["rejected_score"] == pytest.approx(10 * (1 - wrong) + rejected.num_tokens / 10)
            if pair["pair_kind"] == "format":
                assert rejected.finished and rejected.text[:1].isupper()
            else:
                assert wrong
    summary = summary_of(folder)
    assert summary["num_pairs"] == len(table) == sum(summary["pairs"].values())
    assert sum(summary["responses"].values()) == 4 * NUM_SAMPLES
    assert summary["responses"]["unscored"] == NUM_SAMPLES and summary["prompts"]["no_responses"] == 0
    assert PILImage.open(folder / "scores.png").width > 100


def test_dropout_pairs_continue_the_first_half_without_the_image(run, prompts, model_path):
    """The rejected response is sampled again from scratch: blind prompt, first half, the run's seed."""
    folder, args = run
    processor = AutoProcessor.from_pretrained(model_path)
    model = AutoModelForImageTextToText.from_pretrained(model_path)
    rollouts = {(r.row, r.sample): r for r in RolloutStore.merge(folder / "rollouts", range(4), NUM_SAMPLES)}
    table = load_dataset(str(folder), split="train").filter(lambda pair: pair["pair_kind"] == "dropout_ntp")
    continuations = RolloutStore.merge(
        folder / "rollouts", range(summary_of(folder)["dropout_ntp"]["kept"]), 1, name="dropout"
    )
    assert len(table) == len(continuations) and 2 not in table["source_row"][:], "row 2 has no image to drop"
    source = load_dataset("parquet", data_files=prompts, split="train")
    blind = Dataset.from_list([{"prompt": source[row]["prompt"]} for row in table["source_row"]])
    halves = {}
    for index, pair in enumerate(table):
        chosen = rollouts[pair["source_row"], pair["chosen_sample"]]
        content = [token for token in chosen.completion_ids if token != processor.tokenizer.eos_token_id]
        halves[index] = content[: len(content) // 2]
        assert halves[index]
    again = sample_responses(
        model,
        processor,
        blind,
        num_samples=1,
        max_new_tokens=64,
        batch_size=24,
        seed=args.seed,
        prefix_ids=halves,
        progress=False,
    )
    for index, pair in enumerate(table):
        ids = halves[index] + again[index].completion_ids
        assert pair["rejected"][0]["content"] == processor.batch_decode([ids], skip_special_tokens=True)[0]


def test_halves():
    rollout = Rollout(0, 0, "abcdef", [5, 6, 7, 8, 9, 2], 6, finished=True)
    assert first_half(rollout, None) == [5, 6]
    assert first_half(Rollout(0, 0, "x", [5, 6, 7, 8], 4, finished=False), None) == [5, 6]
    assert first_half(Rollout(0, 0, "x", [5, 2], 2, finished=True), None) == []
    structured = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]}]
    assert without_images(structured) == [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    assert without_images([{"role": "user", "content": "a"}]) == [{"role": "user", "content": "a"}]


def test_dpo_trains_on_the_pairs(run, model_path, tmp_path):
    """The folder goes straight into TRL's preference trainer, images included."""
    folder, _ = run
    table = load_dataset(str(folder), split="train").filter(lambda pair: len(pair["images"]) > 0)
    model = AutoModelForImageTextToText.from_pretrained(model_path)
    config = DPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        max_steps=2,
        logging_steps=1,
        learning_rate=1e-2,
        report_to=[],
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        max_length=None,
    )
    reference = AutoModelForImageTextToText.from_pretrained(model_path)
    processor = AutoProcessor.from_pretrained(model_path)
    trainer = DPOTrainer(model, reference, config, train_dataset=table, processing_class=processor)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    # Before the first update the policy is the reference, whose loss is log 2.
    assert losses[0] == pytest.approx(0.6931, abs=1e-3) and losses[1] != pytest.approx(0.6931, abs=1e-3)


def test_an_interrupted_run_ends_up_the_same(run, prompts, model_path, tmp_path):
    folder, args = run
    target = tmp_path / "cut"
    (target / "rollouts").mkdir(parents=True)
    for path in (folder / "rollouts").iterdir():
        content = path.read_bytes()
        (target / "rollouts" / path.name).write_bytes(
            content if path.suffix == ".json" else content[: len(content) // 2]
        )
    pairs.main(PairsArguments(**{**asdict(args), "output_dir": str(target), "plots": False}))
    for path in (folder / "rollouts").iterdir():
        assert (target / "rollouts" / path.name).read_bytes() == path.read_bytes()
    expected, found = (load_dataset(str(run_folder), split="train").to_list() for run_folder in (folder, target))
    assert found == expected


def test_pairs_from_the_rollouts_of_filter_prompts(prompts, model_path, tmp_path):
    shared = dict(
        dataset_name=prompts,
        model_name_or_path=model_path,
        num_samples=NUM_SAMPLES,
        max_new_tokens=64,
        batch_size=24,
        reward_funcs=[f"{__name__}.parity_reward"],
        use_cpu=True,
        plots=False,
    )
    filter_prompts.main(FilterPromptsArguments(output_dir=str(tmp_path / "pool"), **shared))
    args = arguments(tmp_path / "pairs", prompts, rollouts=str(tmp_path / "pool"))
    pairs.main(args)
    direct = arguments(tmp_path / "direct", prompts, model_path)
    pairs.main(direct)
    found, expected = (load_dataset(str(tmp_path / name), split="train").to_list() for name in ("pairs", "direct"))
    assert found == expected
    with pytest.raises(ValueError, match="sampled from other prompts"):
        pairs.main(arguments(tmp_path / "other", prompts, rollouts=str(tmp_path / "pool"), max_prompts=2))
    with pytest.raises(ValueError, match="holds the result of `filter-prompts`"):
        pairs.main(arguments(tmp_path / "pool", prompts, rollouts=str(tmp_path / "pool")))


def write_table(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


RECORDS = [
    {"row": 0, "text": "aa"},  # 194: right
    {"row": 0, "text": "ab"},  # 195: wrong
    {"row": 1, "text": "ad"},
    {"row": 2, "text": "aa", "finished": False},
]


def test_pairs_from_a_table(prompts, tmp_path):
    table = write_table(tmp_path / "mine.jsonl", RECORDS)
    pairs.main(arguments(tmp_path / "out", prompts, rollouts=table))
    found = load_dataset(str(tmp_path / "out"), split="train")
    assert [(p["source_row"], p["chosen"][0]["content"], p["rejected"][0]["content"]) for p in found] == [
        (0, "aa", "ab")
    ]
    assert found.features["chosen_threshold"] == Value("float64") and found["chosen_threshold"][:] == [None]
    summary = summary_of(tmp_path / "out")
    assert summary["prompts"] == {
        "paired": 1,
        "no_pair_left": 0,
        "all_right": 0,
        "all_wrong": 1,
        "no_finished_right": 1,
        "unscored": 0,
        "no_responses": 1,
    }


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"row": 0}], r"has the columns \['row'\], but must have `row` and `text`"),
        ([{"row": 0, "text": "a", "score": 1.0}], r"'score', 'text'\], but must have .* and no others"),
        ([{"row": 9, "text": "a"}], r"record 1: row is 9, but the dataset has rows 0..3"),
        ([{"row": 0, "text": "a"}, {"row": 0, "text": None}], "record 2: text is None"),
        ([{"row": 0, "text": "a", "sample": 1}, {"row": 0, "text": "b", "sample": 1}], "sample 1 twice"),
    ],
)
def test_tables_that_cannot_be_used_say_why(records, message, prompts, tmp_path):
    table = write_table(tmp_path / "mine.jsonl", records)
    with pytest.raises(ValueError, match=message):
        pairs.main(arguments(tmp_path / "out", prompts, rollouts=table))


def test_without_rollouts_at_the_path(prompts, tmp_path):
    with pytest.raises(ValueError, match="holds no rollouts: name the output folder"):
        pairs.main(arguments(tmp_path / "out", prompts, rollouts=str(tmp_path / "nothing")))


def test_no_pairs_for_want_of_room_is_told(prompts, tmp_path):
    table = write_table(tmp_path / "mine.jsonl", [record | {"finished": False} for record in RECORDS])
    with pytest.raises(ValueError, match="'no_finished_right': [1-9].*raise `max_new_tokens`"):
        pairs.main(arguments(tmp_path / "out", prompts, rollouts=table))


def test_no_pairs_is_an_error_that_keeps_the_scores(prompts, tmp_path, caplog):
    table = write_table(tmp_path / "mine.jsonl", RECORDS)
    args = arguments(tmp_path / "out", prompts, rollouts=table, chosen_threshold=50.0)
    with pytest.raises(ValueError, match="no pair could be built.*'below_chosen_threshold': 1.*relax the thresholds"):
        pairs.main(args)
    scores = (tmp_path / "out" / "rollouts" / "scores-00000-of-00001.jsonl").read_bytes()
    pairs.main(arguments(tmp_path / "out", prompts, rollouts=table))
    assert (tmp_path / "out" / "rollouts" / "scores-00000-of-00001.jsonl").read_bytes() == scores
    assert (tmp_path / "out" / "data").is_dir()

    nan = dict(reward_funcs=[f"{__name__}.nothing_reward"], reward_weights=None)
    with pytest.raises(ValueError, match="no pair could be built.*'unscored': 4"):
        pairs.main(arguments(tmp_path / "nan", prompts, rollouts=table, **nan))
    assert summary_of(tmp_path / "nan")["reward_funcs"][f"{__name__}.nothing_reward"]["num_unscored"] == 4
    assert "every response scored None" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_format_pairs": 1}, "set `format_func`"),
        ({"max_dropout_pairs": 1, "rollouts": "x"}, "DropoutNTP need a policy"),
        ({}, "sampling and DropoutNTP need a policy"),
        ({"rollouts": "x", "chosen_quantile": 2.0}, "chosen_quantile"),
    ],
)
def test_arguments_are_checked(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        arguments(tmp_path, "prompts", **changes)


def test_recipe_is_read(tmp_path):
    recipe = tmp_path / "pairs.yaml"
    recipe.write_text(
        "dataset_name: prompts\noutput_dir: out\nmodel_name_or_path: model\nchosen_threshold: 15\n"
        "margin_threshold: 0.25\nthink_open: true\nreward_funcs: [a.b, c.d]\nreward_weights: [1, 0.5]\n"
        "judge_func: e.f\n"
    )
    (args,) = parser_of(pairs.main).parse_args_and_config(
        ["--config", str(recipe), "--max_pairs", "3", "--drop_contained", "false"]
    )
    expected = PairRules(max_pairs=3, chosen_threshold=15.0, margin_threshold=0.25, drop_contained=False)
    assert pairs.read_rules(args) == expected
    assert (args.judge, args.weights, args.think_open) == ("e.f", {"a.b": 1.0, "c.d": 0.5}, True)
    assert (
        args.num_samples,
        args.temperature,
        PairsArguments(dataset_name="p", output_dir="o", model_name_or_path="m").max_pairs,
    ) == (32, 1.0, 15)
    (args,) = parser_of(filter_prompts.main).parse_args_and_config(
        ["--dataset_name", "p", "--output_dir", "o", "--model_name_or_path", "m", "--reward_funcs", "a.b"]
    )
    assert (args.judge, args.num_samples, args.prefill) == ("a.b", 8, False)
