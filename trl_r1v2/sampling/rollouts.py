# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
One sampled response, and append-only JSONL shards that survive an interruption at any byte.

A shard is written by one process, chunk by chunk: all records of a chunk carry its number and its length, and the file
is synced once a chunk. What an interruption leaves of an unfinished chunk is dropped on resume, so a resumed run
repeats whole chunks and nothing else. Generation itself is in `generation`; this module imports neither torch nor TRL.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


SCHEMA_VERSION = 1


class EngineError(RuntimeError):
    """An engine in another process, or behind a server, that fails. The message names it and the remedy."""


@dataclass(frozen=True)
class Rollout:
    """
    One response to one prompt.

    Args:
        row (`int`): Index of the prompt in the dataset.
        sample (`int`): Number of the response among those of its prompt, from 0.
        text (`str`): Decoded response without special tokens, as TRL decodes completions.
        completion_ids (`list[int]`): Generated token ids, up to and including the first end-of-sequence token.
        num_tokens (`int`): Length of `completion_ids`.
        finished (`bool`): Whether the response ended with an end-of-sequence token rather than at the length limit.
        logps (`list[float]`, *optional*): Log-probability of each token in the distribution that an inference engine
            sampled from, in nats, where it was asked for them.
    """

    row: int
    sample: int
    text: str
    completion_ids: list[int]
    num_tokens: int
    finished: bool
    logps: list[float] | None = None


class RolloutStore:
    """
    Append-only records of one process in `<folder>/<name>-<rank>-of-<world_size>.jsonl`: rollouts, or what was made of
    them. Opening a shard drops what an interruption left of its last chunk. Ours.

    Args:
        folder (`str` or `Path`): Folder of the shards; created if needed.
        fingerprint (`dict[str, Any]`): JSON-serialisable settings that the records depend on, see `fingerprints`.
        rank (`int`, *optional*, defaults to `0`), world_size (`int`, *optional*, defaults to `1`): Number of this
            process, and of those that write shards, which is part of the fingerprint.
        name (`str`, *optional*, defaults to `"rollouts"`): What the records are, where a folder holds several kinds.

    Raises:
        `ValueError`: `<name>.json` in the folder was written for other settings, or a shard is damaged before its end.

    Example:

    ```python
    >>> store = RolloutStore("rollouts", {"model": "my-model", "num_samples": 8})
    >>> store.append_rollouts(sample_responses(..., rows=store.remaining(rows=range(100))))
    >>> rollouts = RolloutStore.merge("rollouts", rows=range(100), num_samples=8)
    ```
    """

    def __init__(
        self,
        folder: str | Path,
        fingerprint: dict[str, Any],
        rank: int = 0,
        world_size: int = 1,
        name: str = "rollouts",
    ) -> None:
        self.folder, self.name = Path(folder), name
        self.path = shard_path(self.folder, name, rank, world_size)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_settings({**fingerprint, "world_size": world_size})
        records, num_bytes, self.num_chunks = _read_shard(self.path) if self.path.exists() else ([], 0, 0)
        if self.path.exists() and num_bytes < self.path.stat().st_size:
            os.truncate(self.path, num_bytes)
        self.records: list[dict[str, Any]] = records

    def _check_settings(self, settings: dict[str, Any]) -> None:
        path = self.folder / f"{self.name}.json"
        # Compared after a round trip: tuples and integer keys must not look like a change.
        wanted = json.loads(json.dumps({"schema_version": SCHEMA_VERSION, **settings}))
        if not path.exists():
            if any(self.folder.glob(f"{self.name}-*-of-*.jsonl")):
                raise ValueError(
                    f"{self.folder} holds {self.name} shards but no {path.name}, so what they were made with is "
                    "unknown: delete the folder or choose another one"
                )
            # Every process writes the same content; the rename keeps a reader from seeing half a file.
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            temporary.write_text(json.dumps(wanted, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            os.replace(temporary, path)
        stored = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(key for key in stored.keys() | wanted.keys() if stored.get(key) != wanted.get(key))
        if changed:
            listing = "; ".join(f"{key}: stored {stored.get(key)!r}, now {wanted.get(key)!r}" for key in changed)
            raise ValueError(
                f"{self.folder} holds {self.name} made with other settings ({listing}). Restore the settings to "
                f"resume, choose another folder, or delete {self.folder / self.name}* to start over"
            )

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Writes one chunk of JSON-serialisable records and syncs it to disk; an empty chunk is not written."""
        if not records:
            return
        marks = {"chunk": self.num_chunks, "of": len(records)}
        lines = "".join(json.dumps({**marks, **record}, ensure_ascii=False) + "\n" for record in records)
        with open(self.path, "ab") as file:
            file.write(lines.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        self.num_chunks += 1
        self.records.extend(records)

    def remaining(self, rows: Iterable[int]) -> list[int]:
        """The `rows` without a record in this shard (records carry their `row`), in their order."""
        done = {record["row"] for record in self.records}
        return [row for row in rows if row not in done]

    def append_rollouts(self, rollouts: Sequence[Rollout]) -> None:
        """Writes one chunk of rollouts and syncs it to disk."""
        records = map(asdict, rollouts)
        self.append([{key: value for key, value in record.items() if value is not None} for record in records])

    @staticmethod
    def merge(folder: str | Path, rows: Iterable[int], num_samples: int, name: str = "rollouts") -> list[Rollout]:
        """
        Reads the shards of all processes, ordered by row and sample: `num_samples` responses to each of `rows`. A
        `ValueError` if a shard, a row or a sample is missing, or there are some that were not asked for.
        """
        rollouts = [Rollout(**record) for record in merge_shards(folder, name)]
        rollouts.sort(key=lambda rollout: (rollout.row, rollout.sample))
        found = Counter((rollout.row, rollout.sample) for rollout in rollouts)
        wanted = {(row, sample) for row in rows for sample in range(num_samples)}
        missing = sorted(wanted - found.keys())
        surplus = sorted(key for key, count in found.items() if count > 1 or key not in wanted)
        if missing:
            raise ValueError(
                f"{folder} lacks {len(missing)} of {len(wanted)} rollouts; the first is sample {missing[0][1]} of row "
                f"{missing[0][0]}. Run the same command again to sample what is missing"
            )
        if surplus:
            raise ValueError(
                f"{folder} holds {len(surplus)} rollouts twice or unasked for; the first is sample {surplus[0][1]} of "
                f"row {surplus[0][0]}. Sample into an empty folder"
            )
        return rollouts


def shard_path(folder: Path, name: str, rank: int, world_size: int) -> Path:
    """Path of the shard that process `rank` writes."""
    return folder / f"{name}-{rank:05d}-of-{world_size:05d}.jsonl"


def merge_shards(folder: str | Path, name: str) -> list[dict[str, Any]]:
    """
    The records called `name` in the finished chunks of every process, shard by shard. A `ValueError` if there is no
    `<name>.json` or a shard is damaged before its end.
    """
    folder = Path(folder)
    settings_path = folder / f"{name}.json"
    if not settings_path.exists():
        raise ValueError(f"{folder} holds no {name}: {settings_path.name} is missing")
    world_size = json.loads(settings_path.read_text(encoding="utf-8"))["world_size"]
    records = []
    for rank in range(world_size):
        path = shard_path(folder, name, rank, world_size)
        # A process that had no rows wrote no shard; whether rows are missing is the caller's check.
        if path.exists():
            records.extend(_read_shard(path)[0])
    return records


def _read_shard(path: Path) -> tuple[list[dict[str, Any]], int, int]:
    """The records of the finished chunks, the bytes they take up, and their number."""
    lines = path.read_bytes().split(b"\n")
    records, chunk, position, num_bytes, num_chunks = [], [], 0, 0, 0
    for number, line in enumerate(lines[:-1], start=1):
        changed = "The file was changed after it was written: delete it to sample its rows again"
        try:
            record = json.loads(line)
            mark, length = record.pop("chunk"), record.pop("of")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number < len(lines) - 1 or lines[-1]:
                raise ValueError(f"{path}, line {number}: not a record ({error}). {changed}") from error
            break
        position += len(line) + 1
        if mark != num_chunks:
            raise ValueError(f"{path}, line {number}: chunk {mark} where {num_chunks} was expected. {changed}")
        chunk.append(record)
        if len(chunk) == length:
            records.extend(chunk)
            chunk, num_bytes, num_chunks = [], position, num_chunks + 1
    return records, num_bytes, num_chunks
