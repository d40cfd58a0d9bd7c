# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from datasets import Dataset, load_dataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from tests.support.tiny_models import build_internvl
from trl_r1v2.sampling import RolloutStore
from trl_r1v2.sampling.prefill import EngineCorrection, group_advantages
from trl_r1v2.sampling.prompt_pool import FATES, PoolRules, PromptOutcome, count_fates, pass_rate_histogram
from trl_r1v2.scripts import filter_prompts
from trl_r1v2.scripts.filter_prompts import FilterPromptsArguments
from trl_r1v2.ssb_grpo.ssb_grpo_config import SSBGRPOConfig
from trl_r1v2.ssb_grpo.ssb_grpo_trainer import SSBGRPOTrainer


verdict_lists = st.lists(st.sampled_from([True, False, None]), max_size=12)


def even_reward(completions, kind, **kwargs):
    """Right by parity of the length for `mixed` prompts, fixed for the others, `None` for those without an answer."""
    fixed = {"easy": 1.0, "hard": 0.0, "open": None}
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    return [
        float(sum(map(ord, text)) % 2 == 0) if k == "mixed" else fixed[k] for text, k in zip(texts, kind, strict=True)
    ]


def length_reward(completion_ids, **kwargs):
    return [len(ids) / 10 for ids in completion_ids]


# ---- Pure rules ----


@given(st.lists(verdict_lists, max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_fates_partition_the_prompts(prompts, one, other):
    rules = PoolRules(min(one, other), max(one, other))
    outcomes = [PromptOutcome.from_verdicts(row, verdicts) for row, verdicts in enumerate(prompts)]
    counts = count_fates(outcomes, rules)
    assert tuple(counts) == FATES and sum(counts.values()) == len(prompts)
    for verdicts, outcome in zip(prompts, outcomes, strict=True):
        judged = [verdict for verdict in verdicts if verdict is not None]
        mixed = True in judged and False in judged
        within = bool(judged) and rules.min_pass_rate <= sum(judged) / len(judged) <= rules.max_pass_rate
        assert (rules.fate(outcome) == "kept") == (mixed and within)


@pytest.mark.parametrize(
    ("verdicts", "fate"),
    [
        ([True, True], "all_right"),
        ([True, None], "all_right"),
        ([False, None], "all_wrong"),
        ([None, None], "unscorable"),
        ([], "unscorable"),
        ([True] + [False] * 9, "too_hard"),
        ([False] + [True] * 9, "too_easy"),
        ([True, True, False, False, False, False, False, False, False, False], "kept"),
    ],
)
def test_fate_of_a_prompt(verdicts, fate):
    assert PoolRules(0.2, 0.8).fate(PromptOutcome.from_verdicts(0, verdicts)) == fate


@given(st.lists(verdict_lists, max_size=20), st.integers(1, 30))
def test_histogram_matches_exact_arithmetic(prompts, num_bins):
    outcomes = [PromptOutcome.from_verdicts(row, verdicts) for row, verdicts in enumerate(prompts)]
    expected = [0] * num_bins
    for verdicts in prompts:
        judged = [verdict for verdict in verdicts if verdict is not None]
        if judged:
            rate = Fraction(sum(judged), len(judged))
            expected[next(b for b in range(num_bins) if rate < Fraction(b + 1, num_bins) or b == num_bins - 1)] += 1
    assert pass_rate_histogram(outcomes, num_bins) == expected


def test_every_rate_has_its_own_bin():
    outcomes = [PromptOutcome(0, 25, 25, right) for right in range(26)]
    assert pass_rate_histogram(outcomes, 26) == [1] * 26
    # 29 / 100 * 100 is below 29 in floating point.
    assert pass_rate_histogram([PromptOutcome(0, 100, 100, 29)], 100)[29] == 1


@pytest.mark.parametrize("bounds", [(-0.1, 1), (0, 1.1), (0.6, 0.4)])
def test_bounds_are_checked(bounds):
    with pytest.raises(ValueError, match="0 <= min_pass_rate <= max_pass_rate <= 1"):
        PoolRules(*bounds)


def test_advantages_are_those_of_eq_6():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [2.0, float("nan"), 5.0, 3.5], [1.0, 1.0, 1.0, 1.0]])
    advantages = group_advantages(rewards).double().numpy()
    for row, values in enumerate(rewards.double().numpy()):
        expected = (values - np.nanmean(values)) / (np.nanstd(values, ddof=1) + 1e-4)
        np.testing.assert_allclose(advantages[row], np.nan_to_num(expected), rtol=1e-5)


def test_the_correction_for_an_engine_is_trls():
    """The four modes by hand, for differences of log 2, log 0.5 and one that the engine does not say."""
    logps = torch.tensor([-1.0, -2.0, -3.0])
    engine = logps - torch.tensor([2.0, 0.25, 1.0]).log()
    engine[2] = float("nan")
    for mode, expected in {
        "token_truncate": [1.5, 0.5, 1.0],
        "token_mask": [0.0, 0.0, 1.0],
        "sequence_truncate": [0.5],
        "sequence_mask": [0.5],
    }.items():
        correction = EngineCorrection(mode, clip_max=1.5, clip_min=0.5)
        torch.testing.assert_close(correction.ratio(logps, engine), torch.tensor(expected))
    assert EngineCorrection("sequence_mask", clip_max=0.4).ratio(logps, engine).tolist() == [0.0]
    assert EngineCorrection("token_mask").ratio(logps, engine).tolist() == pytest.approx([2.0, 0.25, 1.0])


def test_a_buffer_for_a_run_with_vllm_is_refused_by_one_without(tmp_path, text_prompts, text_model_path):
    """What was sampled by the model itself has a ratio of exactly 1; samples that a bound masks are left out."""
    settings = {"prefill": True, "plots": False, "vllm_importance_sampling_mode": "sequence_mask"}
    filter_prompts.main(arguments(tmp_path, text_prompts, text_model_path, **settings))
    (file,) = (tmp_path / "ssb").glob("*.safetensors")
    tensors = load_file(file)
    ratios = [value for name, value in tensors.items() if name.endswith("importance_sampling_ratio")]
    assert ratios and all(ratio.tolist() == [1.0] for ratio in ratios)
    for name, value in tensors.items():
        if name.endswith("sampling_per_token_logps"):
            torch.testing.assert_close(value, tensors[name.replace("sampling", "old")], rtol=0, atol=0)
    pool = load_dataset(str(tmp_path), split="train")
    config = SSBGRPOConfig(
        output_dir=str(tmp_path / "run"),
        per_device_train_batch_size=6,
        num_generations=6,
        ssb_prefill=str(tmp_path / "ssb"),
        report_to=[],
        use_cpu=True,
    )
    with pytest.raises(ValueError, match="importance_sampling_mode.*sequence_mask"):
        SSBGRPOTrainer(text_model_path, [PoolRewards()], config, train_dataset=pool)
    filter_prompts.main(
        arguments(tmp_path, text_prompts, text_model_path, **settings, vllm_importance_sampling_clip_max=0.5)
    )
    assert not load_file(file).keys() & tensors.keys() - {"generator"}


# ---- The command ----


KINDS = ["mixed", "easy", "mixed", "hard", "open", "mixed"]


@pytest.fixture(scope="module")
def text_prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "prompts.parquet"
    Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": f"question {index}"}] for index in range(len(KINDS))],
            "kind": KINDS,
        }
    ).to_parquet(path)
    return str(path)


def arguments(folder, prompts, model, **changes):
    values = dict(
        dataset_name=prompts,
        output_dir=str(folder),
        model_name_or_path=model,
        num_samples=6,
        max_new_tokens=5,
        batch_size=12,
        reward_funcs=[f"{__name__}.even_reward", f"{__name__}.length_reward"],
        reward_weights=[1.0, 0.5],
        use_cpu=True,
    )
    return FilterPromptsArguments(**(values | changes))


def test_pool_holds_the_prompts_with_mixed_outcomes(tmp_path, text_prompts, text_model_path, capsys):
    filter_prompts.main(arguments(tmp_path, text_prompts, text_model_path))
    rollouts = RolloutStore.merge(tmp_path / "rollouts", range(6), 6)
    right = {row: [] for row in range(6)}
    for rollout in rollouts:
        right[rollout.row].append(sum(map(ord, rollout.text)) % 2 == 0)
    mixed = [row for row in (0, 2, 5) if len(set(right[row])) == 2]
    assert mixed, "the seed should give a mixed prompt"

    pool = load_dataset(str(tmp_path), split="train", cache_dir=str(tmp_path / "cache"))
    assert pool["source_row"][:] == mixed
    assert pool["num_right"][:] == [sum(right[row]) for row in mixed]
    assert pool["pass_rate"][:] == [sum(right[row]) / 6 for row in mixed]
    assert [prompt[0]["content"] for prompt in pool["prompt"]] == [f"question {row}" for row in mixed]

    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["prompts"]["unscorable"] == 1
    assert summary["prompts"]["all_right"] == 1 + sum(all(right[row]) for row in (0, 2, 5))
    assert summary["prompts"]["all_wrong"] == 1 + sum(not any(right[row]) for row in (0, 2, 5))
    assert summary["mixed_share"] == len(mixed) / 6
    lengths = [rollout.num_tokens / 10 for rollout in rollouts]
    assert summary["reward_funcs"][f"{__name__}.length_reward"]["mean"] == pytest.approx(np.mean(lengths))
    assert summary["reward_funcs"][f"{__name__}.even_reward"]["num_unscored"] == 6
    assert sum(summary["pass_rate_histogram"]["counts"]) == 5
    assert PILImage.open(tmp_path / "pass_rates.png").width > 100
    assert f"{len(mixed)} of 6 prompts are in {tmp_path}" in capsys.readouterr().out


def test_an_interrupted_run_ends_up_the_same(tmp_path, text_prompts, text_model_path):
    filter_prompts.main(arguments(tmp_path / "whole", text_prompts, text_model_path, plots=False))
    filter_prompts.main(arguments(tmp_path / "cut", text_prompts, text_model_path, plots=False))
    for name in ("rollouts", "scores"):
        whole = tmp_path / "whole" / "rollouts" / f"{name}-00000-of-00001.jsonl"
        cut = tmp_path / "cut" / "rollouts" / f"{name}-00000-of-00001.jsonl"
        assert cut.read_bytes() == whole.read_bytes()
        cut.write_bytes(cut.read_bytes()[:1500])
    filter_prompts.main(arguments(tmp_path / "cut", text_prompts, text_model_path, plots=False))
    for name in ("rollouts/rollouts-00000-of-00001.jsonl", "rollouts/scores-00000-of-00001.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    pools = [load_dataset(str(tmp_path / run), split="train").to_list() for run in ("whole", "cut")]
    assert pools[0] == pools[1]


def test_a_failing_reward_function_loses_no_rollout(tmp_path, text_prompts, text_model_path, monkeypatch):
    working = even_reward

    def failing(completions, kind, **kwargs):
        if "open" in kind:
            raise RuntimeError("no judge")
        return working(completions, kind)

    with monkeypatch.context() as patch:
        patch.setitem(globals(), "even_reward", failing)
        with pytest.raises(RuntimeError, match="no judge") as error:
            filter_prompts.main(arguments(tmp_path, text_prompts, text_model_path, plots=False))
    assert any("rows [4, 5]" in note for note in error.value.__notes__)
    scores = (tmp_path / "rollouts" / "scores-00000-of-00001.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in scores] == [row for row in range(4) for _ in range(6)]
    monkeypatch.setattr("trl_r1v2.sampling.generation._generate", None)  # nothing is left to sample
    filter_prompts.main(arguments(tmp_path, text_prompts, text_model_path, plots=False))
    assert (tmp_path / "data").is_dir()


def test_other_settings_or_prompts_are_refused(tmp_path, text_prompts, text_model_path):
    filter_prompts.main(arguments(tmp_path, text_prompts, text_model_path, plots=False))
    for change, message in (
        ({"temperature": 0.7}, "temperature: stored 1.0, now 0.7"),
        ({"max_prompts": 3}, "num_rows: stored 6, now 3"),
        ({"reward_funcs": [f"{__name__}.even_reward"], "reward_weights": None}, "reward_funcs"),
    ):
        with pytest.raises(ValueError, match=message):
            filter_prompts.main(arguments(tmp_path, text_prompts, text_model_path, plots=False, **change))
    # Other columns leave the rollouts valid, but not their scores.
    changed = load_dataset("parquet", data_files=text_prompts, split="train").map(lambda row: {"kind": "mixed"})
    changed.to_parquet(tmp_path / "changed.parquet")
    with pytest.raises(ValueError, match="holds scores made with other settings .dataset: "):
        filter_prompts.main(arguments(tmp_path, str(tmp_path / "changed.parquet"), text_model_path, plots=False))


def test_scores_of_an_edited_reward_are_refused_and_made_again_without_sampling(
    tmp_path, text_prompts, text_model_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    source = f"from {__name__} import even_reward, length_reward\n"
    (tmp_path / "pool_rewards.py").write_text(source)
    settings = {"plots": False, "reward_funcs": ["pool_rewards.even_reward", "pool_rewards.length_reward"]}
    filter_prompts.main(arguments(tmp_path, text_prompts, text_model_path, **settings))
    (tmp_path / "pool_rewards.py").write_text(f"{source}edited = True\n")
    monkeypatch.setattr("trl_r1v2.sampling.generation._generate", None)  # nothing is sampled from here on
    with pytest.raises(
        ValueError, match="scores made with other settings .reward_funcs: .* or delete .*rollouts/scores"
    ):
        filter_prompts.main(arguments(tmp_path, text_prompts, text_model_path, **settings))
    for path in (tmp_path / "rollouts").glob("scores*"):
        path.unlink()
    filter_prompts.main(arguments(tmp_path, text_prompts, text_model_path, **settings))


def test_no_mixed_prompt_is_an_error_with_the_counts(tmp_path, text_prompts, text_model_path):
    args = arguments(tmp_path, text_prompts, text_model_path, plots=False, judge_threshold=2.0)
    with pytest.raises(ValueError, match="no prompt is left of 6.*'all_wrong': 5.*'unscorable': 1"):
        filter_prompts.main(args)
    assert json.loads((tmp_path / "summary.json").read_text())["prompts"]["all_wrong"] == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_samples": 1}, "at least 2"),
        ({"reward_weights": [1.0]}, "1 entries for 2 reward functions"),
        ({"reward_funcs": []}, "`reward_funcs` is empty"),
        ({"min_pass_rate": 2.0}, "min_pass_rate is 2.0"),
        ({"top_p": 0.0}, r"`top_p` is 0.0"),
        ({"prefill_capacity": 0}, "prefill_capacity"),
        ({"generation": "server", "server_url": "http://x/v1", "prefill": True}, "`prefill` needs the tokens"),
        ({"generation": "server"}, "`generation: server` and `server_url` belong together"),
    ],
)
def test_arguments_are_checked(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        arguments(tmp_path, "prompts", "model", **changes)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("accuracy", "neither a dotted path"),
        ("nowhere.at.all", "No module named 'nowhere'"),
        ("json.nothing", "json has no 'nothing'"),
        ("json.JSONDecoder", "is a type"),
    ],
)
def test_reward_functions_are_found_before_the_model_is_loaded(path, message, tmp_path, text_prompts):
    with pytest.raises(ValueError, match=message):
        filter_prompts.main(arguments(tmp_path, text_prompts, "no/model", reward_funcs=[path], reward_weights=None))


# ---- The buffer it fills ----


def test_buffer_starts_a_run(tmp_path, tmp_path_factory):
    """Images, tiles and text: the stored samples are those of the pool, with the trainer's own log-probabilities."""
    model_path = build_internvl(tmp_path_factory.mktemp("internvl_prefill"), seed=1)
    pixels = torch.randint(0, 256, (4, 28, 84, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8).numpy()
    images = [[PILImage.fromarray(p[:, :width])] for p, width in zip(pixels, (84, 28, 28, 56), strict=True)]
    images[1] = []
    images[2].append(images[0][0])
    prompts = tmp_path / "prompts.parquet"
    kinds = ["mixed", "mixed", "mixed", "easy"]
    question = [{"role": "user", "content": "add the digits"}]
    Dataset.from_dict({"prompt": [question] * 4, "images": images, "kind": kinds}).to_parquet(prompts)
    out = tmp_path / "pool"
    filter_prompts.main(
        arguments(out, str(prompts), model_path, prefill=True, prefill_reference=True, plots=False, temperature=0.9)
    )
    pool = load_dataset(str(out), split="train")

    config = SSBGRPOConfig(
        output_dir=str(tmp_path / "run"),
        per_device_train_batch_size=6,
        num_generations=6,
        max_completion_length=5,
        max_steps=2,
        temperature=0.9,
        beta=0.1,
        learning_rate=1e-3,
        ssb_prefill=str(out / "ssb"),
        report_to=[],
        logging_steps=1,
        use_cpu=True,
        bf16=False,  # the pool was sampled in float32: autocast would change the log-probabilities
        save_strategy="no",
    )
    dead = PoolRewards()
    model = AutoModelForImageTextToText.from_pretrained(model_path)
    trainer = SSBGRPOTrainer(model, [dead], config, train_dataset=pool)
    samples = list(trainer.buffer.samples.values())

    rollouts = {(r.row, tuple(r.completion_ids)): r for r in RolloutStore.merge(out / "rollouts", range(4), 6)}
    sources = pool["source_row"][:]
    by_prompt = {}
    for rollout in rollouts.values():
        by_prompt.setdefault(rollout.row, []).append(rollout)
    assert {sample.source for sample in samples} == {index for index, row in enumerate(sources) if images[row]} | {
        None
    }
    for sample in samples:
        row = sources[sample.source] if sample.source is not None else 1
        rollout = rollouts[row, tuple(sample.tokens["completion_ids"].tolist())]
        group = RolloutStore.merge(out / "rollouts", range(4), 6)[6 * row : 6 * row + 6]
        totals = np.array([(sum(map(ord, r.text)) % 2 == 0) + 0.05 * r.num_tokens for r in group])
        expected = (totals[rollout.sample] - totals.mean()) / (totals.std(ddof=1) + 1e-4)
        assert sample.advantage == pytest.approx(expected, rel=1e-4)
        assert sample.num_images == len(images[row])

    for sample in samples:
        ids = torch.cat([sample.tokens["prompt_ids"], sample.tokens["completion_ids"]])[None]
        visual = trainer._to_row(sample, step=0).visual
        with torch.no_grad():
            logps, _, _ = trainer._get_per_token_logps_and_entropies(
                trainer.model,
                ids,
                torch.ones_like(ids),
                len(sample.tokens["completion_ids"]),
                num_images=[sample.num_images] if visual else None,
                num_tiles=[len(visual["pixel_values"])] if visual else None,
                **visual,
            )
        torch.testing.assert_close(sample.tokens["old_per_token_logps"], logps[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(sample.tokens["ref_per_token_logps"], sample.tokens["old_per_token_logps"])

    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "ssb/replayed_rows" in entry]
    assert [entry["ssb/replayed_rows"] for entry in logs] == [6.0, 6.0], (
        "every fresh group is dead, so all is replayed"
    )
    # The first step's policy is the one that sampled: replayed rows have a ratio of exactly that policy to itself.
    assert logs[0]["ssb/ratio_mean"] == pytest.approx(1.0, abs=1e-4)


class PoolRewards:
    """Calls every response wrong, so that each group is dead."""

    __name__ = "all_wrong"

    def __call__(self, completions, **kwargs):
        return [0.0] * len(completions)


def test_counts_are_written_where_the_docs_say(tmp_path, text_prompts, text_model_path):
    filter_prompts.main(arguments(tmp_path, text_prompts, text_model_path))
    card = (tmp_path / "README.md").read_text()
    summary = json.loads((tmp_path / "summary.json").read_text())
    for fate, count in summary["prompts"].items():
        assert f"| {fate} | {count} |" in card
