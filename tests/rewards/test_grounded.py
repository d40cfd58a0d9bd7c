# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Factual consistency: statements against what is shown, in the forms of CHAIR's and POPE's data and the digits."""

import json

import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import GRPOConfig, GRPOTrainer

from tests.support.tiny_models import build_internvl
from trl_r1v2.rewards import FactualConsistencyReward, HybridReward
from trl_r1v2.rewards.grounded import Vocabulary, read_numbers


# Lines in the form of CHAIR's synonyms.txt.
SYNONYMS = """\
person, girl, boy, man, woman, kid, child, baby, people, rider
bicycle, bike
traffic light, street light, stop light
bird, duck
cat, kitten
dog, puppy
sheep, lamb
elephant
knife
wine glass
hot dog
chair, seat
couch, sofa
dining table, table
mouse
snowboard
"""


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "synonyms.txt"
    path.write_text(SYNONYMS)
    return str(path)


@pytest.fixture(scope="module")
def reward(vocabulary):
    return FactualConsistencyReward(vocabulary=vocabulary)


@pytest.mark.parametrize(
    ("text", "objects"),
    [
        ("A kitten on the sofa next to two puppies.", ["cat", "couch", "dog"]),
        ("Two men and some children; the mice.", ["person", "person", "mouse"]),
        ("Knives and wine glasses.", ["knife", "wine glass"]),
        ("A hot dog on the dining-table.", ["hot dog", "dining table"]),  # the longest
        ("A baby elephant, an adult bird.", ["elephant", "bird"]),  # the last of a compound
        ("The category of bikers, catalogues, a dog-friendly hotdogger.", []),  # words inside words
        ("TRAFFIC LIGHTS. The dog's bike.", ["traffic light", "dog", "bicycle"]),
        ("Ponies and buses.", []),
    ],
)  # fmt: skip
def test_vocabulary_finds_objects(vocabulary, text, objects):
    assert [name for name, _ in Vocabulary(vocabulary).mentions(text)] == objects


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("I see a dog and a cat.", ["dog", "cat"]),
        ("There is no dog.", []),
        ("There are no dogs, cats or birds here.", []),
        ("I do not see a dog, but a cat.", ["cat"]),
        ("I don't see any dog; a cat is there.", ["cat"]),
        ("It is not a dog, it is a cat.", ["cat"]),
        ("Not only a dog but a cat.", ["dog", "cat"]),
        ("No, there is a cat.", ["cat"]),
        ("No doubt a dog.", ["dog"]),
        ("The dog is not visible. A cat isn't shown. The bird is missing.", []),
        ("The dog is not brown.", ["dog"]),
        ("A couch without cats.", ["couch"]),
        ("Neither the dog nor the cat.", []),
    ],
)
def test_what_is_denied_is_no_statement(reward, text, stated):
    assert reward.named(text) == stated


def test_score_is_one_less_chair_i(reward):
    """Rows of COCO: categories of the instances, captions, counts of the instances; `None` fills absent counts."""
    caption = "A man and his dog sitting on a bench near a bicycle."
    texts = ["A puppy and a kitten beside a boy.", "Nothing to tell.", "A bike, a bike and a cat."]
    assert reward(texts, objects=[["person", "dog"]] * 3) == [pytest.approx(2 / 3), 0.0, 0.0]
    assert reward(texts, objects=[[caption, "Two people outside."]] * 3) == [
        pytest.approx(2 / 3), 0.0, pytest.approx(2 / 3)]  # fmt: skip
    counts = [{"dog": 2, "cat": 1, "bird": None}, {"dog": 2, "cat": 1, "bird": 0}]
    texts = ["Two dogs and one cat.", "3 dogs, a cat and a bird."]
    assert reward(texts, objects=counts) == [1.0, pytest.approx(1 / 3)]
    assert reward.unsupported("3 dogs, a cat and a bird.", counts[0]) == ["3 dog", "bird"]
    assert FactualConsistencyReward(vocabulary=["dog"], if_silent=1.0)(["Nothing."], objects=[[]]) == [1.0]
    assert reward(["A dog."], objects=[[]]) == [0.0]  # nothing is shown


def test_questions_of_pope(vocabulary):
    """Lines of POPE: the label is what the annotation says, and repeating the question states nothing."""
    lines = [
        '{"question_id": 1, "image": "a.jpg", "text": "Is there a snowboard in the image?", "label": "yes"}',
        '{"question_id": 2, "image": "a.jpg", "text": "Is there a dining table in the image?", "label": "no"}',
    ]
    rows = [json.loads(line) for line in lines]
    prompts = [[{"role": "user", "content": row["text"]}] for row in rows]
    shown = [["snowboard", "person"]] * 2
    reward = FactualConsistencyReward(vocabulary=vocabulary)

    def scores(*texts):
        return reward(list(texts), prompts=prompts, objects=shown)

    assert scores("Yes.", "No.") == [1.0, 1.0] and scores("No.", "Yes.") == [0.0, 0.0]
    thought = "<think>The question asks about a {}. A person stands there.</think>{}"
    assert scores(thought.format("snowboard", "Yes"), thought.format("dining table", "No")) == [1.0, 1.0]
    assert scores(thought.format("snowboard", "No"), "<think>I see a table.</think>Yes") == [0.5, 0.0]
    # A colour is not asked for by "is there": "no" denies no object.
    assert reward(["No."], prompts=["Is the snowboard red?"], objects=shown[:1]) == [0.0]
    # Of an incomplete annotation only what is known to be absent counts.
    known = FactualConsistencyReward(vocabulary=vocabulary, absent_column="negatives")
    texts = ["A person, a cat and a bird."]
    assert known(texts, objects=[["person"]], negatives=[["bird", "dog"]]) == [0.5]
    assert known.required_columns == ("objects", "negatives")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("<think>I see 3 and 5. 3 + 5 = 8.</think>\\boxed{8}", [3, 5]),
        ("Looks like 7, 1 and a 2. Maybe 10.", [7, 1, 2]),
        ("The image shows a 4, not a 3. I do not see a 5. There is no 6.", [4]),
        ("I see two digits: the digits are three and 5.", [3, 5]),
        ("I read 13, so the sum is 4.", [13]),
        ("The scale shows 3.5.", [3.5]),
        ("I see 3 plus 5, which is 8.", [3]),
    ],
)
def test_numbers_that_are_read(text, numbers):
    assert read_numbers(text) == numbers


def test_numbers_count_as_often_as_they_are_shown():
    reward = FactualConsistencyReward(shown_column="digits")
    texts = ["I see 3 and 3. 3 + 3 = 6.", "I see 3 and 5. 3 + 5 = 8.", "<think>Hm.</think>8", "I see 3 and 5."]
    images, digits = [["a", "b"]] * 3 + [[]], [[3, 5], [3, 5], [3, 5], [3, 5]]
    logged = {}
    scores = reward(texts, digits=digits, images=images, log_extra=logged.__setitem__, log_metric=logged.__setitem__)
    assert scores == [0.5, 1.0, 0.0, None]
    assert logged["factual_consistency_reward/unsupported"] == ["3", "", "", None]
    assert logged["factual_consistency_reward/hallucinated"] == pytest.approx(1 / 3)
    assert reward(["I see 3."], digits=[None]) == [None]
    assert reward.unsupported("I see 3 and 4.", [3]) == ["4"]


def test_mistakes_are_named(vocabulary):
    reward = FactualConsistencyReward(vocabulary=vocabulary, shown_column="labels")
    with pytest.raises(ValueError, match="needs the dataset column 'labels'.*set `shown_column`"):
        reward(["A dog."], objects=[["dog"]])
    with pytest.raises(ValueError, match="'labels' holds 18.*give their names"):
        reward(["A dog."], labels=[[18]])  # COCO's category_id
    with pytest.raises(ValueError, match="'labels' holds {'category_id': 18}; with a vocabulary.*give their names"):
        reward(["A dog."], labels=[[{"category_id": 18}]])
    with pytest.raises(ValueError, match=r"holds \['dog'\]; without a vocabulary it holds numbers"):
        FactualConsistencyReward()(["I see 3."], objects=[["dog"]])
    with pytest.raises(ValueError, match="names no object"):
        FactualConsistencyReward(vocabulary=[" , "])
    with pytest.raises(ValueError, match="give a `vocabulary`"):
        FactualConsistencyReward(absent_column="negatives")


def test_trains_beside_accuracy_from_a_recipe(tmp_path):
    """Half the completions are replaced by an honest sentence: the rule alone tells them apart, and training moves."""
    folder = build_internvl(tmp_path / "model")
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(folder, padding_side="left")
    rows = 4 * [{"prompt": [{"role": "user", "content": "What is shown?"}], "image": Image.new("RGB", (28, 28)),
                 "solution": "x", "objects": {"dog": 1, "cat": None}}]  # fmt: skip
    components = {"accuracy": {}, "factual_consistency": {"vocabulary": ["dog, puppy", "cat"], "weight": 0.5}}
    reward = HybridReward.from_config({"components": components})
    seen = []

    def told(completions, **columns):
        texts = [["A puppy.", "A cat."][row % 2] for row in range(len(completions))]
        seen.extend(reward([[{"role": "assistant", "content": text}] for text in texts], **columns))
        return seen[-len(texts) :]

    args = GRPOConfig(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=4, num_generations=2, report_to="none",
        max_completion_length=4, learning_rate=1e-2, logging_steps=1, use_cpu=True, bf16=False,
    )  # fmt: skip
    trainer = GRPOTrainer(model, told, args=args, train_dataset=Dataset.from_list(rows), processing_class=processor)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    trainer.train()
    assert seen[:4] == [0.5, 0.0, 0.5, 0.0]
    logged = trainer.state.log_history[0]
    assert logged["hybrid/factual_consistency/mean"] == 0.5 and logged["reward_std"] > 0
    assert any(not weight.equal(before[name]) for name, weight in model.named_parameters())
