# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
What is wrong with a dataset, said before the first training step rather than in the middle of the run.

Covers columns, the form of prompts, the number of images against the placeholders, and images that training could not
use, for rows in TRL's formats (`prompt` with `image` or `images`); with the limits of a model (`prompt_limits.py`)
also image tokens in text and the length of prompts. Does not cover whether a gold answer can be verified. Imports
`datasets` and PIL only when called.
"""

import itertools
import logging
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ..images.rows import images_of, place_images, unread_image_columns
from .layouts import conversion, image_list


if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

    from .prompt_limits import PromptLimits

logger = logging.getLogger(__name__)

RESPONSE_COLUMNS = ("chosen", "rejected", "completion")
_STREAMED_ROWS = 100
_NUM_THREADS = 4
_ROWS_AT_ONCE = 64


class DatasetError(ValueError):
    """A dataset that cannot be trained on. The message names dataset, row, column and file, and the remedy."""


def parse_check_images(value: str | int) -> str | int:
    """
    Read the setting `check_images`: `"all"`, `"none"`, or a number of rows (as text or integer); a `ValueError` for
    others.
    """
    if value in ("all", "none"):
        return value
    if str(value).isdecimal() and int(value) > 0:
        return int(value)
    raise ValueError(f"`check_images` is {value!r} but must be 'all', 'none' or a number of rows above 0.")


def check_dataset(
    dataset: "Dataset | IterableDataset",
    *,
    name: str,
    columns: Sequence[str] = ("prompt",),
    check_images: str | int = "all",
    shard: tuple[int, int] = (0, 1),
    progress: bool = True,
    limits: "PromptLimits | None" = None,
) -> int:
    """
    Check columns, prompts and images of a dataset.

    Of a streaming dataset the first rows are read: `check_images` of them, or 100 for `"all"`.

    Args:
        dataset (`Dataset` or `IterableDataset`): Rows with `prompt` (text or messages) and, for vision data, `image`
            or `images`.
        name (`str`): How messages call the dataset, for example its path and split.
        columns (`Sequence[str]`, *optional*, defaults to `("prompt",)`): Columns that have to exist.
        check_images (`str` or `int`, *optional*, defaults to `"all"`): Rows to read and whose images to decode:
            `"all"`, a number of rows spread evenly over the dataset, or `"none"`: no row is read, only the columns are
            checked.
        shard (`tuple[int, int]`, *optional*, defaults to `(0, 1)`): Index of this process and number of processes:
            each reads its part of the rows.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.
        limits ([`~trl_r1v2.checks.prompt_limits.PromptLimits`], *optional*): What the model allows in the text of the
            rows that are read.

    Returns:
        `int`: Number of images decoded by this process.

    Raises:
        DatasetError: At the first row that cannot be used.
    """
    check_images = parse_check_images(check_images)
    check_columns(dataset, name=name, columns=columns)
    if check_images == "none":
        return 0
    rows, total = _rows_to_read(dataset, name, check_images, shard)
    return _check_rows(rows, total, name, progress, limits)


def check_columns(dataset: "Dataset | IterableDataset", *, name: str, columns: Sequence[str]) -> None:
    """
    Check that columns exist and that there are rows, or raise a [`DatasetError`]. A streaming dataset whose columns
    are not known in advance passes.
    """
    present = dataset.column_names
    if present is None:
        return
    missing = [column for column in columns if column not in present]
    lines = conversion(present) if "prompt" in missing else None
    if lines is not None:
        raise DatasetError(f"{name}: there is no column 'prompt'. The dataset has {', '.join(present)}. {lines}")
    if missing:
        raise DatasetError(
            f"{name}: there is no column {', '.join(map(repr, missing))}. The dataset has {', '.join(present)}: "
            "rename a column (`dataset.rename_column`) or choose another dataset or split."
        )
    if not {"image", "images"}.intersection(present):
        kept_as_images = [key for key, kind in (dataset.features or {}).items() if "Image(" in repr(kind)]
        unread = list(dict.fromkeys(unread_image_columns(present) + kept_as_images))
        if unread:
            raise DatasetError(
                f"{name}: no trainer reads images in {', '.join(map(repr, unread))}. {image_list(unread)}"
            )
    if not _is_streaming(dataset) and len(dataset) == 0:
        raise DatasetError(f"{name}: the dataset has no rows. Choose another split or build the dataset again.")


def check_row(row: dict[str, Any], *, place: str) -> list[tuple[str, Any]]:
    """
    Check prompt and number of images of one row, without decoding the images, or raise a [`DatasetError`]; return a
    name for messages and the undecoded value of each image. `place` is how messages call the row.
    """
    prompt = row.get("prompt")
    try:
        images = images_of(row)
        prompt = place_images(prompt, len(images)) if isinstance(prompt, list) else prompt
    except ValueError as error:
        raise DatasetError(f"{place}: {error}") from error
    column = next((name for name in ("images", "image") if row.get(name)), "images" if "images" in row else "image")
    empty = [index for index, image in enumerate(images) if image is None or _is_empty(image)]
    if empty:
        raise DatasetError(
            f"{place}, column {column!r}: image {empty[0]} is empty. Put the image in its place or leave the row out."
        )
    if isinstance(prompt, str):
        if images:
            raise DatasetError(
                f"{place}: the prompt is plain text, but the row has {len(images)} image(s). Vision data needs "
                "conversational prompts: "
                '[{"role": "user", "content": ...}], before any chat template is applied.'
            )
    elif isinstance(prompt, list):
        _check_placeholders(prompt, len(images), place, column)
    else:
        raise DatasetError(
            f"{place}, column 'prompt': {type(prompt).__name__} where text or a list of messages is expected. Fill in "
            "the prompt, or remove the row."
        )
    return [
        (f"{place}, column {column!r}, image {index}{_file_of(image)}", image) for index, image in enumerate(images)
    ]


def check_responses(row: dict[str, Any], *, place: str) -> None:
    """
    Check that `chosen`, `rejected` and `completion` have the form of the prompt: text, or messages that follow it.
    """
    for column in RESPONSE_COLUMNS:
        if column not in row:
            continue
        value, messages = row[column], isinstance(row["prompt"], list)
        remedy = (
            'Write it as [{"role": "assistant", "content": ...}], or leave the row out: '
            f"`dataset.map(lambda row: {{{column!r}: ...}})`."
        )
        if not value:
            raise DatasetError(f"{place}, column {column!r}: no response. Fill it in or leave the row out.")
        if not messages and not isinstance(value, str):
            raise DatasetError(
                f"{place}, column {column!r}: messages beside a prompt of plain text. Give both the same form."
            )
        if messages and not (isinstance(value, list) and all(isinstance(message, dict) for message in value)):
            raise DatasetError(
                f"{place}, column {column!r}: a {type(value).__name__} beside a prompt of messages. {remedy}"
            )
        if messages and value[0].get("role") not in ("assistant", "tool"):
            raise DatasetError(
                f"{place}, column {column!r}: begins with a message of {value[0].get('role')!r}, so the prompt would "
                "be trained on twice. Keep only what follows the prompt."
            )


def _check_placeholders(messages: list, num_images: int, place: str, column: str) -> None:
    if not messages or not all(isinstance(message, dict) and "role" in message for message in messages):
        raise DatasetError(f"{place}, column 'prompt': a list that is not one of messages with 'role' and 'content'.")
    # `prepare_multimodal_messages` fills these in, and puts the images before the first user message of plain text
    parts = [
        part
        for message in messages
        if isinstance(message.get("content"), list) and message["role"] != "tool"
        for part in message["content"]
        if part.get("type") == "image"
    ]
    if any("image" in part and part["image"] is None for part in parts):
        raise DatasetError(
            f"{place}: an image part of the prompt carries an empty 'image'. Remove that key: the images belong in "
            f"the column {column!r}, one for each part."
        )
    num_placeholders = sum("image" not in part for part in parts)
    inserted = any(message["role"] == "user" and isinstance(message.get("content"), str) for message in messages)
    if inserted:
        num_placeholders += num_images
    if num_placeholders and not num_images:
        raise DatasetError(
            f"{place}: the prompt has {num_placeholders} image placeholder(s), but column {column!r} holds no image. "
            "Put the image in its place or leave the row out."
        )
    if num_placeholders != num_images:
        raise DatasetError(
            f"{place}: {num_images} image(s) in column {column!r}, but {num_placeholders} image placeholder(s) in the "
            'prompt. Each image needs one {"type": "image"} part'
            + (
                ", and a user message of plain text already takes all images: write that message as parts, too."
                if inserted
                else "."
            )
        )


def decode_image(image: Any, *, place: str) -> tuple[int, int] | None:
    """
    Decode one image (PIL image, path, or `datasets`' undecoded `{"bytes", "path"}`) completely, as training does, so
    that a truncated file is found: a [`DatasetError`] then. Its size is looked at first. Return width and height, the
    right way up, or `None` for remote addresses, which are not fetched.
    """
    import PIL.Image

    from ..images.processing import RowError, load_image

    if isinstance(image, dict) and image.get("bytes") is None:
        image = image["path"]
    if isinstance(image, str) and "://" in image:
        return None
    if not isinstance(image, PIL.Image.Image | str | dict):
        raise DatasetError(
            f"{place}: a {type(image).__name__} is no image. Give PIL images, paths, or a column of type "
            "`datasets.Image`."
        )
    try:
        return load_image(image).size
    except RowError as error:
        raise DatasetError(f"{place} cannot be decoded: {error} Replace the file or leave the row out.") from error


def _check_rows(
    rows: Iterator[tuple[int, dict]],
    total: int,
    name: str,
    progress: bool,
    limits: "PromptLimits | None",
) -> int:
    from tqdm.auto import tqdm

    num_decoded = 0
    bar = tqdm(total=total, desc=f"checking {name}", unit="row", disable=not progress, delay=2)
    # The threads change the filters of warnings while they open images; they are put back at the end.
    with bar, ThreadPoolExecutor(_NUM_THREADS) as threads, warnings.catch_warnings():
        while batch := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            images = [check_row(row, place=f"{name}, row {index}") for index, row in batch]
            for index, row in batch:
                check_responses(row, place=f"{name}, row {index}")
            flat = [pair for pairs in images for pair in pairs]
            sizes = threads.map(lambda pair: decode_image(pair[1], place=pair[0]), flat)
            for (index, row), pairs in zip(batch, images, strict=True):
                found = [size for size in itertools.islice(sizes, len(pairs)) if size is not None]
                num_decoded += len(found)
                if limits is not None:
                    limits.check(row, found, f"{name}, row {index}")
            bar.update(len(batch))
    return num_decoded


def _rows_to_read(dataset, name: str, check_images: str | int, shard: tuple[int, int]) -> tuple[Iterator, int]:
    rank, world_size = shard
    dataset = _undecoded(dataset)
    if _is_streaming(dataset):
        if check_images == "all":
            logger.warning("%s is streamed: its first %d rows are checked.", name, _STREAMED_ROWS)
        total = _STREAMED_ROWS if check_images == "all" else check_images
        rows = itertools.islice(enumerate(dataset), rank, total, world_size)
        return rows, len(range(rank, total, world_size))
    num_rows = len(dataset)
    wanted = num_rows if check_images == "all" else min(check_images, num_rows)
    indices = [index * num_rows // wanted for index in range(rank, wanted, world_size)]
    return ((index, dataset[index]) for index in indices), len(indices)


def _undecoded(dataset):
    """Return the columns that are checked, with images as bytes and paths, so that an error can name the file."""
    from datasets import Image, LargeList, List

    def undecoded(feature):
        if isinstance(feature, Image):
            return Image(decode=False)
        if isinstance(feature, List):
            return List(undecoded(feature.feature), length=feature.length)
        if isinstance(feature, LargeList):
            return LargeList(undecoded(feature.feature))
        return feature

    if dataset.features is None:
        return dataset
    read = {"prompt", *RESPONSE_COLUMNS, "image", "images", *unread_image_columns(dataset.features)}
    dataset = dataset.select_columns([name for name in dataset.features if name in read])
    for column in ("image", "images"):
        if column in dataset.features and undecoded(dataset.features[column]) != dataset.features[column]:
            dataset = dataset.cast_column(column, undecoded(dataset.features[column]))
    return dataset


def _is_streaming(dataset) -> bool:
    from datasets import IterableDataset

    return isinstance(dataset, IterableDataset)


def _is_empty(image: Any) -> bool:
    return isinstance(image, dict) and image.get("bytes") is None and not image.get("path")


def _file_of(image: Any) -> str:
    path = image if isinstance(image, str) else image.get("path") if isinstance(image, dict) else None
    return f" ({path})" if path else ""
