# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
TRL's own tests of `GRPOTrainer`, once with TRL's class and once with ours in its place.

    python tools/run_trl_tests.py --trl CHECKOUT_OF_TRL --output benchmarks/sharding/trl_tests.json [-k EXPRESSION]

Outcomes are kept in `--work_dir` test by test, so that a run that was stopped goes on where it was.

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
    "Cohere2ForCausalLM": ("Cohere2ForCausalLM", "qwen2_5"),
    "Glm4MoeForCausalLM": ("Glm4MoeForCausalLM", "qwen2_5"),
    "GptOssForCausalLM": ("GptOssForCausalLM", "qwen2_5"),
}
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}
MOE = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "num_local_experts": 4,
}

PLUGIN = """
import json
import os
from pathlib import Path
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

outcomes_file = Path(os.environ["OUTCOMES"])
known = [json.loads(line)[0] for line in outcomes_file.read_text().splitlines()]
outcome = {}

def short(nodeid):
    return nodeid.split("::", 1)[1]

def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if short(item.nodeid) not in known]

def pytest_runtest_logreport(report):
    name = short(report.nodeid)
    if outcome.get(name) != "failed" and (report.when == "call" or report.outcome != "passed"):
        outcome[name] = report.outcome
    if report.when == "teardown":
        with outcomes_file.open("a") as lines:
            lines.write(json.dumps([name, outcome[name]]) + "\\n")

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


def outcomes(root: Path, tested: str, pytest_args: list[str]) -> dict[str, str]:
    """`passed`, `failed` or `skipped` for every test."""
    kept = root / f"{tested}.jsonl"
    kept.touch()
    command = [sys.executable, "-m", "pytest", "tests/test_grpo_trainer.py", "-q", "-p", "trl_local", "--tb=line"]
    command += ["-p", "no:cacheprovider", "-m", "not slow", "--timeout", "300", *pytest_args]
    environment = os.environ | {
        "TESTED_CLASS": tested,
        "OUTCOMES": str(kept),
        "HF_HOME": str(root / "cache"),
        "HF_HUB_OFFLINE": "1",
        "CI": "1",
        "PYTHONPATH": f"{root}{os.pathsep}{ROOT}",
    }
    subprocess.run(command, cwd=root, env=environment)
    return dict(json.loads(line) for line in kept.read_text().splitlines())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", type=Path, required=True, help="checkout of TRL, with its tests")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--work_dir", type=Path, default=ROOT / "runs" / "trl_tests")
    options, pytest_args = parser.parse_known_args()
    root = options.work_dir.absolute()
    if not (root / "tests").is_dir():
        build_hub(root / "cache")
        (root / "trl_local.py").write_text(PLUGIN)
        shutil.copytree(options.trl / "tests", root / "tests")
    found = {tested: outcomes(root, tested, pytest_args) for tested in ("stock", "ours")}
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
