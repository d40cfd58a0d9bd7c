# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""vLLM's pooling server gives the scores of the reward models that we train, with images and without."""

import pytest
import torch
from transformers import Qwen2ForSequenceClassification

from tests.support.cpu_engine import KV_CACHE, WIDE_ENOUGH, Server
from tests.support.reward_tiny import build_reward_model, picture
from tests.support.tiny_models import build_tokenizer, text_config
from trl_r1v2.rewards import HTTPRewardModel, RewardModel


pytestmark = pytest.mark.vllm

# fmt: off
OPTIONS = ["--runner", "pooling", "--convert", "classify", "--dtype", "float32", "--max-model-len", "256",
           "--enforce-eager", "--kv-cache-memory-bytes", str(KV_CACHE)]
# fmt: on


def conversation(answer: str, *images) -> list[dict]:
    parts = [{"type": "image", "image": image} for image in images]
    return [
        {"role": "user", "content": [*parts, {"type": "text", "text": "which number?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]


TEXTS = [conversation("seven"), conversation("<think>3 + 4</think>it is 7")]
PICTURES = [picture(1), picture(2, width=56), picture(3)]
WITH_IMAGES = [
    conversation("seven", PICTURES[0]),
    conversation("it is 7", *PICTURES[1:]),
    conversation("7", PICTURES[2]),
]


def build_classifier(folder) -> str:
    """What TRL's own `RewardTrainer` leaves: a text model with `score.weight`."""
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    Qwen2ForSequenceClassification(text_config(tokenizer, num_labels=1, **WIDE_ENOUGH)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("kind", ["classifier", "internvl", "qwen_vl"])
def test_scores_are_our_own(kind, model_paths, tmp_path):
    if kind == "classifier":
        path, conversations = build_classifier(tmp_path / "reward"), TEXTS
    else:
        path, conversations = build_reward_model(model_paths[kind], tmp_path / "reward"), TEXTS + WITH_IMAGES
    expected = RewardModel.from_pretrained(path, dtype="float32").score(conversations)
    assert max(expected) - min(expected) > 0.1
    with Server(["vllm", "serve"], path, tmp_path / "server.log", *OPTIONS) as server:
        scores = HTTPRewardModel(server.url, sees_images=kind != "classifier").score(conversations)
    assert scores == pytest.approx(expected, abs=1e-3)
