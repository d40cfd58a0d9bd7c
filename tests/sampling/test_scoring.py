# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.

import asyncio
import math

import pytest
from datasets import Dataset
from PIL import Image as PILImage
from trl import GRPOConfig, GRPOTrainer

from trl_r1v2.rewards import accuracy_reward
from trl_r1v2.sampling import Rollout
from trl_r1v2.sampling.scoring import score_rollouts, total_score


def rollout(row, sample, text, ids=(1, 2)):
    return Rollout(row, sample, text, list(ids), len(ids), True)


@pytest.fixture
def dataset():
    return Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": "q0"}], [{"role": "user", "content": "q1"}]],
            "images": [[PILImage.new("RGB", (3, 2))], []],
            "solution": ["a", "b"],
        }
    )


def test_functions_get_what_grpo_gives_them(dataset, text_model_path, tmp_path):
    """The keyword arguments of a reward function, recorded in a trainer and here, for the same completions."""
    seen = {}

    def recorder(name):
        def record(**kwargs):
            seen[name] = kwargs
            return [0.0] * len(kwargs["prompts"])

        return record

    texts = dataset.remove_columns("images")
    args = GRPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=4,
        report_to=[],
        use_cpu=True,
    )
    trainer = GRPOTrainer(text_model_path, recorder("grpo"), args, train_dataset=texts)
    trainer._generate_and_score_completions([texts[0], texts[0], texts[1], texts[1]])
    rollouts = [
        rollout(index // 2, index % 2, completion[0]["content"], ids)
        for index, (completion, ids) in enumerate(
            zip(seen["grpo"]["completions"], seen["grpo"]["completion_ids"], strict=True)
        )
    ]
    list(score_rollouts(rollouts, texts, {"ours": recorder("ours")}))
    assert seen["ours"].keys() == seen["grpo"].keys()
    for name in ("prompts", "completions", "completion_ids", "solution"):
        assert seen["ours"][name] == seen["grpo"][name], name
    assert seen["ours"]["trainer_state"].global_step == seen["grpo"]["trainer_state"].global_step == 0
    seen["ours"]["log_metric"]("name", 1.0)
    seen["ours"]["log_extra"]("column", [1, 2, 3, 4])


def test_images_are_inside_the_prompts_and_beside_them(dataset):
    seen = {}

    def record(prompts, images, **kwargs):
        seen.update(prompts=prompts, images=images)
        return [1.0] * len(prompts)

    list(score_rollouts([rollout(0, 0, "x"), rollout(1, 0, "y")], dataset, {"f": record}))
    assert [part["type"] for part in seen["prompts"][0][0]["content"]] == ["image", "text"]
    assert seen["prompts"][0][0]["content"][0]["image"].size == (3, 2)
    assert [part["type"] for part in seen["prompts"][1][0]["content"]] == ["text"]
    assert [len(images) for images in seen["images"]] == [1, 0]


def test_batches_keep_prompts_whole_and_scores_in_place(dataset):
    sizes = []

    def number(completions, **kwargs):
        sizes.append(len(completions))
        return [float(completion[0]["content"]) for completion in completions]

    rollouts = [rollout(row, sample, str(10 * row + sample)) for row in range(2) for sample in range(3)]
    for batch_size, expected in ((64, [6]), (4, [3, 3]), (1, [3, 3])):
        sizes.clear()
        batches = list(score_rollouts(rollouts, dataset, {"f": number}, batch_size=batch_size))
        assert sizes == expected
        records = [record for batch in batches for record in batch]
        assert [record["scores"]["f"] for record in records] == [10 * r["row"] + r["sample"] for r in records]


def test_none_and_nan_are_unscored_and_infinity_is_refused(dataset):
    values = {"a": None, "b": math.nan, "c": 2}

    def function(completions, **kwargs):
        return [values[completion[0]["content"]] for completion in completions]

    rollouts = [rollout(0, index, text) for index, text in enumerate("abc")]
    (records,) = score_rollouts(rollouts, dataset, {"f": function})
    assert [record["scores"]["f"] for record in records] == [None, None, 2.0]
    values["b"] = math.inf
    with pytest.raises(ValueError, match="f returned inf for sample 1 of row 0"):
        list(score_rollouts(rollouts, dataset, {"f": function}))


def test_coroutines_are_awaited(dataset):
    async def slow(completions, **kwargs):
        return [3.0] * len(completions)

    (records,) = score_rollouts([rollout(0, 0, "x")], dataset, {"f": slow})
    assert records[0]["scores"] == {"f": 3.0}


def test_coroutines_run_together_after_the_other_functions(dataset):
    """As `GRPOTrainer` calls them: neither coroutine ends before both have begun."""
    order, both = [], asyncio.Event()

    def meet(name):
        async def function(completions, **kwargs):
            order.append(name)
            if len(order) == 3:
                both.set()
            await asyncio.wait_for(both.wait(), 30)
            return [float(len(order))] * len(completions)

        return function

    def plain(completions, **kwargs):
        order.append("plain")
        return [0.0] * len(completions)

    functions = {"one": meet("one"), "plain": plain, "other": meet("other")}
    (records,) = score_rollouts([rollout(0, 0, "x")], dataset, functions)
    assert records[0]["scores"] == {"one": 3.0, "plain": 0.0, "other": 3.0} and order[0] == "plain"


def test_wrong_number_of_scores_is_refused(dataset):
    with pytest.raises(ValueError, match="f returned 0 scores for 1 responses"):
        list(score_rollouts([rollout(0, 0, "x")], dataset, {"f": lambda **kwargs: []}))


def test_a_missing_image_is_named():
    dataset = Dataset.from_dict(
        {"prompt": [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "q"}]}]], "images": [[]]}
    )
    with pytest.raises(ValueError, match="row 0: Number of images"):
        list(score_rollouts([rollout(0, 0, "x")], dataset, {"f": lambda **kwargs: [1.0]}))


def test_prompts_may_be_plain_text():
    (records,) = score_rollouts(
        [rollout(0, 0, "The answer is a"), rollout(0, 1, "The answer is c")],
        Dataset.from_dict({"prompt": ["q"], "solution": ["a"]}),
        {"accuracy": accuracy_reward},
    )
    assert [record["scores"]["accuracy"] for record in records] == [1.0, 0.0]


def test_total_is_the_weighted_sum_of_what_is_there():
    weights = {"a": 2.0, "b": 0.5}
    assert total_score({"a": 1.0, "b": 4.0, "judge": 9.0}, weights) == 4.0
    assert total_score({"a": None, "b": 4.0}, weights) == 2.0
    assert total_score({"a": None, "b": None, "judge": 1.0}, weights) is None
