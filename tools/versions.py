# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""
Run the default tests with the oldest and the newest versions of what the package stands on, and see what pip would
change beside a vLLM that is already there.

    python tools/versions.py [--corners lowest vllm newest] [--beside 0.31.0 0.30.0]

Each corner is an environment of its own under `.venv-versions/`, a few GB, and takes as long as `make test`. `lowest`
has every requirement at the version that `setup.py` states as its least, `vllm` the torch and transformers that vLLM
0.31 asks for, `newest` whatever pip finds. The last result of each is kept in `tools/versions.json`. For `--beside`
nothing is installed: an empty environment is given the metadata of that vLLM and of its torch and transformers, and
pip is asked what `pip install '.[vllm]'` would do there.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_suffix(".json")
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


def run_corner(name: str) -> dict:
    """Install a corner and run the default tests there; the versions that ran and how the tests ended."""
    pins = {"lowest": least_versions(), "vllm": VLLM_TORCH | {"transformers": "5.17.0"}, "newest": {}}[name]
    folder = ROOT / ".venv-versions" / name
    python = environment(folder)
    (folder / "constraints.txt").write_text("".join(f"{package}=={version}\n" for package, version in pins.items()))
    constraints = str(folder / "constraints.txt")
    pip(python, "install", "--quiet", "--constraint", constraints, "--editable", ".[demo,test]")
    tests = [str(python), "-m", "pytest", "-q", "-m", "not slow and not vllm and not gpu", "-p", "no:cacheprovider"]
    ended = subprocess.run(tests, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    lines = ended.stdout.splitlines()
    installed = {package["name"]: package["version"] for package in json.loads(pip(python, "list", "--format=json"))}
    return {
        "passed": ended.returncode == 0,
        "summary": lines[-1].strip("= "),
        "failures": [line for line in lines if line.startswith(("FAILED", "ERROR"))],
        "versions": {package: installed[package] for package in sorted(installed) if package in least_versions()},
    }


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
    parser.add_argument("--beside", nargs="*", default=["0.31.0", "0.30.0"])
    args = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"corners": {}, "beside": {}}
    jobs = [("beside", vllm, beside) for vllm in args.beside] + [
        ("corners", name, run_corner) for name in args.corners
    ]
    for kind, name, job in jobs:
        results[kind][name] = job(name)
        print(name, json.dumps(results[kind][name], indent=1), flush=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    sys.exit(not all(results["corners"][name]["passed"] for name in args.corners))


if __name__ == "__main__":
    main()
