# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""The house: arrows between the package's folders point one way, and what lifts into TRL imports little."""

import ast
import re
from pathlib import Path

import pytest


PACKAGE = Path(__file__).parents[1] / "trl_r1v2"
# From the top; a folder imports those of the levels below it, and of its own level where that makes no circle.
LEVELS = [
    {"scripts"},
    {"hallucination", "evaluation", "sampling"},
    {"ssb_grpo", "mpo", "rewards"},
    {"checks", "patches", "vlm", "prompt_sharing"},
    {"images"},
]
LIFTED = {"ssb_grpo", "mpo"}
# What a lifted feature may import of ours: the leaf, the packed prompts, and the base class of its trainer.
LIFTABLE = {"images", "prompt_sharing", "patches"}


def imported_modules(path: Path) -> set[tuple[str, ...]]:
    """The modules of the package that a file imports, as parts below the package; imports inside functions count."""
    here = path.relative_to(PACKAGE).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level]
            found.add((*base, *(node.module or "").split(".")) if node.module else base)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "trl_r1v2":
            found.add(tuple(node.module.split(".")[1:]))
        elif isinstance(node, ast.Import):
            found |= {tuple(name.name.split(".")[1:]) for name in node.names if name.name.startswith("trl_r1v2.")}
    return found


FOLDERS = sorted(path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.rglob("*.py")))
ARROWS = {
    folder: {
        module[0]
        for path in (PACKAGE / folder).rglob("*.py")
        for module in imported_modules(path)
        if module and module[0] != folder and module[0] in FOLDERS
    }
    for folder in FOLDERS
}


def test_every_folder_has_its_level():
    assert set(FOLDERS) == set().union(*LEVELS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_arrows_point_down(folder):
    (level,) = (index for index, names in enumerate(LEVELS) if folder in names)
    above = set().union(*LEVELS[:level])
    assert not ARROWS[folder] & above


def test_there_is_no_circle():
    left = dict(ARROWS)
    while left:
        leaves = [folder for folder, targets in left.items() if not targets & left.keys()]
        assert leaves, f"these folders import each other in a circle: {left}"
        for folder in leaves:
            del left[folder]


@pytest.mark.parametrize("folder", sorted(LIFTED))
def test_what_lifts_into_trl_imports_little(folder):
    """Of `patches` only the trainer that it subclasses, `grpo.py` or `dpo.py`."""
    assert ARROWS[folder] <= LIFTABLE
    of_patches = {
        module
        for path in (PACKAGE / folder).rglob("*.py")
        for module in imported_modules(path)
        if module[:1] == ("patches",)
    }
    assert of_patches == {("patches", {"ssb_grpo": "grpo", "mpo": "dpo"}[folder])}


def test_only_scripts_and_users_import_scripts():
    assert all("scripts" not in targets for targets in ARROWS.values())


def test_the_readers_walk_takes_at_most_six_files_that_exist():
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## A reader's walk")[2]
    walks = [re.findall(r"^\d\. `([\w/]+\.py)", walk, re.MULTILINE) for walk in text.split("\n**")[1:]]
    assert len(walks) == 3 and all(0 < len(walk) <= 6 for walk in walks)
    assert not [path for walk in walks for path in walk if not (PACKAGE / path).is_file()]


def test_no_line_is_longer_than_119_characters():
    """Not even one without white space, such as a pattern's or an address's, which ruff's E501 passes over."""
    too_long = [
        f"{path.relative_to(PACKAGE)}:{number}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > 119
    ]
    assert not too_long


def test_the_package_has_at_most_21_000_lines():
    """A layer goes before another comes."""
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")) <= 21_000
