# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
TRL's own tests of `GRPOTrainer`, once with TRL's class and once with ours in its place.

    python tools/run_trl_tests.py --trl CHECKOUT_OF_TRL --output benchmarks/sharding/trl_tests.json [-k EXPRESSION]

The tests ask a hub for tiny models and data. Those of `MODELS` and the data are made here, in a cache of the hub's
layout; tests of other models fail with either class alike, and so do tests that the installed TRL has outgrown.
Exits with 1 if a test that passes with TRL's class does not pass with ours.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import torch
import transformers
from trl import chat_template_utils

from tests.support import ROOT
from tests.support.tiny_models import build_tokenizer
from tests.support.tiny_qwen_vl import build_qwen_vl


# Name on the hub, without `trl-internal-testing/tiny-`: class and chat template.
MODELS = {
    "Qwen2ForCausalLM-2.5": ("Qwen2ForCausalLM", "qwen2_5"),
    "Qwen2ForSequenceClassification-2.5": ("Qwen2ForSequenceClassification", "qwen2_5"),
    "Qwen3ForCausalLM": ("Qwen3ForCausalLM", "qwen3"),
    "Qwen3ForSequenceClassification": ("Qwen3ForSequenceClassification", "qwen3"),
    "Qwen3MoeForCausalLM": ("Qwen3MoeForCausalLM", "qwen3"),
    "LlamaForCausalLM-3.2": ("LlamaForCausalLM", "qwen2_5"),
    "LlamaForSequenceClassification-3.2": ("LlamaForSequenceClassification", "qwen2_5"),
    "MistralForCausalLM-0.2": ("MistralForCausalLM", "qwen2_5"),
    "Gemma2ForCausalLM": ("Gemma2ForCausalLM", "qwen2_5"),
}
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}

PLUGIN = """
import os
import datasets
from PIL import Image
from trl import import_utils

def rows(name, config, num):
    made = []
    for i in range(num):
        text = f"question {i}"
        row = {"prompt": text if config.startswith("standard") else [{"role": "user", "content": text}]}
        picture = Image.new("RGB", (32, 32), (8 * i, 90, 200))
        if name.endswith("zen-image"):
            row["image"] = picture
        if name.endswith("zen-multi-image"):
            row["images"] = [picture] * (1 + i % 2)
        made.append(row)
    return datasets.Dataset.from_list(made)

def load_dataset(name, config=None, split=None, streaming=False, **kwargs):
    splits = {"train": 17, "test": 2}
    data = {part: rows(name, config, num) for part, num in splits.items()}
    if streaming:
        data = {part: value.to_iterable_dataset() for part, value in data.items()}
    if split is not None:
        return data[split]
    return (datasets.IterableDatasetDict if streaming else datasets.DatasetDict)(data)

datasets.load_dataset = load_dataset

# Names that tests of another release than the one installed may import.
for name in ("harbor", "jmespath", "joblib", "liger_kernel", "math_verify", "mergekit", "openreward", "vllm"):
    vars(import_utils).setdefault(f"is_{name}_available", lambda: False)

if os.environ["TESTED_CLASS"] == "ours":
    import trl
    from trl_r1v2 import SSBGRPOConfig, SSBGRPOTrainer
    trl.GRPOConfig, trl.GRPOTrainer = SSBGRPOConfig, SSBGRPOTrainer
"""


def build_hub(folder: Path) -> None:
    """The models, where an offline `from_pretrained` looks for them."""
    for name, (class_name, template) in MODELS.items():
        tokenizer = build_tokenizer()
        tokenizer.chat_template = getattr(chat_template_utils, f"{template}_chat_template")
        model_class = getattr(transformers, class_name)
        options = SIZES | (MOE if "Moe" in class_name else {})
        if "Classification" in class_name:
            options |= {"num_labels": 1}
        tokens = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
        torch.manual_seed(0)
        model = model_class(model_class.config_class(vocab_size=len(tokenizer), **tokens, **options))
        place = snapshot(folder, f"tiny-{name}")
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
    build_qwen_vl(snapshot(folder, "tiny-Qwen2_5_VLForConditionalGeneration"))


def snapshot(folder: Path, name: str) -> Path:
    repository, commit = folder / "hub" / f"models--trl-internal-testing--{name}", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    place = repository / "snapshots" / commit
    place.mkdir(parents=True)
    return place


def outcomes(tests: Path, tested: str, hub: Path, pytest_args: list[str]) -> dict[str, str]:
    """`passed`, `failed` or `skipped` for every test."""
    report = tests.parent / f"{tested}.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/test_grpo_trainer.py",
        "-q",
        "-p",
        "trl_local",
        "-p",
        "no:cacheprovider",
    ]
    command += ["-m", "not slow", "--timeout", "300", f"--junitxml={report}", *pytest_args]
    environment = os.environ | {
        "TESTED_CLASS": tested,
        "HF_HOME": str(hub),
        "HF_HUB_OFFLINE": "1",
        "CI": "1",
        "PYTHONPATH": f"{tests.parent}{os.pathsep}{ROOT}",
    }
    subprocess.run(command, cwd=tests.parent, env=environment)
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        found[f"{case.get('classname').rsplit('.', 1)[-1]}::{case.get('name')}"] = outcome
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", type=Path, required=True, help="checkout of TRL, with its tests")
    parser.add_argument("--output", type=Path)
    options, pytest_args = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(options.trl / "tests", root / "tests")
        (root / "trl_local.py").write_text(PLUGIN)
        build_hub(root / "cache")
        found = {tested: outcomes(root / "tests", tested, root / "cache", pytest_args) for tested in ("stock", "ours")}
    stock, ours = found["stock"], found["ours"]
    worse = sorted(name for name, outcome in stock.items() if outcome == "passed" and ours.get(name) != "passed")
    result = {
        "trl": version("trl"),
        "stock": Counter(stock.values()),
        "ours": Counter(ours.values()),
        "pass_with_stock_only": worse,
        "tests": {name: [outcome, ours.get(name)] for name, outcome in stock.items()},
    }
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name != "tests"}, indent=1))
    return 1 if worse or not result["stock"]["passed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
