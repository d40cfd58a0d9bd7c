# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Run the default tests with the oldest and the newest versions of what the package stands on, and see what pip would
change beside a vLLM that is already there.

    python tools/versions.py [--corners lowest vllm newest] [--tests mpo ssb_grpo] [--fresh]
        [--processes 2] [--beside 0.31.0 0.30.0]

Each corner is an environment of its own under `.venv-versions/`, a few GB, and takes as long as `make test`. `lowest`
has every requirement at the version that `setup.py` states as its least, `vllm` the torch and transformers that vLLM
0.31 asks for, `newest` whatever pip finds. The tests run one folder after the other, and the last result of each is
kept in `tools/versions.json`: a run goes on where the last one stopped, with folders that failed or have not run in a
corner yet, unless it is asked to start afresh. For `--beside` nothing is installed: an empty environment is given the
metadata of that vLLM and of its torch and transformers, and pip is asked what `pip install '.[vllm]'` would do there.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path


ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_suffix(".json")
ENVIRONMENTS = ROOT / ".venv-versions"
OTHER_TIERS = ("distributed", "gpu", "vllm")  # none of the default tests
VLLM_TORCH = {"torch": "2.13.0", "torchvision": "0.28.0"}
VLLM_TRANSFORMERS = {"0.31.0": "5.17.0", "0.30.0": "5.23.0"}
KEPT = ("torch", "torchvision", "transformers", "vllm")


def pip(python: Path, *arguments: str) -> str:
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout


def environment(folder: Path) -> Path:
    """A fresh virtual environment; its Python."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder / "bin" / "python"


def least_versions() -> dict[str, str]:
    """The lower bounds of `setup.py`."""
    return dict(re.findall(r'"([a-z][a-z0-9_-]*)>=([\d.]+)', (ROOT / "setup.py").read_text(encoding="utf-8")))


def corner_python(name: str, afresh: bool) -> Path:
    """The Python of a corner's environment, which is made where it is not there or its pins have changed."""
    pins = {"lowest": least_versions(), "vllm": VLLM_TORCH | {"transformers": "5.17.0"}, "newest": {}}[name]
    folder = ENVIRONMENTS / name
    pins |= {package: f"={pins[package]}" for package in VLLM_TORCH if name == "vllm"}  # `===`: no local build of it
    lines = "".join(f"{package}=={version}\n" for package, version in pins.items())
    installed = folder / "installed.txt"
    if not afresh and installed.is_file() and installed.read_text() == lines:
        return folder / "bin" / "python"
    python = environment(folder)
    (folder / "constraints.txt").write_text(lines)
    pip(python, "install", "--quiet", "--constraint", str(folder / "constraints.txt"), "--editable", ".[demo,test]")
    installed.write_text(lines)
    return python


def test_folders() -> dict[str, list[str]]:
    """What is run at a time, by the name it has in the results; the files outside folders come first."""
    folders = {path.parent.name: [f"tests/{path.parent.name}"] for path in sorted(ROOT.glob("tests/*/test_*.py"))}
    files = [f"tests/{path.name}" for path in sorted(ROOT.glob("tests/test_*.py"))]
    return {".": files} | {name: paths for name, paths in folders.items() if name not in OTHER_TIERS}


def run_tests(python: Path, paths: list[str], processes: int) -> dict:
    """How the default tests of a folder ended."""
    selected = ["-n", str(processes), "--dist", "loadfile", "-m", "not slow and not vllm and not gpu", *paths]
    ended = subprocess.run(
        [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *selected],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CI": "1"},
    )
    lines = ended.stdout.splitlines()
    return {
        "passed": ended.returncode in (0, 5),  # 5: all tests of the folder belong to other tiers
        "summary": lines[-1].strip("= "),
        "failures": [line for line in lines if line.startswith(("FAILED", "ERROR"))],
    }


def run_corner(name: str, result: dict, chosen: list[str], afresh: bool, processes: int) -> Iterator[dict]:
    """Run the default tests in a corner; the corner's result so far after each folder."""
    python = corner_python(name, afresh)
    installed = {package["name"]: package["version"] for package in json.loads(pip(python, "list", "--format=json"))}
    versions = {package: installed[package] for package in sorted(installed) if package in least_versions()}
    folders = test_folders()
    done = {} if afresh or result.get("versions") != versions else result["tests"]
    for folder in chosen or folders:
        if not done.get(folder, {}).get("passed"):
            done[folder] = run_tests(python, folders[folder], processes)
        missing = [folder for folder in folders if folder not in done]
        passed = not missing and all(done[folder]["passed"] for folder in folders)
        yield {"passed": passed, "versions": versions, "not run": missing, "tests": done}


def describe(python: Path, requirement: str) -> dict:
    """The metadata of a release."""
    report = pip(python, "install", "--quiet", "--dry-run", "--no-deps", "--report", "-", requirement)
    return json.loads(report)["install"][0]["metadata"]


def pretend(python: Path, metadata: dict) -> None:
    """Let pip see a release as installed."""
    site = next((python.parents[1] / "lib").glob("python3*/site-packages"))
    folder = site / f"{metadata['name'].replace('-', '_')}-{metadata['version']}.dist-info"
    folder.mkdir()
    requirements = "".join(f"Requires-Dist: {line}\n" for line in metadata.get("requires_dist", []))
    head = f"Metadata-Version: 2.1\nName: {metadata['name']}\nVersion: {metadata['version']}\n"
    (folder / "METADATA").write_text(head + requirements)
    (folder / "INSTALLER").write_text("pip\n")
    (folder / "RECORD").write_text("")


def beside(vllm: str) -> dict:
    """What `pip install '.[vllm]'` and `pip install .` would install or change of what a vLLM fixes."""
    pins = {"vllm": vllm, "transformers": VLLM_TRANSFORMERS[vllm], **VLLM_TORCH}
    with tempfile.TemporaryDirectory() as folder:
        python = environment(Path(folder) / "venv")
        for package, version in pins.items():
            pretend(python, describe(python, f"{package}=={version}"))
        result = {"there": pins}
        for target in (".", ".[vllm]"):
            report = json.loads(pip(python, "install", "--quiet", "--dry-run", "--report", "-", target))
            found = {item["metadata"]["name"].lower(): item["metadata"]["version"] for item in report["install"]}
            result[f"pip install {target} changes"] = {name: found[name] for name in KEPT if name in found}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n\n")[0])
    parser.add_argument("--corners", nargs="*", default=["lowest", "vllm", "newest"])
    parser.add_argument("--tests", nargs="*", default=[], help="folders of `tests/`, `.` for the files beside them")
    parser.add_argument("--processes", type=int, default=2, help="of pytest; 0 runs the tests in one")
    parser.add_argument("--fresh", action="store_true", help="forget environments and results of the corners")
    parser.add_argument("--beside", nargs="*", default=["0.31.0", "0.30.0"])
    args = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"corners": {}, "beside": {}}

    def keep(kind: str, name: str, result: dict) -> None:
        results[kind][name] = result
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

    for vllm in args.beside:
        keep("beside", vllm, beside(vllm))
    for name in args.corners:
        for result in run_corner(name, results["corners"].get(name, {}), args.tests, args.fresh, args.processes):
            keep("corners", name, result)
    print(json.dumps(results, indent=1))
    sys.exit(not all(results["corners"][name]["passed"] for name in args.corners))


if __name__ == "__main__":
    main()
