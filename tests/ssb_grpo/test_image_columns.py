# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Text rows among image rows, however the data set says that a row has no image."""

import pytest
from datasets import Dataset

from tests.support.ssb_probes import fated
from tests.support.ssb_runs import SSBGRPOTrainer, assert_identical, image, make_trainer
from trl_r1v2.checks.rows import DatasetError, check_dataset
from trl_r1v2.images.rows import with_image_column


FATES = {2: 0.0, 3: 1.0}
WITH_IMAGE = (0, 3, 4)


def rows(columns: str, num_rows: int = 6) -> list[dict]:
    """Six prompts, three of them with an image; `columns` is how the data set spells that."""
    found = []
    for row in range(num_rows):
        picture = image(row) if row in WITH_IMAGE else None
        images = [picture] if picture else None
        spelled = {
            "lists": {"images": images or []},
            "none": {"images": images},
            "single": {"image": picture},
            # as two data sets of a mixture: the one has `images`, the other `image`
            "both": {"images": images if row < 4 else None, "image": None if row < 4 else picture},
            "both_empty": {"images": (images if row < 4 else None) or [], "image": None if row < 4 else picture},
        }[columns]
        found.append({"prompt": [{"role": "user", "content": "n" * (1 + row % 3) + str(row)}], "row": row, **spelled})
    return found


def run(folder, path, columns, data=None, **settings):
    """One prompt a generation, so that whole generations have no image."""
    data = Dataset.from_list(rows(columns)) if data is None else data
    settings = {"per_device_train_batch_size": 4, "max_steps": 6, "shuffle_dataset": False} | settings
    trainer = make_trainer(SSBGRPOTrainer, path, folder, data, fated(FATES), **settings)
    trainer.train()
    return trainer


@pytest.mark.parametrize("is_enabled", [True, False], ids=["buffer", "stock"])
@pytest.mark.parametrize("columns", ["none", "single", "both", "both_empty"])
def test_every_spelling_trains_alike(columns, is_enabled, internvl_path, tmp_path):
    lists = run(tmp_path / "lists", internvl_path, "lists", ssb_enabled=is_enabled)
    other = run(tmp_path / columns, internvl_path, columns, ssb_enabled=is_enabled)
    assert_identical(lists, other)
    if is_enabled:
        assert [entry["ssb/replayed_rows"] for entry in other.state.log_history if "loss" in entry][2:4] == [4, 4]


def test_logged_images_lie_beside_their_prompts(internvl_path, tmp_path):
    """Two generations without images, the third and the fourth row's, after one with: TRL would leave the old ones."""
    trainer = run(tmp_path, internvl_path, "lists", max_steps=3)
    assert [len(images) for images in trainer._logs["images"]] == [0] * 4
    assert len(trainer._logs["prompt"]) == 4
    trainer = run(tmp_path, internvl_path, "lists", max_steps=4)
    assert [len(images) for images in trainer._logs["images"]] == [1] * 4


def test_a_text_only_run_of_a_vision_model_logs_no_images(internvl_path, tmp_path):
    data = Dataset.from_list([{**row, "images": []} for row in rows("lists")])
    assert not run(tmp_path, internvl_path, "lists", data, max_steps=2)._logs["images"]


def test_images_in_both_columns_of_a_row_are_refused():
    both = rows("lists", 1)[0] | {"image": image(1)}
    with pytest.raises(DatasetError, match="data, row 0: .* has images in both columns"):
        check_dataset(Dataset.from_list([both]), name="data")
    with pytest.raises(ValueError, match="has images in both columns"):
        with_image_column(both)


@pytest.mark.parametrize("columns", ["both", "both_empty", "single", "none"])
def test_the_check_reads_every_image(columns):
    assert check_dataset(Dataset.from_list(rows(columns)), name="data") == len(WITH_IMAGE)
