# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Write a trainer of this package into a checkout of TRL, as TRL lays its experimental trainers out.

    python tools/lift.py ssb_grpo PATH

writes `trl/experimental/ssb_grpo/` (what the folder imports of `trl_r1v2` beyond the base class of its trainer lies
beside it), the tests, the page of the documentation, its line in the table of contents and its entry in the paper
index, and says how many lines that adds. Files that are missing in PATH, as in a copy of the installed package, are
begun. Tests, page and entry are those of `tools/lifted/<feature>/`.
"""

import argparse
import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path


ROOT = Path(__file__).parents[1]
PACKAGE = "trl_r1v2"
# TRL's trainers with its open defects mended; in TRL these are TRL's own.
BASES = {f"{PACKAGE}.patches.{name}" for name in ("grpo", "dpo", "reward")}
TITLES = {"ssb_grpo": "SSB-GRPO", "mpo": "MPO"}
# What a feature here builds on and is no part of its proposal: a package whose mixins its classes lose, and what they
# have only because of it.
LEFT_OUT = {"ssb_grpo": (f"{PACKAGE}.prompt_sharing.", {"share_prompts", "_moves_rows"})}
# Heading of the paper index before which the entry goes; at the end where there is none.
BEFORE = {"ssb_grpo": "### DAPO: An Open-Source LLM Reinforcement Learning System at Scale", "mpo": "### TÜLU 3"}
LICENSE = """\
# Copyright 2020-2026 The HuggingFace Team. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""
# As TRL configures it.
RUFF = ["--config", "line-length=119", "--config", "lint.isort={lines-after-imports=2, known-first-party=['trl']}"]
# What a checkout has, for a copy of the package that has no tests.
TESTING_UTILS = """\
import pytest


class TrlTestCase:
    @pytest.fixture(autouse=True)
    def set_tmp_dir(self, tmp_path):
        self.tmp_dir = str(tmp_path)
"""


def absolute_name(node: ast.ImportFrom, module: str) -> str:
    """The module that an import names, relative or not."""
    if node.level == 0:
        return node.module
    return ".".join([*module.split(".")[: -node.level], *([node.module] if node.module else [])])


def imports_of(module: str, source: str) -> list[tuple[ast.ImportFrom, str]]:
    """Every `from … import` of one of our modules, with the module it names."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    return [(node, absolute_name(node, module)) for node in nodes]


def source_of(module: str, feature: str) -> str:
    """One of our modules, without what is left out of the proposal."""
    source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
    package, members = LEFT_OUT.get(feature, ("nothing", set()))
    dropped = [
        (node, alias.name)
        for node, name in imports_of(module, source)
        if name.startswith(package)
        for alias in node.names
    ]
    nodes = [node for node, _ in dropped]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            nodes += [member for member in node.body if _name_of(member) in members]
    lines = source.splitlines()
    for node in nodes:
        first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
        for index in range(first - 1, node.end_lineno):
            lines[index] = None
    source = "\n".join(line for line in lines if line is not None) + "\n"
    for _, name in dropped:
        source = source.replace(f"({name}, ", "(")
    for name in members:
        source = re.sub(rf"\n        {name} \(.*\n(            .*\n)+", "\n", source)
    return source


def _name_of(member: ast.stmt) -> str | None:
    if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
        return member.target.id
    return member.name if isinstance(member, ast.FunctionDef) else None


def modules_of(feature: str) -> list[str]:
    """The feature's modules, and those that they import of ours, bases left out."""
    folder = ROOT / PACKAGE / feature
    found = [f"{PACKAGE}.{feature}.{path.stem}" for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]
    for module in found:  # grows while it is gone through
        for _, name in imports_of(module, source_of(module, feature)):
            if name.startswith(f"{PACKAGE}.") and name not in BASES and name not in found:
                found.append(name)
    names = [module.rpartition(".")[2] for module in found]
    if len(set(names)) < len(names):
        raise SystemExit(f"two modules of {feature} have the same name: {sorted(names)}. Rename one.")
    return found


def lifted_import(node: ast.ImportFrom, name: str) -> str:
    """An import as it reads in `trl/experimental/<feature>/`."""
    if name in BASES or name == "trl":  # of the module that defines it
        by_module: dict[str, list[str]] = {}
        for alias in node.names:
            home = getattr(importlib.import_module("trl"), alias.name).__module__
            by_module.setdefault(home.removeprefix("trl."), []).append(alias.name)
        return "\n".join(f"from ...{home} import {', '.join(names)}" for home, names in by_module.items())
    names = ", ".join(f"{alias.name} as {alias.asname}" if alias.asname else alias.name for alias in node.names)
    if name.startswith(f"{PACKAGE}."):
        return f"from .{name.rpartition('.')[2]} import {names}"
    return f"from ...{name.removeprefix('trl.')} import {names}"


def lifted_source(module: str, exports: dict[str, str], feature: str) -> str:
    """One of our modules in TRL's form: license, imports, no module docstring, public names by their path."""
    source = source_of(module, feature)
    lines = source.splitlines()
    replaced = {}
    for node, name in imports_of(module, source):
        if name.split(".")[0] in (PACKAGE, "trl"):
            indent = " " * node.col_offset
            replaced[node.lineno] = (node.end_lineno, indent + lifted_import(node, name).replace("\n", f"\n{indent}"))
    docstring = ast.parse(source).body[0]
    if isinstance(docstring, ast.Expr):
        replaced[docstring.lineno] = (docstring.end_lineno, "")
    for first in sorted(replaced, reverse=True):
        last, text = replaced[first]
        lines[first - 1 : last] = [text]
    text = "\n".join(line for line in lines if not line.startswith("# Copyright")).strip() + "\n"
    for name in exports:
        text = text.replace(f"[`{name}`]", f"[`experimental.{feature}.{name}`]")
    text = text.replace(f"from {PACKAGE} import", f"from trl.experimental.{feature} import")  # in messages
    text = re.sub(rf"\[`~?{PACKAGE}\.(?:\w+\.)*(\w+)`\]", r"[`\1`]", text)
    return LICENSE + text.replace("[`~trl.", "[`")


def exports_of(feature: str) -> dict[str, str]:
    """Configuration and trainer, by the module that defines them."""
    names = {}
    for stem in (f"{feature}_config", f"{feature}_trainer"):
        classes = [
            node.name
            for node in ast.parse(source_of(f"{PACKAGE}.{feature}.{stem}", feature)).body
            if isinstance(node, ast.ClassDef)
        ]
        names[next(name for name in classes if name.endswith(stem.rpartition("_")[2].capitalize()))] = stem
    return names


def insert(path: Path, text: str, start: str, before: str | None) -> int:
    """Add `text` to a file, which begins as `start`, before a line or at its end; returns how many lines that adds."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(start, encoding="utf-8")
    content = path.read_text(encoding="utf-8")
    if text in content:
        return 0
    place = content.find(before) if before is not None else -1
    place = len(content) if place < 0 else place
    path.write_text(content[:place] + text + content[place:], encoding="utf-8")
    return text.count("\n")


def toctree_place(path: Path, title: str) -> str | None:
    """The line of the experimental section before which a title comes in the alphabet."""
    content = path.read_text(encoding="utf-8") if path.exists() else ""
    section = content[content.find("local: experimental_overview") : content.find("  title: Experimental\n")]
    for line, other in re.findall(r"(  - local: \S+[^\n]*\n)    title: ([^\n]+)\n", section):
        if other.lower() > title.lower():
            return line
    return "  title: Experimental\n" if "  title: Experimental\n" in content else None


def lift(feature: str, checkout: Path) -> dict[str, int]:
    """
    Write a feature into a checkout.

    Args:
        feature (`str`):
            Name of the folder.
        checkout (`Path`):
            Folder with the `trl` package, and `tests` and `docs` where there are some.

    Returns:
        `dict[str, int]`: Lines added, by file.
    """
    if not (checkout / "trl" / "experimental").is_dir():
        raise SystemExit(f"{checkout} has no folder trl/experimental: name a checkout of TRL.")
    exports, added = exports_of(feature), {}

    def write(name: str, text: str) -> None:
        path = checkout / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if path.suffix == ".py":
            for command in (["check", "--select", "I", "--fix"], ["format"]):
                subprocess.run([sys.executable, "-m", "ruff", *command, *RUFF, "-q", str(path)], check=True)
        added[name] = path.read_text(encoding="utf-8").count("\n")

    folder, lifted = f"trl/experimental/{feature}", ROOT / "tools" / "lifted" / feature
    for module in modules_of(feature):
        write(f"{folder}/{module.rpartition('.')[2]}.py", lifted_source(module, exports, feature))
    write(
        f"{folder}/__init__.py", LICENSE + "".join(f"from .{stem} import {name}\n" for name, stem in exports.items())
    )
    write(f"tests/experimental/test_{feature}_trainer.py", LICENSE + (lifted / "test_trainer.py").read_text())
    write(f"docs/source/{feature}_trainer.md", (lifted / "page.md").read_text())

    if not (checkout / "tests" / "testing_utils.py").exists():
        (checkout / "tests" / "testing_utils.py").write_text(TESTING_UTILS)
        for package in (checkout / "tests", checkout / "tests" / "experimental"):
            (package / "__init__.py").touch()
    toctree, line = (
        checkout / "docs/source/_toctree.yml",
        f"  - local: {feature}_trainer\n    title: {TITLES[feature]}\n",
    )
    added["docs/source/_toctree.yml"] = insert(
        toctree,
        line,
        "- sections:\n  title: Experimental\n",
        toctree_place(toctree, TITLES[feature]) or "  title: Experimental\n",
    )
    entry = (lifted / "paper_index.md").read_text().rstrip() + "\n\n"
    added["docs/source/paper_index.md"] = insert(
        checkout / "docs/source/paper_index.md", entry, "# Paper Index\n\n", BEFORE[feature]
    )
    return added


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("feature", choices=sorted(TITLES))
    parser.add_argument("path", type=Path, help="a checkout of TRL, or a folder with a copy of the package")
    arguments = parser.parse_args()
    added = lift(arguments.feature, arguments.path)
    for name, count in added.items():
        print(f"{count:6,}  {name}")
    print(f"{sum(added.values()):6,}  lines in all")


if __name__ == "__main__":
    main()
