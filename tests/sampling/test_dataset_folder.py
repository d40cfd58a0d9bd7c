# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.

import json

import pytest
from datasets import Dataset, DatasetDict, Image, List, load_dataset
from PIL import Image as PILImage

from trl_r1v2.sampling import dataset_folder
from trl_r1v2.sampling.dataset_folder import write_dataset_folder
from trl_r1v2.scripts.loading import load_split


def rows(*texts):
    return Dataset.from_dict({"prompt": list(texts)})


def clutter(folder):
    """What commands leave beside the data."""
    (folder / "rollouts").mkdir(parents=True)
    for name in ("rollouts/rollouts-00000-of-00001.jsonl", "rollouts/rollouts.json", "summary.json"):
        (folder / name).write_text(json.dumps({"row": 1}) + "\n")
    PILImage.new("RGB", (4, 4)).save(folder / "scores.png")


def test_load_dataset_reads_the_rows_and_nothing_else(tmp_path):
    clutter(tmp_path / "out")
    write_dataset_folder(rows("a", "b"), tmp_path / "out", "Title", "Text.")
    loaded = load_dataset(str(tmp_path / "out"))
    assert {split: loaded[split].to_list() for split in loaded} == {"train": [{"prompt": "a"}, {"prompt": "b"}]}
    assert (tmp_path / "out" / "README.md").read_text() == "# Title\n\nText.\n"


def test_a_rewritten_folder_and_a_namesake_load_their_own_rows(tmp_path):
    """
    `datasets` caches what it loads: neither an earlier version nor another folder of the same name may come back.
    """
    for run in ("one", "two"):
        write_dataset_folder(rows(run), tmp_path / run / "pairs", "Title", "Text.")
        assert load_dataset(str(tmp_path / run / "pairs"), split="train")["prompt"][:] == [run]
    write_dataset_folder(rows("three", "four"), tmp_path / "one" / "pairs", "Title", "Text.")
    assert load_dataset(str(tmp_path / "one" / "pairs"), split="train")["prompt"][:] == ["three", "four"]


def test_images_travel_with_the_folder(tmp_path):
    PILImage.new("RGB", (6, 4), (9, 8, 7)).save(tmp_path / "image.png")
    dataset = Dataset.from_dict({"prompt": ["a"], "images": [[str(tmp_path / "image.png")]]})
    dataset = dataset.cast_column("images", List(Image()))
    write_dataset_folder(dataset, tmp_path / "out", "Title", "Text.")
    (tmp_path / "image.png").unlink()
    image = load_dataset(str(tmp_path / "out"), split="train")[0]["images"][0]
    assert image.size == (6, 4) and image.getpixel((0, 0)) == (9, 8, 7)


def test_large_data_is_split_and_old_shards_go(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_folder, "MAX_SHARD_BYTES", 100)
    texts = [f"{index:050d}" for index in range(10)]
    write_dataset_folder(rows(*texts), tmp_path / "out", "Title", "Text.")
    assert len(list((tmp_path / "out" / "data").iterdir())) > 2
    assert load_dataset(str(tmp_path / "out"), split="train")["prompt"][:] == texts
    write_dataset_folder(rows("one"), tmp_path / "out", "Title", "Text.")
    assert [path.name for path in (tmp_path / "out" / "data").iterdir()] == ["train-00000-of-00001.parquet"]


def test_rows_load_from_every_kind_of_place(tmp_path):
    dataset = rows("a", "b", "c")
    dataset.to_parquet(tmp_path / "file.parquet")
    dataset.to_json(tmp_path / "file.jsonl")
    dataset.to_csv(tmp_path / "file.csv")
    dataset.save_to_disk(tmp_path / "disk")
    DatasetDict({"train": dataset, "test": rows("t")}).save_to_disk(tmp_path / "disk_dict")
    write_dataset_folder(dataset, tmp_path / "folder", "Title", "Text.")
    for name in ("file.parquet", "file.jsonl", "file.csv", "disk", "disk_dict", "folder"):
        assert load_split(str(tmp_path / name), None, "train")["prompt"][:] == ["a", "b", "c"], name
        assert load_split(str(tmp_path / name), None, "train", max_rows=2)["prompt"][:] == ["a", "b"], name
        assert load_split(str(tmp_path / name), None, "train[1:]", max_rows=1)["prompt"][:] == ["b"], name
    assert load_split(str(tmp_path / "disk_dict"), None, "test")["prompt"][:] == ["t"]


def test_what_cannot_be_loaded_says_why(tmp_path):
    DatasetDict({"train": rows("a")}).save_to_disk(tmp_path / "disk_dict")
    with pytest.raises(ValueError, match="no split 'dev', only 'train'. Correct `dataset_split`"):
        load_split(str(tmp_path / "disk_dict"), None, "dev")
    (tmp_path / "prompts.txt").write_text("a")
    with pytest.raises(ValueError, match="data files end in .parquet, .jsonl, .json, .csv"):
        load_split(str(tmp_path / "prompts.txt"), None, "train")
