# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""From recipes: `calibrate` on what `pairs` keeps, `pairs` by a threshold file, and monitored `grpo` and `mpo`."""

import json

import pytest
import yaml
from datasets import Dataset, load_dataset

from tests.support.seeing import colour_rows  # noqa: E402
from trl_r1v2.hallucination.monitor_config import ControllerConfig, MonitorConfig  # noqa: E402
from trl_r1v2.hallucination.threshold_files import write_threshold_file  # noqa: E402
from trl_r1v2.rewards import Component, HybridReward  # noqa: E402
from trl_r1v2.scripts.main import main  # noqa: E402
from trl_r1v2.scripts.monitor import load_monitor_parts  # noqa: E402
from trl_r1v2.scripts.recipe import RecipeError  # noqa: E402


def text_of(completion):
    return completion if isinstance(completion, str) else completion[0]["content"]


def judge(completions, **kwargs):
    return [float("right" in text_of(completion)) for completion in completions]


def quality(completions, **kwargs):
    """The number at the end of a response."""
    return [float(text_of(completion).split()[-1]) for completion in completions]


def letters(completions, **kwargs):
    return [float(len(text_of(completion)) % 5) for completion in completions]


hybrid = HybridReward({"accuracy": letters, "reward_model": Component(letters, min_score=1.0)})


def any_letter(text, shown):
    return [character for character in text if character.isalpha()]


RESPONSES = [
    (0, "right 5"), (0, "right 3"), (0, "wrong 1"), (0, "wrong 4"), (1, "right 2"), (1, "wrong 2"), (2, "right 9"),
]  # fmt: skip


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """What `pairs` keeps of seven given responses."""
    folder = tmp_path_factory.mktemp("scored")
    Dataset.from_dict({"prompt": ["a", "b", "c"]}).to_parquet(folder / "prompts.parquet")
    lines = [json.dumps({"row": row, "text": text}) for row, text in RESPONSES]
    (folder / "responses.jsonl").write_text("\n".join(lines))
    recipe = {
        "dataset_name": str(folder / "prompts.parquet"),
        "rollouts": str(folder / "responses.jsonl"),
        "output_dir": str(folder / "pairs"),
        "reward_funcs": [f"{__name__}.quality"],
        "judge_func": f"{__name__}.judge",
        "drop_contained": False,
        "use_cpu": True,
        "plots": False,
    }
    (folder / "pairs.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["pairs", "--config", str(folder / "pairs.yaml")]) == 0
    return folder


def test_calibrate_and_pairs_by_its_file(scored, tmp_path, capsys):
    command = ["calibrate", "--scored_dir", str(scored / "pairs"), "--output_dir", str(tmp_path / "calibration")]
    assert main([*command, "--thresholds", "0", "2.5", "4.5", "--min_precision", "0.3"]) == 0
    found = json.loads((tmp_path / "calibration" / "thresholds.json").read_text())
    counted = [(point["threshold"], point["num_pairs"], point["precision"]) for point in found["sweep"]]
    assert counted == [(0.0, 5, 4 / 7), (2.5, 4, 3 / 4), (4.5, 2, 1.0)]
    assert found["score"] == {f"{__name__}.quality": 1.0} and found["judge"] == f"{__name__}.judge"
    low = {point["threshold"]: point["low"] for point in found["sweep"]}
    expected = next((threshold for threshold in sorted(low) if low[threshold] >= 0.3), max(low, key=low.get))
    assert found["chosen_threshold"] == expected
    page = capsys.readouterr().out
    assert f"Suggested threshold: {expected:g}" in page and "| 4.5" in page and "Warning" not in page
    assert (tmp_path / "calibration" / "thresholds.png").read_bytes()[:4] == b"\x89PNG"
    assert page.split("\n\nSugg")[0] in (tmp_path / "calibration" / "thresholds.md").read_text()

    # `pairs` on the same responses keeps what the sweep counted
    write_threshold_file(tmp_path / "t.json", 2.5, source="calibrate", score=found["score"])
    again = ["pairs", "--config", str(scored / "pairs.yaml"), "--output_dir", str(tmp_path / "pairs")]
    assert main([*again, "--threshold_file", str(tmp_path / "t.json")]) == 0
    kept = load_dataset(str(tmp_path / "pairs"), split="train")
    assert len(kept) == 4 and set(kept["chosen_threshold"]) == {2.5} and min(kept["chosen_score"]) == 3.0


def test_calibrate_with_other_functions(scored, tmp_path, capsys):
    command = ["calibrate", "--scored_dir", str(scored / "pairs"), "--output_dir", str(tmp_path)]
    command += ["--plots", "false"]
    functions = [f"{__name__}.quality", f"{__name__}.judge"]
    assert main([*command, "--score_funcs", *functions, "--score_weights", "1", "10", "--thresholds", "10"]) == 0
    (point,) = json.loads((tmp_path / "thresholds.json").read_text())["sweep"]
    assert point["num_responses"] == 4 and point["precision"] == 1.0  # the judge's ten are in the score
    assert not (tmp_path / "thresholds.png").exists()
    assert "is a part of the score, so the precision rises" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--score_funcs", "a.b"], "a.b was not called on these responses"),
        (["--score_weights", "1"], "`score_weights` has 1 entries for 0 `score_funcs`"),
        (["--min_precision", "2"], "`min_precision` is 2.0"),
    ],
)
def test_what_calibrate_refuses(scored, tmp_path, capsys, arguments, message):
    command = ["calibrate", "--scored_dir", str(scored / "pairs"), "--output_dir", str(tmp_path), *arguments]
    try:
        code = main(command)
    except SystemExit as ended:
        code = ended.code
    assert code == 2 and message in capsys.readouterr().err


def test_calibrate_needs_scores(tmp_path, capsys):
    assert main(["calibrate", "--scored_dir", str(tmp_path), "--output_dir", str(tmp_path)]) == 2
    assert "holds no summary.json: run `trl-r1v2 pairs`" in capsys.readouterr().err


def test_pairs_refuses_a_threshold_for_another_score(scored, tmp_path, capsys):
    write_threshold_file(tmp_path / "t.json", 2.5, source="calibrate", score={"other.reward": 1.0})
    again = ["pairs", "--config", str(scored / "pairs.yaml"), "--output_dir", str(tmp_path / "pairs")]
    assert main([*again, "--threshold_file", str(tmp_path / "t.json")]) == 2
    assert "for the score {'other.reward': 1.0}" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*again, "--threshold_file", str(tmp_path / "t.json"), "--chosen_threshold", "1"])


# ---- Monitored training ----


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("colours")
    colour_rows(8, seed=0).to_parquet(folder / "train.parquet")
    colour_rows(6, seed=1).to_parquet(folder / "validation.parquet")
    return str(folder)


def training_recipe(colours, model, output, **changes):
    return {
        "model_name_or_path": model,
        "dataset_name": colours,
        "output_dir": str(output),
        "per_device_train_batch_size": 4,
        "max_steps": 2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "dtype": "float32",
        "monitor_dataset": colours,
        "monitor_every": 1,
        "monitor_max_new_tokens": 6,
        "monitor_max_cost_share": None,
        "monitor_claims_func": f"{__name__}.any_letter",
        "monitor_claims_column": "shown",
        "monitor_object_column": "present",
        "controller_target": 0.1,
        "controller_minimum": 1.0,
        "controller_maximum": 4.0,
        "controller_max_step": 1.0,
        **changes,
    }


def train(command, recipe, folder):
    path = folder / f"{command}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return main([command, "--config", str(path)])


def test_grpo_with_monitor_and_controller(colours, internvl_path, tmp_path):
    changes = {
        "reward_funcs": [f"{__name__}.hybrid"],
        "controller_component": "reward_model",
        "num_generations": 4,
        "max_completion_length": 6,
    }
    assert train("grpo", training_recipe(colours, internvl_path, tmp_path / "out", **changes), tmp_path) == 0
    log = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
    seen = {entry["step"]: entry for entry in log if "hallucination/rate" in entry}
    assert list(seen) == [0, 1, 2] and "hallucination/object_accuracy" in seen[0]
    assert [seen[step]["hallucination/threshold"] for step in range(3)] == [2.0, 3.0, 4.0]  # random letters: rate 1
    assert hybrid.components["reward_model"].min_score == 4.0
    hybrid.set_min_score("reward_model", 1.0)

    # the next iteration goes on where this one ended, but not in other units
    found = str(tmp_path / "out" / "hallucination" / "threshold.json")
    parts = next_parts(colours, found, component="reward_model")
    assert parts["controller"].threshold == 4.0 and len(parts["controller"].moves) == 3
    with pytest.raises(RecipeError, match="units of the gated component's score.*or set `controller_initial`"):
        next_parts(colours, found, component=None)


def next_parts(colours, found, component):
    config = MonitorConfig(
        monitor_dataset=colours, monitor_claims_func=f"{__name__}.any_letter", monitor_claims_column="shown"
    )
    bounds = {"controller_target": 0.1, "controller_minimum": 1.0, "controller_maximum": 4.0}
    return load_monitor_parts(
        config, ControllerConfig(**bounds, controller_file=found, controller_component=component), [hybrid]
    )


def test_mpo_writes_the_threshold_for_pairs(colours, text_model_path, internvl_path, tmp_path):
    rows = load_dataset(colours, split="train").select_columns(["prompt", "images"])
    answer = [{"role": "assistant", "content": "red"}], [{"role": "assistant", "content": "no"}]
    rows = rows.add_column("chosen", [answer[0]] * len(rows)).add_column("rejected", [answer[1]] * len(rows))
    (tmp_path / "data").mkdir()
    rows.to_parquet(tmp_path / "data" / "train.parquet")
    recipe = training_recipe(colours, internvl_path, tmp_path / "out", max_steps=1)
    recipe["dataset_name"] = str(tmp_path / "data")
    assert train("mpo", recipe, tmp_path) == 0
    content = json.loads((tmp_path / "out" / "hallucination" / "threshold.json").read_text())
    assert content["chosen_threshold"] == 3.0 and len(content["controller"]["moves"]) == 2
    found = str(tmp_path / "out" / "hallucination" / "threshold.json")
    assert next_parts(colours, found, component=None)["controller"].threshold == 3.0
    with pytest.raises(RecipeError, match="units of the score of `pairs`.*unset `controller_component`"):
        next_parts(colours, found, component="reward_model")


@pytest.mark.parametrize(
    "monitor, controller, message",
    [
        ({"monitor_dataset": None}, {"controller_target": 0.1}, "nothing measures: set `monitor_dataset`"),
        ({"monitor_split": "test"}, {}, "no split 'test'"),
        ({"monitor_object_column": "absent"}, {}, "probe set lacks the column 'absent'"),
        ({"monitor_claims_func": "tests.support.seeing.nothing"}, {}, "has no 'nothing'"),
        ({}, {"controller_target": 0.1, "controller_component": "theta"}, "is in 0 of the run's HybridRewards"),
        ({}, {"controller_target": 0.1, "controller_file": "absent.json"}, "absent.json does not exist"),
        (
            {"monitor_claims_func": None, "monitor_claims_column": None},
            {"controller_target": 0.1},
            "`controller_target` has to watch `rate`",
        ),
    ],
)
def test_what_a_monitored_recipe_refuses(colours, monitor, controller, message):
    from trl_r1v2.checks.rows import DatasetError

    defaults = {
        "monitor_dataset": colours,
        "monitor_claims_func": "tests.support.seeing.unsupported_colours",
        "monitor_claims_column": "shown",
    }
    bounds = {"controller_minimum": 0.0, "controller_maximum": 1.0} if controller else {}
    with pytest.raises((RecipeError, DatasetError), match=message):
        load_monitor_parts(MonitorConfig(**(defaults | monitor)), ControllerConfig(**(bounds | controller)), [hybrid])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"controller_minimum": 1.0}, "`controller_minimum` is set, but there is no controller"),
        ({"controller_target": 0.1, "controller_minimum": 0.0}, "`controller_maximum` is None"),
        (
            {"controller_target": 0.1, "controller_minimum": 0.0, "controller_maximum": 1.0, "controller_gain": 0.0},
            "gain is 0.0",
        ),
    ],
)
def test_controller_settings_out_of_bounds(settings, message):
    with pytest.raises(ValueError, match=message):
        ControllerConfig(**settings)


def test_min_score_can_be_changed_between_calls():
    reward = HybridReward({"accuracy": letters, "reward_model": Component(letters)})
    assert reward(completions=["abc"]) == [6.0]
    reward.set_min_score("reward_model", 3.5)
    assert reward(completions=["abc"]) == [6.5], "a score below the threshold is paid the threshold"
    reward.set_min_score("reward_model", None)
    assert reward(completions=["abc"]) == [6.0]
    with pytest.raises(ValueError, match="no component 'theta', only accuracy, reward_model"):
        reward.set_min_score("theta", 1.0)
    with pytest.raises(ValueError, match="min_score is nan"):
        reward.set_min_score("reward_model", float("nan"))
